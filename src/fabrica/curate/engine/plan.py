"""What identifies a run: the plan's steps with versions and parameters, and the version of its input."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fabrica.errors import UsageError
from fabrica.types import Step, Survey

if TYPE_CHECKING:
    from fabrica.corpus import Corpus


def signature(part: Step | Survey) -> dict[str, Any]:
    """Name, version and parameters of a step as plain JSON.

    Parameters are a dataclass' fields, or what `params()` returns.
    """
    for wanted in ("name", "version"):
        if not isinstance(getattr(part, wanted, None), str):
            raise UsageError(f"{part!r} in the plan has no {wanted}; a step is a class with name, version and __call__")
    if not isinstance(part, Survey) and not callable(part):
        raise UsageError(f"{part.name} in the plan is neither a step (callable) nor a survey (note, decide)")
    if dataclasses.is_dataclass(part):
        params = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.name not in ("name", "version")}
    else:
        given: Callable[[], Mapping[str, Any]] | None = getattr(part, "params", None)
        params = dict(given()) if given else {}
    return {"name": part.name, "version": part.version, "params": plain(params, part.name)}


def plain(value: Any, step: str) -> Any:
    """A value as JSON that is equal for equal values, in any process.

    >>> plain({"b": (1, 2), "a": {3}}, "demo")
    {'a': [3], 'b': [1, 2]}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(value[k], step) for k in sorted(value, key=str)}
    if isinstance(value, (set, frozenset)):
        return sorted((plain(v, step) for v in value), key=str)
    if isinstance(value, (list, tuple)):
        return [plain(v, step) for v in value]
    if isinstance(value, np.ndarray):
        return [value.dtype.str, list(value.shape), hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name), step) for f in dataclasses.fields(value)}
    name, version = getattr(value, "name", None), getattr(value, "version", None)
    if isinstance(name, str) and isinstance(version, str):
        return [name, version]
    if callable(value) and hasattr(value, "__qualname__") and "<" not in value.__qualname__:
        return f"{value.__module__}:{value.__qualname__}"
    raise UsageError(
        f"step {step!r} has a parameter {value!r} that names nothing stable; give it a name and version, or a function"
    )


def fingerprint(plan: Sequence[Step | Survey], source: Corpus, limit: int | None = None) -> str:
    """Hex digest of the plan and of what it reads: the source's version and its ids."""
    what = {"plan": [signature(part) for part in plan], "version": source.version, "ids": source.split_hash()}
    what |= {} if limit is None else {"limit": limit}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def carry_splits(plan: Sequence[Step | Survey], into: Path, card: Mapping[str, Any] | None) -> Sequence[Step | Survey]:
    """The plan whose `BySubject` keeps the splits that the very same one gave in `into` before."""
    from fabrica.corpus import Corpus
    from fabrica.curate.split import BySubject, assigned

    if card is None:
        return plan
    out: list[Step | Survey] = []
    for part in plan:
        if isinstance(part, BySubject) and signature(part) in card["plan"]:
            part = dataclasses.replace(part, frozen={**assigned(Corpus.open(into)), **part.frozen})
        out.append(part)
    return out
