"""What a training will cost, from two steps of each stage: minutes, memory, disk. Changes nothing in the model."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fabrica.train import optim
from fabrica.train.feed import Steps, sampler, source
from fabrica.train.loop import check_reads, never_trained, processes
from fabrica.train.step import Terms, gradients, moved
from fabrica.types import Stage


@dataclass(frozen=True, slots=True)
class Cost:
    """Predicted: `seconds_per_step` by stage name, `minutes` in all, `memory_bytes` at the peak, `disk_bytes` of
    the two checkpoints kept."""

    seconds_per_step: dict[str, float]
    minutes: float
    memory_bytes: int
    disk_bytes: int


def estimate(
    bundle: Any, stages: Sequence[Stage], corpus: Any, *, seed: int = 0, device: str = "cpu", workers: int = 0
) -> Cost:
    """Time two steps of each stage (after one that warms up) without moving a weight.

    With workers, loading overlaps with computing: a step takes the longer of the two. The estimate leaves out the
    optimiser's own time, which is small, and what else the machine does.
    """
    model, data, place = bundle if isinstance(bundle, nn.Module) else bundle.model, source(corpus), processes(device)
    model.to(place)
    frozen = set(never_trained(model, stages))
    buffers = {n: b.detach().clone() for n, b in model.named_buffers()}
    state, seconds = torch.get_rng_state(), {}
    try:
        for stage in stages:
            feed = Steps(data, stage.collate, sampler(data, stage, seed), 0, 1)
            check_reads(stage, feed)
            seconds[stage.name] = _time(model, stage, feed, place, workers)
    finally:
        torch.set_rng_state(state)
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
    trained = sum(p.numel() * p.element_size() for n, p in model.named_parameters() if n not in frozen)
    minutes = sum(seconds[s.name] * s.schedule.steps for s in stages) / 60
    return Cost(seconds, minutes, _peak(place) + 2 * trained, 2 * 3 * trained)


def _time(model: nn.Module, stage: Stage, feed: Steps, place: torch.device, workers: int) -> float:
    terms, plan, took = Terms.of(stage.objectives, stage.coefficients), stage.schedule, []
    with optim.prepared(model, plan):
        for step in range(3):
            start = time.perf_counter()
            batch = moved(feed.load(step), place)
            loaded = time.perf_counter()
            with torch.autocast(place.type, torch.bfloat16, enabled=plan.precision == "bf16"):
                gradients(model, batch, terms, seed=step, chunk=plan.chunk)
            if place.type == "cuda":
                torch.cuda.synchronize(place)
            load, compute = loaded - start, time.perf_counter() - loaded
            took.append(max(load / workers, compute) if workers else load + compute)
            model.zero_grad(set_to_none=True)
    return statistics.mean(took[1:])


def _peak(place: torch.device) -> int:
    if place.type == "cuda":
        return int(torch.cuda.max_memory_allocated(place))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(used if sys.platform == "darwin" else used * 1024)
