"""Is this pair one person's? Hard negatives drawn by the contrast's own scores, and the two-class loss on them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fabrica.errors import UsageError


def hard_negatives(scores: Tensor, forbidden: Tensor, *, floor: float = 1e-4) -> tuple[Tensor, Tensor]:
    """For each row of `scores` (B, B) a column drawn with probability softmax + `floor`, never one that is `forbidden`
    (B, B) bool or the row's own (ALBEF, Li et al. 2021, arXiv 2107.07651, section 3.2; TIP, arXiv 2407.07582).

    The draw has no gradient. Returns columns (B,) and which rows have one (B,); a row all of whose others are
    forbidden has none. A batch of one row is an error.

    >>> scores = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    >>> same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    >>> hard_negatives(scores, same)[0].tolist()[:2]
    [2, 2]
    """
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or scores.shape != forbidden.shape:
        raise UsageError(f"scores {tuple(scores.shape)}, forbidden {tuple(forbidden.shape)}: wanted both (rows, rows)")
    if len(scores) < 2:
        raise UsageError("hard negatives come from the other rows of the batch; a batch of 1 has none")
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    weight = (scores.detach().float().softmax(1) + floor).masked_fill(forbidden | own, 0.0)
    some = weight.sum(1) > 0
    drawn = torch.multinomial(torch.where(some[:, None], weight, 1.0), 1).squeeze(1)
    return drawn, some


def alike(subjects: Tensor, rows: Tensor) -> Tensor:
    """(B, B) bool: pairs that are of one subject (B,), or whose rows (B, n) are the same.

    >>> alike(torch.tensor([1, 1, 2]), torch.tensor([[0.0], [1.0], [1.0]])).int().tolist()
    [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    """
    return (subjects[:, None] == subjects) | (rows[:, None] == rows).all(-1)


def matching_loss(true: Tensor, false: Tensor) -> tuple[Tensor, float]:
    """Cross-entropy of logits (P, 2) of pairs and (N, 2) of others', each pair alike; and the balanced accuracy."""
    logits = torch.cat([true, false]).float()
    truth = torch.cat([true.new_ones(len(true)), false.new_zeros(len(false))]).long()
    right = logits.argmax(1) == truth
    share = [right[truth == c].float().mean() for c in (0, 1) if (truth == c).any()]
    return cross_entropy(logits, truth), float(torch.stack(share).mean())
