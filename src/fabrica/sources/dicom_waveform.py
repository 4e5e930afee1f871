"""DICOM waveforms (12-lead ECG and others) -> (leads, samples) in mV, with rate and lead names (PS3.3 C.10.9)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import Refused
from fabrica.safe import Limits, check_array
from fabrica.sources.dicom_parse import DataSet
from fabrica.types import Item, Origin

SEQUENCE = 0x54000100
_TYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}
_TO_MV = {"V": 1e3, "mV": 1.0, "uV": 1e-3, "µV": 1e-3, "nV": 1e-6}


def items(ds: DataSet, origin: Origin, limits: Limits) -> tuple[Item, ...]:
    """One signal item for each multiplex group; `Refused("waveform")` where a group is not whole."""
    groups = ds.items(SEQUENCE)
    return tuple(_item(group, origin.then(f"waveform_{n}") if n else origin, limits) for n, group in enumerate(groups))


def _item(group: DataSet, origin: Origin, limits: Limits) -> Item:
    leads, samples = group.integer(0x003A0005, 0), group.integer(0x003A0010, 0, b"UL")
    rate = group.number(0x003A001A)
    kind = _TYPES.get(group.text(0x54001006))
    if kind is None or leads < 1 or samples < 1 or not rate or rate <= 0:
        raise Refused("waveform", f"a waveform of {leads} channels, {samples} samples has no readable layout")
    check_array((leads, samples), np.float32, limits, what="the waveform")
    raw = group.array(0x54001010, kind)
    if len(raw) < leads * samples:
        raise Refused("waveform_short", f"the waveform needs {leads * samples} samples; the file has {len(raw)}")
    values = raw[: leads * samples].reshape(samples, leads).T
    channels = group.items(0x003A0200)
    if len(channels) != leads:
        raise Refused("waveform", f"{len(channels)} channel definitions for {leads} channels")
    out, units, names = _physical(values, channels)
    if (padding := group.array(0x5400100A, kind)).size:
        out[values == padding[0]] = np.nan  # no sample was taken here
    return Item("signal", out, origin, unit=units, rate=float(rate), names=names)


def _physical(values: NDArray[Any], channels: list[DataSet]) -> tuple[NDArray[np.float32], str | None, tuple[str, ...]]:
    """raw x sensitivity x correction + baseline (as pydicom's `waveform_array`), in mV where the unit is volts."""
    units = [(u.text(0x00080100) if (u := c.item(0x003A0211)) is not None else "") for c in channels]
    volts = all(u in _TO_MV for u in units)
    out = np.empty(values.shape, np.float32)
    for n, (channel, unit) in enumerate(zip(channels, units, strict=True)):
        sensitivity, factor = channel.number(0x003A0210, default=1.0), channel.number(0x003A0212, default=1.0)
        baseline = channel.number(0x003A0213, default=0.0)
        scale = (sensitivity or 1.0) * (factor or 1.0) * (_TO_MV[unit] if volts else 1.0)
        shift = (baseline or 0.0) * (_TO_MV[unit] if volts else 1.0)
        if not math.isfinite(scale):
            raise Refused("waveform", "a channel's sensitivity is not finite")
        out[n] = values[n] * np.float64(scale) + shift
    same = units[0] if len(set(units)) == 1 else None
    return out, "mV" if volts else same or None, tuple(_lead(c, n) for n, c in enumerate(channels))


def _lead(channel: DataSet, n: int) -> str:
    """The lead's usual short name: "Lead I (Einthoven)" -> "I", "Lead aVR" -> "aVR"."""
    source = channel.item(0x003A0208)
    said = source.text(0x00080104) if source is not None else channel.text(0x003A0203)
    words = said.replace("(", " ").split()
    short = words[1] if len(words) > 1 and words[0].lower() == "lead" else said
    return short or f"channel {n + 1}"
