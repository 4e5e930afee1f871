"""Prompts as versioned files: NAME.vN.txt beside this one. A released version is never edited; a change is a new one.

A file has parts under the lines [system] and [user]; $name is filled in, $$ is a dollar sign.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import Literal

from fabrica.errors import UsageError, unknown
from fabrica.types import Item, Message, Region

_HERE = Path(__file__).parent
_NAME = re.compile(r"([a-z_]+)\.v(\d+)\.txt")
_PART = re.compile(r"^\[(system|user)\]$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's text with its version; `mark` ("caption@1:0123abcd") names it in provenance and on cards."""

    name: str
    version: int
    text: str

    @property
    def sha256(self) -> str:
        """Hex digest of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def mark(self) -> str:
        """Name, version and the first eight digits of the hash."""
        return f"{self.name}@{self.version}:{self.sha256[:8]}"

    @property
    def fields(self) -> tuple[str, ...]:
        """The names that are filled in, sorted."""
        return tuple(sorted(Template(self.text).get_identifiers()))

    def messages(self, *items: Item | Region, **fields: str) -> tuple[Message, ...]:
        """The filled messages; `items` follow the text of the last one. A missing or unknown field is an error."""
        if (given := set(fields)) != (wanted := set(self.fields)):
            raise UsageError(
                f"prompt {self.mark} has the fields {sorted(wanted)}; missing {sorted(wanted - given)}, "
                f"unknown {sorted(given - wanted)}"
            )
        pieces = _PART.split(self.text)
        if len(pieces) < 3 or pieces[0].strip():
            raise UsageError(f"prompt {self.mark} has no [system] or [user] line at its start")
        turns = list(zip(pieces[1::2], pieces[2::2], strict=True))
        out = [Message(_role(role), (Template(body.strip()).substitute(fields),)) for role, body in turns]
        return (*out[:-1], Message(out[-1].role, (*out[-1].parts, *items)))


def _role(name: str) -> Literal["system", "user"]:
    return "system" if name == "system" else "user"


def prompt(name: str, version: int | None = None) -> Prompt:
    """A prompt by name, the newest version unless one is named.

    >>> prompt("caption", 1).fields
    ('facts',)
    """
    found = versions()
    if name not in found:
        raise unknown("prompt", name, found)
    number = max(found[name]) if version is None else version
    if number not in found[name]:
        raise unknown(f"version of prompt {name!r}", str(number), map(str, found[name]))
    return Prompt(name, number, _text(name, number))


@lru_cache
def _text(name: str, version: int) -> str:
    return (_HERE / f"{name}.v{version}.txt").read_text("utf-8")


def versions() -> dict[str, tuple[int, ...]]:
    """Every prompt's versions."""
    out: dict[str, tuple[int, ...]] = {}
    for path in sorted(_HERE.glob("*.txt")):
        if (match := _NAME.fullmatch(path.name)) is not None:
            out[match[1]] = tuple(sorted((*out.get(match[1], ()), int(match[2]))))
    return out
