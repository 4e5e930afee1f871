"""The plainest value that obeys a JSON schema, with facts where they fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fabrica.errors import UsageError

_DEEPEST = 32  # references followed before a schema counts as endless
_ANNOTATIONS = {"title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs", "definitions"}


def fill(schema: Mapping[str, Any], facts: Mapping[str, Any], text: str) -> Any:
    """A value that obeys `schema`: members named like a fact hold it if it fits, free texts hold `text`.

    Known: type, enum, const, properties, required, items, prefixItems, anyOf, oneOf, allOf, $ref within the schema, and
    the limits of numbers, lengths and counts. `UsageError` for a schema with anything else that would have to be met
    (pattern, not, if ...), and for one that never ends.

    >>> fill({"type": "object", "properties": {"side": {"enum": ["left", "right"]}, "n": {"type": "integer",
    ...       "minimum": 2}}, "required": ["side", "n"]}, {"side": "right"}, "A text.")
    {'side': 'right', 'n': 2}
    """
    return _value(schema, schema, facts, text, 0)


def _value(schema: Any, root: Mapping[str, Any], facts: Mapping[str, Any], text: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise UsageError("the schema refers to itself without end; only a model could choose where to stop")
    if schema is True or schema == {}:
        return text
    if not isinstance(schema, Mapping):
        raise UsageError(f"the schema holds {schema!r} where a schema is wanted")
    schema = _flat(schema, root, depth)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", _guess(schema))
    kind = next((k for k in kind if k != "null"), "null") if isinstance(kind, list) else kind
    if kind == "object":
        return _object(schema, root, facts, text, depth)
    if kind == "array":
        return _array(schema, root, facts, text, depth)
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    if kind == "string":
        return _string(schema, text)
    return {"boolean": False, "null": None}.get(kind, text)


def _flat(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """The schema with references, allOf and the first of anyOf or oneOf merged in."""
    if depth > _DEEPEST:
        raise UsageError("the schema refers to itself without end; only a model could choose where to stop")
    out = {k: v for k, v in schema.items() if k not in ("$ref", "allOf", "anyOf", "oneOf")}
    parts = [_resolve(str(schema["$ref"]), root)] if "$ref" in schema else []
    parts += list(schema.get("allOf", ()))
    parts += [options[0] for key in ("anyOf", "oneOf") if (options := schema.get(key))]
    for part in parts:
        for key, value in _flat(part, root, depth + 1).items():
            if key == "properties":
                out[key] = {**value, **out.get(key, {})}
            elif key == "required":
                out[key] = sorted({*value, *out.get(key, ())})
            else:
                out.setdefault(key, value)
    hard = set(out) & {"pattern", "not", "if", "contains", "uniqueItems", "dependentRequired", "patternProperties",
                       "propertyNames", "format", "minProperties"}  # fmt: skip
    if hard - ({"uniqueItems"} if not out.get("uniqueItems") or out.get("minItems", 0) < 2 else set()):
        raise UsageError(f"the template grammar cannot meet {sorted(hard)} of this schema; take another chat model")
    return out


def _resolve(ref: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    if not ref.startswith("#"):
        raise UsageError(f"the schema refers to {ref!r}, which is not inside it")
    for step in ref[1:].strip("/").split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        if step and (not isinstance(found, Mapping) or step not in found):
            raise UsageError(f"the schema refers to {ref!r}, which is not inside it")
        found = found[step] if step else found
    if not isinstance(found, Mapping):
        raise UsageError(f"{ref!r} of the schema is no schema")
    return found


def _guess(schema: Mapping[str, Any]) -> str:
    by_key = {"properties": "object", "required": "object", "items": "array", "prefixItems": "array",
              "minItems": "array", "minimum": "number", "maximum": "number", "multipleOf": "number"}  # fmt: skip
    return next((kind for key, kind in by_key.items() if key in schema), "string")


def _object(
    schema: Mapping[str, Any], root: Mapping[str, Any], facts: Mapping[str, Any], text: str, depth: int
) -> dict[str, Any]:
    members = schema.get("properties", {})
    required = schema.get("required", ())
    out: dict[str, Any] = {}
    for key, part in members.items():
        told = key in facts and _fits(facts[key], part, root)
        if told:
            out[key] = facts[key]
        elif key in required:
            inner = facts.get(key)
            out[key] = _value(part, root, inner if isinstance(inner, Mapping) else facts, text, depth + 1)
    for key in required:
        if key not in out:
            extra = schema.get("additionalProperties", True)
            out[key] = facts[key] if key in facts and extra is True else _value(extra, root, facts, text, depth + 1)
    return out


def _fits(value: Any, schema: Any, root: Mapping[str, Any]) -> bool:
    """Whether a fact obeys its member's schema; without the library that can tell, only if it is plainly so."""
    from fabrica.chat.schema import checker
    from fabrica.errors import MissingExtra

    if not isinstance(schema, Mapping):
        return schema is True
    whole = {**schema, **{k: root[k] for k in ("$defs", "definitions") if k in root}}
    try:
        return checker(whole)(value) == ""
    except MissingExtra:
        kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
        kind = kinds.get(str(schema.get("type")))
        plain = not set(schema) - _ANNOTATIONS - {"type"}
        return plain and kind is not None and isinstance(value, kind) and (isinstance(value, bool) == (kind is bool))  # type: ignore[arg-type]


def _array(
    schema: Mapping[str, Any], root: Mapping[str, Any], facts: Mapping[str, Any], text: str, depth: int
) -> list[Any]:
    first = schema.get("prefixItems", ())
    wanted = max(int(schema.get("minItems", 0)), min(1, int(schema.get("maxItems", 0 if first else 1))), 0)
    wanted = max(wanted, len(first)) if schema.get("items") is False else wanted
    parts = [*first, *[schema.get("items", True)] * max(0, wanted - len(first))][: int(schema.get("maxItems", 1 << 30))]
    return [_value(part, root, facts, text, depth + 1) for part in parts[: max(wanted, len(first))]]


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    step = float(schema.get("multipleOf", 1 if whole else 0))
    low = float(schema.get("minimum", -math.inf))
    high = float(schema.get("maximum", math.inf))
    over, under = float(schema.get("exclusiveMinimum", -math.inf)), float(schema.get("exclusiveMaximum", math.inf))
    if step:
        low = max(low, (math.floor(over / step) + 1) * step) if over > -math.inf else low
        high = min(high, (math.ceil(under / step) - 1) * step) if under < math.inf else high
        value = 0.0 if low <= 0 <= high else math.ceil(low / step) * step if low > 0 else math.floor(high / step) * step
    else:
        lowest, highest = max(low, over), min(high, under)
        if lowest < 0 < highest or (low == 0 <= highest and over < 0) or (high == 0 >= lowest and under > 0):
            value = 0.0
        elif math.isinf(highest):
            value = low if low > over else over + 1
        elif math.isinf(lowest):
            value = high if high < under else under - 1
        else:
            value = low if low > over else (lowest + highest) / 2
        low, high = lowest, highest
    if not low <= value <= high:
        raise UsageError(f"no number obeys the limits of this schema: {dict(schema)}")
    return int(value) if whole or value == int(value) else value


def _string(schema: Mapping[str, Any], text: str) -> str:
    least, most = int(schema.get("minLength", 0)), int(schema.get("maxLength", 1 << 30))
    if least > most:
        raise UsageError(f"no text obeys minLength {least} and maxLength {most}")
    return text[:most].ljust(least, ".")
