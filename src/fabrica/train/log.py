"""`train.jsonl`: one line a step with every term; whole lines only; cut back to the checkpoint on resume."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fabrica import safe
from fabrica.errors import UsageError


class Log:
    """Lines appended to a file; `sync` makes them safe before a checkpoint names their step. A `path` of None (the
    other processes of a run) writes nothing."""

    def __init__(self, path: Path | None, *, keep: int) -> None:
        self.lines: list[dict[str, Any]] = []
        self._file = None
        if path is None:
            return
        self.lines = [line for line in read(path) if line["step"] <= keep] if keep else []
        if [line["step"] for line in self.lines] != list(range(1, keep + 1)):
            raise UsageError(
                f"{path} lacks lines of steps 1 to {keep} that the checkpoint counts on; resume=False starts over"
            )
        with safe.write_whole(path) as out:
            out.write("".join(_text(line) for line in self.lines).encode())
        self._file = path.open("ab", buffering=0)

    def append(self, line: Mapping[str, Any]) -> None:
        """One line, in one write."""
        self.lines.append(dict(line))
        if self._file is not None:
            self._file.write(_text(line).encode())

    def sync(self) -> None:
        """On the disk when this returns."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Synced and closed."""
        if self._file is not None:
            self.sync()
            self._file.close()
            self._file = None


def read(path: str | Path) -> list[dict[str, Any]]:
    """The whole lines of a train log, {"step", "stage", "loss", "lr", ...}; a torn last line is left out."""
    path = Path(path)
    if not path.exists():
        return []
    lines = []
    for text in path.read_bytes().split(b"\n")[:-1]:
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise UsageError(f"{path} is damaged after {len(lines)} lines: {error}") from error
    return lines


def _text(line: Mapping[str, Any]) -> str:
    """JSON has no NaN: a term that is not a number is null."""
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
    return json.dumps(plain, allow_nan=False) + "\n"
