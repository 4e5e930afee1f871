"""Synthetic exam questions with planted contradictions, and a reader of known competence that answers prompts in text.

A case states sex, potassium and timing; each option is a made-up disease that wants some of each. The right one fits;
every other one contradicts exactly one stated fact. One wrong option shares a word with the case: in a share `bias` of
the cases that is what the reader falls for. What the reader can do (see a contradiction, raise a false alarm) is a
setting, so these worlds show when a strategy pays, not that a real model has the competence.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

import numpy as np

from fabrica.types import Item, Origin, Record

SEXES = ("man", "woman")
BANDS = {"low": (2.4, 3.3), "normal": (3.6, 4.9), "high": (5.3, 6.6)}  # mmol/L
TIMES = ("after meals", "at night", "on exertion")
SIGNS = ("burning", "rash", "tremor", "fever", "cough", "swelling", "vertigo", "cramp")
_SYLLABLES = ("ka", "vel", "mor", "dra", "sil", "ton", "bra", "nex", "lu", "pir", "gos", "fen", "zar", "quil")
_CASE = re.compile(r"Case (\d+): a (man|woman) of \d+ years with (\w+), (.+?)\. Potassium is ([\d.]+) mmol/L\.")
_WANTS = re.compile(r"is seen in a (man|woman), with (low|normal|high) potassium, (after meals|at night|on exertion)")
_OPTION = re.compile(r"^\(([A-Z])\) (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Disease:
    """What an option wants of a case."""

    name: str
    sex: str
    band: str
    time: str


@dataclass(frozen=True, slots=True)
class Case:
    """One question: its diseases in order, which is right and which is salient (shares the sign's word)."""

    number: int
    text: str
    options: tuple[Disease, ...]
    right: int
    salient: int
    biased: bool  # whether the reader falls for the salient one
    likes: tuple[str, ...]  # the reader's order of preference


@dataclass(frozen=True, slots=True)
class Vignettes:
    """`n` cases of 3 to 5 options.

    >>> world = Vignettes(2, seed=0)
    >>> world.cases[0].text == Vignettes(2, seed=0).cases[0].text
    True
    """

    n: int
    seed: int
    bias: float = 0.35
    cases: tuple[Case, ...] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 72])
        object.__setattr__(self, "cases", tuple(_case(i, rng, self.bias) for i in range(self.n)))

    def records(self) -> list[Record]:
        """Items "question", "option" in order; label "answer" the place of the right one."""
        made = []
        for case in self.cases:
            origin = Origin("vignettes", f"case {case.number}", "", "CC0-1.0", "synthetic")
            items = {
                "question": (Item("text", case.text, origin),),
                "option": tuple(Item("text", d.name, origin) for d in case.options),
            }
            name = f"vignette-{self.seed}-{case.number}"
            made.append(Record(name, name, {"modality": "question"}, items, labels={"answer": float(case.right)}))
        return made

    def reader(self, *, detect: float = 0.85, false_alarm: float = 0.1, firm: float = 0.8) -> Reader:
        """Who answers: sees a real contradiction with probability `detect`, one that is not there with `false_alarm`;
        a sampled chain says the favourite with probability `firm`. One draw a case and option, whatever is asked."""
        return Reader({c.number: c for c in self.cases}, self.seed, detect, false_alarm, firm)


