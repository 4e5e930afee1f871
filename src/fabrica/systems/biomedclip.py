"""BiomedCLIP: CLIP with a domain vocabulary and a long context, trained on figures and their captions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fabrica.types import Record, Schedule, Stage, System

if TYPE_CHECKING:
    from fabrica.models import Bundle

READS = {"image": ("image",), "text": ("caption", "report")}


@dataclass(frozen=True, slots=True)
class Settings:
    """`length` is the context in word pieces (CLIP has 77); `chunk` > 0 encodes the batch by gradient cache, so that
    `batch` may exceed what memory holds at once. `width` and `depth` are those of the "small" text tower."""

    image: str = "google/vit-base-patch16-224"
    text: str = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    image_size: int = 224
    channels: int = 3
    length: int = 256
    vocabulary: int = 30_000
    width: int = 128
    depth: int = 1
    dim: int = 512
    scale: float = 1 / 0.07
    scale_max: float = 100.0
    lr: float = 5e-4
    weight_decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: int = 2000
    batch: int = 4096
    chunk: int = 64
    steps: int = 108_000  # 32 epochs of 13.9 M pairs
    allow_network: bool = False


def build(settings: Settings, records: Iterable[Record]) -> Bundle:
    """A linear head on the image's class token, a GELU head on the text's; one learned scale, capped."""
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
    hidden = (text.width + settings.dim) // 2
    towers = {
        "image": Tower(
            image, ProjectionHead((image.width, settings.dim)), pool="cls" if image.has_class_token else "mean"
        ),
        "text": Tower(text, ProjectionHead((text.width, hidden, settings.dim), activation="gelu"), pool="cls"),
    }
    pixels = ImageEncode(settings.image_size, settings.channels)
    collate = Collate(
        {"image": Use(READS["image"], pixels), "text": Use(READS["text"], words)}, keys=("subject", "text")
    )
    scale = LogitScale(settings.scale, max=settings.scale_max)
    card = {"system": "biomedclip", "title": SYSTEM.title}
    return Bundle(MultiTower(towers, settings.dim, scale=scale), collate, card)


def stages(settings: Settings, bundle: Bundle) -> tuple[Stage, ...]:
    """One stage of plain CLIP over the whole batch, gathered from all processes."""
    from fabrica.objectives.pairs import Contrast

    schedule = Schedule(
        settings.steps, settings.batch, settings.lr, warmup=settings.warmup, weight_decay=settings.weight_decay,
        betas=settings.betas, chunk=settings.chunk,
    )  # fmt: skip
    return (
        Stage("pretrain", bundle.collate, {"contrast": Contrast(("image", "text"))}, schedule, needs=("image", "text")),
    )


SYSTEM = System(
    seed="S31",
    title="BiomedCLIP: CLIP adapted to biomedicine, trained on figure-caption pairs",
    paper="Zhang, Xu, Usuyama et al., arXiv 2303.00915",
    claim="A domain vocabulary and a long context beat generic CLIP's text side at the same data and compute.",
    departs="Figures come from any corpus of image-caption records; the batch does not grow during training.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": Settings(
            "small", "small", image_size=32, channels=1, length=160, vocabulary=2000, width=64, depth=2, dim=64,
            lr=2e-3, warmup=20, weight_decay=0.05, batch=32, chunk=0, steps=560,
        ),
    },
    build=build,
    stages=stages,
    tasks=("retrieval", "zero_shot"),
)  # fmt: skip
