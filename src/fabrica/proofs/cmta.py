"""CMTA's claim: slide and genes beat either alone, translation costs nothing against late fusion of the same encoders,
and gains where the genes tell which patches count."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.proofs import Plan, _tcga
from fabrica.proofs.real import absent, real
from fabrica.proofs.spread import spread
from fabrica.types import Claim, Proof, Record

if TYPE_CHECKING:
    from fabrica.models.fusion_bundle import FusionBundle

TEST = 40_000  # the seed of the test patients: the same ones for every training seed, so that patients can be resampled
TUNED_ON = 10_100  # of the patients that learning rates are compared on
ROLES = {"slide": "slide", "genes": "omics"}
LATE: Mapping[str, Any] = {"translate": False}
DEFAULT = 3e-3  # the learning rate of --quick, which tunes nothing
QUICK = "The real arm (TCGA) is left out of the quick size."
# World -> arm -> (what differs from CMTA, the fields it does not see)
ARMS: Mapping[str, Mapping[str, tuple[Mapping[str, Any], tuple[str, ...]]]] = {
    "additive": {
        "CMTA": ({}, ()), "late fusion": (LATE, ()), "slide alone": (LATE, ("genes",)),
        "genes alone": (LATE, ("slide",)),
    },
    "interaction": {
        "CMTA": ({}, ()), "late fusion": (LATE, ()), "CMTA, alpha 1": ({"alpha": 1.0}, ()),
        "CMTA, alpha 0": ({"alpha": 0.0}, ()),
    },
}  # fmt: skip
FEW = ("CMTA, alpha 1", "CMTA, alpha 0")  # without a bar: on `few` seeds, not tuned
# Bars of sheet S87, fixed before any run
BOTH, NO_COST, GAIN, MIXED = 0.03, -0.015, 0.015, 0.01


@dataclass(frozen=True, slots=True)
class Size:
    """How much, the same for every arm: patients, steps, seeds, the learning rates that each arm chooses from on
    `tuning`; `few` for what has no bar. The bags of phantom 1 hold 20 to `longest` patches. `cohorts` of TCGA, with
    `nets` of `_tcga.NETS`."""

    seeds: tuple[int, ...] = (20, 21, 22)
    few: tuple[int, ...] = (20,)
    tuning: tuple[int, ...] = (100,)
    grid: tuple[float, ...] = (1e-3, 3e-3)
    train: tuple[int, int] = (2000, 2000)  # of phantom 1 and 2
    test: tuple[int, int] = (1000, 1000)
    steps: tuple[int, int] = (160, 700)
    batch: tuple[int, int] = (64, 32)
    longest: int = 100
    cohorts: tuple[str, ...] = tuple(_tcga.COHORTS)
    nets: tuple[str, ...] = (_tcga.GENES,)
    resamples: int = 1000


@dataclass(frozen=True, slots=True)
class Job:
    """One part: `what` is "additive", "interaction", "missing" or a cohort; `rates` by "world: arm"."""

    what: str
    seed: int
    size: Size
    rates: Mapping[str, float] = field(default_factory=dict)
    folder: str = ""

    def rate(self, world: str, arm: str) -> float:
        """The learning rate of an arm; what has no bar takes CMTA's."""
        return self.rates.get(f"{world}: {'CMTA' if arm in FEW else arm}", DEFAULT)


@dataclass(slots=True)
class Found:
    """What a part found: C by arm (of a cohort: by fold), risks (n,) of the test patients by arm, any-subset tables by
    arm, and tables of a cohort."""

    arms: dict[str, list[float]] = field(default_factory=dict)
    risks: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    subsets: dict[str, list[list[Any]]] = field(default_factory=dict)
    cohorts: dict[str, Any] = field(default_factory=dict)


