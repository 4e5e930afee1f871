"""Any-subset tables: a score with each declared subset of kinds there, and where what is missing depends on the truth.

A table has a line a subset (the whole first, "nothing" last: the prior), then two lines a kind of data: that kind
withheld from a share of the rows of the upper half of a number (of the positives, where it is yes or no), and of the
lower half. The two together show what a model reads off absence itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError
from fabrica.evaluate import bootstrap
from fabrica.evaluate.missing import Answer, ByClass, ByValue, Removal, remove, subset_grid
from fabrica.types import Record

RATE = 0.8  # of the rows of one half: the highest share that MultiModN plants (arXiv 2309.14118, section 5)


@dataclass(frozen=True, slots=True)
class Line:
    """A score with its 95 % interval by subject, of `n` rows; `present` says what was there, in words."""

    present: str
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Shift:
    """`role` withheld not at random: from a share `rate` of the rows whose number is high, or (`upper` False) low.

    >>> shift = Shift("labs", 1.0)
    >>> shift.removal(np.array([0.0, 1.0, 1.0]), ("image", "labs"), 0).keep[:, 1].tolist()
    [True, False, False]
    >>> shift.said(np.array([0.0, 1.0])), Shift("labs", 0.5, upper=False).said(np.array([3.0, 9.0, 40.0]))
    ('labs gone from 100 % of the positives', 'labs gone from 50 % of the low half')
    """

    role: str
    rate: float = RATE
    upper: bool = True

    def removal(self, by: NDArray[np.floating], roles: Sequence[str], seed: int) -> Removal:
        """What is kept of `roles` in the rows of `by` (n,); rows whose number is NaN keep all."""
        if _yes_no(by):
            label = np.where(np.isfinite(by), by, -1).astype(np.int64)
            return ByClass(label, (self.role,), {int(self.upper): self.rate})(roles, len(by), seed)
        signed = np.asarray(by if self.upper else -by, np.float64)
        return ByValue(signed, (self.role,), self.rate)(roles, len(by), seed)

    def said(self, by: NDArray[np.floating]) -> str:
        """The line's words."""
        halves = ("negatives", "positives") if _yes_no(by) else ("low half", "high half")
        return f"{self.role} gone from {self.rate * 100:g} % of the {halves[self.upper]}"


def shifts(roles: Sequence[str], rate: float = RATE) -> list[Shift]:
    """Both directions for each role.

    >>> [(s.role, s.upper) for s in shifts(("image", "labs"))]
    [('image', True), ('image', False), ('labs', True), ('labs', False)]
    """
    return [Shift(role, rate, upper) for role in roles for upper in (True, False)]


def present_name(present: Sequence[str]) -> str:
    """A subset in words.

    >>> present_name(("image", "labs")), present_name(())
    ('image + labs', 'nothing')
    """
    return " + ".join(present) or "nothing"


def subset_table(
    answer: Answer, records: Sequence[Record], roles: Sequence[str], metric: bootstrap.Weighted,
    truth: NDArray[np.floating], *, by: NDArray[np.floating] | None = None, rate: float = RATE, seed: int = 0,
    count: int = bootstrap.RESAMPLES,
) -> list[Line]:  # fmt: skip
    """The table of `answer` (records -> (n,) scores) over `roles` that records hold.

    `metric` reads columns "truth" and "score" (see `bootstrap`); rows whose truth is NaN do not count. Absence shifts
    with `by` (n,), by default the truth itself. At most 6 roles give every subset, more a sample (`missing.subsets`).
    """
    roles = tuple(roles)
    if not roles:
        raise UsageError("a table of subsets wants at least one role")
    known = np.isfinite(truth)
    cells = subset_grid(answer, records, roles, metric, truth, count=count)
    lines = [Line(present_name(c.present), c.value, c.low, c.high, int(known.sum())) for c in cells]
    by = np.asarray(truth if by is None else by, np.float64)
    subjects = np.array([r.subject for r in records])[known]
    for shift in shifts(roles, rate):
        left = remove(records, shift.removal(by, roles, seed))
        columns = {"truth": truth[known], "score": np.asarray(answer(left))[known]}
        found = bootstrap.interval(metric, columns, subjects, count=count)
        lines.append(Line(shift.said(by), found.value, found.low, found.high, found.n))
    return lines


def plain(lines: Sequence[Line], digits: int = 4) -> list[list[str | float]]:
    """[present, value, low, high] a line: what a proof's `details["subsets"][ARM]` holds.

    >>> plain([Line("image", 0.71239, 0.65, 0.77, 40)])
    [['image', 0.7124, 0.65, 0.77]]
    """
    return [[line.present, *(round(float(v), digits) for v in (line.value, line.low, line.high))] for line in lines]


def _yes_no(by: NDArray[np.floating]) -> bool:
    known = by[np.isfinite(by)]
    return bool(len(known)) and bool(np.isin(known, (0.0, 1.0)).all())
