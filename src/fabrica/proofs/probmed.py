"""ProbMed's claim with answerers of planted skill, a trained net that may not know places, and two real sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.proofs import Plan
from fabrica.proofs._probmed import (
    COIN,
    CONFUSION,
    HEDGE,
    KEPT,
    KNOWS_COARSE,
    POOLED,
    RAD,
    SHY,
    SKILLS,
    UNLISTED,
    YES,
    Found,
    Job,
    Size,
    answerers,
    part,
)  # fmt: skip
from fabrica.proofs.real import absent, real
from fabrica.proofs.spread import spread
from fabrica.types import Claim, Proof

if TYPE_CHECKING:
    from fabrica.evaluate.bootstrap import Interval
    from fabrica.evaluate.grouped import Unit

PAIRED = ("modality", "organ", "condition", "position")
# Bars of sheet S80, fixed before any run of reported seeds; tuning ran on seeds >= 100.
NEAR, FIRST, ALL, SEES = 0.03, 0.90, 0.10, 0.90


def run(plan: Plan) -> Proof:
    """All-right accuracy by dimension of every answerer, beside its own coin."""
    size = Size()
    if plan.quick:
        size = Size(seeds=(10, 11), test=200, steps=300, resamples=300)
    if plan.full:
        size = Size(seeds=tuple(range(30, 40)), images=5000, train=20_000, test=2000, steps=3000)
    return prove(size, plan)


def prove(size: Size, plan: Plan) -> Proof:
    """The experiment at any size."""
    jobs = [Job("net", s, size, arm) for arm in (KEPT, POOLED) for s in size.seeds]
    jobs += [Job("scripted", s, size) for s in size.seeds] + [Job("real", 0, size)]
    return _proof(size, jobs, spread(part, jobs, plan))


# ---------------------------------------------------------------- bars


def _proof(size: Size, jobs: Sequence[Job], made: Sequence[Found]) -> Proof:
    parts = list(zip(jobs, made, strict=True))
    by_seed: dict[str, list[list[Unit]]] = {}
    for _, found in parts:
        for name, units in found.units.items():
            by_seed.setdefault(name, []).append(units)
    table = _Table(by_seed, size)
    scripted = [found.values for job, found in parts if job.what == "scripted"]
    rest = next(found for job, found in parts if job.what == "real")
    tables = [found.details for job, found in parts if job.what == "scripted"]
    arms = {f"{name}, {d}": table.values(name, d) for name in by_seed if "real" not in name for d in table.has(name)}
    arms |= {f"{name}, per question": tuple(v[f"per question, {name}"] for v in scripted) for name in answerers()}
    arms |= {f"{name}": table.values(name, table.has(name)[0]) for name in by_seed if "real" in name}
    gone = [absent(name) for name in (RAD, CONFUSION) if real(name) is None]
    modality = f"real: VQA-RAD ({sum(rest.details.get('real modality', {}).values())} images of known modality, "
    closed = f"{len(by_seed.get('real closed: coin', [[]])[0])} with yes/no questions), MediConfusion (text side)"
    return Proof(
        "probmed",
        "Answerers that look able question by question fall below a coin under twins and the all-right rule.",
        f"synthetic facts: {size.images:,} images; synthetic images for the nets: {size.train:,} train, {size.test:,} "
        "test; " + ("no real set at hand" if len(gone) == 2 else modality + closed),
        "share of images all of whose questions in a dimension are right",
        arms, _claims(table, tables), _controls(table, scripted, rest), size.seeds, 0.0,
        " ".join(
            [
                "Chance is that of the very questions scored. Intervals resample images of all seeds. Both nets "
                "have the same data, steps and rate; one ends in a 16 x 16 grid that is pooled, the other goes on "
                "to one token. Arms 'real closed': VQA-RAD's own yes/no questions answered without the image. "
                "Without twins the rule alone is no guard: many images have questions of one answer only, and yes "
                "always beats the coin. Seeds 0 and 1 were spent on a first quick run, not shown: the coarse "
                "answerer said yes with 0.8 when it did not know (position 0.012 below chance, interval across 0), "
                "the interval of the ranking was over two seeds, and the nets had 200 steps on 1,500 pictures "
                "(condition 0.83; 0.08 on places that were kept). It now says yes with 0.9, as the sheet's pilot "
                "figures imply, the interval is by image, the nets train longer. A quick run takes seeds 10 and 11, "
                "the standard size seeds 20 to 24, the full size 30 to 39.",
                *gone,
            ]
        ),
        {
            "first questions": {n: {d: table.first(n, d) for d in table.has(n)} for n in by_seed},
            "chance": {n: {d: table.chance(n, d) for d in table.has(n)} for n in by_seed},
            "real": rest.values | {"modality": rest.details.get("real modality", {})},
            "ceiling": {k: [v[k] for v in scripted] for k in scripted[0] if k.startswith("ceiling")},
        },
    )  # fmt: skip


class _Table:
    """Units of every answerer by seed."""

    def __init__(self, by_seed: Mapping[str, list[list[Unit]]], size: Size) -> None:
        self.by_seed, self.size = by_seed, size

    def has(self, name: str) -> list[str]:
        """The dimensions that an answerer was asked about."""
        return list(dict.fromkeys(u.dimension for u in self.by_seed[name][0]))

    def pick(self, name: str, dimension: str) -> list[Unit]:
        """The units of all seeds."""
        return [u for units in self.by_seed[name] for u in units if u.dimension == dimension]

    def values(self, name: str, dimension: str) -> tuple[float, ...]:
        """The score by seed."""
        return tuple(float(np.mean([u.all for u in units if u.dimension == dimension])) for units in self.by_seed[name])

    def first(self, name: str, dimension: str) -> float:
        return float(np.nanmean([u.first for u in self.pick(name, dimension)]))

    def chance(self, name: str, dimension: str) -> float:
        return float(np.mean([u.coin for u in self.pick(name, dimension)]))

    def over_chance(self, name: str, dimension: str) -> Interval:
        """Score minus the chance of the same questions, by image."""
        from fabrica.evaluate.bootstrap import interval
        from fabrica.evaluate.metrics import mean

        of = self.pick(name, dimension)
        columns = {"gap": np.array([u.all - u.coin for u in of])}
        return interval(lambda c, w: mean(c["gap"], w), columns, [u.subject for u in of], count=self.size.resamples)

    def score(self, name: str, dimension: str) -> Interval:
        from fabrica.evaluate.bootstrap import interval
        from fabrica.evaluate.metrics import mean

        of = self.pick(name, dimension)
        columns = {"all": np.array([u.all for u in of])}
        subjects = [u.subject for u in of]
        return interval(lambda c, w: mean(c["all"], w), columns, subjects, count=self.size.resamples, share=True)

    def overall(self, name: str) -> tuple[float, ...]:
        """Sum of n_D x accuracy_D over sum of n_D, by seed."""
        return tuple(float(np.mean([u.all for u in units])) for units in self.by_seed[name])


def _claims(table: _Table, tables: Sequence[Mapping[str, Any]]) -> tuple[Claim, ...]:
    dims = table.has(COIN)
    off = [table.over_chance(COIN, d) for d in dims]
    far = max(off, key=lambda i: abs(i.value))
    firsts = [table.first(YES, d) for d in ("modality", "organ", "position")]
    whole = [table.score(YES, d) for d in PAIRED]
    below = [table.over_chance(KNOWS_COARSE, d) for d in ("condition", "position")]
    least = max(below, key=lambda i: i.high)
    asked, rule = (_apart(tables, at, table.size.resamples) for at in (0, 2))
    most = max(whole, key=lambda i: i.value)
    condition, place = table.score(POOLED, "condition"), table.over_chance(POOLED, "position")
    return (
        Claim("coin meets its chance", f"in each of {len(dims)} dimensions within {100 * NEAR:g} points of the chance "
              "computed from the questions", far.value, (far.low, far.high), abs(far.value) <= NEAR),
        Claim("yes-sayer", f"all right in at most {100 * ALL:g} % of images in each paired dimension, with first "
              f"questions right in {100 * FIRST:g} % or more (modality, organ, position)", most.value,
              (most.low, most.high), most.value <= ALL and min(firsts) >= FIRST,
              "first questions " + ", ".join(f"{f:.3f}" for f in firsts)),
        Claim("coarse skill", "below the chance of the same questions in condition and position, upper bounds below 0",
              least.value, (least.low, least.high), least.high < 0),
        Claim("another ranking", "by single questions the yes-sayer stands above the expert who refuses, by the rule "
              "below; both intervals away from 0", rule.value, (rule.low, rule.high), asked.low > 0 > rule.high,
              f"single questions {asked.value:+.3f} [{asked.low:+.3f}, {asked.high:+.3f}]"),
        Claim("net sees conditions", f"places pooled away: condition all right in {100 * SEES:g} % or more",
              condition.value, (condition.low, condition.high), condition.value >= SEES),
        Claim("net knows no places", "the same net: position at or below chance, upper bound included", place.value,
              (place.low, place.high), place.high <= 0),
    )  # fmt: skip


def _apart(tables: Sequence[Mapping[str, Any]], at: int, count: int) -> Interval:
    """Share of the yes-sayer minus that of the shy expert, by image: of questions right (`at` 0), or of dimensions all
    right (2)."""
    from fabrica.evaluate.bootstrap import interval

    a, b = (np.concatenate([t[name] for t in tables]) for name in (YES, SHY))
    columns = {"gap": a[:, at] - b[:, at], "of": a[:, at + 1]}

    def share(c: Mapping[str, NDArray[Any]], w: NDArray[Any] | None) -> Any:
        weights = np.ones((1, len(c["gap"]))) if w is None else w
        made = (weights @ c["gap"]) / (weights @ c["of"])
        return float(made[0]) if w is None else made

    return interval(share, columns, [str(i) for i in range(len(a))], count=count)


def _controls(table: _Table, scripted: Sequence[Mapping[str, float]], rest: Found) -> tuple[Claim, ...]:
    names = [f"skill {s:g}" for s in SKILLS] + [COIN]
    steps = [a - b for x, y in pairwise(names)
             for a, b in zip(table.overall(x), table.overall(y), strict=True)]  # fmt: skip
    moved = [v["answers moved by order"] for v in scripted]
    place = table.over_chance(KEPT, "position")
    hedge = max(table.overall(HEDGE))
    public = [v["hedger, public rule"] for v in scripted]
    low, high = ([v[f"ceiling, unlisted {w}"] for v in scripted] for w in ("absent", "unknown"))
    made = [
        Claim("ranked as planted", "skills 0.9, 0.7, 0.5, 0.3 and the coin keep their order in every seed",
              min(steps), (min(steps), max(steps)), min(steps) > 0),
        Claim("places can be learnt", "the net that keeps places: position above chance, lower bound above 0",
              place.value, (place.low, place.high), place.low > 0),
        Claim("order of the answers", "shuffled answers change no verdict", max(moved), (min(moved), max(moved)),
              max(moved) == 0),
        Claim("both words", "an answer with both words is right nowhere (the public rule: everywhere)", hedge,
              (hedge, hedge), hedge == 0 and min(public) == 1),
        Claim("unlisted findings", f"{100 * UNLISTED:g} % of findings unlisted: perfect eyes are all right where they "
              "count as unknown, and not where they count as absent", float(np.mean(low)), (min(low), max(low)),
              max(low) < 1 and min(high) == 1),
    ]  # fmt: skip
    if "real modality: nearest pixels" in table.by_seed:
        near = table.over_chance("real modality: nearest pixels", "modality")
        always = table.values("real modality: yes always", "modality")[0]
        made.append(
            Claim("real images", "VQA-RAD, modality: the nearest image's answer is above chance, yes always is right "
                  "for none", near.value, (near.low, near.high), near.low > 0 and always == 0)
        )  # fmt: skip
    if "pairs right, A always" in rest.values:
        blind = max(rest.values[f"pairs right, {n}"] for n in ("A always", "the longer option"))
        made.append(
            Claim("real pairs", "MediConfusion: what does not see the images is right for no pair", blind,
                  (blind, blind), blind == 0)
        )  # fmt: skip
    return tuple(made)
