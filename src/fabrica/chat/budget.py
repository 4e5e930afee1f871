"""A chat model with a hard stop: so many tokens, or so much money, and not one call more."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from fabrica.chat.request import Asked, ChatFailed, Request
from fabrica.chat.store import database
from fabrica.errors import FabricaError, UsageError
from fabrica.types import ChatModel, Item, Reply

IMAGE_TOKENS = 1000  # what a picture is counted as where the backend reports nothing


class BudgetSpent(FabricaError):
    """The next call could pass the budget; nothing was asked."""

    code = "budget_spent"


class Budgeted(Asked):
    """Counts tokens and cost of every call and refuses one that could pass `max_tokens` or `max_cost`.

    `price` is the cost of a million tokens in and of a million tokens out. A call reserves an estimate (a token for
    three characters in, `max_tokens` out), and what the backend reports replaces it afterwards; a call that was killed
    stays counted as its estimate. With `ledger` (an SQLite file) the count goes on after a stop and is shared by
    processes.
    """

    def __init__(
        self, model: ChatModel, *, max_tokens: int | None = None, max_cost: float | None = None,
        price: tuple[float, float] = (0.0, 0.0), ledger: str | Path | None = None,
    ) -> None:  # fmt: skip
        if max_tokens is None and max_cost is None:
            raise UsageError("a budget needs max_tokens or max_cost")
        if max_cost is not None and not any(price):
            raise UsageError("max_cost needs the price of a million tokens in and out")
        self.model, self.name = model, model.name
        self.max_tokens, self.max_cost, self.price = max_tokens, max_cost, price
        self.ledger = None if ledger is None else Path(ledger)
        self._rows, self._lock = dict[int, tuple[int, int]](), threading.Lock()
        if self.ledger is not None:
            self.ledger.parent.mkdir(parents=True, exist_ok=True)
            with database(self.ledger) as db:
                db.execute("CREATE TABLE IF NOT EXISTS call (id INTEGER PRIMARY KEY, tin INTEGER, tout INTEGER)")

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    @property
    def spent(self) -> tuple[int, int]:
        """Tokens in and out so far, calls under way with their estimate."""
        if self.ledger is None:
            with self._lock:
                return self._sum()
        with database(self.ledger) as db:
            return _total(db)

    @property
    def cost(self) -> float:
        """What was spent, in the money of `price`."""
        return self._cost(*self.spent)

    def answer(self, request: Request) -> Reply:
        """The model's reply, or `BudgetSpent` before anything is asked."""
        about = estimate(request)
        row = self._reserve(*about)
        try:
            reply = request.ask(self.model)
        except ChatFailed as error:
            self._settle(row, error.tokens_in, error.tokens_out)
            raise
        self._settle(row, reply.tokens_in or about[0], reply.tokens_out or -(-len(reply.text) // 3))
        return reply

    def _cost(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.price[0] + tokens_out * self.price[1]) / 1e6

    def _check(self, spent: tuple[int, int], about: tuple[int, int]) -> None:
        tin, tout = spent[0] + about[0], spent[1] + about[1]
        if self.max_tokens is not None and tin + tout > self.max_tokens:
            raise BudgetSpent(
                f"{sum(spent):,} of {self.max_tokens:,} tokens are spent and the next call may take {sum(about):,}; "
                "raise max_tokens and run again: what was answered is kept"
            )
        if self.max_cost is not None and self._cost(tin, tout) > self.max_cost:
            raise BudgetSpent(
                f"{self._cost(*spent):.4f} of {self.max_cost:.4f} is spent and the next call may cost "
                f"{self._cost(*about):.4f}; raise max_cost and run again: what was answered is kept"
            )

    def _reserve(self, tokens_in: int, tokens_out: int) -> int:
        if self.ledger is None:
            with self._lock:
                self._check(self._sum(), (tokens_in, tokens_out))
                row = len(self._rows)
                self._rows[row] = (tokens_in, tokens_out)
                return row
        with database(self.ledger) as db:
            self._check(_total(db), (tokens_in, tokens_out))
            made = db.execute("INSERT INTO call (tin, tout) VALUES (?, ?)", (tokens_in, tokens_out)).lastrowid
        return int(made or 0)

    def _settle(self, row: int, tokens_in: int, tokens_out: int) -> None:
        if self.ledger is None:
            with self._lock:
                self._rows[row] = (tokens_in, tokens_out)
            return
        with database(self.ledger) as db:
            db.execute("UPDATE call SET tin = ?, tout = ? WHERE id = ?", (tokens_in, tokens_out, row))

    def _sum(self) -> tuple[int, int]:
        return sum(r[0] for r in self._rows.values()), sum(r[1] for r in self._rows.values())


def estimate(request: Request) -> tuple[int, int]:
    """Tokens in and out that a request may take.

    >>> from fabrica.chat.request import user
    >>> estimate(Request(user("a" * 300), max_tokens=50))
    (108, 50)
    """
    characters = sum(len(m.text) for m in request.messages)
    parts = [p for m in request.messages for p in m.parts if isinstance(p, Item)]
    characters += sum(len(p.value) for p in parts if p.kind == "text" and isinstance(p.value, str))
    pictures = sum(p.kind != "text" for p in parts)
    return -(-characters // 3) + 8 * len(request.messages) + IMAGE_TOKENS * pictures, request.max_tokens


def _total(db: Any) -> tuple[int, int]:
    row = db.execute("SELECT coalesce(sum(tin), 0), coalesce(sum(tout), 0) FROM call").fetchone()
    return int(row[0]), int(row[1])
