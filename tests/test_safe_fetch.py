"""The fetcher against a real server that fails, stalls, lies and redirects inside; and against hosts that change."""

import hashlib
import random
import socket
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.errors import Refused
from fabrica.safe.address import public, resolve
from fabrica.safe.fetch import AGAIN, Fetched, Fetcher, Policy, Reason
from fabrica.safe.polite import back_off, opted_out, retry_after
from web_server import FakeClock, Handler, Web, web

HTTP = Policy(schemes=("http",), interval=0.0)


@pytest.fixture
def server() -> Iterator[Web]:
    with web() as made:
        yield made


def fetcher(policy: Policy = HTTP, **more: Any) -> Fetcher:
    more.setdefault("clock", FakeClock())
    return Fetcher(policy, allow_network=True, allow_private=True, **more)


def get(url: str, policy: Policy = HTTP, *, sha256: str = "", **more: Any) -> Fetched:
    with fetcher(policy, **more) as one:
        return one.get(url, sha256=sha256)


# ---------------------------------------------------------------- the flag


def test_without_the_flag_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("looked up"))
    with pytest.raises(Refused, match="network_off"):
        Fetcher(allow_network=False)


# ---------------------------------------------------------------- what comes


def test_bytes_come_with_their_hash(server: Web) -> None:
    url = server.page("/a.png", b"pixels", kind="image/png; charset=x")
    got = get(url, sha256=hashlib.sha256(b"pixels").hexdigest().upper())
    assert (got.ok, got.data, got.media_type, got.size, got.tries) == (True, b"pixels", "image/png", 6, 1)
    assert got.sha256 == hashlib.sha256(b"pixels").hexdigest()
    said = server.headers_seen["/a.png"][0]
    assert said["Host"] == f"127.0.0.1:{server.port}"
    assert said["User-Agent"] == "fabrica/0.1"
    assert said["Accept-Encoding"] == "identity"


def test_another_hash_is_no_result_and_is_not_asked_again(server: Web) -> None:
    got = get(server.page("/a", b"pixels"), sha256="0" * 64)
    assert (got.reason, got.data, server.asked["/a"]) == (Reason.SHA256, None, 1)


@pytest.mark.parametrize(
    ("status", "reason", "asked"),
    [
        (404, Reason.NOT_FOUND, 1), (410, Reason.NOT_FOUND, 1), (403, Reason.FORBIDDEN, 1), (451, Reason.FORBIDDEN, 1),
        (204, Reason.STATUS, 1), (400, Reason.STATUS, 1), (429, Reason.BUSY, 6), (503, Reason.BUSY, 6),
        (500, Reason.SERVER, 6), (502, Reason.SERVER, 6),
    ],
)  # fmt: skip
def test_a_status_has_its_reason_and_only_what_may_pass_is_asked_again(
    server: Web, status: int, reason: Reason, asked: int
) -> None:
    got = get(server.page("/a", b"", status))
    assert (got.reason, got.status, got.tries, server.asked["/a"]) == (reason, status, asked, asked)
    assert (reason in AGAIN) == (asked > 1)


def test_waits_double_with_jitter_and_a_recovery_is_a_result(server: Web) -> None:
    @server.on("/a")
    def url(h: Handler) -> None:
        h.give(b"late", 200 if h.count == 5 else 503)

    clock = FakeClock()
    got = get(server.url("/a"), clock=clock)
    assert (got.ok, got.tries) == (True, 5)
    assert all(w / 2 <= s <= w for s, w in zip(clock.slept, (1, 2, 4, 8), strict=True)), clock.slept
    other = FakeClock()
    server.asked.clear()
    get(server.url("/a"), clock=other, seed=1)
    assert other.slept != clock.slept, "jitter"


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(server: Web, form: str) -> None:
    clock = FakeClock()
    said = "45" if form == "seconds" else formatdate(clock.unix() + 45, usegmt=True)
    server.on("/a")(lambda h: h.give(b"", 429, Retry_After=said) if h.count == 1 else h.give(b"now"))
    got = get(server.url("/a"), clock=clock)
    assert got.data == b"now"
    assert sum(clock.slept) == pytest.approx(45, abs=1)