def run(plan: Plan) -> Proof:
    """C-index of every arm on both phantoms; nested five-fold C on the TCGA tables."""
    size = Size()
    if plan.quick:
        size = Size(
            (20, 21), (20,), (), train=(400, 1200), test=(400, 600), steps=(80, 250), longest=60, cohorts=(),
            resamples=300,
        )  # fmt: skip
    if plan.full:
        size = Size(
            tuple(range(20, 30)), tuple(range(20, 25)), (100, 101), train=(2000, 8000), test=(2000, 2000),
            steps=(400, 3000), longest=200, nets=tuple(_tcga.NETS),
        )  # fmt: skip
    folder = real(_tcga.REAL) if size.cohorts else None
    tunings = [Job(world, seed, size) for world in ("interaction", "additive") for seed in size.tuning]
    tuned = spread(tune, tunings, plan, "tuning")
    rates = chosen(tuned, size.grid) if tuned else {}
    jobs = [Job(cohort, 0, size, rates, str(folder)) for cohort in size.cohorts] if folder else []
    jobs += [Job(what, seed, size, rates) for what in ("interaction", "additive") for seed in size.seeds]
    jobs += [Job("missing", seed, size, rates) for seed in size.few]
    left_out = "" if folder else QUICK if plan.quick else absent(_tcga.REAL)
    return _proof(size, spread(part, jobs, plan), tuned, left_out)


def part(job: Job, plan: Plan) -> Found:
    """What one part finds."""
    if job.what in _tcga.COHORTS:
        return _cohort(job, plan)
    return {"additive": _world, "interaction": _world, "missing": _missing}[job.what](job, plan)


def tune(job: Job, plan: Plan) -> dict[str, float]:
    """C of each arm of a world at each rate of the grid, on patients of a tuning seed."""
    train, test = _train(job), _test(job.what, job.size, TUNED_ON)
    made = {}
    for arm, rate in product([a for a in ARMS[job.what] if a not in FEW], job.size.grid):
        one = replace(job, rates={f"{job.what}: {arm}": rate})
        made[f"{job.what}: {arm}, lr {rate:g}"] = _c(test, _learned(arm, one, plan, train, test))
    return made


def chosen(tuned: Sequence[Mapping[str, float]], grid: Sequence[float]) -> dict[str, float]:
    """The best rate of each arm by its mean over the tuning seeds.

    >>> chosen([{"a: b, lr 0.1": 0.6, "a: b, lr 1": 0.7}], (0.1, 1.0))
    {'a: b': 1.0}
    """
    every: dict[str, list[float]] = {}
    for one in tuned:
        for name, value in one.items():
            every.setdefault(name, []).append(value)
    arms = dict.fromkeys(name.rpartition(", lr ")[0] for name in every)
    return {arm: max(grid, key=lambda r, a=arm: float(np.mean(every[f"{a}, lr {r:g}"]))) for arm in arms}  # type: ignore[misc]


# ---------------------------------------------------------------- the phantoms


def _train(job: Job) -> list[Record]:
    return _patients(job.what, job.size, job.size.train, job.seed)


def _test(what: str, size: Size, seed: int = TEST) -> list[Record]:
    return _patients(what, size, size.test, seed)


def _patients(what: str, size: Size, many: tuple[int, int], seed: int) -> list[Record]:
    from fabrica.phantom import oncology

    if what == "interaction":
        return oncology.interaction(many[1], seed)
    return oncology.additive(many[0], seed, patches=(20, size.longest))


def _world(job: Job, plan: Plan) -> Found:
    """Every arm of a world."""
    train, test = _train(job), _test(job.what, job.size)
    found = Found()
    for arm in ARMS[job.what]:
        if arm not in FEW or job.seed in job.size.few:
            found.risks[f"{job.what}: {arm}"] = _learned(arm, job, plan, train, test)
    if job.what == "additive":
        mixed, other = _exchanged(train, job.seed), _exchanged(test, job.seed + 1)
        found.risks["additive: CMTA, genes of other patients"] = _learned("CMTA", job, plan, mixed, other)
    found.arms = {arm: [_c(test, risks)] for arm, risks in found.risks.items()}
    found.arms[f"{job.what}: oracle"] = [_c(test, _truth(test))]
    return found


