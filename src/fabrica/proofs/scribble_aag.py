"""Scribbles: gates and a critic of unpaired masks against partial cross-entropy alone, and against whole masks."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.proofs import Plan
from fabrica.proofs.real import absent, real
from fabrica.proofs.spread import spread
from fabrica.types import Claim, Item, Origin, Proof, Record

if TYPE_CHECKING:
    from fabrica.models.dense_bundle import DenseBundle

# Bars of sheet S08, fixed before any run of the reported seeds. Every arm chooses its rate from one grid, in the run
# itself on the tuning seeds.
GAIN, HALVED, THIRD = 0.08, 0.5, 1 / 3
HELPED = 0.02  # what a critic of wrong-class masks may add to partial cross-entropy
REAL = "acdc_scribble_slices"
NAMES = {1: "rv", 2: "myo", 3: "lv"}
PCE, AAG, FULL = "partial cross-entropy", "gates and critic", "whole masks"
PLAIN: Mapping[str, Any] = {"gates": "none", "levels": 0}
WRONG, BALANCED, GATES = (
    "gates and critic of wrong-class masks", "gates, weight of the critic, none of its pull", "gates without critic"
)  # fmt: skip
ARMS: Mapping[str, Mapping[str, Any]] = {
    AAG: {},
    PCE: PLAIN,
    FULL: {**PLAIN, "supervision": "full"},
    WRONG: {},
    BALANCED: {"critic": 1e-9},  # a0 = |L_G| / |L_PCE| still scales the strokes' gradient; the critic's own is nil
    GATES: {"levels": 0},
    "critic without gates": {"gates": "none", "levels": 1},
    "gates, critic of one scale": {"levels": 1},
}
MAIN = (AAG, PCE, FULL)
ALONE = (PCE, FULL, GATES)  # no critic: no masks of other patients either
RATES = (8e-3, 2e-2)
UNTUNED = 8e-3


@dataclass(frozen=True, slots=True)
class Size:
    """How much, the same for every arm: scribbled images, unpaired masks, test images, steps, images a step. `few`:
    other arms and their seeds. `folds` and `real_arms` of the real patients."""

    seeds: tuple[int, ...] = (10, 11, 12, 13, 14)
    few: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {WRONG: (10, 11, 12)})
    tuning: tuple[int, ...] = (100,)
    folds: tuple[int, ...] = (0,)
    real_arms: tuple[str, ...] = (AAG, PCE)
    images: int = 40
    masks: int = 60
    test: int = 60
    steps: int = 250
    batch: int = 12
    real_steps: int = 200
    real_batch: int = 6


@dataclass(frozen=True, slots=True)
class Job:
    """One fit: an arm, at a rate, on a seed of the phantom or a fold of the real patients."""

    arm: str
    seed: int
    size: Size
    rate: float
    folder: str = ""


def run(plan: Plan) -> Proof:
    """Mean Dice of three classes on test images, and the share of distractors called heart, of every arm and seed."""
    size = Size()
    if plan.quick:
        size = Size(seeds=(10, 11), few={WRONG: (10, 11)}, tuning=(), folds=(), steps=120)
    if plan.full:
        seeds = tuple(range(10, 20))
        size = Size(seeds=seeds, few={arm: seeds[:5] for arm in ARMS if arm not in MAIN}, tuning=(100, 101, 102),
                    folds=(0, 1, 2), real_arms=MAIN, steps=2000, real_steps=5000, real_batch=12)  # fmt: skip
    folder = real(REAL)
    best, tried = tuned(size, plan)
    jobs = [Job(arm, s, size, best[arm], str(folder)) for arm in size.real_arms for s in size.folds if folder]
    jobs += [Job(arm, s, size, best[arm]) for arm in MAIN for s in size.seeds]
    jobs += [Job(arm, s, size, best[PCE if arm in ALONE else AAG]) for arm, seeds in size.few.items() for s in seeds]
    jobs.sort(key=lambda job: job.arm in ALONE)  # long ones first
    return _proof(size, jobs, spread(part, jobs, plan), folder is not None, tried)


def tuned(size: Size, plan: Plan) -> tuple[dict[str, float], dict[str, float]]:
    """Each main arm's best rate by mean Dice on the tuning seeds, and what every rate scored."""
    best, tried = dict.fromkeys(MAIN, UNTUNED), dict[str, float]()
    jobs = [Job(arm, s, size, rate) for arm in MAIN for rate in RATES for s in size.tuning]
    found = spread(part, jobs, plan, "tuning")
    for arm in MAIN if jobs else ():
        scores = {rate: float(np.mean([f["dice"] for j, f in zip(jobs, found, strict=True)
                                       if (j.arm, j.rate) == (arm, rate)])) for rate in RATES}  # fmt: skip
        best[arm] = max(scores, key=lambda rate: scores[rate])
        tried |= {f"{arm}, rate {rate:g}": score for rate, score in scores.items()}
    return best, tried


