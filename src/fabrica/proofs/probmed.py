"""ProbMed's claim with answerers of planted skill, a trained net that may not know places, and two real sets."""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.proofs import Plan
from fabrica.proofs.real import absent, real
from fabrica.proofs.spread import spread
from fabrica.types import Claim, Item, Origin, Proof, Record

if TYPE_CHECKING:
    from fabrica.evaluate.answerers import Say
    from fabrica.evaluate.bootstrap import Interval
    from fabrica.evaluate.grouped import Unit, Verdict
    from fabrica.models import Bundle
    from fabrica.systems.probmed import Result, Settings

PAIRED = ("modality", "organ", "condition", "position")
# Bars of sheet S80, fixed before any run of seeds 0..; tuning ran on seeds >= 100.
NEAR, FIRST, ALL, SEES = 0.03, 0.90, 0.10, 0.90
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

    seeds: tuple[int, ...] = (10, 11, 12)
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


def run(plan: Plan) -> Proof:
    """All-right accuracy by dimension of every answerer, beside its own coin."""
    size = Size()
    if plan.quick:
        size = Size(seeds=(10, 11), test=200, steps=300, resamples=300)
    if plan.full:
        size = Size(seeds=tuple(range(10, 20)), images=5000, train=20_000, test=2000, steps=3000)
    return prove(size, plan)


def prove(size: Size, plan: Plan) -> Proof:
    """The experiment at any size."""
    jobs = [Job("net", s, size, arm) for arm in (KEPT, POOLED) for s in size.seeds]
    jobs += [Job("scripted", s, size) for s in size.seeds] + [Job("real", 0, size)]
    return _proof(size, jobs, spread(part, jobs, plan))


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


# ---------------------------------------------------------------- bars


def _proof(size: Size, jobs: Sequence[Job], made: Sequence[Found]) -> Proof:
    parts = list(zip(jobs, made, strict=True))
    by_seed: dict[str, list[list[Unit]]] = {}
    for _, found in parts:
        for name, units in found.units.items():
            by_seed.setdefault(name, []).append(units)
    table = _Table(by_seed, size)
    scripted = [found.values for job, found in parts if job.what == "scripted"]
    rest = next(found for job, found in parts if job.what == "real")
    tables = [found.details for job, found in parts if job.what == "scripted"]
    arms = {f"{name}, {d}": table.values(name, d) for name in by_seed if "real" not in name for d in table.has(name)}
    arms |= {f"{name}, per question": tuple(v[f"per question, {name}"] for v in scripted) for name in answerers()}
    arms |= {f"{name}": table.values(name, table.has(name)[0]) for name in by_seed if "real" in name}
    gone = [absent(name) for name in (RAD, CONFUSION) if real(name) is None]
    modality = f"real: VQA-RAD ({sum(rest.details.get('real modality', {}).values())} images of known modality, "
    closed = f"{len(by_seed.get('real closed: coin', [[]])[0])} with yes/no questions), MediConfusion (text side)"
    return Proof(
        "probmed",
        "Answerers that look able question by question fall below a coin under twins and the all-right rule.",
        f"synthetic facts: {size.images:,} images; synthetic images for the nets: {size.train:,} train, {size.test:,} "
        "test; " + ("no real set at hand" if len(gone) == 2 else modality + closed),
        "share of images all of whose questions in a dimension are right",
        arms, _claims(table, tables), _controls(table, scripted, rest), size.seeds, 0.0,
        " ".join(
            [
                "Chance is that of the very questions scored. Intervals resample images of all seeds. Both nets "
                "have the same data, steps and rate; one ends in a 16 x 16 grid that is pooled, the other goes on "
                "to one token. Arms 'real closed': VQA-RAD's own yes/no questions answered without the image. "
                "Without twins the rule alone is no guard: many images have questions of one answer only, and yes "
                "always beats the coin. Seeds 0 and 1 were spent on a first quick run, not shown: the coarse "
                "answerer said yes with 0.8 when it did not know (position 0.012 below chance, interval across 0), "
                "the interval of the ranking was over two seeds, and the nets had 200 steps on 1,500 pictures "
                "(condition 0.83; 0.08 on places that were kept). It now says yes with 0.9, as the sheet's pilot "
                "figures imply, the interval is by image, the nets train longer, and every run has new seeds.",
                *gone,
            ]
        ),
        {
            "first questions": {n: {d: table.first(n, d) for d in table.has(n)} for n in by_seed},
            "chance": {n: {d: table.chance(n, d) for d in table.has(n)} for n in by_seed},
            "real": rest.values | {"modality": rest.details.get("real modality", {})},
            "ceiling": {k: [v[k] for v in scripted] for k in scripted[0] if k.startswith("ceiling")},
        },
    )  # fmt: skip


