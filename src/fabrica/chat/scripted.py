"""A chat model for tests: answers from a list, or from a function of the request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from fabrica.chat.request import Asked, Request
from fabrica.errors import UsageError
from fabrica.types import Reply

Answer = str | Reply | Exception


class Scripted(Asked):
    """Answers in turn, or what a function says of each request; an exception among them is raised. Keeps `requests`.

    >>> from fabrica.chat.request import user
    >>> model = Scripted(["yes", "no"])
    >>> model(user("a")).text, model(user("b")).text, len(model.requests)
    ('yes', 'no', 2)
    """

    def __init__(self, answers: Sequence[Answer] | Callable[[Request], Answer], *, name: str = "scripted") -> None:
        self.name, self.requests = name, list[Request]()
        self._answers, self._lock = answers, threading.Lock()

    def answer(self, request: Request) -> Reply:
        """The next answer."""
        with self._lock:
            turn = len(self.requests)
            self.requests.append(request)
        if callable(self._answers):
            said = self._answers(request)
        elif turn < len(self._answers):
            said = self._answers[turn]
        else:
            raise UsageError(f"the script has {len(self._answers)} answers, and this is request {turn + 1}")
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, Reply) else Reply(said, self.name, words(request), len(said.split()))


class Told(Asked):
    """Answers by a function of the last message's text, the temperature and the seed, and keeps nothing: for readers of
    known competence (`phantom.vignettes`, `phantom.chains`).

    >>> from fabrica.chat.request import user
    >>> Told(lambda text, temperature, seed: text.upper())(user("yes")).text
    'YES'
    """

    def __init__(self, function: Callable[[str, float, int], str], *, name: str = "told") -> None:
        self.name, self.function = name, function

    def answer(self, request: Request) -> Reply:
        """The function's reply."""
        said = self.function(request.messages[-1].text, request.temperature, request.seed)
        return Reply(said, self.name, words(request), len(said.split()))


def words(request: Request) -> int:
    """Words of all text parts: what stands for tokens where there is no tokenizer."""
    return sum(len(message.text.split()) for message in request.messages)
