"""Names of medical findings: a small table of common ones, and a matcher that finds names of any such table in text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

Names = Mapping[str, Sequence[str]]  # label -> its names, the preferred one first

FINDINGS: Names = MappingProxyType(
    {
        # chest
        "effusion": ("pleural effusion", "effusion", "pleural fluid", "hydrothorax", "blunted costophrenic angle"),
        "pneumothorax": ("pneumothorax", "collapsed lung"),
        "pneumonia": ("pneumonia", "pulmonary infection", "bronchopneumonia"),
        "consolidation": ("consolidation", "airspace opacity", "airspace disease", "infiltrate"),
        "atelectasis": ("atelectasis", "volume loss", "subsegmental collapse"),
        "edema": ("pulmonary edema", "pulmonary oedema", "vascular congestion", "interstitial edema"),
        "cardiomegaly": ("cardiomegaly", "enlarged heart", "enlarged cardiac silhouette", "cardiac enlargement"),
        "nodule": ("pulmonary nodule", "lung nodule", "nodule", "coin lesion"),
        "mass": ("mass", "tumour", "tumor", "neoplasm"),
        "cavity": ("cavity", "cavitary lesion", "cavitation"),
        "emphysema": ("emphysema", "hyperinflation", "bulla"),
        "fibrosis": ("fibrosis", "interstitial scarring", "honeycombing"),
        "pleural_thickening": ("pleural thickening",),
        "granuloma": ("granuloma", "calcified granuloma"),
        "embolism": ("pulmonary embolism", "pulmonary embolus", "filling defect"),
        "lymphadenopathy": ("lymphadenopathy", "adenopathy", "enlarged lymph nodes"),
        "hernia": ("hiatal hernia", "hernia"),
        "aneurysm": ("aneurysm", "aortic dilatation"),
        "pericardial_effusion": ("pericardial effusion", "pericardial fluid"),
        "tuberculosis": ("tuberculosis",),
        # skeleton
        "fracture": ("fracture", "broken bone"),
        "dislocation": ("dislocation", "subluxation"),
        "scoliosis": ("scoliosis", "spinal curvature"),
        "degenerative_change": ("degenerative change", "osteophyte", "spondylosis", "osteoarthritis"),
        # abdomen
        "ascites": ("ascites", "free fluid", "peritoneal fluid"),
        "gallstone": ("gallstone", "cholelithiasis", "calculus"),
        "cholecystitis": ("cholecystitis",),
        "hydronephrosis": ("hydronephrosis",),
        "hepatomegaly": ("hepatomegaly", "enlarged liver"),
        "splenomegaly": ("splenomegaly", "enlarged spleen"),
        "appendicitis": ("appendicitis",),
        "obstruction": ("bowel obstruction", "ileus"),
        "free_air": ("free air", "pneumoperitoneum"),
        "polyp": ("polyp",),
        "cyst": ("cyst", "cystic lesion"),
        # head, eye
        "haemorrhage": ("haemorrhage", "hemorrhage", "haematoma", "hematoma", "bleed"),
        "infarct": ("infarct", "infarction", "stroke"),
        "hydrocephalus": ("hydrocephalus", "ventricular enlargement"),
        "midline_shift": ("midline shift",),
        "exudate": ("hard exudate", "exudate"),
        "microaneurysm": ("microaneurysm",),
        # heart rhythm
        "atrial_fibrillation": ("atrial fibrillation",),
        "bundle_branch_block": ("bundle branch block",),
        "ischaemia": ("ischaemia", "ischemia"),
        # symptoms and signs
        "fever": ("fever", "pyrexia", "febrile"),
        "cough": ("cough",),
        "dyspnoea": ("dyspnoea", "dyspnea", "shortness of breath"),
        "chest_pain": ("chest pain",),
        "abdominal_pain": ("abdominal pain",),
        "headache": ("headache",),
        "nausea": ("nausea",),
        "vomiting": ("vomiting", "emesis"),
        "diarrhoea": ("diarrhoea", "diarrhea"),
        "syncope": ("syncope", "loss of consciousness"),
        "palpitations": ("palpitation",),
        "wheeze": ("wheeze", "wheezing"),
        "cyanosis": ("cyanosis",),
        "jaundice": ("jaundice", "icterus"),
        "rash": ("rash",),
        "infection": ("infection", "sepsis"),
        "metastasis": ("metastasis", "metastases", "metastatic disease"),
    }
)


def found(text: str, names: Names = FINDINGS) -> Iterator[tuple[str, int, int]]:
    """(label, start, end) of every name in `text`, longest first at each place, whole words, plural or not.

    >>> [(label, "Small effusions, no coin lesion."[a:b]) for label, a, b in found("Small effusions, no coin lesion.")]
    [('effusion', 'effusions'), ('nodule', 'coin lesion')]
    """
    pattern, owner = matcher(tuple((k, tuple(v)) for k, v in names.items()))
    for match in pattern.finditer(text.lower()):
        yield owner[" ".join(match[1].split())], match.start(), match.end()


@lru_cache(maxsize=64)
def matcher(names: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern of all names and name -> label. `ValueError` where a name belongs to two labels."""
    owner: dict[str, str] = {}
    for label, synonyms in names:
        for name in synonyms:
            key = " ".join(name.lower().split())
            if owner.setdefault(key, label) != label:
                raise ValueError(f"{name!r} names both {owner[key]!r} and {label!r}")
    for name in [n for n in owner if n.endswith("y")]:
        owner.setdefault(name[:-1] + "ie", owner[name])  # cavity, cavities
    for name in [n for n in owner if n.endswith("is")]:
        owner.setdefault(name[:-2] + "e", owner[name])  # metastasis, metastases
    if not owner:
        return re.compile(r"(?!)()"), {}
    longest = sorted(owner, key=lambda n: (-len(n), n))
    either = "|".join(re.escape(n).replace(r"\ ", r"\s+") for n in longest)
    return re.compile(rf"(?<![\w-])({either})(?:e?s)?(?![\w-])"), owner
