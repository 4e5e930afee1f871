"""The endpoint against a local server that fails, stalls and returns junk; kill and resume; budget."""

import base64
import io
import json
import os
import pickle
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer, completion

from fabrica.chat import Budgeted, BudgetSpent, Cached, ChatFailed, Checked, Endpoint, Failure, Request, many, user
from fabrica.chat.request import GaveUp
from fabrica.errors import Refused, UsageError
from fabrica.types import Absent, Item, Origin, Region, Reply

pytest.importorskip("openai")
SCHEMA = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
ORIGIN = Origin("made", "a", "", "")


def endpoint(server: ChatServer, **more: Any) -> Endpoint:
    settings = {"allow_network": True, "timeout": 2.0, "retries": 3, "backoff": 0.01, **more}
    return Endpoint(server.url, "served", **settings)


def test_a_reply_with_its_tokens_and_the_parameters_sent() -> None:
    with ChatServer(lambda n, body: ("say", "hello")) as server:
        reply = endpoint(server)(user("hi", system="be brief"), max_tokens=5, temperature=0.5, seed=3, schema=SCHEMA)
    assert reply == Reply("hello", "served", 11, 7)
    body = server.bodies[0]
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (5, 0.5, 3)
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA


def test_an_image_goes_as_a_png_data_url_and_regions_at_its_scale() -> None:
    from PIL import Image

    pixels = np.arange(200 * 100, dtype=np.uint16).reshape(100, 200)
    image = Item("image", pixels, ORIGIN)
    box = Region("image", "box", np.array([40, 20, 80, 60]), "mass", ORIGIN)
    with ChatServer(lambda n, body: ("say", "seen")) as server:
        endpoint(server, max_side=100)(user("What is this?", image, box))
    content = server.bodies[0]["messages"][0]["content"]
    assert [c["type"] for c in content] == ["text", "image_url", "text"]
    head, _, data = content[1]["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (100, 50)
    assert content[2]["text"] == "[box x0=20 y0=10 x1=40 y1=30: mass]"


@pytest.mark.parametrize(
    "item",
    [Item("image", Absent.NOT_DONE, ORIGIN), Item("signal", np.zeros((1, 9)), ORIGIN, rate=1.0),
     Item("image", np.full((4, 4), np.nan), ORIGIN)],
)  # fmt: skip
def test_what_cannot_be_shown_is_said_before_anything_is_sent(item: Item) -> None:
    with ChatServer(lambda n, body: ("say", "seen")) as server, pytest.raises(UsageError):
        endpoint(server)(user(item))
    assert server.bodies == []


def test_logprobs_where_asked_for() -> None:
    body = completion("yes")
    body["choices"][0]["logprobs"] = {"content": [{"token": "yes", "logprob": -0.25}]}
    with ChatServer(lambda n, _: ("json", body)) as server:
        assert endpoint(server, logprobs=True)(user("a")).logprobs == (("yes", -0.25),)
        assert server.bodies[0]["logprobs"] is True


@pytest.mark.parametrize(
    ("action", "code", "tries"),
    [
        (("status", 500), "chat_server", 4),
        (("status", 503, {"Retry-After": "0.01"}), "chat_server", 4),
        (("status", 429, {"Retry-After": "0.01"}), "chat_rate", 4),
        (("close",), "chat_unreachable", 4),
        (("raw", b"<html>busy</html>"), "chat_junk", 4),
        (("raw", b'{"choices": [{"mess'), "chat_junk", 4),
        (("raw", b"[" * 100_000), "chat_junk", 4),
        (("json", {"choices": []}), "chat_junk", 4),
        (("json", {"choices": [{"message": "text"}]}), "chat_junk", 4),
        (("json", ["choices"]), "chat_junk", 4),
        (("json", completion(None, refusal="I will not")), "chat_refused", 1),
        (("status", 400), "chat_status", 1),
        (("status", 401), "chat_status", 1),
        (("status", 307, {"Location": "http://127.0.0.1:1/v1"}), "chat_status", 1),
        (("raw", b" " * (17 << 20)), "chat_status", 1),
    ],
    ids=lambda v: str(v)[:30],
)
def test_failures_are_tried_again_where_that_may_help_and_typed(action: Any, code: str, tries: int) -> None:
    with ChatServer(lambda n, body: action) as server, pytest.raises(ChatFailed) as caught:
        endpoint(server)(user("a secret of the patient"))
    assert (caught.value.code, len(server.bodies)) == (code, tries)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("bad", [("status", 500), ("status", 429), ("close",), ("raw", b"junk")])
def test_a_failure_that_passes_is_not_seen(bad: Any) -> None:
    with ChatServer(lambda n, body: bad if n < 2 else ("say", "fine")) as server:
        assert endpoint(server)(user("a")).text == "fine"
    assert len(server.bodies) == 3


def test_retry_after_is_waited_for() -> None:
    late = ("status", 429, {"Retry-After": "0.4"})
    with ChatServer(lambda n, body: late if n == 0 else ("say", "fine")) as server:
        endpoint(server)(user("a"))
    assert server.times[1] - server.times[0] >= 0.4


@pytest.mark.parametrize("action", [("stall", 30), ("drip", 0.05)])
def test_a_server_that_stalls_costs_no_more_than_the_timeout(action: Any) -> None:
    begun = time.monotonic()
    with ChatServer(lambda n, body: action) as server, pytest.raises(ChatFailed) as caught:
        endpoint(server, timeout=0.3, retries=1)(user("a"))
    assert caught.value.code == "chat_timeout"
    assert time.monotonic() - begun < 3
    assert len(server.bodies) == 2


def test_concurrency_and_rate_are_kept() -> None:
    def slow(n: int, body: dict[str, Any]) -> Any:
        time.sleep(0.03)
        return ("say", "x")

    with ChatServer(slow) as server:
        model = endpoint(server, concurrency=2, per_minute=1200)
        list(many(model, [Request(user(str(n))) for n in range(10)], workers=8))
    assert server.most_under_way <= 2
    assert server.times[-1] - server.times[0] >= 0.25  # 0.45 asked for; 0.15 without a rate


def test_nothing_is_opened_without_the_flag_and_no_key_of_the_environment_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-hidden")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(Refused, match="network_off"):
        Endpoint("http://127.0.0.1:1/v1", "m")
    with ChatServer(lambda n, body: ("say", "x")) as server:
        endpoint(server)(user("a"))
        sent = json.dumps(server.headers)
        assert "hidden" not in sent
        monkeypatch.setenv("MY_KEY", "k-1")
        model = endpoint(server, key_env="MY_KEY")
        model(user("a"))
        assert server.headers[-1]["authorization"] == "Bearer k-1"
        assert "k-1" not in repr(model.__getstate__())
        with pytest.raises(UsageError, match="NO_SUCH_KEY"):
            endpoint(server, key_env="NO_SUCH_KEY")(user("a"))


def test_plain_http_crosses_no_public_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [(2, 1, 6, "", ("8.8.8.8", 80))])
    with pytest.raises(Refused, match="url_scheme"):
        Endpoint("http://example.org/v1", "m", allow_network=True)(user("a"))
    for bad in ("ftp://a/v1", "http:///v1", "https://me:pw@host/v1"):
        with pytest.raises(Refused, match="url_host"):
            Endpoint(bad, "m", allow_network=True)


