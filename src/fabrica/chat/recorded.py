"""Replies from a JSONL file: recorded from a model once, replayed without it."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from fabrica import safe
from fabrica.chat.request import Asked, NotRecorded, Request, reply_from, reply_json
from fabrica.errors import Refused, UsageError
from fabrica.types import ChatModel, Reply


class Recorded(Asked):
    """Answers from `path`, one JSON object a line: {"key", "text", "model", ...}; the first line names the model.

    With `model`, a request that is not there is asked and its reply is added; without, it is `NotRecorded`. A last line
    that was cut short by a kill is ignored and overwritten.
    """

    def __init__(self, path: str | Path, model: ChatModel | None = None) -> None:
        self.path, self.model = Path(path), model
        if model is None and not self.path.is_file():
            raise UsageError(f"no recording {str(path)!r}; make it with Recorded(path, model)")
        self._replies = dict[str, Reply]()
        named = self._load() if self.path.is_file() else ""
        if model is not None and named and named != model.name:
            raise UsageError(f"{str(path)!r} was recorded from {named!r}, not {model.name!r}; give another file")
        self.name = model.name if model is not None else named

    def answer(self, request: Request) -> Reply:
        """The recorded reply."""
        key = request.key(self.name)
        if key not in self._replies:
            if self.model is None:
                raise NotRecorded(
                    f"no reply recorded under key {key} in {str(self.path)!r} ({len(self._replies)} replies of "
                    f"{self.name!r}); record it with Recorded(path, model)"
                )
            reply = request.ask(self.model)
            self._add({"key": key, **reply_json(reply)})
            self._replies[key] = reply
        return self._replies[key]

    def _load(self) -> str:
        """Fill the replies; the name of the recorded model."""
        lines = safe.read_bytes(self.path).split(b"\n")
        if lines[-1]:
            lines[-1] = b""  # cut short
        name = ""
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row: Any = json.loads(line)
                if number == 1:
                    name = str(row["recorded"])
                else:
                    self._replies[str(row["key"])] = reply_from(row)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise Refused(
                    "recording_bad", f"{self.path.name!r} line {number} is no recorded reply: {error}"
                ) from error
        return name

    def _add(self, row: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "r+b") as out:
            fcntl.flock(out, fcntl.LOCK_EX)
            whole = out.read()
            end = whole.rfind(b"\n") + 1
            if end < len(whole):
                out.truncate(end)
            out.seek(end)
            head = b"" if end else json.dumps({"recorded": self.name}).encode() + b"\n"
            out.write(head + json.dumps(row, sort_keys=True).encode() + b"\n")
            out.flush()
            os.fsync(out.fileno())
