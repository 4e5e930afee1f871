"""LLaVA-Med: captions become conversations, then a connector and a language model learn to talk about images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from fabrica.types import Objective, Record, Schedule, Stage, Step, Survey, System

if TYPE_CHECKING:
    from fabrica.models.assistant_bundle import AssistantBundle

READS = {"image": ("image",), "text": ("conversation", "answer", "caption", "report")}
CAPTIONS = ("caption", "report")


@dataclass(frozen=True, slots=True)
class Settings:
    """`vision` and `language` are folders, catalogue names or hub ids, or "small" (random weights). The connector reads
    the vision tower's hidden layer `layer`, averaged over `pool` x `pool` patches. `lora` > 0 adapts the language model
    by adapters of that rank instead of training it whole. `writer` makes the conversations: "template", or a chat
    model's folder or name; `mentions` gives it the article's sentences on the figure as well. `read_steps` of plain
    text come first (a small language model knows nothing yet), then `align_steps` of the connector alone, then
    `steps` of connector and language model."""

    vision: str = "openai/clip-vit-large-patch14"
    language: str = "lmsys/vicuna-7b-v1.3"
    template: Literal["small", "short", "chatml", "vicuna"] = "vicuna"
    image_token: str = "<image>"
    image_size: int = 224
    connector: Literal["linear", "mlp", "normed"] = "linear"
    pool: int = 1
    layer: int = -2
    length: int = 2048
    lora: int = 0
    lora_layers: int = 0
    writer: str = "template"
    mentions: bool = True
    vocabulary: int = 2000
    width: int = 128
    depth: int = 4
    patch: int = 8
    read_steps: int = 0
    read_lr: float = 2e-3
    align_steps: int = 3650  # an epoch of 467 k pairs
    align_lr: float = 2e-3
    steps: int = 1400  # 3 epochs of 60 k conversations
    lr: float = 2e-5
    batch: int = 128
    warmup: float = 0.03
    shuffle: bool = False
    precision: Literal["no", "bf16"] = "no"
    allow_network: bool = False


def plan(settings: Settings) -> Sequence[Step | Survey]:
    """Captions, and what the article says of the figure, to conversations; the writer never sees the image."""
    from fabrica.chat import LocalChat, prompt
    from fabrica.chat.dialogue import TemplateDialogue
    from fabrica.curate.language.converse import Converse

    local = settings.writer != "template"
    writer: Any = LocalChat(settings.writer, allow_network=settings.allow_network) if local else TemplateDialogue()
    return (Converse(writer, prompt("converse"), context=("context",) if settings.mentions else ()),)


def build(settings: Settings, records: Iterable[Record]) -> AssistantBundle:
    """Frozen vision tower, connector, causal language model; the vocabulary comes with the latter's weights."""
    from fabrica.encode.collate import Use
    from fabrica.encode.image import ImageEncode
    from fabrica.encode.turns import ChatCollate
    from fabrica.models.adapt import Lora
    from fabrica.models.assistant_bundle import AssistantBundle
    from fabrica.models.bridge import CLIP_NORM, Assistant, choose_language, choose_vision, choose_words

    small, network = (settings.width, settings.depth), settings.allow_network
    vision = choose_vision(settings.vision, settings.image_size, settings.patch, width=small[0], allow_network=network)
    patch = int(vision.config.patch_size)
    words = choose_words(
        settings.language, (i.text() for r in records for i in r.all(*READS["text"])), settings.vocabulary,
        length=settings.length, template=settings.template, image_token=settings.image_token,
        image_tokens=(settings.image_size // patch) ** 2 // settings.pool**2, allow_network=network,
    )  # fmt: skip
    frozen = "bfloat16" if settings.lora and settings.precision == "bf16" else "float32"  # as it is used
    model = Assistant.assembled(
        vision, choose_language(settings.language, words, small, allow_network=network, dtype=frozen),
        image_id=words.image_id, layer=settings.layer, pool=settings.pool, connector=settings.connector,
        lora=Lora(settings.lora, 2.0 * settings.lora, settings.lora_layers) if settings.lora else None,
    )  # fmt: skip
    norm = CLIP_NORM if "clip" in vision.config.model_type else ()  # else ImageNet's
    pixels = ImageEncode(settings.image_size, 3, *norm)
    collate = ChatCollate(words, Use(READS["image"], pixels), shuffle=settings.shuffle, image_last=True)
    return AssistantBundle(model, collate, {"system": "llava_med", "title": SYSTEM.title})


def stages(settings: Settings, bundle: AssistantBundle) -> tuple[Stage, ...]:
    """Plain text (a small language model only), the connector alone on captions, then both on conversations."""
    from fabrica.objectives.turns import TurnTokens

    model, talk = bundle.model, bundle.collate
    loss: dict[str, Objective] = {"tokens": TurnTokens()}
    captions = replace(talk, roles=CAPTIONS, shuffle=False)
    text = replace(captions.blind(), plain=True)

    def schedule(steps: int, lr: float, *parts: str) -> Schedule:
        return Schedule(
            steps, settings.batch, lr, warmup=round(settings.warmup * steps), lr_scale=model.only(*parts),
            precision=settings.precision,
        )  # fmt: skip

    every = (
        ("read", text, schedule(settings.read_steps, settings.read_lr, "language"), ("text",)),
        ("align", captions, schedule(settings.align_steps, settings.align_lr, "connector"), ("image", "text")),
        ("instruct", talk, schedule(settings.steps, settings.lr, "connector", "language"), ("text",)),
    )
    return tuple(Stage(name, collate, loss, s, needs=needs) for name, collate, s, needs in every if s.steps)


SYSTEM = System(
    seed="S75",
    title="LLaVA-Med: a vision-language assistant for biomedicine from figure captions, in two stages",
    paper="Li, Wong, Zhang et al., NeurIPS 2023 Datasets and Benchmarks, arXiv 2306.00890",
    claim="Aligning a connector on captions, then tuning on conversations that a text model made of them, beats both.",
    departs="Turns that do not fit are left out whole; an invented number drops a turn, as a source spoken of does; "
    "class token and registers are dropped by count, so that any vision tower fits; the image stands after the "
    "question in half of the visits instead of once and for all; small nets instead of the 7 B model in the proof.",
    reads=READS,
    settings={
        "paper": Settings(),
        "paper_1.5": Settings(
            "openai/clip-vit-large-patch14-336", "mistralai/Mistral-7B-Instruct-v0.2", image_size=336, connector="mlp"
        ),
        "small": Settings(
            "dinov2-vit-s", "smollm2-135m", "short", "<file_sep>", 224, "normed", pool=4, layer=-1, length=256, lora=8,
            lora_layers=10, align_steps=0, steps=80, lr=1e-3, batch=8, shuffle=True, precision="bf16",
        ),
        "tiny": Settings(
            "small", "small", "small", image_size=32, connector="mlp", length=160, width=64, depth=2, read_steps=30,
            read_lr=4e-3, align_steps=60, align_lr=5e-2, steps=60, lr=2e-3, batch=16,
        ),
    },
    build=build,
    stages=stages,
    tasks=("vqa",),
    plan=plan,
)  # fmt: skip
