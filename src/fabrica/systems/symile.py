"""Symile: contrast any number of modalities at once by a multilinear inner product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fabrica.types import Record, Schedule, Stage, System

if TYPE_CHECKING:
    from fabrica.encode import Encode
    from fabrica.models import Body, Bundle

READS = {"cxr": ("image",), "ecg": ("ecg",), "labs": ("labs", "table")}
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


@dataclass(frozen=True, slots=True)
class Settings:
    """`fields` says which kind of tower reads a field: "image", "signal", "table" (values with flags) or "linear" (one
    layer on values with flags). `negatives` "n" draws N - 1 tuples an anchor, "n_squared" takes all pairs of the
    others. `absent` "token" trains on incomplete records with a learned vector in place of what is missing;
    "exclude" leaves them out. `loss` "pairwise" is the sum of CLIP losses, the baseline."""

    fields: Mapping[str, str] = field(default_factory=lambda: {"cxr": "image", "ecg": "signal", "labs": "table"})
    image: str = "microsoft/resnet-50"
    image_size: int = 320
    channels: int = 3
    rate: float = 500.0
    seconds: float = 10.0
    dim: int = 8192
    normalise: Literal["l2", "layernorm"] = "layernorm"
    loss: Literal["multilinear", "pairwise"] = "multilinear"
    negatives: Literal["n", "n_squared", "all"] = "n"
    absent: Literal["exclude", "token"] = "token"
    scale: float = 1 / 0.07
    scale_max: float | None = None
    lr: float = 1e-4
    weight_decay: float = 0.1
    batch: int = 280
    steps: int = 3000
    allow_network: bool = False


def build(settings: Settings, records: Iterable[Record]) -> Bundle:
    """One tower a field, a linear head each; statistics of tables come from `records`, the training part."""
    from fabrica.encode.collate import Collate, Use
    from fabrica.models import Bundle, MultiTower, ProjectionHead, Tower
    from fabrica.objectives.scale import LogitScale

    known = list(records)
    towers, uses = {}, {}
    for name, kind in settings.fields.items():
        roles = READS.get(name, (name,))
        body, encode = _parts(settings, kind, known, roles)
        uses[name] = Use(roles, encode)
        if settings.normalise == "l2":
            head = ProjectionHead((body.width, settings.dim) if kind != "linear" else (body.width,))
        else:
            head = ProjectionHead((body.width, settings.dim), last_norm="ln", normalise=None)
        towers[name] = Tower(body, head)
    scale = LogitScale(settings.scale, max=settings.scale_max)
    model = MultiTower(towers, settings.dim, scale=scale, absent=settings.absent)
    return Bundle(model, Collate(uses), {"system": "symile", "title": SYSTEM.title})


def _parts(settings: Settings, kind: str, records: list[Record], roles: tuple[str, ...]) -> tuple[Body, Encode]:
    from fabrica.encode.image import ImageEncode
    from fabrica.encode.signal import SignalEncode
    from fabrica.encode.table import TableEncode
    from fabrica.errors import unknown
    from fabrica.models import LinearTower, SignalTower, TableTower
    from fabrica.models.choose import image_body

    if kind == "image":
        body = image_body(settings.image, channels=settings.channels, allow_network=settings.allow_network)
        return body, ImageEncode(settings.image_size, settings.channels)
    if kind == "signal":
        return SignalTower(layout="picture"), SignalEncode(settings.rate, settings.seconds, LEADS)
    if kind not in ("table", "linear"):
        raise unknown("kind of tower", kind, ("image", "signal", "table", "linear"))
    encode = TableEncode.fit(records, roles, percentiles=kind == "table")
    inputs = encode.shape[0]
    return (TableTower(inputs) if kind == "table" else LinearTower(inputs, settings.dim)), encode


def stages(settings: Settings, bundle: Bundle) -> tuple[Stage, ...]:
    """One stage: the mean over modalities of the cross-entropy of the true tuple among drawn ones."""
    from fabrica.objectives.multilinear import Multilinear
    from fabrica.objectives.pairs import pairwise

    fields = tuple(settings.fields)
    objective: Any = pairwise(fields, too_few="skip")
    if settings.loss == "multilinear":
        objective = Multilinear(fields, settings.negatives, settings.absent)
    schedule = Schedule(settings.steps, settings.batch, settings.lr, weight_decay=settings.weight_decay)
    return (Stage("pretrain", bundle.collate, {settings.loss: objective}, schedule),)


SYSTEM = System(
    seed="S37",
    title="Symile: contrasting any number of modalities with a multilinear inner product",
    paper="Saporta, Puli, Goldstein, Ranganath, NeurIPS 2024, arXiv 2411.01053",
    claim="Pairwise CLIP misses information that modalities hold only jointly; Symile captures it.",
    departs="The ECG net is smaller than ResNet-18 and uses GroupNorm; a missing modality is a learned vector in the "
    "shared space instead of a reserved input.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": Settings(
            image="small", image_size=64, channels=1, rate=100.0, dim=64, normalise="l2", lr=1e-3, batch=64, steps=300,
        ),
        "xor": Settings(
            {"a": "linear", "b": "linear", "c": "linear"}, dim=16, normalise="l2", absent="exclude", scale=1 / 0.07,
            lr=0.02, weight_decay=0.0, batch=256, steps=600,
        ),
    },
    build=build,
    stages=stages,
    tasks=("tuple_retrieval",),
)  # fmt: skip
