"""One loop for every training: stages, checkpoints, exact resume, gradient cache, several processes.

`fit(bundle, stages, corpus, out)` trains; `InMemory` holds a small set as tensors; `estimate` says what a run costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fabrica.train.cost import Cost, estimate
from fabrica.train.loop import FitResult, Progress
from fabrica.train.loop import fit as _fit  # proofs take `fit` from here and depend on the loop
from fabrica.train.memory import InMemory
from fabrica.types import Stage

__all__ = ["Cost", "FitResult", "InMemory", "estimate", "fit"]


def fit(
    bundle: Any, stages: Sequence[Stage], corpus: Any, out: str | Path, *, seed: int = 0, device: str = "cpu",
    workers: int = 0, resume: bool = True, save_every: int = 200, progress: Progress | None = None,
) -> FitResult:  # fmt: skip
    """`loop.fit`, and `alternate.fit` where a stage trains its objectives in turn (`alternate.Turns`)."""
    run = _fit
    if any(type(stage) is not Stage for stage in stages):
        from fabrica.train import alternate

        run = alternate.fit
    return run(
        bundle, stages, corpus, out, seed=seed, device=device, workers=workers, resume=resume, save_every=save_every,
        progress=progress,
    )  # fmt: skip
