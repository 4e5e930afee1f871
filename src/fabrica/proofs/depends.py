"""Which modules a proof's numbers depend on: what it and its system import, and what those import, by their source."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

_SRC = Path(__file__).resolve().parents[1]
# Where numbers are made. The store, safety and the nouns carry values and change none.
ROOMS = ("phantom", "text", "curate", "encode", "objectives", "models", "train", "chat", "retrieve", "evaluate")
TABLES = ("models/kinds.py",)  # names and places: an entry more changes no number


def modules(name: str) -> list[Path]:
    """The files of `proofs/NAME.py` and `systems/NAME.py` (of a second proof `NAME_real`, the system NAME), and of what
    they import (anywhere in the file, in turn) within ROOMS; sorted."""
    todo = [_SRC / "proofs" / f"{name}.py", _SRC / "systems" / f"{name.removesuffix('_real')}.py"]
    found: set[Path] = set()
    while todo:
        file = todo.pop()
        if file not in found:
            found.add(file)
            inner = ((f, f.relative_to(_SRC)) for f in _imported(file))
            todo += [f for f, at in inner if _counts(at)]
    return sorted(found)


def _counts(at: Path) -> bool:
    """Whether numbers may come from a file: one of ROOMS, or a proof's own second file ("_figures.py")."""
    own = at.parts[0] == "proofs" and at.name.startswith("_") and at.name != "__init__.py"
    return own or (at.parts[0] in ROOMS and at.as_posix() not in TABLES)


@cache
def _imported(file: Path) -> tuple[Path, ...]:
    """The files of this package that a file's import statements name."""
    made: list[Path] = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "fabrica":
            made += [f for alias in node.names if (f := _file(node.module, alias.name))]
        elif isinstance(node, ast.Import):
            made += [f for a in node.names if a.name.startswith("fabrica.") and (f := _file(a.name, ""))]
    return tuple(made)


def _file(module: str, name: str) -> Path | None:
    """Where `from module import name` finds it: a module, or what the package's `__init__` itself imports it from."""
    place = _SRC.joinpath(*module.split(".")[1:])
    if (place / f"{name}.py").is_file() and name:
        return place / f"{name}.py"
    if place.with_suffix(".py").is_file():
        return place.with_suffix(".py")
    start = place / "__init__.py"
    if not start.is_file():
        return None
    for node in ast.walk(ast.parse(start.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module and any(a.name == name for a in node.names):
            return _file(node.module, name)
    return start
