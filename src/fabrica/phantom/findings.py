"""What can be found where in the phantom hospital: conditions, findings of each modality, their names and places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from fabrica.errors import unknown

Where = Literal["cell", "side", "none"]


@dataclass(frozen=True, slots=True)
class Condition:
    """A state of the whole patient: how common it is at 55 years, and by how much its log-odds rise per 20 years."""

    prevalence: float
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class Spec:
    """One finding of one modality: `names` (the preferred one first), how common it is (`prevalence` alone, `lift`
    added where `cause` is present), whether it has a cell, only a side or no place, its diameter in mm, and the
    finding that it cannot stand beside."""

    names: tuple[str, ...]
    prevalence: float = 0.22
    cause: str = ""
    lift: float = 0.0
    where: Where = "cell"
    size_mm: tuple[float, float] = (10.0, 25.0)
    rival: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A cell that reports can name: `phrase`, the side it lies on, and its centre (x, y) in the unit square."""

    phrase: str
    side: str
    x: float
    y: float


CONDITIONS: Mapping[str, Condition] = MappingProxyType(
    {
        "heart_failure": Condition(0.15, 0.8),
        "infection": Condition(0.20),
        "atrial_fibrillation": Condition(0.15, 0.9),
        "renal_failure": Condition(0.12, 0.4),
        "anaemia": Condition(0.15, 0.2),
        "diabetes": Condition(0.20, 0.5),
        "smoking": Condition(0.25),
        "cancer": Condition(0.12, 0.6),
    }
)

FINDINGS: Mapping[str, Mapping[str, Spec]] = MappingProxyType(
    {
        "xray": {
            "nodule": Spec(("pulmonary nodule", "round opacity", "coin lesion"), 0.18, "cancer", 0.4, size_mm=(16, 32)),
            "cavity": Spec(
                ("cavity", "cavitary lesion", "thick-walled lucency"),
                0.15, "infection", 0.2, size_mm=(20, 36),
            ),
            "consolidation": Spec(
                ("consolidation", "airspace opacity", "pneumonic infiltrate"), 0.12, "infection", 0.5, size_mm=(35, 60)
            ),
            "effusion": Spec(
                ("pleural effusion", "pleural fluid", "blunted costophrenic angle"), 0.12, "heart_failure", 0.5, "side"
            ),
            "atelectasis": Spec(("plate atelectasis", "linear band", "streaky volume loss"), 0.18, size_mm=(35, 60)),
            "cardiomegaly": Spec(
                ("cardiomegaly", "enlarged heart", "widened cardiac silhouette"), 0.12, "heart_failure", 0.6, "none"
            ),
        },
        "ct": {
            "nodule": Spec(
                ("pulmonary nodule", "solid round lesion", "spherical mass"),
                0.18, "cancer", 0.4, size_mm=(16, 32),
            ),
            "cavity": Spec(
                ("cavity", "ring-shaped lesion", "excavated lesion"),
                0.15, "infection", 0.2, size_mm=(20, 36),
            ),
            "consolidation": Spec(
                ("consolidation", "dense airspace disease", "lobar opacification"),
                0.15, "infection", 0.4, size_mm=(35, 60),
            ),
            "bulla": Spec(("bulla", "emphysematous bubble", "air cyst"), 0.15, "smoking", 0.3, size_mm=(28, 50)),
            "effusion": Spec(
                ("pleural effusion", "layering pleural fluid", "hydrothorax"), 0.12, "heart_failure", 0.5, "side"
            ),
        },
        "mr": {
            "tumour": Spec(("brain tumour", "ring-enhancing mass", "glioma"), 0.18, "cancer", 0.3, size_mm=(22, 36)),
            "infarct": Spec(
                ("infarct", "wedge-shaped ischaemia", "territorial stroke"),
                0.15, "atrial_fibrillation", 0.4, size_mm=(35, 55),
            ),
            "white_matter_lesion": Spec(
                ("white matter lesion", "demyelinating plaque", "punctate hyperintensity"), 0.22, size_mm=(18, 30)
            ),
            "haemorrhage": Spec(("haemorrhage", "blood product", "haematoma"), 0.2, size_mm=(16, 30)),
            "hydrocephalus": Spec(
                ("hydrocephalus", "ventricular enlargement", "dilated ventricles"), 0.22, where="none"
            ),
        },
        "ultrasound": {
            "cyst": Spec(("cyst", "anechoic lesion", "fluid-filled sac"), 0.25, size_mm=(14, 28)),
            "mass": Spec(
                ("solid mass", "hypoechoic lesion", "ill-defined tumour"),
                0.18, "cancer", 0.4, size_mm=(16, 30),
            ),
            "calculus": Spec(
                ("calculus", "shadowing stone", "echogenic stone"),
                0.2, "renal_failure", 0.3, size_mm=(7, 12),
            ),
            "haemangioma": Spec(("haemangioma", "hyperechoic nodule", "bright round focus"), 0.22, size_mm=(12, 22)),
            "free_fluid": Spec(("free fluid", "ascites", "peritoneal fluid"), 0.15, "heart_failure", 0.4, "none"),
        },
        "pathology": {
            "carcinoma": Spec(
                ("carcinoma", "malignant cell nest", "atypical epithelium"),
                0.2, "cancer", 0.5, size_mm=(0.13, 0.22),
            ),
            "inflammation": Spec(
                ("inflammation", "lymphocytic infiltrate", "inflammatory cell cluster"),
                0.2, "infection", 0.3, size_mm=(0.11, 0.2),
            ),
            "necrosis": Spec(("necrosis", "acellular debris", "ghost-cell area"), 0.2, size_mm=(0.13, 0.22)),
            "fibrosis": Spec(("fibrosis", "collagen band", "scar tissue"), 0.22, size_mm=(0.14, 0.24)),
            "steatosis": Spec(
                ("steatosis", "fat vacuoles", "lipid droplets"),
                0.18, "diabetes", 0.3, size_mm=(0.13, 0.22),
            ),
        },
        "fundus": {
            "haemorrhage": Spec(
                ("retinal haemorrhage", "blot bleed", "intraretinal blood"),
                0.15, "diabetes", 0.45, size_mm=(2, 3.6),
            ),
            "exudate": Spec(
                ("hard exudate", "lipid ring", "circinate deposit"),
                0.15, "diabetes", 0.4, size_mm=(2.6, 4.4),
            ),
            "cotton_wool_spot": Spec(
                ("cotton wool spot", "soft exudate", "fluffy white patch"), 0.18, "diabetes", 0.2, size_mm=(1.8, 3)
            ),
            "drusen": Spec(("drusen", "macular deposit", "yellow subretinal dots"), 0.25, where="none"),
            "cupping": Spec(
                ("optic disc cupping", "enlarged cup", "glaucomatous excavation"), 0.25, where="none"
            ),
        },
        "ecg": {
            "atrial_fibrillation": Spec(
                ("atrial fibrillation", "chaotic atrial activity", "irregularly irregular rhythm"),
                0.04, "atrial_fibrillation", 0.86, "none",
            ),
            "tachycardia": Spec(("tachycardia", "fast ventricular rate"), 0.12, "infection", 0.5, "none"),
            "bradycardia": Spec(("bradycardia", "slow ventricular rate"), 0.15, where="none", rival="tachycardia"),
            "st_elevation": Spec(("st elevation", "raised st segments", "anterior injury current"), 0.15, where="none"),
            "premature_beats": Spec(
                ("premature beats", "ventricular extrasystoles", "ectopic beats"),
                0.2, where="none", rival="atrial_fibrillation",
            ),
            "bundle_branch_block": Spec(
                ("bundle branch block", "widened qrs complexes", "intraventricular conduction delay"),
                0.12, "heart_failure", 0.3, "none", rival="st_elevation",
            ),
        },
    }
)  # fmt: skip


