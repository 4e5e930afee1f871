"""Patients whose truth is known: who they are, what they have, what each examination would show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Literal

import numpy as np

from fabrica.errors import UsageError
from fabrica.phantom.findings import CONDITIONS, FINDINGS, PLACES, Spec

SITES = ("north", "south", "harbour")
SCANNERS = ("alpha", "beta", "gamma", "delta")
ANCESTRIES = ("african", "american", "east_asian", "european", "south_asian")
_TONE: Mapping[str, float] = MappingProxyType(  # mean of the Monk scale (1 light to 10 dark)
    {"african": 8.0, "american": 5.5, "east_asian": 3.5, "european": 2.5, "south_asian": 6.0}
)
_FIRST = (
    "Ada",
    "Bo",
    "Cleo",
    "Dag",
    "Eli",
    "Fay",
    "Gus",
    "Hal",
    "Ida",
    "Jon",
    "Kit",
    "Leo",
    "Mia",
    "Noa",
    "Ola",
    "Pia",
)
_LAST = ("Testman", "Phantom", "Sample", "Specimen", "Mockley", "Placeholder", "Dummett", "Fakenham", "Muster")
MOST = 3  # findings a picture


@dataclass(frozen=True, slots=True)
class Knobs:
    """What makes data hard; all off by default. Shares are probabilities from 0 to 1.

    `missing`: a report, label or test is not done, at random; `missing_by_severity`: not done more often the less
    ill the patient is (not at random); `label_noise`: a label in the record is flipped, the truth stays;
    `scanner_shift`: how far scanners differ in gain, gamma, blur and noise (1 = clearly visible);
    `site_confound`: log-odds by which findings are more common at the first site than at the last;
    `duplicates`, `near_duplicates`: a picture comes again under another patient, byte for byte or re-processed;
    `identifiers`: the patient's synthetic name and number are burnt into the picture or written in the report.
    """

    missing: float = 0.0
    missing_by_severity: float = 0.0
    label_noise: float = 0.0
    scanner_shift: float = 0.3
    site_confound: float = 0.0
    duplicates: float = 0.0
    near_duplicates: float = 0.0
    identifiers: float = 0.0

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            limit = 10.0 if f.name in ("scanner_shift", "site_confound") else 1.0
            if not 0 <= value <= limit:
                raise UsageError(f"knob {f.name} = {value!r}; wanted 0 to {limit:g}")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to be seen: `label`, where (`place` as reports say it, `side` of the picture, centre `x`, `y` in the
    unit square), its diameter `size_mm`, and its `severity` from 0 to 1."""

    label: str
    place: str
    side: str
    x: float
    y: float
    size_mm: float
    severity: float

    @property
    def grade(self) -> str:
        """The severity as a word."""
        return ("small", "moderate", "large")[min(int(self.severity * 3), 2)]


@dataclass(frozen=True, slots=True)
class Patient:
    """One synthetic person. `conditions` name -> severity in (0, 1]; `findings` modality -> what it would show.

    `skin_tone` on the Monk scale (1 to 10). `name` and `mrn` exist only to be planted and found again.
    """

    index: int
    seed: int
    age: int
    sex: Literal["F", "M"]
    ancestry: str
    skin_tone: int
    site: str
    scanner: str
    conditions: Mapping[str, float]
    findings: Mapping[str, tuple[Finding, ...]]

    @property
    def id(self) -> str:
        """The hospital's number of the patient."""
        return f"PH{self.seed % 1000:03d}{self.index:06d}"

    @property
    def name(self) -> str:
        """A made-up name."""
        return f"{_FIRST[self.index % len(_FIRST)]} {_LAST[(self.index // 7 + self.seed) % len(_LAST)]}"

    @property
    def mrn(self) -> str:
        """A made-up medical record number."""
        return f"{(self.index * 7919 + self.seed * 104729 + 1234567) % 10**7:07d}"

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator of its own for each purpose, the same on every machine and in every order."""
        return np.random.default_rng([self.seed, self.index, *purpose.encode()])

    @property
    def severity(self) -> float:
        """How ill the patient is as a whole, 0 to 1."""
        return min(1.0, sum(self.conditions.values()) / 2)


def patients(n: int, seed: int, *, knobs: Knobs = Knobs()) -> list[Patient]:
    """The first `n` patients of hospital `seed`; the first k of n are the k patients that `patients(k, seed)` gives.

    >>> a, b = patients(2, 0)
    >>> a == patients(1, 0)[0], a.id != b.id
    (True, True)
    """
    if n < 0 or seed < 0:
        raise UsageError(f"patients wants n >= 0 and seed >= 0, got n={n}, seed={seed}")
    return [patient(i, seed, knobs=knobs) for i in range(n)]


def patient(index: int, seed: int, *, knobs: Knobs = Knobs()) -> Patient:
    """Patient number `index` of hospital `seed`."""
    rng = np.random.default_rng([seed, index])
    age = int(np.clip(rng.normal(58, 16), 18, 95))
    sex: Literal["F", "M"] = "F" if rng.random() < 0.5 else "M"
    ancestry = ANCESTRIES[rng.integers(len(ANCESTRIES))]
    tone = int(np.clip(round(rng.normal(_TONE[ancestry], 1.2)), 1, 10))
    site = int(rng.integers(len(SITES)))
    scanner = SCANNERS[(site + int(rng.random() < 0.3)) % len(SCANNERS)]  # a site has a main scanner and a second one
    conditions = {}
    for name, c in CONDITIONS.items():
        odds = np.log(c.prevalence / (1 - c.prevalence)) + c.age * (age - 55) / 20
        draw, severity = rng.random(), rng.uniform(0.2, 1.0)
        if draw < 1 / (1 + np.exp(-odds)):
            conditions[name] = float(severity)
    shift = knobs.site_confound * (1 - site)
    found = {m: _findings(m, specs, conditions, rng, shift) for m, specs in FINDINGS.items()}
    return Patient(
        index, seed, age, sex, ancestry, tone, SITES[site], scanner,
        conditions, found,
    )  # fmt: skip


def _findings(
    modality: str, specs: Mapping[str, Spec], conditions: Mapping[str, float], rng: np.random.Generator, shift: float
) -> tuple[Finding, ...]:
    cells = PLACES[modality]
    places = [cells[i] for i in rng.permutation(len(cells))]
    found: list[Finding] = []
    for label in rng.permutation(list(specs)).tolist():
        spec, draw, severity = specs[label], rng.random(), float(rng.uniform(0.1, 1.0))
        low, high = spec.size_mm
        p = spec.prevalence + (spec.lift if spec.cause in conditions else 0.0)
        p = 1 / (1 + (1 - p) / p * np.exp(-shift))
        rival = any(f.label == spec.rival or specs[f.label].rival == label for f in found)
        if draw >= p or rival or len(found) >= MOST:
            continue
        if spec.where == "none":
            found.append(Finding(label, "", "", 0.5, 0.5, high, severity))
            continue
        place = places.pop()
        x, y = place.x + rng.uniform(-0.02, 0.02), place.y + rng.uniform(-0.02, 0.02)
        phrase = f"on the {place.side}" if spec.where == "side" else place.phrase
        size = low + (high - low) * severity
        found.append(Finding(label, phrase, place.side, float(x), float(y), float(size), severity))
    return tuple(found)
