"""One label a pixel where most pictures lack an object: cross-entropy everywhere, Dice only of what is there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from fabrica.types import Batch, Loss

if TYPE_CHECKING:
    from torch import nn


def of_present(values: Tensor, goal: Tensor) -> Tensor:
    """The mean of `values` (N,) over rows whose known target `goal` (N, P) has a pixel; 0, without gradient, if none.

    Dice of an object that is not there, smoothed by 1 as in Mask2Former, is 1 - 1 / (S + 1) for S marked pixels: the
    emptier the answer, the steeper, up to 1 a pixel, while an object of T pixels that is there pulls with 2 / T a pixel
    at most. With as many absent as present objects the way out of an empty answer is shut. So Dice is of what is there,
    and cross-entropy alone says what is not.

    >>> of_present(torch.tensor([0.2, 0.9]), torch.tensor([[0, 1], [0, 0]])).item() == torch.tensor(0.2).item()
    True
    """
    there = (goal > 0).any(1)
    return (values * there).sum() / there.sum().clamp(min=1)


@dataclass(slots=True)
class Present:
    """The net's maps of `field` against the mask target `target` (one label a pixel, class 0 the background), over its
    known pixels: mean cross-entropy + soft Dice (softmax, smoothing 1) of each class that a sample has.

    With one class it is `QuerySet`'s loss of a mask, but over all pixels.
    """

    target: str
    field: str = "image"
    reads: tuple[str, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.reads = (self.field, self.target)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch; `count` samples contributed."""
        target, known = batch.targets[self.target], batch.known[self.target]
        rows = batch.fields[self.field].valid[:, 0] & known.flatten(1).any(1)
        if not rows.any():
            return Loss(torch.zeros((), device=target.device), {}, 0)
        maps, at = model.see(batch.fields[self.field], rows=rows)  # type: ignore[operator]
        ce, dice = terms(maps.logits, target[at], known[at])
        return Loss(ce + dice, {"ce": float(ce.detach()), "dice": float(dice.detach())}, len(at))


def terms(logits: Tensor, target: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and Dice, both (), of logits (B, K, *S), labels (B, *S) and which are known (B, *S) bool."""
    target = target.where(known, torch.zeros_like(target))
    ce = functional.cross_entropy(logits, target, reduction="none")[known].mean()
    seen = known[:, None].to(logits.dtype)
    goal = (functional.one_hot(target, logits.shape[1]).movedim(-1, 1)[:, 1:] * seen).flatten(2)
    share = (logits.softmax(1)[:, 1:] * seen).flatten(2)
    dice = 1 - (2 * (share * goal).sum(2) + 1) / (share.sum(2) + goal.sum(2) + 1)
    return ce, of_present(dice.flatten(), goal.flatten(0, 1))