class _Table:
    """Units of every answerer by seed."""

    def __init__(self, by_seed: Mapping[str, list[list[Unit]]], size: Size) -> None:
        self.by_seed, self.size = by_seed, size

    def has(self, name: str) -> list[str]:
        """The dimensions that an answerer was asked about."""
        return list(dict.fromkeys(u.dimension for u in self.by_seed[name][0]))

    def pick(self, name: str, dimension: str) -> list[Unit]:
        """The units of all seeds."""
        return [u for units in self.by_seed[name] for u in units if u.dimension == dimension]

    def values(self, name: str, dimension: str) -> tuple[float, ...]:
        """The score by seed."""
        return tuple(float(np.mean([u.all for u in units if u.dimension == dimension])) for units in self.by_seed[name])

    def first(self, name: str, dimension: str) -> float:
        return float(np.nanmean([u.first for u in self.pick(name, dimension)]))

    def chance(self, name: str, dimension: str) -> float:
        return float(np.mean([u.coin for u in self.pick(name, dimension)]))

    def over_chance(self, name: str, dimension: str) -> Interval:
        """Score minus the chance of the same questions, by image."""
        from fabrica.evaluate.bootstrap import interval
        from fabrica.evaluate.metrics import mean

        of = self.pick(name, dimension)
        columns = {"gap": np.array([u.all - u.coin for u in of])}
        return interval(lambda c, w: mean(c["gap"], w), columns, [u.subject for u in of], count=self.size.resamples)

    def score(self, name: str, dimension: str) -> Interval:
        from fabrica.evaluate.bootstrap import interval
        from fabrica.evaluate.metrics import mean

        of = self.pick(name, dimension)
        columns = {"all": np.array([u.all for u in of])}
        subjects = [u.subject for u in of]
        return interval(lambda c, w: mean(c["all"], w), columns, subjects, count=self.size.resamples, share=True)

    def overall(self, name: str) -> tuple[float, ...]:
        """Sum of n_D x accuracy_D over sum of n_D, by seed."""
        return tuple(float(np.mean([u.all for u in units])) for units in self.by_seed[name])


def _claims(table: _Table, tables: Sequence[Mapping[str, Any]]) -> tuple[Claim, ...]:
    dims = table.has(COIN)
    off = [table.over_chance(COIN, d) for d in dims]
    far = max(off, key=lambda i: abs(i.value))
    firsts = [table.first(YES, d) for d in ("modality", "organ", "position")]
    whole = [table.score(YES, d) for d in PAIRED]
    below = [table.over_chance(KNOWS_COARSE, d) for d in ("condition", "position")]
    least = max(below, key=lambda i: i.high)
    asked, rule = (_apart(tables, at, table.size.resamples) for at in (0, 2))
    most = max(whole, key=lambda i: i.value)
    condition, place = table.score(POOLED, "condition"), table.over_chance(POOLED, "position")
    return (
        Claim("coin meets its chance", f"in each of {len(dims)} dimensions within {100 * NEAR:g} points of the chance "
              "computed from the questions", far.value, (far.low, far.high), abs(far.value) <= NEAR),
        Claim("yes-sayer", f"all right in at most {100 * ALL:g} % of images in each paired dimension, with first "
              f"questions right in {100 * FIRST:g} % or more (modality, organ, position)", most.value,
              (most.low, most.high), most.value <= ALL and min(firsts) >= FIRST,
              "first questions " + ", ".join(f"{f:.3f}" for f in firsts)),
        Claim("coarse skill", "below the chance of the same questions in condition and position, upper bounds below 0",
              least.value, (least.low, least.high), least.high < 0),
        Claim("another ranking", "by single questions the yes-sayer stands above the expert who refuses, by the rule "
              "below; both intervals away from 0", rule.value, (rule.low, rule.high), asked.low > 0 > rule.high,
              f"single questions {asked.value:+.3f} [{asked.low:+.3f}, {asked.high:+.3f}]"),
        Claim("net sees conditions", f"places pooled away: condition all right in {100 * SEES:g} % or more",
              condition.value, (condition.low, condition.high), condition.value >= SEES),
        Claim("net knows no places", "the same net: position at or below chance, upper bound included", place.value,
              (place.low, place.high), place.high <= 0),
    )  # fmt: skip


