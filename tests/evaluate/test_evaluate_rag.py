"""Over-reliance and helped together; answers that cannot be read; the copy rate."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from fabrica.errors import UsageError
from fabrica.evaluate.rag import copied, effect, factual


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_the_gain_is_what_is_helped_less_what_is_undone(rows: list[tuple[bool, bool]]) -> None:
    alone, shown = (np.array(x) for x in zip(*rows, strict=True))
    e = effect(alone, shown, [str(i) for i in range(len(rows))], count=20)
    assert e.gain.value == pytest.approx(e.shown.value - e.alone.value)
    undone = 0 if math.isnan(e.over_reliance.value) else e.over_reliance.value * e.alone.value
    won = 0 if math.isnan(e.helped.value) else e.helped.value * (1 - e.alone.value)
    assert e.gain.value == pytest.approx(won - undone)


def test_golden_and_intervals_by_subject() -> None:
    alone, shown = [1] * 8 + [0] * 2, [1] * 6 + [0] * 2 + [1, 0]
    e = effect(alone, shown, list("aabbccddee"), unread=[0] * 9 + [1], contexts=[3] * 10, count=300)
    assert (e.alone.value, e.shown.value, e.over_reliance.value, e.helped.value) == (0.8, 0.7, 0.25, 0.5)
    assert (e.unread, e.contexts) == (0.1, 3.0)
    assert e.alone.subjects == 5
    assert set(e.table()) == {"alone", "shown", "gain", "over_reliance", "helped", "unread", "contexts"}
    assert math.isnan(effect([1, 1], [1, 0], ["a", "b"], count=5).helped.value)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_factual_against_scikit_learn(rows: list[tuple[bool, bool]]) -> None:
    gold, said = zip(*rows, strict=True)
    made = factual(gold, said)
    p, r, f, _ = precision_recall_fscore_support(gold, said, average="binary", zero_division=math.nan)
    for name, value in {"precision": p, "recall": r, "f1": f}.items():
        assert made[name] == pytest.approx(value, nan_ok=True)
    assert made["accuracy"] == pytest.approx(np.mean([a == b for a, b in rows]))


def test_an_answer_that_cannot_be_read_is_wrong_and_not_a_no() -> None:
    assert factual([False, False], [None, False])["accuracy"] == 0.5


def test_copying() -> None:
    assert copied([True, False, None, True], [True, False, None, False]) == 0.75
    for bad in (lambda: copied([], []), lambda: effect([1], [1, 0], ["a"]), lambda: effect([0.5], [1], ["a"]),
                lambda: factual([True], [])):  # fmt: skip
        with pytest.raises(UsageError):
            bad()
