"""What Med3D's proof trains: phantom sets, encoders co-trained on them, a strong new head; and real hippocampi."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.proofs import Plan
from fabrica.types import Item, Origin, Record

if TYPE_CHECKING:
    from fabrica.models.dense_bundle import DenseBundle

SCRATCH, EIGHT, ONE, MERGED, SHUFFLED = (
    "scratch", "eight sets, a decoder each", "one set", "eight sets, labels merged", "eight sets, weights shuffled"
)  # fmt: skip
ARMS = (SCRATCH, EIGHT, ONE, MERGED, SHUFFLED)
TARGET = {"target": ("background", "pancreas")}
REAL = "msd_hippocampus"
PARTS = {1: "anterior", 2: "posterior"}
DICE = 4.0  # weight of soft Dice in fine-tuning, every arm: less, and all call everything background for 30 steps
BOX = (40, 56, 40)  # voxels of 1 mm: holds every hippocampus of the folder


@dataclass(frozen=True, slots=True)
class Size:
    """How much, the same for every arm: cases a set, co-training steps; target cases, steps, steps between looks.
    `few` seeds for the arms that are reported only, `real_seeds` (of `seeds`) also split the real volumes."""

    seeds: tuple[int, ...] = (10, 11, 12, 13, 14)
    few: tuple[int, ...] = (10, 11)
    tuning: tuple[int, ...] = (100,)
    real_seeds: tuple[int, ...] = (10, 11)
    cases: int = 40
    cotrain: int = 300
    target: int = 8
    test: int = 20
    steps: int = 150
    look: int = 5
    batch: int = 4
    real_steps: int = 200
    real_test: int = 32


@dataclass(frozen=True, slots=True)
class Job:
    """One part: `what` it does with an arm of a seed ("encode", "adapt", or "real" for its real volumes); `place` holds
    the encoders of all; the `rates` to try; the `folder` of real volumes."""

    what: str
    arm: str
    seed: int
    size: Size
    place: str
    rates: tuple[float, ...] = ()
    folder: str = ""

    @property
    def kept(self) -> Path:
        """Where the arm's encoder of this seed stands."""
        return Path(self.place) / str(self.seed) / self.arm.replace(" ", "_").replace(",", "")

    @property
    def weights(self) -> str:
        """The folder to start from; "" = random weights."""
        return "" if self.arm == SCRATCH else str(self.kept)


def part(job: Job, plan: Plan) -> dict[str, Any]:
    """What one part finds."""
    return {"encode": encode, "adapt": adapted, "real": volumes}[job.what](job, plan)


def encode(job: Job, plan: Plan) -> dict[str, Any]:
    """Co-train an arm's encoder; with eight sets also what it learned, how it was routed, and its shuffled twin."""
    from fabrica.phantom import bodies

    pretrained(bodies.sets(job.size.cases, job.seed), job, plan)
    if job.arm != EIGHT:
        return {}
    weights = str(job.kept)
    _shuffled(job.kept, job.seed).save_pretrained(replace(job, arm=SHUFFLED).kept)
    return {"routing": routing(weights, job.seed), "co-training": learned(weights, job.seed)}


def adapted(job: Job, plan: Plan) -> dict[str, Any]:
    """Rate -> Dice on the test at every look."""
    train, test = target(job.size, job.seed)
    return {"curves": {f"{rate:g}": adapt(train, test, job, plan, rate)[1] for rate in job.rates}}


def target(size: Size, seed: int) -> tuple[list[Record], list[Record]]:
    """The ninth contrast with an organ that no set labelled: cases to learn from, cases to test."""
    from fabrica.phantom import bodies

    how: dict[str, Any] = {"organs": (bodies.NEW,), "contrast": bodies.NINTH, "source": "target"}
    return bodies.records(size.target, seed, **how), bodies.records(size.test, seed, start=10_000, **how)


