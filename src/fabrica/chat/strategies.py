"""Strategies: programs of calls to a chat model that answer a multiple-choice question, with a trace of every call."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from fabrica.chat.prompts import prompt
from fabrica.chat.question import Question, choice, exemplars, fields
from fabrica.errors import UsageError
from fabrica.types import ChatModel, Message

_CONSISTENT = re.compile(r"consistent\s*[:=]\s*([01](?:\.\d+)?|\.\d+)(?!\d)", re.IGNORECASE)
TOKENS = 512


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the prompt's mark, for which option ("" = none), what came back, and the seed."""

    prompt: str
    option: str
    reply: str
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """`choice` is a letter, or None: nothing could be read, which counts as wrong. `votes` by letter; `scores` by
    letter where the strategy gives them; `unread` calls whose reply chose nothing; `same` the share of sampled replies
    that repeat another (1 = the model does not sample)."""

    question: str
    choice: str | None
    votes: Mapping[str, int]
    trace: tuple[Call, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    unread: int = 0
    same: float = 0.0

    @property
    def calls(self) -> int:
        """How many calls it cost."""
        return len(self.trace)

    @property
    def confidence(self) -> float:
        """The share of votes for the choice; 0 without votes."""
        total = sum(self.votes.values())
        return self.votes.get(self.choice or "", 0) / total if total else 0.0


Strategy = Callable[[ChatModel, Question], Answer]


def direct(model: ChatModel, question: Question, *, shots: Sequence[Question] = ()) -> Answer:
    """The letter alone, after solved `shots` (few-shot; Med-PaLM, sec. "Few-shot prompting")."""
    _apart(shots, question)
    return _votes(question, [_ask(model, "choose", question, exemplars=exemplars(shots))])


def chain_of_thought(
    model: ChatModel, question: Question, *, shots: Sequence[Question] = (), explanations: Sequence[str] = ()
) -> Answer:
    """An explanation, then the letter; greedy."""
    _apart(shots, question)
    return _votes(question, [_ask(model, "reason", question, exemplars=exemplars(shots, explanations))])


def self_consistency(
    model: ChatModel, question: Question, *, k: int = 11, temperature: float = 0.7, seed: int = 0,
    shots: Sequence[Question] = (), explanations: Sequence[str] = (),
) -> Answer:  # fmt: skip
    """The plurality of `k` sampled chains (Wang et al. 2023); ties go to the first letter said."""
    _apart(shots, question)
    said = exemplars(shots, explanations)
    calls = [_ask(model, "reason", question, temperature, seed + i, exemplars=said) for i in range(_least(k, "k"))]
    return _votes(question, calls)


def ensemble_refinement(
    model: ChatModel, question: Question, *, k: int = 11, m: int = 33, temperature: float = 0.7, seed: int = 0
) -> Answer:
    """`k` sampled chains are shown to the model, which refines them `m` times; plurality (Med-PaLM 2)."""
    first = [_ask(model, "reason", question, temperature, seed + i, exemplars="") for i in range(_least(k, "k"))]
    seen = "\n".join(f"{i + 1}. {call.reply}" for i, call in enumerate(first))
    second = [
        _ask(model, "refine", question, temperature, seed + k + i, explanations=seen) for i in range(_least(m, "m"))
    ]
    made = _votes(question, second)
    return Answer(question.id, made.choice, made.votes, (*first, *second), unread=made.unread, same=made.same)


def verification_of_choice(
    model: ChatModel, question: Question, *, samples: int = 0, verify: bool = True, others: bool = True,
    select: Literal["argmax", "prompt"] = "argmax", weight: float = 0.5, seed: int = 0,
) -> Answer:  # fmt: skip
    """An argument for every option, each checked against the facts and the other arguments, then a choice (AntGLM-Med,
    as its sheet reconstructs it): argmax of log s + `weight` log(prior + 1e-3), where the prior is the share of
    `samples` chains (1 each without any), or a last call that sees all verdicts, options in another order.

    `verify=False` skips the checks and asks for the choice on arguments alone (ablation); `others=False` hides the
    other options' arguments from the check (ablation). A check whose number cannot be read scores 0.5 and is counted.
    """
    drawn = [_ask(model, "reason", question, 0.7, seed + i, exemplars="") for i in range(samples)]
    proposed = {a: _for(model, "propose", question, a) for a in question.letters}
    checked = {a: _checked(model, question, a, proposed, others) for a in question.letters} if verify else {}
    read = {a: _number(call.reply) for a, call in checked.items()}
    scores = {a: 0.5 if s is None else s for a, s in read.items()} or dict.fromkeys(question.letters, 0.5)
    votes = Counter(c for call in drawn if (c := choice(call.reply, question)) is not None)
    trace = (*drawn, *proposed.values(), *checked.values())
    unread = sum(s is None for s in read.values())
    if select == "argmax" and verify:
        total = sum(votes.values())
        prior = {a: votes[a] / total if total else 1.0 for a in question.letters}
        best = max(question.letters, key=lambda a: math.log(scores[a] + 1e-3) + weight * math.log(prior[a] + 1e-3))
        return Answer(question.id, best, dict(votes), trace, scores, unread)
    last, chosen = _selected(model, question, proposed, scores if verify else {}, seed)
    return Answer(question.id, chosen, dict(votes), (*trace, last), scores if verify else {}, unread + (chosen is None))


def repaired(strategy: Strategy) -> Strategy:
    """The strategy with one more call where nothing could be read: which option does the reply choose?"""

    def run(model: ChatModel, question: Question) -> Answer:
        made = strategy(model, question)
        if made.choice is not None or not made.trace:
            return made
        ask = prompt("which")
        said = model(ask.messages(options=question.listed, reply=made.trace[-1].reply), max_tokens=16).text
        call = Call(ask.mark, "", said)
        return replace(made, choice=choice(said, question), trace=(*made.trace, call))

    return run


# ---------------------------------------------------------------- calls


def _ask(model: ChatModel, name: str, question: Question, temperature: float = 0.0, seed: int = 0, **more: str) -> Call:
    return _call(model, name, question, more, temperature, seed)


def _call(
    model: ChatModel, name: str, question: Question, more: Mapping[str, str], temperature: float = 0.0, seed: int = 0
) -> Call:
    ask = prompt(name)
    messages = _shown(ask.messages(**fields(question), **more), question)
    reply = model(messages, max_tokens=TOKENS, temperature=temperature, seed=seed)
    return Call(ask.mark, more.get("letter", ""), reply.text, seed)


def _shown(messages: Sequence[Message], question: Question) -> tuple[Message, ...]:
    """The messages with the question's images before the text of the last."""
    last = messages[-1]
    return (*messages[:-1], Message(last.role, (*question.images, *last.parts)))


def _for(model: ChatModel, name: str, question: Question, letter: str, **more: str) -> Call:
    return _call(model, name, question, {"letter": letter, "option": question.option(letter), **more})


def _checked(model: ChatModel, question: Question, letter: str, proposed: Mapping[str, Call], others: bool) -> Call:
    rest = "\n".join(f"({a}) {call.reply}" for a, call in proposed.items() if a != letter) if others else "(not shown)"
    return _for(model, "verify", question, letter, argument=proposed[letter].reply, others=rest)


def _selected(
    model: ChatModel, question: Question, proposed: Mapping[str, Call], scores: Mapping[str, float], seed: int
) -> tuple[Call, str | None]:
    """The last call, on options in another order, and its choice in the question's own letters."""
    asked, back = question.shuffled(seed)
    said = {a: f"{scores[a]:.2f}" if scores else "not checked" for a in question.letters}
    rows = "\n".join(f"({new}) {proposed[old].reply} [{said[old]}]" for new, old in back.items())
    call = _ask(model, "select", asked, verdicts=rows)
    chosen = choice(call.reply, asked)
    return call, None if chosen is None else back[chosen]


def _number(text: str) -> float | None:
    """The consistency that a check states, within 0 and 1."""
    found = _CONSISTENT.findall(text)
    return min(1.0, float(found[-1])) if found else None


def _votes(question: Question, calls: Sequence[Call]) -> Answer:
    read = [choice(call.reply, question) for call in calls]
    votes = Counter(c for c in read if c is not None)
    best = max(votes, key=lambda c: (votes[c], -read.index(c))) if votes else None
    same = 1 - (len({call.reply for call in calls}) - 1) / (len(calls) - 1) if len(calls) > 1 else 0.0
    return Answer(question.id, best, dict(votes), tuple(calls), unread=read.count(None), same=same)


def _apart(shots: Sequence[Question], question: Question) -> None:
    if any(shot.id == question.id or shot.text == question.text for shot in shots):
        raise UsageError(f"question {question.id} stands among its own exemplars; take them from the training part")


def _least(n: int, name: str) -> int:
    if n < 1:
        raise UsageError(f"{name}={n}: wanted 1 or more samples")
    return n
