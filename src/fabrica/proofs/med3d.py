"""Med3D: an encoder co-trained on eight sets against scratch on a new organ in a new contrast; how fast, how high."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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

# Bars of sheet S81, fixed before any run of the reported seeds; rates are chosen in the run itself on the tuning seeds.
FASTER, NOT_BELOW, NEAR = 0.5, -0.02, 0.95
REAL = "msd_hippocampus"
SCRATCH, EIGHT, ONE, MERGED, SHUFFLED = (
    "scratch", "eight sets, a decoder each", "one set", "eight sets, labels merged", "eight sets, weights shuffled"
)  # fmt: skip
ARMS = (SCRATCH, EIGHT, ONE, MERGED, SHUFFLED)
TARGET = {"target": ("background", "pancreas")}
PARTS = {1: "anterior", 2: "posterior"}
RATES = (2e-3, 5e-3, 1e-2)
UNTUNED = 5e-3


@dataclass(frozen=True, slots=True)
class Size:
    """How much, the same for every arm: cases a set, co-training steps; target cases, steps, steps between looks."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    tuning: tuple[int, ...] = (100, 101)
    real_seeds: tuple[int, ...] = (0, 1, 2)
    cases: int = 40
    cotrain: int = 250
    target: int = 8
    test: int = 24
    steps: int = 150
    look: int = 10
    batch: int = 4
    real_steps: int = 120
    real_test: int = 32
    arms: tuple[str, ...] = ARMS


@dataclass(frozen=True, slots=True)
class Job:
    """One seed: `what` is "phantom" (all arms), "rates" (scratch and eight sets at every rate) or "real"."""

    what: str
    seed: int
    size: Size
    rates: Mapping[str, float]
    folder: str = ""


def run(plan: Plan) -> Proof:
    """Dice on test volumes along fine-tuning, for every arm and seed."""
    size = Size()
    if plan.quick:
        size = Size(seeds=(0, 1, 2), tuning=(), real_seeds=(), cotrain=150, arms=(SCRATCH, EIGHT, SHUFFLED))
    if plan.full:
        size = Size(seeds=tuple(range(10)), cases=60, cotrain=4000, steps=2000, look=50, real_steps=4000, real_test=60)
    rates, tried = tuned(size, plan)
    folder = real(REAL)
    jobs = [Job("phantom", s, size, rates) for s in size.seeds]
    if folder is not None:
        jobs += [Job("real", s, size, rates, str(folder)) for s in size.real_seeds]
    return _proof(size, jobs, spread(part, jobs, plan), folder is not None, tried, rates)


def tuned(size: Size, plan: Plan) -> tuple[dict[str, float], dict[str, float]]:
    """The best of three rates for scratch and for pretrained arms, by final Dice on the tuning seeds."""
    best = dict.fromkeys(ARMS, UNTUNED)
    found = spread(part, [Job("rates", s, size, {}) for s in size.tuning], plan, "tuning")
    tried = {name: float(np.mean([f[name] for f in found])) for name in (found[0] if found else ())}
    for arm in (SCRATCH, EIGHT) if found else ():
        rate = max(RATES, key=lambda r: tried[f"{arm}, rate {r:g}"])
        best |= {SCRATCH: rate} if arm == SCRATCH else {a: rate for a in ARMS if a != SCRATCH}
    return best, tried


def part(job: Job, plan: Plan) -> dict[str, Any]:
    """What one job finds."""
    return {"phantom": _phantom, "rates": _rates, "real": _real}[job.what](job, plan)


# ---------------------------------------------------------------- the phantom


def _phantom(job: Job, plan: Plan) -> dict[str, Any]:
    """Every arm's Dice at every look, and how gradients were routed."""
    train, test = _target(job.size, job.seed)
    found: dict[str, Any] = {"curves": {}}
    with tempfile.TemporaryDirectory() as place:
        for arm in job.size.arms:
            weights = pretrained(arm, job.size, job.seed, plan, Path(place)) if arm != SCRATCH else ""
            if arm == EIGHT:
                found["routing"] = routing(weights, job.size, job.seed)
            _, curve = adapt(train, test, weights, job, plan, rate=job.rates[arm])
            found["curves"][arm] = curve
    return found


