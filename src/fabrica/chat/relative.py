"""LLaVA-Med's relative score: a text model rates a candidate beside a reference answer, in both orders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from fabrica.chat.prompts import prompt
from fabrica.chat.request import ChatFailed
from fabrica.chat.schema import Checked
from fabrica.errors import UsageError
from fabrica.types import ChatModel

TOP = 10
RATED = {
    "type": "object", "additionalProperties": False, "required": ["a", "b", "why"],
    "properties": {
        "a": {"type": "integer", "minimum": 0, "maximum": TOP}, "b": {"type": "integer", "minimum": 0, "maximum": TOP},
        "why": {"type": "string"},
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """A question about an image, what is known of it (caption and context; never pixels), both answers; `kind` groups
    the scores ("conversation", "description", a domain)."""

    question: str
    facts: str
    reference: str
    candidate: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Relative:
    """100 x mean of candidate's rating / reference's, over all pairs that were rated and by kind; `rated` pairs; shares
    of pairs without a usable rating in both orders (`invalid`) and with a reference rated 0 (`unrated_reference`),
    which have no ratio and are left out."""

    score: float
    by_kind: Mapping[str, float]
    rated: int
    invalid: float
    unrated_reference: float


class RelativeJudge:
    """Rates each pair twice, once with either answer first, and averages an answer's two ratings before the ratio
    (Li et al. 2023, arXiv 2306.00890, section 5.1), so that a habit of place counts for nothing.

    A reply that stays unusable after repairs makes its pair invalid: half a pair would bring the habit back. Errors:
    `ChatFailed` where the model is not to be reached, or where no pair at all was rated.
    """

    def __init__(self, model: ChatModel) -> None:
        self.model = Checked(model)
        self._prompt = prompt("rate_two")
        self.name = f"relative-judge@1:{model.name}:{self._prompt.mark}"

    def __call__(self, pairs: Sequence[Pair]) -> Relative:
        """The relative score of the candidates of `pairs`."""
        if not pairs:
            raise UsageError("no pairs to rate")
        rated = [(p.kind, self._rated(p)) for p in pairs]
        usable = [(kind, r) for kind, r in rated if r is not None]
        ratios = [(kind, 100 * candidate / reference) for kind, (reference, candidate) in usable if reference > 0]
        if not ratios:
            raise ChatFailed("judge_silent", f"none of {len(pairs)} pairs has usable ratings in both orders")
        kinds = {k: fmean(v for kind, v in ratios if kind == k) for k in sorted({kind for kind, _ in ratios})}
        return Relative(
            fmean(v for _, v in ratios), kinds, len(ratios), 1 - len(usable) / len(pairs),
            (len(usable) - len(ratios)) / len(pairs),
        )  # fmt: skip

    def _rated(self, pair: Pair) -> tuple[float, float] | None:
        """The mean ratings of reference and candidate over both orders."""
        straight = self._ask(pair, pair.reference, pair.candidate)
        swapped = self._ask(pair, pair.candidate, pair.reference)
        if not straight or not swapped:
            return None
        return fmean((straight["a"], swapped["b"])), fmean((straight["b"], swapped["a"]))

    def _ask(self, pair: Pair, first: str, second: str) -> dict[str, Any]:
        """The object that it said; empty where it said nothing usable."""
        try:
            reply = self.model(
                self._prompt.messages(facts=pair.facts, question=pair.question, first=first, second=second),
                schema=RATED, temperature=0.0, seed=0, max_tokens=256,
            )  # fmt: skip
        except ChatFailed as error:
            if error.passing:
                raise
            return {}
        return dict(json.loads(reply.text))
