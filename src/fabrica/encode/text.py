"""Text to token ids: which part is read at a visit, how long texts are cut, and how much is lost by it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fabrica.encode.vocabulary import load_tokenizer
from fabrica.errors import Refused, UsageError
from fabrica.types import Item

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Encoding, Tokenizer

View = Literal["whole", "one_sentence", "one_of"]
Truncation = Literal["tail", "head+tail"]
_SPLIT = re.compile(r"(?<=[.!?;])\s+|\s*\n\s*(?:[-*•]\s+)?")
_SHORT = re.compile(r"(?:\b(?:dr|mr|mrs|ms|st|vs|e\.g|i\.e|approx|no|fig|cf|al|resp)|\b[A-Za-z])\.$", re.IGNORECASE)
_REMEMBERED = 20_000  # texts (at most 256 characters each) whose ids a `TextEncode` keeps
_PAD_NAMES = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")


@dataclass(frozen=True, slots=True)
class Cut:
    """What a context length does to texts: how many were cut, and the mean share of tokens kept of those."""

    texts: int
    truncated: int
    kept: float
    longest: int  # tokens of the longest text

    @property
    def fraction(self) -> float:
        """The share of texts that lose something."""
        return self.truncated / self.texts if self.texts else 0.0


class TextEncode:
    """A text -> int64 token ids (n,), 1 <= n <= length, with the tokenizer's own special tokens, unpadded.

    `tokenizer`: a `tokenizers.Tokenizer`, a folder with tokenizer.json, or a catalogue name. `view`: "whole" reads the
    text; "one_sentence" draws one sentence a visit (ConVIRT: arXiv 2010.00747); "one_of" draws one of the
    record's texts a visit (a caption bank: UniMed-CLIP, arXiv 2412.10372). `truncation`: "tail" keeps the beginning,
    "head+tail" the first and the last half; special tokens are kept by both.

    Errors: `Refused("text_empty")` names the item whose text has nothing left; `UsageError` for a length that the
    special tokens alone fill.
    """

    def __init__(
        self, tokenizer: Tokenizer | str | Path, length: int, *, view: View = "whole", truncation: Truncation = "tail"
    ) -> None:
        self.tokenizer = load_tokenizer(tokenizer)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.length, self.view, self.truncation = length, view, truncation
        for name, value, known in (("view", view, ("whole", "one_sentence", "one_of")),
                                   ("truncation", truncation, ("tail", "head+tail"))):  # fmt: skip
            if value not in known:
                raise UsageError(f"{name} {value!r} is none of {', '.join(known)}")
        if length <= self.tokenizer.num_special_tokens_to_add(False):
            raise UsageError(f"length {length} has no room for text beside the special tokens")
        ids = (self.tokenizer.token_to_id(name) for name in _PAD_NAMES)
        self._pad = next((i for i in ids if i is not None), 0)
        self._known: dict[str, NDArray[np.int64]] = {}

    @property
    def shape(self) -> None:
        """None: the number of tokens varies."""
        return None

    @property
    def pad(self) -> int:
        """The id that fills positions without a token (they are masked as well)."""
        return self._pad

    @property
    def size(self) -> int:
        """Ids lie in 0..size-1."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    def still(self) -> TextEncode:
        """Whole texts, and the first of a bank."""
        return self if self.view == "whole" else self._copy(view="whole")

    def _copy(self, **changes: Any) -> TextEncode:
        rest = {"view": self.view, "truncation": self.truncation, **changes}
        return TextEncode(self.tokenizer, self.length, **rest)

    def choose(self, items: Sequence[Item], most: int, rng: np.random.Generator, /) -> Sequence[Item]:
        """For "one_of" one item drawn from all; else the first `most`."""
        if self.view == "one_of" and len(items) > 1:
            return [items[int(rng.integers(len(items)))]]
        return items[:most]

    def read(self, item: Item, rng: np.random.Generator) -> str:
        """The part of the item's text that this visit reads."""
        text = item.text().strip()
        if self.view == "one_sentence":
            parts = sentences(text)
            text = parts[int(rng.integers(len(parts)))] if parts else ""
        if not text:
            raise Refused("text_empty", f"text {item.origin.key!r} is empty")
        return text

    def __call__(self, item: Item, rng: np.random.Generator, /) -> NDArray[np.int64]:
        return self.ids(self.read(item, rng))

    def ids(self, text: str) -> NDArray[np.int64]:
        """The token ids of a text, cut to `length`; short texts that come again are remembered."""
        known = self._known.get(text)
        if known is not None:
            return known
        encoding = self.tokenizer.encode(text)
        ids = np.asarray(encoding.ids, np.int64)
        ids = ids if len(ids) <= self.length else ids[self._keep(encoding)]
        if len(text) <= 256:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            ids.flags.writeable = False
            self._known[text] = ids
        return ids

    def _keep(self, encoding: Encoding) -> NDArray[np.intp]:
        """Positions that stay: all special tokens, and as much of the text as fits."""
        special = np.asarray(encoding.special_tokens_mask, bool)
        body = np.flatnonzero(~special)
        room = self.length - int(special.sum())
        if len(body) > room:
            head = room if self.truncation == "tail" else (room + 1) // 2
            body = np.concatenate([body[:head], body[len(body) - (room - head) :]])
        return np.sort(np.concatenate([np.flatnonzero(special), body]))

    def kept(self, text: str) -> str:
        """The part of a text that survives `length`; " … " stands where the middle was cut.

        Which findings a model could have read at all: the share of captions whose finding is in `kept(caption)`.
        """
        encoding = self.tokenizer.encode(text)
        if len(encoding.ids) <= self.length:
            return text
        special = encoding.special_tokens_mask
        body = [i for i in self._keep(encoding).tolist() if not special[i]]
        runs = np.split(np.asarray(body), np.flatnonzero(np.diff(body) > 1) + 1)
        spans = [(encoding.offsets[r[0]][0], encoding.offsets[r[-1]][1]) for r in runs if len(r)]
        return " … ".join(text[a:b] for a, b in spans)

    def survey(self, texts: Iterable[str]) -> Cut:
        """How many of the texts are longer than `length`, and how much of those is kept."""
        lengths = np.asarray([len(e.ids) for e in self.tokenizer.encode_batch(list(texts))])
        long = lengths[lengths > self.length]
        return Cut(
            texts=len(lengths), truncated=len(long), longest=int(lengths.max(initial=0)),
            kept=float((self.length / long).mean()) if len(long) else 1.0,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """All settings and the whole tokenizer as plain JSON."""
        return {
            "type": "text", "length": self.length, "view": self.view, "truncation": self.truncation,
            "tokenizer": json.loads(self.tokenizer.to_str()),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TextEncode:
        """The inverse of `to_json`."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(json.dumps(data["tokenizer"]))
        return cls(tokenizer, data["length"], view=data["view"], truncation=data["truncation"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextEncode) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        rest = {"length": self.length, "view": self.view, "truncation": self.truncation}
        return _restore, (self.tokenizer.to_str(), rest)


def _restore(tokenizer: str, rest: Mapping[str, Any]) -> TextEncode:
    """For worker processes: `tokenizers` objects travel as their JSON."""
    from tokenizers import Tokenizer

    return TextEncode(Tokenizer.from_str(tokenizer), **rest)


def sentences(text: str) -> list[str]:
    """Sentences and list lines that hold a letter, in order.

    Abbreviations ("Dr.", initials) and decimals do not end one.

    >>> sentences("Heart normal. Nodule of 2.5 cm, per Dr. Hu.\\n- No effusion")
    ['Heart normal.', 'Nodule of 2.5 cm, per Dr. Hu.', 'No effusion']
    """
    out: list[str] = []
    start = 0
    for match in _SPLIT.finditer(text):
        before = text[start : match.start()]
        if "\n" not in match.group() and _SHORT.search(before):
            continue
        out.append(before)
        start = match.end()
    out.append(text[start:])
    return [s for s in (part.strip(" \t•*-") for part in out) if any(c.isalpha() for c in s)]
