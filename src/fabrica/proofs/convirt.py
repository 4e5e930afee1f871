"""ConVIRT's claim on phantom P1: after contrast with reports a tenth of the labels does as much as all without it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fabrica.proofs import Plan
from fabrica.proofs.spread import spread
from fabrica.types import Claim, Proof, Record, Schedule, Stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fabrica.evaluate.bootstrap import Interval
    from fabrica.models import Bundle
    from fabrica.phantom.p1 import P1Batch

SHARE = 0.1  # of the labels
TEST_SEED = 1000
ALL, TENTH, TEXT, SHUFFLED = (
    "random init, 100 % labels", "random init, 10 % labels", "ConVIRT, 10 % labels", "shuffled reports, 10 % labels",
)  # fmt: skip
PROBE, FLOOR = "linear probe, ConVIRT, 10 %", "linear probe, random features, 10 %"


@dataclass(frozen=True, slots=True)
class Size:
    """How much: images, seeds, steps of pretraining and of fine-tuning (the same for every arm)."""

    seeds: tuple[int, ...] = (0, 1, 2)
    train: int = 3_000
    test: int = 800
    steps: int = 750
    batch: int = 32
    lr: float = 1e-3
    tune_steps: int = 800
    tune_batch: int = 32
    tune_lr: float = 1e-3
    decay: float = 1e-2


def run(plan: Plan) -> Proof:
    """Macro AUC of six findings on one test set, for every arm and seed."""
    size = Size()
    if plan.quick:
        size = Size(train=1_000, test=400, steps=100, tune_steps=60)
    if plan.full:
        size = Size(train=30_000, test=4_000, steps=10_000, batch=128, tune_steps=4_000)
    return prove(size, plan)


def prove(size: Size, plan: Plan, *, test_seed: int = TEST_SEED) -> Proof:
    """The experiment at any size."""
    jobs = [Part(size, start, seed, test_seed) for start in STARTS for seed in size.seeds]
    arms: dict[str, list[NDArray[Any]]] = {}
    for answers in spread(part, jobs, plan):
        for arm, answer in answers.items():
            arms.setdefault(arm, []).append(answer)
    return _proof(size, arms, tested(size, test_seed).labels)


STARTS = {  # how weights begin -> the arms that start from them
    "text": (TEXT, PROBE), "shuffled": (SHUFFLED,), "random": (ALL, TENTH, FLOOR),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """The arms of one start on one seed's data."""

    size: Size
    start: str
    seed: int
    test_seed: int


def tested(size: Size, seed: int) -> P1Batch:
    """The test images, the same for every arm and seed."""
    from fabrica.phantom.p1 import p1

    return p1(size.test, seed)


def part(job: Part, plan: Plan) -> dict[str, NDArray[Any]]:
    """Arm -> answers on the test images. All starts of a seed begin with the same random weights."""
    from fabrica.evaluate.probes import label_fraction
    from fabrica.phantom.p1 import p1

    size, seed, test = job.size, job.seed, list(tested(job.size, job.test_seed).records())
    batch = p1(size.train, seed)
    train = list(batch.records())
    few = [train[i] for i in label_fraction(batch.labels, SHARE, seed=seed)]
    paired = shuffled(train, seed) if job.start == "shuffled" else train
    bundle = pretrained(paired, seed, replace(size, steps=0) if job.start == "random" else size, plan)
    made = {}
    for arm in STARTS[job.start]:
        if arm in (PROBE, FLOOR):
            made[arm] = probed(bundle, few, test, seed)
        else:
            made[arm] = tuned(bundle, train if arm == ALL else few, test, seed, size, plan)
    return made


def pretrained(train: Sequence[Record], seed: int, size: Size, plan: Plan) -> Bundle:
    """The system's tiny preset, trained on images and reports for `size.steps`; 0 leaves its random weights."""
    import torch

    from fabrica.systems import load_system
    from fabrica.train import InMemory, fit

    system = load_system("convirt")
    settings = replace(system.settings["tiny"], steps=max(1, size.steps), batch=size.batch, lr=size.lr)
    torch.manual_seed(seed)
    bundle: Bundle = system.build(settings, train)
    bundle.model.to(memory_format=torch.channels_last)  # the same numbers, a fifth faster on a CPU
    if size.steps:
        held = InMemory.of(train, bundle.collate)
        with tempfile.TemporaryDirectory() as out:
            fit(bundle, system.stages(settings, bundle), held, out, seed=seed, device=plan.device, save_every=0)
    return bundle