def part(job: Job, plan: Plan) -> dict[str, Any]:
    """What one fit finds."""
    return _real(job, plan) if job.folder else _phantom(job, plan)


# ---------------------------------------------------------------- the phantom


def _phantom(job: Job, plan: Plan) -> dict[str, Any]:
    from fabrica.phantom import hearts

    size, seed = job.size, job.seed
    test = hearts.records(size.test, seed, start=20_000)
    made = [hearts.of(seed, 20_000 + i) for i in range(size.test)]
    blobs, truth = np.stack([h.blobs for h in made]), np.stack([h.labels for h in made])
    bundle, tail = _fit(job, learned(job.arm, size, seed), plan, steps=size.steps, batch=size.batch)
    said = np.stack([answer(bundle, r) for r in test])
    dice = [np.mean([_dice(a == c, b == c) for a, b in zip(said, truth, strict=True)]) for c in NAMES]
    wrong = float((said[blobs] > 0).mean())
    return {"dice": float(np.mean(dice)), "by class": dict(zip(NAMES.values(), map(float, dice), strict=True)),
            "blobs": wrong, **tail}  # fmt: skip


def learned(arm: str, size: Size, seed: int) -> list[Record]:
    """What an arm learns from: the same patients' images with strokes or masks, and masks of other patients."""
    from fabrica.phantom import hearts

    images = hearts.records(size.images, seed, what="full" if arm == FULL else "scribble")
    if arm in ALONE:
        return images
    masks = hearts.records(size.masks, seed, what="mask", start=10_000)
    return images + (hearts.wrong(masks, seed) if arm == WRONG else masks)


def _fit(
    job: Job, records: list[Record], plan: Plan, *, steps: int, batch: int, **changes: Any
) -> tuple[DenseBundle, dict[str, float]]:
    """The tiny preset with an arm's changes, trained; how the critic stood at the end. `batch` images a step in every
    arm: a critic's batch holds as many masks beside them."""
    import torch

    from fabrica.systems import load_system
    from fabrica.train import InMemory, fit
    from fabrica.train.log import read

    system = load_system("scribble_aag")
    arm, seed = job.arm, job.seed
    told = {"lr": job.rate, "steps": steps, "batch": batch if arm in ALONE else 2 * batch}
    settings = replace(system.settings["tiny"], **told, **ARMS[arm], **changes)
    torch.manual_seed(seed)
    bundle: DenseBundle = system.build(settings, records)
    held = InMemory.of(records, bundle.collate, mix_by="part")
    with tempfile.TemporaryDirectory() as out:
        fit(bundle, system.stages(settings, bundle), held, out, seed=seed, device=plan.device, save_every=0)
        last = read(Path(out) / "train.jsonl")[-20:]
    bundle.model.to("cpu").eval()
    tail = {k.partition("/")[2]: float(np.mean([x[k] for x in last])) for k in last[-1] if k.startswith("critic/")}
    return bundle, tail


def answer(bundle: DenseBundle, record: Record) -> NDArray[np.int64]:
    """The label map of a record on its own grid, from the centre that the net was trained on."""
    shares = bundle.segment(record, overlap=None)
    assert shares is not None
    return np.asarray(shares.argmax(0), np.int64)


def _dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


# ---------------------------------------------------------------- real patients


def acdc(folder: Path) -> list[Record]:
    """The slices of the folder, each with its masks, its expert's strokes, its patient and its volume."""
    from fabrica.sources import Ref
    from fabrica.sources.npz import load
    from fabrica.sources.scribbles import masks, strokes

    made = []
    for path in sorted(folder.glob("*.npz")):
        patient, frame, _, number = path.stem.split("_")
        held = load(Ref(path, path.name, REAL))
        origin = Origin(REAL, path.name, "", "CC-BY-NC-SA-4.0")
        drawn = strokes(held["scribble"], {0: "background", **NAMES}, origin, unknown=4)
        made.append(
            Record(path.stem, patient, {"volume": f"{patient}_{frame}", "slice": number, "modality": "mr"},
                   {"image": (Item("image", held["image"], origin),)}, masks(held["label"], NAMES, origin) + drawn)
        )  # fmt: skip
    return made


