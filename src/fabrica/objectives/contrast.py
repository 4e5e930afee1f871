"""The contrast core: one formula for every contrastive loss, dense for any scores, chunked for dot products.

    -sum_a w_a sum_c p_ac log softmax_{c not excluded}(scores_ac) / sum_a w_a,   p row-normalised

`contrast` takes a matrix of scores (S03 S25 S53 S66: attended patches, maxima over regions, own negatives).
`pair_contrast` and `sigmoid_contrast` take two sets of rows and never hold more than `chunk` rows of their product:
CLIP (Radford et al. 2021), ConVIRT (Zhang et al. 2020, eq. 2-4), UniCL (Yang et al. 2022), SigLIP (Zhai et al. 2023).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from fabrica.errors import UsageError
from fabrica.objectives.streaming import CHUNK, Cells, logsumexp, sigmoid_sum

Keys = Tensor | tuple[Tensor, Tensor]  # (N,) of both sides, or (A,) of anchors and (C,) of candidates


def contrast(
    scores: Tensor, positives: Tensor, exclude: Tensor | None = None, row_weights: Tensor | None = None
) -> Tensor:
    """The core formula over a matrix.

    `scores` (A, C) already scaled; `positives` (A, C) weights >= 0 or (A,) int64, the column of each row's positive;
    `exclude` (A, C) bool leaves cells out of the denominator, positives always stay; `row_weights` (A,) >= 0 (default
    1). Rows without a positive count for nothing; if none has one, an error. Returns ().

    >>> scores = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    >>> round(contrast(scores, torch.arange(2)).item(), 4)  # log(1 + exp(-2))
    0.1269
    """
    if scores.ndim != 2 or positives.shape not in (scores.shape, scores.shape[:1]):
        raise UsageError(
            f"scores {tuple(scores.shape)} and positives {tuple(positives.shape)}: wanted (A, C) and (A, C) or (A,)"
        )
    if positives.ndim == 1:
        positives = torch.zeros_like(scores).scatter_(1, positives[:, None], 1.0)
    positives = positives.to(scores.dtype)
    mass = positives.sum(1)
    weights = (mass > 0).to(scores.dtype) * (1.0 if row_weights is None else row_weights)
    if not weights.sum() > 0:
        raise UsageError("no row has a positive of weight above 0: nothing to contrast")
    if exclude is not None:
        scores = scores.masked_fill(exclude & (positives == 0), -math.inf)
    # a row with nothing left has weight 0; its -inf must not meet 0 * inf
    below = torch.logsumexp(scores.masked_fill((mass == 0)[:, None], 0.0), 1)
    share = positives / mass.clamp_min(torch.finfo(scores.dtype).tiny)[:, None]
    above = (share * scores.masked_fill(positives == 0, 0.0)).sum(1)
    return (weights * (below - above)).sum() / weights.sum()


def pair_contrast(
    a: Tensor, b: Tensor, scale: Tensor | float = 1.0, *, weights: tuple[float, float] = (0.5, 0.5),
    positives: Keys | None = None, exclude: Keys | None = None, row_weights: Tensor | None = None, chunk: int = CHUNK,
) -> Tensor:  # fmt: skip
    """Softmax contrast of rows `a` (A, d) with rows `b` (C, d), C >= A; scores are scale * a . b.

    Row i of `a` and of `b` are a pair; further rows of `b` are negatives of all. `weights` of a -> b (denominator over
    b) and b -> a, which averages over the columns that have a positive. `positives`: rows of equal keys are positives
    of equal share; `exclude`: rows of equal keys that are not positives leave the denominators. `row_weights` (A,)
    weigh pairs, in both directions. Memory O((A + C) d + chunk C), forward and backward. Returns ().

    >>> rows = torch.eye(4)
    >>> round(pair_contrast(rows, rows, 0.0).item(), 4), round(math.log(4), 4)
    (1.3863, 1.3863)
    """
    a, b, same, cells = _prepare(a, b, positives, exclude, chunk)
    if min(weights) < 0 or sum(weights) <= 0:
        raise UsageError(f"direction weights {weights}: wanted two numbers >= 0, not both 0")
    a = a * scale
    rows, cols = logsumexp(a, b, cells, chunk, need=(weights[0] > 0, weights[1] > 0))
    toward, back, has = _positive_means(a, b, same)
    w = torch.ones_like(a[:, 0]) if row_weights is None else row_weights.to(a.dtype)
    total = a.new_zeros(())
    if weights[0] > 0:
        total = total + weights[0] * (w * (rows - toward)).sum() / w.sum()
    if weights[1] > 0:
        v = torch.cat([w, w.new_ones(len(b) - len(a))]) * has
        lost = torch.where(v > 0, cols - back, 0.0)  # a negative all of whose cells are excluded has -inf
        total = total + weights[1] * (v * lost).sum() / v.sum()
    return total


def sigmoid_contrast(
    a: Tensor, b: Tensor, scale: Tensor | float = 1.0, bias: Tensor | float = 0.0, *,
    positives: Keys | None = None, exclude: Keys | None = None, chunk: int = CHUNK,
) -> Tensor:  # fmt: skip
    """SigLIP: -1/A sum_ij log sigmoid(z_ij (scale a_i . b_j + bias)), z = 1 for positives and -1 elsewhere (Zhai et al.
    2023, eq. 1). Arguments as in `pair_contrast`; excluded cells leave the sum. Returns ().

    >>> rows = torch.eye(2)
    >>> round(sigmoid_contrast(rows, rows, 0.0).item(), 4), round(2 * math.log(2), 4)
    (1.3863, 1.3863)
    """
    a, b, same, cells = _prepare(a, b, positives, exclude, chunk)
    total = sigmoid_sum(a * scale, b, torch.as_tensor(bias, dtype=a.dtype, device=a.device), cells, same, chunk)
    return total / len(a)


def log_sigmoid_pairs(scores: Tensor, positives: Tensor) -> Tensor:
    """The sigmoid form over a matrix: `scores` (A, C) with scale and bias in them, `positives` (A, C) bool. ()."""
    return softplus(torch.where(positives.bool(), -scores, scores)).sum() / len(scores)


def _both(keys: Keys | None, a: Tensor, b: Tensor, what: str) -> tuple[Tensor, Tensor] | None:
    if keys is None:
        return None
    left, right = keys if isinstance(keys, tuple) else (keys[: len(a)], keys)
    if left.shape != a.shape[:1] or right.shape != b.shape[:1]:
        raise UsageError(
            f"{what} keys {tuple(left.shape)} and {tuple(right.shape)} for {len(a)} anchors and {len(b)} candidates"
        )
    alike = len(a) == len(b) and bool((left == right).all()) and len(torch.unique(left)) == len(left)
    return None if alike else (left, right)  # all different: the same as none given


def _prepare(
    a: Tensor, b: Tensor, positives: Keys | None, exclude: Keys | None, chunk: int
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None, Cells]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or len(b) < len(a):
        raise UsageError(f"anchors {tuple(a.shape)} and candidates {tuple(b.shape)}: wanted (A, d), (C, d), C >= A")
    if len(b) < 2 or len(a) < 1:
        raise UsageError(f"contrastive loss needs at least 2 pairs, got {len(b)}")
    if chunk < 1:
        raise UsageError(f"chunk {chunk}: wanted at least 1 row")
    kind = torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32  # half precision sums badly
    a, b = a.to(kind), b.to(kind)
    same = _both(positives, a, b, "positive")
    return a, b, same, Cells(exclude=_both(exclude, a, b, "exclude"), keep=same)


def _positive_means(a: Tensor, b: Tensor, same: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean score over positives: of each row (A,), of each column (C,), and which columns have one (C,) 0/1.

    Linear in rows: the mean over j of a_i . b_j is a_i . (mean of b_j), so no score matrix is made."""
    if same is None:
        own = (a * b[: len(a)]).sum(1)
        pad = own.new_zeros(len(b) - len(a))
        return own, torch.cat([own, pad]), torch.cat([torch.ones_like(own), pad])
    _, group = torch.unique(torch.cat(same), return_inverse=True)
    rows, cols = group[: len(a)], group[len(a) :]
    count = int(group.max()) + 1
    mean_b, _ = _group_mean(b, cols, count)
    mean_a, n_a = _group_mean(a, rows, count)
    has = (n_a[cols] > 0).to(a.dtype)
    return (a * mean_b.index_select(0, rows)).sum(1), (b * mean_a.index_select(0, cols)).sum(1), has


def _group_mean(rows: Tensor, group: Tensor, count: int) -> tuple[Tensor, Tensor]:
    n = torch.bincount(group, minlength=count).to(rows.dtype)
    total = rows.new_zeros(count, rows.shape[1]).index_add(0, group, rows)
    return total / n.clamp_min(1)[:, None], n
