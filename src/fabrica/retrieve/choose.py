"""Which of the results are shown to a reader: the first k, those that score near the best, or as many as certified."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fabrica.errors import UsageError
from fabrica.retrieve import Run
from fabrica.retrieve.certify import Certificate


@dataclass(frozen=True, slots=True)
class Hit:
    """One result: the document, its score, its place from 1."""

    id: str
    score: float
    rank: int


class Choose(Protocol):
    """Hits, best first -> those shown, in the same order."""

    def __call__(self, hits: Sequence[Hit], /) -> tuple[Hit, ...]: ...


def hits(run: Run, query: str) -> tuple[Hit, ...]:
    """The results of one query; a score that is not a number is an error."""
    found = tuple(Hit(id_, score, i) for i, (id_, score) in enumerate(run.found(query), 1))
    if wrong := next((h for h in found if not math.isfinite(h.score)), None):
        raise UsageError(f"query {query!r}: the score of {wrong.id!r} is {wrong.score}; the index gives no order")
    return found


@dataclass(frozen=True, slots=True)
class FixedK:
    """The first k; fewer where fewer were found. 0 is none.

    >>> [h.id for h in FixedK(1)((Hit("a", 0.9, 1), Hit("b", 0.2, 2)))]
    ['a']
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < 0:
            raise UsageError(f"k={self.k}: wanted 0 or more")

    def __call__(self, hits: Sequence[Hit], /) -> tuple[Hit, ...]:
        return tuple(hits[: self.k])


@dataclass(frozen=True, slots=True)
class Ratio:
    """RULE's stored rule: hit i stays while score 1 / score i < threshold, at most `cap` of them. It ends at the first
    score that is not above 0.

    >>> [h.id for h in Ratio(2.0, 5)((Hit("a", 0.9, 1), Hit("b", 0.6, 2), Hit("c", 0.3, 3)))]
    ['a', 'b']
    """

    threshold: float
    cap: int

    def __post_init__(self) -> None:
        if not self.threshold > 1 or self.cap < 0:
            raise UsageError(
                f"ratio {self.threshold} up to {self.cap}: wanted a threshold above 1 and a cap of 0 or more"
            )

    def __call__(self, hits: Sequence[Hit], /) -> tuple[Hit, ...]:
        kept: list[Hit] = []
        for hit in hits[: self.cap]:
            if hit.score <= 0 or hits[0].score / hit.score >= self.threshold:
                break
            kept.append(hit)
        return tuple(kept)


@dataclass(frozen=True, slots=True)
class Certified:
    """As many as a certificate allows: the size of the least observed risk, or the smallest. Where it certifies none,
    no hit is shown; `says_none` tells that apart from a certified 0."""

    certificate: Certificate
    by: Literal["risk", "cost"] = "risk"

    @property
    def k(self) -> int:
        """How many are shown."""
        return self.certificate.pick(self.by) or 0

    @property
    def says_none(self) -> bool:
        """Whether nothing is certified."""
        return not self.certificate.valid

    def __call__(self, hits: Sequence[Hit], /) -> tuple[Hit, ...]:
        return tuple(hits[: self.k])
