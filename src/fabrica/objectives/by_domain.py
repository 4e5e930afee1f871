"""Every sample by its own label space: the domain chooses the head, so one set's background is no organ of another."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fabrica.objectives.dense import dense
from fabrica.types import Batch, Loss

if TYPE_CHECKING:
    from torch import nn


@dataclass(slots=True)
class ByDomain:
    """L = mean over samples of CE(D_i(f(x)), y) over known voxels, i the sample's domain (target `domain`, (B,) int64).

    The encoder gets gradient from all, a head from its own samples only: heads that the batch does not name get none
    (no decay either). Samples without image, known domain or known voxel do not run. Terms: the loss of each domain by
    its number.
    """

    target: str = "mask"
    domain: str = "domain"
    field: str = "image"
    dice: float = 0.0
    reads: tuple[str, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.reads = (self.field, self.target, self.domain)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch; `count` samples contributed."""

        index, known, target = batch.targets[self.domain], batch.known[self.target], batch.targets[self.target]
        rows = batch.fields[self.field].valid[:, 0] & batch.known[self.domain] & known.flatten(1).any(1)
        zero = torch.zeros((), device=target.device)
        if not rows.any():
            return Loss(zero, {}, 0)
        maps, at = model.see(batch.fields[self.field], rows=rows, index=index)  # type: ignore[operator]
        total, terms = zero, {}
        for number in sorted(set(index[at].tolist())):
            mine = index[at] == number
            loss, _, n = dense(maps.logits[mine], target[at][mine], known[at][mine], dice=self.dice)
            total = total + loss * n / len(at)
            terms[str(int(number))] = float(loss.detach())
        return Loss(total, terms, len(at))
