"""One loop for every training: stages, checkpoints, exact resume, gradient cache, several processes.

`fit(bundle, stages, corpus, out)` trains; `InMemory` holds a small set as tensors; `estimate` says what a run costs.
"""

from fabrica.train.cost import Cost, estimate
from fabrica.train.loop import FitResult, fit
from fabrica.train.memory import InMemory

__all__ = ["Cost", "FitResult", "InMemory", "estimate", "fit"]
