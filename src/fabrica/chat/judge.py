"""Judges: a rule grader that needs no model, and a chat model that grades with order swap and repeats."""

from __future__ import annotations

import json
import math
import re
from statistics import fmean
from typing import Any

from fabrica.chat.prompts import Prompt, prompt
from fabrica.chat.request import ChatFailed
from fabrica.chat.schema import Checked
from fabrica.errors import UsageError
from fabrica.text.answers import choice, normal, numbers, token_f1, yes_no
from fabrica.types import ChatModel, Grade

_LETTER = re.compile(r"\(?[A-H]\)?[.:]?|\(?[A-H]\)\s.*", re.IGNORECASE | re.DOTALL)
TOP = 4  # the best score that a chat judge may give
GRADE = {
    "type": "object", "additionalProperties": False, "required": ["score", "why"],
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": TOP}, "why": {"type": "string"}},
}  # fmt: skip
PREFER = {
    "type": "object", "additionalProperties": False, "required": ["better", "why"],
    "properties": {"better": {"enum": ["A", "B", "tie"]}, "why": {"type": "string"}},
}  # fmt: skip


class RuleJudge:
    """Exact match after normalisation is 1; else by what the reference is: a choice letter, yes or no and a number are
    right or wrong; any other text scores its token F1.

    A number is right within `tolerance` of the reference (relative), and only if the answer holds no other number. The
    question and the rubric change nothing.

    >>> judge = RuleJudge()
    >>> judge("Size?", "about 3.5 cm", "3.5 cm"), judge("Effusion?", "No.", "yes").score
    (Grade(score=1.0, why='number 3.5 for 3.5'), 0.0)
    """

    name = "rule-judge@1"
    version = "1"

    def __init__(self, *, tolerance: float = 0.01) -> None:
        if not 0 <= tolerance < 1:
            raise UsageError(f"tolerance={tolerance}; wanted 0 <= tolerance < 1")
        self.tolerance = tolerance

    def __call__(self, question: str, answer: str, reference: str, /, *, rubric: str = "") -> Grade:
        """A grade and the rule that gave it."""
        if _LETTER.fullmatch(reference.strip()):  # "E. coli" is none
            letter, said = choice(reference), choice(answer)
            return Grade(float(said == letter), f"choice {said or 'none'} for {letter}")
        if not normal(reference):
            raise UsageError("an empty reference; there is nothing to grade against")
        if normal(answer) == normal(reference):
            return Grade(1.0, "exact")
        if (wanted := yes_no(reference)) is not None and len(normal(reference).split()) == 1:
            got = yes_no(answer)
            return Grade(float(got is wanted), f"{_word(got)} for {_word(wanted)}")
        ref, found = numbers(reference), numbers(answer)
        if len(ref) == 1 and normal(reference)[:1] in "+-0123456789":
            right = len(set(found)) == 1 and math.isclose(found[0], ref[0], rel_tol=self.tolerance, abs_tol=1e-12)
            return Grade(float(right), f"number {', '.join(f'{n:g}' for n in found) or 'none'} for {ref[0]:g}")
        score = token_f1(answer, reference)
        return Grade(score, f"token F1 {score:.3f}")


def _word(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "neither"}[value]


class ChatJudge:
    """A chat model that grades from 0 to 4, asked `repeats` times with the answer after the reference and as often with
    it before; the grade is the mean of all, divided by 4, so that a habit of position counts for nothing.

    A reply that stays unusable after repairs is left out; `ChatFailed` where none is left. `prefer` compares two
    answers, each pair in both orders.
    """

    version = "1"

    def __init__(self, model: ChatModel, *, repeats: int = 1, temperature: float = 0.0) -> None:
        if repeats < 1:
            raise UsageError(f"repeats={repeats}; wanted at least 1")
        self.model = Checked(model)
        self.repeats, self.temperature = repeats, temperature
        self._grade = (prompt("grade_reference_first"), prompt("grade_answer_first"))
        self._prefer = prompt("prefer")
        marks = ",".join(p.mark for p in (*self._grade, self._prefer))
        self.name = f"chat-judge@{self.version}:{model.name}:{marks}:x{repeats}:t{temperature:g}"

    def __call__(self, question: str, answer: str, reference: str, /, *, rubric: str = "") -> Grade:
        """The mean grade; `why` holds the scores in each order and the first reason."""
        fields = {"question": question, "answer": answer, "reference": reference, "rubric": rubric}
        orders = [[self._ask(p, GRADE, n, fields) for n in range(self.repeats)] for p in self._grade]
        said = [[row for row in order if row] for order in orders]
        if not all(said):
            raise ChatFailed("judge_silent", f"{self.name.split(',')[0]} gave no usable grade in one of the two orders")
        means = [fmean(row["score"] for row in order) for order in said]
        scores = " and ".join(",".join(str(row["score"]) for row in order) for order in said)
        return Grade(fmean(means) / TOP, f"{scores} of {TOP}: {said[0][0]['why']}")

    def prefer(self, question: str, first: str, second: str, /, *, rubric: str = "") -> Grade:
        """1 where the first answer is better, 0 where the second is, 0.5 for a tie or a judge that prefers a place."""
        votes, why = [], ""
        for n in range(self.repeats):
            for swapped in (False, True):
                a, b = (second, first) if swapped else (first, second)
                row = self._ask(
                    self._prefer, PREFER, n, {"question": question, "first": a, "second": b, "rubric": rubric}
                )
                if row:
                    wins = {"A": 1.0, "B": 0.0, "tie": 0.5}[row["better"]]
                    votes.append((swapped, 1 - wins if swapped else wins))
                    why = why or str(row["why"])
        sides = [[v for s, v in votes if s is swapped] for swapped in (False, True)]
        if not all(sides):
            raise ChatFailed(
                "judge_silent", f"{self.name.split(',')[0]} gave no usable verdict in one of the two orders"
            )
        return Grade(fmean(map(fmean, sides)), why)

    def _ask(self, asked: Prompt, schema: dict[str, Any], seed: int, fields: dict[str, str]) -> dict[str, Any]:
        """The object that it said; empty where it said nothing usable."""
        try:
            reply = self.model(
                asked.messages(**fields), schema=schema, temperature=self.temperature, seed=seed, max_tokens=256
            )
        except ChatFailed as error:
            if error.passing:
                raise
            return {}
        return dict(json.loads(reply.text))
