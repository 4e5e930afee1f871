"""UniMed-CLIP: one image-text model for many imaging modalities; labels become banks of captions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fabrica.types import Record, Schedule, Stage, System

if TYPE_CHECKING:
    from fabrica.models import Bundle

READS = {"image": ("image",), "text": ("caption", "report")}
POSITIVES = {"identity": None, "same_text": "text", "same_label": "modality+label", "same_finding": "label"}


@dataclass(frozen=True, slots=True)
class Settings:
    """`positives` says which rows of a batch belong together: the pair itself, rows of the same caption, rows of the
    same labels in one modality or ("same_finding") in any (UniCL), which a bank of captions a class needs when classes
    are few. `lora_layers` > 0 trains adapters in the last layers of pretrained towers instead of the towers. Sources
    are mixed by size to the power 1/`mix_temperature`. The text tower learns at `text_lr` x `lr`."""

    image: str = "google/vit-base-patch16-224"
    text: str = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    image_size: int = 224
    channels: int = 3
    length: int = 256
    vocabulary: int = 30_000
    dim: int = 512
    lora_layers: int = 0
    lora_rank: int = 8
    positives: Literal["identity", "same_text", "same_label", "same_finding"] = "identity"
    mix_temperature: float = 1.0
    augment: bool = False
    lr: float = 5e-5
    text_lr: float = 1.0
    weight_decay: float = 0.2
    warmup: int = 1000
    batch: int = 4096
    chunk: int = 64
    steps: int = 13_000  # 10 epochs of 5.3 M pairs
    precision: Literal["no", "bf16"] = "no"
    allow_network: bool = False


def build(settings: Settings, records: Iterable[Record]) -> Bundle:
    """Two towers; at each visit one caption of the record's bank is read."""
    from fabrica.encode.augment import MedicalImageAugment
    from fabrica.encode.collate import Collate, Use
    from fabrica.encode.image import ImageEncode
    from fabrica.models import Bundle, Lora, MultiTower, ProjectionHead, Tower
    from fabrica.models.choose import image_body, text_body

    lora = Lora(settings.lora_rank, 2.0 * settings.lora_rank, settings.lora_layers) if settings.lora_layers else None
    norm: Literal["group", "batch"] = "group" if settings.chunk else "batch"  # a gradient cache allows no batch norm
    image = image_body(
        settings.image, channels=settings.channels, norm=norm, lora=lora, allow_network=settings.allow_network
    )
    text, words = text_body(
        settings.text, records, READS["text"], length=settings.length, vocabulary=settings.vocabulary, view="one_of",
        lora=lora, allow_network=settings.allow_network,
    )  # fmt: skip
    hidden = (text.width + settings.dim) // 2
    towers = {
        "image": Tower(
            image, ProjectionHead((image.width, settings.dim)), pool="cls" if image.has_class_token else "mean"
        ),
        "text": Tower(text, ProjectionHead((text.width, hidden, settings.dim), activation="gelu")),
    }
    views = MedicalImageAugment(flip=0.0, degrees=10.0, sigma=(0.1, 1.0)) if settings.augment else None
    pixels = ImageEncode(settings.image_size, settings.channels, augment=views)
    keys = ("subject", "text", "label", "modality+label")
    collate = Collate({"image": Use(READS["image"], pixels), "text": Use(READS["text"], words)}, keys=keys)
    card = {"system": "unimed_clip", "title": SYSTEM.title, "precision": settings.precision}
    return Bundle(MultiTower(towers, settings.dim), collate, card)


def stages(settings: Settings, bundle: Bundle) -> tuple[Stage, ...]:
    """One stage over all sources shuffled together, so that every batch mixes modalities."""
    from fabrica.objectives.pairs import Contrast

    contrast = Contrast(("image", "text"), positives_by=POSITIVES[settings.positives], watch=("text",))
    schedule = Schedule(
        settings.steps, settings.batch, settings.lr, warmup=settings.warmup, weight_decay=settings.weight_decay,
        lr_scale={"towers.text": settings.text_lr}, chunk=settings.chunk, precision=settings.precision,
    )  # fmt: skip
    mix = {"mix_by": "source", "mix_temperature": settings.mix_temperature}
    return (Stage("pretrain", bundle.collate, {"contrast": contrast}, schedule, needs=("image", "text"), **mix),)  # type: ignore[arg-type]


SYSTEM = System(
    seed="S01",
    title="UniMed-CLIP: a unified image-text model for diverse medical imaging modalities",
    paper="Khattak et al. 2024, arXiv 2412.10372",
    claim="Label-only data turned into many captions gives one model that beats captions alone and equals specialists.",
    departs="Captions come from a grammar of synonyms and frames, not a language model; keyed positives are a choice.",
    reads=READS,
    settings={
        "paper": Settings(),
        "small": Settings(
            "dinov2-vit-s", "minilm", image_size=112, length=64, dim=256, lora_layers=2, positives="same_label",
            mix_temperature=2.0, augment=True, lr=1e-3, weight_decay=0.05, warmup=20, batch=48, chunk=0, steps=140,
            precision="bf16",
        ),
        "tiny": Settings(
            "small", "small", image_size=32, channels=3, length=48, vocabulary=1000, dim=128, positives="same_finding",
            mix_temperature=2.0, lr=3e-3, text_lr=0.1, weight_decay=0.05, warmup=20, batch=32, chunk=0, steps=1600,
        ),
    },
    build=build,
    stages=stages,
    tasks=("zero_shot", "retrieval", "knn", "linear_probe"),
)  # fmt: skip
