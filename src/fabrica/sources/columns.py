"""The column map: a small documented language that says which columns of a table are which part of a record.

A map is {key: expression}. Keys:

| key | what it becomes |
|---|---|
| `id` | a row's own stable name (hashed into the record id) |
| `subject`, `study` | hashed identifiers: never stored raw |
| `image` | a path, read like any other file (npz: an array); it cannot lead out of the table's folder |
| `image_dir` | no expression but the folder that `image` and `mask` start from, beside the table |
| `mask`, `mask:NAME` | a path (npz: an array) of the same size as the image: a mask region on it |
| `report`, `caption`, `text` | text items of that role; `report_file`: a path to a text file |
| `split` | train, val, test (also their usual other names) |
| `licence` | the row's licence |
| `label:NAME` | a number, or a test |
| `group:NAME` | a string; `group:modality` takes the usual other names ("X-ray", "CR", "MRI" ...) |
| `value:NAME` | a number in the record's `table` item |
| `codes` | one or several codes ("C01|C02", also with `;` or `,`): a `codes` item, one a line |
| `header` | no expression but the header line of a table that has none, in the table's own separator; a last name |
| | that ends in `*` takes the rest of the row, joined by a bar |
| `join:NAME` | no expression but `FILE on COLUMN` or `FILE on THEIRS == OURS`: a table beside this one, whose columns |
| | are then `NAME.COLUMN`; `header:NAME` is its header line where it has none |

Expressions: `COLUMN` (its value); `'constant'`; tests `COLUMN == v`, `COLUMN != v`, `COLUMN in a|b`, and `COLUMN has v`
for cells that hold several values ("Effusion|Nodule"); `COLUMN ~ REGEX` (the first group, or the match); and templates
such as `images/{file}.png`. A test of an empty cell is absent, not 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fabrica.errors import Refused, UsageError, unknown
from fabrica.types import Split

KEYS = (
    "id", "subject", "study", "image", "image_dir", "mask", "report", "report_file", "caption", "text", "split",
    "licence", "codes", "header",
)  # fmt: skip
PREFIXES = ("label:", "group:", "value:", "mask:", "join:", "header:")
PLAIN = ("image_dir", "header", "join:", "header:")  # no expressions
MISSING = frozenset({"", "na", "n/a", "nan", "null"})
SPLITS: Mapping[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "tuning": "val", "test": "test", "testing": "test", "held_out": "test", "hidden": "hidden",
}  # fmt: skip
MODALITIES: Mapping[str, str] = {
    "x-ray": "xray", "x ray": "xray", "xr": "xray", "cr": "xray", "dx": "xray", "radiograph": "xray", "cxr": "xray",
    "mri": "mr", "us": "ultrasound", "histopathology": "pathology", "histology": "pathology", "sm": "pathology",
    "retina": "fundus", "op": "fundus", "nm": "nuclear", "pt": "nuclear", "pet": "nuclear",
}  # fmt: skip
_YES = {"yes": 1.0, "true": 1.0, "positive": 1.0, "y": 1.0, "no": 0.0, "false": 0.0, "negative": 0.0, "n": 0.0}
_TEST = re.compile(r"^(?P<column>.+?)\s+(?P<op>==|!=|in|has|~)\s+(?P<want>.+)$", re.DOTALL)
_WHOLE = re.compile(r"^(-?\d+)\.0$")
_FIELD = re.compile(r"\{([^{}]+)\}")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression: `columns` it reads; calling it with a row gives str, number, or None (absent)."""

    text: str
    columns: tuple[str, ...]
    get: Callable[[Row], Any]
    test: bool = False

    def __call__(self, row: Row) -> Any:
        return self.get(row)


def check(columns: Mapping[str, str]) -> None:
    """Raise `UsageError` for a key that the map does not have, naming the near one."""
    for key in columns:
        if key not in KEYS and not any(key.startswith(p) and len(key) > len(p) for p in PREFIXES):
            raise unknown("column map key", key, (*KEYS, *(p + "NAME" for p in PREFIXES)))


def compile_map(columns: Mapping[str, str], header: Iterable[str]) -> dict[str, Expression]:
    """Every expression of a map against a table's header; an unknown column is a `UsageError` with the near one.

    >>> m = compile_map({"label:covid": "finding == COVID-19", "group:site": "'A'"}, ["file", "finding"])
    >>> m["label:covid"]({"finding": "COVID-19"}), m["label:covid"]({"finding": ""}), m["group:site"]({})
    (1.0, None, 'A')
    """
    check(columns)
    names = tuple(header)
    return {key: compile_one(text, names) for key, text in columns.items() if not key.startswith(PLAIN)}


