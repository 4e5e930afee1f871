"""Where each record stands: sorted ids, and the place of each record's bytes. About 60 bytes a record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RECENT = 100_000
Place = tuple[int, int, int]  # number of the payload file, where the record starts, its bytes


class Ids:
    """Id -> place, in order of insertion.

    >>> ids = Ids()
    >>> ids.add(["b", "a"], [(0, 0, 10), (0, 64, 20)])
    >>> ids.offsets(["a", "x"]).tolist(), ids.places(["a"]).tolist(), "b" in ids
    ([1, -1], [[0, 64, 20]], True)
    """

    def __init__(self) -> None:
        self._sorted: NDArray[Any] = np.empty(0, "S1")
        self._order: NDArray[np.int64] = np.empty(0, np.int64)
        self._recent: dict[str, int] = {}
        self._places: list[NDArray[np.int64]] = []  # (n, 3) each
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, ids: Iterable[str], places: Sequence[Place] | NDArray[np.int64]) -> None:
        """Records appended after all earlier ones."""
        for name in ids:
            self._recent[name] = self._count
            self._count += 1
        self._places.append(np.asarray(places, dtype=np.int64).reshape(-1, 3))
        if len(self._recent) > _RECENT:
            self._merge()

    def _merge(self) -> None:
        new = np.array([_bytes(name) for name in self._recent])
        names = np.concatenate([self._sorted, new])
        offsets = np.concatenate([self._order, np.fromiter(self._recent.values(), np.int64)])
        order = np.argsort(names, kind="stable")
        self._sorted, self._order, self._recent = names[order], offsets[order], {}

    def offsets(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """The number of each record in order of insertion; -1 where there is none."""
        out = np.fromiter((self._recent.get(name, -1) for name in ids), np.int64, len(ids))
        if len(self._sorted) and len(ids):
            wanted = np.array([_bytes(name) for name in ids])
            at = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
            found = self._sorted[at] == wanted
            out[found] = self._order[at[found]]
        return out

    def places(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """(n, 3) places of ids that are all there; `KeyError` for the first that is not."""
        offsets = self.offsets(ids)
        if len(offsets) and offsets.min() < 0:
            raise KeyError(ids[int(np.argmin(offsets))])
        return self._joined()[offsets]

    def ends(self) -> dict[int, int]:
        """Payload file -> where its last record ends."""
        places = self._joined()
        last = {int(part): places[places[:, 0] == part] for part in np.unique(places[:, 0])}
        return {part: int((of[:, 1] + of[:, 2]).max()) for part, of in last.items()}

    def _joined(self) -> NDArray[np.int64]:
        if len(self._places) != 1:
            self._places = [np.concatenate([np.empty((0, 3), np.int64), *self._places])]
        return self._places[0]

    def __contains__(self, name: str) -> bool:
        return name in self._recent or bool(len(self._sorted) and self.offsets([name])[0] >= 0)


def _bytes(name: str) -> bytes:
    """UTF-8 ended by 0x01, since numpy drops trailing zero bytes."""
    return name.encode("utf-8", "surrogatepass") + b"\x01"
