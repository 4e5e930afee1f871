"""Time to an event with censoring: bins of time, discrete hazards, Cox, pairwise ranking, the objective of a fusion.

One number says both when and what, as in XGBoost's Cox objective: +t = the event at t, -t = followed for t without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from fabrica.errors import UsageError, need, unknown
from fabrica.objectives.check import NonFinite
from fabrica.types import Batch, Loss

if TYPE_CHECKING:
    from torch import nn

Ties = Literal["efron", "breslow"]


def signed(time: float, event: bool) -> float:
    """The label of a person followed for `time` (> 0, any unit): +time with the event, -time without.

    >>> signed(24.1, True), signed(60.0, False)
    (24.1, -60.0)
    """
    if not time > 0 or not np.isfinite(time):
        raise UsageError(f"a time of {time:g}; wanted a finite number above 0")
    return time if event else -time


def unsigned(label: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Times (n,) and events (n,) of labels (n,) as `signed` makes them.

    >>> unsigned([24.1, -60.0])
    (array([24.1, 60. ]), array([ True, False]))
    """
    values = np.asarray(label, np.float64)
    wrong = np.flatnonzero(~np.isfinite(values) | (values == 0))
    if len(wrong):
        raise UsageError(f"survival label {values[wrong[0]]:g} in row {wrong[0]}; wanted +time (event) or -time")
    return np.abs(values), values > 0


