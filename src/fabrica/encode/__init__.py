"""Item -> array: units and geometry checked here, nothing padded (that is `collate` alone). One file per kind."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError, unknown
from fabrica.types import Item

ENCODES: dict[str, str] = {  # the name in a JSON file -> where its class is
    "image": "fabrica.encode.image:ImageEncode",
    "volume": "fabrica.encode.volume:VolumeEncode",
    "text": "fabrica.encode.text:TextEncode",
    "signal": "fabrica.encode.signal:SignalEncode",
    "table": "fabrica.encode.table:TableEncode",
}


@runtime_checkable
class Encode(Protocol):
    """One item -> one array of `shape`; `shape` None means token ids (n,), n >= 1, which `Collate` pads with `pad`.

    `choose` says which of a record's items are used at a visit (a caption bank gives one); `still` is the same
    transform without chance, for evaluation; `to_json` holds all that `from_json` needs.
    """

    @property
    def shape(self) -> tuple[int, ...] | None: ...

    @property
    def pad(self) -> int: ...

    def __call__(self, item: Item, rng: np.random.Generator, /) -> NDArray[Any]: ...

    def choose(self, items: Sequence[Item], most: int, rng: np.random.Generator, /) -> Sequence[Item]: ...

    def still(self) -> Self: ...

    def to_json(self) -> dict[str, Any]: ...


class Plain:
    """What most transforms share: the first `most` items, no chance, zero padding."""

    __slots__ = ()

    @property
    def pad(self) -> int:
        """The value of absent positions."""
        return 0

    def choose(self, items: Sequence[Item], most: int, rng: np.random.Generator, /) -> Sequence[Item]:
        """The first `most` items."""
        return items[:most]

    def still(self) -> Self:
        """The same transform: it draws nothing."""
        return self


def from_json(data: Mapping[str, Any]) -> Encode:
    """The transform that `to_json` described.

    >>> from fabrica.encode.signal import SignalEncode
    >>> from_json(SignalEncode(100, 10.0, ("I", "II")).to_json()).shape
    (2, 1000)
    """
    name = data.get("type")
    if not isinstance(name, str):
        raise UsageError(f"a transform needs its 'type', one of {', '.join(ENCODES)}; got {name!r}")
    if name not in ENCODES:
        raise unknown("transform", name, ENCODES)
    module, _, cls = ENCODES[name].partition(":")
    made: Encode = getattr(importlib.import_module(module), cls).from_json(data)
    return made
