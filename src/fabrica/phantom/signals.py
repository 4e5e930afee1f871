"""Synthetic 12-lead ECGs and laboratory values whose truth is the patient's latent state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError
from fabrica.phantom.findings import CONDITIONS
from fabrica.phantom.patients import Knobs, Patient
from fabrica.phantom.shapes import F32
from fabrica.types import Absent

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
_FULL = 500  # Hz at which everything is computed; lower rates take every k-th sample
# Dower's transform (Dower, Machado, Osborne 1980): Frank X (left), Y (down), Z (back) -> I, II, V1 to V6
_DOWER = np.array(
    [
        [0.632, -0.235, 0.059], [0.235, 1.066, -0.132], [-0.515, 0.157, -0.917], [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277], [1.213, 0.127, -0.601], [1.125, 0.127, -0.086], [0.831, 0.076, 0.230],
    ]
)  # fmt: skip
# Waves of a beat as Gaussian dipoles (after McSharry et al. 2003): seconds after the R peak, width s, (X, Y, Z) mV
_P = (-0.16, 0.024, (0.07, 0.13, -0.03))
_QRS = (
    (-0.028, 0.009, (-0.12, 0.04, -0.16)), (0.0, 0.011, (1.0, 0.85, 0.35)), (0.03, 0.011, (-0.12, -0.22, 0.42)),
)  # fmt: skip
_T = (0.27, 0.055, (0.26, 0.22, -0.18))


@dataclass(frozen=True, slots=True)
class Ecg:
    """`values` (12, samples) float32 mV in the order of LEADS, whole microvolts; `rate` Hz; the truth: `bpm`, times of
    the R peaks in seconds, labels of the rhythm."""

    values: F32
    rate: int
    bpm: float
    peaks: NDArray[np.float64]
    labels: tuple[str, ...]


def ecg(patient: Patient, *, rate: int = 500, seconds: float = 10.0) -> Ecg:
    """The patient's ECG. At 100 Hz it is every fifth sample of the one at 500 Hz; limb leads obey Einthoven's law.

    >>> from fabrica.phantom.patients import patient
    >>> e = ecg(patient(0, 0), rate=100)
    >>> e.values.shape, e.rate
    ((12, 1000), 100)
    """
    if rate < 50 or _FULL % rate or not 1 <= seconds <= 3600:
        raise UsageError(f"ecg wants a rate that divides {_FULL} Hz and 1 to 3600 seconds, got {rate} Hz, {seconds} s")
    rng = patient.rng("ecg")
    have = {f.label: f.severity for f in patient.findings["ecg"]}
    time = np.arange(round(seconds * _FULL)) / _FULL
    peaks, early = _rhythm(have, seconds, rng)
    heart = np.zeros((3, len(time)))
    size, axis = rng.uniform(0.75, 1.2), rng.normal(0, 0.12, (3, 1))
    gaps = np.diff(peaks, prepend=peaks[0] - (peaks[1] - peaks[0]))
    for peak, gap, ectopic in zip(peaks, gaps, early, strict=True):
        _beat(heart, time, peak, gap, have, ectopic=bool(ectopic))
    if "atrial_fibrillation" in have:
        wave = np.sin(2 * np.pi * rng.uniform(5, 7.5) * time + 2 * np.sin(2 * np.pi * 0.4 * time))
        heart += 0.07 * wave * np.array([[0.3], [0.8], [-0.9]])
    heart = heart * size * (1 + axis)
    i, ii, *chest = _DOWER @ heart
    drift = 0.08 * np.sin(2 * np.pi * (rng.uniform(0.15, 0.35, (8, 1)) * time + rng.random((8, 1))))
    noise = 0.012 * rng.standard_normal((8, len(time))) + 0.006 * np.sin(2 * np.pi * 50 * time)
    i, ii, *chest = np.stack([i, ii, *chest]) + drift + noise
    i, ii = (np.rint(1000 * x / 2) * 2 / 1000 for x in (i, ii))  # even microvolts: the derived leads are whole too
    leads = np.stack([i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2, *chest])
    values = (np.rint(leads * 1000) / 1000).astype(np.float32)[:, :: _FULL // rate]
    inside = peaks[(peaks >= 0) & (peaks < seconds)]
    return Ecg(values, rate, float(60 / np.diff(inside).mean()), inside, tuple(have))


def _rhythm(
    have: Mapping[str, float], seconds: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Times of the R peaks from before the start to after the end, and which of them come too early."""
    bpm = rng.uniform(62, 95)
    if "tachycardia" in have:
        bpm = 108 + 37 * have["tachycardia"]
    elif "bradycardia" in have:
        bpm = 54 - 14 * have["bradycardia"]
    n = int(seconds * bpm / 60) + 6
    spread = 0.2 if "atrial_fibrillation" in have else 0.025
    gaps = 60 / bpm * np.clip(1 + spread * rng.standard_normal(n), 0.6, 1.5)
    gaps *= 60 / bpm / gaps.mean()
    early = np.zeros(n, bool)
    if "premature_beats" in have:
        first, every = int(rng.integers(3, 5)), int(rng.integers(3, 6))
        early[first:-1:every] = True
        cut = 0.4 * gaps[early]
        gaps[early] -= cut
        gaps[np.flatnonzero(early) + 1] += cut  # the compensatory pause
    return np.cumsum(gaps) - gaps[0] - rng.uniform(0.2, 1) * 60 / bpm, early