@dataclass(frozen=True, slots=True)
class Bins:
    """Time cut into K bins by K - 1 inner `edges`: bin y holds edges[y - 1] <= t < edges[y]; the last one is open, so
    that a time beyond every training time still has a bin.

    >>> bins = Bins.fit([1, 2, 3, 4, 9], [1, 1, 1, 1, 0], 4)
    >>> bins.edges, bins([0.5, 2.0, 100.0]).tolist()
    ((1.75, 2.5, 3.25), [0, 1, 3])
    """

    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        if any(not a < b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise UsageError(f"edges {self.edges}: wanted rising times")

    @classmethod
    def fit(cls, time: ArrayLike, event: ArrayLike, k: int = 4) -> Bins:
        """Edges at the k-quantiles of the times of those who had the event (Zhou and Chen 2023). Give it the training
        part alone."""
        t, e = np.asarray(time, np.float64), _events(event)
        if k < 2:
            raise UsageError(f"{k} bins; wanted 2 or more")
        if len(t) != len(e) or not np.isfinite(t).all() or (t <= 0).any():
            raise UsageError(f"{len(t)} times for {len(e)} events: wanted as many, all finite and above 0")
        distinct = len(np.unique(t[e]))
        if distinct < k:
            raise UsageError(
                f"{distinct} distinct times with an event for {k} bins; wanted {k} or more: use fewer bins"
            )
        return cls(tuple(float(q) for q in np.quantile(t[e], np.arange(1, k) / k)))

    def __call__(self, time: ArrayLike) -> NDArray[np.int64]:
        """The bin of each time."""
        return np.searchsorted(np.asarray(self.edges), np.asarray(time, np.float64), side="right").astype(np.int64)

    def __len__(self) -> int:
        return len(self.edges) + 1


def nll_discrete(logits: Tensor, bin: Tensor, event: Tensor) -> Tensor:
    """Negative log-likelihood (n,) of discrete hazards h = sigmoid(logits) (n, K), with S_k = prod_{j<=k} (1 - h_j):

        -[log S_{y-1} + log h_y] with the event in bin y, -log S_y where it had not come by the end of bin y

    (Zadeh and Schmid 2021, as used by CMTA, arXiv 2309.12855, section 3.5). Everything stays in logarithms, so that no
    clamp is needed and the gradient is finite at any logit.

    >>> loss = nll_discrete(torch.zeros(2, 4), torch.tensor([1, 1]), torch.tensor([True, False]))
    >>> (loss / torch.tensor(0.5).log()).tolist()  # both: two factors of one half
    [-2.0, -2.0]
    """
    if logits.ndim != 2 or bin.shape != event.shape or bin.shape != logits.shape[:1]:
        got = ", ".join(str(tuple(x.shape)) for x in (logits, bin, event))
        raise UsageError(f"logits, bin and event have shapes {got}; wanted (n, bins), (n,), (n,)")
    if len(bin) and (int(bin.min()) < 0 or int(bin.max()) >= logits.shape[1]):
        raise UsageError(f"bins from {int(bin.min())} to {int(bin.max())}; wanted 0 to {logits.shape[1] - 1}")
    logits = logits.float()
    stays = -softplus(logits)  # log (1 - h)
    upto = torch.cumsum(stays, 1)  # log S_k
    at = bin.long()[:, None]
    before = upto.gather(1, at) - stays.gather(1, at)  # log S_{y-1}
    dies = before + logsigmoid(logits.gather(1, at))
    return -torch.where(event.bool()[:, None], dies, upto.gather(1, at))[:, 0]


def log_outcomes(logits: Tensor) -> Tensor:
    """(..., K) hazard logits -> (..., K + 1) log-probabilities of the event in each bin, the last: in none of them.

    >>> log_outcomes(torch.zeros(1, 2)).exp().tolist()
    [[0.5, 0.25, 0.25]]
    """
    logits = logits.float()
    upto = torch.cumsum(-softplus(logits), -1)
    before = torch.cat([torch.zeros_like(upto[..., :1]), upto[..., :-1]], -1)
    return torch.cat([before + logsigmoid(logits), upto[..., -1:]], -1)


def nll_outcomes(outcomes: Tensor, bin: Tensor, event: Tensor) -> Tensor:
    """`nll_discrete` of log-probabilities (n, K + 1) as `log_outcomes` gives them.

    >>> logits = torch.tensor([[0.3, -1.0, 2.0]])
    >>> b, e = torch.tensor([1]), torch.tensor([False])
    >>> bool(torch.isclose(nll_outcomes(log_outcomes(logits), b, e), nll_discrete(logits, b, e)))
    True
    """
    later = torch.flip(torch.logcumsumexp(torch.flip(outcomes, (-1,)), -1), (-1,))[:, 1:]  # log S_k
    at = bin.long()[:, None]
    return -torch.where(event.bool()[:, None], outcomes.gather(1, at), later.gather(1, at))[:, 0]


def survival_curve(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """(n, K + 1) probabilities of outcomes -> S (n, K): alive at the end of each bin; never rising."""
    return 1.0 - np.minimum(np.cumsum(np.asarray(probabilities, np.float64), 1)[:, :-1], 1.0)


def risk(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """-sum_k S_k (n,): one number a person, higher = earlier.

    >>> risk(np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])).tolist()
    [-0.0, -2.0]
    """
    made: NDArray[np.float64] = -survival_curve(probabilities).sum(1)
    return made


def cox(log_risk: Tensor, time: Tensor, event: Tensor, *, ties: Ties = "efron") -> tuple[Tensor, int]:
    """Cox's negative log partial likelihood, the mean over events; (loss (), events). No event: a loss of 0 that
    counts 0. `log_risk`, `time`, `event` (n,); torchsurv does the sums.

    >>> loss, events = cox(torch.zeros(2), torch.tensor([1.0, 2.0]), torch.tensor([True, True]))
    >>> round(loss.item(), 4), events  # (log 2 + log 1) / 2
    (0.3466, 2)
    """
    if ties not in get_args(Ties):
        raise unknown("way with ties", ties, get_args(Ties))
    if log_risk.ndim != 1 or not log_risk.shape == time.shape == event.shape:
        got = ", ".join(str(tuple(x.shape)) for x in (log_risk, time, event))
        raise UsageError(f"log_risk, time and event have shapes {got}; wanted one axis of one length")
    events = int(event.sum())
    if events == 0 or len(time) < 2:
        return log_risk.sum() * 0.0, 0
    core = need("torchsurv.loss.cox", "train")
    total: Tensor = core.neg_partial_log_likelihood(log_risk, event.bool(), time, ties_method=ties, reduction="sum")
    return total / events, events


def ranking(log_risk: Tensor, time: Tensor, event: Tensor, *, margin: float = 1.0) -> tuple[Tensor, int]:
    """Hinge over comparable pairs (i had the event before j's time), mean of max(0, margin - r_i + r_j); (loss, pairs)

    >>> loss, pairs = ranking(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 5.0]), torch.tensor([True, False]))
    >>> loss.item(), pairs
    (0.0, 1)
    """
    comparable = event.bool()[:, None] & (time[:, None] < time[None, :])
    pairs = int(comparable.sum())
    gap = margin - (log_risk[:, None] - log_risk[None, :])
    return torch.where(comparable, gap.clamp(min=0), 0.0).sum() / max(pairs, 1), pairs


def align(translated: Tensor, own: Tensor, both: Tensor) -> tuple[Tensor, int]:
    """mean |translated - stopgrad(own)| over rows that have `both` (B,); (loss (), rows). Only the translation moves
    (CMTA, arXiv 2309.12855, equation 11).

    >>> own = torch.ones(2, 3, requires_grad=True)
    >>> loss, rows = align(torch.zeros(2, 3), own, torch.tensor([True, False]))
    >>> loss.item(), rows, loss.requires_grad
    (1.0, 1, False)
    """
    rows = int(both.sum())
    gap = (translated - own.detach()).abs().mean(1)
    return torch.where(both, gap, 0.0).sum() / max(rows, 1), rows


@dataclass(slots=True)
class Survival:
    """The discrete likelihood of a fusion's last reading of `task`, whose target is a `signed` time; with `weight` > 0
    the alignment of translated with own encodings besides, where the fusion translates (`TranslatedReading.pairs`).

    The log tells the norm of a side's own encoding and its spread over the batch: both would fall to nothing if the
    stop-gradient were lost.

    >>> Survival("survival", ("slide", "genes"), Bins((1.0, 2.0))).reads
    ('slide', 'genes', 'survival')
    """

    task: str
    fields: tuple[str, ...]
    bins: Bins
    weight: float = 0.0
    reads: tuple[str, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.fields = tuple(self.fields)
        if self.weight < 0:
            raise UsageError(f"a weight of {self.weight:g} for the alignment; wanted 0 or more")
        self.reads = (*self.fields, self.task)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch; rows whose follow-up is unknown do not count."""
        reading = model.read({name: batch.fields[name] for name in self.fields})  # type: ignore[operator]
        known = batch.known[self.task]
        rows = int(known.sum())
        time, event = batch.targets[self.task].abs(), batch.targets[self.task] > 0
        bin = torch.from_numpy(self.bins(time.double().cpu().numpy())).to(time.device)
        each = nll_outcomes(reading.logits[self.task][:, -1], bin, event)
        total = torch.where(known, each, 0.0).sum() / max(rows, 1)
        terms = {"likelihood": float(total.detach())}
        pairs: Mapping[str, tuple[Tensor, Tensor, Tensor]] = getattr(reading, "pairs", {})
        if self.weight and not pairs:
            raise UsageError("alignment wants a fusion that translates; this one gives no pairs: set its weight to 0")
        for name, (translated, own, both) in pairs.items():
            gap, counted = align(translated, own, both)
            terms |= {f"align/{name}": float(gap.detach())} | _spread(name, own.detach(), both)
            if self.weight and counted:
                total = total + self.weight * gap
        if not torch.isfinite(total):
            raise NonFinite(f"the loss of {self.task!r} is {float(total.detach())}")
        return Loss(total, terms, rows)


def _spread(name: str, own: Tensor, there: Tensor) -> dict[str, float]:
    rows = own[there]
    if len(rows) < 2:
        return {}
    return {f"norm/{name}": float(rows.norm(dim=1).mean()), f"spread/{name}": float(rows.std(0).mean())}


def _events(event: ArrayLike) -> NDArray[np.bool_]:
    values = np.asarray(event)
    wrong = sorted({v for v in values.tolist() if v not in (0, 1)}, key=str)
    if wrong:
        raise UsageError(f"an event is {wrong[0]!r}; wanted 0 (censored) or 1")
    return values.astype(bool)


def same_unit(times: Mapping[str, Sequence[float]], *, most: float = 12.0) -> None:
    """An error where the medians of two sources of times (5 people or more each) differ by more than `most`: days
    beside months, most likely.

    >>> same_unit({"a": [10.0] * 5, "b": [400.0] * 5})
    Traceback (most recent call last):
    fabrica.errors.UsageError: times of 'b' have median 400, those of 'a' 10: days beside months? ...
    """
    medians = {name: float(np.median(t)) for name, t in times.items() if len(t) >= 5}
    if len(medians) < 2:
        return
    low, high = min(medians, key=lambda n: medians[n]), max(medians, key=lambda n: medians[n])
    if medians[high] > most * medians[low]:
        raise UsageError(
            f"times of {high!r} have median {medians[high]:g}, those of {low!r} {medians[low]:g}: days beside months? "
            "bring them to one unit"
        )
