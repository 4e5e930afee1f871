"""MultiModN's claim: a state passed in sequence loses nothing and resists missingness that depends on the label."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.proofs import Plan
from fabrica.proofs._icu import DEATH, REAL, logistic, split, stays
from fabrica.proofs.real import absent, real
from fabrica.proofs.spread import spread
from fabrica.types import Claim, Item, Origin, Proof, Record

if TYPE_CHECKING:
    from fabrica.evaluate.missing import ByClass
    from fabrica.models.fusion_bundle import FusionBundle
    from fabrica.phantom.views import Views

ROLES = ("one", "two", "three")
RATE = 0.8  # of the positives (training) that lack modality two; of the negatives once flipped (the paper's highest)
PATTERNS = ("complete", "same", "flipped")
TRIVIAL = "real: logistic on mean, last and what was measured, nothing planted"
FLAGGED = "real: sequential with what was measured, nothing planted"
# Bars of sheet S27, fixed before any run of seeds 0..; rates of the tuning seeds stand in `details`.
FLIPPED, COMPLETE, CHEATS, TWIN, NOTHING = 0.12, -0.01, 0.02, -0.01, 0.03
ARMS: Mapping[str, Mapping[str, Any]] = {
    "sequential": {"fusion": "sequential"},
    "parallel": {"fusion": "parallel"},
    "parallel told what is missing": {"fusion": "parallel_flags"},
    "sequential, classes balanced": {"fusion": "sequential", "balance": True},
}
BOTH = {name: ARMS[name] for name in ("sequential", "parallel")}


@dataclass(frozen=True, slots=True)
class Size:
    """How much, the same for every arm: rows, steps of 256 rows, seeds; `few` for several tasks and the real stays."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    few: tuple[int, ...] = (0, 1, 2, 3, 4)
    tuning: tuple[int, ...] = (100, 101)
    train: int = 2000
    test: int = 4000
    steps: int = 250
    real_steps: int = 400
    rates: tuple[float, ...] = (3e-3, 1e-2)
    resamples: int = 500
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: ARMS)


@dataclass(frozen=True, slots=True)
class Job:
    """One part: `what` is "views" (all patterns of a seed), "tasks", "rates" or "real"."""

    what: str
    seed: int
    size: Size
    folder: str = ""


