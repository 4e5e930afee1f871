"""Symile: contrast any number of modalities at once by the multilinear inner product (Saporta et al. 2024).

<r_1, ..., r_M> = sum_k prod_m r_m[k]. For each modality as the anchor, its row against candidate tuples of the others;
the loss is the mean over anchors. For M = 2 the product is the dot product and the loss is CLIP's. The modalities are
taken in order of name, so that the order in which they are given changes nothing, drawn permutations included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor, nn
from torch.autograd.function import once_differentiable

from fabrica.errors import UsageError, unknown
from fabrica.objectives import check
from fabrica.objectives.pairs import Scale, check_fields, check_scale, embed_and_loss, number, scale_of
from fabrica.objectives.streaming import CHUNK, Cells, logsumexp
from fabrica.types import Batch, Loss

Negatives = Literal["n", "n_squared", "all"]
CAP = 2**24  # candidates an anchor at most


def product(rows: Sequence[Tensor]) -> Tensor:
    """Elementwise product of (N, d) tensors.

    >>> product([torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])]).tolist()
    [[3.0, 8.0]]
    """
    total = rows[0]
    for row in rows[1:]:
        total = total * row
    return total


def candidates(n: int, modalities: int, negatives: Negatives) -> int:
    """How many candidate tuples each anchor sees among `n` samples; an error where they are too many to enumerate.

    >>> candidates(8, 3, "n"), candidates(8, 3, "n_squared"), candidates(8, 4, "all")
    (8, 64, 512)
    """
    if negatives not in get_args(Negatives):
        raise unknown("kind of negatives", negatives, get_args(Negatives))
    if negatives == "n":
        return n
    count: int = n ** (modalities - 1)
    if negatives == "n_squared" and modalities > 3:
        raise UsageError(
            f"negatives 'n_squared' are all pairs of 2 other modalities; {modalities} modalities have {count:,} tuples"
            " an anchor: choose 'n', or 'all' to enumerate them"
        )
    if count > CAP:
        raise UsageError(
            f"{n} samples of {modalities} modalities make {count:,} tuples an anchor, cap {CAP:,}: choose 'n'"
        )
    return count


def multilinear(
    rows: Mapping[str, Tensor], scale: Tensor | float, generator: Generator, *, negatives: Negatives = "n",
    chunk: int = CHUNK,
) -> dict[str, Tensor]:  # fmt: skip
    """The loss of each modality as the anchor, () each; the Symile loss is their mean (Saporta et al. 2024, eq. 5).

    `rows` name -> (N, d), row i everywhere the same sample. "n": the others are permuted independently, afresh for
    every anchor, by `generator`; the true tuple stands in its place and is never a negative; "n_squared" and "all"
    enumerate. Memory O(M N d + chunk N).
    """
    names = sorted(rows)
    given = [rows[name] for name in names]
    n = len(given[0])
    candidates(n, len(names), negatives)
    losses = {}
    for m, name in enumerate(names):
        others = given[:m] + given[m + 1 :]
        anchor = given[m] * scale
        true = (anchor * product(others)).sum(1)
        if negatives == "n":
            below = torch.logaddexp(_sampled(anchor, others, generator, chunk), true)
        else:
            below = _TupleLogSumExp.apply(anchor, chunk, *others)  # type: ignore[no-untyped-call]
        losses[name] = (below - true).mean()
    return losses


def _sampled(anchor: Tensor, others: list[Tensor], generator: Generator, chunk: int) -> Tensor:
    """Log-sum-exp over permuted tuples other than the true one, (N,)."""
    n = len(anchor)
    where = torch.arange(n, device=anchor.device)
    if len(others) == 1:  # a permutation of one modality only renames the candidates
        order = [where]
    else:
        order = [torch.randperm(n, generator=generator).to(anchor.device) for _ in others]
    mixed = product([o[p] for o, p in zip(others, order, strict=True)])
    agree = torch.stack([p == order[0] for p in order]).all(0)
    whole = torch.where(agree, order[0], -1)  # column c is the true tuple of sample whole[c]
    cells = Cells(exclude=(where, whole) if bool(agree.any()) else None, diagonal=True)
    return logsumexp(anchor, mixed, cells, chunk, need=(True, False))[0]


class _TupleLogSumExp(torch.autograd.Function):
    """log sum over all tuples of the others of exp(<anchor_i, tuple>), (N,); tuples are made chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, chunk: int, *others: Tensor) -> Tensor:
        total = anchor.new_full((len(anchor),), -math.inf)
        for index in _tuples(len(anchor), len(others), chunk, anchor.device):
            mixed = product([o[i] for o, i in zip(others, index, strict=True)])
            total = torch.logaddexp(total, torch.logsumexp(anchor @ mixed.T, 1))
        ctx.save_for_backward(anchor, total, *others)
        ctx.chunk = chunk
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        anchor, total, *others = ctx.saved_tensors
        to_anchor, to_others = torch.zeros_like(anchor), [torch.zeros_like(o) for o in others]
        for index in _tuples(len(anchor), len(others), ctx.chunk, anchor.device):
            parts = [o[i] for o, i in zip(others, index, strict=True)]
            mixed = product(parts)
            weight = torch.exp(anchor @ mixed.T - total[:, None]).mul_(gradient[:, None])  # (N, chunk)
            to_anchor.addmm_(weight, mixed)
            to_mixed = weight.T @ anchor
            for m, (grad, i) in enumerate(zip(to_others, index, strict=True)):
                grad.index_add_(0, i, product([to_mixed, *parts[:m], *parts[m + 1 :]]))
        return (to_anchor, None, *to_others)


