"""A compound figure's caption -> the parts that speak of each panel. They tile the caption: no character is lost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """Characters `start` to `end` of a caption; `letters` are the panels it speaks of, () what all share."""

    letters: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Marker:
    letters: tuple[str, ...]
    start: int
    end: int


_LIST = r"{l}(?:\s*(?:,|&|and|[-\u2013\u2014])\s*(?:and\s+)?{l})*"
_STYLES = tuple(
    re.compile(pattern)
    for pattern in (
        r"\((" + _LIST.format(l="[A-Z]") + r")\)",
        r"\((" + _LIST.format(l="[a-z]") + r")\)",
        r"(?:(?<=^)|(?<=[.;:\n)] )|(?<=\n)|(?<=\band )|(?<=\bof ))(" + _LIST.format(l="[A-Z]") + r")[,:.)](?=\s)",
        r"(?:(?<=^)|(?<=[.;:\n)] )|(?<=\n))(" + _LIST.format(l="[a-z]") + r")[,:)](?=\s)",
        r"(?:(?<=^)|(?<=[.;\n] )|(?<=\n))(?:Panels? )(" + _LIST.format(l="[A-Z]") + r")\b[,:.]?",
    )
)
_TAIL = re.compile(
    r"(?<=[.;] )(?=(?:Scale bars?|Error bars?|Data (?:are|were|represent)|Bars?|All (?:data|values|images|panels)"
    r"|Asterisks?|Abbreviations?|Values|Arrows?|In all|See text|\*+ ?p|\*|P ?[<=]|n ?=)\b|\*)"
)
_ENDED = re.compile(r"[,.;]|$|\s+(?:and|but|or|versus|vs)\b")  # "(A) and": the letter belongs to what stood before it
_MOST = 26


def split(caption: str) -> tuple[Part, ...]:
    """The parts of a caption in order; one part without letters where no run of panel letters is found.

    A run begins with A (or a) and goes on without a gap; letters that come again are mentions. Letters stand before
    what they name ("(A) One. (B) Two."), or behind it ("one (A) and two (B)."): behind, where most are followed by
    punctuation or an "and".

    >>> text = "Two views. (A) One. (B, C) Two. Scale bar 5 mm."
    >>> [(p.letters, text[p.start:p.end]) for p in split(text)]
    [((), 'Two views. '), (('A',), '(A) One. '), (('B', 'C'), '(B, C) Two. '), ((), 'Scale bar 5 mm.')]
    >>> text = "Lungs of males (A) and of females (B)."
    >>> [(p.letters, text[p.start:p.end]) for p in split(text)]
    [(('A',), 'Lungs of males (A)'), (('B',), ' and of females (B)'), ((), '.')]
    """
    runs = [_run(style, caption) for style in _STYLES]
    best = max(runs, key=lambda run: sum(len(m.letters) for m in run))
    if sum(len(m.letters) for m in best) < 2:
        return (Part((), 0, len(caption)),)
    cut = _behind(best, caption) if _is_behind(best, caption) else _before(best, caption)
    return tuple(p for p in cut if p.end > p.start)


def _run(style: re.Pattern[str], caption: str) -> list[_Marker]:
    """The markers of one style whose letters go on from A without a gap."""
    out: list[_Marker] = []
    expected = 0
    for m in style.finditer(caption):
        letters = letters_of(m.group(1))
        places = [ord(x.upper()) - 65 for x in letters]
        if letters and places == list(range(expected, expected + len(places))):
            out.append(_Marker(letters, m.start(), m.end()))
            expected += len(places)
    return out


def letters_of(said: str) -> tuple[str, ...]:
    """The letters of a list with ranges.

    >>> letters_of("A, C-E"), letters_of("a and b")
    (('A', 'C', 'D', 'E'), ('a', 'b'))
    """
    tokens = re.findall(r"[A-Za-z](?![A-Za-z])|[-\u2013\u2014]", said.replace("and", ","))
    out: list[str] = []
    for i, token in enumerate(tokens):
        if token.isalpha():
            if i and not tokens[i - 1].isalpha() and out and 0 < ord(token) - ord(out[-1]) < _MOST:
                out += [chr(k) for k in range(ord(out[-1]) + 1, ord(token))]
            out.append(token)
    return tuple(out)


def _is_behind(run: Sequence[_Marker], caption: str) -> bool:
    """Whether the letters follow what they name."""
    if not caption[run[0].start : run[0].start + 1].startswith("("):
        return False
    before = caption[: run[0].start].rstrip()
    if not before or before[-1] in ".;:\n":
        return False
    inner = run[:-1] or run  # what follows the last letter says little: "left (A) and right (B) lung"
    ended = [_ENDED.match(caption, m.end) is not None for m in inner]
    return sum(ended) * 2 > len(ended)


def _before(run: Sequence[_Marker], caption: str) -> list[Part]:
    stop = _tail(caption, run[-1].end)
    parts = [Part((), 0, run[0].start)]
    for marker, end in zip(run, [*(m.start for m in run[1:]), stop], strict=True):
        parts.append(Part(marker.letters, marker.start, end))
    return [*parts, Part((), stop, len(caption))]


def _tail(caption: str, at: int) -> int:
    """Where words on all panels begin again behind the last marker: a new paragraph, or a scale bar's sentence."""
    line = caption.find("\n", at)
    found = _TAIL.search(caption, at)
    ends = [e for e in (line + 1 if line >= 0 else -1, found.start() if found else -1) if e > at]
    return min(ends, default=len(caption))


def _behind(run: Sequence[_Marker], caption: str) -> list[Part]:
    ends = [at + len(mark) for mark in (". ", "\n") if (at := caption.rfind(mark, 0, run[0].start)) >= 0]
    start = max(ends, default=0)
    parts = [Part((), 0, start)]
    for marker in run:
        parts.append(Part(marker.letters, start, marker.end))
        start = marker.end
    return [*parts, Part((), start, len(caption))]


def words(part: Part, caption: str) -> str:
    """The part's own words: without its letters, outer punctuation and the joining "and".

    >>> text = "(A) One cell; (B) two."
    >>> [words(p, text) for p in split(text)]
    ['One cell', 'two']
    """
    text = caption[part.start : part.end]
    if part.letters:
        listed = r"(?:Panels? )?\(?" + _LIST.format(l="[A-Za-z]") + r"[),:.]{1,2}"
        text = re.sub(r"^\s*" + listed + r"\s+", "", text, count=1)
        text = re.sub(r"\s*\(" + _LIST.format(l="[A-Za-z]") + r"\)\s*$", "", text, count=1)
        text = re.sub(r"^[\s,;.]*(?:(?:and|but)\s+)?", "", text)
        text = re.sub(r"[\s,;.]*(?:\s(?:and|but))?\s*$", "", text)
    return text.strip()