def folds(records: Sequence[Record], fold: int) -> tuple[list[Record], list[Record], list[Record]]:
    """Patients in turn: scribbled, those who give masks alone, and the test; no patient in two."""
    patients = sorted({r.subject for r in records})
    order = np.random.default_rng(fold).permutation(len(patients))
    cut = (round(0.4 * len(patients)), round(0.7 * len(patients)))
    parts = [{patients[i] for i in order[a:b]} for a, b in ((0, cut[0]), cut, (cut[1], None))]
    one, two, three = ([r for r in records if r.subject in p] for p in parts)
    return one, two, three


def _real(job: Job, plan: Plan) -> dict[str, Any]:
    from fabrica.encode.masks import MaskTarget
    from fabrica.evaluate.segment import summary, table

    scribbled, others, test = folds(acdc(Path(job.folder)), job.seed)
    train = [_marked(r, job.arm != FULL) for r in scribbled]
    if job.arm == AAG:
        train += [_masks_alone(r) for r in others]
    bundle, tail = _fit(job, train, plan, steps=job.size.real_steps, batch=job.size.real_batch, size=(96, 96))
    target = MaskTarget(("background", *NAMES.values()))
    judge = partial(table, test, target=target, volume="volume", order="slice")
    found = {"scores": summary(judge(lambda r: answer(bundle, r))), **tail}
    if job.arm == PCE:
        shape = mean_shape([_centred(r, target) for r in others])
        found["atlas"] = summary(judge(lambda r: _placed(shape, r)))
    return found


def _marked(record: Record, strokes: bool) -> Record:
    kept = tuple(r for r in record.regions if r.label.startswith("scribble/") == strokes)
    return record.updated(regions=kept, groups={**record.groups, "part": "scribble" if strokes else "full"})


def _masks_alone(record: Record) -> Record:
    kept = tuple(r for r in record.regions if not r.label.startswith("scribble/"))
    return record.without("image").updated(regions=kept, groups={**record.groups, "part": "mask"})


def _centred(record: Record, target: Any) -> NDArray[np.int64]:
    from fabrica.encode.grid import centred

    own = target.own(record, ("image",))
    return np.asarray(centred(own[0][None], (96, 96))[0])


