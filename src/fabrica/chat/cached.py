"""A chat model whose replies are kept by content: the same request is asked once."""

from __future__ import annotations

from pathlib import Path

from fabrica.chat.request import Asked, Request, reply_from, reply_json
from fabrica.chat.store import Store
from fabrica.types import ChatModel, Reply


class Cached(Asked):
    """Keeps replies in an SQLite file under the hash of model name, messages (with the bytes of images) and parameters.

    Failures are not kept. Threads that ask the same at once wait for one call. `hits` and `misses` count.
    """

    def __init__(self, model: ChatModel, path: str | Path) -> None:
        self.model, self.name = model, model.name
        self.store = Store(path)
        self.hits = self.misses = 0

    def answer(self, request: Request) -> Reply:
        """The kept reply, or the model's."""
        asked = False

        def make() -> dict[str, object]:
            nonlocal asked
            asked = True
            return reply_json(request.ask(self.model))

        found = self.store.once(request.key(self.name), make)
        self.misses += asked
        self.hits += not asked
        return reply_from(found)