def _rates(job: Job, plan: Plan) -> dict[str, float]:
    train, test = _target(job.size, job.seed)
    found = {}
    with tempfile.TemporaryDirectory() as place:
        weights = pretrained(EIGHT, job.size, job.seed, plan, Path(place))
        for arm in (SCRATCH, EIGHT):
            for rate in RATES:
                _, curve = adapt(train, test, weights if arm == EIGHT else "", job, plan, rate=rate)
                found[f"{arm}, rate {rate:g}"] = final(curve)
    return found


def _target(size: Size, seed: int) -> tuple[list[Record], list[Record]]:
    """The ninth contrast with an organ that no set labelled."""
    from fabrica.phantom import bodies

    how: dict[str, Any] = {"organs": (bodies.NEW,), "contrast": 8, "source": "target"}
    return bodies.records(size.target, seed, **how), bodies.records(size.test, seed, start=10_000, **how)


def pretrained(arm: str, size: Size, seed: int, plan: Plan, place: Path) -> str:
    """The folder of an encoder co-trained on what an arm may see; the same number of steps for all."""
    import torch

    from fabrica.models.dense_bundle import DenseBundle
    from fabrica.phantom import bodies

    folder = place / arm.replace(" ", "_").replace(",", "")
    if arm == SHUFFLED:  # the weights of eight sets, each tensor's numbers in a random order
        source = place / EIGHT.replace(" ", "_").replace(",", "")
        bundle = DenseBundle.from_pretrained(source)
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in bundle.model.net_.parameters():
                p.copy_(p.flatten()[torch.randperm(p.numel(), generator=draw)].view_as(p))
        return str(bundle.save_pretrained(folder))
    records = bodies.sets(size.cases, seed)
    if arm == ONE:
        records = [r for r in records if r.groups["source"] == "set0"]
    changes: dict[str, Any] = {"decoders": "merged"} if arm == MERGED else {}
    bundle, _ = _fit(records, seed, plan, steps=size.cotrain, **changes)
    return str(bundle.save_pretrained(folder))


def _fit(
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
    train: list[Record], test: list[Record], weights: str, job: Job, plan: Plan, *, rate: float
) -> tuple[DenseBundle, list[float]]:
    """A strong new head on the encoder of `weights` ("" = random), and its Dice on the test along the way."""
    from fabrica.models.bundle import evaluating

    truth = np.stack([r.regions[0].data for r in test])

    def watch(bundle: DenseBundle) -> float:
        field = bundle.collate.still().only("image")(test, 0).fields["image"]
        with evaluating(bundle.model):
            said = bundle.model.see(field)[0].logits.argmax(1).cpu().numpy() == 1
        return float(np.mean([2 * (a & b).sum() / max(1, a.sum() + b.sum()) for a, b in zip(said, truth, strict=True)]))

    size = job.size
    return _fit(
        train, job.seed, plan, watch=watch, every=size.look, sets=TARGET, head="strong", weights=weights, lr=rate,
        dice=1.0, batch=size.batch, steps=size.steps,
    )  # fmt: skip


def final(curve: Sequence[float]) -> float:
    """Where a curve ends: the mean of its last three looks."""
    return float(np.mean(curve[-3:]))


def routing(weights: str, size: Size, seed: int) -> dict[str, float]:
    """Of every set alone: the smallest norm of the encoder's gradient, the largest of a foreign decoder's."""
    import torch

    from fabrica.models.dense_bundle import DenseBundle
    from fabrica.objectives.by_domain import ByDomain
    from fabrica.phantom import bodies

    bundle = DenseBundle.from_pretrained(weights)
    own, foreign = [], [0.0]
    for number in range(8):
        records = bodies.records(2, seed, organs=(bodies.labelled(number),), contrast=number, source=f"set{number}")
        bundle.model.zero_grad(set_to_none=True)
        ByDomain()(bundle.model, bundle.collate(records, 0)).total.backward()  # type: ignore[no-untyped-call]
        grads = {n: p.grad for n, p in bundle.model.named_parameters() if p.grad is not None}
        own.append(float(torch.stack([g.norm() for n, g in grads.items() if n.startswith("net.encoder.")]).norm()))
        foreign += [float(g.norm()) for n, g in grads.items()
                    if n.startswith("net.heads.") and not n.startswith(f"net.heads.set{number}.")]  # fmt: skip
    return {"encoder": min(own), "foreign decoder": max(foreign)}


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


