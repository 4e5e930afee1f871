"""Rules over groups of answers (all of an image's questions right), and what a coin scores under the very same rule.

A group's chance is computed from its own questions, for every slice: the product of one over the options of each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from fabrica.errors import UsageError, unknown
from fabrica.evaluate import bootstrap
from fabrica.evaluate.metrics import mean
from fabrica.types import Score

if TYPE_CHECKING:
    from fabrica.curate.language.probing import Probe
    from fabrica.evaluate.rowlog import Row

FEW = 30  # images: a cell with fewer is marked
Unanswered = Literal["wrong", "drop"]
Groups = Mapping[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judged answer. `status`: right, wrong, ambiguous, refused, unread, missing (no answer of it), or the reason
    code of a failure; only the first is right. `first`: it counts without twins too; `of`: questions that its pair has;
    `said` what was chosen ("" = nothing); `options` that a coin chooses from."""

    question: str
    record: str
    subject: str
    dimension: str
    pair: str
    status: str
    first: bool = True
    of: int = 1
    cell: str = ""
    said: str = ""
    options: int = 2

    @property
    def right(self) -> bool:
        """Whether the answer is the gold one."""
        return self.status == "right"

    @property
    def given(self) -> bool:
        """Whether there is an answer that can be read."""
        return self.status in ("right", "wrong")


def judged(probes: Iterable[Probe], rows: Mapping[str, Row]) -> list[Verdict]:
    """The probes with their answers, joined by id: the order of neither counts, and an answer that is not there is a
    wrong one ("missing"). Answers to questions that were not asked are an error."""
    from fabrica.text.yes_no import extract

    made: list[Verdict] = []
    for p in probes:
        row, said = rows.get(p.id), ""
        if row is None or row.failure:
            status = "missing" if row is None else row.failure
        else:
            found = extract(row.text)
            status, said = found.status, "" if found.value is None else found.status
            if found.value is not None:
                status = "right" if found.value == p.gold else "wrong"
        first = p.gold or p.of == 1
        made.append(
            Verdict(p.id, p.record, p.subject, p.dimension, p.pair, status, first, p.of, p.cell, said)
        )  # fmt: skip
    ids = Counter(v.question for v in made)
    if twice := next((i for i, n in ids.items() if n > 1), None):
        raise UsageError(f"question id {twice!r} stands twice")
    if strange := next((i for i in rows if i not in ids), None):
        raise UsageError(f"an answer to {strange!r}, which is none of the {len(made)} questions")
    return made


def by_group(rows: Iterable[Verdict], group: Sequence[str]) -> dict[tuple[str, ...], list[Verdict]]:
    """Rows by the values of the named attributes, in the order met."""
    made: dict[tuple[str, ...], list[Verdict]] = defaultdict(list)
    for row in rows:
        try:
            made[tuple(str(getattr(row, name)) for name in group)].append(row)
        except AttributeError as error:
            raise unknown("part of a verdict to group by", str(error.name), Verdict.__slots__) from error
    return dict(made)


def all_right(
    rows: Iterable[Verdict], *, group: Sequence[str] = ("record", "dimension"), unanswered: Unanswered = "wrong"
) -> dict[tuple[str, ...], float]:
    """1.0 for each group whose every question is right, else 0.0. A pair of which a question is missing makes its group
    wrong. `unanswered` "drop" leaves groups out in which nothing could be read (for comparison with others' tables).

    >>> v = [Verdict(str(i), "r", "s", "organ", "0", s, of=2) for i, s in enumerate(("right", "wrong"))]
    >>> all_right(v)
    {('r', 'organ'): 0.0}
    """
    if unanswered not in ("wrong", "drop"):
        raise unknown("rule for unanswered questions", unanswered, ("wrong", "drop"))
    made = {}
    for key, of in by_group(rows, group).items():
        if unanswered == "drop" and not any(v.given for v in of):
            continue
        made[key] = float(all(v.right for v in of) and not incomplete(of))
    return made


def incomplete(rows: Sequence[Verdict]) -> int:
    """How many pairs among the rows lack a question."""
    have = Counter((v.record, v.dimension, v.pair) for v in rows)
    return sum(have[key] < of for key, of in {(v.record, v.dimension, v.pair): v.of for v in rows}.items())


def coin(rows: Iterable[Verdict], *, group: Sequence[str] = ("record", "dimension")) -> dict[tuple[str, ...], float]:
    """What a fair coin scores on average on each group under `all_right`: the product of 1 / options.

    >>> v = [Verdict(str(i), "r", "s", "organ", "0", "wrong") for i in range(4)]
    >>> coin(v)
    {('r', 'organ'): 0.0625}
    """
    return {key: float(np.prod([1 / v.options for v in of])) for key, of in by_group(rows, group).items()}


