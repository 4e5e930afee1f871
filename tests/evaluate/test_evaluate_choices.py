"""Choices judged: against scikit-learn, against enumeration, and against what a draw of ties gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from fabrica.chat import Scripted
from fabrica.chat.answer import Answer
from fabrica.chat.question import Question
from fabrica.chat.request import ChatFailed
from fabrica.chat.strategies import chain_of_thought, permuted
from fabrica.errors import UsageError
from fabrica.evaluate import choices


def asked(n, letters="ABC"):
    return [Question(f"q{i}", f"Which {i}?", ("x", "y", "z"), letters[i % len(letters)]) for i in range(n)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(["A", "B", "C", "D", ""])), min_size=2, max_size=60))
def test_macro_f1_is_scikit_learns_and_weights_are_repeats(rows):
    truth, answer = (np.array(x) for x in zip(*rows, strict=True))
    expected = f1_score(truth, answer, average="macro", labels=np.unique(truth), zero_division=0)
    assert choices.macro_f1(truth, answer) == pytest.approx(expected)
    weights = np.random.default_rng(0).integers(0, 4, (3, len(rows))).astype(float)
    for value, w in zip(choices.macro_f1(truth, answer, weights), weights, strict=True):
        t, a = np.repeat(truth, w.astype(int)), np.repeat(answer, w.astype(int))
        if set(t) == set(truth):
            assert value == pytest.approx(choices.macro_f1(t, a))


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_mcnemar_is_the_binomial_test_of_the_pairs_that_differ(rows):
    a, b = [x for x, _ in rows], [y for _, y in rows]
    made = choices.mcnemar(a, b)
    n = made.only_a + made.only_b
    assert n == sum(x != y for x, y in rows)
    assert made.p == pytest.approx(binomtest(made.only_a, n, 0.5).pvalue if n else 1.0)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.2, 0.4, 0.4, 1.0]), st.booleans()), min_size=1, max_size=30),
    st.floats(0, 0.99),
)
def test_deferral_is_the_mean_over_fair_draws_of_ties(rows, defer):
    confidence, right = np.array([c for c, _ in rows]), np.array([r for _, r in rows], float)
    value = choices.selective(confidence, right, [defer])[0]
    rng, keep = np.random.default_rng(0), max(1, round((1 - defer) * len(rows)))
    drawn = [right[np.lexsort((rng.random(len(rows)), -confidence))[:keep]].mean() for _ in range(400)]
    assert value == pytest.approx(np.mean(drawn), abs=0.12)
    assert choices.selective(confidence, right, [0.0])[0] == pytest.approx(right.mean())
    turned = choices.selective(confidence[::-1], right[::-1], [defer])[0]
    assert value == pytest.approx(turned), "the order of rows changes nothing"


def test_abstentions_are_wrong_and_counted_and_failures_named():
    questions = asked(4)
    said = ["Answer: A", "hm", ChatFailed("chat_timeout", "too slow"), "Answer: A"]
    answers = choices.answered(Scripted(said), questions, chain_of_thought)
    assert [a.failure for a in answers] == ["", "", "chat_timeout", ""]
    made = choices.summary(choices.columns(questions, answers))
    assert (made.accuracy, made.parsed, made.n) == (0.5, 0.5, 4)
    assert made.low < 0.5 < made.high
    assert made.calls == pytest.approx(0.75)


def test_answers_stand_beside_their_own_questions():
    questions = asked(2)
    answers = [Answer(q.id, "A", {}, ()) for q in questions]
    with pytest.raises(UsageError, match="stands beside"):
        choices.columns(questions[::-1], answers)
    with pytest.raises(UsageError, match="no known answer"):
        choices.columns([Question("q0", "Which?", ("x", "y"))], answers[:1])


def test_the_constant_baseline_takes_the_commonest_letter():
    questions = asked(7, "ABB")
    made = choices.summary(choices.columns(questions, choices.always(questions)))
    assert made.accuracy == pytest.approx(4 / 7)
    assert choices.always(questions, "D")[0].choice is None


def test_places_count_in_the_order_shown():
    questions = asked(12)
    first = choices.answered(Scripted(lambda r: "Answer: A"), questions, permuted(chain_of_thought, 5))
    table = choices.positions(questions, first)
    assert [said for said, _ in table.values()] == [1.0, 0.0, 0.0]
    assert sum(stood for _, stood in table.values()) == pytest.approx(1.0)


def test_arms_are_compared_by_calls():
    questions = asked(6)
    cheap = [Answer(q.id, "A", {}, (None,)) for q in questions]
    dear = [Answer(q.id, q.gold, {}, (None,) * 5) for q in questions]
    rows = choices.per_call({"dear": choices.columns(questions, dear), "cheap": choices.columns(questions, cheap)})
    assert [r["arm"] for r in rows] == ["cheap", "dear"]
    assert rows[1]["gain_per_call"] == pytest.approx((1 - 1 / 3) / 4)
