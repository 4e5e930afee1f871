"""The parts of ProbMed's proof: answerers of planted skill, a trained net that may not know places, two real sets."""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.proofs import Plan
from fabrica.proofs.real import real
from fabrica.types import Item, Origin, Record

if TYPE_CHECKING:
    from fabrica.evaluate.answerers import Say
    from fabrica.evaluate.grouped import Unit, Verdict
    from fabrica.models import Bundle
    from fabrica.systems.probmed import Result, Settings

COARSE = {"modality": 0.94, "organ": 0.76, "abnormality": 0.3, "condition": 0.12, "position": 0.08}
SKILLS = (0.9, 0.7, 0.5, 0.3)
COIN, YES, KNOWS_COARSE, SHY, HEDGE = "coin", "yes 95 %", "coarse, yes-biased", "expert who refuses 55 %", "hedger"
POOLED, KEPT = "net, places pooled away", "net, places kept"
WIDTHS = {POOLED: (16, 32, 48), KEPT: (16, 32, 48, 48, 48, 48)}  # the second ends in one token: places stay
UNLISTED = 0.2  # of the findings that are there
RAD, CONFUSION = "vqa_rad", "mediconfusion"


@dataclass(frozen=True, slots=True)
class Size:
    """How much: images of facts, training and test images of the nets, their steps, resamples."""

    seeds: tuple[int, ...] = (20, 21, 22, 23, 24)
    images: int = 1000
    train: int = 2000
    test: int = 500
    steps: int = 500
    resamples: int = 1000


@dataclass(frozen=True, slots=True)
class Job:
    """One part: `what` is "net" (one arm of a seed), "scripted" (all answerers of a seed) or "real"."""

    what: str
    seed: int
    size: Size
    arm: str = ""