@dataclass(slots=True)
class Found:
    """Scores of a seed by arm and pattern, any-subset tables by arm, and others for the details."""

    arms: dict[str, float] = field(default_factory=dict)
    subsets: dict[str, list[list[Any]]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


def run(plan: Plan) -> Proof:
    """AUC on complete, equally and oppositely incomplete tests; in training 80 % of the positives lack modality two."""
    size = Size()
    if plan.quick:
        size = Size(seeds=(0, 1, 2), few=(0, 1), tuning=(), test=2000, real_steps=300, resamples=50, arms=BOTH)
    if plan.full:
        size = Size(
            seeds=tuple(range(10)), few=tuple(range(10)), train=20_000, test=20_000, steps=2000, real_steps=2000
        )
    folder = real(REAL)
    jobs = [Job("views", s, size) for s in size.seeds] + [Job("tasks", s, size) for s in size.few]
    jobs += [Job("real", s, size, str(folder)) for s in size.few] if folder else []
    jobs += [Job("rates", s, size) for s in size.tuning]
    return _proof(size, jobs, spread(part, jobs, plan), folder is not None)


def part(job: Job, plan: Plan) -> Found:
    """What one part finds."""
    return {"views": _views, "tasks": _tasks, "rates": _rates, "real": _real}[job.what](job, plan)


# ---------------------------------------------------------------- the phantom


def _views(job: Job, plan: Plan) -> Found:
    """Every arm trained under label-dependent missingness; two arms trained complete, and missing at random."""
    from fabrica.evaluate.missing import Mcar, presence_leak
    from fabrica.evaluate.subsets import plain, subset_table
    from fabrica.phantom.views import views

    size, seed, found = job.size, job.seed, Found()
    train, test = views(size.train, seed), views(size.test, seed + 1000)
    patterns = _patterns(test.labels[:, 0], records(test), "two", ROLES[:2], seed)
    for name, (_, keep) in patterns.items():
        found.arms[f"best that ignores what is missing, {name}"] = _auc(test.labels[:, 0], test.best(keep))
    given = records(train)
    biased = _planted(given, train.labels[:, 0], "two", ROLES[:2], seed)
    for arm, changes in size.arms.items():
        bundle = _fit("views", biased, seed, plan, steps=size.steps, **changes)
        for name, (rows, _) in patterns.items():
            found.arms[f"{arm}, {name}"] = _auc(test.labels[:, 0], said(bundle, rows))
        if seed == size.seeds[0] and arm in BOTH:
            rule = _rule(test.labels[:, 0], "two")(ROLES[:2], size.test, seed)
            leak = presence_leak(
                partial(said, bundle), records(test), rule, _metric, _truth(test), count=size.resamples
            )
            lines = subset_table(
                partial(said, bundle), records(test), ROLES[:2], _metric, _truth(test), seed=seed, count=size.resamples
            )
            found.details[f"presence leak, {arm}"] = [leak.value, leak.low, leak.high]
            found.subsets[arm] = plain(lines)
    random = _removed(given, Mcar(RATE / 2, ("two",))(ROLES[:2], size.train, seed))
    for arm, changes in BOTH.items():
        bundle = _fit("views", given, seed, plan, steps=size.steps, **changes)
        found.arms[f"{arm}, nothing missing in training or test"] = _auc(
            test.labels[:, 0], said(bundle, patterns["complete"][0])
        )
        bundle = _fit("views", random, seed, plan, steps=size.steps, **changes)
        for name in ("same", "flipped"):
            found.arms[f"{arm} missing at random, {name}"] = _auc(test.labels[:, 0], said(bundle, patterns[name][0]))
    return found


def _tasks(job: Job, plan: Plan) -> Found:
    """Three modalities, three tasks: one model of all, and a twin for each task alone."""
    from fabrica.phantom.views import views

    size, found = job.size, Found()
    how: dict[str, Any] = {"dims": (8, 16, 8), "shifts": (0.22, 0.32, 0.3), "tasks": 3}
    train, test = views(size.train, job.seed, **how), views(size.test, job.seed + 1000, **how)
    rows, held = records(test), records(train)
    names, fields = ("y", "y1", "y2"), dict.fromkeys(ROLES, "table")
    every = _fit("views", held, job.seed, plan, steps=size.steps, fields=fields, tasks=dict.fromkeys(names, 2))
    for t, name in enumerate(names):
        alone = _fit("views", held, job.seed, plan, steps=size.steps, fields=fields, tasks={name: 2})
        found.arms[f"task {t + 1} of three together"] = _auc(test.labels[:, t], said(every, rows, name))
        found.arms[f"task {t + 1} alone"] = _auc(test.labels[:, t], said(alone, rows, name))
    return found


def _rates(job: Job, plan: Plan) -> Found:
    """Other learning rates than the paper's 1e-3, on a tuning seed."""
    from fabrica.phantom.views import views

    size, found = job.size, Found()
    train, test = views(size.train, job.seed), views(size.test, job.seed + 1000)
    patterns = _patterns(test.labels[:, 0], records(test), "two", ROLES[:2], job.seed)
    biased = _planted(records(train), train.labels[:, 0], "two", ROLES[:2], job.seed)
    for rate in size.rates:
        for arm, changes in BOTH.items():
            bundle = _fit("views", biased, job.seed, plan, steps=size.steps, lr=rate, **changes)
            found.details[f"{arm}, lr {rate:g}"] = [
                round(_auc(test.labels[:, 0], said(bundle, rows)), 4) for rows, _ in patterns.values()
            ]
    return found


def records(data: Views) -> list[Record]:
    """The phantom as records of tables; labels "y", "y1", "y2" by task."""
    made = []
    origin = Origin("views", "", "", "CC0-1.0", "synthetic")
    names = [tuple(f"x{j}" for j in range(x.shape[1])) for x in data.views]
    for i, labels in enumerate(data.labels):
        items = {
            role: (Item("table", x[i], origin, names=n),) for role, x, n in zip(ROLES, data.views, names, strict=False)
        }
        told = {("y", "y1", "y2")[t]: float(v) for t, v in enumerate(labels)}
        made.append(Record(f"{i}", f"{i}", items=items, labels=told))
    return made


# ---------------------------------------------------------------- the real stays


def _real(job: Job, plan: Plan) -> Found:
    """A split of the stays by subject: labs taken from 80 % of the dead in training, the same three tests."""
    from fabrica.evaluate.contributions import importance
    from fabrica.evaluate.subsets import plain, subset_table
    from fabrica.systems import load_system

    size, seed, found = job.size, job.seed, Found()
    train, test = split(stays(job.folder), seed)
    fields = tuple(load_system("multimodn").settings["icu"].fields)
    truth, held = (np.array([int(r.labels[DEATH]) for r in part]) for part in (test, train))
    patterns = _patterns(truth, test, "labs", fields, seed)
    biased = _planted(train, held, "labs", fields, seed)
    found.arms[TRIVIAL] = _auc(truth, logistic(train, test, fields))
    flagged = _fit("icu", train, seed, plan, steps=size.real_steps, flags=True)
    found.arms[FLAGGED] = _auc(truth, said(flagged, test, DEATH))
    for arm, changes in size.arms.items():
        bundle = _fit("icu", biased, seed, plan, steps=size.real_steps, **changes)
        for name, (rows, _) in patterns.items():
            found.arms[f"real: {arm}, {name}"] = _auc(truth, said(bundle, rows, DEATH))
    for arm, changes in BOTH.items():
        bundle = _fit("icu", train, seed, plan, steps=size.real_steps, **changes)
        found.arms[f"real: {arm}, nothing planted"] = _auc(truth, said(bundle, test, DEATH))
        if seed == size.seeds[0]:
            lines = subset_table(
                partial(said, bundle, task=DEATH), test, fields, _metric, truth.astype(float), seed=seed,
                count=size.resamples,
            )  # fmt: skip
            found.subsets[f"real: {arm}"] = plain(lines)
            if arm == "sequential":
                answers = bundle.answer(test)
                told = importance(answers.readings[DEATH], answers.ran, answers.step, answers.names)
                found.details["real: mean change of probability by each step"] = {
                    k: round(v, 4) for k, v in told.items()
                }
    return found


# ---------------------------------------------------------------- shared


def _fit(preset: str, train: Sequence[Record], seed: int, plan: Plan, **changes: Any) -> FusionBundle:
    """The system's preset, trained."""
    import torch

    from fabrica.systems import load_system
    from fabrica.train import InMemory, fit

    system = load_system("multimodn")
    settings = replace(system.settings[preset], **changes)
    torch.manual_seed(seed)
    bundle: FusionBundle = system.build(settings, train)
    held = InMemory.of(train, bundle.collate)
    with tempfile.TemporaryDirectory() as out:
        fit(bundle, system.stages(settings, bundle), held, out, seed=seed, device=plan.device, save_every=0)
    bundle.model.to("cpu").eval()
    return bundle


def said(bundle: FusionBundle, rows: Sequence[Record], task: str = "y") -> NDArray[np.float32]:
    """(n,) probability of a yes."""
    probability: NDArray[np.float32] = bundle.answer(rows, batch=2048).tasks[task][:, 1]
    return probability


def _rule(label: NDArray[np.int64], role: str) -> ByClass:
    from fabrica.evaluate.missing import ByClass

    return ByClass(label, (role,), {1: RATE})


def _planted(
    rows: Sequence[Record], label: NDArray[np.int64], role: str, roles: Sequence[str], seed: int
) -> list[Record]:
    return _removed(rows, _rule(label, role)(roles, len(rows), seed))


def _removed(rows: Sequence[Record], removal: Any) -> list[Record]:
    from fabrica.evaluate.missing import remove

    return remove(rows, removal)


def _patterns(
    label: NDArray[np.int64], rows: Sequence[Record], role: str, roles: Sequence[str], seed: int
) -> dict[str, tuple[list[Record], NDArray[np.bool_]]]:
    """Pattern -> the test rows under it, and what it keeps."""
    rule, n = _rule(label, role), len(rows)
    made = {"complete": (list(rows), np.ones((n, len(roles)), bool))}
    for name, one in (("same", rule), ("flipped", rule.flip())):
        removal = one(roles, n, seed)
        made[name] = (_removed(rows, removal), removal.keep)
    return made


def _auc(truth: NDArray[Any], score: NDArray[Any]) -> float:
    from fabrica.evaluate.metrics import auc

    return float(auc(truth, score))


def _metric(columns: Mapping[str, NDArray[Any]], weights: Any) -> Any:
    from fabrica.evaluate.metrics import auc

    return auc(columns["truth"], columns["score"], weights)


def _truth(data: Views) -> NDArray[np.float64]:
    return data.labels[:, 0].astype(np.float64)


# ---------------------------------------------------------------- the verdict


def _proof(size: Size, jobs: Sequence[Job], parts: Sequence[Found], has_real: bool) -> Proof:
    arms: dict[str, list[float]] = {}
    details: dict[str, Any] = {"patterns": PATTERNS, "subsets": {}}
    for job, found in zip(jobs, parts, strict=True):
        for name, value in found.arms.items():
            arms.setdefault(name, []).append(value)
        where = details.setdefault(f"tuning seed {job.seed}", {}) if job.what == "rates" else details
        where.update(found.details)
        details["subsets"].update(found.subsets)
    notes = (
        "Every arm: encoders 32-32, state 50, decoders 32-32, dropout 0.2, batch 256 (real: 64), AdamW at the paper's "
        "1e-3, the same steps and rows; no arm is tuned (other rates: `details`). Interval: Student's t over seeds. A "
        "sequence is slower to train: at half these steps it was still behind in development. "
        + (_trivial(arms) if has_real else absent(REAL))
    )
    data = f"phantom: Gaussian views, {size.train:,} train, {size.test:,} test rows" + (
        "; real: PhysioNet 2012, 2,390 stays, a split by stay each seed, labs of the dead removed" if has_real else ""
    )
    return Proof(
        "multimodn", "Passing a state through what is there costs nothing against parallel fusion and resists biased "
        "missingness.", data, f"AUC; modality two (real: labs) lacks in {RATE:.0%} of the positives in training, "
        "in the test never (complete), of the positives (same), of the negatives (flipped)",
        {k: tuple(v) for k, v in arms.items()}, _claims(arms, has_real), _controls(arms), size.seeds, 0.0, notes,
        details,
    )  # fmt: skip


def _trivial(arms: Mapping[str, Sequence[float]]) -> str:
    from fabrica.evaluate.bootstrap import paired_seeds

    d = paired_seeds(arms[FLAGGED], arms[TRIVIAL])
    verdict = "better" if d.low > 0 else "not clearly better" if d.value > 0 else "no better"
    return (
        f"Real stays, nothing planted, every cell flagged: sequential is {verdict} than logistic regression "
        f"({d.value:+.3f}, [{d.low:+.3f}, {d.high:+.3f}])."
    )


def _claims(arms: Mapping[str, Sequence[float]], has_real: bool) -> tuple[Claim, ...]:
    def against(name: str, bar: str, least: float, a: str, b: str, above: bool = False) -> Claim:
        from fabrica.evaluate.bootstrap import paired_seeds

        d = paired_seeds(arms[a], arms[b])
        return Claim(name, bar, d.value, (d.low, d.high), d.value >= least and (d.low > 0 or not above))

    claims = [
        against("flipped", f"sequential - parallel >= {FLIPPED}, interval above 0", FLIPPED, "sequential, flipped",
                "parallel, flipped", True),
        against("complete", f"trained on biased data: sequential - parallel >= {COMPLETE}", COMPLETE,
                "sequential, complete", "parallel, complete"),
        against("nothing missing", f"in training or test: sequential - parallel >= {COMPLETE}", COMPLETE,
                "sequential, nothing missing in training or test", "parallel, nothing missing in training or test"),
        against("parallel reads absence", f"same pattern: parallel - best that ignores absence >= {CHEATS}, interval "
                "above 0", CHEATS, "parallel, same", "best that ignores what is missing, same", True),
    ]  # fmt: skip
    twins = [
        against("three tasks", f"the worst of three tasks: together - alone >= {TWIN}", TWIN,
                f"task {t} of three together", f"task {t} alone") for t in (1, 2, 3)
    ]  # fmt: skip
    claims.append(min(twins, key=lambda c: c.effect))
    if has_real:
        claims.append(
            against("real, flipped", "PhysioNet 2012: sequential - parallel > 0, interval above 0", 0.0,
                    "real: sequential, flipped", "real: parallel, flipped", True)
        )  # fmt: skip
    return tuple(claims)


def _controls(arms: Mapping[str, Sequence[float]]) -> tuple[Claim, ...]:
    """Where absence in training told nothing, the pattern of the test must not matter."""
    made = []
    for arm in BOTH:
        a, b = (np.array(arms[f"{arm} missing at random, {name}"]) for name in ("same", "flipped"))
        gap = a - b
        made.append(
            Claim(f"missing at random, {arm}", f"same - flipped within {NOTHING} on every seed", float(gap.mean()),
                  (float(gap.min()), float(gap.max())), bool((np.abs(gap) <= NOTHING).all()))
        )  # fmt: skip
    return tuple(made)
