"""Reports and captions from truth, and the inverse grammar that reads them back to present and absent findings."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import Protocol

from fabrica.phantom.words import BOILERPLATE

Names = Mapping[str, Sequence[str]]  # label -> its synonyms, the preferred one first


class Found(Protocol):
    """What a sentence needs of a finding: its label and its place ("in the left upper zone", "" = none)."""

    @property
    def label(self) -> str: ...
    @property
    def place(self) -> str: ...


P1: Names = MappingProxyType(
    {
        "disc": ("round nodule", "coin lesion", "disc opacity"),
        "ring": ("ring shadow", "cavity", "annular lesion"),
        "square": ("square consolidation", "blocky density", "quadrate patch"),
        "cross": ("cross marking", "cruciate scar", "stellate focus"),
        "bar": ("band atelectasis", "linear streak", "plate shadow"),
        "wedge": ("wedge infarct", "triangular density", "pyramidal opacity"),
    }
)

_PREFIXES = ("pneumoperi", "bronchohypo", "pleuroepi")
_ROOTS = {"disc": "nummul", "ring": "annul", "square": "quadr", "cross": "cruci", "bar": "trabecul", "wedge": "cune"}
_ENDINGS = ("osis", "oma", "itis")
COMPOUNDS: Names = MappingProxyType(
    {k: tuple(p + root + e for p, e in zip(_PREFIXES, _ENDINGS, strict=True)) for k, root in _ROOTS.items()}
)

_ABSENT = ("no {}", "no evidence of {}", "{} is not seen", "without {}")
_ARTICLE = ("arrows mark {} {}", "the image shows {} {}", "{} is visible {}", "note the {} {}")
_ARTICLE_ABSENT = ("no {} was identified", "there was no {}")


def absences(found: Sequence[Found], names: Names, rng: random.Random, count: int) -> list[str]:
    """`count` labels that are not in `found`, drawn without repetition."""
    have = {f.label for f in found}
    free = [k for k in names if k not in have]
    return rng.sample(free, min(count, len(free)))


def report(found: Sequence[Found], names: Names, rng: random.Random, *, absent: int = 2, sep: str = " . ") -> str:
    """One sentence a finding and `absent` negated ones, in random order.

    >>> from fabrica.phantom.p1 import P1Finding
    >>> found = [P1Finding("ring", "left", "upper", 19, 14, 5, 0.7)]
    >>> text = report(found, P1, random.Random(1)); text
    'ring shadow in the left upper zone . without coin lesion . wedge infarct is not seen'
    >>> labels_of(text) == {"ring": True, "disc": False, "wedge": False}
    True
    """
    said = [f"{rng.choice(names[f.label])} {f.place}".rstrip() for f in found]
    said += [rng.choice(_ABSENT).format(rng.choice(names[k])) for k in absences(found, names, rng, absent)]
    rng.shuffle(said)
    return sep.join(said)


def article(
    found: Sequence[Found], names: Names, rng: random.Random, *, absent: int = 2, words: tuple[int, int] = (60, 120)
) -> str:
    """A figure caption: panel letter, method boilerplate, and the findings as one block at a uniformly random word.

    The block is one sentence, so that truncation keeps or loses it as a whole. The length lies within `words`.
    """
    parts = [rng.choice(_ARTICLE).format(rng.choice(names[f.label]), f.place).strip() for f in found]
    parts += [rng.choice(_ARTICLE_ABSENT).format(rng.choice(names[k])) for k in absences(found, names, rng, absent)]
    rng.shuffle(parts)
    block = "; ".join(parts).capitalize() + "."
    slack = _LONGEST // 2 + 1
    room = rng.randint(words[0] + slack, words[1] - slack) - len(block.split()) - 1
    filler, bounds = [], [0]  # boilerplate sentences, and the word number at which each boundary lies
    for sentence in rng.sample(BOILERPLATE, len(BOILERPLATE)):
        if bounds[-1] >= room - _LONGEST // 2:
            break
        filler.append(sentence)
        bounds.append(bounds[-1] + len(sentence.split()))
    at = rng.uniform(0, bounds[-1])
    cut = min(range(len(bounds)), key=lambda i: abs(bounds[i] - at))
    return " ".join([f"({rng.choice('ABCDEF')})", *filler[:cut], block, *filler[cut:]])


_LONGEST = max(len(s.split()) for s in BOILERPLATE)

# ---------------------------------------------------------------- the inverse grammar

_BEFORE = re.compile(
    r"\b(no|not|without|absence of|absent|free of|negative for|denies|ruled out|excludes?|resolved|never|neither|nor)\b"
)
_AFTER = re.compile(
    r"^\W*(?:\w+\W+){0,2}?(?:(?:is|are|was|were|has|have) (?:been )?)?"
    r"(?:not (?:seen|present|visible|identified|found|detected|shown)|absent|excluded|ruled out|resolved)\b"
)
_BREAK = re.compile(
    r"[.;:\n]+(?=\s|$)|\bbut\b|\bhowever\b|\balthough\b|\bthough\b|\bexcept(?: for)?\b|\bwhereas\b|\byet\b"
)


@lru_cache(maxsize=64)
def _matcher(names: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    owner: dict[str, str] = {}
    for label, synonyms in names:
        for name in synonyms:
            if owner.setdefault(name.lower(), label) != label:
                raise ValueError(f"synonym {name!r} names both {owner[name.lower()]!r} and {label!r}")
    for name in [n for n in owner if n.endswith("y")]:
        owner.setdefault(name[:-1] + "ie", owner[name])  # cavity, cavities
    longest = sorted(owner, key=len, reverse=True)
    return re.compile(r"(?<!\w)(" + "|".join(map(re.escape, longest)) + r")(?:e?s)?(?!\w)"), owner


def labels_of(text: str, names: Names = P1) -> dict[str, bool]:
    """What a report or caption says: label -> True where it is said to be there, False where it is only denied.

    A label that is not mentioned is not in the answer. A negation before a mention holds to the end of its clause
    ("no A or B" denies both; "no A but B" denies A); one after it ("A is not seen") holds for the mentions that
    stand together with it. A finding that is asserted anywhere is there.

    >>> labels_of("No cavity or coin lesion, but a linear streak. Wedge infarct is not seen.")
    {'ring': False, 'disc': False, 'bar': True, 'wedge': False}
    """
    pattern, owner = _matcher(tuple((k, tuple(v)) for k, v in names.items()))
    said: dict[str, bool] = {}
    for clause in _BREAK.split(text.lower()):
        mentions = list(pattern.finditer(clause))
        if not mentions:
            continue
        plain = pattern.sub(lambda m: "#" * len(m.group()), clause)  # a cue inside a name is no cue
        cue = _BEFORE.search(plain)
        denied = _AFTER.search(plain[mentions[-1].end() :]) is not None
        together = True
        for left, right in reversed([*pairwise(mentions), (mentions[-1], None)]):
            if right is not None:
                together = together and re.fullmatch(r"[\s,]*(?:and|or|nor)?\s*(?:an?|the)?\s*",
                                                     clause[left.end() : right.start()]) is not None  # fmt: skip
            there = not (cue is not None and cue.start() < left.start()) and not (denied and together)
            label = owner[left.group(1)]
            said[label] = said.get(label, False) or there
    order = {owner[m.group(1)]: None for m in pattern.finditer(text.lower())}
    return {label: said[label] for label in order}
