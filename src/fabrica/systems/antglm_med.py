"""AntGLM-Med: a general language model made a medical one in three stages, and verification of choice as it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fabrica.types import Record, Schedule, Stage, System

if TYPE_CHECKING:
    from fabrica.chat.verification import Verify
    from fabrica.models.language_bundle import LanguageBundle

READS = {"prompt": ("prompt",), "answer": ("answer",)}


@dataclass(frozen=True, slots=True)
class Settings:
    """First the model: `base` is "small" (random weights, words of the records) or a folder, catalogue name or hub id;
    `prompt_length` and `answer_length` in tokens. Then the three stages: learning rates `lr` of pre-training,
    `lr_instruct`, `lr_adapt`; each takes `steps`. `adapter` of the last stage: "lora" of `rank`, or "cpoly" with
    `shared` and `private` skills of `rank` for the `tasks` (their place is the label "task"). Then how choices are
    verified: `propose`, `samples`, `check`, `select`, `weight`; see `chat.verification.Verify`."""

    base: str = "Qwen/Qwen2.5-1.5B"
    prompt_length: int = 1024
    answer_length: int = 512
    vocabulary: int = 2000
    width: int = 128
    depth: int = 4
    adapter: Literal["lora", "cpoly"] = "lora"
    rank: int = 8
    tasks: tuple[str, ...] = ()
    shared: int = 4
    private: int = 1
    lr: float = 2e-5
    lr_instruct: float = 1e-5
    lr_adapt: float = 1e-4
    weight_decay: float = 0.01
    warmup: int = 100
    batch: int = 64
    steps: int = 2000
    propose: Literal["all", "candidates"] = "all"
    samples: int = 0
    check: Literal["number", "likelihood", "none"] = "number"
    select: Literal["argmax", "prompt"] = "argmax"
    weight: float = 0.5
    seed: int = 0
    allow_network: bool = False


def build(settings: Settings, records: Iterable[Record]) -> LanguageBundle:
    """A causal language model with the adapter of the last stage, which does nothing until then."""
    from fabrica.models.adapt import Lora
    from fabrica.models.cpoly import CPoly
    from fabrica.models.language_bundle import LanguageBundle, language

    adapter: dict[str, Any] = {"lora": Lora(settings.rank, 2.0 * settings.rank, layers=0)}
    if settings.adapter == "cpoly":
        adapter = {"cpoly": CPoly(settings.tasks, settings.shared, settings.private, settings.rank)}
    model, collate = language(
        settings.base, records, lengths=(settings.prompt_length, settings.answer_length),
        vocabulary=settings.vocabulary, width=settings.width, depth=settings.depth,
        targets=("task",) if settings.adapter == "cpoly" else (), allow_network=settings.allow_network, **adapter,
    )  # fmt: skip
    return LanguageBundle(model, collate, {"system": "antglm_med", "title": SYSTEM.title})


def stages(settings: Settings, bundle: LanguageBundle) -> tuple[Stage, ...]:
    """All weights on medical text mixed with general text; all weights on instructions of many kinds, the loss on their
    outputs; the adapter alone on the target task. `train.chain` takes each stage its own records."""
    from fabrica.models.language_bundle import begin_of
    from fabrica.objectives.language import NextToken

    model, begin = bundle.model, begin_of(bundle.model.settings)
    task = "task" if settings.adapter == "cpoly" else ""
    rates = (settings.lr, settings.lr_instruct, settings.lr_adapt)
    trains = (model.base_only(), model.base_only(), model.adapter_only())
    return tuple(
        Stage(
            name, bundle.collate, {"next": NextToken(begin, task=task)},
            Schedule(
                settings.steps, settings.batch, lr, warmup=min(settings.warmup, settings.steps // 10),
                weight_decay=settings.weight_decay, lr_scale=scale,
            ),
            needs=("answer",),
        )
        for name, lr, scale in zip(("pretrain", "instruct", "adapt"), rates, trains, strict=True)
    )  # fmt: skip


def verify(settings: Settings) -> Verify:
    """How choices are verified."""
    from fabrica.chat.verification import Verify

    return Verify(
        settings.propose, settings.samples, settings.check, select=settings.select, weight=settings.weight,
        seed=settings.seed,
    )  # fmt: skip


def answer(settings: Settings) -> Callable[..., Any]:
    """An argument for every option, each checked against the facts and the others, then the best (2 |C| calls)."""
    from functools import partial

    from fabrica.chat.verification import verification_of_choice

    return partial(verification_of_choice, how=verify(settings))


SYSTEM = System(
    seed="S72",
    title="AntGLM-Med: from general to expert in three stages, and verification of choice",
    paper="Li et al., From Beginner to Expert: Modeling Medical Knowledge into General LLMs, 2023, arXiv 2312.01040",
    claim="Arguing for every option and checking the arguments beats chains of thought at equal calls, and each "
    "stage of pre-training, instructions and adaptation adds to what the model answers.",
    departs="AntGLM-10B is not public: any causal model with the causal loss. Stage sizes, rates, the mixing share and "
    "C-Poly's sizes are ours; the figure of verification of choice is not public, and its three steps are a "
    "reconstruction: number or likelihood of each check, argmax of log score and half the log prior.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": Settings(
            base="small", prompt_length=64, answer_length=64, lr=3e-3, lr_instruct=1e-3, lr_adapt=2e-3, warmup=20,
            batch=16, steps=300,
        ),
    },
    build=build,
    stages=stages,
    tasks=("choices",),
    answer=answer,
)  # fmt: skip
