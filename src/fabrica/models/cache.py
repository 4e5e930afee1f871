"""Features computed once: rows on disk by model, transform and record."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fabrica import safe
from fabrica.errors import Refused, UsageError


def fingerprint(model: nn.Module, about: Any = None) -> str:
    """24 hex digits of every weight and buffer by name, and of `about` (plain JSON: architecture, transform).

    >>> a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> fingerprint(a) == fingerprint(a) != fingerprint(b)
    True
    """
    said = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        said.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        said.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return said.hexdigest()[:24]


class FeatureCache:
    """Rows by record id under a `key` (a fingerprint of model, field and transform); a folder of .npz parts a key.

    A part is written whole or not at all, so that a killed run leaves what it finished. A part that cannot be read is
    set aside (counted in `broken`) and its rows are computed again.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.broken = 0
        self._rows: dict[str, dict[str, tuple[NDArray[np.float32], bool]]] = {}

    def _open(self, key: str) -> dict[str, tuple[NDArray[np.float32], bool]]:
        if key not in self._rows:
            if not key.isalnum():
                raise UsageError(f"a cache key is letters and digits; got {key!r}")
            rows: dict[str, tuple[NDArray[np.float32], bool]] = {}
            for path in sorted((self.folder / key).glob("*.npz")):
                try:
                    with np.load(path, allow_pickle=False) as part:
                        ids, values, present = part["ids"], part["rows"], part["present"]
                        for i, name in enumerate(ids.tolist()):
                            rows[name] = (values[i], bool(present[i]))
                except (ValueError, KeyError, IndexError, OSError, EOFError, zipfile.BadZipFile, Refused):
                    self.broken += 1
            self._rows[key] = rows
        return self._rows[key]

    def get(self, key: str, ids: Sequence[str]) -> dict[str, tuple[NDArray[np.float32], bool]]:
        """The rows that are there: id -> (row (d,), present)."""
        rows = self._open(key)
        return {i: rows[i] for i in ids if i in rows}

    def put(self, key: str, ids: Sequence[str], rows: NDArray[np.float32], present: NDArray[np.bool_]) -> None:
        """Keep rows (n, d) with their presence (n,); ids already there stay as they are."""
        have = self._open(key)
        new = [i for i, name in enumerate(ids) if name not in have]
        if not new:
            return
        names = np.asarray([ids[i] for i in new])
        part = hashlib.sha256("\x1f".join(names.tolist()).encode()).hexdigest()[:24]
        (self.folder / key).mkdir(parents=True, exist_ok=True)
        with safe.write_whole(self.folder / key / f"{part}.npz") as out:
            np.savez(out, ids=names, rows=rows[new], present=present[new])
        have.update({ids[i]: (rows[i], bool(present[i])) for i in new})
