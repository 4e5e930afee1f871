"""Keys, cache, schema check, budget, recording, script, many: each alone and composed."""

import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.chat import (
    Budgeted,
    BudgetSpent,
    Cached,
    ChatFailed,
    Checked,
    Failure,
    NotRecorded,
    Recorded,
    Request,
    Scripted,
    TemplateGrammar,
    many,
    prompt,
    user,
)
from fabrica.chat.prompts import versions
from fabrica.chat.schema import checker, found_json
from fabrica.curate.engine.ordered import in_order
from fabrica.errors import Refused, UsageError
from fabrica.types import ChatModel, Item, Origin, Region, Reply

ORIGIN = Origin("made", "a", "", "")
SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}, "additionalProperties": False}


def echo(request: Request) -> str:
    return request.messages[-1].text


def image(value: int, origin: Origin = ORIGIN) -> Item:
    return Item("image", np.full((4, 4), value, np.uint8), origin)


# ------------------------------------------------------------ keys


def test_the_key_is_of_content_and_parameters_and_not_of_where_it_came_from() -> None:
    base = Request(user("a", image(1)))
    same = Request(user("a", image(1, Origin("elsewhere", "b", "cd", "MIT"))))
    assert base.key("m") == same.key("m")
    box = Region("image", "box", np.array([0, 0, 2, 2]), "mass", ORIGIN)
    others = [
        Request(user("a", image(2))), Request(user("b", image(1))), Request(user(image(1), "a")),
        Request(user("a", image(1), box)), replace(base, seed=1), replace(base, temperature=0.5),
        replace(base, max_tokens=9), replace(base, schema=SCHEMA), Request(user("a", image(1), system="s")),
        Request(user("a", Item("image", np.full((2, 8), 1, np.uint8), ORIGIN))),
        Request(user("a", Item("image", np.full((4, 4), 1, np.int8), ORIGIN))),
        Request(user("a", Item("text", "x", ORIGIN))),
    ]  # fmt: skip
    keys = {base.key("m"), base.key("other"), *[r.key("m") for r in others]}
    assert len(keys) == len(others) + 2


def test_a_key_is_the_same_for_ever() -> None:
    """A change of this value makes every kept cache useless: then `Asked.version` and the note in docs change too."""
    key = Request(user("a", image(1)), schema=SCHEMA).key("m")
    assert key == "8c8edc32f8d3721f55c37d73cbd84db7c6b1df463672383c99fe1cff9f8ef95c"


# ------------------------------------------------------------ cache


def test_the_cache_asks_once_and_keeps_every_field(tmp_path: Path) -> None:
    said = Reply("yes", "scripted", 3, 1, (("yes", -0.5),))
    inner = Scripted([said])
    model = Cached(inner, tmp_path / "c.sqlite")
    assert model(user("a")) == model(user("a")) == said
    assert Cached(Scripted([]), tmp_path / "c.sqlite")(user("a")) == said
    assert (len(inner.requests), model.hits, model.misses) == (1, 1, 1)


def test_threads_that_ask_the_same_at_once_ask_once(tmp_path: Path) -> None:
    gate = threading.Event()

    def slow(request: Request) -> str:
        gate.wait(1)
        return "x"

    inner = Scripted(slow)
    model = Cached(inner, tmp_path / "c.sqlite")
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(model, user("a")) for _ in range(8)]
        gate.set()
        assert {f.result().text for f in futures} == {"x"}
    assert len(inner.requests) == 1


def test_a_failure_is_not_cached_and_a_broken_store_is_refused(tmp_path: Path) -> None:
    model = Cached(Scripted([ChatFailed("chat_server", "no"), "yes"]), tmp_path / "c.sqlite")
    with pytest.raises(ChatFailed):
        model(user("a"))
    assert model(user("a")).text == "yes"
    (tmp_path / "c.sqlite").unlink()  # somebody clears the cache
    fresh = Cached(Scripted(["no"]), tmp_path / "c.sqlite")
    assert (fresh(user("a")).text, len(fresh.store)) == ("no", 1)
    (tmp_path / "bad.sqlite").write_bytes(b"junk" * 1000)
    with pytest.raises(Refused, match="store_bad"):
        Cached(Scripted([]), tmp_path / "bad.sqlite")


# ------------------------------------------------------------ schema


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"n": 1}', {"n": 1}), ('```json\n{"n": 1}\n```', {"n": 1}), ('Sure! {"n": 1} Anything else?', {"n": 1}),
        ('{"n": NaN} or {"n": 1}', {"n": 1}), ('{{{ {"n": 1}', {"n": 1}), ("[1]", [1]), ("no", None), ("", None),
        ('{"n": 1', None), ('{"n": Infinity}', None), ("[" * 100_000, None), ('{"a":' * 100_000, None),
        ("9" * 10_000, None), (" " * (1 << 21), None),
    ],
    ids=lambda v: repr(v)[:24],
)  # fmt: skip
def test_json_is_found_where_it_is_and_nothing_breaks(text: str, value: Any) -> None:
    found, why = found_json(text)
    assert found == value
    assert bool(why) == (value is None)


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_reply_is_json_or_a_reason(text: str) -> None:
    found, why = found_json(text)
    assert why or json.loads(json.dumps(found)) == found


