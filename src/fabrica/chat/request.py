"""One request to a chat model, its key, and what can go wrong with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fabrica.chat.parts import digest
from fabrica.errors import FabricaError, Refused, UsageError
from fabrica.types import ChatModel, Item, Message, Region, Reply

PASSING = ("chat_timeout", "chat_unreachable", "chat_rate", "chat_server", "chat_junk")  # may succeed another time


class ChatFailed(Refused):
    """No usable reply to one request. `code` says why; the tokens are what it cost; `said` the unusable replies.

    Codes: chat_timeout, chat_unreachable, chat_rate (429), chat_server (5xx), chat_junk (no chat completion in the
    answer), chat_status (any other status), chat_refused (the model declined), reply_schema (not what was asked for).
    """

    def __init__(
        self, code: str, message: str, *, tokens_in: int = 0, tokens_out: int = 0, said: Sequence[str] = ()
    ) -> None:
        super().__init__(code, message)
        self.tokens_in, self.tokens_out, self.said = tokens_in, tokens_out, tuple(said)

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed another time: the way to the model failed, not its answer."""
        return self.code in PASSING


class GaveUp(FabricaError):
    """The way to the model failed many times in a row: what was answered is kept, nothing more is asked."""

    code = "chat_gave_up"


class NotRecorded(UsageError):
    """A request that the recording does not hold."""

    code = "not_recorded"


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of one call.

    >>> Request(user("Hello")).key("demo")[:8] == Request(user("Hello"), seed=1).key("demo")[:8]
    False
    """

    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0

    def key(self, model: str) -> str:
        """Hex sha256 of the model's name, the messages with the bytes of their items, and the parameters."""
        what = [
            model, [[m.role, [digest(part) for part in m.parts]] for m in self.messages], self.schema,
            self.max_tokens, float(self.temperature), self.seed,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()

    def ask(self, model: ChatModel) -> Reply:
        """The model's reply."""
        return model(
            self.messages, schema=self.schema, max_tokens=self.max_tokens, temperature=self.temperature, seed=self.seed
        )


class Asked:
    """The shape of every chat model here: `answer` takes one request; a call makes it.

    `name` says model and version; `version` counts changes of this class that change answers.
    """

    name: str = ""
    version: str = "1"

    def __call__(
        self, messages: Sequence[Message], /, *, schema: Mapping[str, Any] | None = None, max_tokens: int = 256,
        temperature: float = 0.0, seed: int = 0,
    ) -> Reply:  # fmt: skip
        """The reply to the messages; see `types.ChatModel`."""
        if not messages:
            raise UsageError("no messages; wanted at least one")
        return self.answer(Request(tuple(messages), schema, max_tokens, temperature, seed))

    def answer(self, request: Request) -> Reply:
        """The reply to one request."""
        raise NotImplementedError


def user(*parts: str | Item | Region, system: str = "") -> tuple[Message, ...]:
    """One user turn, after a system turn if there is one.

    >>> [m.role for m in user("Describe the image.", system="Be brief.")]
    ['system', 'user']
    """
    first = (Message("system", (system,)),) if system else ()
    return (*first, Message("user", parts))


def reply_json(reply: Reply) -> dict[str, Any]:
    """A reply as plain JSON."""
    out: dict[str, Any] = {"text": reply.text, "model": reply.model}
    out |= {"tokens_in": reply.tokens_in, "tokens_out": reply.tokens_out}
    return out if reply.logprobs is None else out | {"logprobs": [list(pair) for pair in reply.logprobs]}


def reply_from(data: Mapping[str, Any]) -> Reply:
    """The inverse of `reply_json`."""
    pairs = data.get("logprobs")
    logprobs = None if pairs is None else tuple((str(token), float(value)) for token, value in pairs)
    return Reply(
        str(data["text"]), str(data["model"]), int(data.get("tokens_in", 0)), int(data.get("tokens_out", 0)), logprobs
    )
