"""WFDB records (PhysioNet: `.hea` with its data files, every format, FLAC, segments) -> signal items in physical units.

The header is checked before anything is decoded: plain file names beside it, each of them there, sizes in the limits.
Beats and rhythms of a reference annotation (`.atr`) become time regions; the header's comments become a `text` item.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fabrica import safe
from fabrica.errors import Refused, need
from fabrica.safe import LIMITS, Limits
from fabrica.sources import Ref
from fabrica.sources.leads import Channel, items, modality
from fabrica.sources.single import origin, record
from fabrica.types import Item, Origin, Record, Region

MAX_HEADER = 1 << 20
MAX_CHANNELS = 4096
_NULL = "~"  # the name of a gap between segments


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record]:
    """One record. Items `ecg`, `eeg`, `signal` (leads, samples) float32, one per rate and unit.

    Refused: `wfdb_no_data_file`, `wfdb_header`, `path_outside`, `array_too_large`.
    """
    wfdb = need("wfdb", "signal")
    data = safe.read_bytes(ref.path, safe.Limits(file_bytes=MAX_HEADER))
    header = _header(wfdb, ref.path)
    files = _check(wfdb, header, ref.path, limits)
    sha256 = safe.sha256("".join([safe.sha256(data), *(safe.sha256(f) for f in files)]).encode())
    base = str(ref.path.with_suffix(""))
    if hasattr(header, "seg_name"):
        channels = _segments(wfdb.rdrecord(base, m2s=True))
    else:
        channels = _frames(wfdb.rdrecord(base, smooth_frames=False))
    where = origin(ref, sha256)
    found = items([c for c in channels if c.name != "EDF Annotations"], where)
    if not found:
        raise Refused("wfdb_header", "the record has no signals")
    parts = dict(found)
    if comments := "\n".join(c.strip() for c in header.comments or () if c.strip()):
        parts["text"] = (Item("text", comments, where),)
    regions = _annotations(wfdb, ref, next(iter(found)), limits)
    yield record(ref, sha256, parts, modality=modality(found), regions=regions)


def _header(wfdb: Any, path: Path) -> Any:
    try:
        return wfdb.rdheader(str(path.with_suffix("")))
    except (ValueError, IndexError, TypeError, AttributeError, KeyError, UnicodeError) as error:
        raise Refused("wfdb_header", f"the header is no WFDB header ({type(error).__name__})") from error
    except wfdb.io.header.HeaderSyntaxError as error:
        raise Refused("wfdb_header", "the header is no WFDB header") from error


def _check(wfdb: Any, header: Any, path: Path, limits: Limits, depth: int = 0) -> list[Path]:
    """The data files of a header, all of which are there; everything is refused before it is decoded."""
    if hasattr(header, "seg_name"):
        if depth or len(header.seg_name) > limits.members:
            raise Refused("wfdb_header", "segments of segments, or too many of them")
        files = []
        for name in header.seg_name:
            if name != _NULL:
                part = _beside(path, f"{name}.hea")
                files += [part, *_check(wfdb, _header(wfdb, part), part, limits, depth + 1)]
        _check_size(header.n_sig, header.sig_len, limits)
        return files
    names = header.file_name or []
    if len(names) != (header.n_sig or 0) or len(names) > MAX_CHANNELS:
        raise Refused("wfdb_header", f"the header tells of {header.n_sig} signals and describes {len(names)}")
    if not header.fs or not header.fs > 0:
        raise Refused("wfdb_header", "the header gives no sampling rate")
    files = [_beside(path, name) for name in dict.fromkeys(n for n in names if n != _NULL)]
    if header.sig_len is not None:
        _check_size(sum(s or 1 for s in header.samps_per_frame or [1]), header.sig_len, limits)
    elif any(f.stat().st_size * 16 > limits.array_bytes for f in files):
        raise Refused("array_too_large", "the data files decode to more than the limit")
    return files


def _check_size(per_frame: int, frames: int, limits: Limits) -> None:
    safe.check_array((per_frame or 0, frames or 0), np.float64, limits, what="the record")


def _beside(path: Path, name: str) -> Path:
    if not name or name != Path(name).name or "\\" in name or name in (".", ".."):
        raise Refused("path_outside", "the header names a file outside of its folder")
    found = path.parent / name
    if not found.is_file() or (found.is_symlink() and found.resolve().parent != path.parent.resolve()):
        raise Refused("wfdb_no_data_file", "the data file that the header names is not there")
    return found


def _frames(got: Any) -> list[Channel]:
    spf = got.samps_per_frame
    return [
        Channel(got.sig_name[n] or f"signal {n}", got.units[n] or "", float(got.fs) * spf[n], got.e_p_signal[n])
        for n in range(got.n_sig)
    ]


def _segments(got: Any) -> list[Channel]:
    return [
        Channel(got.sig_name[n] or f"signal {n}", got.units[n] or "", float(got.fs), got.p_signal[:, n])
        for n in range(got.n_sig)
    ]


def _annotations(wfdb: Any, ref: Ref, role: str, limits: Limits) -> tuple[Region, ...]:
    path = ref.path.with_suffix(".atr")
    if not path.is_file() or path.stat().st_size > min(limits.file_bytes, 64 << 20):
        return ()
    sha256 = safe.sha256(path)
    notes = wfdb.rdann(str(path.with_suffix("")), "atr")
    if not notes.fs:
        return ()
    where = Origin(ref.source, f"{ref.key}#atr", sha256, ref.licence, by="human")
    return tuple(
        Region(role, "time", np.full(2, sample / notes.fs), symbol, where, text=note.strip("\0 ") or None)
        for sample, symbol, note in zip(notes.sample, notes.symbol, notes.aux_note, strict=True)
    )