def compile_one(text: str, header: tuple[str, ...]) -> Expression:
    """One expression against a header.

    >>> compile_one("file ~ (person[0-9]+)", ("file",))({"file": "person12_virus_3.jpeg"})
    'person12'
    """
    if not isinstance(text, str):
        raise UsageError(f"a column map holds text, not {text!r}; a constant is written \"'{text}'\"")
    if text in header:
        return Expression(text, (text,), lambda row: cell(row.get(text)))
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return Expression(text, (), lambda row: text[1:-1])
    if (match := _TEST.match(text)) and (match["column"] in header or not _FIELD.search(text)):
        return _test(text, match["column"], match["op"], match["want"].strip(), header)
    if fields := tuple(_FIELD.findall(text)):
        for name in fields:
            if name not in header:
                raise unknown("column", name, header)
        return Expression(text, fields, lambda row: _fill(text, row))
    raise unknown("column", text, header)


def _test(text: str, column: str, op: str, want: str, header: tuple[str, ...]) -> Expression:
    if column not in header:
        raise unknown("column", column, header)
    if op == "~":
        try:
            pattern = re.compile(want)
        except re.error as error:
            raise UsageError(f"column map: {want!r} is not a regular expression: {error}") from error
        return Expression(text, (column,), lambda row: _search(pattern, cell(row.get(column))))
    options = [w.strip() for w in want.split("|")] if op == "in" else [want]

    def get(row: Row) -> float | None:
        value = cell(row.get(column))
        if value is None:
            return None
        parts = [p.strip() for p in re.split(r"[|;,]", str(value))] if op == "has" else [value]
        hit = any(same(part, option) for part in parts for option in options)
        return float(hit != (op == "!="))

    return Expression(text, (column,), get, test=True)


def _search(pattern: re.Pattern[str], value: Any) -> str | None:
    found = pattern.search(str(value)) if value is not None else None
    if not found:
        return None
    return found.group(1) if pattern.groups else found.group(0)


def _fill(text: str, row: Row) -> str | None:
    values = {name: cell(row.get(name)) for name in _FIELD.findall(text)}
    if all(v is None for v in values.values()):
        return None
    return _FIELD.sub(lambda m: plain(values[m[1]]), text).strip()


def cell(value: Any) -> Any:
    """A cell's value, None where it is empty.

    >>> cell(" NA "), cell("x"), cell(float("nan"))
    (None, 'x', None)
    """
    if isinstance(value, str):
        value = value.strip()
        return None if value.lower() in MISSING else value
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def plain(value: Any) -> str:
    """A value as text; a whole number from a column with gaps loses its ".0".

    >>> plain(3.0), plain("15709.0"), plain("1.50")
    ('3', '15709', '1.50')
    """
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return _WHOLE.sub(r"\1", str(value))


def same(value: Any, want: str) -> bool:
    """Whether a cell is the wanted value, as text or as a number."""
    if str(value) == want:
        return True
    a, b = number(value), number(want)
    return a is not None and a == b


def number(value: Any) -> float | None:
    """A finite float, or None.

    >>> number("3.5"), number("yes"), number("inf")
    (3.5, None, None)
    """
    if isinstance(value, str) and len(value) > 64:
        return None
    try:
        got = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return got if math.isfinite(got) else None


def label(key: str, expression: Expression, row: Row) -> float | None:
    """A label's number, None where the cell is empty; words other than yes/no are `Refused`."""
    value = expression(row)
    if value is None or (got := number(value)) is not None:
        return None if value is None else got
    if str(value).lower() in _YES:
        return _YES[str(value).lower()]
    raise Refused(
        "label_not_number",
        f"{key!r} reads {expression.text!r}, whose value {str(value)[:40]!r} is no number; "
        f'write a test such as "{expression.text} == {str(value)[:40]}"',
    )


def split_of(value: Any) -> Split | None:
    """A split from its usual names; None where empty; anything else is `Refused`.

    >>> split_of("Validation")
    'val'
    """
    if value is None:
        return None
    got = SPLITS.get(plain(value).lower())
    if got is None:
        raise Refused("split_unknown", f"split {plain(value)[:40]!r} is none of {', '.join(SPLITS)}")
    return got


def modality(value: str) -> str:
    """The usual word for a modality.

    >>> modality("X-ray"), modality("CT")
    ('xray', 'ct')
    """
    return MODALITIES.get(value.strip().lower(), value.strip().lower())
