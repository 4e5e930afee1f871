"""Judges: rules with golden values, order swap and repeats of a chat model, SQuAD-like normalisation."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.chat import ChatFailed, ChatJudge, Request, RuleJudge, Scripted
from fabrica.errors import UsageError
from fabrica.text.answers import choice, normal, numbers, token_f1, yes_no
from fabrica.types import Judge


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("The left lung.", "left lung", 1.0),
        ("B", "(b)", 1.0),
        ("The correct answer is C: embolism", "C", 1.0),
        ("A. pneumonia", "B", 0.0),
        ("a mass", "A", 0.0),
        ("E. coli", "E. coli", 1.0),
        ("S. aureus", "E. coli", 0.0),
        ("b", "B) pneumonia", 1.0),
        ("Yes, there is an effusion", "yes", 1.0),
        ("There may be", "yes", 0.0),
        ("absent", "No", 1.0),
        ("nodule", "no", 0.0),
        ("about 3.51 cm", "3.5 cm", 1.0),
        ("3.6", "3.5", 0.0),
        ("between 3.5 and 9", "3.5", 0.0),
        ("1,200 mL", "1200", 1.0),
        ("-4", "4", 0.0),
        ("none", "7", 0.0),
        ("small left effusion", "left pleural effusion", 2 / 3),
        ("", "left pleural effusion", 0.0),
        ("no effusion", "effusion", 2 / 3),
    ],
)
def test_rules(answer: str, reference: str, score: float) -> None:
    assert RuleJudge()("q", answer, reference).score == pytest.approx(score)


@given(st.text(max_size=60), st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_rule_grades_lie_in_0_to_1_and_a_text_agrees_with_itself(a: str, b: str) -> None:
    if not normal(b) and choice(b) is None:
        with pytest.raises(UsageError):
            RuleJudge()("q", a, b)
        return
    assert 0 <= RuleJudge()("q", a, b).score <= 1
    assert RuleJudge()("q", b, b).score == 1
    assert token_f1(a, b) == token_f1(b, a)


def test_the_pieces() -> None:
    assert normal("  The ﬁrst, A-B/C: (3.5 %) end. ") == "first a-b/c 3.5 % end"
    assert [choice(t) for t in ("(A)", "answer: d", "E) x", "I", "above", "")] == ["A", "D", "E", None, None, None]
    assert [yes_no(t) for t in ("Yes", "**No**", "negative for", "yesterday", "")] == [True, False, False, None, None]
    assert numbers("T2, 5e-1, 1,234.5 and 12,34") == (0.5, 1234.5, 12.0, 34.0)


# ------------------------------------------------------------ a chat model as judge


def place_lover(request: Request) -> str:
    """Grades 4 where the answer comes first and 0 where it comes last; always prefers A."""
    if "better" in request.schema["properties"]:  # type: ignore[index]
        return json.dumps({"better": "A", "why": "it is A"})
    text = request.messages[-1].text
    first = text.index("Answer to grade:") < text.index("Reference answer:")
    return json.dumps({"score": 4 if first else 0, "why": "place"})


def test_a_habit_of_place_counts_for_nothing() -> None:
    judge = ChatJudge(Scripted(place_lover))
    assert isinstance(judge, Judge)
    assert judge.prefer("q", "one", "two").score == 0.5
    grade = judge("q", "one", "one")
    assert (grade.score, grade.why) == (0.5, "0 and 4 of 4: place")


def test_a_true_judge_keeps_its_word_in_both_orders() -> None:
    def knows(request: Request) -> str:
        text = request.messages[-1].text
        return json.dumps({"better": "A" if text.index("good") < text.index("bad") else "B", "why": "good"})

    judge = ChatJudge(Scripted(knows), repeats=2)
    assert judge.prefer("q", "good", "bad").score == 1
    assert judge.prefer("q", "bad", "good").score == 0


def test_repeats_have_their_own_seeds_and_are_averaged() -> None:
    def by_seed(request: Request) -> str:
        return json.dumps({"score": request.seed, "why": "seed"})

    inner = Scripted(by_seed)
    assert ChatJudge(inner, repeats=3, temperature=1.0)("q", "a", "b", rubric="Be strict.").score == 0.25
    assert sorted(r.seed for r in inner.requests) == [0, 0, 1, 1, 2, 2]
    assert all("Be strict." in r.messages[-1].text for r in inner.requests)


def test_unusable_grades_are_left_out_and_none_at_all_is_a_failure() -> None:
    def half(request: Request) -> str:
        return "junk" if request.seed == 0 else json.dumps({"score": 4, "why": "w"})

    assert ChatJudge(Scripted(half), repeats=2)("q", "a", "b").score == 1
    with pytest.raises(ChatFailed, match="no usable grade"):
        ChatJudge(Scripted(lambda r: '{"score": 9, "why": "too high"}'))("q", "a", "b")
    down: Any = ChatFailed("chat_server", "down")
    with pytest.raises(ChatFailed, match="down"):
        ChatJudge(Scripted(lambda r: down))("q", "a", "b")