def _apart(tables: Sequence[Mapping[str, Any]], at: int, count: int) -> Interval:
    """Share of the yes-sayer minus that of the shy expert, by image: of questions right (`at` 0), or of dimensions all
    right (2)."""
    from fabrica.evaluate.bootstrap import interval

    a, b = (np.concatenate([t[name] for t in tables]) for name in (YES, SHY))
    columns = {"gap": a[:, at] - b[:, at], "of": a[:, at + 1]}

    def share(c: Mapping[str, NDArray[Any]], w: NDArray[Any] | None) -> Any:
        weights = np.ones((1, len(c["gap"]))) if w is None else w
        made = (weights @ c["gap"]) / (weights @ c["of"])
        return float(made[0]) if w is None else made

    return interval(share, columns, [str(i) for i in range(len(a))], count=count)


def _controls(table: _Table, scripted: Sequence[Mapping[str, float]], rest: Found) -> tuple[Claim, ...]:
    names = [f"skill {s:g}" for s in SKILLS] + [COIN]
    steps = [a - b for x, y in pairwise(names)
             for a, b in zip(table.overall(x), table.overall(y), strict=True)]  # fmt: skip
    moved = [v["answers moved by order"] for v in scripted]
    place = table.over_chance(KEPT, "position")
    hedge = max(table.overall(HEDGE))
    public = [v["hedger, public rule"] for v in scripted]
    low, high = ([v[f"ceiling, unlisted {w}"] for v in scripted] for w in ("absent", "unknown"))
    made = [
        Claim("ranked as planted", "skills 0.9, 0.7, 0.5, 0.3 and the coin keep their order in every seed",
              min(steps), (min(steps), max(steps)), min(steps) > 0),
        Claim("places can be learnt", "the net that keeps places: position above chance, lower bound above 0",
              place.value, (place.low, place.high), place.low > 0),
        Claim("order of the answers", "shuffled answers change no verdict", max(moved), (min(moved), max(moved)),
              max(moved) == 0),
        Claim("both words", "an answer with both words is right nowhere (the public rule: everywhere)", hedge,
              (hedge, hedge), hedge == 0 and min(public) == 1),
        Claim("unlisted findings", f"{100 * UNLISTED:g} % of findings unlisted: perfect eyes are all right where they "
              "count as unknown, and not where they count as absent", float(np.mean(low)), (min(low), max(low)),
              max(low) < 1 and min(high) == 1),
    ]  # fmt: skip
    if "real modality: nearest pixels" in table.by_seed:
        near = table.over_chance("real modality: nearest pixels", "modality")
        always = table.values("real modality: yes always", "modality")[0]
        made.append(
            Claim("real images", "VQA-RAD, modality: the nearest image's answer is above chance, yes always is right "
                  "for none", near.value, (near.low, near.high), near.low > 0 and always == 0)
        )  # fmt: skip
    if "pairs right, A always" in rest.values:
        blind = max(rest.values[f"pairs right, {n}"] for n in ("A always", "the longer option"))
        made.append(
            Claim("real pairs", "MediConfusion: what does not see the images is right for no pair", blind,
                  (blind, blind), blind == 0)
        )  # fmt: skip
    return tuple(made)
