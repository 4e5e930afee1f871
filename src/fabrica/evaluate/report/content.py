"""What the report shows, gathered from corpus, model and scores into plain values that the page prints."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fabrica.errors import UsageError
from fabrica.evaluate.cards import FEW, Unscored
from fabrica.evaluate.metrics import MEASURES
from fabrica.evaluate.report import figures
from fabrica.types import Score


@dataclass(frozen=True, slots=True)
class Share:
    """A counted thing of a bar list: `part` is its share of the longest bar."""

    name: str
    count: int
    part: float
    example: str = ""


@dataclass(frozen=True, slots=True)
class Modality:
    """A line of the overview: records by split, real and phantom."""

    name: str
    train: int
    val: int
    test: int
    other: int
    real: int
    phantom: int
    subjects: int
    sources: str

    @property
    def total(self) -> int:
        return self.real + self.phantom


def modalities(corpus: Any) -> list[Modality]:
    """Counts by modality from the small columns of a corpus, most records first."""
    table = corpus.rows(["modality", "split", "subject", "source", "tags"])
    columns = [table.column(n).to_pylist() for n in ("modality", "split", "subject", "source", "tags")]
    splits: dict[str, Counter[str]] = {}
    data: dict[str, Counter[str]] = {}
    subjects: dict[str, set[str]] = {}
    sources: dict[str, Counter[str]] = {}
    for modality, split, subject, source, tags in zip(*columns, strict=True):
        name = modality or "not said"
        splits.setdefault(name, Counter())[split or ""] += 1
        data.setdefault(name, Counter())["phantom" if "data:phantom" in (tags or ()) else "real"] += 1
        subjects.setdefault(name, set()).add(subject)
        sources.setdefault(name, Counter())[source or "not said"] += 1
    rows = [
        Modality(
            name, s["train"], s["val"], s["test"], s["hidden"] + s[""], data[name]["real"], data[name]["phantom"],
            len(subjects[name]), ", ".join(k for k, _ in sources[name].most_common(4)),
        )
        for name, s in splits.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda m: (-m.total, m.name))


_NAMES = {
    "xray": "X-ray", "ct": "CT", "mr": "MR", "ecg": "ECG", "eeg": "EEG", "oct": "OCT", "pet": "PET",
    "labs": "Laboratory values", "": "Not said",
}  # fmt: skip


def modality_name(name: str) -> str:
    """A modality as people write it.

    >>> modality_name("xray"), modality_name("ultrasound")
    ('X-ray', 'Ultrasound')
    """
    return _NAMES.get(name, name.replace("_", " ").capitalize())


def subjects_of(corpus: Any) -> int:
    """How many subjects a corpus holds."""
    return len(set(corpus.rows(["subject"]).column("subject").to_pylist()))


# ---------------------------------------------------------------- what was left out


@dataclass(frozen=True, slots=True)
class Dropped:
    """Files that could not be read, records that curation left out, and the counts before and after."""

    quarantine: tuple[Share, ...] = ()
    steps: tuple[tuple[str, tuple[Share, ...]], ...] = ()
    read: int | None = None
    kept: int | None = None

    @property
    def files(self) -> int:
        return sum(s.count for s in self.quarantine)

    @property
    def records(self) -> int:
        return sum(s.count for _, shares in self.steps for s in shares)


def dropped(raw: Any, curate: Any) -> Dropped:
    """From the raw corpus' quarantine and a `CurateReport` (or the folder of the corpus that curation wrote)."""
    quarantine: tuple[Share, ...] = ()
    if raw is not None:
        rows = raw.quarantined().to_pylist()
        examples: dict[str, str] = {}
        for row in rows:
            examples.setdefault(row["code"], row["message"])
        quarantine = _shares(Counter(row["code"] for row in rows), examples)
    report = _curated(curate)
    if report is None:
        return Dropped(quarantine)
    steps = tuple((step, _shares(Counter(reasons), {})) for step, reasons in report["dropped"].items() if reasons)
    return Dropped(quarantine, steps, report["read"], report["kept"])


