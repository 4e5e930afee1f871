"""A body and the transform that feeds it, for a field of a record by its kind: what a fusion is put together from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fabrica.encode.image import ImageEncode
from fabrica.encode.signal import SignalEncode
from fabrica.encode.table import TableEncode
from fabrica.errors import UsageError, unknown
from fabrica.models.body import Body
from fabrica.models.choose import image_body, text_body
from fabrica.models.heads import ProjectionHead
from fabrica.models.signal_tower import SignalTower
from fabrica.models.small import TableTower
from fabrica.models.towers import Tower
from fabrica.types import Record

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
KINDS = ("table", "image", "signal", "text")


@dataclass(frozen=True, slots=True)
class Inputs:
    """How fields of each kind are read. `image` and `text` name encoders ("small", a folder, a catalogue name, a hub
    id); signals are `seconds` at `rate` Hz; `hidden` are the layers of a table's MLP, whose `flags` say which columns
    were measured."""

    hidden: tuple[int, ...] = (32, 32)
    dropout: float = 0.0
    flags: bool = True
    image: str = "small"
    image_size: int = 64
    channels: int = 1
    rate: float = 100.0
    seconds: float = 10.0
    text: str = "small"
    length: int = 128
    vocabulary: int = 2000
    allow_network: bool = False


def field_body(kind: str, records: Sequence[Record], roles: tuple[str, ...], inputs: Inputs) -> tuple[Body, Any]:
    """The body of one field and its transform; statistics and vocabularies come from `records`, the training part.

    >>> field_body("image", [], ("image",), Inputs())[0].width
    96
    """
    if kind == "image":
        body = image_body(inputs.image, channels=inputs.channels, allow_network=inputs.allow_network)
        return body, ImageEncode(inputs.image_size, inputs.channels)
    if kind == "signal":
        return SignalTower(len(LEADS)), SignalEncode(inputs.rate, inputs.seconds, LEADS)
    if kind == "text":
        return text_body(
            inputs.text, records, roles, length=inputs.length, vocabulary=inputs.vocabulary,
            allow_network=inputs.allow_network,
        )  # fmt: skip
    if kind != "table":
        raise unknown("kind of field", kind, KINDS)
    encode = TableEncode.fit(records, roles, flags=inputs.flags)
    return TableTower(encode.shape[0], inputs.hidden, inputs.dropout), encode


def field_tower(body: Body, dim: int) -> Tower:
    """The body under a linear head to `dim`, without one where it is that wide already."""
    widths = (body.width,) if body.width == dim else (body.width, dim)
    return Tower(body, ProjectionHead(widths, normalise=None))


def tasks_in(records: Iterable[Record], wanted: Mapping[str, int] | None = None) -> dict[str, int]:
    """Task -> classes: those `wanted`, or, where none are, every label of the records that is 0 or 1 throughout and
    both somewhere. An error for a wanted label that no record has, or whose values are no class numbers."""
    seen: dict[str, set[float]] = {}
    for record in records:
        for name, value in record.labels.items():
            if isinstance(value, (int, float)):
                seen.setdefault(name, set()).add(float(value))
    if not wanted:
        found = {name: 2 for name in sorted(seen) if seen[name] == {0.0, 1.0}}
        if not found:
            raise UsageError("no label of the training records is 0 and 1; name the tasks: label -> number of classes")
        return found
    for name, classes in wanted.items():
        if name not in seen:
            raise unknown("label", name, seen)
        wrong = sorted(v for v in seen[name] if v not in range(classes))
        if wrong:
            raise UsageError(f"label {name!r} is {wrong[0]:g} in some record; wanted a class from 0 to {classes - 1}")
    return dict(wanted)
