"""Models that answer tasks from any subset of fields: what a fusion of towers gives, and what all of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError, unknown
from fabrica.models.multi import MultiTower
from fabrica.models.task_heads import Heads
from fabrica.models.towers import Tower
from fabrica.objectives.check import NonFinite
from fabrica.objectives.scale import LogitScale
from fabrica.types import Field


@dataclass(frozen=True, slots=True)
class Reading:
    """What a fusion says after each of its K readings, in order.

    `logits` by task (B, K, C); `ran` (B, K) bool: the reading saw something of the record (a first reading that is a
    prior counts as run); `step` (B, K) int64: which of `names` was read there; `states` (B, K, d), the places that were
    read from, None where readings have different widths.
    """

    logits: Mapping[str, Tensor]
    ran: Tensor
    step: Tensor
    names: tuple[str, ...]
    states: Tensor | None = None


class FusionNet(MultiTower):
    """Towers by field name under a fusion that answers `tasks` (name -> classes) from any subset of the fields.

    A subclass says `read`: fields -> `Reading`, and how the answer follows from it (`final`: the last reading). It
    obeys: a field that is left out equals one whose rows are all absent equals any values under `valid` False; a row's
    answer does not depend on the other rows; a record with nothing is answered, by a prior. `embed` gives a field's
    own encoding (B, dim). `tests/models/test_models_fusion.py` holds every subclass to this.
    """

    kind: ClassVar[str]  # the name in config.json, see `models.load`

    def __init__(
        self, towers: Mapping[str, Tower], dim: int, heads: nn.Module, *, scale: LogitScale | None = None
    ) -> None:
        super().__init__(towers, dim, scale=LogitScale(learnable=False) if scale is None else scale)
        self.heads = heads

    @property
    def tasks(self) -> Mapping[str, int]:
        """Task -> classes."""
        found: Mapping[str, int] = self.heads.tasks  # type: ignore[assignment]
        return found

    def read(self, fields: Mapping[str, Field]) -> Reading:
        """What is said after each reading."""
        raise NotImplementedError

    def final(self, reading: Reading) -> dict[str, Tensor]:
        """Logits (B, C) by task that answer: the last reading."""
        return {task: logits[:, -1] for task, logits in reading.logits.items()}

    def answer(self, fields: Mapping[str, Field]) -> dict[str, Tensor]:
        """Logits (B, C) by task."""
        return self.final(self.read(fields))

    def given(self, fields: Mapping[str, Field]) -> dict[str, Field]:
        """The fields in the order of the towers, checked: known names, rows of one number, finite where they are."""
        for name in fields:
            if name not in self.towers:
                raise unknown("tower for the field", name, self.towers)
        rows = {len(field.valid) for field in fields.values()}
        if len(rows) != 1:
            raise UsageError(f"fields of one number of rows wanted, and at least one field; got rows {sorted(rows)}")
        for name, field in fields.items():
            finite(name, field)
        return {name: fields[name] for name in self.towers if name in fields}

    def items(self, name: str, field: Field) -> tuple[Tensor, Tensor]:
        """Each item of a field on its own: encodings (B, N, dim), and which are there (B, N); absent ones are zeros."""
        rows, count = field.valid.shape
        values = field.values.flatten(0, 1)[:, None]
        mask = None if field.mask is None else field.mask.flatten(0, 1)[:, None]
        each = Field(values, field.valid.reshape(-1, 1), mask=mask)
        pooled = self.tower(name)(each, tokens=False).pooled  # (B * N, D)
        return self.project(name, pooled, each.valid[:, 0]).view(rows, count, self.dim), field.valid

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain JSON: what config.json holds."""
        return {**super().to_json(), "fusion": self.kind, "heads": self.heads.to_json()}  # type: ignore[operator]


def finite(name: str, field: Field) -> None:
    """An error that names the rows whose present items hold NaN or infinity: missing is `valid` False, never a NaN."""
    if not field.values.is_floating_point() or torch.isfinite(field.values.sum()):
        return
    good = torch.isfinite(field.values.flatten(2)).all(2)  # (B, N)
    bad = (field.valid & ~good).any(1).nonzero().flatten().tolist()
    if bad:
        raise NonFinite(f"field {name!r} holds NaN or infinity where `valid` says that a value is there", bad)


def only_heads(data: Mapping[str, Any]) -> Heads:
    """The heads that `Heads.to_json` described."""
    return Heads(data["tasks"], data["width"], data["hidden"], data["dropout"])


def probabilities(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Softmax over classes (the last axis) by task.

    >>> probabilities({"death": torch.zeros(1, 2)})["death"].tolist()
    [[0.5, 0.5]]
    """
    return {task: values.float().softmax(-1) for task, values in logits.items()}


def same_tasks(wanted: Sequence[str], tasks: Mapping[str, int]) -> None:
    """An error for a target that no head answers."""
    for task in wanted:
        if task not in tasks:
            raise unknown("head for the task", task, tasks)
