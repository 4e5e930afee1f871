"""Selectors that read what a sample holds: words, language and size, likeness to target images, membership."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fabrica.curate.pools.pool import Block, Pool, uids_of
from fabrica.curate.pools.selector import Codes, Ready, Selector, numbers, texts
from fabrica.curate.pools.subset import Subset
from fabrica.errors import UsageError


@dataclass(frozen=True)
class TextMatch(Selector):
    """Keeps rows whose text holds one of `words` as whole words, case aside ("pleural effusion" works as well): the
    text-based filter of DataComp, with any list of entities. Reasons: no_entity, no_text."""

    words: frozenset[str]
    column: str = "text"
    name: str = field(default="text_match", init=False)

    def __post_init__(self) -> None:
        if isinstance(self.words, str) or not self.words:
            raise UsageError(f"TextMatch: words {self.words!r}; wanted a set of at least one word")

    @property
    def columns(self) -> tuple[str, ...]:
        """The text."""
        return (self.column,)

    def ready(self, pool: Pool) -> Ready:
        """Nothing to know first."""
        known = {" ".join(_WORD.findall(w.lower())) for w in self.words}
        longest = max(w.count(" ") + 1 for w in known)

        def code(text: str) -> int:
            words = _WORD.findall(text.lower())
            if not words:
                return 2
            spans = ((i, j) for i in range(len(words)) for j in range(i + 1, min(i + longest, len(words)) + 1))
            return int(not any(" ".join(words[i:j]) in known for i, j in spans))

        return Ready(("no_entity", "no_text"), lambda b: np.array([code(t) for t in texts(b, self.column)], np.uint8))


_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Basic(Selector):
    """DataComp's basic filter: language, more than `words` words and `characters` characters, shorter side of at least
    `side` pixels, sides at most `aspect` to 1. None switches a rule, and the columns that it reads, off.

    Reasons: language, few_words, few_characters, no_size, too_small, too_narrow. `language_column` holds a code such as
    "en", written by whoever identified it.
    """

    language: str | None = "en"
    words: int | None = 2
    characters: int | None = 5
    side: float | None = 200.0
    aspect: float | None = 3.0
    text_column: str = "text"
    language_column: str = "language"
    size_columns: tuple[str, str] = ("original_width", "original_height")
    name: str = field(default="basic", init=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the rules that are on."""
        text = (self.text_column,) if self.words is not None or self.characters is not None else ()
        size = self.size_columns if self.side is not None or self.aspect is not None else ()
        return (*((self.language_column,) if self.language is not None else ()), *text, *size)

    def ready(self, pool: Pool) -> Ready:
        """Nothing to know first."""
        return Ready(("language", "few_words", "few_characters", "no_size", "too_small", "too_narrow"), self._codes)

    def _codes(self, block: Block) -> Codes:
        n = len(block["uid"])
        rules: list[NDArray[np.bool_]] = [np.zeros(n, bool)] * 6
        if self.language is not None:
            rules[0] = np.array([t != self.language for t in texts(block, self.language_column)], bool)
        said = texts(block, self.text_column) if self.text_column in self.columns else []
        if self.words is not None:
            rules[1] = np.array([len(t.split()) <= self.words for t in said], bool)
        if self.characters is not None:
            rules[2] = np.array([len(t) <= self.characters for t in said], bool)
        if self.side is not None or self.aspect is not None:
            width, height = (numbers(block, c) for c in self.size_columns)
            short, long = np.minimum(width, height), np.maximum(width, height)
            rules[3] = np.isnan(short)
            rules[4] = short < (0 if self.side is None else self.side)
            rules[5] = long > (np.inf if self.aspect is None else self.aspect) * short
        return np.select(rules, np.arange(1, 7), 0).astype(np.uint8)


@dataclass(frozen=True)
class InSet(Selector):
    """Keeps rows whose uid is in a subset (a file, another team's choice). Reason: not_in_set."""

    subset: Subset
    name: str = field(default="in_set", init=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """None: the uid decides."""
        return ()

    def ready(self, pool: Pool) -> Ready:
        """Nothing to know first."""
        return Ready(("not_in_set",), lambda b: (self.subset.count(uids_of(b)) == 0).astype(np.uint8))
