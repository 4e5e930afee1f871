"""Parallel fusion: all fields side by side, what is missing filled with a constant. The usual baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import nn

from fabrica.models.fusion import FusionNet, Reading, only_heads
from fabrica.models.load import tower_of
from fabrica.models.task_heads import Heads
from fabrica.models.towers import Tower
from fabrica.types import Field


class Parallel(FusionNet):
    """One linear layer on [h_1; ...; h_R], then heads: as deep as `Sequential`, one reading.

    Absent numbers are 0 before their tower (the training mean, where values are standardised), absent tokens are zeros
    after it: a constant that a net can learn to recognise. `flags` hands it the presence of each field besides.
    """

    kind: ClassVar[str] = "parallel"

    def __init__(self, towers: Mapping[str, Tower], dim: int, heads: Heads, *, flags: bool = False) -> None:
        super().__init__(towers, dim, heads)
        self.flags = flags
        self.join = nn.Linear(len(towers) * (dim + flags), heads.width)

    def read(self, fields: Mapping[str, Field]) -> Reading:
        """K = 1. A field that is not given is absent everywhere."""
        fields = self.given(fields)
        first = next(iter(fields.values())).valid
        parts, here = [], []
        for name in self.towers:
            there = fields[name].valid.any(1) if name in fields else torch.zeros_like(first[:, 0])
            parts.append(self._filled(name, fields.get(name), len(first)))
            here.append(there)
        presence = torch.stack(here, 1)  # (B, R)
        joined = torch.cat([*parts, *([presence.to(parts[0].dtype)] if self.flags else [])], 1)
        state = self.join(joined)[:, None]  # (B, 1, k)
        ran = torch.ones_like(first[:, :1])
        return Reading(self.heads(state), ran, torch.zeros_like(ran, dtype=torch.long), ("all",), state)

    def _filled(self, name: str, field: Field | None, rows: int) -> torch.Tensor:
        """(B, dim): the mean over a field's items, or the constant."""
        body = self.tower(name).body
        shape = getattr(body, "inputs", None)
        if shape is None:  # no vector of numbers: zeros after the tower
            if field is None:
                return self.start_of(rows)
            pooled = self.tower(name)(field, tokens=False).pooled
            return self.project(name, pooled, field.valid.any(1))
        if field is None:
            values, valid = self.start_of(rows).new_zeros(rows, 1, shape), torch.ones(rows, 1, dtype=torch.bool)
            field = Field(values, valid.to(values.device))
        else:
            values = torch.where(field.valid[..., None], field.values, 0.0)
            only = field.valid.clone()
            only[:, 0] |= ~field.valid.any(1)
            field = replace(field, values=values, valid=only)
        pooled = self.tower(name)(field, tokens=False).pooled
        return self.project(name, pooled, field.valid.any(1))

    def start_of(self, rows: int) -> torch.Tensor:
        """(rows, dim) zeros beside the weights."""
        return self.join.weight.new_zeros(rows, self.dim)

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain JSON."""
        return {**super().to_json(), "flags": self.flags}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Parallel:
        """The inverse of `to_json`, with random weights."""
        towers = {name: tower_of(tower) for name, tower in data["towers"].items()}
        return cls(towers, data["dim"], only_heads(data["heads"]), flags=data["flags"])
