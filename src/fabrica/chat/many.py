"""Many requests to a chat model: some at a time, replies in order, resumable after a kill."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabrica.chat.request import ChatFailed, GaveUp, Request, reply_from, reply_json
from fabrica.chat.store import Store
from fabrica.curate.engine.ordered import in_order
from fabrica.types import ChatModel, Reply


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without a usable reply: its key, reason code, message. `passing`: it may succeed another time."""

    key: str
    code: str
    message: str
    passing: bool = False


def many(
    model: ChatModel, requests: Iterable[Request], *, journal: str | Path | None = None, workers: int = 4,
    give_up: int = 20,
) -> Iterator[Reply | Failure]:  # fmt: skip
    """One reply or `Failure` a request, in order, `workers` requests at a time.

    With `journal` (an SQLite file) what was answered is kept as it comes: after a kill the same call asks only the
    rest, and equal requests are asked once. Replies that break their schema stay failed; failures of the way to the
    model (timeouts, 429, 5xx) are asked again on the next run. `give_up` of those in a row are `GaveUp`. `BudgetSpent`
    passes through.
    """
    store = None if journal is None else Store(journal)

    def one(request: Request) -> dict[str, Any]:
        key = request.key(model.name)
        if store is None:
            return _ask(model, request, key)
        return dict(store.once(key, lambda: _ask(model, request, key), keep=lambda row: not row.get("passing")))

    row_of = 0
    for row in in_order(one, requests, workers):
        if "failed" not in row:
            row_of = 0
            yield reply_from(row)
            continue
        row_of = row_of + 1 if row["passing"] else 0
        if row_of >= give_up:
            raise GaveUp(
                f"{model.name} failed {row_of} times in a row, last with: {row['message']}; see that it answers and "
                "run again: what was answered is kept"
            )
        yield Failure(row["key"], row["failed"], row["message"], row["passing"])


def _ask(model: ChatModel, request: Request, key: str) -> dict[str, Any]:
    try:
        return reply_json(request.ask(model))
    except ChatFailed as error:
        return {"key": key, "failed": error.code, "message": str(error), "passing": error.passing}
