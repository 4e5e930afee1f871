"""Next-token loss of the learned spans of conversations (LLaVA's): images and questions are read, answers learned."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from fabrica.errors import UsageError
from fabrica.types import Batch, Loss


@dataclass(slots=True)
class TurnTokens:
    """-(1/|A|) sum over t in A of log p(y_t | images, y_<t), A the learned tokens of the batch (Li et al. 2023,
    arXiv 2306.00890, after LLaVA, arXiv 2304.08485). `model.scores(fields, at)` gives the logits (|A|, V) that predict
    the tokens at `at` (B, L). `Loss.count` is |A|: means over processes and chunks are then those of the whole batch.
    """

    text: str = "text"
    said: str = "said"
    reads: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.reads = (self.text, self.said)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch, with the perplexity and the share of tokens that are likeliest."""
        length = batch.fields[self.text].values.shape[-1]
        ids, at = batch.targets[self.said][:, :length], learned(batch.known[self.said][:, :length])
        count = int(at.sum())
        if not count:
            return Loss(torch.zeros((), device=ids.device), {}, 0)
        logits: Tensor = model.scores(batch.fields, at)  # type: ignore[operator]
        wanted = ids[at]
        loss = functional.cross_entropy(logits.float(), wanted)
        right = float((logits.detach().argmax(-1) == wanted).float().mean())
        return Loss(loss, {"perplexity": float(loss.detach().exp()), "right": right}, count)


def learned(at: Tensor) -> Tensor:
    """The same (B, L) bool without its first column: nothing stands before it that could predict it."""
    if at.ndim != 2:
        raise UsageError(f"learned tokens are (B, L) bool; got shape {tuple(at.shape)}")
    out = at.clone()
    out[:, 0] = False
    return out
