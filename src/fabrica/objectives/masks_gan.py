"""Adversarial losses on predicted masks, least squares with labels +1 and -1: critic, fooling, and beside scribbles."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from fabrica.objectives.dense import dense
from fabrica.types import Batch, Loss

if TYPE_CHECKING:
    from torch import nn


def predicted(logits: Tensor, levels: Sequence[Tensor], count: int) -> list[Tensor]:
    """The first `count` levels of a prediction as shares WITHOUT the background: (B, K - 1, *S / 2^d)."""
    return [maps.softmax(1)[:, 1:] for maps in (logits, *levels)[:count]]


def real(labels: Tensor, classes: int, count: int) -> list[Tensor]:
    """The pyramid of true masks (B, *S) integer: one-hot without background, halved by bilinear interpolation.

    >>> [tuple(p.shape) for p in real(torch.zeros(2, 8, 8, dtype=torch.long), 4, 3)]
    [(2, 3, 8, 8), (2, 3, 4, 4), (2, 3, 2, 2)]
    """
    one_hot = functional.one_hot(labels.long(), classes).movedim(-1, 1)[:, 1:].float()
    mode = "bilinear" if one_hot.ndim == 4 else "trilinear"
    sides = one_hot.shape[2:]
    sizes = [tuple(-(-n // 2**d) for n in sides) for d in range(count)]
    return [one_hot, *(functional.interpolate(one_hot, size=s, mode=mode, antialias=mode == "bilinear")
                       for s in sizes[1:])]  # fmt: skip


def fool(scores: Tensor) -> Tensor:
    """L_G = 1/2 E[(D(S(x)) - 1)^2] (least squares, Mao et al. 2017)."""
    return 0.5 * (scores - 1).square().mean()


@dataclass(slots=True)
class MaskCritic:
    """L_D = 1/2 E[(D(M) - 1)^2] + 1/2 E[(D(S(x)) + 1)^2]: real masks M (target `mask`) against predictions for `field`.

    No graph leads back to the segmentor. Without a real mask or without an image the step is skipped (count 0). Terms:
    the mean scores, their gap, and `area_spread`, the standard deviation of the predicted areas over that of the real
    ones (towards 0 = mode collapse).
    """

    mask: str = "mask"
    field: str = "image"
    critic: str = "critic"
    reads: tuple[str, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.reads = (self.field, self.mask)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The critic's loss of one batch; `count` masks and images."""
        images = batch.fields[self.field]
        known = batch.known[self.mask].flatten(1).all(1)
        if not known.any() or not images.valid.any():
            return Loss(torch.zeros((), device=images.values.device), {}, 0)
        critic: Any = model.get_submodule(self.critic)
        with torch.no_grad():
            maps, at = model.see(images)  # type: ignore[operator]
            fake = predicted(maps.logits, maps.levels, critic.levels)
        true = real(batch.targets[self.mask][known], critic.classes, critic.levels)
        scores = critic([torch.cat([a, b]) for a, b in zip(true, fake, strict=True)])
        on_true, on_fake = scores[: int(known.sum())], scores[int(known.sum()) :]
        total = 0.5 * (on_true - 1).square().mean() + 0.5 * (on_fake + 1).square().mean()
        areas = [p[0].flatten(2).mean(2).std(0).mean() if len(p[0]) > 1 else p[0].new_zeros(()) for p in (fake, true)]
        terms = {"real": float(on_true.detach().mean()), "fake": float(on_fake.detach().mean())}
        terms |= {"gap": terms["real"] - terms["fake"], "area_spread": float(areas[0] / areas[1].clamp(min=1e-8))}
        return Loss(total, terms, int(known.sum()) + len(at))


@dataclass(slots=True)
class Fool:
    """The segmentor's adversarial step on images without a known voxel of `scribble`: L_G of their predictions."""

    scribble: str = "scribble"
    field: str = "image"
    critic: str = "critic"
    reads: tuple[str, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.reads = (self.field, self.scribble)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """L_G of one batch; `count` images."""
        images = batch.fields[self.field]
        rows = images.valid[:, 0] & ~batch.known[self.scribble].flatten(1).any(1)
        if not rows.any():
            return Loss(torch.zeros((), device=images.values.device), {}, 0)
        maps, at = model.see(images, rows=rows)  # type: ignore[operator]
        critic: Any = model.get_submodule(self.critic)
        return Loss(fool(critic(predicted(maps.logits, maps.levels, critic.levels))), {}, len(at))


@dataclass(slots=True)
class Scribble:
    """Scribbled images: a0 x partial cross-entropy + `adversarial` x L_G of the same predictions.

    Partial cross-entropy is over known voxels, classes balanced by n / n_c. `balance` sets a0 = |L_G| / |L_PCE| without
    gradient, at most `most`, so that the supervised part never drowns beside the adversarial one; else a0 = 1. The
    loss's value is L_PCE + `adversarial` x L_G whatever a0 is (steps stay comparable); its gradient has a0 in it.
    `adversarial` 0 is partial cross-entropy alone and needs no critic. The CRITIC's loss is never part of it.
    """

    scribble: str = "scribble"
    field: str = "image"
    critic: str = "critic"
    adversarial: float = 0.1
    balance: bool = True
    most: float = 100.0
    reads: tuple[str, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.reads = (self.field, self.scribble)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch; `count` images with a stroke."""
        target, known = batch.targets[self.scribble], batch.known[self.scribble]
        images = batch.fields[self.field]
        rows = images.valid[:, 0] & known.flatten(1).any(1)
        if not rows.any():
            return Loss(torch.zeros((), device=images.values.device), {}, 0)
        maps, at = model.see(images, rows=rows)  # type: ignore[operator]
        partial, _, count = dense(maps.logits, target[at], known[at], dice=0.0, balance="inverse")
        terms = {"pce": float(partial.detach())}
        if not self.adversarial:
            return Loss(partial, terms, count)
        critic: Any = model.get_submodule(self.critic)
        deceit = fool(critic(predicted(maps.logits, maps.levels, critic.levels)))
        a0 = balanced(deceit, partial, self.most) if self.balance else partial.new_ones(())
        pulled = a0 * partial + self.adversarial * deceit
        value = (partial + self.adversarial * deceit).detach()
        terms |= {"fool": float(deceit.detach()), "a0": float(a0)}
        return Loss(pulled + (value - pulled.detach()), terms, count)


def balanced(deceit: Tensor, partial: Tensor, most: float) -> Tensor:
    """a0 = |L_G| / |L_PCE|, no gradient, clipped to `most` where the supervised loss vanishes.

    >>> balanced(torch.tensor(2.0), torch.tensor(0.0), 100.0).item()
    100.0
    """
    return (deceit.detach().abs() / partial.detach().abs().clamp(min=1e-8)).clamp(max=most)
