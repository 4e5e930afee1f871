"""A multiple-choice question, its options in another order, and the option that a text chooses."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fabrica.errors import UsageError
from fabrica.text.answers import normal
from fabrica.types import Absent, Item, Record

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SAID = re.compile(
    r"(?:final\s+answer|correct\s+(?:answer|option|choice)|answer|option|choice)\s*(?:is|would\s+be)?\s*[:=]?\s*"
    r"(?:option\s+)?[(\[]?([A-Z])[)\]]?(?![A-Za-z'])",
    re.IGNORECASE,
)
_MARKED = re.compile(r"[(\[]([A-Z])[)\]]")
_ALONE = re.compile(r"^\s*([A-Z])\s*(?:[.):\]].*)?$", re.DOTALL)
_NOT = re.compile(
    r"\b(?:not|isn't|never|neither|nor|no longer|rather than|rule[sd]? out)\s+(?:\w+\s+){0,2}$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Question:
    """`options` in order, lettered A, B, ...; `gold` is the letter of the right one, "" where it is not known;
    `context` an abstract or a record; `images` go before the question."""

    id: str
    text: str
    options: tuple[str, ...]
    gold: str = ""
    context: str = ""
    images: tuple[Item, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= len(self.options) <= len(LETTERS):
            raise UsageError(f"question {self.id}: {len(self.options)} options; wanted 2 to {len(LETTERS)}")
        plain = [" ".join(o.lower().rstrip(" .").split()) for o in self.options]  # signs count: "< 7" is not "> 7"
        same = {o for o, p in zip(self.options, plain, strict=True) if plain.count(p) > 1}
        if same:
            raise UsageError(f"question {self.id}: the option {min(same)!r} stands twice")
        if self.gold and self.gold not in self.letters:
            raise UsageError(f"question {self.id}: the answer {self.gold!r} is none of {', '.join(self.letters)}")

    @property
    def letters(self) -> tuple[str, ...]:
        """A, B, ... as many as there are options."""
        return tuple(LETTERS[: len(self.options)])

    @property
    def listed(self) -> str:
        """The options, one a line: "(A) text".

        >>> Question("q", "Which?", ("yes", "no")).listed
        '(A) yes\\n(B) no'
        """
        return "\n".join(f"({a}) {o}" for a, o in zip(self.letters, self.options, strict=True))

    def option(self, letter: str) -> str:
        """The text of an option."""
        return self.options[self.letters.index(letter)]

    def shuffled(self, seed: int) -> tuple[Question, dict[str, str]]:
        """The same question with its options in another order, and new letter -> letter here."""
        order = list(range(len(self.options)))
        random.Random(f"{seed} {self.id}").shuffle(order)
        back = {LETTERS[new]: LETTERS[old] for new, old in enumerate(order)}
        gold = next((new for new, old in back.items() if old == self.gold), "")
        return replace(self, options=tuple(self.options[i] for i in order), gold=gold), back


def choice(text: str, question: Question) -> str | None:
    """The letter that a reply chooses, or None (an abstention, which is wrong and counted).

    In this order: the last "answer is X" (denied ones left out); a reply that is a letter; one bracketed letter alone;
    an option's own words, where exactly one option is named (the longest of nested ones) and not denied.

    >>> ask = Question("q", "Which?", ("yes", "no", "maybe"))
    >>> [choice(t, ask) for t in ("The answer is (C).", "B.", "Not yes; no.", "A patient may be ill", "(A) or (B)")]
    ['C', 'B', 'B', None, None]
    """
    text = unicodedata.normalize("NFKC", text)
    letters = question.letters
    said = [
        m[1].upper()
        for m in _SAID.finditer(text)
        if m[1].upper() in letters and _is_letter(m) and not _denied(text, m.start(1))
    ]
    if said:
        return said[-1]
    alone = _ALONE.match(text)
    if alone and alone[1] in letters:
        return alone[1]
    marked = {m[1] for m in _MARKED.finditer(text) if m[1] in letters and not _denied(text, m.start())}
    if marked:
        return marked.pop() if len(marked) == 1 else None
    return _named(text, question)


def _is_letter(match: re.Match[str]) -> bool:
    """Whether the letter stands for an option: upper case or bracketed; "the answer is a mass" does not choose A."""
    return match[1].isupper() or match[0].rstrip()[-1] in ")]"


def _denied(text: str, at: int) -> bool:
    return _NOT.search(text[max(0, at - 40) : at]) is not None


def _named(text: str, question: Question) -> str | None:
    """The option whose own words stand in the text; a denial reaches to the next comma or stop."""
    letters = {c for part in re.split(r"[;,.:!?\n]+(?:\s|$)", text) for c in _in_part(part, question)}
    return letters.pop() if len(letters) == 1 else None


def _in_part(text: str, question: Question) -> set[str]:
    said = f" {normal(text)} "
    found: list[tuple[int, int, str]] = []
    for letter, option in zip(question.letters, question.options, strict=True):
        words = f" {normal(option)} "
        starts = [i for i in range(len(said)) if said.startswith(words, i)] if words.strip() else []
        found += [(i, i + len(words), letter) for i in starts if not _denied(said, i + 1)]
    return {a[2] for a in found if not any(_inside(a, b) for b in found)}


def _inside(a: tuple[int, int, str], b: tuple[int, int, str]) -> bool:
    return a[2] != b[2] and b[0] <= a[0] and a[1] <= b[1] and (b[1] - b[0]) > (a[1] - a[0])


def of_record(record: Record, *, context: bool = False) -> Question:
    """The question of a record: items "question", "option" (in order), "context", "image"; label "answer" = the place
    of the right option, from 0. `context` says that the task cannot do without one.

    Errors: `UsageError` names the record and what it lacks.
    """
    asked = record.first("question")
    if asked is None:
        raise UsageError(f"record {record.id!r} has no item 'question'")
    told = "\n".join(item.text() for item in record.all("context"))
    if context and not told.strip():
        raise UsageError(f"record {record.id!r} has no item 'context', which its task needs")
    options = tuple(item.text() for item in record.all("option"))
    right = record.labels.get("answer")
    gold = ""
    if right is not None and not isinstance(right, Absent):
        if not (float(right).is_integer() and 0 <= right < len(options)):
            raise UsageError(f"record {record.id!r}: its answer is option {right:g} (from 0) of {len(options)}")
        gold = LETTERS[int(right)]
    return Question(record.id, asked.text(), options, gold, told, tuple(record.all("image")))


def balanced(pool: Sequence[Question], n: int, *, seed: int = 0, rotate: bool = True) -> tuple[Question, ...]:
    """`n` exemplars whose right letters are as even as can be, so that a model learns no letter from them.

    Drawn and ordered by `seed`. `rotate` turns the options of each until its right one stands where wanted; without
    it (yes, no, maybe) questions of each letter are drawn in turn.

    >>> pool = [Question(f"q{i}", f"Which {i}?", ("a", "b"), "A") for i in range(6)]
    >>> sorted(q.gold for q in balanced(pool, 4))
    ['A', 'A', 'B', 'B']
    """
    rng = random.Random(f"balanced {seed}")
    known = sorted((q for q in pool if q.gold), key=lambda q: q.id)
    if len(known) < n:
        raise UsageError(f"{n} exemplars wanted, {len(known)} questions with a known answer are there")
    rng.shuffle(known)
    if rotate:
        made = [_turned(q, i % len(q.options)) for i, q in enumerate(known[:n])]
    else:
        piles = {a: [q for q in known if q.gold == a] for a in sorted({q.gold for q in known})}
        made = []
        while len(made) < n:
            made += [pile.pop() for pile in piles.values() if pile][: n - len(made)]
    rng.shuffle(made)
    return tuple(made)


def _turned(question: Question, to: int) -> Question:
    """Options turned round until the right one stands at `to`."""
    by = (question.letters.index(question.gold) - to) % len(question.options)
    return replace(question, options=question.options[by:] + question.options[:by], gold=LETTERS[to])


def exemplars(questions: Sequence[Question], explanations: Sequence[str] = ()) -> str:
    """Solved questions as they stand before the one that is asked. Their answers must be known.

    >>> print(exemplars([Question("q", "Is it?", ("yes", "no"), "A")]))
    Is it?
    (A) yes
    (B) no
    Answer: (A)
    <BLANKLINE>
    <BLANKLINE>
    """
    if explanations and len(explanations) != len(questions):
        raise UsageError(f"{len(questions)} exemplars with {len(explanations)} explanations")
    made = []
    for i, q in enumerate(questions):
        if not q.gold:
            raise UsageError(f"exemplar {q.id} has no answer")
        why = f"Explanation: {explanations[i]} " if explanations else ""
        made.append(f"{_context(q)}{q.text}\n{q.listed}\n{why}Answer: ({q.gold})\n\n")
    return "".join(made)


def _context(question: Question) -> str:
    return f"{question.context}\n\n" if question.context else ""


def fields(question: Question) -> dict[str, str]:
    """What the prompts of strategies are filled with."""
    return {"context": _context(question), "question": question.text, "options": question.listed}
