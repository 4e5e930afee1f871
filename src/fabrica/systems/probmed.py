"""ProbMed: yes/no questions with adversarial twins, right only where all of an image's questions are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fabrica.types import ChatModel, Item, Message, Record, Schedule, Stage, Step, Survey, System

if TYPE_CHECKING:
    from fabrica.curate.language.probing import Probe
    from fabrica.evaluate.grouped import Line, Unit, Verdict
    from fabrica.models import Bundle

READS = {"image": ("image",)}
DIMENSIONS = ("modality", "organ", "abnormality", "condition", "position")
CHEST = (  # ChestX-ray14
    "atelectasis", "cardiomegaly", "consolidation", "edema", "effusion", "emphysema", "fibrosis", "hernia",
    "infiltration", "mass", "nodule", "pleural_thickening", "pneumonia", "pneumothorax",
)  # fmt: skip
PLACES = tuple(f"{side} {zone}" for side in ("left", "right") for zone in ("upper", "middle", "lower"))
PUBLIC: Mapping[str, Sequence[str]] = {
    "modality": ("X-ray", "MRI", "CT scan"), "organ": ("abdomen", "brain", "chest", "spine"), "abnormality": (),
    "condition": CHEST, "position": PLACES,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """The benchmark: `values` by dimension are what twins are drawn from, `parents` the values above a value (guard);
    `unlisted` "absent" takes a list of findings for complete, as the paper does; `unanswered` "wrong" keeps every
    question in the denominator; `prompt` "student" is the examination wording against refusals; `procedural` asks of
    places only where the conditions were all right.

    Then the control: a classifier of statements about an image, whose `pool` over tokens may throw places away ("small"
    has convolutions of `widths`, all but the last of stride 2).
    """

    dimensions: tuple[str, ...] = DIMENSIONS
    values: Mapping[str, Sequence[str]] = field(default_factory=lambda: PUBLIC)
    parents: Mapping[str, Sequence[str]] = field(default_factory=dict)
    twins_per_fact: int = 1
    unlisted: Literal["unknown", "absent"] = "absent"
    unanswered: Literal["wrong", "drop"] = "wrong"
    prompt: Literal["plain", "student"] = "student"
    procedural: bool = False
    seed: int = 0
    image: str = "microsoft/resnet-50"
    image_size: int = 224
    channels: int = 3
    widths: tuple[int, ...] = (24, 48, 72, 96)
    pool: Literal["mean", "max"] = "mean"
    lr: float = 1e-4
    weight_decay: float = 0.01
    warmup: int = 100
    batch: int = 64
    steps: int = 10_000
    allow_network: bool = False


def dims(settings: Settings) -> dict[str, Sequence[str]]:
    """The dimensions that are asked about, with their values."""
    return {name: settings.values.get(name, ()) for name in settings.dimensions}


def plan(settings: Settings) -> Sequence[Step | Survey]:
    """Image records with facts to records of questions."""
    from fabrica.curate.language.probing import Related, Twins

    related = Related(parents=settings.parents)
    return (
        Twins(
            dims=dims(settings), per_fact=settings.twins_per_fact, seed=settings.seed, related=related,
            unlisted=settings.unlisted,
        ),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """What an answerer did: the table, its units and verdicts, statuses counted, false values that the guard rejected
    by reason, pairs that lack a question."""

    table: tuple[Line, ...]
    units: tuple[Unit, ...]
    verdicts: tuple[Verdict, ...]
    statuses: Mapping[str, int]
    rejected: Mapping[str, int]
    incomplete: int

    def line(self, name: str) -> Line:
        """The line of a dimension over all cells, or "overall"."""
        return next(row for row in self.table if row.name == name and not row.cell)


def questions(settings: Settings, records: Sequence[Record], rejected: Counter[str] | None = None) -> list[Probe]:
    """All questions of the records."""
    from fabrica.curate.language.probing import Related, twins

    return list(
        twins(
            records, dims(settings), per_fact=settings.twins_per_fact, seed=settings.seed,
            related=Related(parents=settings.parents), unlisted=settings.unlisted, rejected=rejected,
        )
    )  # fmt: skip


def messages(settings: Settings, probe: Probe, images: Sequence[Item]) -> tuple[Message, ...]:
    """One question in a context of its own: the image, then the prompt. The gold answer is in neither."""
    from fabrica.chat.prompts import prompt

    *before, last = prompt(f"probe_{settings.prompt}", 1).messages(question=probe.text)
    return (*before, Message(last.role, (*images, *last.parts)))


def probe(
    model: ChatModel, records: Sequence[Record], out: Path, settings: Settings, *,
    probes: Sequence[Probe] | None = None, workers: int = 1, cells: bool = True, count: int = 2000,
) -> Result:  # fmt: skip
    """Ask everything (what `out`, the file of rows, already holds is not asked again) and score it from the rows.

    `records` hold image and facts; `probes` are questions made before, by default those of the records.
    """
    from fabrica.chat.prompts import prompt
    from fabrica.curate.language.probing import VERSION
    from fabrica.evaluate.rowlog import RowLog, answered

    rejected = Counter[str]()
    probes = questions(settings, records, rejected) if probes is None else probes
    images = {r.id: tuple(r.all("image")) for r in records}
    mark = prompt(f"probe_{settings.prompt}", 1).mark
    log = RowLog(out, {"task": "probmed", "version": VERSION, "model": model.name, "prompt": mark})
    rows = answered(model, ((p.id, messages(settings, p, images[p.record])) for p in probes), log, workers=workers)
    return scored(probes, rows, settings, rejected, cells=cells, count=count)


def scored(
    probes: Sequence[Probe], rows: Mapping[str, object], settings: Settings, rejected: Mapping[str, int], *,
    cells: bool = True, count: int = 2000,
) -> Result:  # fmt: skip
    """The result of rows (question -> `rowlog.Row`), whoever wrote them."""
    from fabrica.evaluate import grouped

    verdicts = grouped.judged(probes, rows)  # type: ignore[arg-type]
    units = grouped.units(verdicts, unanswered=settings.unanswered)
    if settings.procedural:
        units = grouped.only_where_right(units, "position", "condition")
    table = grouped.lines(units, settings.dimensions, cells=cells, count=count)
    statuses = Counter(v.status for v in verdicts)
    return Result(tuple(table), tuple(units), tuple(verdicts), statuses, dict(rejected), grouped.incomplete(verdicts))


# ---------------------------------------------------------------- the control: a net that may not know places


def build(settings: Settings, records: Iterable[Record]) -> Bundle:
    """One logit for each statement (label) that the records know, from an image encoder under `pool`."""
    from fabrica.encode.collate import Collate, Use
    from fabrica.encode.image import ImageEncode
    from fabrica.models import Bundle, MultiTower, ProjectionHead, Tower
    from fabrica.models.choose import SMALL, image_body
    from fabrica.models.small import ConvTower
    from fabrica.objectives.scale import LogitScale

    names = tuple(sorted({label for record in records for label in record.labels}))
    small = settings.image == SMALL
    body = (
        ConvTower(settings.channels, settings.widths, norm="batch") if small
        else image_body(settings.image, channels=settings.channels, allow_network=settings.allow_network)
    )  # fmt: skip
    tower = Tower(body, ProjectionHead((body.width, len(names)), normalise=None), pool=settings.pool)
    pixels = ImageEncode(settings.image_size, settings.channels)
    model = MultiTower({"image": tower}, len(names), scale=LogitScale(learnable=False))
    card = {"system": "probmed", "title": SYSTEM.title, "labels": list(names)}
    return Bundle(model, Collate({"image": Use(READS["image"], pixels)}, targets=names), card)


def stages(settings: Settings, bundle: Bundle) -> tuple[Stage, ...]:
    """One stage: binary cross-entropy of every statement that is known of an image."""
    from fabrica.objectives.labels import Labels

    schedule = Schedule(
        settings.steps, settings.batch, settings.lr, warmup=settings.warmup, weight_decay=settings.weight_decay
    )
    labels = {"labels": Labels(tuple(bundle.collate.targets))}
    return (Stage("statements", bundle.collate, labels, schedule, needs=("image",)),)


def believed(bundle: Bundle, records: Sequence[Record], probes: Sequence[Probe]) -> dict[str, bool]:
    """What the control answers to each question whose statement it knows: yes where its logit is above 0."""
    from fabrica.curate.language.probing import statement

    ids, logits, _ = bundle.embed(records, "image", unit=False)
    row, column = ({name: i for i, name in enumerate(names)} for names in (ids, bundle.collate.targets))
    made = {}
    for p in probes:
        name = statement(p.dimension, "" if p.dimension == "abnormality" else p.value, p.about)
        if name in column:
            made[p.id] = bool(logits[row[p.record], column[name]] > 0)
    return made


SYSTEM = System(
    seed="S80",
    title="ProbMed: probing evaluation of medical visual question answering with adversarial twins",
    paper="Yan, He, Yue, Wang, arXiv 2405.20421",
    claim="Answerers that look able question by question fall below a coin once each question must be told from its "
    "twin and all of an image's questions must be right.",
    departs="Facts come from records (groups, labels, regions), not from a language model's metadata; twins exclude "
    "synonyms and values above or below a true one; unreadable answers stay in the denominator as wrong; answers are "
    "paired by id. The control is our own: a net whose last pooling loses places.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": Settings(
            image="small", image_size=64, channels=1, pool="max", prompt="plain", unlisted="unknown", lr=3e-3,
            warmup=20, batch=64, steps=300,
        ),
    },
    build=build,
    stages=stages,
    tasks=("all_right", "first_questions", "coin"),
    plan=plan,
)  # fmt: skip
