"""`Contrast`: pairwise contrast of a model's embeddings, configured; every two-tower system is one line of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from fabrica.errors import UsageError, unknown
from fabrica.objectives import check
from fabrica.objectives.contrast import pair_contrast, sigmoid_contrast
from fabrica.objectives.scale import LogitScale
from fabrica.objectives.streaming import CHUNK
from fabrica.types import Batch, Loss

Scale = str | float


@dataclass(slots=True)
class Contrast:
    """Contrast of pairs of `fields`: the batch's fields whose embeddings `model.embed` gives.

    `pairs` of names (default: every two of `fields`); their losses are summed. `weights` of the direction first ->
    second and back. `positives_by`: rows with the same key are positives of each other (UniCL); `exclude_by`: rows with
    the same key are no negatives of each other (one study, one report). `form` "sigmoid" is SigLIP. `scale` is the
    path of the model's LogitScale or a fixed number (1 / temperature). Rows that lack one of a pair are left out;
    fewer than 2 rows that have both: an error, or with `too_few` "skip" the pair counts for nothing. `chunk` rows of
    scores are held at a time. The share of rows with a double by each of these keys is logged, and by those that
    `watch` names: false negatives about which nothing is done.

    >>> Contrast(("image", "text"), weights=(0.75, 0.25), scale=1 / 0.1, exclude_by="study").reads
    ('image', 'text', 'study')
    """

    fields: tuple[str, ...]
    weights: tuple[float, float] = (0.5, 0.5)
    positives_by: str | None = None
    exclude_by: str | None = None
    form: Literal["softmax", "sigmoid"] = "softmax"
    chunk: int = CHUNK
    pairs: tuple[tuple[str, str], ...] = ()
    scale: Scale = "logit_scale"
    too_few: Literal["raise", "skip"] = "raise"
    watch: tuple[str, ...] = ()
    reads: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.fields = tuple(self.fields)
        check_fields(self.fields)
        self.pairs = tuple(self.pairs) or tuple(combinations(self.fields, 2))
        for name in (n for pair in self.pairs for n in pair):
            if name not in self.fields:
                raise unknown("field", name, self.fields)
        if self.form not in ("softmax", "sigmoid"):
            raise unknown("form", self.form, ("softmax", "sigmoid"))
        if min(self.weights) < 0 or sum(self.weights) <= 0:
            raise UsageError(f"direction weights {self.weights}: wanted two numbers >= 0, not both 0")
        if self.form == "sigmoid" and self.weights != (0.5, 0.5):
            raise UsageError("the sigmoid form has no directions: leave `weights` out")
        check_scale(self.scale)
        known = (self.positives_by, self.exclude_by, *self.watch)
        self.reads = (*self.fields, *dict.fromkeys(k for k in known if k is not None))

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch on one process."""
        return embed_and_loss(self, model, batch)

    def loss(
        self, model: nn.Module, embeddings: Mapping[str, Tensor], presence: Mapping[str, Tensor],
        keys: Mapping[str, Tensor], generator: Generator | None = None,
    ) -> Loss:  # fmt: skip
        """The loss of the joint batch: embeddings (B, d), presence (B,) bool, keys (B,) int64; `types.Contrastive`."""
        rows = dict(zip(self.fields, check.embeddings(embeddings, self.fields), strict=True))
        count = len(rows[self.fields[0]])
        if count < 2:
            raise UsageError(f"contrastive loss needs at least 2 pairs, got a batch of {count}")
        same = check.key(keys, self.positives_by, count)
        apart = check.key(keys, self.exclude_by, count)
        scale, bias = scale_of(model, self.scale, bias=self.form == "sigmoid")
        total, used, terms = rows[self.fields[0]].new_zeros(()), torch.zeros(count, dtype=torch.bool), {}
        for first, second in self.pairs:
            both = check.present(presence, (first, second), count)
            n = int(both.sum())
            if n < 2 and self.too_few == "raise":
                raise UsageError(
                    f"contrastive loss needs at least 2 pairs; {n} of {count} rows have both {first!r} and {second!r}"
                    " (raise the batch size, sample such rows together, or set too_few='skip')"
                )
            if n < 2:
                continue
            pick = slice(None) if n == count else both
            part = self._pair(rows[first][pick], rows[second][pick], scale, bias, _pick(same, pick), _pick(apart, pick))
            total, used = total + part, used | both.cpu()
            terms["loss" if len(self.pairs) == 1 else f"{first}~{second}"] = float(part.detach())
        terms["scale"] = number(scale)
        for name in self.reads[len(self.fields) :]:
            key = check.key(keys, name, count)
            assert key is not None
            terms[f"duplicates/{name}"] = duplicate_rate(key)
        return Loss(total, terms, int(used.sum()))

    def _pair(
        self, a: Tensor, b: Tensor, scale: Tensor | float, bias: Tensor | float, same: Tensor | None,
        apart: Tensor | None,
    ) -> Tensor:  # fmt: skip
        if self.form == "sigmoid":
            return sigmoid_contrast(a, b, scale, bias, positives=same, exclude=apart, chunk=self.chunk)
        return pair_contrast(a, b, scale, weights=self.weights, positives=same, exclude=apart, chunk=self.chunk)


