"""What a server asks of those who fetch: how long to wait, and whether its content may be used for learning."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime

OPT_OUT = ("noai", "noimageai", "none")  # directives of X-Robots-Tag that forbid the use


def opted_out(headers: Iterable[tuple[str, str]], agent: str, directives: Iterable[str] = OPT_OUT) -> str | None:
    """The header by which the owner reserves the content, None where there is none.

    `X-Robots-Tag: noai`, `X-Robots-Tag: AGENT: noimageai` where AGENT is ours, and `tdm-reservation: 1` (TDM
    Reservation Protocol, W3C community group 2024).

    >>> opted_out([("X-Robots-Tag", "noindex, NoAI")], "fabrica")
    'x-robots-tag: noai'
    >>> opted_out([("X-Robots-Tag", "otherbot: noai"), ("tdm-reservation", "0")], "fabrica") is None
    True
    """
    banned = set(directives)
    for name, value in headers:
        low = name.lower()
        if low == "tdm-reservation" and value.strip() == "1":
            return "tdm-reservation: 1"
        if low == "x-robots-tag" and (found := _directive(value.lower(), agent.lower(), banned)):
            return f"x-robots-tag: {found}"
    return None


def _directive(value: str, agent: str, banned: set[str]) -> str | None:
    """One header's directives; "agent:" before some limits those that follow it to that agent."""
    ours = True
    for part in value.split(","):
        name, colon, rest = part.strip().partition(":")
        if colon and name.strip() not in ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"):
            ours = name.strip() in (agent.partition("/")[0], "*")
            name = rest
        if ours and name.strip() in banned:
            return name.strip()
    return None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that `Retry-After` asks for (a number, or a date against `now`, Unix seconds); None without one.

    >>> retry_after({"retry-after": "30"}, 0.0)
    30.0
    >>> retry_after({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, 20.0)
    40.0
    """
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - now)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def back_off(attempt: int, first: float, most: float, rng: random.Random) -> float:
    """Seconds before try `attempt` + 1: doubled each time, drawn from its upper half so that clients spread.

    >>> rng = random.Random(0)
    >>> all(2 <= back_off(3, 1.0, 60.0, rng) <= 4 for _ in range(100)), back_off(99, 1.0, 60.0, rng) <= 60
    (True, True)
    """
    top = min(most, first * 2.0 ** min(attempt - 1, 30))
    return top * (0.5 + 0.5 * rng.random())
