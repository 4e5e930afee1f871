"""Med-PaLM: a frozen language model asked in several ways, and a soft prompt learned from forty examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from fabrica.errors import unknown
from fabrica.types import Record, Schedule, Stage, System

if TYPE_CHECKING:
    from fabrica.models.language_bundle import LanguageBundle

READS = {"prompt": ("prompt",), "answer": ("answer",)}
STRATEGIES = ("direct", "chain_of_thought", "self_consistency", "ensemble_refinement", "option_likelihood")


@dataclass(frozen=True, slots=True)
class Settings:
    """First how questions are answered: `strategy` is one of STRATEGIES, with `k` samples at `temperature`, `m`
    refinements. Then instruction prompt tuning: `tokens` learned vectors drawn from U(-`spread`, `spread`) before
    instruction, exemplars and question; `base` is a folder, catalogue name or hub id, or "small" (random weights, words
    of the records), which a first stage of `steps` at `lr_base` pre-trains on texts without a prompt."""

    strategy: Literal["direct", "chain_of_thought", "self_consistency", "ensemble_refinement", "option_likelihood"] = (
        "self_consistency"
    )
    k: int = 11
    m: int = 33
    temperature: float = 0.7
    base: str = "Qwen/Qwen2.5-1.5B-Instruct"
    prompt_length: int = 1024
    answer_length: int = 512
    vocabulary: int = 2000
    width: int = 128
    depth: int = 4
    tokens: int = 100
    spread: float = 0.5
    lr: float = 3e-3
    lr_base: float = 3e-3
    weight_decay: float = 1e-5
    batch: int = 32
    steps: int = 200
    seed: int = 0
    allow_network: bool = False


def build(settings: Settings, records: Iterable[Record]) -> LanguageBundle:
    """The language model with a soft prompt before everything it reads."""
    from fabrica.models.language import SoftPrompt
    from fabrica.models.language_bundle import LanguageBundle, language

    model, collate = language(
        settings.base, records, lengths=(settings.prompt_length, settings.answer_length),
        vocabulary=settings.vocabulary, width=settings.width, depth=settings.depth,
        prompt=SoftPrompt(settings.tokens, settings.spread), allow_network=settings.allow_network,
    )  # fmt: skip
    return LanguageBundle(model, collate, {"system": "med_palm", "title": SYSTEM.title})


def stages(settings: Settings, bundle: LanguageBundle) -> tuple[Stage, ...]:
    """The soft prompt alone: L = -log p(answer | soft prompt, instruction, exemplars, question), AdamW; a small base is
    pre-trained before, without the prompt."""
    from fabrica.models.language_bundle import begin_of
    from fabrica.objectives.language import NextToken

    begin = begin_of(bundle.model.settings)
    flat = Schedule(
        settings.steps, settings.batch, settings.lr, weight_decay=settings.weight_decay,
        lr_scale=bundle.model.adapter_only(),
    )  # fmt: skip
    tune = Stage("prompt", bundle.collate, {"next": NextToken(begin)}, flat, needs=("answer",))
    if settings.base != "small":
        return (tune,)
    first = Schedule(
        settings.steps, settings.batch, settings.lr_base, warmup=min(20, settings.steps // 10), weight_decay=0.01,
        lr_scale=bundle.model.base_only(),
    )  # fmt: skip
    plain = {"next": NextToken(begin, soft=False)}
    return (Stage("pretrain", bundle.collate, plain, first, needs=("answer",)), tune)


def answer(settings: Settings) -> Callable[..., Any]:
    """The strategy that the settings name."""
    from fabrica.chat import strategies

    options: dict[str, dict[str, Any]] = {
        "self_consistency": {"k": settings.k, "temperature": settings.temperature, "seed": settings.seed},
        "ensemble_refinement": {
            "k": settings.k, "m": settings.m, "temperature": settings.temperature, "seed": settings.seed,
        },
    }  # fmt: skip
    if settings.strategy not in STRATEGIES:
        raise unknown("strategy", settings.strategy, STRATEGIES)
    return partial(getattr(strategies, settings.strategy), **options.get(settings.strategy, {}))


SYSTEM = System(
    seed="S38",
    title="Med-PaLM: prompting strategies, selective prediction, and instruction prompt tuning of a frozen model",
    paper="Singhal et al., Large Language Models Encode Clinical Knowledge, Nature 2023, arXiv 2212.13138",
    claim="Voting over sampled chains beats one chain and tells when to defer; a soft prompt learned from forty "
    "examples makes long answers safe and leaves what the model knows as it is.",
    departs="Any causal model instead of Flan-PaLM 540B; the temperature of the samples (0.7) is not in the preprint; "
    "the checkpoint is chosen by a rule instead of clinicians' ranking; ensemble refinement is Med-PaLM 2's.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": Settings(
            base="small", prompt_length=80, answer_length=56, tokens=20, lr=1e-2, batch=32, steps=200,
        ),
    },
    build=build,
    stages=stages,
    tasks=("choices", "rating"),
    answer=answer,
)  # fmt: skip
