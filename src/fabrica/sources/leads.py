"""Recorded channels -> signal items: one item for the channels that share kind, rate and unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.types import Item, Origin

_ECG = re.compile(
    r"^(ecg|ekg)|^(i|ii|iii|av[rlf]|v|v[1-9]r?|v[xyz]|ml(i|ii|iii)|mcl?[1-6]?|mv[1-6]|cm[1-5]|d[1-4])$", re.I
)
_EEG = re.compile(r"^eeg|^(fp|af|f|fc|ft|c|cp|t|tp|p|po|o)(z|[0-9]{1,2})([-_ ].*)?$", re.I)
_UNITS = {"uv": "uV", "µv": "uV", "mv": "mV", "v": "V", "nu": "NU"}


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel: physical values (samples,), its name, unit ("" = none) and rate in Hz."""

    name: str
    unit: str
    rate: float
    values: NDArray[Any]


def role(name: str) -> str:
    """What a channel is by its name.

    >>> role("MLII"), role("ECG lead II"), role("Fp2-F4"), role("EEG Fpz-Cz"), role("ABP")
    ('ecg', 'ecg', 'eeg', 'eeg', 'signal')
    """
    name = name.strip()
    return "ecg" if _ECG.search(name) else "eeg" if _EEG.search(name) else "signal"


def items(channels: Sequence[Channel], origin: Origin) -> dict[str, tuple[Item, ...]]:
    """Signal items by role, (leads, samples) float32, channels in their order; NaN marks samples that the file marks
    invalid."""
    groups: dict[tuple[str, float, str, int], list[Channel]] = {}
    for c in channels:
        unit = _UNITS.get(c.unit.strip().lower(), c.unit.strip())
        groups.setdefault((role(c.name), c.rate, unit, len(c.values)), []).append(c)
    found: dict[str, list[Item]] = {}
    for (what, rate, unit, _), members in groups.items():
        value = np.stack([c.values for c in members]).astype(np.float32)
        names = tuple(c.name.strip() for c in members)
        found.setdefault(what, []).append(
            Item("signal", value, origin, unit=unit or None, rate=float(rate), names=names)
        )
    return {what: tuple(found[what]) for what in ("ecg", "eeg", "signal") if what in found}


def modality(found: dict[str, tuple[Item, ...]]) -> str:
    """The record's modality: that of its first present role."""
    return next(iter(found), "")