@dataclass(frozen=True, slots=True)
class Reader:
    """`reader(text, temperature, seed) -> reply` to the prompts of strategies; it reads nothing but the text."""

    cases: dict[int, Case]
    world: int
    detect: float
    false_alarm: float
    firm: float

    def __call__(self, text: str, temperature: float, seed: int) -> str:
        """The reply to one prompt."""
        found = _CASE.search(text)
        if found is None:
            return "There is no case here."
        case = self.cases[int(found[1])]
        letters = {name: a for a, name in _OPTION.findall(text.split("\n\n")[0])}
        if "Assume that (" in text:
            return self._argue(case, text)
        if "Claim: (" in text:
            return self._check(case, text, found)
        if "how consistent it was found" in text:
            return f"Answer: ({letters[self._weighed(case, text, letters)]})"
        if temperature > 0:
            return self._chain(case, letters, seed)
        return f"It fits {case.likes[0]} best. Answer: ({letters[case.likes[0]]})"

    def _argue(self, case: Case, text: str) -> str:
        name = text.split("Assume that (")[1].split(") ", 1)[1].split(" is the answer")[0]
        d = next(d for d in case.options if d.name == name)
        return f"{d.name} is seen in a {d.sex}, with {d.band} potassium, {d.time}."

    def _check(self, case: Case, text: str, found: re.Match[str]) -> str:
        claim, _, others = text.split("Claim: (")[1].partition("Arguments for the other options:")
        name = claim.split(") ", 1)[1].split(" is the answer")[0]
        wants = _WANTS.search(claim)
        if wants is None:
            return "The claim says nothing that could be checked. Consistent: 0.5"
        facts = (found[2], band(float(found[5])), found[4])
        contradicted = facts != wants.groups()
        sees = self._draw(case, name) < (self.detect if contradicted else self.false_alarm)
        worth = sum(other in others for other in case.likes[case.likes.index(name) + 1 :]) / len(case.likes)
        score = (0.1 if sees else 0.6) + 0.3 * worth  # between equals, the one it likes better
        return f"{'A fact is contradicted' if sees else 'No contradiction'}. Consistent: {score:.2f}"

    def _weighed(self, case: Case, text: str, letters: dict[str, str]) -> str:
        """The best score shown; without scores, the favourite."""
        shown = {a: float(s) for a, s in re.findall(r"^\(([A-Z])\) .*\[(\d\.\d+)\]$", text, re.MULTILINE)}
        return max(case.likes, key=lambda n: (shown.get(letters[n], -1.0), -case.likes.index(n)))

    def _chain(self, case: Case, letters: dict[str, str], seed: int) -> str:
        rng = np.random.default_rng([self.world, case.number, seed])
        others = case.likes[1:]
        name = case.likes[0] if rng.random() < self.firm else others[int(rng.integers(len(others)))]
        return f"Thought {int(rng.integers(1 << 30))}: it fits {name}. Answer: ({letters[name]})"

    def _draw(self, case: Case, name: str) -> float:
        """One number in [0, 1) for a case and option."""
        said = hashlib.blake2b(f"{self.world} {case.number} {name}".encode(), digest_size=8).digest()
        return float(int.from_bytes(said, "big") / 2**64)


def band(potassium: float) -> str:
    """The band of a value in mmol/L.

    >>> band(2.9), band(4.0), band(6.0)
    ('low', 'normal', 'high')
    """
    return "low" if potassium < 3.5 else "high" if potassium > 5.0 else "normal"


def _case(number: int, rng: np.random.Generator, bias: float) -> Case:
    sex, name, time = (str(rng.choice(x)) for x in (SEXES, tuple(BANDS), TIMES))
    sign, value = str(rng.choice(SIGNS)), rng.uniform(*BANDS[name])
    text = (
        f"Case {number}: a {sex} of {int(rng.integers(18, 90))} years with {sign}, {time}. "
        f"Potassium is {value:.1f} mmol/L. Which disease is it?"
    )
    count = int(rng.integers(3, 6))
    names = _names(rng, count)
    right, salient = (int(i) for i in rng.permutation(count)[:2])
    names[salient] = f"{names[salient]} {sign} disease"
    options = []
    for i in range(count):
        facts = {"sex": sex, "band": name, "time": time}
        if i != right:
            kind = str(rng.choice(list(facts)))
            known = {"sex": SEXES, "band": tuple(BANDS), "time": TIMES}[kind]
            facts[kind] = str(rng.choice([v for v in known if v != facts[kind]]))
        options.append(Disease(names[i], **facts))
    biased = bool(rng.random() < bias)
    first = [salient, right] if biased else [right]
    rest = [int(i) for i in rng.permutation(count) if i not in first]
    return Case(number, text, tuple(options), right, salient, biased, tuple(options[i].name for i in [*first, *rest]))


def _names(rng: np.random.Generator, count: int) -> list[str]:
    """Made-up names, all different."""
    names: list[str] = []
    while len(names) < count:
        name = "".join(rng.choice(_SYLLABLES, 3)).capitalize()
        if name not in names:
            names.append(name)
    return names
