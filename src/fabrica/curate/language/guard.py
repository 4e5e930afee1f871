"""The fact guard: a generated text against what is known; every contradiction is a reason to drop the record.

Facts come from labels (1 = there, 0 = known to be absent) and from regions (there, with the side that their text
names); the text is read by `text.assertions`. For question and answer pairs the question may not give the answer away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fabrica.curate.language.grammar import LabelSchema
from fabrica.text.assertions import Mention, Side, mentions, side_of
from fabrica.text.lexicon import FINDINGS, Names
from fabrica.types import Absent, Drop, Item, Record

REASONS = ("missing_finding", "unlisted_finding", "flipped_negation", "flipped_side", "answer_leak")


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of one label: whether it is there, and on which sides (empty = not known)."""

    there: bool
    sides: frozenset[Side] = frozenset()


Facts = Mapping[str, Fact]


def facts_of(record: Record, names: Names) -> dict[str, Fact]:
    """Labels of `names` that are known, and regions of them: a region makes its label a fact, and says its side where
    its `text` does ("in the left upper zone").

    >>> from fabrica.phantom import p1
    >>> record = next(p1(1, seed=3).records(regions=True))
    >>> sorted(label for label, f in facts_of(record, {"disc": (), "ring": ()}).items())
    ['disc', 'ring']
    """
    facts = {k: Fact(v >= 0.5) for k in names if not isinstance(v := record.labels.get(k, Absent.NOT_DONE), Absent)}
    for region in record.regions:
        if region.label not in names:
            continue
        side = side_of(region.text or "")
        mine = {"left", "right", "both"} if side == "both" else {side} - {""}
        held = facts[region.label].sides if region.label in facts else frozenset()
        facts[region.label] = Fact(True, held | frozenset(_as_side(s) for s in mine))
    return facts


def _as_side(side: str) -> Side:
    return "left" if side == "left" else "right" if side == "right" else "both"


def contradictions(text: str, facts: Facts, names: Names, *, required: Iterable[str] | None = None) -> tuple[str, ...]:
    """Reasons why a text does not fit the facts, each once, in the order of `REASONS`; () where it does.

    - missing_finding: a label of `required` (None: every one that is there) is not said to be there;
    - unlisted_finding: something is said, or guessed ("possible"), that no fact knows;
    - flipped_negation: what is there is denied, or what is known to be absent is asserted or guessed;
    - flipped_side: a side is said that is not one of the fact's sides.

    What the text says of earlier times or of others is not judged.

    >>> names = {"effusion": ("pleural effusion", "effusion"), "mass": ("mass",)}
    >>> facts = {"effusion": Fact(True, frozenset({"left"})), "mass": Fact(False)}
    >>> contradictions("Pleural effusion on the left. No mass.", facts, names)
    ()
    >>> contradictions("Right pleural effusion. Possible mass.", facts, names)
    ('flipped_negation', 'flipped_side')
    """
    said = [m for m in mentions(text, names) if not (m.historical or m.other)]
    wanted = [k for k, f in facts.items() if f.there] if required is None else list(required)
    wrong = [(m.label, reason) for m in said if (reason := _wrong(m, facts.get(m.label)))]
    told = {m.label for m in said if m.status == "present"} | {label for label, _ in wrong}
    found = {reason for _, reason in wrong} | ({"missing_finding"} if set(wanted) - told else set())
    return tuple(r for r in REASONS if r in found)


def _wrong(mention: Mention, fact: Fact | None) -> str:
    """The reason against one mention, "" where there is none."""
    denied = mention.status == "absent"
    if fact is None:
        return "" if denied else "unlisted_finding"
    if not fact.there:
        return "" if denied else "flipped_negation"
    if denied:  # "none on the right" is no denial of one on the left
        return "flipped_negation" if not mention.side or not fact.sides or mention.side in fact.sides else ""
    return "flipped_side" if mention.side and fact.sides and not _fits(mention.side, fact.sides) else ""


def _fits(side: Side, sides: frozenset[Side]) -> bool:
    return side in sides or (side == "both" and {"left", "right"} <= sides)