def _learned(arm: str, job: Job, plan: Plan, train: list[Record], test: list[Record]) -> NDArray[np.float64]:
    """An arm's risks of the test patients, trained without what it does not see."""
    changes, left = ARMS[job.what][arm]
    seen = [r.without(*(ROLES[name] for name in left)) for r in train]
    return _risks(_fit(job, plan, train, seen, lr=job.rate(job.what, arm), **changes), test, left)


def _fit(job: Job, plan: Plan, known: list[Record], seen: list[Record], **changes: Any) -> FusionBundle:
    import torch

    from fabrica.systems import load_system
    from fabrica.train import InMemory, fit

    system, which = load_system("cmta"), int(job.what == "interaction")
    settings = replace(
        system.settings["phantom"], steps=job.size.steps[which], batch=job.size.batch[which], **changes
    )  # fmt: skip
    torch.manual_seed(job.seed)
    bundle: FusionBundle = system.build(settings, known)
    held = InMemory.of(seen, bundle.collate)
    with tempfile.TemporaryDirectory() as out:
        fit(bundle, system.stages(settings, bundle), held, out, seed=job.seed, device=plan.device, save_every=0)
    bundle.model.to("cpu").eval()
    return bundle


def _risks(bundle: FusionBundle, rows: Sequence[Record], left: Sequence[str] = ()) -> NDArray[np.float64]:
    from fabrica.objectives.survival import risk

    return risk(bundle.answer(rows, without=left).tasks["survival"])


def _labels(rows: Sequence[Record]) -> NDArray[np.float64]:
    return np.array([r.labels["survival"] for r in rows], np.float64)


def _truth(rows: Sequence[Record]) -> NDArray[np.float64]:
    return np.array([r.labels["log_hazard"] for r in rows], np.float64)


def _c(rows: Sequence[Record], risks: NDArray[np.float64]) -> float:
    from fabrica.evaluate.survival import c_index

    return float(c_index(_labels(rows), risks))


def _exchanged(rows: Sequence[Record], seed: int) -> list[Record]:
    """Each patient with the genes of another."""
    at = np.random.default_rng([seed, 9]).permutation(len(rows))
    return [r.updated(items={**r.items, "omics": rows[j].items["omics"]}) for r, j in zip(rows, at, strict=True)]


def _missing(job: Job, plan: Plan) -> Found:
    """Trained with a fifth of the sides hidden at each visit: C by what is there, and where that tells the risk."""
    from fabrica.evaluate.subsets import plain, subset_table

    job = replace(job, what="additive")
    train, test = _train(job), _test(job.what, job.size)
    found = Found()
    for arm in ("CMTA", "late fusion"):
        bundle = _fit(job, plan, train, train, drop=0.2, lr=job.rate(job.what, arm), **ARMS["additive"][arm][0])
        lines = subset_table(
            partial(_risks, bundle), test, tuple(ROLES.values()), _metric, _labels(test), by=_truth(test),
            seed=job.seed, count=min(job.size.resamples, 300),
        )  # fmt: skip
        found.subsets[f"{arm}, a fifth hidden in training, seed {job.seed}"] = plain(lines)
    return found


def _metric(columns: Mapping[str, NDArray[Any]], weights: Any) -> Any:
    from fabrica.evaluate.survival import c_index

    return c_index(columns["truth"], columns["score"], weights)


def _cohort(job: Job, plan: Plan) -> Found:
    data = _tcga.cohort(Path(job.folder), job.what)
    arms, tables = _tcga.summary(data, _tcga.told(data, job.seed, plan, job.size.nets), job.size.resamples)
    return Found(arms=arms, cohorts={job.what: tables})


# ---------------------------------------------------------------- the verdict


