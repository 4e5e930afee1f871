"""Steps that leave out what nothing can be learned from: no text, too small, constant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from fabrica.types import Drop, Item, Record

_TEXT_ROLES = ("report", "caption", "text")


@dataclass(kw_only=True)
class MissingText:
    """Leaves out records without a text of `roles` of at least `min_words` words (reason no_text or short_text).

    `modalities` limits it to records of those; records of others pass.
    """

    roles: tuple[str, ...] = _TEXT_ROLES
    min_words: int = 1
    modalities: tuple[str, ...] = ()
    name: str = field(default="missing_text", init=False)
    version: str = field(default="1", init=False)

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records that have a text."""
        for record in records:
            if self.modalities and record.groups.get("modality") not in self.modalities:
                yield record
                continue
            words = [len(item.text().split()) for item in record.all(*self.roles) if item.kind == "text"]
            if max(words, default=0) >= max(self.min_words, 1):
                yield record
            else:
                drop(record, "short_text" if any(words) else "no_text")


@dataclass(kw_only=True)
class MinimumSize:
    """Leaves out records with a picture whose shorter side has fewer than `pixels` (too_small), whose sides differ by
    more than `aspect` to 1 (too_narrow) or that is constant (constant). Records without pictures pass."""

    pixels: int = 24
    aspect: float = 8.0
    name: str = field(default="minimum_size", init=False)
    version: str = field(default="1", init=False)

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records whose pictures are large enough."""
        for record in records:
            images = (i for items in record.items.values() for i in items if i.kind == "image")
            reason = next((r for i in images if isinstance(i.value, np.ndarray) and (r := self._why(i))), None)
            if reason is None:
                yield record
            else:
                drop(record, reason)

    def _why(self, item: Item) -> str | None:
        value = item.array()
        short, long = sorted(value.shape[:2])
        if short < self.pixels:
            return "too_small"
        if long > self.aspect * short:
            return "too_narrow"
        return "constant" if value.min() == value.max() else None
