"""URLs fetched one by one or many side by side: rates, retries, robots.txt, files that are gone on with."""

from __future__ import annotations

import heapq
import io
import json
import os
import random
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib import robotparser
from urllib.parse import urlsplit

from fabrica.errors import Refused, UsageError
from fabrica.safe.address import Lookup, lookup
from fabrica.safe.fetch.http import Body, Http, Stop
from fabrica.safe.fetch.outcome import AGAIN, Clock, Fetched, Policy, Reason
from fabrica.safe.polite import back_off


class Fetcher:
    """Fetches within a policy. Used by one thread; `many` has workers of its own. Close it, or use it in `with`.

    `allow_private` lets requests reach private addresses and any port: for tests against a server of their own, or a
    store inside the house. `Refused("network_off")` without `allow_network`.
    """

    def __init__(
        self, policy: Policy = Policy(), *, allow_network: bool, allow_private: bool = False,
        clock: Clock | None = None, seed: int = 0, by: Lookup = lookup,
    ) -> None:  # fmt: skip
        if not allow_network:
            raise Refused("network_off", "fetching needs the network; pass --allow-network (allow_network=True)")
        self.policy, self.private, self.clock = policy, allow_private, clock or Clock()
        self._http = Http(policy, self.clock, by, private=allow_private)
        self._rng = random.Random(seed)
        self._ready: dict[str, float] = {}  # host -> when it may be asked again
        self._robots: dict[str, robotparser.RobotFileParser] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    # ------------------------------------------------------------ one

    def get(self, url: str, *, sha256: str = "") -> Fetched:
        """The bytes of a URL in memory, with retries; `sha256` (hex) must fit if given."""
        return self._whole(url, Body(io.BytesIO()), sha256)

    def to_file(self, url: str, path: str | Path, *, sha256: str = "") -> Fetched:
        """The bytes of a URL under `path`, whole or absent. What a stopped run left beside it (`.part`) is gone on
        with where the server can."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part, note = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.part.json")
        with part.open("r+b" if part.exists() else "w+b") as out:
            body = Body(out, note=note)
            _recall(body, url)
            got = self._whole(url, body, sha256)
            if got.ok:
                out.flush()
                os.fsync(out.fileno())
                os.replace(part, path)
            elif got.reason in AGAIN and body.mark:
                return got
        for left in (part, note):
            left.unlink(missing_ok=True)
        return replace(got, path=path) if got.ok else got

    def _whole(self, url: str, body: Body, sha256: str) -> Fetched:
        tries = 0
        while True:
            tries += 1
            self.clock.sleep(self._turn(url))
            got, after = self._try(url, body, sha256, tries)
            if after is None:
                return got
            self.clock.sleep(after)

    def _turn(self, url: str) -> float:
        """Seconds until the host may be asked; its next turn is booked."""
        host = _host(url)
        with self._lock:
            now = self.clock.now()
            at = max(now, self._ready.get(host, now))
            self._ready[host] = at + self.policy.interval
        return at - now

    # ------------------------------------------------------------ many

    def many(self, wanted: Iterable[str | tuple[str, str]], *, workers: int = 16) -> Iterator[Fetched]:
        """Fetch URLs, or (URL, sha256), in memory; results as they come. Hosts are asked side by side, each at its
        own rate; one that is slow, or asks to wait, holds up no other. At most 1,024 wait at a time."""
        source = iter(wanted)
        plan = _Plan(self)
        with ThreadPoolExecutor(workers) as pool:
            running: dict[Future[tuple[Fetched, float | None]], _Job] = {}
            while True:
                plan.fill(source)
                while len(running) < workers and (job := plan.next()) is not None:
                    running[pool.submit(self._try, job.url, job.body, job.sha256, job.tries)] = job
                if not running and not plan:
                    return
                self.clock.until(running, plan.pause() if len(running) < workers else None)
                for future in [f for f in running if f.done()]:
                    job = running.pop(future)
                    got, after = future.result()
                    plan.done(job, after)
                    if after is None:
                        yield replace(got, number=job.number)

    # ------------------------------------------------------------ one try

    def _try(self, url: str, body: Body, sha256: str, tries: int) -> tuple[Fetched, float | None]:
        """The outcome, and None or the seconds after which to try again."""
        try:
            got = replace(self._follow(url, body), tries=tries)
            if sha256 and got.sha256 != sha256.lower():
                raise Stop(Reason.SHA256, f"the bytes have sha256 {got.sha256[:16]}..., wanted {sha256[:16]}...", 200)
            return got, None
        except Stop as stop:
            failed = Fetched(url, body.url, stop.status, reason=stop.reason, detail=stop.detail[:300], tries=tries)
            if stop.reason not in AGAIN or tries > self.policy.retries:
                return failed, None
            after = back_off(tries, self.policy.first_wait, self.policy.most_wait, self._rng)
            if stop.after is not None:
                if stop.after > self.policy.most_wait:
                    return replace(failed, detail=f"the server asks to wait {stop.after:.0f} s"), None
                after = max(after, stop.after)
                with self._lock:
                    host = _host(url)
                    self._ready[host] = max(self._ready.get(host, 0.0), self.clock.now() + stop.after)
            return failed, after

    def _follow(self, url: str, body: Body) -> Fetched:
        """Through redirects, each checked like the first."""
        at, seen = url, set[str]()
        end = self.clock.now() + self.policy.seconds
        for hop in range(self.policy.redirects + 1):
            if hop and _host(at) != _host(url):
                self.clock.sleep(self._turn(at))
            if at in seen:
                raise Stop(Reason.REDIRECTS, "the redirects go in a circle")
            seen.add(at)
            if self.policy.robots and not self._may(at):
                raise Stop(Reason.ROBOTS, "robots.txt forbids it")
            answer = self._http.ask(url, at, body, end)
            if isinstance(answer, Fetched):
                return answer
            at = answer
        raise Stop(Reason.REDIRECTS, f"more than {self.policy.redirects} redirects")

    def _may(self, at: str) -> bool:
        """robots.txt (RFC 9309): a missing one allows all, one that cannot be had forbids all."""
        scheme, host, _ = self._http.checked(at)
        key = f"{scheme}://{urlsplit(at).netloc}"
        with self._lock:
            rules = self._robots.get(key)
        if rules is None:
            rules = robotparser.RobotFileParser()
            asker = Fetcher(
                replace(self.policy, robots=False, accept=(), opt_out=(), max_bytes=512 * 1024, retries=0),
                allow_network=True, allow_private=self.private, clock=self.clock, by=self._http.by,
            )  # fmt: skip
            with asker:
                got = asker.get(f"{key}/robots.txt")
            if got.ok and got.data is not None:
                rules.parse(got.data.decode("utf-8", "replace").splitlines())
            elif got.reason in (Reason.NOT_FOUND, Reason.FORBIDDEN, Reason.STATUS):
                rules.parse([])
            else:
                raise Stop(Reason.SERVER if got.reason is Reason.BUSY else got.reason or Reason.SERVER, got.detail)
            with self._lock:
                self._robots[key] = rules
                if (delay := rules.crawl_delay(self.policy.agent)) is not None:
                    self._ready[host] = self.clock.now() + min(float(str(delay)), self.policy.most_wait)
        return rules.can_fetch(self.policy.agent, at)


# ---------------------------------------------------------------- the order of many


@dataclass(slots=True)
class _Job:
    url: str
    sha256: str
    body: Body
    number: int
    tries: int = 1


class _Plan:
    """Which of the waiting URLs is asked next: hosts in turn, each within its rate and its number at once."""

    def __init__(self, web: Fetcher, most: int = 1024) -> None:
        self.web, self.most = web, most
        self.waiting: dict[str, deque[_Job]] = {}
        self.later: list[tuple[float, int, _Job]] = []
        self.active: dict[str, int] = {}
        self.count = self.taken = self.order = 0

    def __bool__(self) -> bool:
        return self.count > 0

    def fill(self, source: Iterator[str | tuple[str, str]]) -> None:
        while self.count < self.most and (one := next(source, None)) is not None:
            url, sha256 = (one, "") if isinstance(one, str) else one
            self._put(_Job(url, sha256, Body(io.BytesIO()), self.taken))
            self.count, self.taken = self.count + 1, self.taken + 1

    def _put(self, job: _Job) -> None:
        self.waiting.setdefault(_host(job.url), deque()).append(job)

    def next(self) -> _Job | None:
        """A URL that may be asked now."""
        now = self.web.clock.now()
        while self.later and self.later[0][0] <= now:
            self._put(heapq.heappop(self.later)[2])
        for host, jobs in list(self.waiting.items()):
            if self.active.get(host, 0) < self.web.policy.per_host and self.web._ready.get(host, 0.0) <= now:
                job = jobs.popleft()
                del self.waiting[host]
                if jobs:
                    self.waiting[host] = jobs  # to the end of the turn
                self.active[host] = self.active.get(host, 0) + 1
                self.web._turn(job.url)
                return job
        return None

    def pause(self) -> float | None:
        """Seconds until something may be asked; None where that hangs on what runs."""
        now = self.web.clock.now()
        free = [h for h in self.waiting if self.active.get(h, 0) < self.web.policy.per_host]
        times = [self.web._ready.get(h, now) for h in free] + [at for at, _, _ in self.later[:1]]
        return max(0.0, min(times) - now) if times else None

    def done(self, job: _Job, after: float | None) -> None:
        host = _host(job.url)
        self.active[host] -= 1
        if not self.active[host]:
            del self.active[host]
        if after is None:
            self.count -= 1
            return
        job.tries += 1
        self.order += 1
        heapq.heappush(self.later, (self.web.clock.now() + after, self.order, job))


# ---------------------------------------------------------------- small


def _host(url: str) -> str:
    with suppress(ValueError):
        return (urlsplit(url).hostname or "").lower()
    return ""


def _recall(body: Body, url: str) -> None:
    """What a stopped run left, if it is of this URL."""
    assert body.note is not None
    size = os.fstat(body.out.fileno()).st_size
    try:
        said = json.loads(body.note.read_bytes())
        if said["url"] == url and size:
            body.out.seek(size)
            body.size, body.mark, body.url = size, str(said["mark"]), str(said["at"])
            return
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{body.note} cannot be read ({type(error).__name__}); remove it") from error
    body.restart()