def _curated(curate: Any) -> dict[str, Any] | None:
    if curate is None:
        return None
    if isinstance(curate, str | Path):
        path = Path(curate)
        path = path / "curate.json" if path.is_dir() else path
        if not path.is_file():
            return None
        try:
            data = json.loads(path.read_text("utf-8"))
            return {"dropped": data["dropped"], "read": data["read"], "kept": data["kept"]}
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} is not what a curation wrote: {error!r}") from error
    return {"dropped": curate.dropped, "read": curate.read, "kept": curate.kept}


def _shares(counts: Mapping[str, int], examples: Mapping[str, str]) -> tuple[Share, ...]:
    longest = max(counts.values(), default=1)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(Share(name, n, n / longest, examples.get(name, "")) for name, n in ordered)


# ---------------------------------------------------------------- training and cost


@dataclass(frozen=True, slots=True)
class StageLine:
    """A stage of the training log."""

    name: str
    steps: int
    first: float
    last: float
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Training:
    """The loss curve and its stages."""

    curve: Any
    stages: tuple[StageLine, ...]
    steps: int


def training(path: Path | None) -> Training | None:
    """From `train.jsonl`; torn and foreign lines are left out; None where no step stands there."""
    if path is None or not Path(path).is_file():
        return None
    lines = []
    for text in Path(path).read_text("utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("loss"), int | float) and isinstance(line.get("step"), int):
            lines.append(line)
    if not lines:
        return None
    names = list(dict.fromkeys(str(line.get("stage", "train")) for line in lines))
    parts = {n: [line for line in lines if str(line.get("stage", "train")) == n] for n in names}
    breaks = [(part[0]["step"], n) for n, part in parts.items()][1:] if len(names) > 1 else []
    curve = figures.curve_svg([line["step"] for line in lines], [line["loss"] for line in lines], breaks)
    return Training(curve, tuple(_stage(n, part) for n, part in parts.items()), len(lines))


def _stage(name: str, lines: Sequence[Mapping[str, Any]]) -> StageLine:
    span = max(1, len(lines) // 20)
    first, last = (sum(line["loss"] for line in part) / len(part) for part in (lines[:span], lines[-span:]))
    times = [line["seconds"] for line in lines if isinstance(line.get("seconds"), int | float)]
    return StageLine(name, len(lines), first, last, sum(times) if times else None)


@dataclass(frozen=True, slots=True)
class CostLine:
    """What a stage of the job cost; None = not measured. `part` is the share of the longest."""

    name: str
    seconds: float | None
    memory_mib: float | None
    disk_mib: float | None
    part: float


def costs(cost: Mapping[str, Mapping[str, float]]) -> list[CostLine]:
    """From stage -> {"seconds", "peak_mib", "disk_mib"}, each optional."""
    longest = max((float(c.get("seconds", 0)) for c in cost.values()), default=0.0) or 1.0
    return [
        CostLine(n, c.get("seconds"), c.get("peak_mib"), c.get("disk_mib"), float(c.get("seconds", 0)) / longest)
        for n, c in cost.items()
    ]


def folder_mib(path: Any) -> float | None:
    """MiB on disk of a folder; None where there is none."""
    if path is None or not Path(path).is_dir():
        return None
    return sum(p.stat().st_size for p in Path(path).rglob("*") if p.is_file()) / 2**20


# ---------------------------------------------------------------- score cards


@dataclass(frozen=True, slots=True)
class Line:
    """A score as the page draws it: percent positions on the axis of its block."""

    score: Score
    left: float
    width: float
    dot: float
    few: bool


@dataclass(frozen=True, slots=True)
class Block:
    """One task on real or on phantom data: the leading metric drawn, every other one in the table; `title` where
    several tasks share a card."""

    data: str
    metric: str
    lines: tuple[Line, ...]
    groups: tuple[Line, ...]
    differences: tuple[Score, ...]
    others: tuple[Score, ...]
    ends: tuple[float, float] = (0.0, 1.0)
    higher: bool = True
    notes: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """A task, or a probe at its label fractions: its blocks, and what holds for all of them."""

    name: str
    version: str
    prompt: str
    split_hash: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """What has one heading: the card, charts of a probe's label fractions a data kind, what was not scored."""

    name: str
    card: Card | None
    charts: tuple[tuple[str, str, Any], ...] = ()
    unscored: tuple[Unscored, ...] = field(default=())


_FRACTION = re.compile(r"^(.*) at ([0-9.eE+-]+) % of the labels$")


def families(scores: Sequence[Score], unscored: Sequence[Unscored] = ()) -> list[Family]:
    """Score cards in order, the fractions of one probe on one card."""
    names = dict.fromkeys([s.task for s in scores])
    base = {n: (m[1] if (m := _FRACTION.match(n)) else n) for n in [*names, *(u.task for u in unscored)]}
    out = []
    for family in dict.fromkeys(base.values()):
        own = [s for s in scores if base[s.task] == family]
        charts = tuple(_charts(own)) if any(_FRACTION.match(s.task) for s in own) else ()
        out.append(Family(family, _card(family, own), charts, tuple(u for u in unscored if base[u.task] == family)))
    return out


def _card(name: str, scores: Sequence[Score]) -> Card | None:
    if not scores:
        return None
    kinds = dict.fromkeys((s.data, s.task) for s in scores)
    blocks = [_block(data, task, [s for s in scores if (s.data, s.task) == (data, task)]) for data, task in kinds]
    order: list[str] = list(dict.fromkeys(data for data, _ in kinds))
    blocks.sort(key=lambda block: order.index(block.data))
    return Card(name, scores[0].version, scores[0].prompt_version, scores[0].split_hash[:12], tuple(blocks))


def _block(data: str, task: str, scores: Sequence[Score]) -> Block:
    metric = next((s.metric for s in scores if not s.metric.endswith(" difference")), scores[0].metric)
    main = [s for s in scores if s.metric == metric]
    known = [x for s in main for x in (s.low, s.high) if not math.isnan(x)]
    low, high = (0.0, 1.0) if all(0 <= x <= 1 for x in known) else (min(known), max(known))
    measure, match = MEASURES.get(metric), _FRACTION.match(task)
    return Block(
        data, metric,
        tuple(_line(s, low, high) for s in main if not s.group),
        tuple(_line(s, low, high) for s in main if s.group and s.arm == "model"),
        tuple(s for s in scores if s.metric.endswith(" difference")),
        tuple(s for s in scores if not s.metric.endswith(" difference") and (s.metric != metric or s.group)),
        (low, high), True if measure is None else measure.higher_is_better,
        next((s.note for s in main if s.arm == "model" and not s.group), ""),
        f"{match[2]} % of the labels" if match else "",
    )  # fmt: skip


def _line(score: Score, low: float, high: float) -> Line:
    if math.isnan(score.value):
        return Line(score, 0, 0, 0, True)
    left, dot, right = (100 * (x - low) / (high - low) for x in (score.low, score.value, score.high))
    return Line(score, round(left, 2), round(max(right - left, 0.4), 2), round(dot, 2), score.subjects < FEW)


def _charts(scores: Sequence[Score]) -> list[tuple[str, str, Any]]:
    out: list[tuple[str, str, Any]] = []
    for data in dict.fromkeys(s.data for s in scores):
        here = [s for s in scores if s.data == data and not s.group and not s.metric.endswith(" difference")]
        metric = "macro AUC" if any(s.metric == "macro AUC" for s in here) else here[0].metric
        series: dict[str, list[tuple[float, float, float, float]]] = {}
        for s in here:
            match = _FRACTION.match(s.task)
            if s.metric == metric and match:
                series.setdefault(s.arm, []).append((float(match[2]) / 100, s.value, s.low, s.high))
        chart = figures.fractions_svg(series, metric)
        if chart:
            out.append((data, metric, chart))
    return out


# ---------------------------------------------------------------- the first lines


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether train and test were compared: "clean", "leak", "unchecked" or "none" (no score)."""

    state: str
    text: str


def verdict(scores: Sequence[Score]) -> Verdict:
    """What the leak gate said, from the notes that it left on the scores."""
    if not scores:
        return Verdict("none", "No score was computed.")
    marks = sorted({part for s in scores for part in s.note.split("; ") if part.startswith("LEAK")})
    if marks:
        return Verdict("leak", "Train and test overlap, and the scores were printed all the same. " + ". ".join(marks))
    if any("leaks not checked" in s.note for s in scores):
        return Verdict("unchecked", "Train and test were not compared: what the model was trained on was not given.")
    return Verdict("clean", "The leak gate found no subject, picture, volume or long text in both train and test.")
