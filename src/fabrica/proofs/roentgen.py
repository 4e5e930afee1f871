"""RoentGen's claims: fine-tuning brings a general generator to chest X-rays that follow the text, help a classifier and
teach the text encoder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.proofs import Plan
from fabrica.proofs._roentgen import (
    BASE_RATE,
    BOTH,
    EXTRACTOR,
    GAMMA,
    JUDGE,
    PARTS,
    RATE,
    REAL,
    SAID,
    SHUFFLED,
    TEXT_RATE,
    TRAINS,
    UNET,
    UNTOUCHED,
    WORLD,
    Job,
    Size,
    verdict,
)  # fmt: skip
from fabrica.proofs.real import real
from fabrica.proofs.spread import spread
from fabrica.types import Item, Origin, Proof, Record, Rights

if TYPE_CHECKING:
    from fabrica.evaluate.generation import Set
    from fabrica.evaluate.picture_readers import Reader
    from fabrica.models.latent_bundle import LatentBundle


def run(plan: Plan) -> Proof:
    """Base and readers first, then every arm and seed side by side."""
    size = Size()
    if plan.quick:
        size = Size(
            (0,), 1, train=400, test=80, tools=400, base_steps=120, steps=120, tool_steps=150, use_steps=60,
            variety=(4, 4), sampling=10, real_seeds=(),
        )  # fmt: skip
    if plan.full:
        size = Size(
            (20, 21, 22, 23, 24), 5, train=8000, test=2048, tools=8000, base_steps=8000, steps=10_000, batch=64,
            tool_steps=3000, use_steps=600, variety=(20, 10), sampling=50, real_seeds=(20, 21, 22), real_steps=10_000,
            net={"widths": (64, 128), "width": 96, "depth": 3},
        )  # fmt: skip
    found = real(REAL) if size.real_seeds else None
    with tempfile.TemporaryDirectory() as place:
        first = [Job("base", 7, size, place), *(Job(n, 7, size) for n in ("extractor", "judge"))]
        first += [Job("real readers", s, size, data=str(found)) for s in size.real_seeds if found]
        base, extractor, judge, *theirs = spread(part, first, plan, "readers and base")
        tools, seeds = (extractor, judge), size.real_seeds if found else ()
        jobs = [Job("real", s, size, base, two, str(found)) for s, two in zip(seeds, theirs, strict=True)]
        jobs += [Job(arm, s, size, base, tools) for arm in (BOTH, SHUFFLED) for s in size.seeds]
        jobs += [Job(UNET, s, size, base, tools) for s in size.seeds[: size.unbarred]]
        jobs += [Job(UNTOUCHED, s, size, base, tools) for s in size.seeds]
        parts = spread(part, jobs, plan, "arms")
    return verdict(size, jobs, parts, found is not None)


def part(job: Job, plan: Plan) -> Any:
    """What one part finds: a folder, a reader or two, or numbers by name."""
    kinds = {"base": _base, "extractor": _reader, "judge": _reader, "real readers": _readers, "real": _real}
    return kinds.get(job.what, _arm)(job, plan)


# ---------------------------------------------------------------- what is there before


def _base(job: Job, plan: Plan) -> str:
    """The general generator: shapes and their captions. It has the words of the chest, and has seen none of them."""
    import torch

    from fabrica.phantom import radiographs
    from fabrica.systems import load_system
    from fabrica.train import InMemory, fit

    size, system = job.size, load_system("roentgen")
    shapes = radiographs.shapes(size.train, job.seed)
    known = [*shapes, *radiographs.records(size.train, WORLD), *(_told(s) for s in SAID * 8)]
    options = {**_options(size), "lr": BASE_RATE, "text_rate": 1.0}
    settings = replace(system.settings["tiny"], **options, steps=size.base_steps)
    torch.manual_seed(job.seed)
    bundle = system.build(settings, known)
    with tempfile.TemporaryDirectory() as out:
        held = InMemory.of(shapes, bundle.collate)
        fit(bundle, system.stages(settings, bundle), held, out, seed=job.seed, device=plan.device, save_every=0)
    bundle.model.to("cpu")
    return str(bundle.save_pretrained(Path(job.folder) / "base"))


def _options(size: Size) -> dict[str, Any]:
    return {"length": 12, "batch": size.batch, "lr": RATE, "text_rate": TEXT_RATE, "snr_gamma": GAMMA, **size.net}


def _told(text: str) -> Record:
    return Record(text, text, items={"impression": (Item("text", text, Origin("words", text, "", "CC0-1.0")),)},
                  rights=Rights("CC0-1.0"))  # fmt: skip


def _reader(job: Job, plan: Plan) -> Reader:
    """A reader of chests taught on patients of its own."""
    from fabrica.evaluate.picture_readers import learn
    from fabrica.phantom import radiographs

    world = EXTRACTOR if job.what == "extractor" else JUDGE
    images, truth = radiographs.table(radiographs.chests(job.size.tools, world))
    subjects = [f"chest-{world}-{i}" for i in range(job.size.tools)]
    return learn(
        images, truth, labels=radiographs.LABELS, subjects=subjects, name=job.what, steps=job.size.tool_steps,
        seed=world, device=plan.device,
    )  # fmt: skip


# ---------------------------------------------------------------- an arm


def _arm(job: Job, plan: Plan) -> dict[str, Any]:
    """Train an arm on a seed's patients, let it draw new prompts, and measure what it drew."""
    from fabrica.evaluate.metrics import accuracy
    from fabrica.evaluate.picture_readers import apart
    from fabrica.phantom import radiographs

    size, (extractor, judge) = job.size, job.tools
    train = radiographs.records(size.train, job.seed)
    test = radiographs.chests(size.test, job.seed, start=100_000)
    asked = radiographs.chests(size.test, job.seed, start=200_000)  # whose sentences are the prompts
    apart(generator=[r.subject for r in train], extractor=extractor.subjects, judge=judge.subjects)
    bundle = adapted(_shuffled(train, job.seed) if job.what == SHUFFLED else train, job, plan)
    made = _drawn(bundle, [p.sentence for p in asked], job, plan)
    (images, truth), told = radiographs.table(test), radiographs.table(asked)[1]
    shown = [int(p.finding != "") for p in asked]
    scores = judge.scores(made)
    at = np.flatnonzero(shown)
    found = _measured(made, images, told[:, :3], scores[:, :3], radiographs.FINDINGS, extractor, judge.name)
    found["side"] = float(accuracy(told[at, 3], scores[at, 3] > 0.5))
    found["probe"] = synonyms(bundle)
    if job.what in (BOTH, UNTOUCHED):
        found["ms_ssim"] = _variety(bundle, job, plan)
    if job.what == BOTH:
        found["memory"] = _memory(extractor, made, np.stack([r.items["image"][0].array() for r in train]), images)
        few, labels = radiographs.table(radiographs.chests(size.few, job.seed))
        sets: list[Set] = [(few, labels[:, :3]), (made, told[:, :3]), (images, truth[:, :3])]
        found["use"] = _use(sets, radiographs.FINDINGS, size)
        true = radiographs.table(asked)[0]  # the pictures that the prompts were of: seen by nothing
        best = _measured(true, images, told[:, :3], judge.scores(true)[:, :3], radiographs.FINDINGS, extractor, "")
        found |= {"floor": best["fid"], "ceiling": best["auroc"][0]}
    return found