def pairwise(fields: tuple[str, ...], **options: Any) -> Contrast:
    """The sum of the M(M-1)/2 CLIP losses of M fields: the baseline that sees no joint information (Symile, section 4).

    >>> pairwise(("a", "b", "c")).pairs
    (('a', 'b'), ('a', 'c'), ('b', 'c'))
    """
    return Contrast(fields, **options)


def embed_and_loss(objective: Any, model: nn.Module, batch: Batch) -> Loss:
    """Embed the fields that `objective` names and take its loss, on one process; the generator comes of torch's."""
    embedded, presence = model.embed({name: batch.fields[name] for name in objective.fields})  # type: ignore[operator]
    generator = Generator().manual_seed(int(torch.randint(2**62, ()).item()))
    loss: Loss = objective.loss(model, embedded, presence, batch.keys, generator)
    return loss


def duplicate_rate(key: Tensor) -> float:
    """Share of rows whose key another row has too: false negatives where nothing is done about them.

    >>> duplicate_rate(torch.tensor([1, 1, 2, 3]))
    0.5
    """
    _, inverse, counts = torch.unique(key, return_inverse=True, return_counts=True)
    return float((counts[inverse] > 1).float().mean())


def check_fields(fields: tuple[str, ...]) -> None:
    """At least two fields, none twice."""
    if len(fields) < 2 or len(set(fields)) < len(fields):
        raise UsageError(f"a contrast wants at least 2 different fields, got {fields}")


def check_scale(scale: Scale) -> None:
    """A fixed scale above 0, or a path."""
    if not isinstance(scale, str) and not 0 < scale < float("inf"):
        raise UsageError(f"scale {scale!r} (1 / temperature): wanted a number above 0 or the name of a LogitScale")


def scale_of(model: nn.Module, scale: Scale, *, bias: bool = False) -> tuple[Tensor | float, Tensor | float]:
    """The multiplier, and the sigmoid form's bias (0 without one), from the model's LogitScale or a fixed number."""
    if not isinstance(scale, str):
        return float(scale), 0.0
    known = [name for name, module in model.named_modules() if isinstance(module, LogitScale)]
    if scale not in known:
        raise unknown("LogitScale in the model", scale, known)
    module = model.get_submodule(scale)
    assert isinstance(module, LogitScale)
    return module(), (module.bias if bias and module.bias is not None else 0.0)


def number(value: Tensor | float) -> float:
    """A plain number for the log."""
    return float(value.detach()) if isinstance(value, Tensor) else value


def _pick(key: Tensor | None, rows: slice | Tensor) -> Tensor | None:
    return None if key is None else key[rows]
