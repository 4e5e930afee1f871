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

from fabrica.proofs import Plan
from fabrica.proofs.spread import spread
from fabrica.types import Claim, Proof, Record, Schedule, Stage

if TYPE_CHECKING:
    from fabrica.models.fusion_bundle import FusionBundle

TIP, ALONE, MLP, JOINT = "TIP", "same net, not pre-trained", "MLP, mean fill, table", "MLP, mean fill, table and image"
ARMS = (TIP, ALONE, MLP, JOINT)
BASES = ARMS[1:]
RATES = (0.0, 0.5, 0.7)  # of cells removed at random, in the labelled part and in the test
# Bars of sheet S86, fixed before any run of seeds 0..
BETTER, CELL, WITHOUT, MATCH, CHANCE = 0.02, 0.5, 0.05, 0.75, 0.05
TABLE, IMAGE, TASK = "table", "image", "case"


@dataclass(frozen=True, slots=True)
class Size:
    """How much, the same for every arm: people, steps, the learning rates that each arm chooses from on `tuning`."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    few: tuple[int, ...] = (0,)
    tuning: tuple[int, ...] = (100, 101)
    grid: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    unlabelled: int = 3000
    labels: int = 100
    test: int = 1500
    steps: int = 500
    fine_steps: int = 150
    resamples: int = 300


@dataclass(frozen=True, slots=True)
class Job:
    """One seed; `rate` by arm is its learning rate, none: every rate of the grid; `shuffled` pairs images with other
    people's tables in pre-training."""

    seed: int
    size: Size
    rate: Mapping[str, float] = field(default_factory=dict)
    shuffled: bool = False


@dataclass(slots=True)
class Found:
    """Scores by arm, and tables for the details."""

    arms: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


def run(plan: Plan) -> Proof:
    """AUC of arms fine-tuned on 100 labels with 0, 50 and 70 % of cells missing; what pre-training learned of cells."""
    size = Size()
    if plan.quick:
        size = Size(seeds=(0, 1), few=(), tuning=(), test=800, steps=350)
    if plan.full:
        size = Size(seeds=tuple(range(10)), few=(0, 1, 2), unlabelled=20_000, test=5000, steps=10_000)
    tuned = spread(tune, [Job(s, size) for s in size.tuning], plan, "tuning")
    rate = {
        arm: max(size.grid, key=lambda r, a=arm: sum(t[f"{a}, lr {r:g}"] for t in tuned)) if tuned else DEFAULT[arm]  # type: ignore[misc]
        for arm in ARMS
    }
    jobs = [Job(s, size, rate) for s in size.seeds] + [Job(s, size, rate, True) for s in size.few]
    return _proof(size, jobs, spread(part, jobs, plan), rate, tuned)


DEFAULT = {TIP: 1e-3, ALONE: 3e-3, MLP: 3e-3, JOINT: 3e-3}  # of --quick, which tunes nothing


# ---------------------------------------------------------------- parts


def tune(job: Job, plan: Plan) -> dict[str, float]:
    """AUC of every arm at every rate of the grid, half of the cells missing."""
    data = _Data.of(job)
    trained = _pretrained(data, job, plan)
    made = {}
    for rate in job.size.grid:
        for arm in ARMS:
            bundle = _tuned(arm, trained, data.labelled(0.5), rate, job, plan)
            made[f"{arm}, lr {rate:g}"] = round(_auc(data.truth, said(bundle, data.tested(0.5))), 4)
    return made


def part(job: Job, plan: Plan) -> Found:
    """Every arm at every missing rate, and what the pre-trained net knows of cells and pairs."""
    data, found = _Data.of(job), Found()
    trained = _pretrained(data, job, plan)
    if job.shuffled:
        found.arms["matching, pre-trained on others' tables"] = matched(trained, data.test, job.seed)
        return found
    found.arms["matching, balanced accuracy"] = matched(trained, data.test, job.seed)
    for name, image in (("with", True), ("without", False)):
        found.arms[f"masked number's error {name} the image"] = masked_error(trained, data.test, job.seed, image)
    for rate in RATES:
        rows, test = data.labelled(rate), data.tested(rate)
        for arm in ARMS:
            bundle = _tuned(arm, trained, rows, job.rate[arm], job, plan)
            found.arms[f"{arm}, {rate:.0%} missing"] = _auc(data.truth, said(bundle, test))
            if job.seed == job.size.seeds[0] and arm == TIP and rate == 0:
                found.details["subsets, TIP"] = _subsets(bundle, data, job.size)
    if job.seed == job.size.seeds[0] and not plan.quick:
        found.details |= _protocols(trained, data, job, plan)
    return found


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


