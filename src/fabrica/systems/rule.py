"""RULE: as many reference reports as a certificate allows, and a reader taught when not to believe them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fabrica.types import ChatModel, Item, Record, Schedule, Stage, System

if TYPE_CHECKING:
    from fabrica.models import Bundle
    from fabrica.retrieve.certify import RiskControlled
    from fabrica.retrieve.choose import Choose, Hit
    from fabrica.retrieve.reports import Query, ReportStore

READS = {"image": ("image",), "text": ("report",)}


@dataclass(frozen=True, slots=True)
class Settings:
    """The retriever, then the choice, then the reader.

    `image` and `text` name encoders; `temperature` divides the cosines at the start. `hybrid` joins the search by
    picture with one by the question's words. `choose` "certified" shows as many reports as calibration allows at risk
    `alpha` with confidence 1 - `delta` among `candidates` sizes (`fwer` says how the tests share delta), "ratio" keeps
    a report while the best score is less than `ratio` times its own, "fixed" shows `most`. KBPT: `beta`,
    `prefer_lr`, `prefer_steps`, `prefer_batch`; `reader` is the start of the logistic policy: column -> weight.
    """

    image: str = "microsoft/resnet-50"
    text: str = "emilyalsentzer/Bio_ClinicalBERT"
    image_size: int = 224
    channels: int = 3
    length: int = 77
    vocabulary: int = 30_000
    width: int = 128
    depth: int = 1
    dim: int = 512
    temperature: float = 0.07
    lr: float = 1e-4
    weight_decay: float = 0.1
    warmup: int = 1000
    batch: int = 512
    chunk: int = 64
    steps: int = 20_000
    hybrid: bool = False
    choose: Literal["certified", "ratio", "fixed"] = "certified"
    alpha: float = 0.2
    delta: float = 0.1
    candidates: tuple[int, ...] = tuple(range(11))
    fwer: Literal["bonferroni", "holm"] = "bonferroni"
    ratio: float = 1.3
    most: int = 5
    beta: float = 0.1
    prefer_lr: float = 1e-7
    prefer_steps: int = 3000
    prefer_batch: int = 4
    reader: tuple[tuple[str, float], ...] = (("own", 1.0), ("vote", 2.5), ("vote_by_likeness", 0.0))
    allow_network: bool = False


def build(settings: Settings, records: Iterable[Record]) -> Bundle:
    """The retriever: two towers under linear heads, one learned scale."""
    from fabrica.encode.collate import Collate, Use
    from fabrica.encode.image import ImageEncode
    from fabrica.models import Bundle, MultiTower, ProjectionHead, Tower
    from fabrica.models.choose import image_body, text_body
    from fabrica.objectives.scale import LogitScale

    norm: Literal["group", "batch"] = "group" if settings.chunk else "batch"
    image = image_body(settings.image, channels=settings.channels, norm=norm, allow_network=settings.allow_network)
    text, words = text_body(
        settings.text, records, READS["text"], length=settings.length, vocabulary=settings.vocabulary,
        width=settings.width, depth=settings.depth, allow_network=settings.allow_network,
    )  # fmt: skip
    towers = {
        "image": Tower(
            image, ProjectionHead((image.width, settings.dim)), pool="max" if settings.image == "small" else "mean"
        ),
        "text": Tower(text, ProjectionHead((text.width, settings.dim)), pool="mean"),
    }
    pixels = ImageEncode(settings.image_size, settings.channels)
    uses = {"image": Use(READS["image"], pixels), "text": Use(READS["text"], words)}
    model = MultiTower(towers, settings.dim, scale=LogitScale(1 / settings.temperature, max=100.0))
    return Bundle(model, Collate(uses, keys=("subject",)), {"system": "rule", "title": SYSTEM.title})


def reader(settings: Settings) -> Bundle:
    """The reader that runs on a CPU: a logistic policy over own evidence and what the references vote."""
    from fabrica.models.policy import yes_no_policy

    return yes_no_policy(dict(settings.reader), card={"system": "rule", "title": "RULE's reader"})


def stages(settings: Settings, bundle: Bundle) -> tuple[Stage, ...]:
    """Of a retriever: L = 1/2 [CE(S, diag) + CE(S^T, diag)], S = cosines / temperature; two images of a patient are no
    negatives. Of a reader: KBPT, that is DPO over the pairs that `curate.preference.mine` made of its own answers."""
    from fabrica.objectives.pairs import Contrast
    from fabrica.objectives.preference import PreferYes

    if "evidence" in bundle.fields:
        schedule = Schedule(settings.prefer_steps, settings.prefer_batch, settings.prefer_lr)
        prefer = {"prefer": PreferYes("evidence", settings.beta)}
        return (Stage("kbpt", bundle.collate, prefer, schedule, needs=("evidence",)),)
    contrast = {"contrast": Contrast(("image", "text"), exclude_by="subject")}
    schedule = Schedule(
        settings.steps, settings.batch, settings.lr, warmup=settings.warmup, weight_decay=settings.weight_decay,
        chunk=settings.chunk,
    )  # fmt: skip
    return (Stage("retrieve", bundle.collate, contrast, schedule, needs=("image", "text")),)


# ---------------------------------------------------------------- answering: retrieve, choose, prompt, read


def store(bundle: Bundle, records: Sequence[Record]) -> ReportStore:
    """The reports of the training part with their rows."""
    from fabrica.retrieve.reports import ReportStore

    ids, rows, present = bundle.embed(records, "text")
    return ReportStore.of_records(
        [r for r, here in zip(records, present, strict=True) if here], dict(zip(ids, rows, strict=True))
    )


def queries(settings: Settings, bundle: Bundle, records: Sequence[Record], asked: Mapping[str, str]) -> list[Query]:
    """One query a record: its image's row, and its question (`asked` record -> text) where the search is hybrid."""
    from fabrica.retrieve.reports import Query

    ids, rows, _ = bundle.embed(records, "image")
    row = dict(zip(ids, rows, strict=True))
    return [Query(r.id, r.subject, row[r.id], asked[r.id] if settings.hybrid else "") for r in records]


