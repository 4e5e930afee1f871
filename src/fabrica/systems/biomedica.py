"""BIOMEDICA: every figure of open articles with caption, context, licence and concept; CLIP trained on the stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fabrica.types import Record, Schedule, Stage, Step, Survey, System

if TYPE_CHECKING:
    from fabrica.models import Bundle

READS = {"image": ("image",), "text": ("caption", "report")}
TRAIN = "split = 'train'"
ONCE = f"{TRAIN} AND NOT array_has(tags, 'copy:again')"


@dataclass(frozen=True, slots=True)
class Settings:
    """The archive, then the model.

    `concepts` names the file that `ClusterModel.save` wrote once annotators had labelled the clusters ("" = figures are
    not labelled yet), `keep` the concepts that stay (() = all) and `cap` the most figures of one (0 = no cap);
    `licences` the groups a model may learn from ("commercial" alone for a model that is sold); `panels` makes a record
    of each panel of a compound figure; `once` leaves a picture's copies in other articles out of training (a filter
    on a corpus, so not where records are held in memory). `models.average.wise_ft` averages the weights afterwards.
    """

    concepts: str = ""
    keep: tuple[str, ...] = ()
    cap: int = 0
    licences: tuple[str, ...] = ("commercial", "noncommercial", "other")
    panels: bool = False
    once: bool = True
    image: str = "google/vit-large-patch16-224"
    text: str = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    image_size: int = 224
    channels: int = 3
    length: int = 77
    vocabulary: int = 30_000
    width: int = 128
    depth: int = 1
    dim: int = 768
    scale: float = 1 / 0.07
    scale_max: float = 100.0
    lr: float = 1e-6
    weight_decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: int = 1000
    batch: int = 8192
    chunk: int = 64
    steps: int = 26_000  # 9 epochs of 24 M pairs
    allow_network: bool = False


def plan(settings: Settings) -> Sequence[Step | Survey]:
    """The archive: newest versions, sub-captions and panels, concepts propagated, kept and capped, copies named, and
    what looks alike on one side of the split."""
    from fabrica.curate.articles.archive import CapConcepts, FigureCopies, KeepConcepts, LatestVersion
    from fabrica.curate.articles.concepts import ClusterModel, Propagate
    from fabrica.curate.articles.figures import PanelRecords, PanelSplit, SubCaptions
    from fabrica.curate.duplicates.dedup import ImageDuplicates
    from fabrica.curate.pools.colour_texture import ColourTexture
    from fabrica.curate.split import BySubject

    steps: list[Step | Survey] = [LatestVersion(), SubCaptions(), PanelSplit()]
    if settings.panels:
        steps.append(PanelRecords())
    if settings.concepts:
        model, labels = ClusterModel.load(Path(settings.concepts))
        steps.append(Propagate(model=model, labels=labels, embed=ColourTexture()))
    if settings.keep or set(settings.licences) != {"commercial", "noncommercial", "other"}:
        steps.append(KeepConcepts(keep=settings.keep, licences=settings.licences))
    if settings.cap:
        steps.append(CapConcepts(cap=settings.cap))
    return (*steps, FigureCopies(), ImageDuplicates(exact="group"), BySubject())


def build(settings: Settings, records: Iterable[Record]) -> Bundle:
    """CLIP: a linear head on each tower, one learned scale, capped."""
    from fabrica.encode.collate import Collate, Use
    from fabrica.encode.image import ImageEncode
    from fabrica.models import Bundle, MultiTower, ProjectionHead, Tower
    from fabrica.models.choose import image_body, text_body
    from fabrica.objectives.scale import LogitScale

    norm: Literal["group", "batch"] = "group" if settings.chunk else "batch"  # a gradient cache allows no batch norm
    image = image_body(settings.image, channels=settings.channels, norm=norm, allow_network=settings.allow_network)
    text, words = text_body(
        settings.text, records, READS["text"], length=settings.length, vocabulary=settings.vocabulary,
        width=settings.width, depth=settings.depth, allow_network=settings.allow_network,
    )  # fmt: skip
    towers = {
        "image": Tower(
            image, ProjectionHead((image.width, settings.dim)), pool="cls" if image.has_class_token else "mean"
        ),
        "text": Tower(text, ProjectionHead((text.width, settings.dim)), pool="cls"),
    }
    pixels = ImageEncode(settings.image_size, settings.channels)
    collate = Collate(
        {"image": Use(READS["image"], pixels), "text": Use(READS["text"], words)}, keys=("subject", "text")
    )
    scale = LogitScale(settings.scale, max=settings.scale_max)
    return Bundle(
        MultiTower(towers, settings.dim, scale=scale), collate, {"system": "biomedica", "title": SYSTEM.title}
    )


def stages(settings: Settings, bundle: Bundle) -> tuple[Stage, ...]:
    """One pass of L = 1/2 [CE(s u v^T, I) + CE(s v u^T, I)] over the stream, each picture once whatever its copies."""
    from fabrica.objectives.pairs import Contrast

    schedule = Schedule(
        settings.steps, settings.batch, settings.lr, warmup=settings.warmup, weight_decay=settings.weight_decay,
        betas=settings.betas, chunk=settings.chunk,
    )  # fmt: skip
    where = ONCE if settings.once else TRAIN
    contrast = {"contrast": Contrast(("image", "text"))}
    return (Stage("stream", bundle.collate, contrast, schedule, where=where, needs=("image", "text")),)


SYSTEM = System(
    seed="S23",
    title="BIOMEDICA: an open biomedical image-caption archive from scientific literature, and CLIP trained on it",
    paper="Lozano, Sun, Burgess et al., CVPR 2025, arXiv 2501.07171",
    claim="Expert labels of clusters reach every figure at a few percent of the labels, and a concept-filtered stream "
    "trains a better CLIP at equal samples seen.",
    departs="Towers start from separate ViT-L and BiomedBERT weights, not from CLIP's own pair. Bibliographic fields "
    "come from the article itself: no Entrez query adds MeSH. Clusters need no download by default (colour and texture "
    "features); a DINOv2 tower takes that place where one is given. K-means runs on the unit sphere.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": Settings(
            image="small", text="small", image_size=32, channels=3, length=24, vocabulary=800, width=64, depth=1,
            dim=64, once=False, lr=2e-3, warmup=20, weight_decay=0.05, batch=32, chunk=0, steps=400,
        ),
    },
    build=build,
    stages=stages,
    tasks=("zero_shot", "retrieval"),
    plan=plan,
)  # fmt: skip