def _proof(size: Size, parts: Sequence[Found], tuned: Sequence[Mapping[str, float]], left_out: str = "") -> Proof:
    arms: dict[str, list[float]] = {}
    risks: dict[str, list[NDArray[np.float64]]] = {}
    subsets: dict[str, Any] = {}
    cohorts: dict[str, Any] = {}
    for found in parts:
        for name, values in found.arms.items():
            arms.setdefault(name, []).extend(values)
        for name, column in found.risks.items():
            risks.setdefault(name, []).append(column)
        subsets |= found.subsets
        cohorts |= found.cohorts
    claims, control = _claims(size, arms, risks)
    rates = "its rate chosen from {} on seed {}".format(
        ", ".join(f"{r:g}" for r in size.grid), ", ".join(map(str, size.tuning))
    )
    notes = (
        "Every arm: the same encoders (width 24, 2 heads), head, first weights, batches, steps, AdamW, dropout 0.1; "
        f"{rates if tuned else f'rate {DEFAULT:g}, none tuned'}. Alpha 0.0001 (published for LUAD) but where an arm "
        "says otherwise. Late fusion is CMTA without translation. All seeds "
        "answer the same test patients; intervals resample seeds and patients. " + (left_out or _tcga.said(cohorts))
    )
    data = (
        f"phantom: {size.train[0]:,} patients with bags of 20-{size.longest} patches (additive), {size.train[1]:,} "
        f"with bags of 20-40 (interaction), six gene groups, 40 % censored, test {size.test[0]:,} and {size.test[1]:,}"
        + (f"; real: TCGA {' and '.join(cohorts)}, six gene groups, no slides, nested five folds" if cohorts else "")
    )
    tuning = {name: round(value, 4) for one in tuned for name, value in one.items()}
    return Proof(
        "cmta", "Slide and genes beat either alone; translating one into the other costs nothing where they add up, "
        "and gains where the genes tell which patches count.", data, "C-index (Harrell) of the risk -sum_k S_k",
        {k: tuple(v) for k, v in arms.items()}, claims, control, size.seeds, 0.0, notes.strip(),
        {"rates": chosen(tuned, size.grid), "tuning": tuning, "subsets": subsets, "TCGA": cohorts},
    )  # fmt: skip


def _claims(
    size: Size, arms: Mapping[str, Sequence[float]], risks: Mapping[str, Sequence[NDArray[np.float64]]]
) -> tuple[tuple[Claim, ...], tuple[Claim, ...]]:
    """The bars of the sheet, fixed before the run."""
    from fabrica.evaluate.bootstrap import Interval, paired_seeds_rows

    tests = {world: _test(world, size) for world in ARMS}

    def gap(world: str, a: str, b: str) -> Interval:
        y = _labels(tests[world])
        one, two = ([{"truth": y, "score": r} for r in risks[f"{world}: {arm}"]] for arm in (a, b))
        subjects = np.array([r.subject for r in tests[world]])
        return paired_seeds_rows(_metric, one, two, subjects, count=size.resamples)

    def claim(name: str, bar: str, found: Interval, shown: bool) -> Claim:
        return Claim(name, bar, found.value, (found.low, found.high), shown)

    single = max(("slide alone", "genes alone"), key=lambda n: float(np.mean(arms[f"additive: {n}"])))
    both, late = gap("additive", "CMTA", single), gap("additive", "CMTA", "late fusion")
    inter = gap("interaction", "CMTA", "late fusion")
    other = gap("additive", "CMTA, genes of other patients", single)
    claims = (
        claim("both", f"additive: CMTA - best single ({single}) >= {BOTH}, interval above 0", both,
              both.value >= BOTH and both.low > 0),
        claim("no cost", f"additive: CMTA - late fusion >= {NO_COST}", late, late.value >= NO_COST),
        claim("interaction", f"interaction: CMTA - late fusion >= {GAIN}, interval above 0", inter,
              inter.value >= GAIN and inter.low > 0),
    )  # fmt: skip
    bar = f"additive: with the genes of other patients CMTA - best single <= {MIXED}"
    return claims, (claim("shuffled", bar, other, other.value <= MIXED),)
