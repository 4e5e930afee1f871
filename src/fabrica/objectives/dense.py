"""Losses over known voxels: cross-entropy and soft Dice that see nothing where the label is unknown."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional

from fabrica.errors import UsageError
from fabrica.types import Batch, Loss

if TYPE_CHECKING:
    from torch import nn

Balance = Literal["inverse"] | tuple[float, ...] | None
SMOOTH = 1e-5


def dense(
    logits: Tensor, target: Tensor, known: Tensor, *, ce: float = 1.0, dice: float = 1.0, balance: Balance = None,
    background: bool = True,
) -> tuple[Tensor, dict[str, float], int]:  # fmt: skip
    """`ce` x cross-entropy + `dice` x (1 - soft Dice) over known voxels: the loss (), its terms, and the samples that
    have any (0: the loss is 0 and has no gradient).

    Two forms. One label a voxel: `logits` (B, K, *S), `target` (B, *S) integer, `known` (B, *S) bool: softmax.
    One question a class: all three (B, K, *S), `target` 0 or 1: sigmoid, and a class that is unknown in a sample is
    neither positive nor background there. What `target` holds where `known` is False has no influence at all.

    Cross-entropy is the mean over known voxels; with `balance` "inverse" the weight of class c is n / (K' n_c) over the
    batch (n known voxels, K' classes among them; a class without any has weight 0), or fixed weights (K,). Soft Dice is
    MONAI's, a sample and a class at a time, smoothing 1e-5; `background` says whether class 0 is among them.

    >>> logits = torch.zeros(1, 2, 2, 2)
    >>> known = torch.tensor([[[True, False], [False, False]]])
    >>> loss, terms, count = dense(logits, torch.ones(1, 2, 2, dtype=torch.long), known, dice=0.0)
    >>> round(loss.item(), 4), count  # log 2
    (0.6931, 1)
    """
    _check(logits, target, known)
    samples = known.flatten(1).any(1)
    count = int(samples.sum())
    if not count:
        return logits.new_zeros(()), {}, 0
    logits, target, known = logits[samples].float(), target[samples], known[samples]
    one_label = target.ndim == logits.ndim - 1
    target = torch.where(known, target, torch.zeros_like(target))
    terms: dict[str, Tensor] = {}
    if ce:
        terms["ce"] = (
            _cross_entropy(logits, target.long(), known, balance) if one_label
            else _binary(logits, target.float(), known)
        )  # fmt: skip
    if dice:
        terms["dice"] = _soft_dice(logits, target, known, background)
    total = torch.stack([weight * terms[n] for n, weight in (("ce", ce), ("dice", dice)) if weight]).sum()
    return total, {n: float(t.detach()) for n, t in terms.items()}, count


def _check(logits: Tensor, target: Tensor, known: Tensor) -> None:
    one = tuple(target.shape) == (logits.shape[0], *logits.shape[2:])
    if not (one or target.shape == logits.shape) or known.shape != target.shape or known.dtype != torch.bool:
        raise UsageError(
            f"logits {tuple(logits.shape)}, target {tuple(target.shape)}, known {tuple(known.shape)} of {known.dtype}; "
            "wanted (B, K, *S) with (B, *S) twice, or all three alike, known bool"
        )
    inside = target[known]
    top = logits.shape[1] if one else 2
    if inside.numel() and (int(inside.min()) < 0 or int(inside.max()) >= top):
        raise UsageError(f"a known label is {int(inside.min())} or {int(inside.max())}; wanted 0 to {top - 1}")


def _cross_entropy(logits: Tensor, target: Tensor, known: Tensor, balance: Balance) -> Tensor:
    cells = functional.cross_entropy(logits, target, reduction="none")[known]
    if balance is None:
        return cells.mean()
    classes = logits.shape[1]
    labels = target[known]
    if balance == "inverse":
        counts = torch.bincount(labels, minlength=classes).to(cells)
        weights = torch.where(counts > 0, len(labels) / ((counts > 0).sum() * counts.clamp(min=1)), 0.0)
    else:
        if len(balance) != classes:
            raise UsageError(f"{len(balance)} class weights for {classes} classes")
        weights = torch.as_tensor(balance, dtype=cells.dtype, device=cells.device)
    return (weights[labels] * cells).mean()


def _binary(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="none")[known].mean()


def _soft_dice(logits: Tensor, target: Tensor, known: Tensor, background: bool) -> Tensor:
    """MONAI's soft Dice of what is left of both when unknown voxels are blanked; only classes known somewhere in a
    sample are averaged."""
    from monai.losses.dice import DiceLoss

    if target.ndim < logits.ndim:
        shares = logits.softmax(1)
        truth = functional.one_hot(target.long(), logits.shape[1]).movedim(-1, 1).to(shares)
        known = known[:, None].expand_as(shares)
    else:
        shares, truth = logits.sigmoid(), target.to(logits)
    per = DiceLoss(reduction="none", smooth_nr=SMOOTH, smooth_dr=SMOOTH)(shares * known, truth * known)
    asked = known.flatten(2).any(2).to(per)
    first = 0 if background or logits.shape[1] == 1 else 1
    per, asked = per.flatten(1)[:, first:], asked[:, first:]
    made: Tensor = (per * asked).sum() / asked.sum().clamp(min=1)
    return made


@dataclass(slots=True)
class Dense:
    """The net's maps of `field` against the mask target `target`, over its known voxels (see `dense`).

    `level_weights`: the weight of full size and of each coarser level in turn, () = full size alone; targets of coarser
    levels are taken by nearest neighbour. Records without the image or without a known voxel never run.
    """

    target: str
    field: str = "image"
    ce: float = 1.0
    dice: float = 1.0
    balance: Balance = None
    background: bool = True
    level_weights: Sequence[float] = ()
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
        weights = tuple(self.level_weights) or (1.0,)
        terms: dict[str, float] = {}
        total, count = torch.zeros((), device=target.device), 0
        for d, (weight, logits) in enumerate(zip(weights, (maps.logits, *maps.levels), strict=False)):
            if weight:
                goal, seen = (_shrunk(t[at], logits.shape[2:]) for t in (target, known))
                loss, found, n = dense(
                    logits, goal, seen, ce=self.ce, dice=self.dice, balance=self.balance, background=self.background
                )
                total, count = total + weight * loss, max(count, n)
                terms |= {name if d == 0 else f"{name}/{d}": v for name, v in found.items()}
        return Loss(total, terms, count)


def _shrunk(labels: Tensor, sides: Sequence[int]) -> Tensor:
    """Labels (B[, K], *S) on a coarser grid, by nearest neighbour."""
    axes = len(sides)
    if tuple(labels.shape[-axes:]) == tuple(sides):
        return labels
    flat = labels.reshape(-1, 1, *labels.shape[-axes:]).float()
    small = functional.interpolate(flat, size=tuple(sides), mode="nearest-exact")
    return small.reshape(*labels.shape[:-axes], *sides).to(labels.dtype)