def pretrained(records: Sequence[Record], job: Job, plan: Plan) -> None:
    """Co-train an encoder on what the job's arm may see of `records`; the same number of steps for all."""
    mine = [r for r in records if job.arm != ONE or r.groups["source"] == "set0"]
    changes: dict[str, Any] = {"decoders": "merged"} if job.arm == MERGED else {}
    bundle, _ = fitted(mine, job.seed, plan, steps=job.size.cotrain, **changes)
    bundle.save_pretrained(job.kept)


def _shuffled(source: Path, seed: int) -> DenseBundle:
    """The weights of eight sets, each tensor's numbers in a random order."""
    import torch

    from fabrica.models.dense_bundle import DenseBundle

    bundle = DenseBundle.from_pretrained(source)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in bundle.model.net_.parameters():
            p.copy_(p.flatten()[torch.randperm(p.numel(), generator=draw)].view_as(p))
    return bundle


def fitted(
    records: list[Record], seed: int, plan: Plan, *, watch: Any = None, every: int = 0, **changes: Any
) -> tuple[DenseBundle, list[float]]:
    """The tiny preset with changes, trained; what `watch` said of the model every so many steps."""
    import torch

    from fabrica.systems import load_system
    from fabrica.train import InMemory, fit

    system = load_system("med3d")
    settings = replace(system.settings["tiny"], **changes)
    torch.manual_seed(seed)
    bundle: DenseBundle = system.build(settings, records)
    looks: list[float] = []

    def look(done: int, total: int | None, what: str) -> None:
        if every and done % every == 0:
            looks.append(watch(bundle))
            bundle.model.train()

    held = InMemory.of(records, bundle.collate, mix_by="source")
    with tempfile.TemporaryDirectory() as out:
        stages = system.stages(settings, bundle)
        fit(bundle, stages, held, out, seed=seed, device=plan.device, save_every=0, progress=look)
    bundle.model.to("cpu").eval()
    return bundle, looks


def adapt(
    train: list[Record], test: list[Record], job: Job, plan: Plan, rate: float
) -> tuple[DenseBundle, list[float]]:
    """A strong new head on the encoder of the job's arm, and its Dice on the test along the way."""
    size = job.size
    return fitted(
        train, job.seed, plan, watch=lambda bundle: dice(bundle, test), every=size.look, sets=TARGET, head="strong",
        weights=job.weights, lr=rate, dice=DICE, batch=size.batch, steps=size.steps,
    )  # fmt: skip


def dice(bundle: DenseBundle, records: Sequence[Record], head: int = 0) -> float:
    """Mean Dice of a head's one organ over volumes of the grid's own size."""
    import torch

    from fabrica.models.bundle import evaluating, to_device

    truth = np.stack([r.regions[0].data for r in records])
    field = bundle.collate.still().only("image")(records, 0).fields["image"]
    with evaluating(bundle.model):
        device = next(bundle.model.parameters()).device
        heads = torch.full((len(records),), head, device=device)
        said = bundle.model.see(to_device(field, device), index=heads)[0].logits.argmax(1).cpu().numpy() == 1
    return float(np.mean([2 * (a & b).sum() / max(1, a.sum() + b.sum()) for a, b in zip(said, truth, strict=True)]))


def learned(weights: str, seed: int) -> list[float]:
    """Dice of every set's own decoder on six new volumes of its set: whether co-training learned anything."""
    from fabrica.models.dense_bundle import DenseBundle

    bundle = DenseBundle.from_pretrained(weights)
    return [dice(bundle, _of_set(number, 6, seed, 10_000), number) for number in range(8)]


def routing(weights: str, seed: int) -> dict[str, float]:
    """Of every set alone: the smallest norm of the encoder's gradient, the largest of a foreign decoder's."""
    import torch

    from fabrica.models.dense_bundle import DenseBundle
    from fabrica.objectives.by_domain import ByDomain

    bundle = DenseBundle.from_pretrained(weights)
    own, foreign = [], [0.0]
    for number in range(8):
        bundle.model.zero_grad(set_to_none=True)
        batch = bundle.collate(_of_set(number, 2, seed), 0)
        ByDomain()(bundle.model, batch).total.backward()  # type: ignore[no-untyped-call]
        grads = {n: p.grad for n, p in bundle.model.named_parameters() if p.grad is not None}
        own.append(float(torch.stack([g.norm() for n, g in grads.items() if n.startswith("net.encoder.")]).norm()))
        foreign += [float(g.norm()) for n, g in grads.items()
                    if n.startswith("net.heads.") and not n.startswith(f"net.heads.set{number}.")]  # fmt: skip
    return {"encoder": min(own), "foreign decoder": max(foreign)}