def test_it_can_be_pickled() -> None:
    with ChatServer(lambda n, body: ("say", "x")) as server:
        model = endpoint(server)
        model(user("a"))
        assert pickle.loads(pickle.dumps(model))(user("a")).text == "x"


# ------------------------------------------------------------ with the wrappers


def test_junk_is_repaired_or_quarantined_and_never_a_crash(tmp_path: Path) -> None:
    """Odd requests get half JSON twice, then an object; every fifth is wrong for ever."""

    def behave(n: int, body: dict[str, Any]) -> Any:
        number = int(body["messages"][0]["content"])
        turn = len(body["messages"]) // 2
        if number % 5 == 0:
            return ("say", '{"texts": 1}')
        if number % 2 and turn < 2:
            return ("say", ['{"text": "ha', '{"text": 3}'][turn])
        return ("say", f'Here: {{"text": "t{number}"}}')

    with ChatServer(behave) as server:
        model = Cached(Budgeted(Checked(endpoint(server)), max_tokens=10**6), tmp_path / "c.sqlite")
        requests = [Request(user(str(n)), schema=SCHEMA) for n in range(20)]
        out = list(many(model, requests, journal=tmp_path / "j.sqlite"))
        asked = len(server.bodies)
        again = list(many(model, requests, journal=tmp_path / "j.sqlite"))
    for n, reply in enumerate(out):
        if n % 5 == 0:
            assert isinstance(reply, Failure)
            assert (reply.code, reply.passing) == ("reply_schema", False)
        else:
            assert isinstance(reply, Reply)
            assert json.loads(reply.text) == {"text": f"t{n}"}
            assert reply.tokens_in == 11 * (3 if n % 2 else 1)
    odd = [n for n in range(20) if n % 2 and n % 5]
    assert asked == 4 * 3 + len(odd) * 3 + (20 - 4 - len(odd))
    assert again == out
    assert len(server.bodies) == asked
    repair = next(b for b in server.bodies if len(b["messages"]) == 3)
    assert "cannot be used" in repair["messages"][-1]["content"]


