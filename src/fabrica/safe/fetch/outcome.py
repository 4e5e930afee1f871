"""What a fetch may cost, what came of it and why not; time as it sees it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from fabrica.safe.limits import MIB
from fabrica.safe.polite import OPT_OUT


class Reason(StrEnum):
    """Why there is nothing. Those of `AGAIN` may pass; the others stay so."""

    URL = "url_bad"  # no URL, a user name in it, an odd port
    SCHEME = "url_scheme"
    HOST = "url_host"  # cannot be found
    PRIVATE = "url_private"
    ADDRESS = "url_address"  # an address in an odd spelling
    REDIRECTS = "redirects"  # too many, or in a circle
    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    STATUS = "status"  # another answer than 200
    MEDIA_TYPE = "media_type"
    ENCODING = "encoding"  # packed although that was not asked for
    TOO_LARGE = "too_large"
    SHA256 = "sha256"
    OPT_OUT = "opt_out"  # the owner reserves it
    ROBOTS = "robots"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"
    BUSY = "busy"  # 429, 503
    SERVER = "server"  # other 5xx
    PROTOCOL = "protocol"  # no HTTP


AGAIN = frozenset(
    {Reason.HOST, Reason.CONNECT, Reason.TIMEOUT, Reason.TRUNCATED, Reason.BUSY, Reason.SERVER, Reason.PROTOCOL}
)
REFUSED: Mapping[str, Reason] = {
    "url_host": Reason.HOST, "url_private": Reason.PRIVATE, "url_address": Reason.ADDRESS,
}  # fmt: skip
PORTS = (80, 443, 8080, 8443)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How to fetch. Seconds and bytes; `interval` between two requests to one host, `per_host` of them at once.

    `retries` after the first try, with waits doubled from `first_wait` to `most_wait`; a server that asks for more than
    `most_wait` is left alone. `accept` are media types ("image/*"); an empty one takes all. `robots` asks robots.txt
    first.
    """

    schemes: tuple[str, ...] = ("https",)
    accept: tuple[str, ...] = ()
    max_bytes: int = 64 * MIB
    seconds: float = 60.0
    connect_seconds: float = 10.0
    retries: int = 5
    first_wait: float = 1.0
    most_wait: float = 120.0
    redirects: int = 5
    interval: float = 0.2
    per_host: int = 2
    opt_out: tuple[str, ...] = OPT_OUT
    robots: bool = False
    agent: str = "fabrica/0.1"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of a URL: `data` or, of `to_file`, `path`; else `reason` and `detail`.

    `url` is the one asked for, `final_url` where redirects led, `sha256` of the bytes (hex), `tries` how often it was
    asked, `number` its place in what `many` was given.
    """

    url: str
    final_url: str = ""
    status: int = 0
    media_type: str = ""
    sha256: str = ""
    size: int = 0
    data: bytes | None = None
    path: Path | None = None
    reason: Reason | None = None
    detail: str = ""
    tries: int = 1
    number: int = 0

    @property
    def ok(self) -> bool:
        """Whether it came."""
        return self.reason is None


class Clock:
    """Time as the fetcher sees it; tests give their own."""

    def now(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    def unix(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def until(self, running: Iterable[Future[Any]], seconds: float | None) -> None:
        """Wait until one of `running` is done or `seconds` are over."""
        held = list(running)
        if held:
            wait(held, seconds, FIRST_COMPLETED)
        elif seconds:
            self.sleep(seconds)
