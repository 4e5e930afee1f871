"""Subsets of a pool as sorted uids on disk: the two halves of 128 bits a row, as DataComp's subset files have them."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError
from fabrica.safe import write_whole

UID = np.dtype("u8,u8")  # upper and lower 64 bits (Gadre et al. 2023, the public subset files)
Uids = NDArray[np.void]
ROWS = 1 << 20  # rows of a side that a merge holds at once
_HEX = re.compile(r"[0-9a-f]{32}\Z")
_NIBBLE = np.full(256, 255, np.uint8)
_NIBBLE[[ord(c) for c in "0123456789abcdef"]] = np.arange(16)
_NIBBLE[[ord(c) for c in "ABCDEF"]] = np.arange(10, 16)


def uids(texts: Sequence[str]) -> Uids:
    """(n,) uids of 32 hex digits each; `UsageError` names the first that is anything else.

    >>> uids(["000000000000000a00000000000000ff"])[0].item()
    (10, 255)
    """
    if not len(texts):
        return np.empty(0, UID)
    for text in texts:
        if len(text) != 32:
            raise UsageError(f"uid {text!r} has {len(text)} characters; wanted the 32 hex digits of 128 bits")
    raw = "".join(texts).encode("ascii", "replace")
    return from_digits(np.frombuffer(raw, np.uint8).reshape(-1, 32))


def from_digits(characters: NDArray[np.uint8]) -> Uids:
    """(n,) uids of the ASCII codes (n, 32) of their hex digits: no Python text is made."""
    digits = _NIBBLE[characters]
    if (digits == 255).any():
        wrong = bytes(characters[int((digits == 255).any(1).argmax())]).decode("ascii", "replace")
        raise UsageError(f"uid {wrong!r} is not hexadecimal; wanted 32 digits of 0-9 and a-f")
    halves = (digits[:, 0::2] << 4 | digits[:, 1::2]).view(">u8").astype(np.uint64)
    return halves.view(UID).ravel()


def hexes(of: Uids) -> list[str]:
    """The uids as 32 hex digits each."""
    return [f"{high:016x}{low:016x}" for high, low in of.tolist()]


def uid_of(id_: str) -> str:
    """The uid of a record: its id where that is 32 hex digits already, else the first 128 bits of its sha256.

    >>> uid_of("00ff" * 8) == "00ff" * 8, len(uid_of("p1"))
    (True, 32)
    """
    if _HEX.match(id_):
        return id_
    return hashlib.sha256(id_.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def ordered(of: Uids) -> Uids:
    """Sorted by upper, then lower half. Two sorted runs one after the other take linear time."""
    high, low = np.ascontiguousarray(of["f0"]), of["f1"]
    order = np.argsort(high, kind="stable")
    out = of[order]
    if _ascending(out).all():
        return out
    return of[np.lexsort((low, high))]


def _ascending(of: Uids) -> NDArray[np.bool_]:
    """(n - 1,) whether each row is at least the one before."""
    high, low = of["f0"], of["f1"]
    return np.asarray((high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] >= low[:-1])))


def _same(of: Uids) -> NDArray[np.bool_]:
    """(n - 1,) whether each row equals the one before."""
    return np.asarray((of["f0"][1:] == of["f0"][:-1]) & (of["f1"][1:] == of["f1"][:-1]))


@dataclass(frozen=True, slots=True, eq=False)
class Subset:
    """Sorted uids, each once; `counts` says how often each is to be seen, None = once.

    Made by `of` (any order) or `load` (a file, mapped into memory). `&`, `|` and `-` merge two of them in blocks: with
    counts, the smaller, the larger, and all or nothing. A set larger than memory is written by `save`, which streams.

    >>> a, b = Subset.of(uids(["0" * 31 + c for c in "359"])), Subset.of(uids(["0" * 31 + c for c in "35a"]))
    >>> [len(a & b), len(a | b), len(a - b)]
    [2, 4, 1]
    """

    uids: Uids
    counts: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, some: Uids, *, repeats: bool = False) -> Subset:
        """Of uids in any order. A uid given twice is a `UsageError` unless `repeats`: then it counts twice."""
        if some.dtype != UID:
            raise UsageError(f"a subset holds rows of type {UID}, not {some.dtype}; see subset.uids()")
        rows = ordered(some)
        first = np.concatenate([np.ones(min(len(rows), 1), bool), ~_same(rows)])
        if first.all():
            return cls(rows)
        if not repeats:
            twice = hexes(rows[1:][_same(rows)][:1])[0]
            raise UsageError(f"uid {twice} comes more than once; say repeats=True if it shall be seen more than once")
        starts = np.flatnonzero(first)
        return cls(rows[starts], np.diff(np.append(starts, len(rows))))

    @classmethod
    def load(cls, path: str | Path, *, strict: bool = True, repeats: bool = False, mapped: bool = True) -> Subset:
        """A subset file (.npy). One that is not sorted is refused, or sorted with a warning where not `strict`.

        `mapped` leaves the rows on disk. `UsageError` for another kind of file, other rows, or repeats not asked for.
        """
        try:
            rows: Any = np.lib.format.open_memmap(Path(path), mode="r")  # neither archives nor pickles
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"{path} is no subset file: {error}; wanted a .npy of rows {UID}") from error
        if rows.ndim != 1 or not _is_uid(rows.dtype):
            what = f"{rows.dtype}, {rows.ndim}-dimensional"
            raise UsageError(f"{path} holds {what}; wanted one row {UID} a uid: the upper and lower 64 bits")
        rows = rows if mapped else np.array(rows)
        if rows.dtype != UID:  # other names, other byte order
            rows = rows.astype(np.dtype(list(zip(rows.dtype.names or (), ("u8", "u8"), strict=True)))).view(UID)
        rising = all(_ascending(part).all() for part in _overlapping(rows))
        if not rising and strict:
            raise UsageError(f"{path} is not sorted; sort it once with Subset.load(..., strict=False).save(...)")
        if not rising:
            warnings.warn(f"{path} is not sorted; sorted it in memory", stacklevel=2)
        if not rising or any(_same(part).any() for part in _overlapping(rows)):
            return cls.of(rows, repeats=repeats)
        return cls(rows)

    def save(self, path: str | Path) -> Path:
        """The .npy, whole or not at all; a uid that counts k times stands there k times."""
        path = Path(path)
        with write_whole(path) as out:
            np.lib.format.write_array_header_1_0(
                out, {"descr": np.lib.format.dtype_to_descr(UID), "fortran_order": False, "shape": (self.total,)}
            )
            for lo in range(0, len(self), ROWS):
                part = self.uids[lo : lo + ROWS]
                if self.counts is not None:
                    part = np.repeat(part, self.counts[lo : lo + ROWS])
                out.write(np.ascontiguousarray(part).tobytes())
        return path

    def __len__(self) -> int:
        return len(self.uids)

    @property
    def total(self) -> int:
        """How many samples are seen in one pass: uids times how often each counts."""
        return len(self.uids) if self.counts is None else int(self.counts.sum())

    @property
    def sha256(self) -> str:
        """Of the sorted rows with their counts: equal subsets, equal digest."""
        digest = hashlib.sha256()
        for lo in range(0, len(self), ROWS):
            digest.update(np.ascontiguousarray(self.uids[lo : lo + ROWS]).tobytes())
        if self.counts is not None and (self.counts != 1).any():
            digest.update(np.asarray(self.counts, np.int64).tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subset) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    def count(self, of: Uids) -> NDArray[np.int64]:
        """(n,) how often each of `of` is in here, 0 = not at all; `of` in any order."""
        if not len(self):
            return np.zeros(len(of), np.int64)
        near = np.minimum(_places(self.uids, of), len(self) - 1)
        there = np.asarray(self.uids[near] == of)
        return np.where(there, 1 if self.counts is None else self.counts[near], 0).astype(np.int64)

    def __contains__(self, uid: str) -> bool:
        return bool(self.count(uids([uid]))[0])

    def __and__(self, other: Subset) -> Subset:
        return self._merged(other, np.minimum)

    def __or__(self, other: Subset) -> Subset:
        return self._merged(other, np.maximum)

    def __sub__(self, other: Subset) -> Subset:
        return self._merged(other, lambda mine, theirs: np.where(theirs > 0, 0, mine))

    def _merged(self, other: Subset, rule: Callable[[Any, Any], Any]) -> Subset:
        """Each uid of either with `rule(mine, theirs)` as its count; 0 leaves it out."""
        parts, counts = [np.empty(0, UID)], [np.empty(0, np.int64)]
        plain = self.counts is None and other.counts is None
        for found, mine, theirs in merge(self, other):
            count = rule(mine, theirs)
            parts.append(found[count > 0])
            if not plain:
                counts.append(count[count > 0])
        every = None if plain else np.concatenate(counts)
        return Subset(np.concatenate(parts), None if every is None or (every == 1).all() else every)


def merge(a: Subset, b: Subset, *, rows: int = ROWS) -> Iterator[tuple[Uids, NDArray[np.int64], NDArray[np.int64]]]:
    """Blocks of (uids, count in a, count in b) over the union, in order; holds about `rows` of either side."""
    i = j = 0
    while i < len(a) or j < len(b):
        ends = [s.uids[min(k + rows, len(s)) - 1] for s, k in ((a, i), (b, j)) if k < len(s)]
        bound = min(ends, key=lambda row: row.item())
        to = [k + int(_upto(s.uids[k : k + rows], bound)) for s, k in ((a, i), (b, j))]
        left, right = np.asarray(a.uids[i : to[0]]), np.asarray(b.uids[j : to[1]])
        joined = ordered(np.concatenate([left, right]))
        found = _distinct(joined)
        counts = []
        for part, of, start in ((left, a, i), (right, b, j)):
            held = Subset(part, None if of.counts is None else of.counts[start : start + len(part)])
            counts.append(held.count(found))
        yield found, counts[0], counts[1]
        i, j = to


def _upto(block: Uids, bound: np.void) -> int:
    """How many rows of a sorted block are <= `bound`."""
    high, low = bound.item()
    lo = int(np.searchsorted(block["f0"], high, "left"))
    hi = int(np.searchsorted(block["f0"], high, "right"))
    return lo + int(np.searchsorted(block["f1"][lo:hi], low, "right"))


def _places(sorted_: Uids, of: Uids) -> NDArray[np.int64]:
    """(n,) the first place in sorted rows whose row is not below each of `of`."""
    high = np.ascontiguousarray(sorted_["f0"])
    at = np.searchsorted(high, np.ascontiguousarray(of["f0"]), "left")
    if len(high) and (high[1:] == high[:-1]).any():  # equal upper halves: step on by the lower one
        end = np.searchsorted(high, of["f0"], "right")
        for k in np.flatnonzero(end - at > 1):
            at[k] += np.searchsorted(sorted_["f1"][at[k] : end[k]], of["f1"][k], "left")
    return np.asarray(at, np.int64)


def _overlapping(rows: Uids) -> Iterator[Uids]:
    """Blocks that share their border row, so that neighbours can be compared without reading all at once."""
    for lo in range(0, len(rows), ROWS):
        yield np.asarray(rows[lo : lo + ROWS + 1])


def _is_uid(dtype: np.dtype[Any]) -> bool:
    names = dtype.names
    return names is not None and len(names) == 2 and all(dtype[n].kind == "u" and dtype[n].itemsize == 8 for n in names)


def gathered(parts: Iterable[Uids], folder: Path | None = None) -> tuple[Uids, int]:
    """The distinct rows of all parts, sorted, and how many more there were. With a `folder` sorted parts are spilled
    there and merged by their upper bits: memory holds one part and a 256th of all; the answer is mapped from disk."""
    if folder is None:
        kept = [p for p in parts if len(p)]
        every = ordered(np.concatenate([np.empty(0, UID), *kept]))
        distinct = _distinct(every)
        return distinct, len(every) - len(distinct)
    runs = []
    for n, part in enumerate(parts):
        if len(part):
            np.save(folder / f"run-{n:06d}.npy", ordered(part))
            runs.append(np.load(folder / f"run-{n:06d}.npy", mmap_mode="r"))
    tops = np.arange(1, 256, dtype=np.uint64) << np.uint64(56)
    cuts = [[0, *np.searchsorted(run["f0"], tops).tolist(), len(run)] for run in runs]
    total = 0
    with open(folder / "sorted", "wb") as out:
        for k in range(256):
            slices = [run[c[k] : c[k + 1]] for run, c in zip(runs, cuts, strict=True)]
            rows = _distinct(ordered(np.concatenate([np.empty(0, UID), *slices])))
            out.write(rows.tobytes())
            total += len(rows)
    found: Uids = np.memmap(folder / "sorted", UID, "r", shape=(total,)) if total else np.empty(0, UID)
    return found, sum(map(len, runs)) - total


def _distinct(rows: Uids) -> Uids:
    """Sorted rows, each once."""
    keep: Uids = rows[np.concatenate([np.ones(min(len(rows), 1), bool), ~_same(rows)])]
    return keep
