"""Work on a stream with a few threads, results in the order of the stream, a bounded number under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from fabrica.errors import UsageError

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int = 1) -> Iterator[R]:
    """`map(work, items)` by `workers` threads; at most twice as many items are taken ahead of what was given out.

    An error of `work` is raised at its turn; what has not begun is then left, what is under way is waited for.

    >>> list(in_order(lambda n: n * n, range(5), workers=3))
    [0, 1, 4, 9, 16]
    """
    if workers < 1:
        raise UsageError(f"workers={workers}; wanted at least 1")
    if workers == 1:
        yield from map(work, items)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
