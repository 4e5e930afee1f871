"""The published systems, one file each; the folder is the registry: a file's name is the system's name."""

from __future__ import annotations

import ast
import importlib
from dataclasses import dataclass
from pathlib import Path

from fabrica.errors import unknown
from fabrica.types import System

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Headline:
    """What a listing shows of a system, read from its source without importing it."""

    name: str
    seed: str
    title: str
    claim: str


def names() -> list[str]:
    """The systems that are here, sorted. Imports none of them.

    >>> "convirt" in names()
    True
    """
    return sorted(p.stem for p in _FOLDER.glob("*.py") if not p.stem.startswith("_"))


def headline(name: str) -> Headline:
    """Seed, title and claim of a system: the literal arguments of its `SYSTEM = System(...)`."""
    tree = ast.parse((_FOLDER / f"{_checked(name)}.py").read_text("utf-8"))
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "System":
            words = {
                k.arg: k.value.value
                for k in call.keywords
                if k.arg in ("seed", "title", "claim") and isinstance(k.value, ast.Constant)
            }
            return Headline(name, str(words["seed"]), str(words["title"]), str(words["claim"]))
    raise TypeError(f"systems/{name}.py holds no SYSTEM = System(...)")


def load_system(name: str) -> System:
    """Import one system; an unknown name gives the nearest known one."""
    system = importlib.import_module(f"fabrica.systems.{_checked(name)}").SYSTEM
    assert isinstance(system, System)
    return system


def _checked(name: str) -> str:
    if name not in names():
        raise unknown("system", name, names())
    return name
