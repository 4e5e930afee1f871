"""A head for time to an event: hazards of K bins, told as the probabilities of K + 1 outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fabrica.objectives.survival import Bins, log_outcomes


class Hazards(nn.Module):
    """States (..., width) -> {task: log-probabilities (..., K + 1)}: the event in each of the bins, the last in none.

    Hazards h_k = sigmoid(linear(state))_k; softmax of the result gives the probabilities themselves, so that a fusion
    answers survival as it answers any task. `bins` were cut on the training part and travel with the weights.

    >>> import torch
    >>> head = Hazards("survival", 8, Bins((12.0, 30.0)))
    >>> head(torch.ones(4, 1, 8))["survival"].exp().sum(-1).flatten().round(decimals=4).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, task: str, width: int, bins: Bins) -> None:
        super().__init__()
        self.task, self.width, self.bins = task, width, bins
        self.linear = nn.Linear(width, len(bins))

    @property
    def tasks(self) -> Mapping[str, int]:
        """Task -> outcomes."""
        return {self.task: len(self.bins) + 1}

    def forward(self, states: Tensor) -> dict[str, Tensor]:
        """Log-probabilities by task."""
        return {self.task: log_outcomes(self.linear(states))}

    def to_json(self) -> dict[str, Any]:
        """The arguments that make this head again."""
        return {"kind": "hazards", "task": self.task, "width": self.width, "edges": list(self.bins.edges)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Hazards:
        """The inverse of `to_json`."""
        return cls(data["task"], data["width"], Bins(tuple(data["edges"])))