def leaks(question: str, answer: str, names: Names) -> bool:
    """Whether a question gives its answer away: the answer's words stand in it, or a finding that the answer names is
    one that the question names. Yes and no, and options that the question offers together ("left or right"), are no
    leak.

    >>> leaks("Where is the cavity in the left lung?", "left", {}), leaks("Is it on the left or right?", "left", {})
    (True, False)
    >>> leaks("Which finding explains the ring shadow?", "a cavity", {"ring": ("ring shadow", "cavity")})
    True
    """
    said, asked = _normal(answer), _normal(question)
    if not said or said in ("yes", "no", "present", "absent"):
        return False
    options = re.search(rf"\b{re.escape(said)}\b[^.?]*\bor\b|\bor\b[^.?]*\b{re.escape(said)}\b", asked)
    if re.search(rf"(?<!\w){re.escape(said)}(?!\w)", asked):
        return options is None
    mine, theirs = ({m.label for m in mentions(t, names)} for t in (answer, question))
    return bool(mine & theirs) and not re.search(r"\bor\b", asked)


def _normal(text: str) -> str:
    words = re.sub(r"[^\w\s-]", " ", text.lower()).split()
    return " ".join(words[1:] if words[:1] in (["a"], ["an"], ["the"]) else words)


def merged(names: Names, others: Names = FINDINGS) -> dict[str, tuple[str, ...]]:
    """`names` and those names of `others` that do not clash with them, so that a finding of neither's list is seen."""
    own = {n.lower() for of in names.values() for n in of}
    out = {k: tuple(v) for k, v in names.items()}
    for label, of in others.items():
        free = tuple(n for n in of if n.lower() not in own and not any(n.lower() in o or o in n.lower() for o in own))
        if free and label not in out:
            out[label] = free
    return out


@dataclass(kw_only=True)
class FactGuard:
    """A step that drops records whose generated texts contradict their facts (reasons: `REASONS`, the first).

    `names` label -> its names (`LabelSchema.labels` fits); findings of the general lexicon that are none of them are
    unlisted. Texts of `roles` that a model made (`origin.by == "model"`) are judged, or all where `every`. Roles
    `question` and `answer`, where a record has both, are checked for leaks pairwise; an answer is judged for what it
    asserts and need not say everything. `required` labels limit what a text must say.
    """

    names: Names
    roles: tuple[str, ...] = ("report", "caption", "text")
    question: str = "question"
    answer: str = "answer"
    required: tuple[str, ...] | None = None
    every: bool = False
    name: str = field(default="fact_guard", init=False)
    version: str = field(default="1", init=False)

    @classmethod
    def of_schema(cls, schema: LabelSchema) -> FactGuard:
        """For captions of one label schema."""
        return cls(names={k: tuple(v) for k, v in schema.labels.items() if k != schema.normal})

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records whose texts hold."""
        names = merged(self.names)
        for record in records:
            reasons = self.judge(record, names)
            if reasons:
                drop(record, reasons[0])
            else:
                yield record

    def judge(self, record: Record, names: Names | None = None) -> tuple[str, ...]:
        """All reasons against one record."""
        names = merged(self.names) if names is None else names
        facts = facts_of(record, self.names)
        found: set[str] = set()
        for item in self._made(record, self.roles):
            required = None if self.required is None else [k for k in self.required if k in facts and facts[k].there]
            found |= set(contradictions(item.text(), facts, names, required=required))
        questions, answers = (list(self._made(record, (role,))) for role in (self.question, self.answer))
        for item in answers:
            found |= set(contradictions(item.text(), facts, names, required=()))
        for asked, said in zip(questions, answers, strict=False):
            found |= {"answer_leak"} if leaks(asked.text(), said.text(), names) else set()
        return tuple(r for r in REASONS if r in found)

    def _made(self, record: Record, roles: Sequence[str]) -> Iterator[Item]:
        for item in record.all(*roles):
            if item.kind == "text" and (self.every or item.origin.by == "model"):
                yield item
