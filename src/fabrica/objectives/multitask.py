"""`Tasks`: several targets with unknown ones among them, learned from every reading of a fusion, or from its answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fabrica.errors import UsageError, unknown
from fabrica.objectives.check import NonFinite
from fabrica.types import Batch, Loss

if TYPE_CHECKING:
    from torch import nn

Divisor = Literal["ran", "all"]


def multitask_ce(
    logits: Mapping[str, Tensor], targets: Mapping[str, Tensor], known: Mapping[str, Tensor], ran: Tensor, *,
    divisor: Divisor = "ran", balance: bool = False,
) -> tuple[Tensor, int, dict[str, float]]:  # fmt: skip
    """Cross-entropy of every task after every reading: the mean over rows of a row's mean over the readings that ran
    and the tasks that are known.

    `logits` by task (B, K, C); `targets` (B,) class numbers, `known` (B,) bool; `ran` (B, K) bool. `divisor` "all" is
    the paper's: a row's sum over what ran, divided by all K readings and all tasks, so that rows with little weigh
    less (Swamy, Satayeva et al. 2023, arXiv 2309.14118, section 3). `balance` weighs, at each reading, the classes of
    the rows that were read there alike. Returns the loss (), the rows that counted (0 gives a loss of 0), and the mean
    of each task's last reading.

    >>> two = {"t": torch.zeros(2, 3, 2)}
    >>> known = {"t": torch.tensor([True, False])}
    >>> ran = torch.tensor([[True, True, False]] * 2)
    >>> loss, rows, _ = multitask_ce(two, {"t": torch.zeros(2)}, known, ran)
    >>> round(loss.item(), 4), rows  # log 2
    (0.6931, 1)
    >>> round(multitask_ce(two, {"t": torch.zeros(2)}, known, ran, divisor="all")[0].item(), 4)  # 2 of 3 readings
    0.4621
    """
    if divisor not in get_args(Divisor):
        raise unknown("divisor", divisor, get_args(Divisor))
    some = torch.stack([known[t] for t in logits], 1)  # (B, T)
    per_task = ran.sum(1) if divisor == "ran" else ran.new_full((len(ran),), ran.shape[1], dtype=torch.long)
    tasks = some.sum(1) if divisor == "ran" else some.new_full((len(some),), some.shape[1], dtype=torch.long)
    weight = ran / (per_task * tasks).clamp(min=1)[:, None]  # (B, K)
    total, said = ran.new_zeros((), dtype=torch.float32), {}
    rows = int(some.any(1).sum())
    for name, values in logits.items():
        here = known[name]
        cells = _cells(name, values, targets[name], here)  # (B, K)
        share = weight * _balanced(targets[name], here[:, None] & ran, values.shape[2]) if balance else weight
        total = total + torch.where(here[:, None], cells * share, 0.0).sum()
        if here.any():
            said[name] = float(cells[here, -1].mean().detach())
    return total / max(rows, 1), rows, said


def _cells(name: str, logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """(B, K) cross-entropies; rows that are not known count as class 0 and are left out later."""
    classes = logits.shape[2]
    index = torch.where(known, target, 0.0).long()
    wrong = known & ((index != target) | (index < 0) | (index >= classes))
    if wrong.any():
        came = target[wrong][0].item()
        raise UsageError(f"task {name!r}: a target is {came:g}; wanted a class from 0 to {classes - 1}")
    flat = cross_entropy(logits.float().flatten(0, 1), index.repeat_interleave(logits.shape[1]), reduction="none")
    return flat.view(logits.shape[:2])


def _balanced(target: Tensor, read: Tensor, classes: int) -> Tensor:
    """(B, K) weights of mean 1 over the rows `read` at a step, equal in sum for each class that occurs there."""
    one = torch.nn.functional.one_hot(torch.where(read.any(1), target, 0.0).long(), classes)  # (B, C)
    count = torch.einsum("bk,bc->kc", read.float(), one.float())  # (K, C)
    each = count.sum(1, keepdim=True) / ((count > 0).sum(1, keepdim=True).clamp(min=1) * count.clamp(min=1))
    return torch.einsum("kc,bc->bk", each, one.float())


@dataclass(slots=True)
class Tasks:
    """Each of `tasks` (targets of the batch) from what a fusion says of `fields`.

    `of` "readings" learns from every reading (MultiModN), "answer" from the final one. `state_change` x 0.01 x the mean
    squared change of state, averaged over steps that ran, is added (the paper's lambda_s). `divisor` and `balance` as
    in `multitask_ce`.

    >>> Tasks(("death",), ("labs",)).reads
    ('labs', 'death')
    """

    tasks: tuple[str, ...]
    fields: tuple[str, ...]
    of: Literal["readings", "answer"] = "readings"
    state_change: float = 0.0
    divisor: Divisor = "ran"
    balance: bool = False
    reads: tuple[str, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.tasks, self.fields = tuple(self.tasks), tuple(self.fields)
        if not self.tasks or not self.fields:
            raise UsageError(f"wanted at least one task and one field; got tasks {self.tasks}, fields {self.fields}")
        if self.of not in ("readings", "answer"):
            raise unknown("reading to learn from", self.of, ("readings", "answer"))
        self.reads = (*self.fields, *self.tasks)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch, and that of each task's last reading as a term."""
        reading = model.read({name: batch.fields[name] for name in self.fields})  # type: ignore[operator]
        if self.of == "answer":
            logits = {task: values[:, None] for task, values in model.final(reading).items()}  # type: ignore[operator]
            ran = torch.ones_like(reading.ran[:, :1])
        else:
            logits, ran = reading.logits, reading.ran
        for task in self.tasks:
            if task not in logits:
                raise unknown("head for the task", task, logits)
        wanted = {task: logits[task] for task in self.tasks}
        total, rows, terms = multitask_ce(
            wanted, batch.targets, batch.known, ran, divisor=self.divisor, balance=self.balance
        )
        if self.state_change and rows:
            total = total + 0.01 * self.state_change * _change(reading.states, reading.ran)
        if not torch.isfinite(total):
            raise NonFinite(f"the loss of tasks {self.tasks} is {float(total.detach())}")
        return Loss(total, terms, rows)


def _change(states: Tensor, ran: Tensor) -> Tensor:
    """Mean over rows of the mean over steps that ran of mean((s_i - s_{i-1})^2)."""
    steps = (states[:, 1:] - states[:, :-1]).pow(2).mean(2)  # (B, K - 1); 0 where nothing ran
    return (steps.sum(1) / ran[:, 1:].sum(1).clamp(min=1)).mean()
