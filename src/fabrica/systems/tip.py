"""TIP: images and tables with holes, pre-trained by contrast, matching and masked cells; fine-tuned on few labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fabrica.types import Record, Schedule, Stage, System

if TYPE_CHECKING:
    from fabrica.models.fusion_bundle import FusionBundle

READS = {"image": ("image",), "table": ("table", "labs")}


@dataclass(frozen=True, slots=True)
class Settings:
    """`categories` names the table's columns of codes, `tasks` label -> classes (none: every yes/no label of the
    training part). `width`, `heads`, `layers` of the table encoder and `fusion_layers` of the interaction. A share
    `mask` of the columns is hidden and `corrupt` of the cells drawn anew in pre-training, whose three losses have
    `weights`; `per_column` and `mask_fusion` are ours, see `objectives.masked_table` and `models.table_image`. So is
    `drop`, the share of rows whose image is hidden at a visit of pre-training (`train.modality_dropout`): a table
    alone is then nothing new to the net. `frozen` fine-tunes the classifiers alone. `pretrain` False leaves the first
    stage out."""

    categories: tuple[str, ...] = ()
    tasks: Mapping[str, int] = field(default_factory=dict)
    image: str = "microsoft/resnet-50"
    image_size: int = 128
    channels: int = 3
    augment: bool = True
    width: int = 512
    heads: int = 8
    layers: int = 4
    fusion_layers: int = 4
    dim: int = 128
    tau: float = 0.1
    mask: float = 0.5
    corrupt: float = 0.3
    weights: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
    per_column: bool = False
    mask_fusion: bool = False
    drop: float = 0.0
    pretrain: bool = True
    frozen: bool = False
    lr: float = 3e-4
    weight_decay: float = 1e-4
    batch: int = 128
    steps: int = 100_000  # 500 epochs of 26,040 people
    warmup: int = 2000
    fine_lr: float = 1e-3
    fine_batch: int = 64
    fine_steps: int = 5000
    allow_network: bool = False


def build(settings: Settings, records: Iterable[Record]) -> FusionBundle:
    """The schema comes from `records`, the training part."""
    from fabrica.encode.augment import MedicalImageAugment
    from fabrica.encode.cells import CellsEncode, TableSchema
    from fabrica.encode.collate import Collate, Use
    from fabrica.encode.image import ImageEncode
    from fabrica.models import ProjectionHead, Tower
    from fabrica.models.choose import image_body
    from fabrica.models.field_tower import tasks_in
    from fabrica.models.fusion_bundle import FusionBundle
    from fabrica.models.table_image import TableImage
    from fabrica.models.table_tokens import TableEncoder
    from fabrica.objectives.scale import LogitScale

    known = list(records)
    schema = TableSchema.fit(known, READS["table"], categories=settings.categories)
    table = TableEncoder(schema, settings.width, settings.layers, settings.heads)
    image = image_body(settings.image, channels=settings.channels, norm="batch", allow_network=settings.allow_network)
    towers = {
        "image": Tower(image, ProjectionHead((image.width, image.width, settings.dim))),
        "table": Tower(table, ProjectionHead((table.width, table.width, settings.dim)), pool="cls"),
    }
    tasks = tasks_in(known, settings.tasks)
    model = TableImage(
        towers, settings.dim, tasks, layers=settings.fusion_layers, heads=settings.heads,
        mask_fusion=settings.mask_fusion, scale=LogitScale.of_temperature(settings.tau, learnable=False),
    )  # fmt: skip
    views = MedicalImageAugment() if settings.augment else None
    uses = {
        "image": Use(READS["image"], ImageEncode(settings.image_size, settings.channels, augment=views)),
        "table": Use(READS["table"], CellsEncode(schema)),
    }
    card = {"system": "tip", "title": SYSTEM.title}
    return FusionBundle(model, Collate(uses, targets=tuple(tasks)), card)


def stages(settings: Settings, bundle: FusionBundle) -> tuple[Stage, ...]:
    """Pre-training needs no label; fine-tuning learns from the mean of three logits."""
    from fabrica.objectives.multitask import Tasks
    from fabrica.objectives.table_image import TablePretrain
    from fabrica.train.modality_dropout import ModalityDropout

    whole = TablePretrain(settings.weights, settings.corrupt, settings.mask, settings.per_column)
    first = ModalityDropout(whole, settings.drop, ("image",)) if settings.drop else whole
    tasks = Tasks(bundle.collate.targets, tuple(READS), of="answer")
    before = Schedule(
        settings.steps, settings.batch, settings.lr, warmup=settings.warmup, weight_decay=settings.weight_decay
    )
    held = {"towers": 0.0, "interact": 0.0} if settings.frozen else {}
    after = Schedule(
        settings.fine_steps, settings.fine_batch, settings.fine_lr, weight_decay=settings.weight_decay, lr_scale=held
    )
    tune = Stage("finetune", bundle.collate, {"tasks": tasks}, after)
    return (Stage("pretrain", bundle.collate, {"tip": first}, before), tune) if settings.pretrain else (tune,)


_TINY = Settings(
    image="small", image_size=48, channels=1, augment=False, width=32, heads=4, layers=2, fusion_layers=1, dim=32,
    lr=4e-3, batch=64, steps=400, warmup=20, fine_lr=1e-3, fine_batch=32, fine_steps=100,
)  # fmt: skip
SYSTEM = System(
    seed="S86",
    title="TIP: tabular-image pre-training for classification with incomplete data",
    paper="Du et al., ECCV 2024, arXiv 2407.07582",
    claim="Pre-training on image and table together beats training from few labels, more so the more is missing.",
    departs="Losses over missing kinds of cells count for nothing (the public code divides by 0); hard negatives are "
    "never of one person nor the same table; cells are corrupted by percentiles of the training part; a record without "
    "image or without table is answered by the parts that it has.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": _TINY,
        "cohort": replace(
            _TINY, categories=("category0", "category1", "category2", "category3"), tasks={"case": 2}, steps=500
        ),
    },
    build=build,
    stages=stages,
    tasks=("any_subset", "rate_curve"),
)  # fmt: skip
