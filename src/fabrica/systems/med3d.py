"""Med3D: one 3-D encoder co-trained on many sets, each with a weak decoder of its own, then transferred."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fabrica.types import Record, Schedule, Stage, System

if TYPE_CHECKING:
    from fabrica.models.dense_bundle import DenseBundle

READS = {"image": ("volume",)}
SETS: Mapping[str, tuple[str, ...]] = {f"set{i}": ("background", o) for i, o in enumerate(
    ("liver", "spleen", "kidney", "aorta", "spine", "liver", "spleen", "kidney"))}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """`sets`: label space by the record's group `by`, background first. `decoders` "separate" gives each set a head of
    its own; "merged" is one head for the union, where an organ that a set does not label is its background. `weights`
    names a folder of an earlier co-training: its encoder is taken over (at least 95 % of it), and learns at
    `backbone_rate` times the heads' rate. Statistics of intensities are of the voxels above `above` (None = all; in CT
    0 HU is water). `depth`: blocks of each layer."""

    sets: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: SETS)
    by: str = "source"
    decoders: Literal["separate", "merged"] = "separate"
    head: Literal["weak", "strong"] = "weak"
    size: tuple[int, int, int] = (56, 448, 448)
    spacing: tuple[float, float, float] | None = None
    scale: Literal["robust", "zscore", "percentile"] | tuple[float, float] = "zscore"
    above: float | None = None
    depth: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    block: Literal["basic", "bottleneck"] = "basic"
    shortcut: str = "A"
    first: int = 7
    pool: bool = True
    norm: Literal["batch", "group"] = "batch"
    weights: str = ""
    backbone_rate: float = 0.01
    dice: float = 0.0
    mix_temperature: float = 1e6
    lr: float = 1e-3
    weight_decay: float = 1e-3
    batch: int = 8
    steps: int = 40_000


def build(settings: Settings, records: Iterable[Record]) -> DenseBundle:
    """The encoder, a head for each set (or one for all), and the label space of every set."""
    from fabrica.encode.collate import Use
    from fabrica.encode.grid import GridEncode
    from fabrica.encode.masks import DomainTarget, MaskCollate, MaskTarget
    from fabrica.models.dense import DenseModel
    from fabrica.models.dense_bundle import DenseBundle
    from fabrica.models.shared_encoder import SharedEncoder

    s = settings
    spaces = {name: MaskTarget(tuple(classes)) for name, classes in s.sets.items()}
    heads = {name: len(space.classes) for name, space in spaces.items()}
    if s.decoders == "merged":
        every = tuple(dict.fromkeys(c for space in spaces.values() for c in space.classes))
        spaces, heads = dict.fromkeys(spaces, MaskTarget(every)), {"merged": len(every)}
    net = SharedEncoder(
        heads, 1, s.depth, s.widths, s.block, s.shortcut, s.head, s.first, s.pool, norm=s.norm
    )  # fmt: skip
    grid = GridEncode(s.size, spacing=s.spacing, scale=s.scale, above=s.above)
    collate = MaskCollate({"image": Use(READS["image"], grid)}, masks={"mask": DomainTarget(spaces, s.by)})
    bundle = DenseBundle(DenseModel({"net": net}), collate, {"system": "med3d", "title": SYSTEM.title})
    if s.weights:
        from fabrica.models.transfer import transfer

        source = DenseBundle.from_pretrained(s.weights).model.state_dict()
        report = transfer(bundle.model, source, backbone="net.encoder.")
        bundle.card["transfer"] = str(report)
    return bundle


def stages(settings: Settings, bundle: DenseBundle) -> tuple[Stage, ...]:
    """One stage: batches mixed over the sets, each volume by its own set's head."""
    from fabrica.objectives.by_domain import ByDomain
    from fabrica.objectives.dense import Dense

    s = settings
    objective: Any = ByDomain(dice=s.dice) if s.decoders == "separate" else Dense("mask", dice=s.dice)
    rates = {"net.encoder": s.backbone_rate} if s.weights else {}
    plan = Schedule(s.steps, s.batch, s.lr, weight_decay=s.weight_decay, final=0.1, lr_scale=rates)
    mixed: dict[str, Any] = {"mix_by": s.by, "mix_temperature": s.mix_temperature}
    return (Stage("transfer" if s.weights else "cotrain", bundle.collate, {"mask": objective}, plan, **mixed),)


SYSTEM = System(
    seed="S81",
    title="Med3D: transfer learning for 3D medical image analysis",
    paper="Chen, Ma, Zheng, 2019, arXiv 1904.00625",
    claim="Co-training on sets with different organs gives an encoder that converges faster and ends no lower.",
    departs="AdamW with a cosine for SGD; logits are interpolated to the label's grid, the label is not shrunk; images "
    "are resampled linearly, not by nearest neighbour; no noise in the background, so predictions repeat. Tiny: soft "
    "Dice beside cross-entropy in co-training, which alone leaves small organs unlearned in a few hundred steps.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": Settings(
            size=(24, 24, 24), depth=(1, 1, 1, 1), widths=(8, 16, 16, 16), shortcut="B", first=3, pool=False,
            norm="group", backbone_rate=1.0, dice=1.0, lr=5e-3, weight_decay=0.0, batch=8, steps=300,
        ),
    },
    build=build,
    stages=stages,
    tasks=("segment",),
)  # fmt: skip