def test_a_server_that_asks_for_an_hour_is_left_alone(server: Web) -> None:
    got = get(server.page("/a", b"", 503, Retry_After="3600"))
    assert (got.reason, server.asked["/a"]) == (Reason.BUSY, 1)
    assert "3600 s" in got.detail


# ---------------------------------------------------------------- limits


def test_too_large_is_known_before_it_is_read(server: Web) -> None:
    @server.on("/huge")
    def url(h: Handler) -> None:
        h.send_response(200)
        h.send_header("Content-Type", "image/png")
        h.send_header("Content-Length", str(1 << 40))
        h.end_headers()

    got = get(server.url("/huge"))
    assert (got.reason, got.data, server.asked["/huge"]) == (Reason.TOO_LARGE, None, 1)


def test_too_large_without_a_length_stops_at_the_limit(server: Web) -> None:
    @server.on("/endless")
    def url(h: Handler) -> None:
        h.send_response(200)
        h.send_header("Content-Type", "image/png")
        h.send_header("Connection", "close")
        h.end_headers()
        for _ in range(10_000):
            h.wfile.write(b"x" * 4096)

    got = get(server.url("/endless"), Policy(schemes=("http",), max_bytes=100_000))
    assert (got.reason, got.data) == (Reason.TOO_LARGE, None)


def test_a_slow_server_is_left_when_the_time_is_over(server: Web) -> None:
    from fabrica.safe.fetch import Clock

    got = get(server.drip("/slow"), Policy(schemes=("http",), seconds=0.4, retries=0), clock=Clock())
    assert got.reason is Reason.TIMEOUT
    assert server.asked["/slow"] == 1


def test_a_silent_server_times_out(server: Web) -> None:
    import time

    server.on("/silent")(lambda h: time.sleep(3))
    got = get(server.url("/silent"), Policy(schemes=("http",), seconds=0.3, retries=0))
    assert got.reason is Reason.TIMEOUT


def test_media_type_and_packing_are_checked(server: Web) -> None:
    images = Policy(schemes=("http",), accept=("image/*", "application/dicom"))
    assert get(server.page("/html", b"<html>", kind="text/html"), images).reason is Reason.MEDIA_TYPE
    assert get(server.page("/png", b"x"), images).ok
    assert get(server.page("/zip", b"x", Content_Encoding="gzip"), images).reason is Reason.ENCODING


def test_a_truncated_answer_goes_on_from_where_it_broke(server: Web) -> None:
    data = random.Random(0).randbytes(50_000)
    got = get(server.cut("/cut", data, 20_000, times=2))
    assert (got.data, got.tries) == (data, 3)
    ranges = [h.get("Range") for h in server.headers_seen["/cut"]]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert server.headers_seen["/cut"][1]["If-Range"] == '"v1"'


def test_without_ranges_it_begins_again_and_at_last_gives_up(server: Web) -> None:
    data = b"y" * 50_000
    assert get(server.cut("/once", data, 20_000, ranges=False)).data == data
    got = get(server.cut("/ever", data, 20_000, times=99, ranges=False))
    assert (got.reason, got.tries) == (Reason.TRUNCATED, 6)


def test_a_part_that_was_not_asked_for_is_not_taken(server: Web) -> None:
    data = b"z" * 30_000

    @server.on("/liar")
    def url(h: Handler) -> None:
        if h.count == 2:
            h.give(b"wrong", 206, ETag='"v1"', Content_Range="bytes 7-11/30000")
        elif h.count == 1:
            h.send_response(200)
            h.send_header("Content-Type", "image/png")
            h.send_header("Content-Length", "30000")
            h.send_header("ETag", '"v1"')
            h.end_headers()
            h.wfile.write(data[:10_000])
            h.wfile.flush()
            h.connection.shutdown(socket.SHUT_RDWR)
        else:
            h.give(data)

    assert get(server.url("/liar")).data == data