@dataclass(slots=True)
class Found:
    """Units by answerer, verdicts counted, and values by name."""

    units: dict[str, list[Unit]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


def part(job: Job, plan: Plan) -> Found:
    """What one part finds."""
    return {"net": _net, "scripted": _scripted, "real": _real}[job.what](job, plan)


# ---------------------------------------------------------------- scripted answerers


def answerers() -> dict[str, Say]:
    """Every scripted answerer by name."""
    from fabrica.evaluate import answerers as a

    dims = ("modality", "organ", "abnormality", "condition", "position")
    made: dict[str, Say] = {
        COIN: a.coin, YES: a.yes_bias(0.95), KNOWS_COARSE: a.skilled(COARSE, yes=0.9),
        SHY: a.hesitant(a.skilled(dict.fromkeys(dims, 1.0)), 0.55), HEDGE: a.constant("Yes or No"),
    }  # fmt: skip
    return made | {f"skill {s:g}": a.skilled(dict.fromkeys(dims, s)) for s in SKILLS}


def _settings(**changes: Any) -> Settings:
    from fabrica.systems import load_system

    made: Settings = replace(load_system("probmed").settings["tiny"], **changes)
    return made


def _asked(name: str, say: Say, records: Sequence[Record], settings: Settings, seed: int, count: int) -> Result:
    from fabrica.evaluate.answerers import Answerer
    from fabrica.systems.probmed import probe, questions

    keys = {r.id: item.origin.key for r in records if (item := r.first("image")) is not None}
    probes = questions(settings, records)
    with tempfile.TemporaryDirectory() as out:
        model = Answerer(name, say, probes, seed=seed, keys=keys)
        return probe(model, records, Path(out) / "rows.jsonl", settings, probes=probes, cells=False, count=count)


def _scripted(job: Job, plan: Plan) -> Found:
    """Every answerer on a seed's facts; the ceiling where some findings are not listed; order of the answers."""
    from fabrica.evaluate.grouped import units
    from fabrica.phantom.facts import DIMS, facts
    from fabrica.text.yes_no import contains

    found, size, settings = Found(), job.size, _settings(values=DIMS)
    records = facts(size.images, job.seed).records
    for name, say in answerers().items():
        result = _asked(name, say, records, settings, job.seed, 2)
        found.units[name] = list(result.units)
        found.values[f"per question, {name}"] = float(np.mean([v.right for v in result.verdicts]))
        if name in (YES, SHY):
            found.details[name] = _by_image(result)
        if name == HEDGE:
            found.values["hedger, public rule"] = float(
                np.mean([contains("Yes or No", v.first) for v in result.verdicts])
            )
        if name == KNOWS_COARSE:
            mixed = [result.verdicts[i] for i in np.random.default_rng(job.seed).permutation(len(result.verdicts))]
            same = {(u.record, u.dimension): u.all for u in units(mixed)}
            moved = [same[u.record, u.dimension] != u.all for u in result.units]
            found.values["answers moved by order"] = float(sum(moved))
    some = facts(size.images, job.seed + 5000, unlisted=UNLISTED)
    for way in ("absent", "unknown"):
        made = _asked("eyes", _eyes(some.truth), some.records, replace(settings, unlisted=way), job.seed, 2)
        mine = [u.all for u in made.units if u.dimension == "condition"]
        found.values[f"ceiling, unlisted {way}"] = float(np.mean(mine))
    return found


def _by_image(result: Result) -> NDArray[np.float64]:
    """(images, 4): questions right, questions, dimensions all right, dimensions."""
    rows: dict[str, list[float]] = {}
    for v in result.verdicts:
        row = rows.setdefault(v.record, [0.0] * 4)
        row[0], row[1] = row[0] + v.right, row[1] + 1
    for u in result.units:
        rows[u.record][2:] = [rows[u.record][2] + u.all, rows[u.record][3] + 1]
    return np.array(list(rows.values()))


def _eyes(truth: Mapping[str, frozenset[str]]) -> Say:
    """Says what is really there of conditions, whatever is listed; the gold answer elsewhere."""

    def say(probe: Any, draw: object) -> str:
        there = probe.value in truth[probe.record] if probe.dimension == "condition" else probe.gold
        return "Yes" if there else "No"

    return say


# ---------------------------------------------------------------- a trained net


def _net(job: Job, plan: Plan) -> Found:
    """A small net learns the statements of synthetic images; asked of others."""
    from fabrica.evaluate.answerers import known
    from fabrica.phantom.facts import PICTURE_DIMS, SIDE, pictures
    from fabrica.systems.probmed import believed, questions

    settings = _settings(
        dimensions=tuple(PICTURE_DIMS), values=PICTURE_DIMS, widths=WIDTHS[job.arm], image_size=SIDE,
        steps=job.size.steps, lr=1e-2,
    )  # fmt: skip
    bundle = _trained(settings, pictures(job.size.train, job.seed), job.seed, plan)
    test = pictures(job.size.test, job.seed + 1000)
    answers = believed(bundle, test, questions(settings, test))
    result = _asked(job.arm, known(answers), test, settings, job.seed, 2)
    return Found({job.arm: list(result.units)})


def _trained(settings: Settings, records: Sequence[Record], seed: int, plan: Plan) -> Bundle:
    import torch

    from fabrica.curate.language.probing import statements
    from fabrica.systems import load_system
    from fabrica.systems.probmed import dims
    from fabrica.train import InMemory, fit

    system = load_system("probmed")
    train = [r.updated(labels=statements(r, dims(settings))) for r in records]
    torch.manual_seed(seed)
    bundle: Bundle = system.build(settings, train)
    with tempfile.TemporaryDirectory() as out:
        held = InMemory.of(train, bundle.collate)
        fit(bundle, system.stages(settings, bundle), held, out, seed=seed, device=plan.device, save_every=0)
    bundle.model.to("cpu").eval()
    return bundle


# ---------------------------------------------------------------- real sets


def _real(job: Job, plan: Plan) -> Found:
    """VQA-RAD: twins about the modality, and its own yes/no questions by image; MediConfusion: pairs of images."""
    found = Found()
    if (folder := real(RAD)) is not None:
        rows = json.loads((folder / "qa.json").read_text("utf-8"))
        _modality(rows, folder / "images", found, job.size)
        _closed(rows, found, job.size)
    if (folder := real(CONFUSION)) is not None:
        _confusion(folder / "data" / "dataset.csv", found)
    return found


MODALITIES = {  # what the open answers call them
    "MRI": r"\bmri?\b|\bmr -|flair|\bt1\b|\bt2\b|\bdwi\b|diffusion", "CT": r"\bct\b|computed tomography",
    "X-ray": r"x-?\s?ray|\bcxr\b|plain film|radiograph|^pa$",
}  # fmt: skip
_ASKS_MODALITY = re.compile(r"modality|how was this (?:image|film) taken|(?:type|kind) of (?:image|imag|scan)")


def modality_of(rows: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Image -> modality, from the open answers to questions that ask for it; images that two answers name differently
    are left out."""
    said: dict[str, set[str]] = {}
    for row in rows:
        if _ASKS_MODALITY.search(row["question"].lower()):
            answer = row["answer"].lower()
            said.setdefault(row["image"], set()).update(m for m, p in MODALITIES.items() if re.search(p, answer))
    return {image: next(iter(of)) for image, of in said.items() if len(of) == 1}


def _modality(rows: Sequence[Mapping[str, str]], folder: Path, found: Found, size: Size) -> None:
    """Twins about the modality of real images: the nearest other image by its pixels, against yes always."""
    from PIL import Image

    from fabrica.evaluate.answerers import constant, known
    from fabrica.systems.probmed import questions

    settings = _settings(dimensions=("modality",), values={"modality": tuple(MODALITIES)})
    records, pixels = [], []
    for name, modality in sorted(modality_of(rows).items()):
        with Image.open(folder / name) as picture:
            small = np.asarray(picture.convert("L").resize((16, 16)), np.float64)
        pixels.append((small - small.mean()) / (small.std() + 1e-9))
        item = Item("image", small.astype(np.uint8), Origin(RAD, name, "", "CC0-1.0"))
        records.append(Record(name, name, {"modality": modality, "data": "real"}, {"image": (item,)}))
    near = _nearest(np.stack([p.ravel() for p in pixels]), [r.groups["modality"] for r in records])
    guess = dict(zip((r.id for r in records), near, strict=True))
    answers = {p.id: p.value == guess[p.record] for p in questions(settings, records)}
    for name, say in {
        "real modality: nearest pixels": known(answers),
        "real modality: yes always": constant("Yes"),
    }.items():
        found.units[name] = list(_asked(name, say, records, settings, 0, 2).units)
    found.details["real modality"] = dict(Counter(r.groups["modality"] for r in records))


def _nearest(rows: NDArray[np.float64], labels: Sequence[str]) -> list[str]:
    """The commonest label of the three most similar other rows."""
    like = rows @ rows.T
    np.fill_diagonal(like, -np.inf)
    near = np.argsort(-like, 1, kind="stable")[:, :3]
    return [Counter(labels[j] for j in of).most_common(1)[0][0] for of in near.tolist()]


def _closed(rows: Sequence[Mapping[str, str]], found: Found, size: Size) -> None:
    """The set's own yes/no questions, all of an image's to be right: what answers without the image reach."""
    from fabrica.evaluate.answerers import Draw
    from fabrica.evaluate.grouped import units
    from fabrica.text.answers import token_f1

    asked = [r for r in rows if r["answer"].strip().lower() in ("yes", "no")]
    other = [[j for j, b in enumerate(asked) if b["image"] != a["image"]] for a in asked]
    words = [set(r["question"].lower().split()) for r in asked]

    def lookup(i: int) -> str:
        near = sorted(other[i], key=lambda j: -len(words[i] & words[j]) / len(words[i] | words[j]))[:20]
        best = max(near, key=lambda j: token_f1(asked[i]["question"], asked[j]["question"]))
        return asked[best]["answer"].strip().lower()

    draw = Draw("closed")
    ways = {
        "yes always": ["yes"] * len(asked), "coin": ["yes" if draw(i) < 0.5 else "no" for i in range(len(asked))],
        "question alone": [lookup(i) for i in range(len(asked))],
    }  # fmt: skip
    for name, said in ways.items():
        verdicts = [
            _verdict(str(i), r["image"], "closed", s, r["answer"].strip().lower())
            for i, (r, s) in enumerate(zip(asked, said, strict=True))
        ]
        found.units[f"real closed: {name}"] = units(verdicts)
        found.values[f"per question, real closed: {name}"] = float(np.mean([v.right for v in verdicts]))


def _verdict(id_: str, record: str, dimension: str, said: str, gold: str) -> Verdict:
    from fabrica.evaluate.grouped import Verdict

    return Verdict(id_, record, record, dimension, id_, "right" if said == gold else "wrong", said=said)


def _confusion(path: Path, found: Found) -> None:
    """Pairs of images under one question: what answers without images reach (176 pairs; the images are not there)."""
    from fabrica.evaluate.answerers import Draw
    from fabrica.evaluate.grouped import all_right, same

    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    draw = Draw("confusion")
    ways: dict[str, Callable[[Mapping[str, str], int], str]] = {
        "A always": lambda r, i: "A", "coin": lambda r, i: "A" if draw(r["id"], i) < 0.5 else "B",
        "the longer option": lambda r, i: "A" if len(r["option_A"]) >= len(r["option_B"]) else "B",
    }  # fmt: skip
    for name, say in ways.items():
        verdicts = [
            _verdict(f"{r['id']}/{i}", r["id"], "pair", say(r, i), r[f"im_{i}_correct"].strip())
            for r in rows for i in (1, 2)
        ]  # fmt: skip
        group = ("record", "dimension")
        found.values[f"pairs right, {name}"] = float(np.mean(list(all_right(verdicts, group=group).values())))
        found.values[f"pairs confused, {name}"] = float(np.mean(list(same(verdicts, group=group).values())))