def cells_missing(rows: Sequence[Record], rate: float, seed: int) -> list[Record]:
    """The rows with a share of the table's cells removed at random, one left at least."""
    from fabrica.evaluate.missing import Mcar, remove_cells
    from fabrica.phantom.cohort import NAMES

    return remove_cells(rows, TABLE, Mcar(rate, leave=1)(NAMES, len(rows), seed)) if rate else list(rows)


def _pretrained(data: _Data, job: Job, plan: Plan) -> FusionBundle:
    """The system's first stage on the people without labels; the heads are drawn for the task that comes."""
    import torch

    from fabrica.systems import load_system

    system = load_system("tip")
    settings = replace(system.settings["cohort"], steps=job.size.steps)
    torch.manual_seed(job.seed)
    bundle: FusionBundle = system.build(settings, data.pool + data.few)
    pool = data.pool
    if job.shuffled:
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
        bundle = _mlp((TABLE,) if arm == MLP else (TABLE, IMAGE), rows)
    preset = load_system("tip").settings["cohort"]
    schedule = Schedule(job.size.fine_steps, preset.fine_batch, rate, weight_decay=preset.weight_decay)
    loss = Tasks((TASK,), bundle.fields, of="answer")
    _fit(bundle, (Stage("finetune", bundle.collate, {"tasks": loss}, schedule),), rows, job, plan)
    return bundle


def _mlp(fields: Sequence[str], rows: Sequence[Record]) -> FusionBundle:
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
    return FusionBundle(Parallel(towers, 64, Heads({TASK: 2}, 64, (64,))), Collate(uses, targets=(TASK,)))


def _fit(bundle: FusionBundle, stages: Sequence[Stage], rows: Sequence[Record], job: Job, plan: Plan) -> None:
    from fabrica.train import InMemory, fit

    held = InMemory.of(rows, bundle.collate)
    with tempfile.TemporaryDirectory() as out:
        fit(bundle, stages, held, out, seed=job.seed, device=plan.device, save_every=0)
    bundle.model.to("cpu").eval()


# ---------------------------------------------------------------- what is measured


def said(bundle: FusionBundle, rows: Sequence[Record]) -> NDArray[np.float32]:
    """(n,) probability of a case."""
    probability: NDArray[np.float32] = bundle.answer(rows, batch=500).tasks[TASK][:, 1]
    return probability


def matched(bundle: FusionBundle, rows: Sequence[Record], seed: int) -> float:
    """Balanced accuracy of telling people's own tables from other people's, at the prior of training (1 in 3)."""
    import torch

    def score(given: Sequence[Record]) -> NDArray[np.float64]:
        model: Any = bundle.model
        with torch.no_grad():
            fields = bundle.collate.still()(given).fields
            image, seen = model.encode_image(fields[IMAGE])
            tokens, there = model.encode_table(model.cells(fields[TABLE]))
            logits = model.match(model.fuse(tokens, there, image.tokens, seen))
        made: NDArray[np.float64] = (logits[:, 1] - logits[:, 0] + np.log(2)).numpy()
        return made

    shift = 1 + int(np.random.default_rng(seed).integers(len(rows) - 1))
    others = [
        r.updated(items={**r.items, TABLE: rows[(i + shift) % len(rows)].items[TABLE]}) for i, r in enumerate(rows)
    ]
    return float(((score(rows) > 0).mean() + (score(others) <= 0).mean()) / 2)


def masked_error(bundle: FusionBundle, rows: Sequence[Record], seed: int, image: bool) -> float:
    """Mean squared error of hidden numbers in units of the column's variance, half of the columns hidden."""
    import torch

    from fabrica.objectives.masked_table import hidden

    model: Any = bundle.model
    torch.manual_seed(seed)
    with torch.no_grad():
        fields = bundle.collate.still()(rows).fields
        shown, seen = model.encode_image(fields[IMAGE])
        cells = model.cells(fields[TABLE])
        left, asked = hidden(cells, 0.5)
        fused = model.fuse(*model.encode_table(left), shown.tokens, seen if image else torch.zeros_like(seen))
        numbers, _ = model.reconstruct(fused)
        at = asked & (model.table.tokens.size == 0)
        return float((numbers[at] - cells.chunk(2, 1)[0][at]).pow(2).mean())


