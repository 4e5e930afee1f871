"""The optimiser of a stage: AdamW in groups, a linear warm-up and a cosine that are pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from fabrica.errors import UsageError, unknown
from fabrica.objectives.scale import LogitScale
from fabrica.types import Schedule


def rate(schedule: Schedule, step: int) -> float:
    """The learning rate of step 0, 1, ...: warm-up to `lr`, then a cosine to `final` x `lr`.

    >>> plan = Schedule(steps=10, batch=1, lr=1.0, warmup=2)
    >>> [round(rate(plan, s), 3) for s in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.038]
    """
    if step < schedule.warmup:
        return schedule.lr * (step + 1) / schedule.warmup
    done = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    return schedule.lr * (schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def multiplier(name: str, lr_scale: Mapping[str, float]) -> float:
    """What a parameter's rate is multiplied with: that of the longest prefix of its name, else 1.

    >>> multiplier("towers.text.encoder.weight", {"towers": 0.5, "towers.text": 0.0})
    0.0
    """
    fits = [p for p in lr_scale if name == p or name.startswith(p if p.endswith(".") else p + ".") or p == ""]
    return lr_scale[max(fits, key=len)] if fits else 1.0


def trained(model: nn.Module, schedule: Schedule) -> dict[str, float]:
    """Name -> rate multiplier of the parameters that a stage moves; prefixes that fit nothing are an error."""
    names = [name for name, _ in model.named_parameters()]
    for prefix in schedule.lr_scale:
        if not any(multiplier(name, {prefix: 2.0}) == 2.0 for name in names):
            raise unknown("parameter prefix", prefix, {".".join(n.split(".")[:k]) for n in names for k in (1, 2, 3)})
    factors = {name: multiplier(name, schedule.lr_scale) for name, p in model.named_parameters() if p.requires_grad}
    return {name: f for name, f in factors.items() if f > 0}


def adamw(model: nn.Module, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW over what the stage moves. No decay for vectors and scalars (norms, biases, scales)."""
    check(schedule)
    factors = trained(model, schedule)
    if not factors:
        raise UsageError("the stage trains nothing: every parameter is frozen")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        if name in factors:
            decay = schedule.weight_decay if p.ndim > 1 else 0.0
            groups.setdefault((factors[name], decay), []).append(p)
    return torch.optim.AdamW(
        [{"params": ps, "weight_decay": decay, "factor": factor} for (factor, decay), ps in groups.items()],
        lr=schedule.lr, betas=schedule.betas, fused=True,
    )  # fmt: skip


def check(schedule: Schedule) -> None:
    """Numbers that make sense."""
    wrong = [
        f"{name} = {value}" for name, value, fine in (
            ("steps", schedule.steps, schedule.steps >= 1), ("batch", schedule.batch, schedule.batch >= 1),
            ("lr", schedule.lr, 0 < schedule.lr < math.inf), ("warmup", schedule.warmup, schedule.warmup >= 0),
            ("weight_decay", schedule.weight_decay, schedule.weight_decay >= 0),
            ("clip", schedule.clip, schedule.clip is None or schedule.clip > 0),
            ("chunk", schedule.chunk, schedule.chunk >= 0),
            ("precision", schedule.precision, schedule.precision in ("no", "bf16")),
        ) if not fine
    ]  # fmt: skip
    if wrong:
        raise UsageError(f"schedule: {', '.join(wrong)}; wanted steps, batch >= 1, lr > 0, the others >= 0")


@contextmanager
def prepared(model: nn.Module, schedule: Schedule) -> Iterator[None]:
    """Training mode with what the stage freezes frozen: no gradient, and whole modules of it in evaluation mode (their
    dropout off, their running statistics still). Flags and modes come back at the end."""
    factors = trained(model, schedule)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    modes = {name: m.training for name, m in model.named_modules()}
    model.train()
    for name, p in model.named_parameters():
        p.requires_grad_(name in factors)
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters) and not isinstance(module, LogitScale):
            module.eval()
    try:
        yield
    finally:
        for name, p in model.named_parameters():
            p.requires_grad_(flags[name])
        for name, m in model.named_modules():
            m.training = modes[name]
