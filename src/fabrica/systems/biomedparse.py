"""BiomedParse: an object's name in, its mask out; all named parts of an image at once; "absent" with a p-value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fabrica.types import Record, Schedule, Stage, System

if TYPE_CHECKING:
    from fabrica.curate.ontology import Ontology
    from fabrica.models.prompt_bundle import PromptBundle

READS = {"image": ("image",)}


@dataclass(frozen=True, slots=True)
class Settings:
    """`ontology` None: each mask label of the data is an object without synonyms. `scale`: how intensities come to
    0..1 (see StretchEncode). `patch`: side of the squares of pixels that the U-Net reads as one. `prompts` a visit, of
    which `absent` of objects that were looked for and not found.
    `joint`: prompts of an image share their queries in training, as published; when asked, each has its own.
    `match_word`: how much the query that a prompt means counts in matching. Where each prompt has its own queries,
    the best mask of all is an answer that the truth chose; a high value trains what will be answered."""

    ontology: Ontology | None = None
    size: tuple[int, int] = (1024, 1024)
    scale: Literal["percentile"] | tuple[float, float] = (0.0, 255.0)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    bottleneck: int = 512
    masks: int = 512
    patch: int = 1
    norm: Literal["batch", "instance", "group"] = "group"
    width: int = 512
    queries: int = 101
    layers: int = 9
    heads: int = 8
    feedforward: int = 2048
    text_width: int = 512
    text_depth: int = 12
    length: int = 77
    vocabulary: int = 30_000
    points: int = 12_544
    match_word: float = 2.0
    prompts: int = 10
    absent: int = 1
    joint: bool = False
    lr: float = 1e-4
    body: float = 0.1  # rates of encoder and text tower, as a part of `lr`: the paper has them pre-trained, and where
    tower: float = 0.1  # they are not, they bear a higher one than the decoder's attention does
    decay: float = 0.05
    clip: float = 5.0
    warmup: int = 500
    batch: int = 32
    steps: int = 30_000


def build(settings: Settings, records: Iterable[Record]) -> PromptBundle:
    """A U-Net that runs once an image, a text tower, and queries that read one prompt and the image."""
    from fabrica.curate.ontology import Ontology
    from fabrica.encode.collate import Use
    from fabrica.encode.prompts import PromptCollate
    from fabrica.encode.stretch import StretchEncode
    from fabrica.encode.text import TextEncode
    from fabrica.encode.vocabulary import train_vocabulary
    from fabrica.models.prompt_bundle import PromptBundle, PromptModel
    from fabrica.models.query_decoder import PromptNet, PromptText

    s = settings
    names = s.ontology or Ontology.of(records)
    words = TextEncode(train_vocabulary(names.texts(), s.vocabulary, min_frequency=1), s.length)
    use = Use(READS["image"], StretchEncode(s.size, 3, scale=s.scale))
    collate = PromptCollate({"image": use}, ontology=names, words=words, most=s.prompts, absent=s.absent)
    net = PromptNet(3, s.text_width, s.widths, s.bottleneck, s.masks, s.width, s.queries, s.layers, s.heads,
                    s.feedforward, s.norm, s.patch)  # fmt: skip
    text = PromptText(words.size, s.text_width, s.text_depth, s.heads, s.length)
    card = {"system": "biomedparse", "title": SYSTEM.title}
    return PromptBundle(PromptModel({"net": net, "text": text}), collate, card)


def stages(settings: Settings, bundle: PromptBundle) -> tuple[Stage, ...]:
    """One stage: masks of the matched queries and which query a prompt means, after every layer."""
    from fabrica.objectives.query_set import QuerySet

    s = settings
    plan = Schedule(
        s.steps, s.batch, s.lr, warmup=s.warmup, weight_decay=s.decay, clip=s.clip,
        lr_scale={"net.body": s.body, "text": s.tower},
    )  # fmt: skip
    masks = QuerySet(points=s.points, match_word=s.match_word, joint=s.joint)
    return (Stage("prompts", bundle.collate, {"masks": masks}, plan),)


SYSTEM = System(
    seed="S90",
    title="BiomedParse: a foundation model for image parsing of everything everywhere all at once",
    paper="Zhao et al., Nature Methods 2025, arXiv 2405.12971",
    claim="One text-prompted model segments many objects without boxes, most of all irregular ones, and says what is "
    "not there.",
    departs="A U-Net in place of the pre-trained focal net with its pixel decoder, a text tower from scratch; each "
    "prompt has queries of its own, so that it is answered alike alone and among others (`joint` trains them as "
    "published), and its words make a mask vector that the queries correct; empty masks of objects that were looked "
    "for are learned; the p-value is calibrated on held-out masks; cosine in place of two drops.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": Settings(
            size=(48, 48), scale="percentile", widths=(24, 48, 56), bottleneck=56, masks=24, patch=2, norm="batch",
            width=48, queries=6, layers=1, heads=4, feedforward=128, text_width=64, text_depth=1, length=32,
            vocabulary=400, points=256, match_word=20.0, prompts=4, absent=3, lr=1e-3, body=3.0, tower=3.0, clip=1.0,
            warmup=100, batch=4, steps=1000,
        ),
    },
    build=build,
    stages=stages,
    tasks=("segment",),
)  # fmt: skip