def _of_set(number: int, count: int, seed: int, start: int = 0) -> list[Record]:
    from fabrica.phantom import bodies

    return bodies.records(
        count, seed, organs=(bodies.labelled(number),), contrast=number, source=f"set{number}", start=start
    )


# ---------------------------------------------------------------- real volumes


def hippocampi(folder: Path) -> list[Record]:
    """The pairs of the folder: a volume and its two parts."""
    from fabrica.sources.nifti import load
    from fabrica.sources.scribbles import masks

    made = []
    for path in sorted((folder / "images").glob("*.nii.gz")):
        volume, label = load(path), load(folder / "labels" / path.name)
        name = path.name.removesuffix(".nii.gz")
        origin = Origin(REAL, path.name, "", "CC-BY-SA-4.0")
        item = Item("volume", volume.array, origin, affine=volume.affine)
        regions = masks(label.array, PARTS, origin, role="volume")
        made.append(Record(name, name, {"source": "target"}, {"volume": (item,)}, regions))
    return made


def volumes(job: Job, plan: Plan) -> dict[str, Any]:
    """A few real volumes to learn from with the job's arm; beside scratch two shapes that look at no image; subjects
    of test in no other part."""
    from fabrica.encode.masks import MaskTarget
    from fabrica.evaluate.segment import summary, table

    records, size = hippocampi(Path(job.folder)), job.size
    order = np.random.default_rng(job.seed).permutation(len(records))
    train = [records[i] for i in order[: size.target]]
    test = [records[i] for i in order[-size.real_test :]]
    others = [records[i] for i in order[: -size.real_test]]
    space = MaskTarget(("background", *PARTS.values()))
    judge = partial(table, test, target=space, roles=("volume",), mm=_mm)
    bundle, _ = fitted(
        train, job.seed, plan, sets={"target": space.classes}, head="strong", weights=job.weights, dice=DICE, size=BOX,
        lr=job.rates[0], batch=2, steps=size.real_steps,
    )  # fmt: skip
    found = {job.arm: summary(judge(partial(_answer, bundle)))}
    shapes = ((f"mean shape of the {size.target}", train), ("mean shape of all others", others))
    for name, seen in shapes if job.arm == SCRATCH else ():
        found[f"{name}, no image"] = summary(judge(partial(_placed, mean_shape(seen, space))))
    return found


def _answer(bundle: DenseBundle, record: Record) -> NDArray[np.int64]:
    shares = bundle.segment(record, overlap=None)
    assert shares is not None
    return np.asarray(shares.argmax(0), np.int64)


def _mm(record: Record) -> tuple[float, ...]:
    from fabrica.encode.grid import GridEncode

    item = record.first("volume")
    assert item is not None
    return GridEncode((1, 1, 1)).mm(item)


def mean_shape(records: Sequence[Record], space: Any) -> NDArray[np.int64]:
    """The label most frequent at each place of volumes laid centre on centre: what one can say without an image."""
    from fabrica.encode.grid import centred

    labels = [centred(space.own(r, ("volume",))[0][None], BOX)[0] for r in records]
    counts = np.stack([sum((m == c).astype(np.int32) for m in labels) for c in range(len(space.classes))])
    return np.asarray(counts.argmax(0), np.int64)


def _placed(shape: NDArray[np.int64], record: Record) -> NDArray[np.int64]:
    from fabrica.encode.grid import centred

    item = record.first("volume")
    assert item is not None
    return np.asarray(centred(shape[None], item.array().shape)[0])