def test_repairs_show_the_error_and_tokens_add_up() -> None:
    inner = Scripted(
        [Reply("{", "scripted", 5, 1), Reply('{"n": "x"}', "scripted", 9, 2), Reply('{"n": 4}', "s", 14, 3)]
    )
    reply = Checked(inner)(user("a"), schema=SCHEMA)
    assert (reply.text, reply.tokens_in, reply.tokens_out) == ('{"n": 4}', 28, 6)
    assert [len(r.messages) for r in inner.requests] == [1, 3, 5]
    assert "'x' is not of type 'integer'" in inner.requests[2].messages[-1].text


@pytest.mark.parametrize("repairs", [0, 1, 2])
def test_after_the_repairs_it_is_a_typed_failure_with_what_was_said_and_cost(repairs: int) -> None:
    inner = Scripted(lambda r: Reply("junk", "scripted", 2, 3))
    with pytest.raises(ChatFailed) as caught:
        Checked(inner, repairs=repairs)(user("a"), schema=SCHEMA)
    tries = repairs + 1
    assert (caught.value.code, caught.value.said, caught.value.passing) == ("reply_schema", ("junk",) * tries, False)
    assert (caught.value.tokens_in, caught.value.tokens_out) == (2 * tries, 3 * tries)


def test_without_a_schema_nothing_is_checked_and_a_bad_schema_is_the_users() -> None:
    assert Checked(Scripted(["junk"]))(user("a")).text == "junk"
    with pytest.raises(UsageError, match="no JSON schema"):
        Checked(Scripted([]))(user("a"), schema={"type": "objekt"})


def test_a_reference_elsewhere_is_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(socket, "socket", None)
    with pytest.raises(UsageError, match="not inside it"):
        checker({"$ref": "https://example.org/schema.json"})({})


# ------------------------------------------------------------ budget


def test_a_budget_of_cost_and_what_backends_do_not_report() -> None:
    model = Budgeted(Scripted(lambda r: Reply("x" * 30, "s", 0, 0)), max_cost=1.0, price=(10_000.0, 20_000.0))
    model(user("a" * 30), max_tokens=10)  # 18 in by estimate, 10 out by length
    assert model.spent == (18, 10)
    assert model.cost == pytest.approx(0.18 + 0.2)
    model(user("a" * 30), max_tokens=10)
    with pytest.raises(BudgetSpent, match=r"0\.7600 of 1\.0000"):
        model(user("a" * 30), max_tokens=10)


def test_failed_calls_are_counted(tmp_path: Path) -> None:
    inner = Checked(Scripted(lambda r: Reply("junk", "s", 10, 10)))
    model = Budgeted(inner, max_tokens=1000, ledger=tmp_path / "l.sqlite")
    with pytest.raises(ChatFailed):
        model(user("a"), schema=SCHEMA)
    assert Budgeted(inner, max_tokens=1000, ledger=tmp_path / "l.sqlite").spent == (30, 30)


@pytest.mark.parametrize("ledger", [False, True])
def test_many_threads_never_pass_the_budget(tmp_path: Path, ledger: bool) -> None:
    inner = Scripted(lambda r: Reply("x", "s", 9, 10))
    model = Budgeted(inner, max_tokens=200, ledger=tmp_path / "l.sqlite" if ledger else None)
    with pytest.raises(BudgetSpent):
        list(many(model, (Request(user("a"), max_tokens=10, seed=n) for n in range(100)), workers=8))
    assert len(inner.requests) <= 10
    assert sum(model.spent) <= 200
    assert len(inner.requests) >= 9


def test_a_budget_needs_a_limit_and_a_price() -> None:
    with pytest.raises(UsageError):
        Budgeted(Scripted([]))
    with pytest.raises(UsageError, match="price"):
        Budgeted(Scripted([]), max_cost=1)


# ------------------------------------------------------------ recorded


def test_a_recording_replays_without_the_model_and_names_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    inner = Scripted(echo, name="real@1")
    recording = Recorded(path, inner)
    said = [recording(user(t)) for t in ("a", "b", "a")]
    assert len(inner.requests) == 2
    replay = Recorded(path)
    assert [replay(user(t)) for t in ("a", "b", "a")] == said
    assert replay.name == "real@1"
    missing = Request(user("c"))
    with pytest.raises(NotRecorded, match=missing.key("real@1")):
        missing.ask(replay)
    with pytest.raises(UsageError, match="was recorded from"):
        Recorded(path, Scripted([], name="other"))
    with pytest.raises(UsageError, match="no recording"):
        Recorded(tmp_path / "none.jsonl")


