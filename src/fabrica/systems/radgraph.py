"""RadGraph: entities, what is asserted of them, and their relations, of a radiology report as one typed graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fabrica.types import Record, Schedule, Stage, Step, Survey, System

if TYPE_CHECKING:
    from fabrica.models.span_bundle import SpanBundle
    from fabrica.text.graph import Extractor, Schema, TextGraph

READS = {"report": ("report",)}


@dataclass(frozen=True, slots=True)
class Settings:
    """The data first: `extractor` "rules" or a folder that `SpanBundle.save_pretrained` wrote says who marks reports
    without a graph; `fractions` splits by patient. Then the net: spans of at most `max_width` words, the share `prune`
    of a window's words kept as spans for relations; `window` is what is read together. `assertion` "rules" lets the
    rule engine say present, absent or uncertain in place of the learned label. `length` in word pieces; `width`,
    `depth` are those of the "small" encoder; `encoder_lr` is the encoder's share of `lr`."""

    extractor: str = "rules"
    fractions: Mapping[str, float] = field(default_factory=lambda: {"train": 0.8, "val": 0.1, "test": 0.1})
    text: str = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    max_width: int = 12
    prune: float = 0.5
    window: Literal["sentence", "report"] = "report"
    assertion: Literal["label", "rules"] = "label"
    hidden: int = 150
    width_dim: int = 20
    dropout: float = 0.4
    entity: float = 1.0
    relation: float = 1.0
    length: int = 512
    vocabulary: int = 30_000
    width: int = 128
    depth: int = 1
    lr: float = 1e-3
    encoder_lr: float = 0.05
    weight_decay: float = 0.01
    warmup: int = 100
    batch: int = 16
    steps: int = 1500
    allow_network: bool = False


def schema() -> Schema:
    """Anatomy and observations (present, uncertain, absent); modify, located_at, suggestive_of."""
    from fabrica.text.graph import RADGRAPH

    return RADGRAPH


def plan(settings: Settings) -> Sequence[Step | Survey]:
    """Reports to graphs, marked as a model's; patients to splits."""
    from fabrica.curate.language.graphs import ReportGraphs
    from fabrica.curate.split import BySubject

    return ReportGraphs(extractor(settings)), BySubject(fractions=settings.fractions)


def extractor(settings: Settings) -> Extractor:
    """Who marks reports."""
    from fabrica.text.graph_rules import RuleGraphs

    if settings.extractor == "rules":
        return RuleGraphs()
    from fabrica.models.span_bundle import SpanBundle

    return SpanBundle.from_pretrained(settings.extractor, allow_network=settings.allow_network)


def build(settings: Settings, records: Iterable[Record]) -> SpanBundle:
    """Any text encoder under three small scorers: of spans, of mentions, of ordered pairs of spans."""
    from fabrica.encode.collate import Use
    from fabrica.encode.spans import SpanCollate
    from fabrica.models.choose import text_body
    from fabrica.models.span_bundle import SpanBundle
    from fabrica.models.spans import SpanGraphNet

    encoder, words = text_body(
        settings.text, records, READS["report"], length=settings.length, vocabulary=settings.vocabulary,
        width=settings.width, depth=settings.depth, allow_network=settings.allow_network,
    )  # fmt: skip
    model = SpanGraphNet(
        encoder, schema=schema(), width=settings.max_width, keep=settings.prune, hidden=settings.hidden,
        width_dim=settings.width_dim, dropout=settings.dropout,
    )  # fmt: skip
    collate = SpanCollate(
        {"report": Use(READS["report"], words)}, schema=schema(), width=settings.max_width, window=settings.window
    )
    return SpanBundle(model, collate, {"system": "radgraph", "title": SYSTEM.title})


def stages(settings: Settings, bundle: SpanBundle) -> tuple[Stage, ...]:
    """One stage: L = w_e * sum over spans of CE(label or none) + w_r * sum over kept pairs of CE(relation or none)."""
    from fabrica.objectives.span_graph import SpanGraph

    loss = {"span_graph": SpanGraph(entity=settings.entity, relation=settings.relation)}
    schedule = Schedule(
        settings.steps, settings.batch, settings.lr, warmup=settings.warmup, weight_decay=settings.weight_decay,
        lr_scale={"encoder": settings.encoder_lr},
    )  # fmt: skip
    return (Stage("graph", bundle.collate, loss, schedule, needs=("report",)),)


def graphs(settings: Settings, model: Extractor, texts: Sequence[str]) -> list[TextGraph]:
    """The graphs of reports, their assertions by the model or by the rules."""
    from fabrica.text.graph_rules import asserted

    made = model(texts)
    return [asserted(g) for g in made] if settings.assertion == "rules" else made


SYSTEM = System(
    seed="S02",
    title="RadGraph: clinical entities and relations of radiology reports",
    paper="Jain et al., NeurIPS 2021 Datasets and Benchmarks, arXiv 2106.14463",
    claim="A span model trained on one hospital's reports extracts entities almost perfectly and relations well; in "
    "another hospital's style relations lose more than entities.",
    departs="Mention scores have a net of their own. Of two directions of a pair the surer relation stays. Indication, "
    "history and technique are not read. Training stops at a fixed step. The CPU backend is a perceptron.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": Settings(
            text="small", max_width=4, prune=0.7, window="sentence", hidden=64, width_dim=8, dropout=0.1, length=96,
            vocabulary=600, width=64, lr=2e-3, encoder_lr=1.0, warmup=20, batch=32, steps=300,
        ),
    },
    build=build,
    stages=stages,
    tasks=("entity_f1", "relation_f1", "graph_reward"),
    plan=plan,
)  # fmt: skip
