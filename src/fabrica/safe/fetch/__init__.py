"""The one fetcher: public addresses only, polite, bounded before reading, resumable; every outcome has a reason.

    with Fetcher(allow_network=True) as web:
        for got in web.many(["https://example.org/a.png", "https://example.org/b.png"]):
            print(got.url, got.data and len(got.data), got.reason)

Nothing here opens a socket without `allow_network=True`. Proxies and credentials of the environment are not used: a
proxy would look hosts up itself, behind the check of their addresses.
"""

from __future__ import annotations

from fabrica.safe.fetch.fetcher import Fetcher
from fabrica.safe.fetch.outcome import AGAIN, Clock, Fetched, Policy, Reason

__all__ = ["AGAIN", "Clock", "Fetched", "Fetcher", "Policy", "Reason"]