def adapted(train: list[Record], job: Job, plan: Plan) -> LatentBundle:
    """The base, trained in the parts of the arm; an error where anything else moved."""
    import torch

    from fabrica.systems import load_system
    from fabrica.train import InMemory
    from fabrica.train.ledger import curriculum

    system = load_system("roentgen")
    arm = BOTH if job.what == "real" else job.what
    settings = replace(
        system.settings["tiny"], **_options(job.size), base=job.folder, train=TRAINS[arm],
        steps=job.size.real_steps if job.data else job.size.steps,
    )  # fmt: skip
    torch.manual_seed(job.seed)
    bundle: LatentBundle = system.build(settings, train)
    stages = system.stages(settings, bundle)
    if stages:
        with tempfile.TemporaryDirectory() as out:
            data = {"adapt": InMemory.of(train, bundle.collate)}
            curriculum(bundle, stages, data, out, parts=PARTS, seed=job.seed, device=plan.device)
    bundle.model.to("cpu").eval()
    return bundle


def _shuffled(rows: list[Record], seed: int) -> list[Record]:
    """Each picture with the sentence of another patient."""
    at = np.random.default_rng([seed, 26]).permutation(len(rows))
    told = [rows[j].items["impression"] for j in at]
    return [r.updated(items={**r.items, "impression": t}) for r, t in zip(rows, told, strict=True)]