def _beat(
    heart: NDArray[np.float64], time: NDArray[np.float64], peak: float, gap: float, have: Mapping[str, float], *,
    ectopic: bool,
) -> None:  # fmt: skip
    """Add the waves of one beat in place."""
    wide = 2.6 if ectopic else 2.1 if "bundle_branch_block" in have else 1.0
    late = _T[0] * np.sqrt(np.clip(gap, 0.4, 1.2) / 0.85)
    turn = -1.0 if wide > 1 else 1.0  # repolarisation opposes a wide complex
    waves = [(d * wide, w * wide, np.array(v) * (1.5 if ectopic else 0.9 if wide > 1 else 1)) for d, w, v in _QRS]
    waves.append((late, _T[1], np.array(_T[2]) * turn * (1.4 if wide > 1 else 1)))
    if not ectopic and "atrial_fibrillation" not in have:
        waves.append((_P[0] * np.sqrt(np.clip(gap, 0.4, 1.2) / 0.85), _P[1], np.array(_P[2])))
    if "st_elevation" in have and not ectopic:
        lift = (0.12 + 0.2 * have["st_elevation"]) * np.array([0.5, 0.3, -1.0])
        waves += [(d, 0.035, lift) for d in (0.08, 0.13, 0.18)]
    for delay, width, vector in waves:
        a, b = np.searchsorted(time, [peak + delay - 4 * width, peak + delay + 4 * width])
        heart[:, a:b] += vector[:, None] * np.exp(-0.5 * ((time[a:b] - peak - delay) / width) ** 2)


# ---------------------------------------------------------------- laboratory


@dataclass(frozen=True, slots=True)
class Lab:
    """A test: unit, reference range, whether it is log-normal, and by how many standard deviations each condition at
    full severity shifts it. The range spans the central 95 % of the healthy."""

    unit: str
    low: float
    high: float
    skewed: bool = False
    shifts: Mapping[str, float] = field(default_factory=dict)


LABS: Mapping[str, Lab] = MappingProxyType(
    {
        "haemoglobin": Lab("g/L", 120, 170, shifts={"anaemia": -5, "renal_failure": -1.5, "cancer": -1}),
        "leukocytes": Lab("10^9/L", 4, 10, True, {"infection": 4, "smoking": 0.7}),
        "platelets": Lab("10^9/L", 150, 400, shifts={"infection": 1, "cancer": 1}),
        "sodium": Lab("mmol/L", 135, 145, shifts={"heart_failure": -1.5}),
        "potassium": Lab("mmol/L", 3.5, 5.1, shifts={"renal_failure": 3}),
        "creatinine": Lab("umol/L", 50, 105, True, {"renal_failure": 8, "heart_failure": 1}),
        "glucose": Lab("mmol/L", 3.9, 6.1, True, {"diabetes": 6}),
        "hba1c": Lab("%", 4.5, 5.9, shifts={"diabetes": 7}),
        "crp": Lab("mg/L", 0.3, 5, True, {"infection": 5, "cancer": 1.5}),
        "bnp": Lab("ng/L", 10, 100, True, {"heart_failure": 5, "atrial_fibrillation": 1.5}),
        "troponin": Lab("ng/L", 1, 14, True, {"heart_failure": 1.5, "renal_failure": 1}),
        "lactate": Lab("mmol/L", 0.5, 2, True, {"infection": 1.5}),
    }
)


def labs(patient: Patient, *, knobs: Knobs = Knobs()) -> dict[str, float | Absent]:
    """One value a test, three significant digits, or why there is none. Knob `missing` drops tests at random,
    `missing_by_severity` drops them where the patient is well.

    >>> from fabrica.phantom.patients import patient
    >>> sorted(labs(patient(0, 0))) == sorted(LABS)
    True
    """
    rng = patient.rng("labs")
    out: dict[str, float | Absent] = {}
    for name, lab in LABS.items():
        z, draw = rng.standard_normal(), rng.random()
        z += sum(lab.shifts.get(c, 0.0) * patient.conditions.get(c, 0.0) for c in CONDITIONS)
        low, high = (np.log(lab.low), np.log(lab.high)) if lab.skewed else (lab.low, lab.high)
        value = (low + high) / 2 + z * (high - low) / 3.92
        value = float(np.exp(value)) if lab.skewed else max(value, lab.low * 0.2)
        out[name] = Absent.NOT_DONE if draw < skipped(patient, knobs) else float(f"{value:.3g}")
    return out


def skipped(patient: Patient, knobs: Knobs) -> float:
    """The probability that something is not done for this patient."""
    return 1 - (1 - knobs.missing) * (1 - knobs.missing_by_severity * (1 - patient.severity))
