"""ConVIRT: an image encoder from paired images and reports by contrast, one sentence of the report a visit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fabrica.types import Record, Schedule, Stage, System

if TYPE_CHECKING:
    from fabrica.models import Bundle

READS = {"image": ("image",), "text": ("report", "caption")}


@dataclass(frozen=True, slots=True)
class Settings:
    """`image` and `text` name encoders ("small", a folder, a catalogue name, a hub id), `image_pool` the pool over
    image tokens; `tau` is the temperature, `direction_weight` the share of image -> text; the first
    `freeze_text_layers` of the text encoder do not train; `flip` is the chance that augmentation mirrors an image (0
    where reports name sides)."""

    image: str = "microsoft/resnet-50"
    text: str = "emilyalsentzer/Bio_ClinicalBERT"
    image_size: int = 224
    channels: int = 3
    image_pool: Literal["mean", "max"] = "mean"
    length: int = 128
    vocabulary: int = 2000
    dim: int = 512
    tau: float = 0.1
    direction_weight: float = 0.75
    freeze_text_layers: int = 6
    augment: bool = True
    flip: float = 0.5
    warmup: int = 0
    lr: float = 1e-4
    weight_decay: float = 1e-6
    batch: int = 32
    steps: int = 100_000
    allow_network: bool = False


def build(settings: Settings, records: Iterable[Record]) -> Bundle:
    """Two towers under two-layer ReLU heads; text tokens are max-pooled."""
    from fabrica.encode.augment import MedicalImageAugment
    from fabrica.encode.collate import Collate, Use
    from fabrica.encode.image import ImageEncode
    from fabrica.models import Bundle, Freeze, MultiTower, ProjectionHead, Tower
    from fabrica.models.choose import image_body, text_body
    from fabrica.objectives.scale import LogitScale

    image = image_body(settings.image, channels=settings.channels, allow_network=settings.allow_network)
    text, words = text_body(
        settings.text, records, READS["text"], length=settings.length, vocabulary=settings.vocabulary,
        view="one_sentence", allow_network=settings.allow_network,
    )  # fmt: skip
    head = (settings.dim, settings.dim)
    towers = {
        "image": Tower(image, ProjectionHead((image.width, *head)), pool=settings.image_pool),
        "text": Tower(
            text, ProjectionHead((text.width, *head)), pool="max", freeze=Freeze(layers=settings.freeze_text_layers)
        ),
    }
    scale = LogitScale.of_temperature(settings.tau, learnable=False)
    views = MedicalImageAugment(flip=settings.flip) if settings.augment else None
    pixels = ImageEncode(settings.image_size, settings.channels, augment=views)
    collate = Collate(
        {"image": Use(READS["image"], pixels), "text": Use(READS["text"], words)}, keys=("subject", "study")
    )
    return Bundle(MultiTower(towers, settings.dim, scale=scale), collate, {"system": "convirt", "title": SYSTEM.title})


def stages(settings: Settings, bundle: Bundle) -> tuple[Stage, ...]:
    """One stage: l = lambda l(v -> u) + (1 - lambda) l(u -> v); images of one study are no negatives of each other."""
    from fabrica.objectives.pairs import Contrast

    weights = (settings.direction_weight, 1 - settings.direction_weight)
    contrast = Contrast(("image", "text"), weights=weights, exclude_by="study")
    schedule = Schedule(
        settings.steps, settings.batch, settings.lr, warmup=settings.warmup, weight_decay=settings.weight_decay
    )
    return (Stage("pretrain", bundle.collate, {"contrast": contrast}, schedule, needs=("image", "text")),)


SYSTEM = System(
    seed="S84",
    title="ConVIRT: contrastive learning of medical visual representations from paired images and text",
    paper="Zhang et al., MLHC 2022, arXiv 2010.00747",
    claim="Contrast with reports cuts the labels that an image encoder needs by about ten.",
    departs="Cosine schedule instead of halving on plateau; images of one study are masked as false negatives; the "
    "tiny preset learns both towers from nothing and takes the maximum over image tokens.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": Settings(
            "small", "small", image_size=64, channels=1, image_pool="max", length=32, dim=128, freeze_text_layers=0,
            augment=False, flip=0.0, warmup=20, lr=1e-3, batch=32, steps=750,
        ),
    },
    build=build,
    stages=stages,
    tasks=("linear_probe", "retrieval"),
)  # fmt: skip
