"""Scores of short answers: containment, recall that long answers win, and what is said beside it."""

import pytest

from fabrica.errors import UsageError
from fabrica.evaluate.vqa import contains, open_scores, summary


def test_recall_is_won_by_saying_everything_and_precision_tells() -> None:
    short, long = open_scores("left lung", "left lung"), open_scores("left right lung liver kidney", "left lung")
    assert short.recall == long.recall == 1.0
    assert (long.precision, long.words) == (0.4, 5)
    assert long.f1 < short.f1 == 1.0
    assert open_scores("", "left").recall == 0.0
    assert open_scores("left left", "left").precision == 0.5


def test_closed_answers_are_contained_as_whole_words() -> None:
    assert contains("No, it is normal.", "no")
    assert not contains("It is normal.", "no")
    assert not contains("", "yes")


def test_a_summary_counts_kinds_and_empty_answers() -> None:
    s = summary(["yes", "", "axial"], ["yes", "no", "axial plane"], [True, True, False])
    assert (s.closed, s.closed_exact, s.recall, s.exact) == (0.5, 0.5, 0.5, pytest.approx(1 / 3))
    assert (s.n_closed, s.n_open, s.empty) == (2, 1, pytest.approx(1 / 3))
    with pytest.raises(UsageError, match="wanted as many"):
        summary(["a"], [], [])
    with pytest.raises(UsageError, match="reference without a word"):
        open_scores("a", "...")
