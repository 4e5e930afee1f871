"""A chat model whose replies obey their JSON schema: two repairs, then a typed failure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fabrica.chat.prompts import prompt
from fabrica.chat.request import Asked, ChatFailed, Request
from fabrica.errors import UsageError, need
from fabrica.types import ChatModel, Message, Reply

_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
_STARTS = 32  # places where JSON is looked for in prose
_LONGEST = 1 << 20  # characters of a reply that are read as JSON


class Checked(Asked):
    """Where a request has a schema: the reply's text is JSON that obeys it, and nothing else.

    JSON is taken from the whole reply, a fenced block or the first object in prose. A reply that does not obey is
    shown to the model with the first error, `repairs` times; then `ChatFailed("reply_schema")` with all that was said.
    Tokens add up. References to schemas elsewhere are never fetched.
    """

    def __init__(self, model: ChatModel, *, repairs: int = 2) -> None:
        if repairs < 0:
            raise UsageError(f"repairs={repairs}; wanted 0 or more")
        self.model, self.name, self.repairs = model, model.name, repairs

    def answer(self, request: Request) -> Reply:
        """A reply that obeys."""
        if request.schema is None:
            return request.ask(self.model)
        first_error, said = checker(request.schema), list[str]()
        tokens_in = tokens_out = 0
        asked = request
        for _ in range(self.repairs + 1):
            try:
                reply = asked.ask(self.model)
            except ChatFailed as error:
                error.tokens_in, error.tokens_out = error.tokens_in + tokens_in, error.tokens_out + tokens_out
                raise
            tokens_in, tokens_out = tokens_in + reply.tokens_in, tokens_out + reply.tokens_out
            said.append(reply.text)
            value, why = found_json(reply.text)
            why = why or first_error(value)
            if not why:
                text = json.dumps(value, ensure_ascii=False)
                return replace(reply, text=text, tokens_in=tokens_in, tokens_out=tokens_out)
            again = prompt("repair").messages(error=why, schema=json.dumps(request.schema))
            asked = replace(asked, messages=(*asked.messages, Message("assistant", (reply.text,)), *again))
        raise ChatFailed(
            "reply_schema", f"{self.name} gave no JSON that obeys the schema in {len(said)} tries: {why}",
            tokens_in=tokens_in, tokens_out=tokens_out, said=said,
        )  # fmt: skip


def checker(schema: Mapping[str, Any]) -> Callable[[Any], str]:
    """A function that says the first error of a value ("" = none); `UsageError` for what is no JSON schema.

    >>> checker({"type": "object", "required": ["a"]})({"b": 1})
    "'a' is a required property"
    """
    jsonschema = need("jsonschema", "chat")
    referencing = need("referencing", "chat")
    cls = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        cls.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise UsageError(f"this is no JSON schema: {error.message}") from error
    validator = cls(schema, registry=referencing.Registry())  # an empty registry fetches nothing

    def first_error(value: Any) -> str:
        try:
            error = jsonschema.exceptions.best_match(validator.iter_errors(value))
        except referencing.exceptions.Unresolvable as gone:
            raise UsageError(f"the schema refers to {gone.ref!r}, which is not inside it") from gone
        except RecursionError:
            return "the value is nested too deeply"
        if error is None:
            return ""
        at = "/".join(str(step) for step in error.absolute_path)
        return (f"at {at}: " if at else "") + str(error.message)[:300]

    return first_error


def found_json(text: str) -> tuple[Any, str]:
    """The JSON value in a reply and ""; or None and why there is none.

    >>> found_json('Here it is:\\n```json\\n{"a": 1}\\n```')
    ({'a': 1}, '')
    >>> found_json('{"a": [1, 2')[0] is None
    True
    """
    text = text.strip()
    if len(text) > _LONGEST:
        return None, f"the reply has {len(text)} characters; at most {_LONGEST} are read"
    value, why = _loads(text)
    if not why:
        return value, ""
    for block in _FENCE.findall(text):
        value, wrong = _loads(block)
        if not wrong:
            return value, ""
    starts = [m.start() for m in re.finditer(r"[{\[]", text)][:_STARTS]
    for start in starts:
        value, wrong = _loads(text[start:], part=True)
        if not wrong and isinstance(value, dict):
            return value, ""
    return None, why


def _loads(text: str, *, part: bool = False) -> tuple[Any, str]:
    decoder = json.JSONDecoder(parse_constant=_constant)
    try:
        return (decoder.raw_decode(text)[0] if part else decoder.decode(text)), ""
    except RecursionError:
        return None, "the JSON is nested too deeply"
    except ValueError as error:
        return None, f"not JSON: {error}"


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
