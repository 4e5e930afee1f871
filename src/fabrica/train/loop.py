"""The loop: stages in order, one step after the other, the same whether it was ever killed or not.

Everything random in a step follows from (seed, stage, step, process): which records, their views, dropout, negatives.
So a checkpoint holds weights and optimiser alone, and a resumed run repeats the unbroken one. Under torchrun each
process takes every w-th record of the same global batch, and gradients equal those of one process.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fabrica.errors import UsageError, unknown
from fabrica.objectives.check import NonFinite
from fabrica.objectives.gather import rank, world
from fabrica.objectives.scale import LogitScale
from fabrica.train import checkpoint, optim
from fabrica.train.checkpoint import At
from fabrica.train.feed import Steps, batches, derive, sampler, source
from fabrica.train.log import Log
from fabrica.train.step import Outcome, Terms, average, gradients, moved
from fabrica.types import Batch, Stage

Progress = Callable[[int, int | None, str], None]


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a training did: the joint loss of every step that was taken, steps in all, seconds of this call, steps
    skipped because no row contributed, and the step it went on from (0 = from the beginning)."""

    losses: tuple[float, ...]
    steps: int
    seconds: float
    skipped: int
    resumed_from: int


def fit(
    bundle: Any, stages: Sequence[Stage], corpus: Any, out: str | Path, *, seed: int = 0, device: str = "cpu",
    workers: int = 0, resume: bool = True, save_every: int = 200, progress: Progress | None = None,
) -> FitResult:  # fmt: skip
    """Train a bundle's model (or a module) in place.

    `corpus`: a `Corpus`, `InMemory`, or a list of records. `out` gets `train.jsonl` and `checkpoints/`. With `resume` a
    run killed at any moment goes on from its last checkpoint and gives the same losses; other settings than the
    checkpoint's are refused by name; False starts over. `save_every` steps (0: at the ends of stages only). `workers`
    are spawned, so a script needs `if __name__ == "__main__"`. Run it under torchrun for several processes.

    Errors: `UsageError` before step 0 for a field, target or key that an objective reads and the data lacks;
    `NonFinite` names step, stage and record ids.
    """
    model = bundle if isinstance(bundle, nn.Module) else bundle.model
    start, out, data, stages = time.perf_counter(), Path(out), source(corpus), tuple(stages)
    place = processes(device)
    orders = [sampler(data, stage, seed) for stage in stages]
    feeds = [Steps(data, s.collate, order, rank(), world()) for s, order in zip(stages, orders, strict=True)]
    terms = [Terms.of(stage.objectives, stage.coefficients) for stage in stages]
    frozen = never_trained(model, stages)
    for stage, feed in zip(stages, feeds, strict=True):
        check_reads(stage, feed)
    model.to(place)
    plan = plan_of(stages, orders, seed) | {"frozen": checkpoint.frozen_fingerprint(model, frozen)}
    at, last = _resume(out, plan, resume)
    if last is not None:
        checkpoint.load(last, model, frozen)
    log = Log(out / "train.jsonl" if rank() == 0 else None, keep=at.step)
    steps, began = sum(s.schedule.steps for s in stages), at.step
    run = _Run(model, out, seed, place, workers, save_every, progress, plan, frozen, log, steps)
    with _random_kept():
        try:
            for number in range(at.stage, len(stages)):
                at = run.stage(stages[number], feeds[number], terms[number], at, last)
                last = None
        finally:
            log.close()
    losses = tuple(line["loss"] for line in log.lines if "loss" in line)
    return FitResult(losses, at.step, time.perf_counter() - start, at.skipped, began)