def test_a_recording_cut_short_by_a_kill_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    Recorded(path, Scripted(echo))(user("a"))
    whole = path.read_bytes()
    Recorded(path, Scripted(echo))(user("b"))
    longer = path.read_bytes()
    for cut in range(len(whole) + 1, len(longer)):
        path.write_bytes(longer[:cut])
        assert Recorded(path, Scripted(echo))(user("b")).text == "b"
        assert path.read_bytes() == longer
    path.write_bytes(b'{"recorded": "x"}\n{"no": "key"}\n')
    with pytest.raises(Refused, match="line 2"):
        Recorded(path)


# ------------------------------------------------------------ many


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_replies_come_in_order(numbers: list[int], workers: int) -> None:
    replies = many(Scripted(echo), [Request(user(str(n))) for n in numbers], workers=workers)
    assert [r.text for r in replies if isinstance(r, Reply)] == [str(n) for n in numbers]


def test_equal_requests_are_asked_once_and_failures_stay_in_place(tmp_path: Path) -> None:
    def answer(request: Request) -> Any:
        return ChatFailed("chat_status", "no") if echo(request) == "2" else echo(request)

    inner = Scripted(answer)
    requests = [Request(user(str(n % 4))) for n in range(12)]
    out = list(many(inner, requests, journal=tmp_path / "j.sqlite", workers=3))
    assert [r.text if isinstance(r, Reply) else r.code for r in out] == ["0", "1", "chat_status", "3"] * 3
    assert len(inner.requests) == 4
    assert list(many(Scripted([]), requests, journal=tmp_path / "j.sqlite")) == out
    assert isinstance(out[2], Failure)


def test_a_stream_is_taken_only_a_little_ahead() -> None:
    taken = 0

    def stream() -> Any:
        nonlocal taken
        for n in range(1000):
            taken += 1
            yield Request(user(str(n)))

    replies = many(Scripted(echo), stream(), workers=4)
    next(replies)
    assert taken <= 9
    replies.close()


def test_an_error_of_the_work_comes_at_its_turn() -> None:
    values = in_order(lambda n: 6 // n, [3, 2, 0, 1], workers=2)
    assert [next(values), next(values)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(values)
    with pytest.raises(UsageError):
        list(in_order(str, [1], workers=0))


# ------------------------------------------------------------ all of them


def test_every_model_keeps_the_protocol_the_name_and_can_be_pickled(tmp_path: Path) -> None:
    grammar = TemplateGrammar()
    budgeted = Budgeted(grammar, max_tokens=9)
    cached, recorded = Cached(budgeted, tmp_path / "c"), Recorded(tmp_path / "r", grammar)
    for model in (grammar, Checked(grammar), budgeted, cached, recorded):
        assert isinstance(model, ChatModel)
        assert model.name == grammar.name
        assert isinstance(model.version, str)
        assert pickle.loads(pickle.dumps(model)).name == grammar.name
    with pytest.raises(UsageError, match="no messages"):
        grammar(())


# ------------------------------------------------------------ prompts

RELEASED = {  # a released prompt is never edited: make NAME.v2.txt instead
    "caption@1": "e2f0a2fa90dbe019",
    "choose@1": "a022bc1db4f1db7b",
    "closed@1": "b4ff08d6adc956f3",
    "closed_with_reports@1": "baf2fa3b868c40f5",
    "converse@1": "071ba43d9a0b40ce",
    "grade_answer_first@1": "bc9ae5012ea918e4",
    "grade_reference_first@1": "f0875330adf301f4",
    "prefer@1": "adf6c9153c0cc5f2",
    "probe_plain@1": "b1ccaa1a99c00979",
    "probe_student@1": "11708ddea5484853",
    "propose@1": "870bfc6b6a580f7e",
    "rate_two@1": "43ac045d27182ead",
    "reason@1": "02118795ceea2257",
    "refine@1": "e20b3ae616cf9b28",
    "repair@1": "6e4da593f283b67a",
    "select@1": "04218bcae0b4c018",
    "verify@1": "99ce46ab5bd1e52b",
    "verify_yes@1": "fc0fec2a43376a4c",
    "which@1": "fe9ef7a6ed402354",
}  # fmt: skip


def test_released_prompts_are_never_edited() -> None:
    assert {f"{n}@{v}": prompt(n, v).sha256[:16] for n, of in versions().items() for v in of} == RELEASED


def test_a_prompt_fills_its_fields_and_no_others() -> None:
    messages = prompt("caption").messages(facts='{"a": "$dollar"}')
    assert [m.role for m in messages] == ["system", "user"]
    assert '{"a": "$dollar"}' in messages[1].text
    for fields in ({}, {"facts": "x", "fact": "y"}):
        with pytest.raises(UsageError, match="fields"):
            prompt("caption").messages(**fields)
    with pytest.raises(UsageError, match="did you mean 'caption'"):
        prompt("captoin")
    with pytest.raises(UsageError, match="Known: 1"):
        prompt("caption", 99)
