"""What every contrastive loss checks first: same rows, same width, finite, enough of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fabrica.errors import FabricaError, UsageError, unknown


class NonFinite(FabricaError):
    """NaN or infinity where a number was wanted; `rows` are the batch rows that hold it (empty = not known)."""

    code = "non_finite"

    def __init__(self, message: str, rows: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


def embeddings(given: Mapping[str, Tensor], fields: Sequence[str]) -> list[Tensor]:
    """The embeddings of `fields` in that order, (B, d) each; errors name the fields whose shapes differ."""
    for name in fields:
        if name not in given:
            raise unknown("embedding", name, given)
    rows = [given[name] for name in fields]
    shapes = ", ".join(f"{name} {tuple(r.shape)}" for name, r in zip(fields, rows, strict=True))
    if any(r.ndim != 2 for r in rows) or len({r.shape[1] for r in rows}) > 1:
        raise UsageError(f"embeddings of one width wanted, each (rows, width); got {shapes}")
    if len({len(r) for r in rows}) > 1:
        raise UsageError(f"batch lengths differ: {shapes}; row i of every modality must be the same sample")
    for name, r in zip(fields, rows, strict=True):
        finite(name, r)
    return rows


def finite(name: str, values: Tensor) -> None:
    """An error that names the rows of (B, d) `values` that hold NaN or infinity."""
    if not torch.isfinite(values.detach().sum()):  # one cheap pass; the sum of finite values may still overflow
        bad = (~torch.isfinite(values)).reshape(len(values), -1).any(1).nonzero().flatten().tolist()
        if bad:
            raise NonFinite(f"embeddings of {name!r} hold NaN or infinity in rows {_some(bad)}", bad)


def present(given: Mapping[str, Tensor], fields: Sequence[str], count: int) -> Tensor:
    """(B,) bool: rows in which every one of `fields` is present; a field that `given` lacks is present everywhere."""
    rows = None
    for name in fields:
        if name in given:
            if tuple(given[name].shape) != (count,):
                raise UsageError(f"presence of {name!r} has shape {tuple(given[name].shape)}, wanted ({count},)")
            rows = given[name].bool() if rows is None else rows & given[name].bool()
    return torch.ones(count, dtype=torch.bool) if rows is None else rows


def key(keys: Mapping[str, Tensor], name: str | None, count: int) -> Tensor | None:
    """The (B,) int64 key called `name`, None for None."""
    if name is None:
        return None
    if name not in keys:
        raise unknown("key", name, keys)
    if tuple(keys[name].shape) != (count,):
        raise UsageError(f"key {name!r} has shape {tuple(keys[name].shape)}, wanted ({count},)")
    return keys[name]


def _some(rows: Sequence[int], most: int = 10) -> str:
    return ", ".join(map(str, rows[:most])) + (f" and {len(rows) - most} more" if len(rows) > most else "")
