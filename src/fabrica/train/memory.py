"""A small data set held as tensors: fields that draw nothing are encoded once, the others at every visit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from fabrica.errors import UsageError
from fabrica.train.feed import derive, only_default
from fabrica.types import Batch, Field, Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from fabrica.encode.collate import Collate

    View = Callable[[Field, Generator], Field]


class InMemory:
    """Data that `fit` takes in place of a corpus; `batch(ids, epoch)` picks rows of one large batch.

    `whole` is the set as one batch; `views` by field name change a picked field at every visit, (field, generator) ->
    field, with a generator that depends on `seed`, the epoch and the field alone. `InMemory.of` makes it from records.

    >>> whole = Batch(("a", "b", "c"), {"x": Field(torch.arange(3.0).reshape(3, 1, 1), torch.ones(3, 1).bool())})
    >>> InMemory(whole).batch(["c", "a"], 0).fields["x"].values.flatten().tolist()
    [2.0, 0.0]
    """

    def __init__(
        self, whole: Batch, *, views: Mapping[str, View] | None = None,
        groups: Mapping[str, Mapping[str, Sequence[str]]] | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.whole, self.views, self.seed = whole, dict(views or {}), seed
        self._groups = dict(groups or {})
        self._row = {name: i for i, name in enumerate(whole.ids)}
        if len(self._row) < len(whole.ids):
            raise UsageError(f"{len(whole.ids) - len(self._row)} ids stand twice in the data held in memory")
        for name in self.views:
            if name not in whole.fields:
                raise UsageError(f"a view of {name!r}, but the fields are {', '.join(whole.fields)}")
        self._moving: Collate | None = None
        self._records: dict[str, Record] = {}

    @classmethod
    def of(cls, records: Sequence[Record], collate: Collate, *, mix_by: str | None = None) -> InMemory:
        """Records encoded once, but for the fields whose transform draws (augmentation, one sentence a visit): those
        are encoded at every visit, exactly as `collate` does. `mix_by` keeps a group's values for `Stage.mix_by`."""
        moving = [n for n, use in collate.fields.items() if use.encode.to_json() != use.encode.still().to_json()]
        still = [n for n in collate.fields if n not in moving]
        texts = [n for n, use in collate.fields.items() if hasattr(use.encode, "read")]
        spoken = tuple(k for k in collate.keys if "text" in k.split("+") and texts and texts[0] in moving)
        fixed = tuple(k for k in collate.keys if k not in spoken)
        base = replace(collate, fields={n: collate.fields[n] for n in still or moving[:1]}, keys=fixed)
        whole = base(records, 0)
        if not still:
            whole = replace(whole, fields={})
        groups: dict[str, list[str]] = {}
        for record in records:
            groups.setdefault(record.groups.get(mix_by or "", ""), []).append(record.id)
        held = cls(whole, groups={mix_by: groups} if mix_by else None)
        if moving:
            held._moving = replace(collate, fields={n: collate.fields[n] for n in moving}, targets=(), keys=spoken)
            held._records = {r.id: r for r in records}
        return held

    def ids(self, where: str | None = None) -> list[str]:
        """All ids; other filters than the default want a corpus."""
        only_default(where)
        return list(self.whole.ids)

    def groups(self, by: str) -> Any:
        """Ids by the value of the group that `of` was told to keep."""
        if by not in self._groups:
            raise UsageError(
                f"data in memory keeps groups {list(self._groups)}, not {by!r}: InMemory.of(..., mix_by={by!r})"
            )
        return self._groups[by]

    def batch(self, ids: Sequence[str], epoch: int) -> Batch:
        """The rows of `ids` at a visit."""
        try:
            at = torch.tensor([self._row[i] for i in ids])
        except KeyError as error:
            raise UsageError(f"no record {error.args[0]!r} in memory") from error
        fields = {name: trim(pick(field, at)) for name, field in self.whole.fields.items()}
        for name, view in self.views.items():
            fields[name] = view(fields[name], Generator().manual_seed(derive(self.seed, epoch, name)))
        keys = {k: v[at] for k, v in self.whole.keys.items()}
        if self._moving is not None:
            drawn = self._moving([self._records[i] for i in ids], epoch)
            fields |= drawn.fields
            keys |= drawn.keys
        return Batch(
            tuple(ids), fields, {k: v[at] for k, v in self.whole.targets.items()},
            {k: v[at] for k, v in self.whole.known.items()}, keys,
        )  # fmt: skip


def pick(field: Field, rows: Tensor | slice) -> Field:
    """Some rows of a field."""
    return Field(
        field.values[rows], field.valid[rows], None if field.hours is None else field.hours[rows],
        None if field.mask is None else field.mask[rows],
    )  # fmt: skip


def trim(field: Field) -> Field:
    """Without the items and tokens that only longer records of the whole set needed."""
    n = max(1, int(field.valid.any(0).nonzero().max()) + 1) if field.valid.any() else 1
    if n < field.valid.shape[1]:
        field = Field(
            field.values[:, :n], field.valid[:, :n], None if field.hours is None else field.hours[:, :n],
            None if field.mask is None else field.mask[:, :n],
        )  # fmt: skip
    if field.mask is None:
        return field
    used = field.mask.flatten(0, 1).any(0)
    length = int(used.nonzero().max()) + 1 if used.any() else 1
    return replace(field, values=field.values[..., :length], mask=field.mask[..., :length])
