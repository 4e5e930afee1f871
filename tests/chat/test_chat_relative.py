"""The relative score (sheet S75, "Not a toy"): order swap averaged, reference 0 guarded, invalid share reported."""

import json

import pytest

from fabrica.chat import ChatFailed, Scripted
from fabrica.chat.relative import Pair, RelativeJudge
from fabrica.chat.request import Request
from fabrica.errors import UsageError

PAIR = Pair("Which organ?", "Liver , stained pink .", "It is the liver.", "It is the lung.", "conversation")


def said(a: int, b: int) -> str:
    return json.dumps({"a": a, "b": b, "why": "so"})


def true_judge(request: Request) -> str:
    """8 for an answer that names the organ, 4 for another one, wherever it stands."""
    text = request.messages[-1].text
    a, b = text.split("Answer A:")[1].split("Answer B:")
    return said(8 if "liver" in a else 4, 8 if "liver" in b else 4)


def test_the_ratio_is_of_means_over_both_orders() -> None:
    found = RelativeJudge(Scripted(true_judge))([PAIR, Pair(PAIR.question, PAIR.facts, PAIR.reference, "the liver")])
    assert found.by_kind == {"": 100.0, "conversation": 50.0}
    assert (found.score, found.rated, found.invalid, found.unrated_reference) == (75.0, 2, 0.0, 0.0)


def test_a_habit_of_place_counts_for_nothing() -> None:
    """A judge that gives 9 to whatever stands first and 3 to the other one finds both alike."""
    model = Scripted(lambda request: said(9, 3))
    assert RelativeJudge(model)([PAIR]).score == 100.0
    first, second = (r.messages[-1].text for r in model.requests)
    assert first.index(PAIR.reference) < first.index(PAIR.candidate)
    assert second.index(PAIR.reference) > second.index(PAIR.candidate)


def test_a_reference_rated_nothing_has_no_ratio_and_is_counted() -> None:
    rows = [said(0, 5), said(5, 0), said(5, 5), said(5, 5)]
    found = RelativeJudge(Scripted(rows))([PAIR, PAIR])
    assert (found.score, found.rated, found.unrated_reference) == (100.0, 1, 0.5)
    with pytest.raises(ChatFailed, match="none of 1 pairs"):
        RelativeJudge(Scripted([said(0, 5), said(5, 0)]))([PAIR])


def test_unusable_ratings_are_a_share_and_half_a_pair_is_none() -> None:
    def half(request: Request) -> str:
        text = request.messages[1].text  # a request to mend stands behind it
        return said(8, 8) if text.index(PAIR.reference) < text.index(PAIR.candidate) else "junk"

    sound = Pair(PAIR.question, PAIR.facts, "sound", "other")

    def some(request: Request) -> str:
        return said(8, 8) if "sound" in request.messages[1].text else half(request)

    found = RelativeJudge(Scripted(some))([PAIR, sound])
    assert (found.invalid, found.rated) == (0.5, 1)
    with pytest.raises(UsageError, match="no pairs"):
        RelativeJudge(Scripted(some))([])


def test_the_judge_is_given_words_and_no_image() -> None:
    model = Scripted(true_judge)
    RelativeJudge(model)([PAIR])
    assert all(isinstance(part, str) for r in model.requests for m in r.messages for part in m.parts)
    assert PAIR.facts in model.requests[0].messages[-1].text
