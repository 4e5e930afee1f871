"""MultiModN: a state passes through the encoders of what a patient has, and every task reads it after each step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fabrica.types import Record, Schedule, Stage, Step, Survey, System

if TYPE_CHECKING:
    from fabrica.models.fusion_bundle import FusionBundle

READS = {"image": ("image",), "ecg": ("ecg",), "labs": ("labs", "table")}
MIMIC = ("demographics", "chart", "laboratory", "procedure", "image", "image_series", "ecg_note", "echo_note", "note")
ICU = {  # PhysioNet 2012: what is measured by whom
    "descriptors": ("Age", "Gender", "Height", "Weight", "ICUType"),
    "circulation": ("HR", "MAP", "SysABP", "DiasABP", "NIMAP", "NISysABP", "NIDiasABP"),
    "bedside": ("GCS", "Temp", "Urine", "RespRate"),
    "ventilation": ("FiO2", "MechVent", "PaO2", "PaCO2", "pH", "SaO2"),
    "labs": (
        "BUN", "Creatinine", "HCO3", "Na", "K", "Mg", "Glucose", "HCT", "WBC", "Platelets", "Lactate", "Bilirubin",
        "ALP", "ALT", "AST", "Albumin", "TroponinT", "TroponinI", "Cholesterol",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """`fields` says of what kind each field is ("table", "image", "signal", "text"), in the order of the steps; `tasks`
    label -> classes (none: every yes/no label of the training part); `state` is the width of the state, `hidden` the
    layers of a table's encoder and of the decoders. `order` of the steps: "fixed", "shuffle" (anew each batch) or
    "hours" (each record's own). `divisor` "ran" averages the loss over the steps a record had, "all" as the paper does;
    `balance` weighs the classes of those read at a step alike; `state_change` is lambda_s. `fusion` "parallel" is the
    baseline: all fields side by side, what is missing a constant; "parallel_flags" tells it what is missing.
    `summarise` (field -> codes) makes tables of timed events, see `plan`."""

    fields: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(MIMIC, "table"))
    tasks: Mapping[str, int] = field(default_factory=dict)
    fusion: Literal["sequential", "parallel", "parallel_flags"] = "sequential"
    state: int = 50
    hidden: tuple[int, ...] = (32, 32)
    dropout: float = 0.2
    order: Literal["fixed", "shuffle", "hours"] = "fixed"
    init: Literal["learned", "zero"] = "learned"
    divisor: Literal["ran", "all"] = "ran"
    balance: bool = False
    state_change: float = 0.0
    flags: bool = False
    image: str = "small"
    image_size: int = 64
    rate: float = 100.0
    most: int = 1
    summarise: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lr: float = 1e-3
    weight_decay: float = 0.0
    batch: int = 16
    steps: int = 20_000
    allow_network: bool = False


def plan(settings: Settings) -> Sequence[Step | Survey]:
    """Timed events to one table a field: mean and last value of each of its codes."""
    from fabrica.curate.summarise import Summarise

    return (Summarise(fields=settings.summarise),) if settings.summarise else ()


def build(settings: Settings, records: Iterable[Record]) -> FusionBundle:
    """An encoder a field, one state update each, decoders shared by all steps."""
    from fabrica.encode.collate import Collate, Use
    from fabrica.models.field_tower import Inputs, field_body, field_tower, tasks_in
    from fabrica.models.fusion_bundle import FusionBundle
    from fabrica.models.parallel import Parallel
    from fabrica.models.sequential import Sequential
    from fabrica.models.task_heads import Heads

    known = list(records)
    tasks, dim = tasks_in(known, settings.tasks), settings.hidden[-1]
    inputs = Inputs(
        settings.hidden, settings.dropout, settings.flags, settings.image, settings.image_size, rate=settings.rate,
        allow_network=settings.allow_network,
    )  # fmt: skip
    towers, uses = {}, {}
    for name, kind in settings.fields.items():
        roles = READS.get(name, (name,))
        body, encode = field_body(kind, known, roles, inputs)
        towers[name], uses[name] = field_tower(body, dim), Use(roles, encode, settings.most)
    heads = Heads(tasks, settings.state, settings.hidden, settings.dropout)
    model: Sequential | Parallel = Parallel(towers, dim, heads, flags=settings.fusion == "parallel_flags")
    if settings.fusion == "sequential":
        model = Sequential(towers, dim, heads, order=settings.order, init=settings.init)
    card = {"system": "multimodn", "title": SYSTEM.title}
    return FusionBundle(model, Collate(uses, targets=tuple(tasks)), card)


def stages(settings: Settings, bundle: FusionBundle) -> tuple[Stage, ...]:
    """One stage: cross-entropy of every task after every step that ran, s_0 included."""
    from fabrica.objectives.multitask import Tasks

    loss = Tasks(
        bundle.collate.targets, tuple(settings.fields), state_change=settings.state_change, divisor=settings.divisor,
        balance=settings.balance,
    )  # fmt: skip
    schedule = Schedule(settings.steps, settings.batch, settings.lr, weight_decay=settings.weight_decay)
    return (Stage("train", bundle.collate, {"tasks": loss}, schedule),)


SYSTEM = System(
    seed="S27",
    title="MultiModN: multimodal, multi-task, interpretable modular networks",
    paper="Swamy, Satayeva et al., NeurIPS 2023, arXiv 2309.14118",
    claim="Passing a state through what is there costs nothing against parallel fusion and resists biased missingness.",
    departs="An encoder is skipped row by row, not for a whole batch in which one row lacks it; plain logits, no "
    "sigmoid before the cross-entropy; the loss averages over steps that ran (divisor 'all' is the paper's); cosine "
    "schedule and no choice of the best epoch; GELU in the encoders.",
    reads=READS,
    settings={
        "paper": Settings(),
        "icu": Settings(dict.fromkeys(ICU, "table"), {"in_hospital_death": 2}, summarise=ICU, batch=64, steps=600),
        "tiny": Settings(
            {"image": "image", "ecg": "signal", "labs": "table"}, image_size=32, rate=50.0, dropout=0.0, lr=3e-3,
            batch=32, steps=300,
        ),
        "views": Settings({"one": "table", "two": "table"}, {"y": 2}, batch=256, steps=250),
    },
    build=build,
    stages=stages,
    tasks=("any_subset", "presence_leak", "contributions"),
    plan=plan,
)  # fmt: skip
