"""The log of every answer: one append-only file a run, from which scores are computed again without asking again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabrica import safe
from fabrica.errors import Refused, UsageError

if TYPE_CHECKING:
    from fabrica.types import ChatModel, Message

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Row:
    """One answer: the question's id, the reply as it came, or the reason code of a failure; what it cost. `passing`:
    the way to the model failed, and it is asked again on the next run."""

    question: str
    text: str
    failure: str = ""
    passing: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0


class RowLog:
    """Rows of one run in a JSON Lines file whose first line says what was asked of whom (`about`: task, version, model,
    prompt). A file of another `about` is refused: its rows are not comparable.

    A line that a kill cut short is dropped. `rows` holds the last row of each question.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "rows.jsonl"
    >>> with RowLog(path, {"model": "m"}) as log:
    ...     log.append(Row("q1", "yes"))
    >>> RowLog(path, {"model": "m"}).rows["q1"].text
    'yes'
    """

    def __init__(self, path: str | Path, about: Mapping[str, str]) -> None:
        self.path, self.about, self.rows = Path(path), dict(about), dict[str, Row]()
        self._file: Any = None
        if self.path.is_file():
            self._load()

    def _load(self) -> None:
        whole = safe.read_bytes(self.path)
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            os.truncate(self.path, end)
        for number, line in enumerate(whole[:end].split(b"\n")[:-1], 1):
            try:
                data = json.loads(line)
                if number == 1:
                    self._same(data)
                else:
                    row = Row(**data)
                    self.rows[row.question] = row
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise Refused("rows_bad", f"{self.path.name!r} line {number} is no row of answers: {error}") from error

    def _same(self, head: Mapping[str, Any]) -> None:
        if head["format"] != FORMAT:
            raise ValueError(f"format {head['format']!r}")
        other = {k: (head["about"].get(k), v) for k, v in self.about.items() if head["about"].get(k) != v}
        if other:
            raise UsageError(
                f"{str(self.path)!r} holds answers of another run: "
                + "; ".join(f"{k} {a!r}, wanted {b!r}" for k, (a, b) in other.items())
                + "; give another file"
            )

    def append(self, row: Row) -> None:
        """Add a row; it is in the file when this returns."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = not self.path.exists() or not self.path.stat().st_size
            self._file = self.path.open("ab")
            if fresh:
                head = {"format": FORMAT, "about": self.about}
                self._file.write(json.dumps(head, sort_keys=True).encode() + b"\n")
        self._file.write(json.dumps(asdict(row), ensure_ascii=True).encode() + b"\n")
        self._file.flush()
        self.rows[row.question] = row

    def __enter__(self) -> RowLog:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


def answered(
    model: ChatModel, asked: Iterable[tuple[str, Sequence[Message]]], log: RowLog, *, workers: int = 1,
    max_tokens: int = 64, give_up: int = 20,
) -> dict[str, Row]:  # fmt: skip
    """Ask what the log has no final row of, each question in a call of its own (no context is carried over), and give
    the rows by question. `asked`: (id, messages); an id that stands twice is an error, before anything is asked.

    A request that fails is a row with its reason. `give_up` failures of the way in a row are `chat.GaveUp`.
    """
    from fabrica.chat.many import Failure, many
    from fabrica.chat.request import Request

    todo: dict[str, Request] = {}
    for id_, messages in asked:
        if id_ in todo:
            raise UsageError(f"question id {id_!r} stands twice")
        todo[id_] = Request(tuple(messages), max_tokens=max_tokens)
    wanted = list(todo)
    left = [i for i in wanted if i not in log.rows or log.rows[i].passing]
    with log:
        start = time.perf_counter()
        for id_, reply in _together(left, many(model, (todo[i] for i in left), workers=workers, give_up=give_up)):
            now = time.perf_counter()
            took, start = round(now - start, 6), now
            if isinstance(reply, Failure):
                log.append(Row(id_, "", reply.code, reply.passing, seconds=took))
            else:
                log.append(Row(id_, reply.text, "", False, reply.tokens_in, reply.tokens_out, took))
    return {i: log.rows[i] for i in wanted}


def _together(ids: Sequence[str], replies: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    yield from zip(ids, replies, strict=True)