def same(rows: Iterable[Verdict], *, group: Sequence[str]) -> dict[tuple[str, ...], float]:
    """1.0 for each group that was answered by one and the same choice throughout (confusion, arXiv 2409.15477)."""
    made = by_group(rows, group).items()
    return {key: float(len({v.said for v in of}) == 1 and all(v.given for v in of)) for key, of in made}


def corrected(score: float, chance: float) -> float:
    """(s - c) / (1 - c): 0 for a coin, 1 for all right; below 0 where guessing would do better."""
    return (score - chance) / (1 - chance)


# ---------------------------------------------------------------- the table


@dataclass(frozen=True, slots=True)
class Unit:
    """One image in one dimension: whether all its questions are right, those without twins alone, and the chance of
    both for a coin; `first` is NaN where the figure without twins leaves it out."""

    record: str
    subject: str
    dimension: str
    cell: str
    questions: int
    all: float
    first: float
    coin: float
    coin_first: float


def units(rows: Iterable[Verdict], *, unanswered: Unanswered = "wrong") -> list[Unit]:
    """The verdicts by image and dimension."""
    rows = list(rows)
    group = ("record", "dimension")
    whole, made = all_right(rows, group=group, unanswered=unanswered), []
    for key, of in by_group(rows, group).items():
        if key not in whole:
            continue
        firsts = [v for v in of if v.first]
        first = float(all(v.right for v in firsts)) if firsts else float("nan")
        made.append(
            Unit(
                key[0], of[0].subject, key[1], of[0].cell, len(of), whole[key], first,
                next(iter(coin(of, group=group).values())),
                next(iter(coin(firsts, group=group).values())) if firsts else float("nan"),
            )
        )  # fmt: skip
    return made


def only_where_right(made: Sequence[Unit], dimension: str, after: str) -> list[Unit]:
    """The units, those of `dimension` only for images all right in `after` (procedural: a place is asked of those who
    saw the condition)."""
    seen = {u.record for u in made if u.dimension == after and u.all}
    return [u for u in made if u.dimension != dimension or u.record in seen]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: `all` with its 95 % interval by subject, `first` without twins, `coin` by the same
    questions; n images."""

    name: str
    cell: str
    n: int
    all: float
    low: float
    high: float
    first: float
    coin: float

    @property
    def few(self) -> bool:
        """Whether the line rests on fewer than 30 images."""
        return self.n < FEW


OVERALL = "overall"


def lines(
    made: Sequence[Unit], dimensions: Sequence[str], *, cells: bool = True, apart: Sequence[str] = ("abnormality",),
    count: int = bootstrap.RESAMPLES,
) -> list[Line]:  # fmt: skip
    """Overall, then each dimension, then each cell of it.

    Overall = sum of n_D x accuracy_D over sum of n_D: the mean over all units. The figure without twins leaves the
    dimensions `apart` out, which have none.
    """
    out = [_line(OVERALL, "", made, [u for u in made if u.dimension not in apart], count)]
    for name in dimensions:
        mine = [u for u in made if u.dimension == name]
        if not mine:
            continue
        out.append(_line(name, "", mine, mine, count))
        split = sorted({u.cell for u in mine})
        for cell in split if cells and len(split) > 1 else ():
            here = [u for u in mine if u.cell == cell]
            out.append(_line(name, cell, here, here, count))
    return out


def _line(name: str, cell: str, of: Sequence[Unit], firsts: Sequence[Unit], count: int) -> Line:
    if not of:
        raise UsageError("no image to score")
    values = {"all": np.array([u.all for u in of])}
    found = bootstrap.interval(
        lambda c, w: mean(c["all"], w), values, [u.subject for u in of], count=count, share=True
    )  # fmt: skip
    first = float(mean([u.first for u in firsts])) if firsts else float("nan")
    chance = float(np.mean([u.coin for u in of]))
    return Line(name, cell, len({u.record for u in of}), found.value, found.low, found.high, first, chance)


def scores(
    table: Sequence[Line], *, task: str, version: str, split_hash: str = "", prompt: str = "",
    data: Literal["real", "phantom", "mixed"] = "real",
) -> list[Score]:  # fmt: skip
    """The lines as scores of a card: all right with its interval, then first questions and the coin beside it."""
    made = []
    for line in table:
        note = f"fewer than {FEW} images" if line.few else ""
        whole = Score(
            f"{task}/{line.name}", "all right", line.all, line.low, line.high, line.n, line.n, version, split_hash,
            prompt, line.cell, "model", data, note,
        )  # fmt: skip
        made.append(whole)
        made.append(replace(whole, metric="first questions", value=line.first, low=float("nan"), high=float("nan")))
        made.append(replace(whole, arm="coin", value=line.coin, low=line.coin, high=line.coin, note=""))
    return made