def tuned(
    bundle: Bundle, train: Sequence[Record], test: Sequence[Record], seed: int, size: Size, plan: Plan
) -> NDArray[Any]:
    """(n, 6) logits on `test` after fine-tuning all weights of the image tower on the labels of `train`."""
    import torch

    from fabrica.models import classifier
    from fabrica.objectives.labels import Labels
    from fabrica.phantom.p1 import LABELS
    from fabrica.train import InMemory, fit

    torch.manual_seed(seed)
    model = classifier(bundle, "image", LABELS)
    schedule = Schedule(size.tune_steps, size.tune_batch, size.tune_lr, warmup=20, weight_decay=size.decay)
    stage = Stage("tune", model.collate, {"labels": Labels(LABELS)}, schedule)
    held = InMemory.of(train, model.collate)
    with tempfile.TemporaryDirectory() as out:
        fit(model, (stage,), held, out, seed=seed, device=plan.device, save_every=0)
    return model.embed(test, "image", unit=False, batch=200)[1]


def probed(bundle: Bundle, train: Sequence[Record], test: Sequence[Record], seed: int) -> NDArray[Any]:
    """(n, 6) chances of a logistic regression on frozen image features."""
    from fabrica.evaluate.probes import linear_probe
    from fabrica.phantom.p1 import LABELS

    rows = {
        k: bundle.embed(r, "image", what="features", unit=False, batch=200)[1]
        for k, r in (("fit", train), ("test", test))
    }
    truth = [[r.labels[k] for k in LABELS] for r in train]
    return linear_probe(
        rows["fit"], truth, rows["test"], classes=len(LABELS), subjects=[r.subject for r in train], seed=seed
    )


def shuffled(records: Sequence[Record], seed: int) -> list[Record]:
    """The same images and the same reports, each report at another image."""
    order = np.random.default_rng([seed, 7]).permutation(len(records))
    return [
        replace(r, items={**r.items, "report": records[j].items["report"]}) for r, j in zip(records, order, strict=True)
    ]


def _proof(size: Size, arms: dict[str, list[Any]], truth: Any) -> Proof:
    from fabrica.evaluate.metrics import macro_auc

    def gain(a: str, b: str) -> Interval:
        from fabrica.evaluate.bootstrap import paired_seeds_rows

        columns = {k: [{"truth": truth, "score": s} for s in arms[k]] for k in (a, b)}
        return paired_seeds_rows(
            lambda c, w: macro_auc(c["truth"], c["score"], w), columns[a], columns[b], range(len(truth)), count=1000
        )

    few, all_, probe, none = gain(TEXT, TENTH), gain(TEXT, ALL), gain(PROBE, FLOOR), gain(SHUFFLED, TENTH)
    claims = (
        Claim("10 % labels", "ConVIRT - random init >= 0.05, interval above 0", few.value, (few.low, few.high),
              few.value >= 0.05 and few.low > 0),
        Claim("10 % against 100 %", "ConVIRT with 10 % - random init with 100 % >= -0.03, interval above -0.03",
              all_.value, (all_.low, all_.high), all_.low >= -0.03),
        Claim("linear probe", "ConVIRT - random features >= 0.08 at 10 % labels, interval above 0", probe.value,
              (probe.low, probe.high), probe.value >= 0.08 and probe.low > 0),
    )  # fmt: skip
    controls = (
        Claim("shuffled reports", "gain over random init within 0.02 of 0", none.value, (none.low, none.high),
              abs(none.value) < 0.02),
    )  # fmt: skip
    return Proof(
        "convirt", "Contrast with reports cuts the labels that an image encoder needs by about ten.",
        f"phantom: P1, {size.train:,} images with reports, {size.test} test images, 0-3 of 6 findings each",
        "macro AUC over six findings",
        {k: tuple(float(macro_auc(truth, s)) for s in v) for k, v in arms.items()},
        claims, controls, size.seeds, 0.0,
        f"One fine-tuning schedule for every arm: {size.tune_steps} steps of {size.tune_batch}, all weights. Intervals "
        "resample seeds and test images. On the development seed the gain at 10 % of the labels was there without "
        "augmentation in fine-tuning (0.87 against 0.79) and gone with it (0.914 against 0.919): part of what reports "
        "teach here, augmentation teaches as well. Text alone shows little of shape at this size: the words for places "
        "are a shortcut, and negated sentences blur the rest (a linear probe reaches 0.88 on reports without either). "
        "More of the same does not help: on the development seed the probe stays at 0.78 to 0.79 with 1,500 or 4,000 "
        "steps, batches of 32 or 128, temperatures of 0.05, 0.1 or 0.2.",
    )  # fmt: skip
