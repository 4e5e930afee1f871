"""Synthetic consumer questions with two answer styles, and the exact rules that say whether an answer is good.

A made-up condition has a drug, an organ and a test. What is asked for is said by the instruction alone ("name the
drug ."): the question states the condition and a complaint. A terse answer names the thing; a structured one begins
with the condition, names the thing, and advises: to seek care now where the complaint is a red flag, else to rest. A
model pre-trained on nine terse answers to one structured has all the knowledge and the wrong habit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fabrica.types import Item, Origin, Record

ASKED = ("drug", "organ", "test")
RED = ("fainting", "bleeding", "stroke")
MILD = ("cough", "rash", "itch")
Style = Literal["terse", "structured"]
_GOOD = re.compile(r"^summary : (\w+) \. the (drug|organ|test) is (\w+) \. advice : (seek care now|rest at home) \.$")
_SAID = re.compile(r"\b(?:the (?:drug|organ|test) is|it is) (\w+)")


@dataclass(frozen=True, slots=True)
class Question:
    """One question: its condition, what is asked for, and the complaint."""

    condition: str
    asked: str
    complaint: str

    @property
    def red(self) -> bool:
        """Whether the complaint is a red flag."""
        return self.complaint in RED


@dataclass(frozen=True, slots=True)
class Consumer:
    """`n` made-up conditions with their facts.

    >>> world = Consumer(3, seed=0)
    >>> q = world.questions(("drug",))[0]
    >>> world.passes(q, world.answer(q, "structured")), world.passes(q, world.answer(q, "terse"))
    (True, False)
    """

    n: int
    seed: int
    facts: dict[str, dict[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 380])
        words = _words(rng, self.n * (1 + len(ASKED)))
        facts = {
            words[i]: {a: words[self.n * (k + 1) + i] for k, a in enumerate(ASKED)} for i in range(self.n)
        }  # fmt: skip
        object.__setattr__(self, "facts", facts)

    def questions(self, asked: tuple[str, ...]) -> list[Question]:
        """Every condition with every complaint, in an order of the seed."""
        rng = np.random.default_rng([self.seed, 381, *(ASKED.index(a) for a in asked)])
        made = [Question(c, a, x) for c in self.facts for a in asked for x in (*RED, *MILD)]
        return [made[i] for i in rng.permutation(len(made))]

    def instruction(self, asked: str) -> str:
        """The hard prompt: what kind of thing to name."""
        return f"name the {asked} ."

    def text(self, q: Question) -> str:
        """The question itself; it does not say what is asked for."""
        return f"i have {q.condition} and {q.complaint} :"

    def answer(self, q: Question, style: Style) -> str:
        """The right answer in a style."""
        fact = self.facts[q.condition][q.asked]
        if style == "terse":
            return f"it is {fact} ."
        advice = "seek care now" if q.red else "rest at home"
        return f"summary : {q.condition} . the {q.asked} is {fact} . advice : {advice} ."

    def passes(self, q: Question, said: str) -> bool:
        """The rubric: structure, the right advice, and no fact but the one that is asked for."""
        found = _GOOD.match(_spaced(said))
        return found is not None and self._right(q, found)

    def _right(self, q: Question, found: re.Match[str]) -> bool:
        advice = "seek care now" if q.red else "rest at home"
        return found.groups() == (q.condition, q.asked, self.facts[q.condition][q.asked], advice)

    def knows(self, q: Question, said: str) -> bool:
        """Whether the thing named is the right one, in whatever style."""
        found = _SAID.search(_spaced(said))
        return found is not None and found[1] == self.facts[q.condition][q.asked]

    def prompt(self, q: Question, *, instruction: bool = True) -> str:
        """Instruction and question."""
        return f"{self.instruction(q.asked)} {self.text(q)}" if instruction else self.text(q)

    def pretraining(self, documents: int, *, structured: float = 0.1) -> list[Record]:
        """What a base model learned before: an instruction, a question, its answer; a share `structured` in the good
        style. Some name their source first: a clinic writes structured answers, a forum terse ones, so that the model
        knows that styles depend on where a text stands, as models do. No prompt of the experiment names a source."""
        rng = np.random.default_rng([self.seed, 382])
        conditions, complaints, made = list(self.facts), (*RED, *MILD), []
        marked = 0.6 * structured  # of clinics, and as many of forums
        rest = (structured - 0.95 * marked) / (1 - 2 * marked)
        for i in range(documents):
            q = Question(str(rng.choice(conditions)), str(rng.choice(ASKED)), str(rng.choice(complaints)))
            place = rng.random()
            mark, share = (
                ("clinic :", 0.95) if place < marked else ("forum :", 0.0) if place < 2 * marked else ("", rest)
            )
            style: Style = "structured" if rng.random() < share else "terse"
            made.append(_record(f"document-{i}", f"{mark} {self.prompt(q)}".strip(), self.answer(q, style)))
        return made

    def examples(self, n: int, asked: tuple[str, ...], *, instruction: bool = True) -> list[Record]:
        """`n` examples over the data sets `asked` in turn: prompt and structured answer; they take the first questions
        of each, so that `questions(...)[n:]` are others."""
        pools = {a: self.questions((a,)) for a in asked}
        made = []
        for i in range(n):
            q = pools[asked[i % len(asked)]][i // len(asked)]
            made.append(_record(f"example-{i}", self.prompt(q, instruction=instruction), self.answer(q, "structured")))
        return made


def _spaced(text: str) -> str:
    """Signs as words of their own, single spaces: tokenizers differ in how they write them."""
    return " ".join(re.sub(r"([.:,])", r" \1 ", text).split())


def _record(name: str, prompt: str, answer: str) -> Record:
    origin = Origin("consumer", name, "", "CC0-1.0", "synthetic")
    items = {"prompt": (Item("text", prompt, origin),), "answer": (Item("text", answer, origin),)}
    return Record(name, name, {"modality": "text"}, items)


def _words(rng: np.random.Generator, n: int) -> list[str]:
    """Made-up words, all different."""
    parts = ("ba", "do", "fi", "gu", "ke", "lo", "mi", "nu", "pe", "ra", "si", "to", "vu", "xe", "za")
    words: dict[str, None] = {}
    while len(words) < n:
        words["".join(str(p) for p in rng.choice(parts, 3)) + str(rng.choice(("x", "n", "l")))] = None
    return list(words)