def _drawn(bundle: LatentBundle, prompts: Sequence[str], job: Job, plan: Plan, start: int = 0) -> NDArray[np.uint8]:
    seeds = [job.seed * 1_000_000 + start + i for i in range(len(prompts))]
    bundle.model.to(plan.device)
    made = bundle.generate(prompts, seeds=seeds, guidance=job.size.guidance, steps=job.size.sampling)
    bundle.model.to("cpu")
    return made


def _measured(
    made: NDArray[Any], images: NDArray[Any], told: NDArray[np.float32], scores: NDArray[np.float32],
    labels: Sequence[str], extractor: Reader, judge: str,
) -> dict[str, Any]:  # fmt: skip
    """FID and KID against real images, and what a judge reads of the prompts."""
    from fabrica.evaluate.generation import fid, prompt_auroc

    near = fid(extractor.features(images), extractor.features(made), extractor=extractor.name, judge=judge)
    said = prompt_auroc(scores, told, labels)
    auroc = [said.auroc.value, said.auroc.low, said.auroc.high]
    return {"fid": near.fid, "kid": near.kid, "distance": str(near), "auroc": auroc, "by finding": dict(said.by_label)}


def _variety(bundle: LatentBundle, job: Job, plan: Plan) -> float:
    from fabrica.evaluate.generation import ms_ssim_within_prompt
    from fabrica.phantom import radiographs

    many, times = job.size.variety
    some = dict.fromkeys(p.sentence for p in radiographs.chests(10 * many, job.seed, start=300_000))
    prompts = [p for p in list(some)[:many] for _ in range(times)]
    return ms_ssim_within_prompt(_drawn(bundle, prompts, job, plan, start=500_000), prompts)


def _memory(extractor: Reader, made: NDArray[Any], train: NDArray[Any], held: NDArray[Any]) -> dict[str, float]:
    from dataclasses import asdict

    from fabrica.evaluate.generation import memorisation

    return asdict(memorisation(*(extractor.features(x) for x in (made, train, held))))


def _use(sets: Sequence[Set], labels: Sequence[str], size: Size) -> dict[str, float]:
    """AUROC of a classifier of few real images, of these and the generated ones, of the generated ones alone."""
    from fabrica.evaluate.generation import utility
    from fabrica.evaluate.picture_readers import learn

    def fitted(images: NDArray[Any], truth: NDArray[np.float32], seed: int) -> Any:
        return learn(images, truth, labels=labels, steps=size.use_steps, seed=seed).scores

    def plain(x: NDArray[Any]) -> NDArray[np.float32]:
        return (x / 255 if x.dtype == np.uint8 else x).astype(np.float32)

    few, made, test = ((plain(images), truth) for images, truth in sets)
    return utility(fitted, few, made, test)


def synonyms(bundle: LatentBundle) -> dict[str, float]:
    """What the text part knows: AUROC of a linear probe of its states for each finding, on sentences whose name of the
    finding the probe has not seen (four folds, one name of each finding left out)."""
    from fabrica.evaluate.metrics import auc
    from fabrica.evaluate.probes import linear_probe
    from fabrica.phantom import radiographs

    rows = [(finding, name, t.format(size=size, side=side, name=name))
            for finding, names in radiographs.NAMES.items() for name in names for t in radiographs.TEMPLATES
            for side in radiographs.SIDES for size in ("small", "large")]  # fmt: skip
    states = bundle.embed([_told(text) for _, _, text in rows], "text", unit=False)[1]
    truth = np.array([radiographs.FINDINGS.index(finding) for finding, _, _ in rows])
    names = np.array([name for _, name, _ in rows])
    found: dict[str, list[float]] = {f: [] for f in radiographs.FINDINGS}
    for fold in range(4):
        out = np.isin(names, [options[fold] for options in radiographs.NAMES.values()])
        said = linear_probe(states[~out], truth[~out], states[out], classes=3, subjects=names[~out], seed=0)
        for j, finding in enumerate(radiographs.FINDINGS):
            found[finding].append(float(auc(truth[out] == j, said[:, j])))
    return {f: float(np.mean(v)) for f, v in found.items()}


