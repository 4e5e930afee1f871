"""A yes/no reader of a few numbers (own evidence, what references vote): the smallest policy that preference learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fabrica.encode.collate import Collate, Use
from fabrica.encode.table import TableEncode
from fabrica.errors import UsageError
from fabrica.models.bundle import Bundle
from fabrica.models.heads import ProjectionHead
from fabrica.models.multi import MultiTower
from fabrica.models.small import LinearTower
from fabrica.models.towers import Tower
from fabrica.objectives.scale import LogitScale
from fabrica.types import Item, Origin, Record

FIELD = "evidence"


def yes_no_policy(weights: Mapping[str, float], bias: float = 0.0, card: Mapping[str, Any] | None = None) -> Bundle:
    """log p(yes) - log p(no) = bias + sum of weight x column, over the columns of items of role "evidence"; a column
    that is missing counts as 0. Learned by `objectives.preference.PreferYes("evidence")`.

    >>> policy = yes_no_policy({"own": 1.0, "vote": 2.0})
    >>> [round(v, 6) for v in logits(policy, readings(np.array([[0.5, -1.0]]), ("own", "vote"))).tolist()]
    [-1.5]
    """
    if not weights:
        raise UsageError("a policy needs at least one column with its weight")
    columns = tuple(weights)
    zeros, ones = (0.0,) * len(columns), (1.0,) * len(columns)
    uses = {FIELD: Use((FIELD,), TableEncode(columns, zeros, ones, flags=False))}
    body = LinearTower(len(columns), 1)
    with torch.no_grad():
        body.layer.weight.copy_(torch.tensor([[float(weights[c]) for c in columns]]))
        body.layer.bias.fill_(bias)
    model = MultiTower({FIELD: Tower(body, ProjectionHead((1,), normalise=None))}, 1, scale=LogitScale(learnable=False))
    return Bundle(model.eval(), Collate(uses, targets=("chosen", "reference")), card)


def readings(
    rows: NDArray[np.float64],
    columns: Sequence[str],
    *,
    ids: Sequence[str] = (),
    labels: Mapping[str, Any] | None = None,
) -> list[Record]:
    """Rows (n, columns) as records of role "evidence"; `labels` name -> (n,)."""
    names, made = list(ids) or [str(i) for i in range(len(rows))], []
    for i, row in enumerate(rows):
        item = Item("table", np.asarray(row, np.float64), Origin("readings", names[i], "", ""), names=tuple(columns))
        said = {k: float(v[i]) for k, v in (labels or {}).items()}
        made.append(Record(names[i], names[i], items={FIELD: (item,)}, labels=said))
    return made


def logits(policy: Bundle, records: Sequence[Record]) -> NDArray[np.float32]:
    """(n,) log-odds of yes."""
    return policy.embed(records, FIELD, batch=4096, unit=False)[1][:, 0]
