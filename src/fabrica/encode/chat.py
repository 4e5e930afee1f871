"""Conversations about images to token ids: templates, places of images, and which tokens are learned, by spans."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.encode.vocabulary import load_tokenizer
from fabrica.errors import Refused, UsageError, unknown
from fabrica.text.turns import Turn

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

IMAGE = "<image>"


@dataclass(frozen=True, slots=True)
class Template:
    """What stands around turns. `specials` must be tokens of the vocabulary; `stop` ends an answer and is learned."""

    system: str
    user: tuple[str, str]
    assistant: str
    stop: str
    after: str
    specials: tuple[str, ...]


TEMPLATES: dict[str, Template] = {
    "small": Template("", ("<user>", ""), "<assistant>", "<end>", "", ("<user>", "<assistant>", "<end>")),
    "chatml": Template(
        "", ("<|im_start|>user\n", "<|im_end|>\n"), "<|im_start|>assistant\n", "<|im_end|>", "\n",
        ("<|im_start|>", "<|im_end|>"),
    ),
    "short": Template("", ("", "\n"), "", "<|im_end|>", "", ("<|im_end|>",)),  # ChatML's end alone: for tuning on a CPU
    "vicuna": Template(
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the human's questions. ", ("USER: ", " "), "ASSISTANT: ", "</s>", "",
        ("</s>",),
    ),
}  # fmt: skip


class ChatEncode:
    """Turns -> int64 ids (n,) and learn (n,) bool: the answers' tokens with the one that ends them.

    Each piece is tokenised by itself, so that what is learned follows from where it was put and not from a search in
    the text. Words of a user that look like a special token ("<image>") are words. An image is `image_tokens` times the
    id of `image_token`, before the first question, or after it with `image_last`. Turns that do not fit `length` are
    left out whole, from the end.

    Errors: `Refused("text_too_long")` where not even the first turn fits, with both lengths; `UsageError` for a
    vocabulary that lacks the template's tokens.
    """

    def __init__(
        self, tokenizer: Tokenizer | str | Path, length: int, *, template: str = "small", image_tokens: int = 36,
        image_token: str = IMAGE,
    ) -> None:  # fmt: skip
        if template not in TEMPLATES:
            raise unknown("chat template", template, TEMPLATES)
        if image_tokens < 1 or length <= image_tokens:
            raise UsageError(f"length {length} has no room for text beside an image of {image_tokens} tokens")
        self.template, self.length = template, length
        self.image_tokens, self.image_token = image_tokens, image_token
        self.tokenizer = load_tokenizer(tokenizer)  # reads special tokens: for the template alone
        self._words = load_tokenizer(self.tokenizer)
        for one in (self.tokenizer, self._words):
            one.no_padding()
            one.no_truncation()
        self._words.encode_special_tokens = True
        self._form = TEMPLATES[template]
        for name in (*self._form.specials, image_token):
            if self.tokenizer.token_to_id(name) is None:
                raise UsageError(f"the vocabulary has no token {name!r}, which template {template!r} or images need")
        self.image_id, self.stop = self._id(image_token), self._id(self._form.stop)
        self.pad = next((i for n in ("[PAD]", "<pad>", "<|endoftext|>") if (i := self._id(n)) is not None), self.stop)

    def _id(self, name: str) -> Any:
        return self.tokenizer.token_to_id(name)

    @property
    def size(self) -> int:
        """Ids lie in 0..size-1."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    def _marks(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids) if text else []

    def words(self, text: str) -> list[int]:
        """The ids of what somebody wrote; never a special token."""
        return list(self._words.encode(text, add_special_tokens=False).ids)

    def ids(
        self, turns: Sequence[Turn], images: int = 0, *, image_last: bool = False, ask: bool = False, name: str = ""
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The ids of `turns` after `images` images. With `ask` the last answer is left to the model; `name` is for
        errors."""
        block = [self.image_id] * (images * self.image_tokens)
        ids = self._marks(self._form.system) if any(q for q, _ in turns) else []
        learn = [False] * len(ids)
        if not turns:
            ids, learn = ids + block, [False] * (len(ids) + len(block))
        for number, (question, answer) in enumerate(turns):
            here = block if number == 0 else []
            more, told = self._turn(question, answer, here, image_last, ask and number == len(turns) - 1)
            if len(ids) + len(more) > self.length:
                if number == 0 or ask:
                    raise Refused(
                        "text_too_long",
                        f"{name or 'a conversation'}: {len(ids) + len(more)} tokens, {len(block)} of them of images; "
                        f"the model is given {self.length}",
                    )
                break
            ids, learn = ids + more, learn + told
        return np.asarray(ids, np.int64), np.asarray(learn, bool)

    def _turn(
        self, question: str, answer: str, block: list[int], image_last: bool, ask: bool
    ) -> tuple[list[int], list[bool]]:
        form = self._form
        if question:
            said = self.words(question)
            said = said + block if image_last else block + said
            ids = self._marks(form.user[0]) + said + self._marks(form.user[1]) + self._marks(form.assistant)
        else:
            ids = list(block)
        learn = [False] * len(ids)
        if ask:
            return ids, learn
        told = [*self.words(answer), self.stop]
        after = self._marks(form.after)
        return ids + told + after, learn + [True] * len(told) + [False] * len(after)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, up to its end."""
        ids = list(ids)
        cut = ids.index(self.stop) if self.stop in ids else len(ids)
        return str(self.tokenizer.decode(ids[:cut], skip_special_tokens=True)).strip()

    def to_json(self) -> dict[str, Any]:
        """All settings and the whole tokenizer as plain JSON."""
        return {
            "type": "chat", "length": self.length, "template": self.template, "image_tokens": self.image_tokens,
            "image_token": self.image_token, "tokenizer": json.loads(self.tokenizer.to_str()),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ChatEncode:
        """The inverse of `to_json`."""
        from tokenizers import Tokenizer

        rest = {k: data[k] for k in ("template", "image_tokens", "image_token")}
        return cls(Tokenizer.from_str(json.dumps(data["tokenizer"])), data["length"], **rest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChatEncode) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (json.dumps(self.to_json()),)


def _restore(data: str) -> ChatEncode:
    """For worker processes: `tokenizers` objects travel as their JSON."""
    return ChatEncode.from_json(json.loads(data))


def chat_vocabulary(texts: Sequence[str], size: int, *, template: str = "small") -> Tokenizer:
    """A WordPiece vocabulary learned from `texts`, with the template's tokens and the image's.

    >>> made = chat_vocabulary(["a left nodule"] * 9, 60)
    >>> made.token_to_id("<image>") is not None and made.token_to_id("<end>") is not None
    True
    """
    from fabrica.encode.vocabulary import train_vocabulary

    made = train_vocabulary(texts, size)
    made.add_special_tokens([IMAGE, *TEMPLATES[template].specials])
    return made
