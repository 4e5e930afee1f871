"""Heads that answer several tasks from one state: a small MLP a task, for any leading axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from fabrica.errors import UsageError


class Heads(nn.Module):
    """States (..., width) -> logits (..., classes) a task: `hidden` layers with ReLU and dropout, then a linear one.

    Tasks meet in the state alone: a head shares nothing with the others. Yes/no is two classes. MultiModN's decoders
    are `Heads(tasks, 50, (32, 32), 0.2)` (arXiv 2309.14118); `hidden` () is a linear classifier.

    >>> import torch
    >>> {task: tuple(logits.shape) for task, logits in Heads({"death": 2, "unit": 4}, 8)(torch.ones(3, 5, 8)).items()}
    {'death': (3, 5, 2), 'unit': (3, 5, 4)}
    """

    def __init__(self, tasks: Mapping[str, int], width: int, hidden: Sequence[int] = (), dropout: float = 0.0) -> None:
        super().__init__()
        if not tasks:
            raise UsageError("no tasks to answer; wanted at least one label with its number of classes")
        few = {task: classes for task, classes in tasks.items() if classes < 2}
        if few:
            raise UsageError(f"tasks {few}: wanted two classes or more (yes/no is two)")
        self.tasks, self.width, self.hidden, self.dropout = dict(tasks), width, tuple(hidden), dropout
        self.layers = nn.ModuleList(_mlp((width, *self.hidden), classes, dropout) for classes in tasks.values())

    def forward(self, states: Tensor) -> dict[str, Tensor]:
        """Logits (..., C) by task."""
        return {task: layer(states) for task, layer in zip(self.tasks, self.layers, strict=True)}

    def to_json(self) -> dict[str, Any]:
        """The arguments that make these heads again."""
        return {"tasks": self.tasks, "width": self.width, "hidden": list(self.hidden), "dropout": self.dropout}


def _mlp(widths: Sequence[int], classes: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))
