"""TIP's claim: pre-training on image and table together beats training from few labels, with cells missing."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.proofs import Plan, _icu
from fabrica.proofs._tip import (
    IMAGE,
    TABLE,
    auc_of,
    cells_missing,
    importance,
    masked_error,
    matched,
    said,
    weighted,
)
from fabrica.proofs.real import absent, real
from fabrica.proofs.spread import spread
from fabrica.types import Absent, Claim, Proof, Record, Schedule, Stage

if TYPE_CHECKING:
    from fabrica.models.fusion_bundle import FusionBundle

TIP, ALONE, MLP, JOINT = "TIP", "same net, not pre-trained", "MLP, mean fill, table", "MLP, mean fill, table and image"
ARMS = (TIP, ALONE, MLP, JOINT)
BASES = ARMS[1:]
STAYS = (TIP, ALONE, MLP)  # on real stays, which have no image
RATES = (0.0, 0.5, 0.7)  # of cells removed at random, in the labelled part and in the test
# Bars of sheet S86, fixed before any run of reported seeds
BETTER, CELL, WITHOUT, MATCH, CHANCE = 0.02, 0.5, 0.05, 0.75, 0.05


@dataclass(frozen=True, slots=True)
class Size:
    """How much, the same for every arm: people, steps, the learning rates that each arm chooses from on `tuning`.
    `few` seeds for the control; `stays` seeds of real stays with `real_labels` known outcomes and `real_steps` of
    pre-training."""

    seeds: tuple[int, ...] = (10, 11, 12)
    few: tuple[int, ...] = (10,)
    stays: tuple[int, ...] = (10, 11)
    tuning: tuple[int, ...] = (100,)
    grid: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    unlabelled: int = 3000
    labels: int = 100
    test: int = 1000
    steps: int = 500
    fine_steps: int = 150
    real_labels: int = 300
    real_steps: int = 150
    resamples: int = 300


@dataclass(frozen=True, slots=True)
class Job:
    """One seed; `rate` by arm is its learning rate, none: every rate of the grid. `what` is "people", "others" (images
    with other people's tables in pre-training) or "stays"."""

    seed: int
    size: Size
    rate: Mapping[str, float] = field(default_factory=dict)
    what: str = "people"
    folder: str = ""


@dataclass(slots=True)
class Found:
    """Scores by arm, any-subset tables by arm, and other tables for the details."""

    arms: dict[str, float] = field(default_factory=dict)
    subsets: dict[str, list[list[Any]]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


def run(plan: Plan) -> Proof:
    """AUC of arms fine-tuned on 100 labels with 0, 50 and 70 % of cells missing; what pre-training learned of cells."""
    size = Size()
    if plan.quick:
        size = Size(seeds=(10, 11), few=(), stays=(), tuning=(), test=500, steps=150, fine_steps=100)
    if plan.full:
        many = tuple(range(10, 20))
        size = Size(
            seeds=many, few=many[:3], stays=many, tuning=(100, 101), unlabelled=20_000, test=5000, steps=10_000,
            real_steps=2000,
        )  # fmt: skip
    folder = real(_icu.REAL) if size.stays else None
    early = [Job(s, size) for s in size.tuning] + [Job(s, size, what="others") for s in size.few]
    first = spread(unrated, early, plan, "tuning and control")
    tuned, others = [f.arms for f in first[: len(size.tuning)]], first[len(size.tuning) :]
    rate = {
        arm: max(size.grid, key=lambda r, a=arm: sum(t[f"{a}, lr {r:g}"] for t in tuned)) if tuned else DEFAULT[arm]  # type: ignore[misc]
        for arm in ARMS
    }
    jobs = [Job(s, size, rate) for s in size.seeds]
    jobs += [Job(s, size, rate, "stays", str(folder)) for s in size.stays if folder]
    left_out = "" if folder else "The real arm is left out of the quick size." if plan.quick else absent(_icu.REAL)
    return _proof(size, [*spread(part, jobs, plan), *others], rate, tuned, left_out)


DEFAULT = {TIP: 1e-3, ALONE: 3e-3, MLP: 3e-3, JOINT: 3e-3}  # of --quick, which tunes nothing


# ---------------------------------------------------------------- parts


def unrated(job: Job, plan: Plan) -> Found:
    """What needs no rate: the rates of a tuning seed, or the control."""
    return _others(job, plan) if job.what == "others" else Found(tune(job, plan))


def tune(job: Job, plan: Plan) -> dict[str, float]:
    """AUC of every arm at every rate of the grid, half of the cells missing."""
    data = _Data.of(job)
    trained = _pretrained(data, job, plan)
    made = {}
    for rate in job.size.grid:
        for arm in ARMS:
            bundle = _tuned(arm, trained, data.labelled(0.5), rate, job, plan)
            made[f"{arm}, lr {rate:g}"] = round(auc_of(data.truth, said(bundle, data.tested(0.5))), 4)
    return made


def part(job: Job, plan: Plan) -> Found:
    """What one part finds."""
    return {"people": _people, "stays": _stays}[job.what](job, plan)


def _people(job: Job, plan: Plan) -> Found:
    """Every arm at every missing rate, and what the pre-trained net knows of cells and pairs."""
    data, found = _Data.of(job), Found()
    trained = _pretrained(data, job, plan)
    found.arms["matching, balanced accuracy"] = matched(trained, data.test, job.seed)
    for name, image in (("with", True), ("without", False)):
        found.arms[f"masked number's error {name} the image"] = masked_error(trained, data.test, job.seed, image)
    first = job.seed == job.size.seeds[0]
    for rate in RATES:
        rows, test = data.labelled(rate), data.tested(rate)
        for arm in ARMS:
            bundle = _tuned(arm, trained, rows, job.rate[arm], job, plan)
            found.arms[f"{arm}, {rate:.0%} missing"] = auc_of(data.truth, said(bundle, test))
            if first and rate == 0 and arm in (TIP, JOINT):
                found.subsets[f"{arm}, seed {job.seed}"] = _subsets(bundle, data, job.size)
    if first and not plan.quick:
        found.details |= _protocols(trained, data, job, plan)
    return found


def _others(job: Job, plan: Plan) -> Found:
    """Pre-trained on images with other people's tables: nothing to match."""
    data = _Data.of(job)
    trained = _pretrained(data, job, plan)
    return Found({"matching, pre-trained on others' tables": matched(trained, data.test, job.seed)})


@dataclass(frozen=True, slots=True)
class _Data:
    """A seed's people: `pool` without labels, `few` with, `test`."""

    pool: list[Record]
    few: list[Record]
    test: list[Record]
    truth: NDArray[np.int64]
    seed: int

    @classmethod
    def of(cls, job: Job) -> _Data:
        from fabrica.phantom.cohort import cohort

        size, seed = job.size, job.seed
        test = cohort(size.test, seed + 2000)
        pool = list(cohort(size.unlabelled, seed).records(labelled=False, prefix="pool"))
        few = list(cohort(size.labels, seed + 1000).records(prefix="few"))
        return cls(pool, few, list(test.records(prefix="test")), test.label, seed)

    def labelled(self, rate: float) -> list[Record]:
        return cells_missing(self.few, rate, self.seed)

    def tested(self, rate: float) -> list[Record]:
        return cells_missing(self.test, rate, self.seed + 1)


def _stays(job: Job, plan: Plan) -> Found:
    """Real stays as one table of the first day, no image: the arms from few known outcomes, a plain baseline beside."""
    size = job.size
    train, test = _icu.split(_icu.first_day(job.folder), job.seed)
    few = train[: size.real_labels]
    truth = np.array([int(r.labels[_icu.DEATH]) for r in test])
    trained = _pretrained(_Data(train, few, test, truth, job.seed), job, plan)
    found = Found({"masked number's error, stays": masked_error(trained, test, job.seed, image=False)})
    for arm in STAYS:
        bundle = _tuned(arm, trained, few, job.rate[arm], job, plan)
        found.arms[f"stays: {arm}"] = auc_of(truth, said(bundle, test, _icu.DEATH))
    found.arms["stays: logistic, mean fill and what was measured"] = auc_of(truth, _icu.logistic(few, test, (TABLE,)))
    return found


def _pretrained(data: _Data, job: Job, plan: Plan) -> FusionBundle:
    """The system's first stage on the people without labels; the heads are drawn for the task that comes."""
    import torch

    from fabrica.systems import load_system

    system, pool = load_system("tip"), data.pool
    settings = replace(system.settings["cohort"], steps=job.size.steps)
    if job.what == "stays":  # outcomes are what fine-tuning learns from, here they are hidden
        pool = [r.updated(labels={_icu.DEATH: Absent.WITHHELD}) for r in pool]
        settings = replace(settings, categories=(), tasks={_icu.DEATH: 2}, steps=job.size.real_steps, image_size=8)
    torch.manual_seed(job.seed)
    bundle: FusionBundle = system.build(settings, [*pool, *data.few])
    if job.what == "others":
        order = np.random.default_rng(job.seed).permutation(len(pool))
        pool = [r.updated(items={**r.items, TABLE: pool[i].items[TABLE]}) for r, i in zip(pool, order, strict=True)]
    _fit(bundle, system.stages(settings, bundle)[:1], pool, job, plan)
    return bundle


def _tuned(arm: str, trained: FusionBundle, rows: Sequence[Record], rate: float, job: Job, plan: Plan) -> FusionBundle:
    """An arm fine-tuned on labelled rows: the same steps, batch and schedule for each."""
    import copy

    import torch

    from fabrica.models.fusion_bundle import FusionBundle
    from fabrica.objectives.multitask import Tasks
    from fabrica.systems import load_system

    torch.manual_seed(job.seed)
    if arm == TIP:
        bundle = FusionBundle(copy.deepcopy(trained.model), trained.collate)
    elif arm == ALONE:
        fresh = type(trained.model).from_json(trained.model.to_json())
        bundle = FusionBundle(fresh, trained.collate)  # type: ignore[arg-type]
    else:
        bundle = _mlp((TABLE,) if arm == MLP else (TABLE, IMAGE), rows, trained.collate.targets[0])
    preset = load_system("tip").settings["cohort"]
    schedule = Schedule(job.size.fine_steps, preset.fine_batch, rate, weight_decay=preset.weight_decay)
    loss = Tasks(trained.collate.targets, bundle.fields, of="answer")
    _fit(bundle, (Stage("finetune", bundle.collate, {"tasks": loss}, schedule),), rows, job, plan)
    return bundle


def _mlp(fields: Sequence[str], rows: Sequence[Record], task: str) -> FusionBundle:
    """The strong baseline: an MLP on the table with the training mean in every hole, beside an image net or not."""
    from fabrica.encode.collate import Collate, Use
    from fabrica.models.field_tower import Inputs, field_body, field_tower
    from fabrica.models.fusion_bundle import FusionBundle
    from fabrica.models.parallel import Parallel
    from fabrica.models.task_heads import Heads

    inputs = Inputs((64, 64), flags=False, image_size=48)
    towers, uses = {}, {}
    for name in fields:
        body, encode = field_body(name, rows, (name,), inputs)
        towers[name], uses[name] = field_tower(body, 64), Use((name,), encode)
    return FusionBundle(Parallel(towers, 64, Heads({task: 2}, 64, (64,))), Collate(uses, targets=(task,)))


def _fit(bundle: FusionBundle, stages: Sequence[Stage], rows: Sequence[Record], job: Job, plan: Plan) -> None:
    from fabrica.train import InMemory, fit

    held = InMemory.of(rows, bundle.collate)
    with tempfile.TemporaryDirectory() as out:
        fit(bundle, stages, held, out, seed=job.seed, device=plan.device, save_every=0)
    bundle.model.to("cpu").eval()


def _subsets(bundle: FusionBundle, data: _Data, size: Size) -> list[list[Any]]:
    from fabrica.evaluate.subsets import plain, subset_table

    some, truth = data.test[:750], data.truth[:750].astype(np.float64)
    lines = subset_table(
        partial(said, bundle), some, (IMAGE, TABLE), weighted, truth, seed=data.seed, count=size.resamples
    )
    return plain(lines)


def _protocols(trained: FusionBundle, data: _Data, job: Job, plan: Plan) -> dict[str, Any]:
    """Half of the columns gone, whole, in labelled part and test alike."""
    from fabrica.evaluate.missing import Whole, remove_cells
    from fabrica.phantom.cohort import NAMES

    order = importance(data.few)
    rules = {"random": Whole(0.5), "most important": Whole(0.5, order), "least important": Whole(0.5, order[::-1])}
    made: dict[str, Any] = {}
    for name, rule in rules.items():
        rows, test = (remove_cells(r, TABLE, rule(NAMES, len(r), job.seed)) for r in (data.few, data.test))
        made[f"half of the columns gone, {name}"] = {
            arm: round(auc_of(data.truth, said(_tuned(arm, trained, rows, job.rate[arm], job, plan), test)), 4)
            for arm in (TIP, JOINT)
        }
    return made


# ---------------------------------------------------------------- the verdict


def _proof(
    size: Size, parts: Sequence[Found], rate: Mapping[str, float], tuned: Sequence[Any], left_out: str = ""
) -> Proof:
    arms: dict[str, list[float]] = {}
    subsets: dict[str, Any] = {}
    details: dict[str, Any] = {"rates": dict(rate), "tuning": dict(zip(map(str, size.tuning), tuned, strict=True))}
    for found in parts:
        for name, value in found.arms.items():
            arms.setdefault(name, []).append(value)
        details |= found.details
        subsets |= found.subsets
    seeds, grid = ", ".join(map(str, size.tuning)), ", ".join(f"{r:g}" for r in size.grid)
    rates = f"its rate chosen from {grid} on seed {seeds} at 50 % missing" if tuned else "rates fixed, none tuned"
    on_stays = "" if left_out else "; real: PhysioNet 2012, first-day tables of 2,390 stays, no image"
    return Proof(
        "tip", "Pre-training on image and table together beats training from few labels, more so the more is missing.",
        f"phantom: {size.unlabelled:,} people without labels, {size.labels} with, {size.test:,} tested; image 48 x 48, "
        f"8 numbers and 4 categories{on_stays}",
        "AUC after fine-tuning; cells removed at random in labelled part and test",
        {k: tuple(v) for k, v in arms.items()}, _claims(arms), _controls(arms), size.seeds, 0.0,
        f"Every arm: {size.fine_steps} steps of 32 rows on the same labelled people, {rates}. TIP alone sees the "
        f"people without labels. Interval: Student's t over seeds. {left_out or _on_stays(size, arms)}",
        {**details, "subsets": subsets},
    )  # fmt: skip


def _on_stays(size: Size, arms: Mapping[str, Sequence[float]]) -> str:
    """What the real stays say, without a bar: the sheet has none."""
    from fabrica.evaluate.bootstrap import paired_seeds

    gaps = {base: paired_seeds(arms[f"stays: {TIP}"], arms[f"stays: {base}"]) for base in STAYS[1:]}
    told = "; ".join(f"minus {base} {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]" for base, d in gaps.items())
    return (
        f"Real stays, {size.real_labels} known outcomes, masked cells alone in pre-training, rates of the phantom: TIP "
        f"{float(np.mean(arms[f'stays: {TIP}'])):.3f}, {told}."
    )


def _claims(arms: Mapping[str, Sequence[float]]) -> tuple[Claim, ...]:
    from fabrica.evaluate.bootstrap import paired_seeds

    def worst(name: str, bar: str, least: float, value: Mapping[str, Sequence[float]]) -> Claim:
        """Against the baseline that TIP is least ahead of."""
        differences = [paired_seeds(value[TIP], value[base]) for base in BASES]
        d = min(differences, key=lambda i: i.value)
        shown = all(i.value >= least and i.low > 0 for i in differences)
        return Claim(name, bar, d.value, (d.low, d.high), shown)

    def at(rate: float) -> dict[str, Sequence[float]]:
        return {arm: arms[f"{arm}, {rate:.0%} missing"] for arm in ARMS}

    width = [(b - a) / (RATES[-1] - RATES[0]) / 2 for a, b in pairwise(RATES)]
    area = {
        arm: [
            float(sum(w * (at(a)[arm][i] + at(b)[arm][i]) for w, (a, b) in zip(width, pairwise(RATES), strict=True)))
            for i in range(len(at(0.0)[arm]))
        ]
        for arm in ARMS
    }
    with_image, without = (arms[f"masked number's error {n} the image"] for n in ("with", "without"))
    gain, pairs = paired_seeds(without, with_image), arms["matching, balanced accuracy"]
    return (
        *(worst(f"{rate:.0%} missing", f"TIP - every baseline >= {BETTER}, intervals above 0", BETTER, at(rate))
          for rate in RATES[1:]),
        worst("area", "area under AUC against missing rate: TIP - every baseline > 0, intervals above 0", 0.0, area),
        Claim("masked cells", f"error with the image <= {CELL} of the variance on every seed",
              float(np.mean(with_image)), (min(with_image), max(with_image)), max(with_image) <= CELL),
        Claim("image helps", f"error without - with the image >= {WITHOUT}, interval above 0", gain.value,
              (gain.low, gain.high), gain.value >= WITHOUT and gain.low > 0),
        Claim("matching", f"balanced accuracy >= {MATCH} on every seed", float(np.mean(pairs)),
              (min(pairs), max(pairs)), min(pairs) >= MATCH),
    )  # fmt: skip


def _controls(arms: Mapping[str, Sequence[float]]) -> tuple[Claim, ...]:
    """Where images and tables belonged to different people in pre-training, nothing can be matched."""
    found = arms.get("matching, pre-trained on others' tables", ())
    if not found:
        return ()
    far = [v - 0.5 for v in found]
    return (
        Claim("others' tables", f"matching within {CHANCE} of chance", float(np.mean(far)), (min(far), max(far)),
              max(map(abs, far)) <= CHANCE),
    )  # fmt: skip
