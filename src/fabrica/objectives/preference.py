"""Direct preference optimisation: a chosen answer made likelier than a rejected one, relative to a frozen start model.

The start model's log-probabilities are stored with each pair (its labels), so that it need not be held beside the one
that learns, and cannot change.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from fabrica.errors import UsageError
from fabrica.objectives import check
from fabrica.objectives.language import joined
from fabrica.types import Batch, Field, Loss

if TYPE_CHECKING:
    from torch import nn

CHOSEN, REJECTED = "reference/chosen", "reference/rejected"  # labels of a pair: the start model's log-probabilities


def dpo(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, *, beta: float = 0.1
) -> Tensor:
    """(B,) losses -log sigmoid(beta [(chosen - reference_chosen) - (rejected - reference_rejected)]) of summed
    log-probabilities (B,) (Rafailov et al. 2023, arXiv 2305.18290, equation 7). ln 2 where nothing has moved.

    >>> start = torch.tensor([-3.0]), torch.tensor([-5.0])
    >>> round(dpo(*start, *start).item(), 6), round(dpo(start[0] + 4, start[1], *start, beta=0.5).item(), 6)
    (0.693147, 0.126928)
    """
    shapes = {tuple(t.shape) for t in (chosen, rejected, reference_chosen, reference_rejected)}
    if len(shapes) != 1 or chosen.ndim != 1:
        raise UsageError(f"dpo wants four rows of one length, got shapes {sorted(shapes)}")
    if not beta > 0:
        raise UsageError(f"beta={beta}: wanted a number above 0")
    return -logsigmoid(beta * ((chosen - reference_chosen) - (rejected - reference_rejected)).float())


def log_probability(model: nn.Module, prompt: Field, answer: Field, begin: int) -> Tensor:
    """(B,) log p(answer | prompt) of a causal language model: the sum over the answer's tokens alone, its end token
    among them; 0 where there is no answer."""
    ids, mask, learn = joined(prompt, answer, begin)
    logs = model(ids, mask)[:, :-1].float().log_softmax(-1)
    said = logs.gather(-1, ids[:, 1:, None])[..., 0]
    return torch.where(learn[:, 1:], said, 0.0).sum(1)


@dataclass(slots=True)
class PreferText:
    """DPO of a causal language model over the fields `prompt`, `chosen`, `rejected` of each pair.

    The start model's log-probabilities are the labels `reference/chosen` and `reference/rejected` (`start` fills them
    in). A pair without one of the two, or of a field, does not count. `begin` stands before an answer without prompt.
    """

    begin: int
    beta: float = 0.1
    reads: tuple[str, ...] = dataclasses.field(init=False, default=("prompt", "chosen", "rejected", CHOSEN, REJECTED))

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch; the share of pairs ranked right and the mean margin as terms."""
        known = batch.known[CHOSEN] & batch.known[REJECTED]
        for name in ("prompt", "chosen", "rejected"):
            known = known & batch.fields[name].valid.any(1)
        if not known.any():
            return Loss(torch.zeros((), device=known.device), {}, 0)
        prompt = batch.fields["prompt"]
        good, bad = (log_probability(model, prompt, batch.fields[n], self.begin) for n in ("chosen", "rejected"))
        each = dpo(good, bad, batch.targets[CHOSEN].float(), batch.targets[REJECTED].float(), beta=self.beta)
        return _loss(each, good - bad, batch.targets[CHOSEN] - batch.targets[REJECTED], known, self.beta)


@dataclass(slots=True)
class PreferYes:
    """DPO of a yes/no policy whose logit is the model's one value for `field`: log p(yes) - log p(no) is that logit.

    Labels: `chosen` 1 where the preferred answer is yes, 0 where it is no; `reference` the start model's logit.

    >>> PreferYes("evidence").reads
    ('evidence', 'chosen', 'reference')
    """

    field: str
    beta: float = 0.1
    reads: tuple[str, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.reads = (self.field, "chosen", "reference")

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch; the share of pairs ranked right and the mean margin as terms."""
        embedded, presence = model.embed({self.field: batch.fields[self.field]})  # type: ignore[operator]
        logits = embedded[self.field]
        check.finite(self.field, logits)
        if logits.shape[1] != 1:
            raise UsageError(f"the model gives {logits.shape[1]} values for {self.field!r}; a yes/no policy gives one")
        known = batch.known["chosen"] & batch.known["reference"] & presence[self.field]
        sign = batch.targets["chosen"].float() * 2 - 1
        now, start = sign * logits[:, 0], sign * batch.targets["reference"].float()
        zero = torch.zeros_like(now)
        return _loss(dpo(now, zero, start, zero, beta=self.beta), now, start, known, self.beta)


def _loss(each: Tensor, now: Tensor, start: Tensor, known: Tensor, beta: float) -> Loss:
    count = int(known.sum())
    if not count:
        return Loss(each.sum() * 0, {}, 0)
    total = torch.where(known, each, 0.0).sum() / count
    margin = (beta * (now - start))[known].detach()
    return Loss(total, {"ranked": float((now[known] > 0).float().mean()), "margin": float(margin.mean())}, count)
