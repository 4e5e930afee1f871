"""Verification of choice (AntGLM-Med, arXiv 2312.01040): argue for every option, check the arguments, then choose."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fabrica.chat.answer import Answer, Call, ask, newest, of_option, scoring, shown
from fabrica.chat.question import Question, choice, fields
from fabrica.errors import UsageError
from fabrica.types import ChatModel

_STATED = re.compile(r"consistent\s*[:=]\s*([-+]?(?:\d+(?:\.\d+)?|\.\d+))\s*(%?)", re.IGNORECASE)
_LEAST = 1e-3  # stands for log 0


@dataclass(frozen=True, slots=True)
class Verify:
    """How choices are verified. The paper's figure is not public: this is a reconstruction and named so.

    `propose` "all" argues for every option, "candidates" for those that one of `samples` chains chose (all where none
    chose any). `check` "number": the model states how consistent an argument is; "likelihood": p(yes) against no, for
    backends that tell log-probabilities; "none": no checks (ablation). `others` False hides the other arguments from
    the check (ablation). `select` "argmax" of log s + `weight` log(prior), the prior being the share of the samples
    (equal without any); "prompt": a last call that sees all arguments and scores, options in another order. Equal
    scores are told apart by `seed`, so that no position is favoured.
    """

    propose: Literal["all", "candidates"] = "all"
    samples: int = 0
    check: Literal["number", "likelihood", "none"] = "number"
    others: bool = True
    select: Literal["argmax", "prompt"] = "argmax"
    weight: float = 0.5
    temperature: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 0 or (self.propose == "candidates" and not self.samples):
            raise UsageError(f"samples={self.samples}: candidates come from 1 or more sampled chains")
        if self.check == "none" and self.select == "argmax":
            raise UsageError("without checks there are no scores to take the argmax of: select='prompt'")


def verification_of_choice(model: ChatModel, question: Question, how: Verify = Verify()) -> Answer:
    """`how.samples` chains, an argument and a check for each option, and with `select` "prompt" one call more: 2 |C| (+
    samples) (+ 1) calls; the baseline at the same cost is self-consistency with as many samples.

    `arguments`, `verdicts` and `scores` of the answer are by letter; a check whose number cannot be read scores 0.5 and
    is counted in `unread`; numbers outside 0 to 1 are clipped.
    """
    drawn = [
        ask(model, "reason", question, {"exemplars": ""}, temperature=how.temperature, seed=how.seed + i)
        for i in range(how.samples)
    ]
    votes = Counter(c for call in drawn if (c := choice(call.reply, question)) is not None)
    wanted = [a for a in question.letters if how.propose == "all" or a in votes or not votes]
    argued = {a: ask(model, "propose", question, of_option(question, a)) for a in wanted}
    checks = {a: _check(model, question, a, argued, how) for a in argued} if how.check != "none" else {}
    scores = {a: 0.5 if score is None else score for a, (_, score) in checks.items()}
    unread = sum(score is None for _, score in checks.values())
    trace = (*drawn, *argued.values(), *(call for call, _ in checks.values()))
    if how.select == "argmax":
        best = _likeliest(question, scores, votes, how)
        return Answer(question.id, best, dict(votes), trace, scores, unread)
    last, chosen = _selected(model, question, argued, scores, how.seed)
    return Answer(question.id, chosen, dict(votes), (*trace, last), scores, unread + (chosen is None))


def _check(
    model: ChatModel, question: Question, letter: str, argued: Mapping[str, Call], how: Verify
) -> tuple[Call, float | None]:
    rest = [f"({a}) {call.reply}" for a, call in argued.items() if a != letter]
    more = of_option(question, letter) | {
        "argument": argued[letter].reply, "others": "\n".join(rest) if how.others else "(not shown)",
    }  # fmt: skip
    if how.check == "number":
        call = ask(model, "verify", question, more)
        return call, stated(call.reply)
    made = newest("verify_yes")
    yes, no = scoring(model).score(shown(made.messages(**fields(question), **more), question), ("yes", "no"))
    p = 1 / (1 + math.exp(min(700.0, no - yes)))
    return Call(made.mark, letter, f"p(yes) = {p:.4f}"), p


def stated(text: str) -> float | None:
    """The consistency that a check states, clipped to 0 ... 1; None where it states none.

    >>> stated("Consistent: 0.85"), stated("consistent = 85 %"), stated("Consistent: 7"), stated("I think so")
    (0.85, 0.85, 1.0, None)
    """
    found: Sequence[tuple[str, str]] = _STATED.findall(text)
    if not found:
        return None
    value = float(found[-1][0]) / (100 if found[-1][1] else 1)
    return min(1.0, max(0.0, value))


def _likeliest(question: Question, scores: Mapping[str, float], votes: Mapping[str, int], how: Verify) -> str:
    total = sum(votes.values())
    order = list(scores)
    random.Random(f"{how.seed} {question.id}").shuffle(order)

    def worth(letter: str) -> float:
        prior = votes.get(letter, 0) / total if total else 1.0
        return math.log(scores[letter] + _LEAST) + how.weight * math.log(prior + _LEAST)

    return max(order, key=worth)


def _selected(
    model: ChatModel, question: Question, argued: Mapping[str, Call], scores: Mapping[str, float], seed: int
) -> tuple[Call, str | None]:
    """The last call, on options in another order, and its choice in the question's own letters."""
    asked, back = question.shuffled(seed)
    rows = []
    for new, old in back.items():
        if old in argued:
            said = f"{scores[old]:.2f}" if old in scores else "not checked"
            rows.append(f"({new}) {argued[old].reply} [{said}]")
    call = ask(model, "select", asked, {"verdicts": "\n".join(rows)}, seed=seed)
    chosen = choice(call.reply, asked)
    return call, None if chosen is None else back[chosen]
