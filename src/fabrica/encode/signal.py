"""Signals to (leads, samples) float32: one rate, leads by name, a fixed length in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fabrica.encode import Plain
from fabrica.errors import Refused, UsageError
from fabrica.types import Item

_TO_MV = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "v": 1e3, "nv": 1e-6}


@dataclass(frozen=True, slots=True)
class SignalEncode(Plain):
    """A signal (leads, samples) with its rate -> (len(leads), round(rate * seconds)) float32.

    `rate` in Hz (polyphase resampling with its anti-alias filter), `leads` by name, case ignored; a lead that the item
    lacks is zero; an item without names must have as many leads, in order. `crop`: "start", "centre" or "random" (drawn
    a visit) where the signal is longer; shorter ones are padded with zeros at the end. Voltages are read as mV by the
    item's unit. `scale`: "none" or "zscore" a lead. Gaps (NaN) become the lead's mean. Errors: `Refused` with code
    "signal_rate", "signal_shape" or "signal_leads".
    """

    rate: float
    seconds: float
    leads: tuple[str, ...]
    crop: Literal["start", "centre", "random"] = "start"
    scale: Literal["none", "zscore"] = "none"

    def __post_init__(self) -> None:
        if not self.rate > 0 or not self.seconds > 0 or not self.leads:
            raise UsageError(f"a signal needs rate > 0, seconds > 0 and leads; got {self.rate}, {self.seconds}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(leads, samples)."""
        return (len(self.leads), round(self.rate * self.seconds))

    def still(self) -> SignalEncode:
        """A random crop becomes the centre."""
        return replace(self, crop="centre") if self.crop == "random" else self

    def __call__(self, item: Item, rng: np.random.Generator, /) -> NDArray[np.float32]:
        if item.rate is None or not np.isfinite(item.rate) or item.rate <= 0:
            raise Refused("signal_rate", f"signal {item.origin.key!r} has rate {item.rate}, wanted Hz above 0")
        picked = self._pick(item)
        gaps = ~np.isfinite(picked)
        if gaps.any():
            known = np.where(gaps, 0, picked).sum(1, keepdims=True) / np.maximum((~gaps).sum(1, keepdims=True), 1)
            picked = np.where(gaps, known, picked).astype(np.float32)
        picked = picked * np.float32(_TO_MV.get((item.unit or "mV").lower(), 1.0))
        picked = self._cut(_resample(self._window(picked, item.rate, rng), item.rate, self.rate))
        if self.scale == "zscore":
            std = picked.std(1, keepdims=True)
            picked = np.where(std > 1e-8, (picked - picked.mean(1, keepdims=True)) / np.maximum(std, 1e-8), 0)
        return np.ascontiguousarray(picked, np.float32)

    def _pick(self, item: Item) -> NDArray[np.float32]:
        array = item.array()
        if array.ndim == 1:
            array = array[None]
        if array.ndim != 2 or 0 in array.shape:
            raise Refused(
                "signal_shape", f"signal {item.origin.key!r} has shape {array.shape}, wanted (leads, samples)"
            )
        if not item.names:
            if len(array) != len(self.leads):
                raise Refused(
                    "signal_leads",
                    f"signal {item.origin.key!r} has {len(array)} unnamed leads, wanted {len(self.leads)} in order",
                )
            return array.astype(np.float32)
        where = {name.strip().lower(): i for i, name in enumerate(item.names[: len(array)])}
        out = np.zeros((len(self.leads), array.shape[1]), np.float32)
        found = [(i, where[n.lower()]) for i, n in enumerate(self.leads) if n.lower() in where]
        if not found:
            raise Refused(
                "signal_leads", f"signal {item.origin.key!r} has leads {item.names}, none of those wanted: {self.leads}"
            )
        for to, of in found:
            out[to] = array[of]
        return out

    def _window(self, array: NDArray[np.float32], rate: float, rng: np.random.Generator) -> NDArray[np.float32]:
        spare = array.shape[1] - int(np.ceil(self.seconds * rate))
        if spare <= 0:
            return array
        start = {"start": 0, "centre": spare // 2, "random": int(rng.integers(spare + 1))}[self.crop]
        return array[:, start : array.shape[1] - spare + start]

    def _cut(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.zeros(self.shape, np.float32)
        n = min(array.shape[1], out.shape[1])
        out[:, :n] = array[:, :n]
        return out

    def to_json(self) -> dict[str, Any]:
        """All settings as plain JSON."""
        return {"type": "signal", **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SignalEncode:
        """The inverse of `to_json`."""
        rest: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "type"}
        return cls(**rest)


def _resample(array: NDArray[np.float32], have: float, want: float) -> NDArray[np.float32]:
    """Polyphase resampling along the last axis; the ratio is taken to 1 part in 1,000."""
    if have == want:
        return array
    from scipy.signal import resample_poly

    ratio = Fraction(want / have).limit_denominator(1000)
    if ratio == 0:
        raise Refused("signal_rate", f"cannot bring {have} Hz to {want} Hz")
    made: NDArray[np.float32] = resample_poly(array, ratio.numerator, ratio.denominator, axis=-1, padtype="line")
    return made.astype(np.float32)
