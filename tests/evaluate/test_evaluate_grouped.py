"""Group rules, chance by the same rows, the row log with resume, scripted answerers ranked as planted (sheet S80)."""

import json
import math
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.chat import ChatFailed, Scripted, user
from fabrica.chat.request import GaveUp
from fabrica.curate.language.probing import twins
from fabrica.errors import Refused, UsageError
from fabrica.evaluate import answerers as a
from fabrica.evaluate.grouped import (
    Verdict,
    all_right,
    coin,
    corrected,
    incomplete,
    judged,
    lines,
    only_where_right,
    same,
    scores,
    units,
)
from fabrica.evaluate.rowlog import Row, RowLog, answered
from fabrica.phantom.facts import DIMS, facts

RECORDS = facts(120, 3).records
PROBES = list(twins(RECORDS, DIMS))
DIMENSIONS = tuple(DIMS)
IMAGES = {r.id: r.first("image") for r in RECORDS}


def verdicts(*right: int, record: str = "r", dimension: str = "condition", of: int = 2) -> list[Verdict]:
    return [
        Verdict(
            f"{record}{dimension}{i}", record, record, dimension, str(i // of), "right" if r else "wrong",
            i % of == 0, of,
        )
        for i, r in enumerate(right)
    ]  # fmt: skip


def replies(say, probes=PROBES, name: str = "scripted") -> dict[str, Row]:
    model = a.Answerer(name, say, probes)
    return {p.id: Row(p.id, model(user(IMAGES[p.record], p.text)).text) for p in probes}


def overall(say) -> float:
    return lines(units(judged(PROBES, replies(say))), DIMENSIONS, cells=False, count=5)[0].all


# ------------------------------------------------------------ golden values


def test_chance_of_images_with_one_two_and_four_questions() -> None:
    rows = [*verdicts(1, record="a", of=1), *verdicts(1, 1, record="b"), *verdicts(1, 1, 1, 1, record="c")]
    assert np.mean(list(coin(rows).values())) == pytest.approx((1 / 2 + 1 / 4 + 1 / 16) / 3)
    assert lines(units(rows), ["condition"], cells=False)[0].coin == pytest.approx(0.270833, abs=1e-6)


def test_three_of_four_right_is_none_with_twins_and_one_on_first_questions() -> None:
    (unit,) = units(verdicts(1, 1, 1, 0))
    assert (unit.all, unit.first, unit.coin, unit.coin_first) == (0.0, 1.0, 1 / 16, 1 / 4)


@pytest.mark.parametrize("text", ["Yes or No", "Not sure", "Normal", "", "None", "Yes, there is no effusion"])
def test_replies_that_say_nothing_are_wrong_for_both_twins(text: str) -> None:
    found = judged(PROBES[:2], {p.id: Row(p.id, text) for p in PROBES[:2]})
    assert [v.right for v in found] == [False, False]
    assert len(found) == 2  # and stay in the denominator


def test_overall_is_the_mean_weighted_by_images_on_a_hand_table() -> None:
    n, share = (8, 6, 5, 4, 2), (6, 3, 2, 1, 1)
    rows = [
        v for d, k, r in zip(DIMENSIONS, n, share, strict=True) for i in range(k)
        for v in verdicts(*(1, 1) if i < r else (1, 0), record=f"{d}{i}", dimension=d)
    ]  # fmt: skip
    table = lines(units(rows), DIMENSIONS, count=5)
    wanted = sum(k * (r / k) for k, r in zip(n, share, strict=True)) / sum(n)
    assert abs(table[0].all - wanted) < 1e-12
    assert table[0].first == 1.0
    assert [line.name for line in table] == ["overall", *DIMENSIONS]
    mixed = sorted(rows, key=lambda v: v.question[::-1])
    assert [line.all for line in lines(units(mixed), DIMENSIONS, count=5)] == [line.all for line in table]


def test_cells_of_different_size_weigh_by_images_in_any_order() -> None:
    rows = [v for i in range(40) for v in verdicts(1, int(i < 10), record=f"a{i}")]
    rows = [replace(v, cell="CT x brain" if v.record in ("a1", "a2") else "MRI x spine") for v in rows]
    for order in (rows, rows[::-1]):
        top, whole, *cells = lines(units(order), ["condition"], count=50)
        assert whole.all == top.all == 0.25
        assert sum(c.n * c.all for c in cells) / sum(c.n for c in cells) == pytest.approx(0.25)
        assert [(c.cell, c.n, c.few) for c in cells] == [("CT x brain", 2, True), ("MRI x spine", 38, False)]


def test_pairs_coin_is_a_quarter_and_a_constant_gets_none() -> None:
    """MediConfusion's set accuracy; four rotations of four options: 1/256."""
    pair = [
        Verdict("1", "p", "p", "pair", "1", "right", said="A"),
        Verdict("2", "p", "p", "pair", "2", "wrong", said="A"),
    ]
    assert list(coin(pair, group=("record",)).values()) == [0.25]
    assert list(all_right(pair, group=("record",)).values()) == [0.0]
    assert list(same(pair, group=("record",)).values()) == [1.0]
    turned = [Verdict(str(i), "p", "p", "rotation", str(i), "right", options=4) for i in range(4)]
    assert list(coin(turned, group=("record",)).values()) == [1 / 256]


def test_chance_corrected() -> None:
    assert (corrected(0.25, 0.25), corrected(1.0, 0.25)) == (0.0, 1.0)
    assert corrected(0.1, 0.25) < 0


# ------------------------------------------------------------ faults of public scoring


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_answers_and_questions_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    rows = replies(a.skilled(dict.fromkeys(DIMENSIONS, 0.6)))
    whole = lines(units(judged(PROBES, rows)), DIMENSIONS, count=5)
    mixed, asked = list(rows.items()), list(PROBES)
    rng.shuffle(mixed)
    rng.shuffle(asked)
    again = lines(units(judged(asked, dict(mixed))), DIMENSIONS, count=5)
    assert [(x.name, x.cell, x.all, x.first, x.coin) for x in whole] == [
        (x.name, x.cell, pytest.approx(x.all), pytest.approx(x.first), pytest.approx(x.coin)) for x in again
    ]


def test_twin_first_gives_the_same_answers(tmp_path: Path) -> None:
    model = a.Answerer("m", a.skilled(dict.fromkeys(DIMENSIONS, 0.5)), PROBES)
    ways = {}
    for name, order in {"yes": PROBES, "twin": PROBES[::-1]}.items():
        asked = ((p.id, user(IMAGES[p.record], p.text)) for p in order)
        rows = answered(model, asked, RowLog(tmp_path / f"{name}.jsonl", {"model": "m"}))
        ways[name] = {k: r.text for k, r in rows.items()}
    assert ways["yes"] == ways["twin"]


def test_every_question_gets_a_context_of_its_own(tmp_path: Path) -> None:
    """A chat answerer that would say what it said before sees one question a call."""
    model = Scripted(lambda request: f"{len(request.messages)} turns: yes")
    answered(model, ((p.id, user(IMAGES[p.record], p.text)) for p in PROBES[:6]), RowLog(tmp_path / "r.jsonl", {}))
    assert [len(r.messages) for r in model.requests] == [1] * 6
    assert len({r.messages[0].text for r in model.requests}) == 6


def test_a_missing_twin_makes_the_image_wrong_and_is_counted() -> None:
    rows = replies(a.skilled(dict.fromkeys(DIMENSIONS, 1.0)))
    asked = [p for p in PROBES if p.dimension == "modality"]
    assert all(u.all for u in units(judged(asked, {p.id: rows[p.id] for p in asked})))
    gone = next(p for p in asked if p.kind == "twin")
    unanswered = judged(asked, {p.id: rows[p.id] for p in asked if p is not gone})
    assert [v.status for v in unanswered if not v.right] == ["missing"]
    assert sum(not u.all for u in units(unanswered)) == 1
    unasked = judged([p for p in asked if p is not gone], {p.id: rows[p.id] for p in asked if p is not gone})
    assert incomplete(unasked) == 1
    assert [u.record for u in units(unasked) if not u.all] == [gone.record]


def test_unanswered_images_stay_in_the_denominator_unless_dropped() -> None:
    rows = replies(a.hesitant(a.skilled(dict.fromkeys(DIMENSIONS, 1.0)), 0.4))
    made = judged(PROBES, rows)
    kept, dropped = (units(made, unanswered=way) for way in ("wrong", "drop"))
    assert len(kept) > len(dropped)
    assert np.mean([u.all for u in kept]) < 0.75
    assert all(u.all for u in dropped)
    assert {v.status for v in made} == {"right", "refused"}
    with pytest.raises(UsageError, match="did you mean 'drop'"):
        units(made, unanswered="dropp")


def test_the_figures_with_and_without_twins_differ() -> None:
    """The public script prints one key under two names."""
    made = lines(units(judged(PROBES, replies(a.yes_bias(1.0)))), DIMENSIONS, count=5)
    modality = next(line for line in made if line.name == "modality")
    assert (modality.all, modality.first) == (0.0, 1.0)
    whole = made[0]
    parts = [u for u in units(judged(PROBES, replies(a.yes_bias(1.0)))) if u.dimension != "abnormality"]
    assert whole.first == pytest.approx(np.mean([u.first for u in parts]))  # abnormality has no twin


def test_duplicates_and_answers_to_nothing_are_errors() -> None:
    with pytest.raises(UsageError, match="stands twice"):
        judged([PROBES[0], PROBES[0]], {})
    with pytest.raises(UsageError, match="none of the 1 questions"):
        judged(PROBES[:1], {"x": Row("x", "yes")})
    with pytest.raises(UsageError, match="stands twice"):
        answered(Scripted(["yes"]), [("q", user("a")), ("q", user("b"))], RowLog("nowhere.jsonl", {}))
    with pytest.raises(UsageError, match="part of a verdict"):
        all_right(verdicts(1), group=("recrod",))


def test_places_are_asked_only_of_those_who_saw_the_condition() -> None:
    rows = [*verdicts(1, 0, record="a"), *verdicts(1, 1, record="b")]
    rows += [*verdicts(1, 1, record="a", dimension="position"), *verdicts(1, 0, record="b", dimension="position")]
    left = only_where_right(units(rows), "position", "condition")
    assert [(u.record, u.all) for u in left if u.dimension == "position"] == [("b", 0.0)]


def test_scores_for_a_card() -> None:
    made = scores(lines(units(judged(PROBES, replies(a.coin))), DIMENSIONS, count=20), task="probmed", version="1")
    assert {(s.arm, s.metric) for s in made} == {
        ("model", "all right"),
        ("model", "first questions"),
        ("coin", "all right"),
    }
    assert any(s.note == "fewer than 30 images" for s in made)
    assert all(math.isnan(s.value) or 0 <= s.value <= 1 for s in made)


# ------------------------------------------------------------ scripted answerers


def test_answerers_rank_as_planted() -> None:
    ways = [a.skilled(dict.fromkeys(DIMENSIONS, s)) for s in (0.95, 0.75, 0.55, 0.3)]
    ranked = [overall(w) for w in (*ways, a.coin, a.yes_bias(0.95), a.constant("Yes or No"))]
    assert ranked == sorted(ranked, reverse=True)
    assert ranked[-1] == 0
    breaks = [overall(a.format_breaker(ways[0], share)) for share in (0.0, 0.2, 0.6, 1.0)]
    assert breaks == sorted(breaks, reverse=True)
    assert breaks[-1] == 0


def test_a_table_of_answers_and_an_unknown_question() -> None:
    right = {p.id: p.gold for p in PROBES}
    assert overall(a.known(right)) == 1.0
    assert overall(a.known({})) == 0.0
    with pytest.raises(UsageError, match="does not know"):
        a.Answerer("m", a.coin, PROBES)(user("Is it raining?"))


# ------------------------------------------------------------ the log


def test_a_run_goes_on_where_it_stopped_and_asks_nothing_twice(tmp_path: Path) -> None:
    path, asked = tmp_path / "rows.jsonl", [(p.id, user(IMAGES[p.record], p.text)) for p in PROBES[:20]]
    breaks = Scripted(lambda r: ChatFailed("chat_timeout", "slow") if len(breaks.requests) > 12 else "yes", name="m")
    with pytest.raises(GaveUp):
        answered(breaks, asked, RowLog(path, {"model": "m"}), give_up=3)
    with path.open("ab") as file:
        file.write(b'{"question": "cut sho')
    rest = Scripted(lambda r: "no", name="m")
    rows = answered(rest, asked, RowLog(path, {"model": "m"}))
    assert len(rest.requests) == 8
    assert [r.text for r in rows.values()] == ["yes"] * 12 + ["no"] * 8
    assert answered(Scripted([]), asked, RowLog(path, {"model": "m"})) == rows  # nothing left to ask


def test_failures_are_rows_and_final_ones_are_not_asked_again(tmp_path: Path) -> None:
    path, asked = tmp_path / "rows.jsonl", [(p.id, user(IMAGES[p.record], p.text)) for p in PROBES[:2]]
    model = Scripted([ChatFailed("chat_refused", "no"), ChatFailed("chat_server", "500")], name="m")
    rows = answered(model, asked, RowLog(path, {}))
    assert [(r.failure, r.passing) for r in rows.values()] == [("chat_refused", False), ("chat_server", True)]
    again = Scripted(["no"], name="m")
    rows = answered(again, asked, RowLog(path, {}))
    assert [r.failure for r in rows.values()] == ["chat_refused", ""]
    assert [v.status for v in judged(PROBES[:2], rows)] == ["chat_refused", "right"]


def test_a_log_of_another_run_or_of_junk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with RowLog(path, {"model": "a", "prompt": "p@1"}) as log:
        log.append(Row("q", "yes"))
    with pytest.raises(UsageError, match="model 'a', wanted 'b'"):
        RowLog(path, {"model": "b", "prompt": "p@1"})
    for junk in (
        b"[]\n",
        b"{}\n",
        b'{"format": 9, "about": {}}\n',
        b"\xff\xfe\n",
        b'{"format": 1, "about": {}}\n{"x": 1}\n',
    ):
        path.write_bytes(junk)
        with pytest.raises(Refused, match="rows_bad"):
            RowLog(path, {})


def test_scores_come_from_rows_alone_and_gold_is_not_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    asked = ((p.id, user(IMAGES[p.record], p.text)) for p in PROBES)
    answered(a.Answerer("m", a.coin, PROBES), asked, RowLog(path, {"model": "m"}), workers=3)
    again = units(judged(PROBES, RowLog(path, {"model": "m"}).rows))
    assert again == units(judged(PROBES, replies(a.coin, name="m")))
    assert not any("gold" in json.loads(line) for line in path.read_text().splitlines())


def test_a_killed_run_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    code = (
        "import os, sys, signal\n"
        "from fabrica.evaluate.rowlog import Row, RowLog\n"
        f"with RowLog({str(path)!r}, {{'model': 'm'}}) as log:\n"
        "    for i in range(5):\n"
        "        log.append(Row(str(i), 'yes'))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(RowLog(path, {"model": "m"}).rows) == list("01234")
