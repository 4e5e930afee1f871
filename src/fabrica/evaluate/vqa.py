"""Scores of short answers to questions about images: closed ones by containment and exactly, open ones by token recall
beside precision, F1 and length, since long answers win at recall alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fabrica.errors import UsageError
from fabrica.text.answers import normal


@dataclass(frozen=True, slots=True)
class Open:
    """Of one answer: shares of the reference's words that it holds (`recall`), of its words that are the reference's
    (`precision`), their harmonic mean, and its number of words."""

    recall: float
    precision: float
    f1: float
    words: int


def open_scores(answer: str, reference: str) -> Open:
    """Token scores of a free answer (LLaVA-Med, arXiv 2306.00890, section 5.2, scores open questions by recall).

    Errors: `UsageError` for a reference without a word.

    >>> open_scores("It lies in the left lung.", "left lung")
    Open(recall=1.0, precision=0.4, f1=0.5714285714285715, words=5)
    """
    said, wanted = normal(answer).split(), normal(reference).split()
    if not wanted:
        raise UsageError("a reference without a word; there is nothing to score against")
    shared = sum((Counter(said) & Counter(wanted)).values())
    return Open(shared / len(wanted), shared / max(len(said), 1), 2 * shared / (len(said) + len(wanted)), len(said))


def contains(answer: str, reference: str) -> bool:
    """Whether the normalised reference stands in the answer as whole words: the paper's accuracy of closed questions.

    >>> contains("Yes, there is.", "yes"), contains("Nothing is seen.", "no")
    (True, False)
    """
    return f" {normal(reference)} " in f" {normal(answer)} "


def exact(answer: str, reference: str) -> bool:
    """Whether both are the same after normalisation.

    >>> exact("The left.", "left")
    True
    """
    return normal(answer) == normal(reference)


@dataclass(frozen=True, slots=True)
class Summary:
    """`exact` over all; `closed` and `closed_exact` over closed questions; means of the open ones' scores; counts;
    `empty` is the share of answers without a word, which count as wrong everywhere."""

    exact: float
    closed: float
    closed_exact: float
    recall: float
    precision: float
    f1: float
    words: float
    n_closed: int
    n_open: int
    empty: float


def summary(answers: Sequence[str], references: Sequence[str], closed: Sequence[bool]) -> Summary:
    """All scores of a set; NaN never: a kind without a question scores 0 with a count of 0.

    >>> s = summary(["Yes.", "the left lung"], ["yes", "left lung"], [True, False])
    >>> s.closed, s.recall, s.exact, s.n_open
    (1.0, 1.0, 1.0, 1)
    """
    if not len(answers) == len(references) == len(closed) or not answers:
        raise UsageError(f"{len(answers)} answers, {len(references)} references, {len(closed)} kinds; wanted as many")
    rows = list(zip(answers, references, closed, strict=True))
    shut, free = [(a, r) for a, r, c in rows if c], [open_scores(a, r) for a, r, c in rows if not c]

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values) if values else 0.0

    return Summary(
        mean([exact(a, r) for a, r, _ in rows]), mean([contains(a, r) for a, r in shut]),
        mean([exact(a, r) for a, r in shut]), mean([o.recall for o in free]), mean([o.precision for o in free]),
        mean([o.f1 for o in free]), mean([o.words for o in free]), len(shut), len(free),
        mean([not normal(a) for a in answers]),
    )  # fmt: skip