def calibrator(settings: Settings) -> RiskControlled:
    """What turns losses by size into a certificate."""
    from fabrica.retrieve.certify import RiskControlled

    return RiskControlled(settings.alpha, settings.delta, settings.candidates, fwer=settings.fwer)


@dataclass(frozen=True, slots=True)
class Answered:
    """`value` True = yes, None = could not be read (wrong, and counted apart); what was shown; the prompt's mark."""

    value: bool | None
    text: str
    shown: tuple[Hit, ...]
    prompt: str


def answer(
    model: ChatModel, image: Item, question: str, hits: Sequence[Hit], texts: Mapping[str, str], choose: Choose
) -> Answered:
    """One closed question with the chosen reports before it; without any, the prompt does not speak of reports."""
    from fabrica.chat.prompts import prompt
    from fabrica.text.yes_no import extract
    from fabrica.types import Message

    shown = choose(hits)
    made = prompt("closed_with_reports" if shown else "closed", 1)
    told = {} if not shown else {
        "count": "1 report" if len(shown) == 1 else f"{len(shown)} reports",
        "reports": "\n".join(f"{n}. {texts[h.id]}" for n, h in enumerate(shown, 1)),
    }  # fmt: skip
    *before, last = made.messages(question=question, **told)
    reply = model((*before, Message(last.role, (image, *last.parts))), max_tokens=64)
    return Answered(extract(reply.text).value, reply.text, shown, made.mark)


SYSTEM = System(
    seed="S77",
    title="RULE: reliable multimodal retrieval-augmented generation for factuality in medical vision-language models",
    paper="Xia et al., EMNLP 2024, arXiv 2407.05131",
    claim="A calibrated number of reports keeps the risk below a bound where picking by observed risk does not; "
    "preference pairs halve over-reliance on them.",
    departs="Towers start from separate weights. The p-value is Hoeffding-Bentkus. The reader trained here is a "
    "logistic policy; `train.prefer` tunes a causal language model by trl. Pairs that say the same, contradict the "
    "reference answer or cannot be read are left out.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": Settings(
            image="small", text="small", image_size=64, channels=1, length=48, vocabulary=800, width=64, dim=64,
            temperature=0.1, lr=1e-3, warmup=20, batch=32, chunk=0, steps=300, most=3, beta=1.0, prefer_lr=0.05,
            prefer_steps=100, prefer_batch=64,
        ),
    },
    build=build,
    stages=stages,
    tasks=("over_reliance", "helped", "certificate"),
)  # fmt: skip