def test_a_file_is_whole_or_absent_and_gone_on_with_later(server: Web, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(60_000)
    url = server.cut("/file", data, 25_000, times=1)
    where = tmp_path / "deep" / "scan.png"
    once = Policy(schemes=("http",), retries=0)
    with fetcher(once) as one:
        assert one.to_file(url, where).reason is Reason.TRUNCATED
    assert not where.exists()
    with fetcher(once) as later:
        got = later.to_file(url, where, sha256=hashlib.sha256(data).hexdigest())
    assert (got.ok, got.path, got.data) == (True, where, None)
    assert where.read_bytes() == data
    assert "Range" in server.headers_seen["/file"][1]
    assert [p.name for p in where.parent.iterdir()] == ["scan.png"]


def test_a_part_of_another_url_is_not_gone_on_with(server: Web, tmp_path: Path) -> None:
    once = Policy(schemes=("http",), retries=0)
    with fetcher(once) as one:
        one.to_file(server.cut("/1", b"a" * 50_000, 20_000, times=9), tmp_path / "x")
        got = one.to_file(server.page("/2", b"other"), tmp_path / "x")
    assert got.ok
    assert (tmp_path / "x").read_bytes() == b"other"


def test_a_wrong_file_leaves_nothing(server: Web, tmp_path: Path) -> None:
    with fetcher() as one:
        assert one.to_file(server.page("/a", b"x"), tmp_path / "a", sha256="1" * 64).reason is Reason.SHA256
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- opt-out


@pytest.mark.parametrize(
    "headers",
    [{"X_Robots_Tag": "noai"}, {"X_Robots_Tag": "noindex, noimageai"}, {"tdm_reservation": "1"},
     {"X_Robots_Tag": "fabrica: noai"}],
)  # fmt: skip
def test_opt_out_is_respected(server: Web, headers: dict[str, str]) -> None:
    assert get(server.page("/a", b"mine", **headers)).reason is Reason.OPT_OUT
    server.page("/b", b"", 302, Location="/c", **headers)
    server.page("/c", b"free")
    assert get(server.url("/b")).reason is Reason.OPT_OUT, "of a redirect as well"
    assert server.asked["/c"] == 0


@pytest.mark.parametrize("headers", [{"X_Robots_Tag": "otherbot: noai"}, {"tdm_reservation": "0"}, {}])
def test_what_is_not_an_opt_out(server: Web, headers: dict[str, str]) -> None:
    assert get(server.page("/a", b"free", **headers)).ok


def test_agents_and_dates_in_the_robots_tag() -> None:
    assert opted_out([("X-Robots-Tag", "unavailable_after: 25 Jun 2030, noai")], "fabrica/0.1") is not None
    assert opted_out([("X-Robots-Tag", "a: noai, b: noimageai")], "fabrica/0.1") is None
    assert opted_out([("X-Robots-Tag", "a: x, fabrica: noai")], "fabrica/0.1") is not None


def test_robots_txt(server: Web) -> None:
    asked = Policy(schemes=("http",), robots=True, accept=("image/*",))
    server.page("/robots.txt", b"User-agent: *\nDisallow: /private/\n", kind="text/plain")
    server.page("/private/a", b"x")
    server.page("/open", b"x")
    with fetcher(asked) as one:
        assert one.get(server.url("/private/a")).reason is Reason.ROBOTS
        assert one.get(server.url("/open")).ok
    assert (server.asked["/private/a"], server.asked["/robots.txt"]) == (0, 1)
    server.page("/robots.txt", b"", 500)
    assert get(server.url("/open"), asked).reason is Reason.SERVER, "a robots.txt that cannot be had forbids"
    del server.pages["/robots.txt"]
    assert get(server.url("/open"), asked).ok, "a missing one allows"


# ---------------------------------------------------------------- addresses


def guarded(**more: Any) -> Fetcher:
    """As in use: private addresses are refused."""
    return Fetcher(Policy(schemes=("http", "https"), retries=0), allow_network=True, clock=FakeClock(), **more)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1/", Reason.PRIVATE), ("http://[::1]/", Reason.PRIVATE),
        ("http://10.0.0.8/", Reason.PRIVATE), ("http://169.254.169.254/latest/meta-data/", Reason.PRIVATE),
        ("http://[::ffff:127.0.0.1]/", Reason.PRIVATE), ("http://[::ffff:a9fe:a9fe]/", Reason.PRIVATE),
        ("http://[fd00:ec2::254]/", Reason.PRIVATE), ("http://[fe80::1]/", Reason.PRIVATE),
        ("http://[fe80::1%25eth0]/", Reason.ADDRESS), ("http://100.100.100.200/", Reason.PRIVATE),
        ("http://0.0.0.0/", Reason.PRIVATE), ("http://[64:ff9b::7f00:1]/", Reason.PRIVATE),
        ("http://[2002:7f00:1::]/", Reason.PRIVATE), ("http://224.0.0.1/", Reason.PRIVATE),
        ("http://2130706433/", Reason.ADDRESS), ("http://0177.0.0.1/", Reason.ADDRESS),
        ("http://0x7f.1/", Reason.ADDRESS), ("http://127.1/", Reason.ADDRESS),
        ("http://0x7f000001/", Reason.ADDRESS), ("http://127.0.0.1./", Reason.ADDRESS),
        ("http://①②⑦.0.0.1/", Reason.PRIVATE), ("http://8.8.8.8:22/", Reason.URL),
        ("http://user:pw@8.8.8.8/", Reason.URL), ("http://@8.8.8.8/", Reason.URL), ("http:///x", Reason.URL),
        ("http://8.8.8.8/a\r\nHost: b", Reason.URL), ("http://[::1/", Reason.URL),
        ("http://8.8.8.8:99999/", Reason.URL), ("ftp://8.8.8.8/", Reason.SCHEME),
        ("file:///etc/passwd", Reason.SCHEME), ("", Reason.SCHEME), ("http://" + "a" * 70 + ".org/", Reason.URL),
    ],
)  # fmt: skip
def test_addresses_inside_are_refused_in_every_spelling(url: str, reason: Reason) -> None:
    with guarded() as one:
        assert one.get(url).reason is reason


