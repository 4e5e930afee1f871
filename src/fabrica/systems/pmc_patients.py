"""PMC-Patients: patient notes cut out of case reports, related by citations, as a retrieval benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fabrica.types import Record, Schedule, Stage, Step, Survey, System

if TYPE_CHECKING:
    from fabrica.models import Bundle

READS = {"query": ("query",), "document": ("document",)}


@dataclass(frozen=True, slots=True)
class Settings:
    """First how notes are made (`plan`), then the bi-encoder. `temperature` divides the cosines; `chunk` > 0 encodes
    the batch by gradient cache. `length` in word pieces; `width`, `depth` are those of the "small" text tower."""

    licences: tuple[str, ...] = ("CC0", "CC-BY", "CC-BY-NC", "CC-BY-NC-SA")
    min_words: int = 10
    max_non_ascii: float = 0.03
    gender_conflict_chars: int = 20
    fractions: Mapping[str, float] = field(default_factory=lambda: {"train": 0.9, "val": 0.05, "test": 0.05})
    text: str = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    length: int = 512
    vocabulary: int = 30_000
    width: int = 128
    depth: int = 1
    dim: int = 768
    temperature: float = 0.05
    lr: float = 2e-5
    weight_decay: float = 0.01
    warmup: int = 1000
    batch: int = 256
    chunk: int = 32
    steps: int = 30_000
    allow_network: bool = False


def plan(settings: Settings) -> Sequence[Step | Survey]:
    """Article records to notes: cut, filter, drop equal texts, name near ones, flag identifiers, split by article.

    Then, over the new corpus: `relate.relate` with the citation graphs, the step `relate.Related`, and
    `corpus.views.beir.patients`.
    """
    from fabrica.curate.articles.case_notes import NOTE, CaseNotes
    from fabrica.curate.articles.flags import FlagIdentifiers
    from fabrica.curate.duplicates.dedup import TextDuplicates
    from fabrica.curate.split import BySubject

    return (
        CaseNotes(
            licences=settings.licences, min_words=settings.min_words, max_non_ascii=settings.max_non_ascii,
            gender_conflict_chars=settings.gender_conflict_chars,
        ),
        TextDuplicates(roles=(NOTE,), threshold=1.0),
        TextDuplicates(roles=(NOTE,), act="group"),
        FlagIdentifiers(roles=(NOTE,)),
        BySubject(fractions=settings.fractions),
    )  # fmt: skip


def build(settings: Settings, records: Iterable[Record]) -> Bundle:
    """Two text towers over one vocabulary, for what is asked and what is found; unit rows. `records` are pairs
    (`relate.pairs`): items "query" and "document"."""
    from fabrica.encode.collate import Collate, Use
    from fabrica.models import Bundle, MultiTower, ProjectionHead, Tower
    from fabrica.models.choose import text_body

    known = list(records)
    towers, uses = {}, {}
    for name, roles in READS.items():
        body, words = text_body(
            settings.text, known, ("query", "document"), length=settings.length, vocabulary=settings.vocabulary,
            width=settings.width, depth=settings.depth, truncation="head+tail", allow_network=settings.allow_network,
        )  # fmt: skip
        towers[name] = Tower(body, ProjectionHead((body.width, settings.dim)), pool="mean")
        uses[name] = Use(roles, words)
    card = {"system": "pmc_patients", "title": SYSTEM.title}
    return Bundle(MultiTower(towers, settings.dim), Collate(uses, keys=("subject",)), card)


def stages(settings: Settings, bundle: Bundle) -> tuple[Stage, ...]:
    """One stage: L = -log exp(q.d+ / t) / sum of exp(q.d / t) over the batch; other pairs of the query's article are
    no negatives."""
    from fabrica.objectives.pairs import Contrast

    contrast = Contrast(
        ("query", "document"), weights=(1.0, 0.0), scale=1 / settings.temperature, exclude_by="subject", too_few="skip"
    )
    schedule = Schedule(
        settings.steps, settings.batch, settings.lr, warmup=settings.warmup, weight_decay=settings.weight_decay,
        chunk=settings.chunk,
    )  # fmt: skip
    return (Stage("retrieve", bundle.collate, {"contrast": contrast}, schedule, needs=("query", "document")),)


SYSTEM = System(
    seed="S44",
    title="PMC-Patients: patient notes and relations from case reports in PubMed Central",
    paper="Zhao, Jin, Chen, Zhang, Peng, Yu, Scientific Data 2023, arXiv 2202.13876",
    claim="Section patterns cut precise notes out of case reports; judging pairs is easy, retrieving them is hard.",
    departs="An age or gender that only the title tells is taken from there; animals are dropped by name; transgender "
    "wording counts as a conflict; the bi-encoder has two towers, one for each side.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": Settings(
            text="small", length=160, vocabulary=2000, width=64, depth=1, dim=64, lr=2e-3, weight_decay=0.05, warmup=20,
            batch=32, chunk=0, steps=400,
        ),
    },
    build=build,
    stages=stages,
    plan=plan,
)  # fmt: skip
