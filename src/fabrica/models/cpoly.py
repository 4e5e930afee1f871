"""C-Poly: low-rank skills that tasks mix, some shared by all tasks and some of one task alone.

Wang et al. 2023, "Customizable Combination of Parameter-Efficient Modules for Multi-Task Learning", arXiv 2312.03248,
equation 5 in the form of this project's sheet: dW_t = sum_a w_ta A_a B_a + sum_b v_tb A^t_b B^t_b with w, v softmaxes
learned per task. `peft`'s Poly has shared skills only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError


@dataclass(frozen=True, slots=True)
class CPoly:
    """`tasks` by name, in the order of their ids; `shared` skills and `private` ones a task, each of `rank`; scaled by
    `alpha` / rank. On every linear layer of the last `layers` layers (0 = all)."""

    tasks: tuple[str, ...]
    shared: int = 4
    private: int = 1
    rank: int = 2
    alpha: float = 4.0
    layers: int = 0

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise UsageError(f"C-Poly needs tasks with different names; got {self.tasks}")
        if self.shared < 1 or self.private < 0 or self.rank < 1:
            raise UsageError(f"shared={self.shared}, private={self.private}, rank={self.rank}; wanted >= 1, >= 0, >= 1")


class Tasks:
    """Which task each row of the batch now read is of; what all layers look at."""

    def __init__(self) -> None:
        self.now: Tensor | None = None

    @contextmanager
    def of(self, task: Tensor | None) -> Iterator[None]:
        """The rows' tasks (n,) for the length of a block."""
        before, self.now = self.now, task
        try:
            yield
        finally:
            self.now = before


class CPolyLinear(nn.Module):
    """A linear layer W with its skills: x (n, L, in) -> W x + dW_t x, t the task of each row."""

    def __init__(self, base: nn.Linear, settings: CPoly, tasks: Tasks) -> None:
        super().__init__()
        self.base_layer, self.settings = base, settings
        self._tasks = tasks
        n, s, t, r = settings.shared, settings.private, len(settings.tasks), settings.rank
        wide, high = base.in_features, base.out_features
        near = 1 / math.sqrt(wide)  # as LoRA: A drawn, B zero
        self.cpoly_a = nn.Parameter(torch.empty(n, r, wide).uniform_(-near, near))
        self.cpoly_b = nn.Parameter(torch.zeros(n, high, r))
        self.cpoly_private_a = nn.Parameter(torch.empty(t, s, r, wide).uniform_(-near, near))
        self.cpoly_private_b = nn.Parameter(torch.zeros(t, s, high, r))
        self.cpoly_mix = nn.Parameter(1e-2 * torch.randn(t, n))  # logits of w: equal but for noise at the start
        self.cpoly_private_mix = nn.Parameter(torch.zeros(t, s))
        self.to(device=base.weight.device, dtype=base.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's values for the rows' own tasks."""
        made: Tensor = self.base_layer(x)
        task = self._rows(len(x))
        scale = self.settings.alpha / self.settings.rank
        w = self.cpoly_mix.softmax(-1)[task]  # (n, skills)
        inner = torch.einsum("nli,kri->nlkr", x, self.cpoly_a) * w[:, None, :, None]
        made = made + scale * torch.einsum("nlkr,kor->nlo", inner, self.cpoly_b)
        if self.settings.private:
            v = self.cpoly_private_mix.softmax(-1)[task]
            inner = torch.einsum("nli,nkri->nlkr", x, self.cpoly_private_a[task]) * v[:, None, :, None]
            made = made + scale * torch.einsum("nlkr,nkor->nlo", inner, self.cpoly_private_b[task])
        return made

    def _rows(self, n: int) -> Tensor:
        task, count = self._tasks.now, len(self.settings.tasks)
        if task is None or len(task) != n:
            raise UsageError("C-Poly needs the task of every row: give the batch the target 'task'")
        if bool(((task < 0) | (task >= count)).any()):
            known = ", ".join(f"{i} {name!r}" for i, name in enumerate(self.settings.tasks))
            raise UsageError(f"task {sorted(set(task.tolist()))} of rows; the adapter knows {known}")
        return task


def add_cpoly(model: nn.Module, layers: Sequence[str], settings: CPoly, tasks: Tasks) -> None:
    """Put skills beside every linear layer of the last layers of `model`, in place."""
    if settings.layers > len(layers):
        raise UsageError(f"C-Poly on the last {settings.layers} layers; this net has {len(layers)}")
    last = tuple(f"{name}." for name in layers[-settings.layers or 0 :])
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.startswith(last)]
    if not linear:
        raise UsageError("C-Poly needs linear layers; the last layers of this net have none")
    for name in linear:
        above, _, own = name.rpartition(".")
        parent = model.get_submodule(above)
        setattr(parent, own, CPolyLinear(getattr(parent, own), settings, tasks))


def cpoly_parameters(wide: int, high: int, settings: CPoly) -> int:
    """Parameters of one layer's skills: in width `wide`, out width `high`."""
    skills = settings.shared + len(settings.tasks) * settings.private
    return skills * settings.rank * (wide + high) + len(settings.tasks) * (settings.shared + settings.private)