def _grid(
    sides: tuple[str, ...], rows: tuple[str, ...], form: str, xs: tuple[float, ...], ys: tuple[float, ...]
) -> tuple[Place, ...]:
    return tuple(
        Place(form.format(side=s, row=r), s, x, y)
        for s, x in zip(sides, xs, strict=True)
        for r, y in zip(rows, ys, strict=True)
    )


# Sides are the patient's own in xray, ct and mr (the patient's left is the picture's right), the picture's elsewhere.
_BOTH = ("left", "right")
_SELF, _ROWS = (0.72, 0.28), (0.27, 0.5, 0.72)
PLACES: Mapping[str, tuple[Place, ...]] = MappingProxyType(
    {
        "xray": _grid(_BOTH, ("upper", "middle", "lower"), "in the {side} {row} zone", _SELF, (0.27, 0.48, 0.68)),
        "ct": _grid(_BOTH, ("anterior", "posterior"), "in the {side} {row} lung", (0.71, 0.29), (0.4, 0.6)),
        "mr": _grid(_BOTH, ("frontal", "parietal", "occipital"), "in the {side} {row} lobe", (0.69, 0.31), _ROWS),
        "ultrasound": _grid(_BOTH, ("shallow", "deep"), "at {row} depth on the {side}", (0.36, 0.64), (0.4, 0.66)),
        "pathology": _grid(_BOTH, ("upper", "lower"), "in the {side} {row} field", (0.28, 0.72), (0.28, 0.72)),
        "fundus": _grid(_BOTH, ("superior", "inferior"), "in the {side} {row} quadrant", (0.33, 0.62), (0.3, 0.7)),
        "ecg": (),
    }
)  # fmt: skip

IMAGING = ("xray", "ct", "mr", "ultrasound", "pathology", "fundus")
MODALITIES = (*FINDINGS, "labs")
FIELD_MM: Mapping[str, float] = MappingProxyType(  # width of the whole picture in mm
    {"xray": 320.0, "ct": 340.0, "mr": 220.0, "ultrasound": 130.0, "pathology": 0.64, "fundus": 14.0}
)


def labels(modality: str) -> tuple[str, ...]:
    """The findings that a modality can show; for "labs" the conditions of the patient.

    >>> labels("ct")
    ('nodule', 'cavity', 'consolidation', 'bulla', 'effusion')
    """
    if modality not in MODALITIES:
        raise unknown("modality", modality, MODALITIES)
    if modality == "labs":
        return tuple(CONDITIONS)
    return tuple(FINDINGS[modality])


def names(modality: str) -> dict[str, tuple[str, ...]]:
    """Label -> its synonyms, the vocabulary of `captions.labels_of` and of caption banks.

    >>> names("ultrasound")["cyst"][0]
    'cyst'
    """
    if modality == "labs":
        return {label: (label.replace("_", " "),) for label in CONDITIONS}
    return {label: FINDINGS[modality][label].names for label in labels(modality)}
