"""What clients of the OpenAI API send, checked and turned into messages and items; and what they get back."""

from __future__ import annotations

import base64
import binascii
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from fabrica.chat.request import Request
from fabrica.errors import Refused, UsageError
from fabrica.safe import LIMITS, MIB, Limits, sha256
from fabrica.types import Item, Message, Origin, Reply

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
IMAGE_TYPES = ("image/png", "image/jpeg", "image/tiff", "image/gif", "image/bmp", "image/webp")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may cost: `body` bytes of JSON, `images` and their `pixels` each, `messages`, `texts` of one
    embedding call, `characters` of one text, `max_tokens` of a reply, `hits` of a search."""

    body: int = 16 * MIB
    images: int = 8
    pixels: int = 20_000_000
    messages: int = 200
    texts: int = 256
    characters: int = 200_000
    max_tokens: int = 4096
    hits: int = 100


BOUNDS = Bounds()


def chat_request(body: Mapping[str, Any], bounds: Bounds = BOUNDS) -> Request:
    """The request of a chat completion. Images come as data URLs alone: nothing is fetched for a client."""
    turns = body.get("messages")
    if not isinstance(turns, list) or not turns:
        _wrong("messages", "a list of at least one message", turns)
    if len(turns) > bounds.messages:
        raise Refused("too_many_messages", f"{len(turns)} messages; at most {bounds.messages}")
    if body.get("n", 1) != 1:
        _wrong("n", "1", body["n"])
    left = [bounds.images]
    messages = tuple(_message(turn, i, left, bounds) for i, turn in enumerate(turns))
    return Request(
        messages,
        schema=_schema(body.get("response_format")),
        max_tokens=_number(body, ("max_completion_tokens", "max_tokens"), 256, 1, bounds.max_tokens),
        temperature=float(_number(body, ("temperature",), 0.0, 0, 2)),
        seed=_number(body, ("seed",), 0, 0, 2**31 - 1),
    )


def texts(body: Mapping[str, Any], bounds: Bounds = BOUNDS) -> list[str]:
    """The texts of an embedding call: one string or a list of them (token numbers are refused)."""
    given = body.get("input")
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list) or not listed or not all(isinstance(t, str) and t.strip() for t in listed):
        _wrong("input", "a text or a list of texts, none empty", given)
    if len(listed) > bounds.texts:
        raise Refused("too_many_texts", f"{len(listed)} texts; at most {bounds.texts} a call")
    for text in listed:
        _short(text, "input", bounds)
    return cast(list[str], listed)


def query(body: Mapping[str, Any], bounds: Bounds = BOUNDS) -> tuple[str, int, str | None]:
    """Text, number of hits and SQL filter of a search."""
    text, where = body.get("query"), body.get("where")
    if not isinstance(text, str) or not text.strip():
        _wrong("query", "a text", text)
    if where is not None and not isinstance(where, str):
        _wrong("where", "an SQL filter on the corpus' columns, or nothing", where)
    return _short(text, "query", bounds), _number(body, ("k",), 10, 1, bounds.hits), where


# ---------------------------------------------------------------- parts


def _message(turn: Any, at: int, left: list[int], bounds: Bounds) -> Message:
    role = ROLES.get(turn.get("role", "")) if isinstance(turn, dict) else None
    if role is None:
        _wrong(f"messages[{at}].role", "one of " + ", ".join(ROLES), turn)
    content = turn.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not parts:
        _wrong(f"messages[{at}].content", "a text or a list of parts", content)
    made = tuple(_part(part, f"messages[{at}]", left, bounds) for part in parts)
    return Message(cast(Literal["system", "user", "assistant"], role), made)


def _part(part: Any, where: str, left: list[int], bounds: Bounds) -> str | Item:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return _short(part["text"], where, bounds)
    if kind != "image_url":
        _wrong(f"{where}.content", "parts of type text or image_url", kind or part)
    left[0] -= 1
    if left[0] < 0:
        raise Refused("too_many_images", f"more than {bounds.images} images in one request")
    link = part.get("image_url")
    url = link.get("url") if isinstance(link, dict) else link
    return image(url, replace(LIMITS, pixels=bounds.pixels)) if isinstance(url, str) else _wrong(where, "a url", link)


def image(url: str, limits: Limits = LIMITS) -> Item:
    """The picture of a data URL, read within `limits`; `Refused` for any other URL."""
    from fabrica.sources.image import decode

    head, comma, coded = url.partition(",")
    media = head.removeprefix("data:").removesuffix(";base64")
    if not comma or not head.startswith("data:") or not head.endswith(";base64") or media not in IMAGE_TYPES:
        raise Refused(
            "image_url", f"an image comes as data:image/png;base64,... and not as {url[:40]!r}; nothing is fetched"
        )
    try:
        data = base64.b64decode(coded, validate=True)
    except binascii.Error as error:
        raise Refused("image_url", f"the image's base64 cannot be read: {error}") from error
    pixels, steps = decode(data, limits)
    if "frames" in steps:
        raise Refused("too_many_frames", "the image holds several frames; send one picture a part")
    return Item("image", pixels, Origin("request", "image", sha256(data), ""))


def _schema(form: Any) -> Mapping[str, Any] | None:
    if form is None or (isinstance(form, dict) and form.get("type") == "text"):
        return None
    if isinstance(form, dict) and form.get("type") == "json_object":
        return {"type": "object"}
    inner = form.get("json_schema") if isinstance(form, dict) else None
    schema = inner.get("schema") if isinstance(inner, dict) else None
    return (
        schema if isinstance(schema, dict) else _wrong("response_format", "type text, json_object or json_schema", form)
    )


def _number(body: Mapping[str, Any], names: Sequence[str], default: Any, low: float, high: float) -> Any:
    name = next((n for n in names if body.get(n) is not None), None)
    value = default if name is None else body[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        _wrong(name or names[0], f"a number from {low} to {high}", value)
    if isinstance(default, int) and int(value) != value:
        _wrong(name or names[0], "a whole number", value)
    return type(default)(value)


def _short(text: str, where: str, bounds: Bounds) -> str:
    if len(text) > bounds.characters:
        raise Refused("text_too_long", f"{where}: {len(text):,} characters; at most {bounds.characters:,}")
    return text


def _wrong(where: str, wanted: str, came: Any) -> NoReturn:
    raise UsageError(f"{where}: wanted {wanted}; came {str(came)[:60]!r}")


# ---------------------------------------------------------------- answers


def completion(reply: Reply, model: str, most: int) -> dict[str, Any]:
    """A `chat.completion` object."""
    full = bool(reply.tokens_out) and reply.tokens_out >= most
    return _envelope("chat.completion", model) | {
        "choices": [{
            "index": 0, "message": {"role": "assistant", "content": reply.text, "refusal": None},
            "finish_reason": "length" if full else "stop", "logprobs": _logprobs(reply),
        }],
        "usage": {"prompt_tokens": reply.tokens_in, "completion_tokens": reply.tokens_out,
                  "total_tokens": reply.tokens_in + reply.tokens_out},
    }  # fmt: skip


def chunks(reply: Reply, model: str) -> list[dict[str, Any]]:
    """The reply as `chat.completion.chunk` objects, a word at a time. It is written when it is whole."""
    base = _envelope("chat.completion.chunk", model)
    words = reply.text.split(" ")
    said = [w + " " for w in words[:-1]] + words[-1:]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": w} for w in said)]
    made = [base | {"choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
    return [*made, base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]


def embeddings(rows: NDArray[np.float32], model: str, coded: bool) -> dict[str, Any]:
    """The `list` object of an embedding call; `coded` = little-endian float32 in base64, as the client asks for."""
    little = np.ascontiguousarray(rows, "<f4")
    vectors = [base64.b64encode(r.tobytes()).decode() if coded else r.tolist() for r in little]
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": 0, "total_tokens": 0}}


def fault(error: Exception, code: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    """The body that clients read an error from."""
    return {"error": {"message": str(error), "type": kind, "param": None, "code": code}}


def _envelope(what: str, model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": what, "created": int(time.time()), "model": model}


def _logprobs(reply: Reply) -> dict[str, Any] | None:
    if reply.logprobs is None:
        return None
    rows = [{"token": t, "logprob": p, "bytes": list(t.encode()), "top_logprobs": []} for t, p in reply.logprobs]
    return {"content": rows, "refusal": None}
