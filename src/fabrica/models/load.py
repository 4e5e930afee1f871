"""Any saved folder back to its bundle: which class of model it holds, by the tables of `models.kinds`."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabrica import safe
from fabrica.encode import ENCODES, from_json
from fabrica.encode.collate import Collate, Use
from fabrica.errors import UsageError, unknown
from fabrica.models.adapt import Freeze
from fabrica.models.body import BODIES, Body, body_from_json
from fabrica.models.heads import ProjectionHead
from fabrica.models.kinds import BUNDLES, FUSIONS, MORE_BODIES, MORE_ENCODES
from fabrica.models.towers import Tower

if TYPE_CHECKING:
    from fabrica.models.bundle import Bundle


def load(folder: str | Path, *, device: str = "cpu") -> Bundle:
    """The bundle that `save_pretrained` wrote to `folder`, whatever family it is of."""
    from fabrica.models.bundle import Bundle
    from fabrica.models.multi import CONFIG

    path = Path(folder) / CONFIG
    if not path.is_file():
        raise UsageError(f"{str(folder)!r} has no {CONFIG}; wanted a folder that `save_pretrained` wrote")
    config = json.loads(safe.read_bytes(path))
    place = next((place for key, place in BUNDLES.items() if key in config), None)
    kind: type[Bundle] = Bundle if place is None else _at(place)
    return kind.from_pretrained(folder, device=device)


def fusion_class(data: Mapping[str, Any]) -> Any:
    """The class of the fusion that a config.json describes."""
    name = str(data.get("fusion"))
    if name not in FUSIONS:
        raise unknown("fusion", name, FUSIONS)
    return _at(FUSIONS[name])


def tower_of(data: Mapping[str, Any]) -> Tower:
    """The tower (random weights) that `Tower.to_json` described, of any body."""
    freeze = Freeze(tuple(data["freeze"]["names"]), data["freeze"]["layers"])
    return Tower(body_of(data["body"]), ProjectionHead.from_json(data["head"]), pool=data["pool"], freeze=freeze)


def body_of(data: Mapping[str, Any]) -> Body:
    """The body (random weights) that its `to_json` described."""
    kind = str(data.get("kind"))
    if kind in MORE_BODIES:
        made: Body = _at(MORE_BODIES[kind]).from_json(data)
        return made
    if kind not in BODIES:
        raise unknown("kind of tower", kind, {**BODIES, **MORE_BODIES})
    return body_from_json(data)


def collate_of(data: Mapping[str, Any]) -> Collate:
    """The collate that `Collate.to_json` described, of any transform."""
    if data.get("version") != 1:
        raise UsageError(f"collate settings are of version {data.get('version')!r}; this library reads version 1")
    fields = {n: Use(tuple(u["roles"]), encode_of(u["encode"]), u["most"]) for n, u in data["fields"].items()}
    return Collate(fields, tuple(data["targets"]), tuple(data["keys"]), data["seed"])


def encode_of(data: Mapping[str, Any]) -> Any:
    """The transform that its `to_json` described."""
    name = str(data.get("type"))
    if name in MORE_ENCODES:
        return _at(MORE_ENCODES[name]).from_json(data)
    if name not in ENCODES:
        raise unknown("transform", name, {**ENCODES, **MORE_ENCODES})
    return from_json(data)


def _at(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
