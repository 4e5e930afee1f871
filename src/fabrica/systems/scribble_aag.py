"""Scribbles: masks from strokes and unpaired masks of other patients, by adversarially conditioned attention gates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fabrica.types import Record, Schedule, Stage, System

if TYPE_CHECKING:
    from fabrica.models.dense_bundle import DenseBundle

READS = {"image": ("image",)}
PART = "part"  # group: "scribble", "image" (nothing marked), "mask" (of other patients)


@dataclass(frozen=True, slots=True)
class Settings:
    """`classes`, background first; masks are regions of these names, strokes "scribble/" + name. `gates` "adversarial",
    "additive" or "none"; `levels` of the pyramid the critic sees (0 = no critic: partial cross-entropy alone). `critic`
    and `adversarial` weigh L_G on scribbled and on unmarked images; `critic_rate` multiplies `lr` for the critic.
    `supervision` "full" trains on whole masks of the same images: the upper bound."""

    classes: tuple[str, ...] = ("background", "rv", "myo", "lv")
    size: tuple[int, int] = (224, 224)
    scale: Literal["robust", "zscore", "percentile"] = "robust"
    widths: tuple[int, ...] = (32, 64, 128, 256)
    bottleneck: int = 512
    norm: Literal["batch", "instance", "group"] = "batch"
    gates: Literal["adversarial", "additive", "none"] = "adversarial"
    levels: int = 4
    critic_widths: tuple[int, ...] = (32, 128, 256, 512)
    squeeze: int = 12
    noise: float = 0.2
    flip: float = 0.1
    critic: float = 0.1
    adversarial: float = 0.2
    balance: bool = True
    conflict: Literal["unknown", "vote"] = "unknown"
    supervision: Literal["scribble", "full"] = "scribble"
    lr: float = 1e-4
    critic_rate: float = 1.0
    batch: int = 36
    steps: int = 30_000


def build(settings: Settings, records: Iterable[Record]) -> DenseBundle:
    """A U-Net whose decoder gates itself by a segmentation at each depth, and a critic of the pyramid of these."""
    from fabrica.encode.collate import Use
    from fabrica.encode.grid import GridEncode
    from fabrica.encode.masks import MaskCollate, MaskTarget, apart
    from fabrica.models.critics import MaskPyramidCritic
    from fabrica.models.dense import DenseModel, Part
    from fabrica.models.dense_bundle import DenseBundle
    from fabrica.models.gated_unet import GatedUNet

    s = settings
    known = list(records)
    apart([r for r in known if r.groups.get(PART) == "scribble"], [r for r in known if r.groups.get(PART) == "mask"])
    masks = {
        "scribble": MaskTarget(s.classes, "strokes", "scribble/", conflict=s.conflict), "mask": MaskTarget(s.classes),
    }  # fmt: skip
    use = Use(READS["image"], GridEncode(s.size, scale=s.scale))
    parts: dict[str, Part] = {
        "net": GatedUNet(1, len(s.classes), s.widths, s.bottleneck, s.gates, s.norm)
    }  # fmt: skip
    if s.levels and s.supervision == "scribble":
        parts["critic"] = MaskPyramidCritic(
            len(s.classes), s.size, s.critic_widths, s.squeeze, s.noise, s.flip, shown=s.levels
        )
    collate = MaskCollate({"image": use}, masks=masks)
    return DenseBundle(DenseModel(parts), collate, {"system": "scribble_aag", "title": SYSTEM.title})


def stages(settings: Settings, bundle: DenseBundle) -> tuple[Stage, ...]:
    """One stage of three turns: critic; segmentor against the critic on unmarked images; segmentor on scribbles with
    a0 PCE + 0.1 L_G. A batch is drawn from scribbled images, unmarked images and unpaired masks by their numbers."""
    from fabrica.objectives.dense import Dense
    from fabrica.objectives.masks_gan import Fool, MaskCritic, Scribble
    from fabrica.train.alternate import Turns

    s = settings
    rates = {"critic": s.critic_rate} if "critic" in bundle.model.names else {}
    plan = Schedule(s.steps, s.batch, s.lr, clip=None, final=0.1, lr_scale=rates)
    mixed: dict[str, Any] = {"mix_by": PART, "mix_temperature": 1e6}
    if s.supervision == "full":
        return (Stage("masks", bundle.collate, {"net": Dense("mask", balance="inverse", dice=0.0)}, plan, **mixed),)
    if not rates:
        return (Stage("scribbles", bundle.collate, {"net": Scribble(adversarial=0.0)}, plan, **mixed),)
    turns: dict[str, Any] = {
        "critic": MaskCritic(), "net/unmarked": Fool(),
        "net/scribble": Scribble(adversarial=s.critic, balance=s.balance),
    }  # fmt: skip
    weights = {"net/unmarked": s.adversarial}
    return (Turns("scribbles", bundle.collate, turns, plan, coefficients=weights, **mixed),)


SYSTEM = System(
    seed="S08",
    title="Learning to segment from scribbles using multi-scale adversarial attention gates",
    paper="Valvano, Leo, Tsaftaris, IEEE TMI 2021, arXiv 2007.01152",
    claim="With unpaired masks, scribbles come near full supervision; gates and critic beat partial cross-entropy.",
    departs="One AdamW with a cosine in place of two Adams with cycles (moments are by parameter, so the parts stay "
    "apart); the supervised loss holds L_G, never the critic's own loss; the critic is in evaluation mode while the "
    "segmentor learns, so that noise and flips are its own.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": Settings(
            size=(48, 48), widths=(8, 16, 32), bottleneck=64, norm="group", levels=3, critic_widths=(16, 32, 64),
            lr=1.2e-2, critic_rate=0.4, batch=24, steps=250,
        ),
    },
    build=build,
    stages=stages,
    tasks=("segment",),
)  # fmt: skip