def test_a_host_with_one_private_address_is_refused() -> None:
    with guarded(by=lambda host, port: ["8.8.8.8", "192.168.0.1"]) as one:
        assert one.get("http://two-faced.example/").reason is Reason.PRIVATE


def test_a_name_is_looked_up_once_and_the_checked_address_is_connected_to(
    server: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: whatever the name says later, the address that was checked is used."""
    seen: list[str] = []
    real = socket.getaddrinfo

    def watched(host: Any, *args: Any, **more: Any) -> Any:
        assert host == "127.0.0.1", f"{host} was looked up a second time"
        return real(host, *args, **more)

    def by(host: str, port: int) -> list[str]:
        seen.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(socket, "getaddrinfo", watched)
    server.page("/a", b"x")
    with fetcher(by=by) as one:
        assert one.get(server.url("/a", "rebinding.example")).ok
    assert seen == ["rebinding.example"]
    assert server.headers_seen["/a"][0]["Host"] == f"rebinding.example:{server.port}"


def test_a_redirect_is_checked_like_the_first(server: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first host may be private here: what it leads to is looked at on its own."""
    from fabrica.safe.fetch import http

    inside = server.page("/secret", b"token")
    checked: list[str] = []

    def once(host: str, port: int, *, private: bool, by: Any) -> str:
        checked.append(host)
        return resolve(host, port, private=len(checked) == 1, by=by)

    monkeypatch.setattr(http, "resolve", once)
    for where, reason in (
        (inside, Reason.PRIVATE), ("file:///etc/passwd", Reason.SCHEME), ("http://u:p@127.0.0.1/", Reason.URL),
        ("//[::1]/x", Reason.PRIVATE), ("http://2130706433/", Reason.ADDRESS),
    ):  # fmt: skip
        checked.clear()
        assert get(server.page("/go", b"", 302, Location=where)).reason is reason
    assert server.asked["/secret"] == 0


def test_redirects_are_followed_counted_and_not_in_a_circle(server: Web) -> None:
    server.page("/1", b"", 301, Location="/2")
    server.page("/2", b"", 307, Location=server.url("/3"))
    server.page("/3", b"there")
    got = get(server.url("/1"))
    assert (got.data, got.url, got.final_url) == (b"there", server.url("/1"), server.url("/3"))
    server.page("/loop", b"", 302, Location="/loop")
    assert get(server.url("/loop")).reason is Reason.REDIRECTS
    server.on("/deeper")(lambda h: h.give(b"", 302, Location=f"/deeper?{h.count}"))
    assert get(server.url("/deeper")).reason is Reason.REDIRECTS
    assert server.asked["/deeper"] == 6


def test_cookies_and_the_environment_are_left_out(server: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1/")
    server.page("/a", b"x", Set_Cookie="id=1")
    with fetcher() as one:
        one.get(server.url("/a"))
        assert one.get(server.url("/a")).ok
    assert all("Cookie" not in h for h in server.headers_seen["/a"])


def test_nobody_listens_and_no_http(server: Web) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert get(f"http://127.0.0.1:{port}/", Policy(schemes=("http",), retries=1)).reason is Reason.CONNECT
    server.on("/junk")(lambda h: h.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n") or setattr(h, "close_connection", True))  # type: ignore[func-returns-value]
    assert get(server.url("/junk"), Policy(schemes=("http",), retries=0)).reason is Reason.PROTOCOL
    assert get(server.url("/").replace("http", "https"), Policy(retries=0)).reason is Reason.TLS


@given(st.ip_addresses())
def test_public_never_takes_what_python_calls_private(address: Any) -> None:
    if public(address):
        assert address.is_global
        assert not address.is_multicast


@given(st.integers(1, 50), st.floats(0.01, 10), st.floats(0.01, 300), st.integers())
def test_back_off_stays_in_its_bounds(attempt: int, first: float, most: float, seed: int) -> None:
    assert 0 < back_off(attempt, first, most, random.Random(seed)) <= most


@given(st.text(max_size=40) | st.sampled_from(["²", "1e9", "-5", "9" * 400, "Thu, 99 Foo 2030 00:00:00 GMT"]))
def test_retry_after_takes_anything(said: str) -> None:
    got = retry_after({"retry-after": said}, 0.0)
    assert got is None or got >= 0


# ---------------------------------------------------------------- many


def test_many_gives_one_result_a_url_with_reasons(server: Web) -> None:
    wanted = {server.page(f"/{n}", str(n).encode()): Reason("not_found") if n % 3 == 0 else None for n in range(60)}
    for n in range(0, 60, 3):
        del server.pages[f"/{n}"]
    with fetcher() as one:
        got = list(one.many(wanted))
    assert {g.url: g.reason for g in got} == wanted
    assert {g.number: g.url for g in got} == dict(enumerate(wanted))
    assert {g.number: g.url for g in got} == dict(enumerate(wanted))
    assert all(g.data == g.url.rsplit("/", 1)[1].encode() for g in got if g.ok)


def test_a_host_is_asked_within_its_rate_and_number(server: Web) -> None:
    clock = FakeClock()
    urls = [server.page(f"/{n}", b"x") for n in range(20)]
    with fetcher(Policy(schemes=("http",), interval=0.5, per_host=2), clock=clock) as one:
        assert all(g.ok for g in one.many(urls))
    assert clock.at - 1000 >= 19 * 0.5 - 1e-6
    assert server.most_active <= 2


def test_a_host_that_asks_to_wait_holds_up_no_other(server: Web) -> None:
    server.on("/busy")(lambda h: h.give(b"", 429, Retry_After="100") if h.count == 1 else h.give(b"late"))
    server.page("/free", b"x")
    with fetcher(by=lambda host, port: ["127.0.0.1"]) as one:
        urls = [server.url(f"/busy?{n}", "busy.example") for n in range(3)]
        urls += [server.url(f"/free?{n}", f"h{n}.example") for n in range(30)]
        got = list(one.many(urls, workers=4))
    assert all(g.ok for g in got)
    assert [g.data for g in got][-1] == b"late"


def test_two_names_at_one_address_share_no_connection(server: Web) -> None:
    server.page("/a", b"x")
    with fetcher(by=lambda host, port: ["127.0.0.1"]) as one:
        for name in ("one.example", "two.example"):
            assert one.get(server.url("/a", name)).ok
        assert len(one._http.clients) == 2
