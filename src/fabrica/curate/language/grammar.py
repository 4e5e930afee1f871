"""The rule grammar of label captions: names of labels, frames of sentences, and how a caption is read back."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Protocol, runtime_checkable

from fabrica.errors import UsageError, unknown

IMAGE_NAMES: Mapping[str, tuple[str, ...]] = {  # groups["modality"] -> what such an observation is called
    "xray": ("X-ray", "radiograph", "plain film"),
    "ct": ("CT scan", "CT image", "computed tomography image"),
    "mr": ("MRI", "MR image", "magnetic resonance image"),
    "ultrasound": ("ultrasound image", "sonogram", "ultrasound scan"),
    "pathology": ("histology image", "tissue micrograph", "pathology image"),
    "fundus": ("fundus photograph", "retinal photograph", "fundus image"),
    "nuclear": ("nuclear medicine image", "scintigram"),
    "dermoscopy": ("dermoscopy image", "skin lesion photograph"),
    "oct": ("OCT scan", "optical coherence tomography image"),
    "endoscopy": ("endoscopy image", "endoscopic view"),
    "mammography": ("mammogram", "mammography image"),
    "ecg": ("ECG", "electrocardiogram", "ECG recording"),
    "eeg": ("EEG", "electroencephalogram", "EEG recording"),
}

FRAMES = (
    "{image} showing {findings}.",
    "{image} with {findings}.",
    "{findings} on {image}.",
    "{image}: {findings}.",
    "This {image} demonstrates {findings}.",
    "The {image} shows {findings}.",
    "Evidence of {findings} on this {image}.",
    "{image} consistent with {findings}.",
    "{findings} seen on this {image}.",
    "Findings on the {image} include {findings}.",
    "{image} revealing {findings}.",
    "Appearances on the {image} are those of {findings}.",
)
NORMAL_FRAMES = (
    "Normal {image}.",
    "Unremarkable {image}.",
    "{image} within normal limits.",
    "{image} without abnormality.",
    "No abnormality on this {image}.",
    "No acute findings on the {image}.",
    "{image} with no abnormal findings.",
    "The {image} shows no abnormality.",
    "Healthy appearances on this {image}.",
    "Nothing abnormal is seen on the {image}.",
)
ABSENT_FRAMES = (
    "{image} without {findings}.",
    "No {findings} on this {image}.",
    "No evidence of {findings} on the {image}.",
    "The {image} shows no {findings}.",
    "{image} negative for {findings}.",
    "There is no {findings} on this {image}.",
)
DENIALS = ("No {}.", "No evidence of {}.", "There is no {}.", "Negative for {}.", "Without {}.")

_CUES = re.compile(r"\b(?:no|not|without|negative for|free of|absence of|never|neither|nor)\b")
_NORMAL = re.compile(
    r"\bnormal (?!findings)|\bunremarkable\b|\bwithin normal limits\b|\b(?:no|without) (?:an )?abnormality\b|"
    r"\bno (?:acute|abnormal) findings\b|\bhealthy\b|\bnothing abnormal\b"
)
_CLAUSE = re.compile(r"[.;\n]+(?=\s|$)|\bbut\b|\bhowever\b")


@dataclass(frozen=True, kw_only=True)
class LabelSchema:
    """What the labels of one data set mean, so that captions can be made of them.

    `modality` is the records' `groups["modality"]`, `source` the data set they come from ("" = any). `labels` maps
    each label to noun phrases without article, the usual one first ({"pneumonia": ("pneumonia", "pulmonary
    infection")}). `normal` is the label that says that nothing was found, if there is one: only with it does a
    caption call an image normal, since labels that are all 0 may leave other things out. Labels in `ignore` make no
    captions; any other label of a record is an error. `organ` stands in the captions ("chest"); `image_names`
    replace the modality's own names.

    >>> s = LabelSchema(modality="xray", organ="chest", labels={"effusion": ("pleural effusion",)}, normal="normal")
    >>> s.images[:2]
    ('chest X-ray', 'X-ray of the chest')
    """

    modality: str
    labels: Mapping[str, Sequence[str]]
    organ: str = ""
    normal: str | None = None
    source: str = ""
    ignore: Sequence[str] = ()
    image_names: Sequence[str] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        if not self.image_names and self.modality not in IMAGE_NAMES:
            raise unknown("modality with names for its images", self.modality, IMAGE_NAMES)
        owner: dict[str, str] = {}
        for label, names in self.labels.items():
            if isinstance(names, str) or not names or not all(names):
                raise UsageError(f"label {label!r} of the schema has the names {names!r}; wanted a list of phrases")
            for name in () if label == self.normal else names:
                self._check_name(label, name.lower(), owner)

    def _check_name(self, label: str, name: str, owner: dict[str, str]) -> None:
        """A caption that says `name` must read back as `label` and nothing else."""
        if owner.setdefault(name, label) != label:
            raise UsageError(
                f"schema: {name!r} names both {owner[name]!r} and {label!r}; no caption could tell them apart"
            )
        if _CUES.search(name) or _NORMAL.search(name + " ") or _CLAUSE.search(name):
            raise UsageError(
                f"schema: {name!r} of {label!r} holds a negation or ends a sentence; say what is there, and name the "
                "label that means nothing was found in `normal`"
            )
        if any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", image.lower()) for image in self.images):
            raise UsageError(
                f"schema: {name!r} of {label!r} stands in the image's own name; every caption would say it"
            )

    @cached_property
    def images(self) -> tuple[str, ...]:
        """All names of the image."""
        names = tuple(self.image_names) or IMAGE_NAMES[self.modality]
        if not self.organ:
            return names
        return tuple(text for name in names for text in (f"{self.organ} {name}", f"{name} of the {self.organ}"))


@runtime_checkable
class Bank(Protocol):
    """Writes captions; `TemplateBank` by rules, others by a language model (cached by schema and labels)."""

    name: str
    version: str

    def size(self, schema: LabelSchema, present: Sequence[str]) -> int:
        """How many captions there are for a set of labels; fewer than 2 make the step warn."""
        ...

    def write(
        self, schema: LabelSchema, present: Sequence[str], absent: Sequence[str], count: int, rng: random.Random
    ) -> list[str]:
        """Up to `count` distinct captions that name all of `present` and deny `absent`; without any present, captions
        that call the image normal where the schema has a label for that, and else deny `absent` alone."""
        ...


@dataclass
class TemplateBank:
    """Synonyms x frames x names of the image: needs no model and no network.

    >>> schema = LabelSchema(modality="xray", organ="chest", labels={"effusion": ("effusion", "pleural fluid")})
    >>> bank = TemplateBank()
    >>> bank.size(schema, ["effusion"])
    144
    >>> captions = bank.write(schema, ["effusion"], [], 2, random.Random(0))
    >>> [read_back(caption, schema) for caption in captions]
    [{'effusion': True}, {'effusion': True}]
    """

    frames: tuple[str, ...] = FRAMES
    normal_frames: tuple[str, ...] = NORMAL_FRAMES
    absent_frames: tuple[str, ...] = ABSENT_FRAMES
    name: str = field(default="template", init=False)
    version: str = field(default="1", init=False)

    def size(self, schema: LabelSchema, present: Sequence[str]) -> int:
        """Distinct captions without denials and without regard to the order of several findings."""
        total = len(schema.images) * len(self.frames if present else self.normal_frames)
        for label in present:
            total *= len(schema.labels[label])
        return total

    def write(
        self, schema: LabelSchema, present: Sequence[str], absent: Sequence[str], count: int, rng: random.Random
    ) -> list[str]:
        """`count` distinct captions, or as many as there are."""
        out: dict[str, None] = {}
        bare = not present and schema.normal is None
        frames = self.absent_frames if bare else self.frames if present else self.normal_frames
        for _ in range(8 * count):
            frame = rng.choice(frames)
            said = rng.sample(list(absent if bare else present), len(absent if bare else present))
            image, names = rng.choice(schema.images), _joined(schema, said, "or" if bare else "and", rng)
            text = frame.format(image=image, findings=names)
            if absent and not bare:
                denied = _joined(schema, rng.sample(list(absent), len(absent)), "or", rng)
                text += " " + rng.choice(DENIALS).format(denied)
            out.setdefault(text[0].upper() + text[1:])
            if len(out) == count:
                break
        return list(out)


def _joined(schema: LabelSchema, labels: Sequence[str], last: str, rng: random.Random) -> str:
    names = [rng.choice(list(schema.labels[label])) for label in labels]
    return f" {last} ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def read_back(caption: str, schema: LabelSchema) -> dict[str, bool]:
    """What a caption says: label -> there or denied; the inverse of the grammar. A label not named is not in it.

    A negation holds to the end of its clause; `normal` is True where the caption says that nothing is abnormal.
    A label that is asserted anywhere is there.

    >>> s = LabelSchema(modality="xray", labels={"mass": ("mass",), "edema": ("edema",)}, normal="normal")
    >>> read_back("X-ray with mass. No evidence of edema.", s), read_back("Unremarkable radiograph.", s)
    ({'mass': True, 'edema': False}, {'normal': True})
    """
    said: dict[str, bool] = {}
    pattern, owner = _matcher(tuple((k, tuple(v)) for k, v in schema.labels.items() if k != schema.normal))
    for clause in _CLAUSE.split(caption.lower()):
        if schema.normal is not None and _NORMAL.search(clause):
            said[schema.normal] = True
        for label, denied in _mentions(clause, pattern, owner):
            said[label] = said.get(label, False) or not denied
    return said


def _mentions(clause: str, pattern: re.Pattern[str], owner: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    cue = _CUES.search(clause)
    for mention in pattern.finditer(clause):
        yield owner[mention[1]], cue is not None and cue.start() < mention.start()


@lru_cache(maxsize=64)
def _matcher(labels: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    owner = {name.lower(): label for label, names in labels for name in names}
    longest = sorted(owner, key=lambda name: (-len(name), name))
    if not owner:
        return re.compile(r"(?!)()"), {}
    return re.compile(r"(?<!\w)(" + "|".join(map(re.escape, longest)) + r")(?!\w)"), owner