@dataclass(slots=True)
class _Run:
    """What all stages of a run share."""

    model: nn.Module
    out: Path
    seed: int
    device: torch.device
    workers: int
    save_every: int
    progress: Progress | None
    plan: Mapping[str, Any]
    frozen: Sequence[str]
    log: Log
    steps: int

    def stage(self, stage: Stage, feed: Steps, terms: Terms, at: At, last: Path | None) -> At:
        """Run a stage from where it stands to its end, with a checkpoint there."""
        plan = stage.schedule
        with optim.prepared(self.model, plan):
            optimiser = optim.adamw(self.model, plan)
            if last is not None and at.within:
                checkpoint.load_optimiser(last, self.model, optimiser)
            scales = {n: m for n, m in self.model.named_modules() if isinstance(m, LogitScale)}
            for batch in batches(feed, at.within, plan.steps, self.workers):
                began = time.perf_counter()
                line = self._step(stage, at, batch, terms, optimiser)
                for scale in scales.values():
                    scale.clamp_()
                line |= {n: float(m().detach()) for n, m in scales.items()}
                at = At(at.step + 1, at.stage, at.within + 1, at.skipped + ("loss" not in line))
                self.log.append(line | {"seconds": round(time.perf_counter() - began, 6)})
                if self.progress is not None and rank() == 0:
                    self.progress(at.step, self.steps, "train")
                if self.save_every and at.within % self.save_every == 0 and at.within < plan.steps:
                    self._save(at, optimiser)
        if at.within == plan.steps:
            at = At(at.step, at.stage + 1, 0, at.skipped)
            self._save(at, None)
        return at

    def _step(
        self, stage: Stage, at: At, batch: Batch, terms: Terms, optimiser: torch.optim.Optimizer
    ) -> dict[str, Any]:
        """One update; the log's line. Without "loss" in it nothing contributed, and no weight moved."""
        plan, lr = stage.schedule, optim.rate(stage.schedule, at.within)
        line: dict[str, Any] = {"step": at.step + 1, "stage": stage.name, "lr": lr}
        torch.manual_seed(derive(self.seed, stage.name, at.within, rank()))
        optimiser.zero_grad(set_to_none=True)
        cast = partial(torch.autocast, self.device.type, torch.bfloat16, enabled=plan.precision == "bf16")
        try:
            outcome: Outcome = gradients(
                self.model, moved(batch, self.device), terms, seed=derive(self.seed, stage.name, at.within),
                chunk=plan.chunk, autocast=cast,
            )  # fmt: skip
            if outcome.count == 0:
                return line | {"skipped": True}
            average(self.model)
            norm = self._clip(optimiser, plan.clip)
        except NonFinite as error:
            raise _named(error, stage, at, batch) from error
        for group in optimiser.param_groups:
            group["lr"] = lr * group["factor"]
        optimiser.step()
        return line | {"loss": outcome.total, "count": outcome.count, "grad_norm": norm, **outcome.terms}

    def _clip(self, optimiser: torch.optim.Optimizer, most: float | None) -> float:
        grads = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        value = float(norm)
        if not math.isfinite(value):
            raise NonFinite(f"the gradient's norm is {value}")
        if most is not None and value > most:
            torch._foreach_mul_(grads, most / (value + 1e-6))
        return value

    def _save(self, at: At, optimiser: torch.optim.Optimizer | None) -> None:
        if rank() == 0:
            self.log.sync()
            checkpoint.save(self.out / "checkpoints", at, self.model, optimiser, self.plan, self.frozen)
        if world() > 1:
            torch.distributed.barrier()


def processes(device: str) -> torch.device:
    """This process's device; joins the others when torchrun started several (accelerate)."""
    from accelerate import PartialState

    kind = torch.device(device).type
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("device 'cuda' was asked for, but torch sees no GPU here; use device='cpu'")
    state = PartialState(cpu=kind == "cpu")
    return state.device if state.num_processes > 1 else torch.device(device)


def check_reads(stage: Stage, feed: Steps) -> None:
    """Every field, target and key that an objective reads stands in a batch; tried on one before step 0."""
    optim.check(stage.schedule)
    sample = feed.load(0)
    known = {*sample.fields, *sample.targets, *sample.keys}
    for name, objective in stage.objectives.items():
        for wanted in objective.reads:
            if wanted not in known:
                raise unknown(f"field, target or key (stage {stage.name!r}, objective {name!r})", wanted, known)


def never_trained(model: nn.Module, stages: Sequence[Stage]) -> list[str]:
    """Names of the parameters that no stage moves."""
    if not stages:
        raise UsageError("no stages to train")
    moving: set[str] = set()
    for stage in stages:
        moving |= set(optim.trained(model, stage.schedule))
    return [name for name, _ in model.named_parameters() if name not in moving]


def plan_of(stages: Sequence[Stage], orders: Sequence[Any], seed: int) -> dict[str, Any]:
    """What a checkpoint must agree with: seed, and for each stage its schedule, objectives and records."""
    return {
        "seed": seed,
        "stages": [
            {
                "name": s.name,
                "schedule": {f.name: getattr(s.schedule, f.name) for f in fields(s.schedule)}
                | {"lr_scale": dict(s.schedule.lr_scale)},
                "objectives": {n: f"{type(o).__name__}({', '.join(o.reads)})" for n, o in s.objectives.items()},
                "coefficients": dict(s.coefficients),
                "mix": [s.mix_by, s.mix_temperature],
                "records": f"{sum(map(len, order.sources.values()))} records {derive(order.sources):016x}",
            }
            for s, order in zip(stages, orders, strict=True)
        ],
    }  # fmt: skip


def _resume(out: Path, plan: Mapping[str, Any], resume: bool) -> tuple[At, Path | None]:
    folder = out / "checkpoints"
    out.mkdir(parents=True, exist_ok=True)
    if world() > 1:
        torch.distributed.barrier()
    known = checkpoint.found(folder)
    if not resume:
        if world() > 1:
            torch.distributed.barrier()
        if rank() == 0:
            for path in known:
                shutil.rmtree(path)
        return At(0, 0, 0, 0), None
    if not known:
        return At(0, 0, 0, 0), None
    return checkpoint.read(known[-1], plan), known[-1]


def _named(error: NonFinite, stage: Stage, at: At, batch: Batch) -> NonFinite:
    """The same error with step, stage and the records that it concerns."""
    mine = [batch.ids[r // world()] for r in error.rows if r % world() == rank()] or list(batch.ids)
    some = ", ".join(mine[:8]) + (f" and {len(mine) - 8} more" if len(mine) > 8 else "")
    return NonFinite(
        f"step {at.step + 1} (stage {stage.name!r}, its step {at.within + 1}): {error}; records {some}", error.rows
    )


@contextmanager
def _random_kept() -> Iterator[None]:
    """Torch's generator is as it was when this ends."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
