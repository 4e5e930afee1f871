"""Strategies: programs of calls to a chat model that answer a multiple-choice question, with a trace of every call."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from fabrica.chat.answer import (
    TOKENS,
    Answer,
    Call,
    NotSampling,
    Scoring,
    Strategy,
    ask,
    newest,
    scoring,
    shown,
    voted,
)
from fabrica.chat.likely import chosen, said
from fabrica.chat.question import Question, choice, exemplars, fields
from fabrica.errors import UsageError
from fabrica.types import ChatModel

__all__ = [
    "TOKENS", "Answer", "Call", "NotSampling", "Scoring", "Strategy", "chain_of_thought", "direct",
    "ensemble_refinement", "option_likelihood", "permuted", "repaired", "self_consistency",
]  # fmt: skip


def direct(model: ChatModel, question: Question, *, shots: Sequence[Question] = ()) -> Answer:
    """The letter alone, after solved `shots` (few-shot; Med-PaLM, sec. "Few-shot prompting")."""
    _apart(shots, question)
    return voted(question, [ask(model, "choose", question, {"exemplars": exemplars(shots)})])


def chain_of_thought(
    model: ChatModel, question: Question, *, shots: Sequence[Question] = (), explanations: Sequence[str] = ()
) -> Answer:
    """An explanation, then the letter; greedy."""
    _apart(shots, question)
    return voted(question, [ask(model, "reason", question, {"exemplars": exemplars(shots, explanations)})])


def self_consistency(
    model: ChatModel, question: Question, *, k: int = 11, temperature: float = 0.7, seed: int = 0,
    shots: Sequence[Question] = (), explanations: Sequence[str] = (),
) -> Answer:  # fmt: skip
    """The plurality of `k` sampled chains (Wang et al. 2023, arXiv 2203.11171); ties go to the letter said first.

    A loop of `k` calls with seeds `seed`, `seed` + 1 ...: endpoints without `n` serve as well. Warns `NotSampling`
    where every reply is the same.
    """
    _apart(shots, question)
    calls = _sampled(model, question, _least(k, "k"), temperature, seed, exemplars(shots, explanations))
    return voted(question, calls)


def ensemble_refinement(
    model: ChatModel, question: Question, *, k: int = 11, m: int = 33, temperature: float = 0.7, seed: int = 0
) -> Answer:
    """`k` sampled chains are shown to the model, which refines them `m` times; plurality (Med-PaLM 2, 2305.09617).

    It costs k + m calls; its baseline at the same cost is `self_consistency(k=k + m)`.
    """
    first = _sampled(model, question, _least(k, "k"), temperature, seed, "")
    seen = "\n".join(f"{i + 1}. {call.reply}" for i, call in enumerate(first))
    refine = [
        ask(model, "refine", question, {"explanations": seen}, temperature=temperature, seed=seed + k + i)
        for i in range(_least(m, "m"))
    ]
    return voted(question, refine, cost=first)


def option_likelihood(
    model: ChatModel, question: Question, *, by: Literal["letter", "text"] = "letter", shots: Sequence[Question] = ()
) -> Answer:
    """The option that is likeliest as the next turn: one scoring call, for backends that declare log-probabilities.

    `by` "letter" scores "Answer: (X)"; "text" each option's own words, a character. `scores` are those
    log-probabilities. Many questions at a time: `likely.likeliest`.
    """
    _apart(shots, question)
    made = newest("choose")
    messages = shown(made.messages(**fields(question), exemplars=exemplars(shots)), question)
    return chosen(question, made, scoring(model).score(messages, said(question, by)), by)


def permuted(strategy: Strategy, seed: int = 0) -> Strategy:
    """The strategy on options in another order, its answer in the question's own letters: what a choice owes to
    positions shows as a difference between seeds. Replies in the trace keep the letters that were shown."""

    def run(model: ChatModel, question: Question) -> Answer:
        asked, back = question.shuffled(seed)
        made = strategy(model, asked)
        return replace(
            made, choice=None if made.choice is None else back[made.choice], order="".join(back.values()),
            votes={back[a]: n for a, n in made.votes.items()}, scores={back[a]: s for a, s in made.scores.items()},
            trace=tuple(replace(c, option=back.get(c.option, "")) for c in made.trace),
        )  # fmt: skip

    return run


def repaired(strategy: Strategy) -> Strategy:
    """The strategy with one more call where nothing could be read: which option does the reply choose?"""

    def run(model: ChatModel, question: Question) -> Answer:
        made = strategy(model, question)
        if made.choice is not None or not made.trace:
            return made
        which = newest("which")
        said = model(which.messages(options=question.listed, reply=made.trace[-1].reply), max_tokens=16).text
        return replace(made, choice=choice(said, question), trace=(*made.trace, Call(which.mark, "", said)))

    return run


def _sampled(model: ChatModel, question: Question, k: int, temperature: float, seed: int, before: str) -> list[Call]:
    calls = [
        ask(model, "reason", question, {"exemplars": before}, temperature=temperature, seed=seed + i) for i in range(k)
    ]
    if k > 2 and temperature > 0 and len({c.reply for c in calls}) == 1:
        warnings.warn(
            f"question {question.id}: all {k} sampled replies of {model.name!r} are the same (duplicate rate 1.00): "
            "the backend ignores temperature or seed",
            NotSampling, stacklevel=3,
        )  # fmt: skip
    return calls


def _apart(shots: Sequence[Question], question: Question) -> None:
    if any(shot.id == question.id or shot.text == question.text for shot in shots):
        raise UsageError(f"question {question.id} stands among its own exemplars; take them from the training part")


def _least(n: int, name: str) -> int:
    if n < 1:
        raise UsageError(f"{name}={n}: wanted 1 or more samples")
    return n