def _real(job: Job, plan: Plan) -> dict[str, Any]:
    """Eight volumes to learn from: scratch, an encoder of phantom sets, and two shapes that look at no image."""
    from functools import partial

    from fabrica.encode.masks import MaskTarget
    from fabrica.evaluate.segment import summary, table

    records = hippocampi(Path(job.folder))
    order = np.random.default_rng(job.seed).permutation(len(records))
    train = [records[i] for i in order[: job.size.target]]
    test = [records[i] for i in order[-job.size.real_test :]]
    others = [records[i] for i in order[: -job.size.real_test]]
    target = MaskTarget(("background", *PARTS.values()))
    judge = partial(table, test, target=target, roles=("volume",), mm=_mm)
    found = {}
    with tempfile.TemporaryDirectory() as place:
        for arm in (SCRATCH, EIGHT):
            weights = pretrained(EIGHT, job.size, job.seed, plan, Path(place)) if arm == EIGHT else ""
            bundle, _ = _fit(
                train, job.seed, plan, sets={"target": target.classes}, head="strong", weights=weights, dice=1.0,
                size=(40, 56, 40), lr=job.rates[arm], batch=2, steps=job.size.real_steps,
            )  # fmt: skip
            found[arm] = summary(judge(partial(_answer, bundle)))
    for name, seen in (("mean shape of the 8, no image", train), ("mean shape of all others, no image", others)):
        found[name] = summary(judge(partial(_placed, mean_shape(seen, target))))
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


def mean_shape(records: Sequence[Record], target: Any) -> NDArray[np.int64]:
    """The label most frequent at each place of volumes laid centre on centre: what one can say without an image."""
    from fabrica.encode.grid import centred

    labels = [centred(target.own(r, ("volume",))[0][None], (40, 56, 40))[0] for r in records]
    counts = np.stack([sum((m == c).astype(np.int32) for m in labels) for c in range(len(target.classes))])
    return np.asarray(counts.argmax(0), np.int64)


def _placed(shape: NDArray[np.int64], record: Record) -> NDArray[np.int64]:
    from fabrica.encode.grid import centred

    item = record.first("volume")
    assert item is not None
    return np.asarray(centred(shape[None], item.array().shape)[0])


# ---------------------------------------------------------------- the verdict


def _proof(
    size: Size, jobs: Sequence[Job], found: Sequence[Mapping[str, Any]], has_real: bool, tried: Mapping[str, float],
    rates: Mapping[str, float],
) -> Proof:  # fmt: skip
    phantom = [f for j, f in zip(jobs, found, strict=True) if j.what == "phantom"]
    hippocampus = [f for j, f in zip(jobs, found, strict=True) if j.what == "real"]
    ends = {arm: [final(f["curves"][arm]) for f in phantom] for arm in size.arms}
    steps = {arm: [reached(f["curves"][arm], NEAR * end, size) for f, end in zip(phantom, ends[SCRATCH], strict=True)]
             for arm in size.arms}  # fmt: skip
    arms = {f"{arm}, final Dice": tuple(v) for arm, v in ends.items()}
    arms |= {f"{arm}, steps to {NEAR:.0%} of scratch's end": tuple(v) for arm, v in steps.items()}
    for name in hippocampus[0] if hippocampus else ():
        for structure in PARTS.values():
            arms[f"real: {name}, Dice {structure}"] = tuple(f[name][structure]["dice"] for f in hippocampus)
    details = {
        "curves": [f["curves"] for f in phantom], "routing": [f["routing"] for f in phantom], "tuning": dict(tried),
        "rates": dict(rates), "separate decoders less": _less(ends), "real": list(hippocampus),
    }  # fmt: skip
    return Proof(
        "med3d", "Co-training on sets with different organs gives an encoder that converges faster and ends no lower.",
        f"phantom: synthetic bodies of 24^3, eight contrasts with one organ labelled each ({size.cases} cases a set); "
        f"target: a ninth contrast, a new organ, {size.target} cases" + ("; real: MSD hippocampus, 8 cases"
        if hippocampus else ""), "Dice of the new organ on test volumes; steps to 95 % of where scratch ends",
        arms, _claims(ends, steps, phantom), _controls(steps), size.seeds, 0.0, _notes(arms, has_real, size), details,
    )  # fmt: skip


