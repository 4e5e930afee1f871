"""MultiModN's fusion: a state that passes from one item's encoder to the next, read by every task after each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError, unknown
from fabrica.models.fusion import FusionNet, Reading, only_heads
from fabrica.models.load import tower_of
from fabrica.models.task_heads import Heads
from fabrica.models.towers import Tower
from fabrica.types import Field

Order = Literal["fixed", "shuffle", "hours"]
START = "start"  # the reading of the state before any item


class Sequential(FusionNet):
    """s_0 (k,), then for each item s_i = W_m [h_i ; s_{i-1}] + b_m with h_i its tower's encoding; heads on every s_i
    (Swamy, Satayeva et al. 2023, arXiv 2309.14118, section 3).

    An item that is absent leaves its row's state as it was, row by row; several items of a field (two X-rays) are
    several steps. `order` of the steps: "fixed" is that of `towers`; "shuffle" draws the order of fields anew for each
    training batch; "hours" goes by each record's own clock, items without a time first. `init` of s_0: "learned" or
    "zero". The first reading is s_0's, the prior.
    """

    kind: ClassVar[str] = "sequential"

    def __init__(
        self, towers: Mapping[str, Tower], dim: int, heads: Heads, *, order: Order = "fixed",
        init: Literal["learned", "zero"] = "learned",
    ) -> None:  # fmt: skip
        super().__init__(towers, dim, heads)
        if order not in get_args(Order):
            raise unknown("order", order, get_args(Order))
        if init not in ("learned", "zero"):
            raise unknown("init", init, ("learned", "zero"))
        self.order, self.init, width = order, init, heads.width
        start = torch.randn(width) * width**-0.5 if init == "learned" else torch.zeros(width)
        self.start = nn.Parameter(start, requires_grad=init == "learned")
        self.update = nn.ModuleDict({name: nn.Linear(dim + width, width) for name in towers})

    def read(self, fields: Mapping[str, Field], *, order: Sequence[str] | None = None) -> Reading:
        """K = 1 + items: the prior, then a reading after each item. `order` names all given fields, for this call."""
        fields = self.given(fields)
        names = self._order(fields, order)
        made = [self.items(name, fields[name]) for name in names]
        h, there = torch.cat([m[0] for m in made], 1), torch.cat([m[1] for m in made], 1)  # (B, S, dim), (B, S)
        role = torch.cat([torch.full((m.shape[1],), i, device=h.device) for i, (_, m) in enumerate(made)])  # (S,)
        turns = self._turns([fields[n] for n in names]) if self.order == "hours" and order is None else None
        state = self.start.expand(len(h), -1).to(h.dtype)
        states, ran, step = [state], [torch.ones_like(there[:, 0])], [torch.zeros_like(there[:, 0], dtype=torch.long)]
        for i in range(h.shape[1]):
            if turns is None:
                now, here, who = h[:, i], there[:, i], role[i].expand(len(h))
                new = self.update[names[int(role[i])]](torch.cat([now, state], 1))
            else:
                at = turns[:, i]  # (B,): each row's own next item
                now, here, who = h[torch.arange(len(h), device=h.device), at], _pick(there, at), role[at]
                new = self._each(names, who, torch.cat([now, state], 1))
            state = torch.where(here[:, None], new, state)
            states.append(state)
            ran.append(here)
            step.append(who + 1)
        stacked = torch.stack(states, 1)  # (B, K, k)
        return Reading(self.heads(stacked), torch.stack(ran, 1), torch.stack(step, 1), (START, *names), stacked)

    def _order(self, fields: Mapping[str, Field], order: Sequence[str] | None) -> list[str]:
        names = list(fields)
        if order is not None:
            for name in order:
                if name not in fields:
                    raise unknown("field in `order`, of those given,", name, fields)
            if sorted(order) != sorted(names):
                raise UsageError(f"order {list(order)}: wanted each of {names} once")
            return list(order)
        if self.order == "shuffle" and self.training:
            return [names[i] for i in torch.randperm(len(names)).tolist()]
        return names

    def _turns(self, fields: Sequence[Field]) -> Tensor:
        """(B, S) int64: items in order of time, those without a time first, ties in the order of the towers."""
        hours = [torch.full(f.valid.shape, torch.nan) if f.hours is None else f.hours.float().cpu() for f in fields]
        clock = torch.cat(hours, 1).nan_to_num(nan=-torch.inf)
        return torch.sort(clock, dim=1, stable=True).indices.to(fields[0].valid.device)

    def _each(self, names: Sequence[str], who: Tensor, inputs: Tensor) -> Tensor:
        """Each row through the update of its own field."""
        out = inputs.new_zeros(len(inputs), self.start.shape[0])
        for i in range(len(names)):
            rows = (who == i).nonzero().squeeze(1)
            if not len(rows):
                continue
            out = out.index_copy(0, rows, self.update[names[i]](inputs[rows]))
        return out

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain JSON."""
        return {**super().to_json(), "order": self.order, "init": self.init}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sequential:
        """The inverse of `to_json`, with random weights."""
        towers = {name: tower_of(tower) for name, tower in data["towers"].items()}
        return cls(towers, data["dim"], only_heads(data["heads"]), order=data["order"], init=data["init"])


def _pick(values: Tensor, at: Tensor) -> Tensor:
    return values.gather(1, at[:, None]).squeeze(1)