# ---------------------------------------------------------------- real X-rays


def pneumonia(folder: Path) -> tuple[list[Record], list[Record]]:
    """Training and validation records of PneumoniaMNIST, the label said as a sentence; validation images that stand in
    training, too, are left out."""
    from fabrica.sources import Ref
    from fabrica.sources.npz import load

    path = next(folder.glob("*.npz"))
    arrays = load(Ref(path, path.name, REAL))
    parts: list[list[Record]] = []
    seen: set[bytes] = set()
    for split in ("train", "val"):
        rows, before = [], set(seen)
        labels = arrays[f"{split}_labels"][:, 0]
        for i, (image, label) in enumerate(zip(arrays[f"{split}_images"], labels, strict=True)):
            seen.add(image.tobytes())
            if image.tobytes() in before:
                continue
            origin = Origin(REAL, f"{split}/{i}", "", "CC-BY-4.0")
            items = {"image": (Item("image", image, origin),),
                     "impression": (Item("text", SAID[int(label)], origin),)}  # fmt: skip
            key = f"{REAL}-{split}-{i}"
            rows.append(Record(key, key, {}, items, labels={"pneumonia": float(label)}, rights=Rights("CC-BY-4.0")))
        parts.append(rows)
    return parts[0], parts[1]


def _parts(job: Job) -> dict[str, list[Record]]:
    """Images of generator, extractor and judge, and the test's, no subject in two of them."""
    from fabrica.evaluate.picture_readers import apart

    size, (train, test) = job.size, pneumonia(Path(job.data))
    order = np.random.default_rng([job.seed, 5]).permutation(len(train))
    names, n = ("generator", "extractor", "judge"), size.real_train
    sets = {name: [train[i] for i in order[k * n : (k + 1) * n]] for k, name in enumerate(names)}
    sets["test"] = test[: size.test]
    apart(**{name: [r.subject for r in rows] for name, rows in sets.items()})
    return sets


def _readers(job: Job, plan: Plan) -> tuple[Reader, Reader]:
    """Extractor and judge of real images, each taught on images of its own."""
    from fabrica.evaluate.picture_readers import learn

    sets = _parts(job)
    extractor, judge = (
        learn(*_table(sets[name]), labels=("pneumonia",), name=name, steps=job.size.tool_steps, seed=k,
              device=plan.device)
        for k, name in enumerate(("extractor", "judge"))
    )  # fmt: skip
    return extractor, judge


def _real(job: Job, plan: Plan) -> dict[str, Any]:
    """The same code on PneumoniaMNIST: readers, generator and test on images of their own."""
    sets, (extractor, judge) = _parts(job), job.tools
    images, truth = _table(sets["test"])
    prompts = [SAID[int(v)] for v in truth[:, 0]]
    found: dict[str, Any] = {"judge on real": float(_auc(truth, judge.scores(images)))}
    for arm in (UNTOUCHED, BOTH):
        one = replace(job, what=arm)
        made = _drawn(adapted(sets["generator"], one, plan), prompts, one, plan)
        found[arm] = _measured(made, images, truth, judge.scores(made), ("pneumonia",), extractor, judge.name)
    few = _table(sets["generator"][: job.size.real_few])
    found["use"] = _use([few, (made, truth), (images, truth)], ("pneumonia",), job.size)
    found["memory"] = _memory(extractor, made, _table(sets["generator"])[0], images)
    return found


def _auc(truth: NDArray[np.float32], scores: NDArray[np.float32]) -> float:
    from fabrica.evaluate.metrics import auc

    return float(auc(truth[:, 0], scores[:, 0]))


def _table(rows: Sequence[Record]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Pictures (n, 32, 32) uint8 as the generator sees them, and labels (n, 1)."""
    from fabrica.encode.image import ImageEncode

    sized, rng = ImageEncode(32, 1, (0.0,), (1.0,)), np.random.default_rng(0)
    images = np.stack([sized(r.items["image"][0], rng)[0] for r in rows])
    labels = np.array([[float(r.labels["pneumonia"])] for r in rows], np.float32)
    return np.asarray((images * 255).round(), np.uint8), labels
