"""What a reply chooses, and strategies as programs of calls whose traces match what they declare."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.chat import Scripted
from fabrica.chat.question import Question, choice
from fabrica.chat.strategies import (
    Answer,
    chain_of_thought,
    direct,
    ensemble_refinement,
    repaired,
    self_consistency,
    verification_of_choice,
)
from fabrica.errors import UsageError

ASK = Question("q1", "Which drug?", ("aspirin", "warfarin", "aspirin and warfarin", "none of these"), "B")
YES = Question("q2", "Does it help?", ("yes", "no", "maybe"), "C", context="An abstract.")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(C)", "C"), ("Answer: C", "C"), ("the answer is C.", "C"), ("The correct option is (b)", "B"),
        ("B) warfarin", "B"),
        ("Answer: A. On reflection, Answer: D", "D"), ("A patient with fever", None), ("The answer is a mass", None),
        ("（Ｂ）", "B"), ("warfarin is best", "B"), ("I would give aspirin and warfarin together", "C"),
        ("aspirin or warfarin", None), ("(A) or (B)", None), ("The answer is not A; the answer is B", "B"), ("", None),
        ("Answer: Z", None), ("final answer: d", None), ("not aspirin, warfarin", "B"),
    ],
)  # fmt: skip
def test_what_a_reply_chooses(text, letter):
    assert choice(text, ASK) == letter


@pytest.mark.parametrize(
    ("text", "letter"), [("not yes", None), ("It is not yes. Maybe.", "C"), ("No.", "B"), ("yes and no", None)]
)
def test_yes_no_maybe_with_denials(text, letter):
    assert choice(text, YES) == letter


@given(st.text(max_size=200))
def test_any_text_gives_a_letter_of_the_question_or_none(text):
    assert choice(text, ASK) in (*ASK.letters, None)


@given(st.integers(0, 1000))
def test_another_order_maps_back(seed):
    other, back = ASK.shuffled(seed)
    assert sorted(back.values()) == list(ASK.letters)
    assert all(other.option(new) == ASK.option(old) for new, old in back.items())
    assert back[other.gold] == ASK.gold


def test_bad_questions_say_what_is_wrong():
    with pytest.raises(UsageError, match="2 to 26"):
        Question("x", "?", ("one",))
    with pytest.raises(UsageError, match="stands twice"):
        Question("x", "?", ("Aspirin", "aspirin."))
    with pytest.raises(UsageError, match="none of A, B"):
        Question("x", "?", ("a", "b"), "C")


def test_direct_and_few_shot_show_solved_questions_and_never_their_own():
    model = Scripted(["Answer: (B)"])
    made = direct(model, ASK, shots=[YES])
    assert (made.choice, made.calls, made.unread) == ("B", 1, 0)
    shown = model.requests[0].messages[-1].text
    assert shown.index("Answer: (C)") < shown.index("Which drug?")
    with pytest.raises(UsageError, match="its own exemplars"):
        direct(Scripted(["x"]), ASK, shots=[ASK])


def test_self_consistency_samples_with_other_seeds_votes_and_reports_repeats():
    model = Scripted(["Answer: A", "Answer: B", "hm", "Answer: B"])
    made = self_consistency(model, ASK, k=4)
    assert (made.choice, dict(made.votes), made.unread) == ("B", {"A": 1, "B": 2}, 1)
    assert made.confidence == pytest.approx(2 / 3)
    assert [r.seed for r in model.requests] == [0, 1, 2, 3]
    assert {r.temperature for r in model.requests} == {0.7}
    assert made.same == pytest.approx(1 / 3)
    assert self_consistency(Scripted(["Answer: A"] * 3), ASK, k=3).same == 1.0
    with pytest.raises(UsageError, match="k=0"):
        self_consistency(model, ASK, k=0)


def test_refinement_shows_all_chains_and_costs_k_plus_m_calls():
    model = Scripted([f"chain {i}. Answer: A" for i in range(3)] + ["Answer: D"] * 2)
    made = ensemble_refinement(model, ASK, k=3, m=2)
    assert (made.choice, made.calls) == ("D", 5)
    assert all(f"chain {i}" in model.requests[-1].messages[-1].text for i in range(3))


def voc(request) -> str:
    """Argues for all, finds A contradicted."""
    text = request.messages[-1].text
    if "Assume that" in text:
        return "argument for " + text.split("Assume that (")[1][0]
    if "Claim:" in text:
        return f"Consistent: {0.1 if 'Claim: (A)' in text else 0.9 if 'Claim: (B)' in text else 0.4}"
    if "consistent it was found" in text:
        rows = [line for line in text.splitlines() if line.startswith("(") and "argument for B" in line]
        return f"Answer: ({rows[0][1]})"
    return "Answer: A"


def test_every_option_gets_an_argument_and_a_check_that_sees_the_others():
    model = Scripted(voc)
    made = verification_of_choice(model, ASK)
    n = len(ASK.options)
    assert (made.choice, made.calls, made.unread) == ("B", 2 * n, 0)
    assert [c.option for c in made.trace] == [*ASK.letters, *ASK.letters]
    checks = [r.messages[-1].text for r in model.requests[n:]]
    for letter, text in zip(ASK.letters, checks, strict=True):
        assert all(f"argument for {other}" in text for other in ASK.letters if other != letter)
        assert text.count("argument for ") == n
    hidden = Scripted(voc)
    verification_of_choice(hidden, ASK, others=False)
    assert all(r.messages[-1].text.count("argument for ") == 1 for r in hidden.requests[n:])


@pytest.mark.parametrize("seed", range(6))
def test_the_last_call_sees_another_order_and_its_letter_is_mapped_back(seed):
    made = verification_of_choice(Scripted(voc), ASK, select="prompt", seed=seed)
    assert (made.choice, made.calls) == ("B", 2 * len(ASK.options) + 1)


def test_samples_count_as_a_prior_and_unread_checks_are_counted():
    made = verification_of_choice(Scripted(voc), ASK, samples=5, weight=2.0)
    assert made.choice == "A", "five chains said A: a strong prior wins"
    broken = Scripted(lambda r: "no number" if "Claim:" in r.messages[-1].text else voc(r))
    made = verification_of_choice(broken, ASK)
    assert made.unread == len(ASK.options)
    assert set(made.scores.values()) == {0.5}


def test_a_repair_asks_once_more_and_only_where_nothing_was_read():
    made = repaired(chain_of_thought)(Scripted(["I lean to the second one.", "Answer: (B)"]), ASK)
    assert (made.choice, made.calls) == ("B", 2)
    assert repaired(chain_of_thought)(Scripted(["Answer: C"]), ASK).calls == 1
    assert isinstance(made, Answer)


def test_a_replay_gives_the_same_answer():
    assert verification_of_choice(Scripted(voc), ASK, samples=2) == verification_of_choice(
        Scripted(voc), ASK, samples=2
    )
