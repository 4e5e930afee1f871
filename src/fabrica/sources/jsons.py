"""JSON from outside: depth bounded before anything is built, no repeated keys, no NaN, no endless numbers."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import numpy as np

from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits

GROWTH = 8  # bytes of Python objects a byte of JSON
_KEEP = b"[]{}"
_CHUNK = 1 << 20
_DROP = bytes(n for n in range(256) if n not in _KEEP)


def depth(data: bytes) -> int:
    """How deep arrays and objects are nested, without building them (strings are skipped).

    >>> depth(b'{"a": [1, {"b": "]]]}}}"}]}'), depth(b"1")
    (3, 0)
    """
    if b"\\" in data:  # pairs first, so that what is left of \" is an escaped quote
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(data.split(b'"')[::2]).translate(None, _DROP)
    if not outside:
        return 0
    level = deepest = 0
    for at in range(0, len(outside), _CHUNK):
        marks = np.frombuffer(outside[at : at + _CHUNK], np.uint8)
        steps = np.where((marks == ord("[")) | (marks == ord("{")), 1, -1).cumsum()
        deepest = max(deepest, level + int(steps.max()))
        level += int(steps[-1])
    return deepest


def parse(data: bytes, limits: Limits = LIMITS) -> Any:
    """A JSON value of UTF-8 bytes (with or without the mark).

    Refused: `json_too_large` (above an eighth of `limits.array_bytes`: objects take that much more), `json_depth`
    (above `limits.depth`), `json_key_twice`, `json_number` (NaN, Infinity, thousands of digits), `json_bad`.
    """
    most = limits.array_bytes // GROWTH
    if len(data) > most:
        raise Refused("json_too_large", f"a JSON value of {len(data)} bytes; the limit is {most}: write it as NDJSON")
    if data.count(b"[") + data.count(b"{") > limits.depth and depth(data) > limits.depth:
        raise Refused("json_depth", f"the JSON is nested deeper than {limits.depth}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused("json_bad", "the file is not UTF-8, which JSON must be") from error
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise Refused("json_bad", f"no JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise Refused("json_depth", "the JSON is nested too deeply") from error
    except ValueError as error:  # Python's own bound on the digits of an integer
        raise Refused("json_number", "a number of thousands of digits") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    got = dict(pairs)
    if len(got) != len(pairs):
        raise Refused("json_key_twice", "an object holds the same key twice: readers would differ in what they take")
    return got


def _constant(name: str) -> NoReturn:
    raise Refused("json_number", f"{name} is no JSON number")
