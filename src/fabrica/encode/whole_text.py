"""Texts that are read whole or not at all: one that does not fit is left out, counted, never cut in the middle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.encode.text import TextEncode
from fabrica.errors import Refused
from fabrica.types import Item


class WholeText(TextEncode):
    """`TextEncode` that cuts nothing: of a record's texts it takes the first that fit in `length` tokens, so that a
    record whose only text is too long counts as one without. `survey` says how many texts that are.

    Errors: `Refused("text_too_long")` where a bare text does not fit.
    """

    def choose(self, items: Sequence[Item], most: int, rng: np.random.Generator, /) -> Sequence[Item]:
        """The first `most` items that fit."""
        return [item for item in items if self.fits(item.text())][:most]

    def fits(self, text: str) -> bool:
        """Whether a text, with the special tokens, has at most `length` tokens."""
        return len(self.tokenizer.encode(text.strip()).ids) <= self.length

    def ids(self, text: str) -> NDArray[np.int64]:
        """The token ids of a text that fits."""
        found = self.tokenizer.encode(text)
        if len(found.ids) > self.length:
            raise Refused("text_too_long", f"{text[:40]!r} has {len(found.ids)} tokens; the limit is {self.length}")
        return np.asarray(found.ids, np.int64)

    def _copy(self, **changes: Any) -> WholeText:
        rest = {"view": self.view, "truncation": self.truncation, **changes}
        return WholeText(self.tokenizer, self.length, **rest)

    def to_json(self) -> dict[str, Any]:
        """All settings and the whole tokenizer as plain JSON."""
        return {**super().to_json(), "type": "whole_text"}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WholeText:
        """The inverse of `to_json`."""
        found = TextEncode.from_json(data)
        return cls(found.tokenizer, found.length, view=found.view, truncation=found.truncation)

    def __reduce__(self) -> tuple[Any, ...]:
        return WholeText.from_json, (self.to_json(),)