def reached(curve: Sequence[float], goal: float, size: Size) -> float:
    """Steps until a curve stays at the goal; one look more than there were where it never does."""
    from fabrica.evaluate.segment import steps_to

    looks = [size.look * (i + 1) for i in range(len(curve))]
    return min(steps_to(looks, curve, goal), looks[-1] + size.look)


def _claims(
    ends: Mapping[str, Sequence[float]], steps: Mapping[str, Sequence[float]], phantom: Sequence[Mapping[str, Any]]
) -> tuple[Claim, ...]:
    from fabrica.evaluate.bootstrap import paired_seeds

    ratio = _ratio(steps, EIGHT)
    above = paired_seeds(ends[EIGHT], ends[SCRATCH])
    foreign = max(f["routing"]["foreign decoder"] for f in phantom)
    encoder = min(f["routing"]["encoder"] for f in phantom)
    return (
        Claim("faster", f"steps to {NEAR:.0%} of scratch's final Dice, eight sets / scratch <= {FASTER} (mean)",
              ratio.value, (ratio.low, ratio.high), ratio.value <= FASTER),
        Claim("as high", f"final Dice, eight sets - scratch >= {NOT_BELOW} (mean)", above.value,
              (above.low, above.high), above.value >= NOT_BELOW),
        Claim("routing", "a set alone moves the encoder and no foreign decoder, all eight sets, every seed (effect: "
              "smallest encoder gradient)", encoder, (encoder, encoder), encoder > 0 and foreign == 0.0),
    )  # fmt: skip


def _controls(steps: Mapping[str, Sequence[float]]) -> tuple[Claim, ...]:
    ratio = _ratio(steps, SHUFFLED)
    return (
        Claim("shuffled weights", f"the same numbers in a random order do not halve the steps: ratio > {FASTER}",
              ratio.value, (ratio.low, ratio.high), ratio.value > FASTER),
    )  # fmt: skip


def _ratio(steps: Mapping[str, Sequence[float]], arm: str) -> Any:
    """Mean over seeds of an arm's steps over those of scratch, with its interval."""
    from fabrica.evaluate.bootstrap import paired_seeds

    ratios = [a / b for a, b in zip(steps[arm], steps[SCRATCH], strict=True)]
    return paired_seeds(ratios, [0.0] * len(ratios))


def _less(ends: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Final Dice of a decoder for each set less that of merged labels and of one set, with intervals: reported only."""
    from fabrica.evaluate.bootstrap import paired_seeds

    made = {}
    for other in (MERGED, ONE):
        if other in ends:
            gap = paired_seeds(ends[EIGHT], ends[other])
            made[other] = [gap.value, gap.low, gap.high]
    return made


def _notes(arms: Mapping[str, Sequence[float]], has_real: bool, size: Size) -> str:
    text = (
        "Scratch and pretrained arms: the same target cases, steps, head and looks. "
        + (
            "Each has the best of three rates on seeds 100 and 101 within the run. "
            if size.tuning
            else f"This size chooses no rates: all arms learn at {UNTUNED:g}, which was never tuned. "
        )
        + "An arm that never stays at the goal counts one look more than there were. "
    )
    if not has_real:
        return text + absent(REAL)
    if not size.real_seeds:
        return text + "The quick size leaves the real arm out."
    said = [f"{a.removeprefix('real: ')} {np.mean(v):.2f}" for a, v in arms.items() if a.startswith("real: ")]
    return text + f"Real, {size.target} volumes to learn from, {size.real_test} tested: " + ", ".join(said) + "."
