"""Stages whose objectives are trained in turn: each moves its own part of the model, everything else stands still.

Adam keeps its moments by parameter, and a parameter without a gradient is not touched (no decay either). So one AdamW
whose parameters get their gradients in different turns is an optimiser for each part; a test compares it with several.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fabrica.errors import UsageError, unknown
from fabrica.objectives.check import NonFinite
from fabrica.objectives.gather import rank, world
from fabrica.train import checkpoint, loop, optim
from fabrica.train.checkpoint import At
from fabrica.train.feed import Steps, derive, sampler, source
from fabrica.train.log import Log
from fabrica.train.step import Terms, average, gradients, moved
from fabrica.types import Batch, Schedule, Stage


@dataclass(frozen=True, slots=True)
class Turns(Stage):
    """A stage whose `objectives` are trained one after the other within each step, in their order.

    A key names the part that moves, "critic" or "net/unlabelled" (part, then what the turn is called); the parameters
    under another part get no gradient, and modules without a moving parameter are in evaluation mode for the turn. A
    part may come more than once: its moments go on. `Schedule.lr_scale` {"critic": 0.4} gives a part its own rate. A
    turn to which no row contributes is left out (terms say so by their absence). The log's "loss" is the last turn's.
    """


def fit(
    bundle: Any, stages: Sequence[Stage], corpus: Any, out: str | Path, *, seed: int = 0, device: str = "cpu",
    workers: int = 0, resume: bool = True, save_every: int = 200, progress: loop.Progress | None = None,
) -> loop.FitResult:  # fmt: skip
    """`train.loop.fit` for stages some of which are `Turns`: the same log, checkpoints, resume and processes."""
    model = bundle if isinstance(bundle, nn.Module) else bundle.model
    start, out, data, stages = time.perf_counter(), Path(out), source(corpus), tuple(stages)
    for stage in stages:
        parts_of(model, stage)
    place = loop.processes(device)
    orders = [sampler(data, stage, seed) for stage in stages]
    feeds = [Steps(data, s.collate, order, rank(), world()) for s, order in zip(stages, orders, strict=True)]
    terms = [Terms.of(stage.objectives, stage.coefficients) for stage in stages]
    frozen = loop.never_trained(model, stages)
    for stage, feed in zip(stages, feeds, strict=True):
        loop.check_reads(stage, feed)
    model.to(place)
    plan = loop.plan_of(stages, orders, seed) | {"frozen": checkpoint.frozen_fingerprint(model, frozen)}
    plan |= {"turns": [list(s.objectives) if isinstance(s, Turns) else [] for s in stages]}
    at, last = loop._resume(out, plan, resume)
    if last is not None:
        checkpoint.load(last, model, frozen)
    log = Log(out / "train.jsonl" if rank() == 0 else None, keep=at.step)
    steps, began = sum(s.schedule.steps for s in stages), at.step
    run = _InTurn(model, out, seed, place, workers, save_every, progress, plan, frozen, log, steps)
    with loop._random_kept():
        try:
            for number in range(at.stage, len(stages)):
                at = run.stage(stages[number], feeds[number], terms[number], at, last)
                last = None
        finally:
            log.close()
    losses = tuple(line["loss"] for line in log.lines if "loss" in line)
    return loop.FitResult(losses, at.step, time.perf_counter() - start, at.skipped, began)


class _InTurn(loop._Run):
    """A run whose step may have several turns."""

    def _step(
        self, stage: Stage, at: At, batch: Batch, terms: Terms, optimiser: torch.optim.Optimizer
    ) -> dict[str, Any]:
        """One step. Without "loss" in the line no turn had a row."""
        if not isinstance(stage, Turns):
            return loop._Run._step(self, stage, at, batch, terms, optimiser)
        lr = optim.rate(stage.schedule, at.within)
        line: dict[str, Any] = {"step": at.step + 1, "stage": stage.name, "lr": lr}
        batch = moved(batch, self.device)
        for group in optimiser.param_groups:
            group["lr"] = lr * group["factor"]
        for name in stage.objectives:
            try:
                line |= self._turn(stage, name, at, batch, optimiser)
            except NonFinite as error:
                raise loop._named(error, stage, at, batch) from error
        optimiser.zero_grad(set_to_none=True)
        return line if "loss" in line else line | {"skipped": True}

    def _turn(
        self, stage: Turns, name: str, at: At, batch: Batch, optimiser: torch.optim.Optimizer
    ) -> dict[str, Any]:  # fmt: skip
        """One turn's update; its part of the line, nothing where no row contributed."""
        part, plan = name.partition("/")[0], stage.schedule
        terms = Terms.of({name: stage.objectives[name]}, {k: v for k, v in stage.coefficients.items() if k == name})
        optimiser.zero_grad(set_to_none=True)
        cast = partial(torch.autocast, self.device.type, torch.bfloat16) if plan.precision == "bf16" else nullcontext
        with optim.prepared(self.model, only(self.model, plan, part)):
            torch.manual_seed(derive(self.seed, stage.name, at.within, rank(), name))
            outcome = gradients(
                self.model, batch, terms, seed=derive(self.seed, stage.name, at.within, name), chunk=plan.chunk,
                autocast=cast,
            )  # fmt: skip
            if outcome.count == 0:
                return {}
            average(self.model)
            norm = self._clip(optimiser, plan.clip)
        optimiser.step()
        return {"loss": outcome.total, "count": outcome.count, "grad_norm": norm, **outcome.terms}


def only(model: nn.Module, schedule: Schedule, part: str) -> Schedule:
    """The schedule under which nothing but `part` moves (at its own rates).

    >>> model = nn.ModuleDict({"net": nn.Linear(1, 1), "critic": nn.Linear(1, 1)})
    >>> dict(only(model, Schedule(1, 1, 1.0, lr_scale={"critic": 0.4}), "net").lr_scale)
    {'critic': 0.0}
    """
    others = {n: 0.0 for n, child in model.named_children() if n != part and any(True for _ in child.parameters())}
    mine = {k: v for k, v in schedule.lr_scale.items() if k == part or k.startswith(f"{part}.") or k == ""}
    return replace(schedule, lr_scale={**mine, **others})


def parts_of(model: nn.Module, stage: Stage) -> Mapping[str, nn.Module]:
    """The parts that a stage's turns name; an error for one that the model lacks, or where a lone parameter has no part
    to stand still with."""
    if not isinstance(stage, Turns):
        return {}
    children = dict(model.named_children())
    named = dict.fromkeys(name.partition("/")[0] for name in stage.objectives)
    for name in named:
        if name not in children:
            raise unknown(f"part of the model that stage {stage.name!r} trains in turn", name, children)
    loose = [n for n, _ in model.named_parameters(recurse=False)]
    if loose:
        raise UsageError(f"parameter {loose[0]!r} belongs to no part; a model that is trained in turns has parts alone")
    return {name: children[name] for name in named}