def test_failures_of_the_way_are_asked_again_on_the_next_run_and_many_stops_where_all_fail(tmp_path: Path) -> None:
    down = True
    with ChatServer(lambda n, body: ("status", 500) if down else ("say", "up")) as server:
        model = endpoint(server, retries=0)
        requests = [Request(user(str(n))) for n in range(30)]
        out = list(many(model, requests[:3], journal=tmp_path / "j.sqlite"))
        assert all(isinstance(r, Failure) and r.passing for r in out)
        with pytest.raises(GaveUp, match="20 times in a row"):
            list(many(model, requests, journal=tmp_path / "j.sqlite"))
        down = False
        assert [r.text for r in many(model, requests, journal=tmp_path / "j.sqlite")] == ["up"] * 30  # type: ignore[union-attr]


def test_the_budget_stops_hard_and_goes_on_when_raised(tmp_path: Path) -> None:
    """Each call takes 18 tokens and reserves 9 in and 20 out: 100 tokens are five calls (18 * 4 + 29 > 100)."""
    requests = [Request(user("a"), max_tokens=20, seed=n) for n in range(12)]
    with ChatServer(lambda n, body: ("say", "x")) as server:

        def run(most: int) -> list[Any]:
            model = Budgeted(endpoint(server), max_tokens=most, ledger=tmp_path / "ledger.sqlite")
            return list(many(model, requests, journal=tmp_path / "j.sqlite", workers=1))

        with pytest.raises(BudgetSpent, match="of 100 tokens"):
            run(100)
        first = len(server.bodies)
        assert first == 1 + (100 - 29) // 18
        with pytest.raises(BudgetSpent):
            run(100)
        assert len(server.bodies) == first
        assert len(run(1000)) == 12
        assert len(server.bodies) == 12


def test_killed_in_the_middle_it_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    """The server goes silent after 13 answers; the worker is killed while it waits; the next run asks the other 27."""
    silent = True

    def behave(n: int, body: dict[str, Any]) -> Any:
        return ("stall", 60) if silent and n >= 13 else ("say", "re " + body["messages"][-1]["content"])

    with ChatServer(behave) as server:
        command = [sys.executable, str(Path(__file__).parent / "many_worker.py"), server.url, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while time.monotonic() < until and (kept(tmp_path / "journal.sqlite") < 13 or len(server.bodies) < 15):
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert kept(tmp_path / "journal.sqlite") == 13
        silent = False
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"re question {n}" for n in range(40)]
    assert sorted(server.answered) == sorted(f"question {n}" for n in range(40))  # each once


def kept(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        connection = sqlite3.connect(path, timeout=5)
        return int(connection.execute("SELECT count(*) FROM pair").fetchone()[0])
    except sqlite3.OperationalError:  # not yet made
        return 0
    finally:
        connection.close()
