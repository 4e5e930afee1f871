"""Runs the independent parts of a proof (seeds, arms) side by side, one process a core, one thread each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import TypeVar

from fabrica.errors import need
from fabrica.proofs import Plan, cores

Job = TypeVar("Job")
Made = TypeVar("Made")


def spread(function: Callable[[Job, Plan], Made], jobs: Sequence[Job], plan: Plan, what: str = "runs") -> list[Made]:
    """`function(job, plan)` of every job, in the order of `jobs`; give long ones first.

    `function` is one of a module. Each job trains on one thread whether it runs here or in a process of its own, so
    that the numbers depend neither on how many cores there are nor on `plan.workers`. On a GPU they run in turn unless
    `plan.workers` says how many may share it.
    """
    need("torch", "train")
    workers = plan.workers or (cores() if plan.device == "cpu" else 1)
    alone, made = replace(plan, progress=None), []
    if min(workers, len(jobs)) < 2:
        with _threads(1 if plan.device == "cpu" else 0):
            for job in jobs:
                made.append(function(job, alone))
                _tell(plan, len(made), len(jobs), what)
        return made
    with ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), _one_thread) as pool:
        for result in pool.map(function, jobs, [alone] * len(jobs)):
            made.append(result)
            _tell(plan, len(made), len(jobs), what)
    return made


def _tell(plan: Plan, done: int, total: int, what: str) -> None:
    if plan.progress is not None:
        plan.progress(done, total, what)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


class _threads:
    """Torch on `n` threads (0 = as it is) for the length of a block."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __enter__(self) -> None:
        import torch

        self.before = torch.get_num_threads()
        if self.n:
            torch.set_num_threads(self.n)

    def __exit__(self, *error: object) -> None:
        import torch

        torch.set_num_threads(self.before)