def _tuples(n: int, modalities: int, chunk: int, device: torch.device) -> Iterator[list[Tensor]]:
    """All n^modalities tuples of row numbers, `chunk` at a time, as one (c,) index for each modality."""
    count = n**modalities
    for start in range(0, count, chunk):
        flat = torch.arange(start, min(start + chunk, count), device=device)
        yield [flat // n**m % n for m in range(modalities)]


def total_correlation_bound(loss: float, n_candidates: int) -> float:
    """log C - loss: a lower bound on total correlation in nats, in expectation (Saporta et al. 2024, theorem 3.1).

    >>> total_correlation_bound(0.5, 1)
    -0.5
    """
    if n_candidates < 1:
        raise UsageError(f"{n_candidates} candidates: wanted at least 1")
    return math.log(n_candidates) - loss


def tuple_scores(query: Mapping[str, Tensor], candidates: Mapping[str, Tensor], modalities: Sequence[str]) -> Tensor:
    """Scores (N, C) of the C candidates of the one missing modality, given the N rows of all the others: argmax over C
    retrieves. `query` has every modality but one, `candidates` that one.

    >>> q, c = {"a": torch.ones(1, 2), "b": torch.tensor([[1.0, 0.0]])}, {"c": torch.eye(2)}
    >>> tuple_scores(q, c, ("a", "b", "c")).tolist()
    [[1.0, 0.0]]
    """
    rows, target = _query(query, candidates, modalities)
    return product(rows) @ target.T


def pairwise_scores(query: Mapping[str, Tensor], candidates: Mapping[str, Tensor], modalities: Sequence[str]) -> Tensor:
    """The baseline's scores (N, C): the sum of the dot products of each query modality with the candidate."""
    rows, target = _query(query, candidates, modalities)
    return torch.stack(rows).sum(0) @ target.T


def _query(
    query: Mapping[str, Tensor], candidates: Mapping[str, Tensor], modalities: Sequence[str]
) -> tuple[list[Tensor], Tensor]:
    missing = [m for m in modalities if m not in query]
    if len(missing) != 1 or set(query) - set(modalities) or set(candidates) != set(missing):
        raise UsageError(
            f"of modalities {sorted(modalities)} the query has {sorted(query)}, the candidates are"
            f" {sorted(candidates)}; wanted candidates of exactly the one modality that the query lacks"
        )
    rows = check.embeddings(query, sorted(query))
    target = candidates[missing[0]]
    check.embeddings({missing[0]: target[:1].expand(1, -1), "query": rows[0][:1]}, (missing[0], "query"))
    check.finite(missing[0], target)
    return rows, target


@dataclass(slots=True)
class Multilinear:
    """The Symile objective over a model's embeddings of `fields`.

    `negatives` see `multilinear`. `absent`: "exclude" leaves incomplete rows out, fewer than 2 complete ones are an
    error (or skipped, `too_few`); "token" uses every row, and the model must give a learned vector where a modality is
    absent: zeros there are refused. `scale` is the path of the model's LogitScale or a fixed number: products of M unit
    vectors shrink like d^(-(M-2)/2), so its cap must be high enough (LogitScale(max=...); both are logged).
    """

    fields: tuple[str, ...]
    negatives: Negatives = "n"
    absent: Literal["exclude", "token"] = "exclude"
    chunk: int = CHUNK
    scale: Scale = "logit_scale"
    too_few: Literal["raise", "skip"] = "raise"
    reads: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.fields = tuple(self.fields)
        check_fields(self.fields)
        check_scale(self.scale)
        candidates(2, len(self.fields), self.negatives)
        if self.absent not in ("exclude", "token"):
            raise unknown("policy for absent modalities", self.absent, ("exclude", "token"))
        self.reads = self.fields

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch on one process; negatives are drawn from torch's generator."""
        return embed_and_loss(self, model, batch)

    def loss(
        self, model: nn.Module, embeddings: Mapping[str, Tensor], presence: Mapping[str, Tensor],
        keys: Mapping[str, Tensor], generator: Generator,
    ) -> Loss:  # fmt: skip
        """The loss of the joint batch: embeddings (B, d), presence (B,) bool; see `types.Contrastive`."""
        rows = dict(zip(self.fields, check.embeddings(embeddings, self.fields), strict=True))
        count = len(rows[self.fields[0]])
        if count < 2:
            raise UsageError(f"contrastive loss needs at least 2 pairs, got a batch of {count}")
        if self.absent == "exclude":
            whole = check.present(presence, self.fields, count)
            n = int(whole.sum())
            if n < 2 and self.too_few == "raise":
                raise UsageError(
                    f"contrastive loss needs at least 2 pairs; {n} of {count} rows have all of {', '.join(self.fields)}"
                    " (absent='token' uses incomplete rows; too_few='skip' passes over such a batch)"
                )
            if n < 2:
                return Loss(rows[self.fields[0]].new_zeros(()), {}, 0)
            rows = rows if n == count else {name: r[whole] for name, r in rows.items()}
        else:
            n = count
            _refuse_zeros(rows, presence)
        kind = torch.promote_types(torch.float32, rows[self.fields[0]].dtype)
        scale, _ = scale_of(model, self.scale)
        parts = multilinear(
            {name: r.to(kind) for name, r in rows.items()}, scale, generator, negatives=self.negatives, chunk=self.chunk
        )
        total = torch.stack([parts[name] for name in sorted(parts)]).mean()
        mean = float(total.detach())
        bound = total_correlation_bound(mean, candidates(n, len(self.fields), self.negatives))
        terms = {"loss": mean, "scale": number(scale), "total_correlation_bound": bound}
        return Loss(total, terms | {f"anchor/{name}": float(part.detach()) for name, part in parts.items()}, n)


def _refuse_zeros(rows: Mapping[str, Tensor], presence: Mapping[str, Tensor]) -> None:
    """An absent modality that embeds to zeros would zero its tuple's product and pass for a true one."""
    for name, r in rows.items():
        if name in presence and bool((r.detach()[~presence[name].bool()] == 0).all(1).any()):
            raise UsageError(
                f"absent='token', but the model embeds absent {name!r} to zeros: give its tower a learned absent token,"
                " or choose absent='exclude'"
            )
