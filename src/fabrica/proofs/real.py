"""Where a proof finds real data: a folder of data sets by name, which no proof needs to run."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "FABRICA_REAL_DATA"


def real(name: str) -> Path | None:
    """The folder of an unpacked data set under FABRICA_REAL_DATA (default `fabrica-shared` in the user's cache); None
    where it is not at hand, which the proof then says in its notes.

    >>> real("no such data set") is None
    True
    """
    root = Path(os.environ.get(VARIABLE, Path.home() / ".cache" / "fabrica-shared"))
    folder = root / name
    return folder if folder.is_dir() else None


def absent(name: str) -> str:
    """What a proof says of a real arm that it leaves out."""
    return f"The real arm is left out: {name!r} is not at hand (set {VARIABLE} to the folder that holds it)."