def mean_shape(labels: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The image-free baseline: the label most frequent at each place among the patients who give masks."""
    stack = np.stack([[(m == c) for c in range(len(NAMES) + 1)] for m in labels])
    return np.asarray(stack.mean(0).argmax(0), np.int64)


def _placed(shape: NDArray[np.int64], record: Record) -> NDArray[np.int64]:
    from fabrica.encode.grid import centred

    item = record.first("image")
    assert item is not None
    return np.asarray(centred(shape[None], item.array().shape[:2])[0])


# ---------------------------------------------------------------- the verdict


def _proof(
    size: Size, jobs: Sequence[Job], found: Sequence[Mapping[str, Any]], has_real: bool, tried: Mapping[str, float]
) -> Proof:  # fmt: skip
    dice: dict[str, list[float]] = {}
    blobs: dict[str, list[float]] = {}
    truth: dict[str, list[Mapping[str, Any]]] = {}
    for job, got in zip(jobs, found, strict=True):
        if job.folder:
            truth.setdefault(job.arm, []).append(got)
        else:
            dice.setdefault(job.arm, []).append(got["dice"])
            blobs.setdefault(job.arm, []).append(got["blobs"])
    arms = {f"{arm}": tuple(v) for arm, v in dice.items()}
    arms |= {f"{arm}, share of distractors called heart": tuple(blobs[arm]) for arm in MAIN}
    for arm, results in truth.items():
        arms[f"real: {arm}, Dice of volumes"] = tuple(r["scores"]["mean"]["dice"] for r in results)
        if arm == PCE:
            arms["real: mean shape of the masks, no image"] = tuple(r["atlas"]["mean"]["dice"] for r in results)
    details: dict[str, Any] = {
        "by class": {j.arm: g["by class"] for j, g in zip(jobs, found, strict=True) if not j.folder
                     and j.seed == size.seeds[0]},
        "critic": {f"{j.arm}, seed {j.seed}": {k: g[k] for k in ("gap", "area_spread")}
                   for j, g in zip(jobs, found, strict=True) if "gap" in g and not j.folder},
        "real": {arm: [r["scores"] for r in results] for arm, results in truth.items()},
        "tuning": dict(tried),
        "rates": {j.arm: j.rate for j in jobs},
        "the critic's own pull": _pull(dice),
    }  # fmt: skip
    return Proof(
        "scribble_aag", "With unpaired masks, scribbles come near full supervision; gates and critic beat partial "
        "cross-entropy.", f"phantom: synthetic short-axis hearts with distractors, {size.images} scribbled images (5 % "
        f"of each class), {size.masks} unpaired masks, {size.test} test images"
        + ("; real: ACDC slices with expert scribbles, 10 patients, split by patient" if truth else ""),
        "mean Dice of RV, myocardium and LV", arms, _claims(dice, blobs), _controls(dice), size.seeds, 0.0,
        _notes(arms, has_real, bool(tried), size), details,
    )  # fmt: skip


def _claims(dice: Mapping[str, Sequence[float]], blobs: Mapping[str, Sequence[float]]) -> tuple[Claim, ...]:
    from fabrica.evaluate.bootstrap import paired_seeds

    aag, pce, full = (dice[a] for a in MAIN)
    gain = paired_seeds(aag, pce)
    less = paired_seeds([HALVED * b for b in blobs[PCE]], blobs[AAG])
    third = paired_seeds(aag, [p + THIRD * (f - p) for p, f in zip(pce, full, strict=True)])
    return (
        Claim("scribbles", f"gates and critic - partial cross-entropy >= {GAIN} Dice, interval above 0", gain.value,
              (gain.low, gain.high), gain.value >= GAIN and gain.low > 0),
        Claim("distractors", "distractor area called heart at most half of that of partial cross-entropy (effect: half "
              "of its share minus ours)", less.value, (less.low, less.high), less.value >= 0),
        Claim("gap", "at least a third of the gap to whole masks is closed (effect: Dice above that third)",
              third.value, (third.low, third.high), third.value >= 0),
    )  # fmt: skip


def _controls(dice: Mapping[str, Sequence[float]]) -> tuple[Claim, ...]:
    from fabrica.evaluate.bootstrap import paired_seeds

    if WRONG not in dice:
        return ()
    wrong = paired_seeds(dice[WRONG], dice[PCE][: len(dice[WRONG])])
    return (
        Claim("wrong-class masks", f"a critic of masks with classes exchanged adds at most {HELPED} Dice to partial "
              "cross-entropy", wrong.value, (wrong.low, wrong.high), wrong.value <= HELPED),
    )  # fmt: skip


def _pull(dice: Mapping[str, Sequence[float]]) -> list[float]:
    """Dice of gates and critic less that of the same net without the critic's gradient, interval: reported only."""
    from fabrica.evaluate.bootstrap import paired_seeds

    if len(dice.get(BALANCED, ())) < 2:
        return []
    gap = paired_seeds(dice[AAG][: len(dice[BALANCED])], dice[BALANCED])
    return [gap.value, gap.low, gap.high]


def _notes(arms: Mapping[str, Sequence[float]], has_real: bool, tuned: bool, size: Size) -> str:
    text = "Every arm: the same images, images a step and steps; " + (
        f"the best of {len(RATES)} rates on seeds {', '.join(map(str, size.tuning))} within the run. Other arms than "
        "the three of the bars run on fewer seeds, at the rate of gates and critic (without a critic: of partial "
        "cross-entropy). "
        if tuned
        else f"this size chooses no rates: all learn at {UNTUNED:g}. "
    )
    if not has_real:
        return text + absent(REAL)
    trivial = arms.get("real: mean shape of the masks, no image")
    if trivial is None:
        return text + "The quick size leaves the real arm out."
    ours = {a: np.mean(v) for a, v in arms.items() if a.startswith("real: ") and "Dice of volumes" in a}
    said = ", ".join(f"{a.removeprefix('real: ').split(',')[0]} {v:.2f}" for a, v in ours.items())
    return text + (
        f"Real (4 scribbled patients, 3 who give masks, 3 tested; such folds: {len(size.folds)}; {size.real_steps} "
        f"steps at the phantom's rates): {said}; the image-free mean shape {np.mean(trivial):.2f}."
    )