def _subsets(bundle: FusionBundle, data: _Data, size: Size) -> list[list[Any]]:
    from fabrica.evaluate.missing import subset_grid

    truth = data.truth.astype(np.float64)
    cells = subset_grid(partial(said, bundle), data.test, (IMAGE, TABLE), _metric, truth, count=size.resamples)
    return [["+".join(c.present) or "nothing", *(round(v, 4) for v in (c.value, c.low, c.high))] for c in cells]


def _protocols(trained: FusionBundle, data: _Data, job: Job, plan: Plan) -> dict[str, Any]:
    """Half of the columns gone, whole, in labelled part and test alike; then images gone with the label."""
    from fabrica.evaluate.missing import ByClass, Whole, remove, remove_cells
    from fabrica.phantom.cohort import NAMES

    order = _importance(data.few)
    rules = {"random": Whole(0.5), "most important": Whole(0.5, order), "least important": Whole(0.5, order[::-1])}
    made: dict[str, Any] = {}
    for name, rule in rules.items():
        rows, test = (remove_cells(r, TABLE, rule(NAMES, len(r), job.seed)) for r in (data.few, data.test))
        made[f"half of the columns gone, {name}"] = {
            arm: round(_auc(data.truth, said(_tuned(arm, trained, rows, job.rate[arm], job, plan), test)), 4)
            for arm in (TIP, ALONE, JOINT)
        }
    held = np.array([int(r.labels[TASK]) for r in data.few])
    biased = remove(data.few, ByClass(held, (IMAGE,), {1: 0.8})((IMAGE, TABLE), len(data.few), job.seed))
    rule_of = ByClass(data.truth, (IMAGE,), {1: 0.8})
    tests = {"complete": data.test} | {
        name: remove(data.test, one((IMAGE, TABLE), len(data.test), job.seed))
        for name, one in (("same", rule_of), ("flipped", rule_of.flip()))
    }
    for arm in (TIP, JOINT):
        bundle = _tuned(arm, trained, biased, job.rate[arm], job, plan)
        made[f"images gone from 80 % of labelled cases, {arm}"] = {
            name: round(_auc(data.truth, said(bundle, rows)), 4) for name, rows in tests.items()
        }
    return made


def _importance(rows: Sequence[Record]) -> tuple[str, ...]:
    """Columns by a random forest's importance on the labelled training rows, the most important first."""
    from fabrica.errors import need
    from fabrica.phantom.cohort import NAMES

    need("sklearn", "evaluate")
    from sklearn.ensemble import RandomForestClassifier

    x = np.stack([r.items[TABLE][0].array() for r in rows])
    forest = RandomForestClassifier(100, random_state=0, n_jobs=1).fit(x, [r.labels[TASK] for r in rows])
    return tuple(NAMES[i] for i in np.argsort(-forest.feature_importances_))


def _auc(truth: NDArray[Any], score: NDArray[Any]) -> float:
    from fabrica.evaluate.metrics import auc

    return float(auc(truth, score))


def _metric(columns: Mapping[str, NDArray[Any]], weights: Any) -> Any:
    from fabrica.evaluate.metrics import auc

    return auc(columns["truth"], columns["score"], weights)


# ---------------------------------------------------------------- the verdict


def _proof(
    size: Size, jobs: Sequence[Job], parts: Sequence[Found], rate: Mapping[str, float], tuned: Sequence[Any]
) -> Proof:
    arms: dict[str, list[float]] = {}
    details: dict[str, Any] = {"rates": dict(rate), "tuning": dict(zip(map(str, size.tuning), tuned, strict=True))}
    for found in parts:
        for name, value in found.arms.items():
            arms.setdefault(name, []).append(value)
        details |= found.details
    return Proof(
        "tip", "Pre-training on image and table together beats training from few labels, more so the more is missing.",
        f"phantom: {size.unlabelled:,} people without labels, {size.labels} with, {size.test:,} tested; image 48 x 48, "
        "8 numbers and 4 categories", "AUC after fine-tuning; cells removed at random in labelled part and test",
        {k: tuple(v) for k, v in arms.items()}, _claims(arms), _controls(arms), size.seeds, 0.0,
        f"Every arm: {size.fine_steps} steps of 32 rows on the same labelled people, its rate chosen from "
        f"{', '.join(f'{r:g}' for r in size.grid)} on seeds {', '.join(map(str, size.tuning)) or 'none'} at 50 % "
        "missing. TIP alone sees the people without labels. Interval: Student's t over seeds. No real arm: no open set "
        "of images with tables is at hand.", details,
    )  # fmt: skip


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
