"""What a reply chooses, and strategies as programs of calls whose traces match what they declare."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.chat import Scripted
from fabrica.chat.question import Question, balanced, choice, exemplars, of_record
from fabrica.chat.strategies import (
    Answer,
    NotSampling,
    chain_of_thought,
    direct,
    ensemble_refinement,
    option_likelihood,
    permuted,
    repaired,
    self_consistency,
)
from fabrica.chat.verification import Verify, stated, verification_of_choice
from fabrica.errors import UsageError
from fabrica.types import Item, Origin, Record

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


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_gives_a_letter_of_the_question_or_none(text):
    assert choice(text, ASK) in (*ASK.letters, None)


@settings(deadline=None)
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
    with pytest.warns(NotSampling, match=r"all 3 sampled replies of 'scripted' are the same"):
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
    assert list(made.arguments) == list(made.verdicts) == list(made.scores) == list(ASK.letters)
    assert made.arguments["C"] == "argument for C"
    assert made.verdicts == {"A": "contradicted", "B": "consistent", "C": "contradicted", "D": "contradicted"}
    checks = [r.messages[-1].text for r in model.requests[n:]]
    for letter, text in zip(ASK.letters, checks, strict=True):
        assert all(f"argument for {other}" in text for other in ASK.letters if other != letter)
        assert text.count("argument for ") == n
    hidden = Scripted(voc)
    verification_of_choice(hidden, ASK, Verify(others=False))
    assert all(r.messages[-1].text.count("argument for ") == 1 for r in hidden.requests[n:])


@pytest.mark.parametrize("seed", range(6))
def test_the_last_call_sees_another_order_and_its_letter_is_mapped_back(seed):
    model = Scripted(voc)
    made = verification_of_choice(model, ASK, Verify(select="prompt", seed=seed))
    assert (made.choice, made.calls) == ("B", 2 * len(ASK.options) + 1)
    _, back = ASK.shuffled(seed)
    shown = [line for line in model.requests[-1].messages[-1].text.splitlines() if "argument for" in line]
    assert [f"({new}) argument for {old} " in line for (new, old), line in zip(back.items(), shown, strict=True)]


def test_candidates_only_are_argued_for_where_the_samples_name_some():
    model = Scripted(lambda r: f"Answer: {'BD'[r.seed % 2]}" if "step by step" in r.messages[-1].text else voc(r))
    made = verification_of_choice(model, ASK, Verify(propose="candidates", samples=4))
    assert list(made.arguments) == list(made.verdicts) == ["B", "D"]
    assert (made.choice, made.calls, dict(made.votes)) == ("B", 4 + 2 + 2, {"B": 2, "D": 2})
    mute = Scripted(lambda r: "hm" if "step by step" in r.messages[-1].text else voc(r))
    assert len(verification_of_choice(mute, ASK, Verify(propose="candidates", samples=2)).arguments) == 4
    with pytest.raises(UsageError, match="candidates come from"):
        Verify(propose="candidates")
    with pytest.raises(UsageError, match="select='prompt'"):
        Verify(check="none")


def test_samples_count_as_a_prior_and_unread_checks_are_counted():
    made = verification_of_choice(Scripted(voc), ASK, Verify(samples=5, weight=2.0))
    assert made.choice == "A", "five chains said A: a strong prior wins"
    broken = Scripted(lambda r: "no number" if "Claim:" in r.messages[-1].text else voc(r))
    made = verification_of_choice(broken, ASK)
    assert made.unread == len(ASK.options)
    assert set(made.scores.values()) == {0.5}


def test_equal_scores_favour_no_position():
    broken = Scripted(lambda r: "no number" if "Claim:" in r.messages[-1].text else voc(r))
    chosen = [verification_of_choice(broken, ASK, Verify(seed=seed)).choice for seed in range(80)]
    assert all(8 <= chosen.count(a) <= 34 for a in ASK.letters)


@settings(deadline=None)
@given(st.floats(-5, 500, allow_nan=False), st.booleans())
def test_stated_numbers_are_clipped(value, percent):
    said = stated(f"It fits. Consistent: {value:.3f}{' %' if percent else ''}")
    assert said == pytest.approx(min(1.0, max(0.0, round(value, 3) / (100 if percent else 1))))


class Likely(Scripted):
    """A scripted model whose backend tells log-probabilities."""

    def score(self, messages, answers):
        text = messages[-1].text
        self.asked = [*getattr(self, "asked", []), text]
        if list(answers) == ["yes", "no"]:
            return [-1.0, -3.0] if "Claim: (C)" in text else [-4.0, -1.0]
        return [-9.0 if "B" in a or a == "warfarin" else -10.0 for a in answers]


def test_likelihoods_are_asked_only_of_a_backend_that_declares_them():
    model = Likely(voc)
    made = verification_of_choice(model, ASK, Verify(check="likelihood"))
    assert made.choice == "C"
    assert made.scores["C"] == pytest.approx(1 / (1 + 2.718281828**-2))
    assert all("argument for D" in text for text in model.asked)
    assert option_likelihood(model, ASK).choice == "B"
    made = option_likelihood(model, ASK, by="text")
    assert made.choice == "C", "-10 over 20 characters is the likeliest a character"
    assert (made.calls, made.unread) == (1, 0)
    for run in (option_likelihood, lambda m, q: verification_of_choice(m, q, Verify(check="likelihood"))):
        with pytest.raises(UsageError, match="does not tell log-probabilities"):
            run(Scripted(voc), ASK)


def test_another_order_shows_what_a_choice_owes_to_its_place():
    first = Scripted(lambda r: "Answer: A")
    chosen = {permuted(chain_of_thought, seed)(first, ASK).choice for seed in range(20)}
    assert chosen == set(ASK.letters), "a model that always says A chooses every option in turn"
    knows = Scripted(
        lambda r: next(line for line in r.messages[-1].text.splitlines() if line.endswith(") warfarin"))[:3]
    )
    for seed in range(8):
        made = permuted(chain_of_thought, seed)(knows, ASK)
        assert (made.choice, dict(made.votes)) == ("B", {"B": 1})
        assert sorted(made.order) == list(ASK.letters)
    made = permuted(verification_of_choice, 3)(Scripted(voc), ASK)
    assert made.order[1] == made.choice, "B was shown second"
    assert sorted(made.arguments) == list(ASK.letters)


def record(**changes) -> Record:
    def item(text):
        return Item("text", text, Origin("made", "a", "", "", "synthetic"))

    items = {"question": (item("Does it help?"),), "option": (item("yes"), item("no")), "context": (item("Trial."),)}
    return Record("r1", "s1", items=items | changes.pop("items", {}), labels={"answer": 1.0}, **changes)


def test_a_record_becomes_a_question_or_says_what_it_lacks():
    made = of_record(record())
    assert (made.id, made.text, made.options, made.gold, made.context) == (
        "r1", "Does it help?", ("yes", "no"), "B", "Trial."
    )  # fmt: skip
    assert of_record(record().updated(labels={})).gold == ""
    with pytest.raises(UsageError, match=r"'r1' has no item 'context'"):
        of_record(record(items={"context": ()}), context=True)
    with pytest.raises(UsageError, match=r"'r1' has no item 'question'"):
        of_record(record(items={"question": ()}))
    with pytest.raises(UsageError, match=r"option 2 \(from 0\) of 2"):
        of_record(record().updated(labels={"answer": 2.0}))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 99))
def test_exemplars_are_balanced_over_letters(n, seed):
    pool = [Question(f"q{i}", f"Which {i}?", ("w", "x", "y", "z"), "ABBB"[i % 4]) for i in range(16)]
    made = balanced(pool, n, seed=seed)
    counts = [[q.gold for q in made].count(a) for a in "ABCD"]
    assert max(counts) - min(counts) <= 1
    right = {q.id: q.option(q.gold) for q in pool}
    assert all(q.option(q.gold) == right[q.id] for q in made), "the right option stays right"
    fixed = balanced(pool, min(n, 8), seed=seed, rotate=False)
    assert abs([q.gold for q in fixed].count("A") - len(fixed) / 2) <= 1 or len(fixed) < 2
    assert {q.options for q in fixed} == {("w", "x", "y", "z")}
    assert exemplars(made).count("Answer: (") == n


def test_a_repair_asks_once_more_and_only_where_nothing_was_read():
    made = repaired(chain_of_thought)(Scripted(["I lean to the second one.", "Answer: (B)"]), ASK)
    assert (made.choice, made.calls) == ("B", 2)
    assert repaired(chain_of_thought)(Scripted(["Answer: C"]), ASK).calls == 1
    assert isinstance(made, Answer)


def test_a_replay_gives_the_same_answer():
    how = Verify(samples=2)
    assert verification_of_choice(Scripted(voc), ASK, how) == verification_of_choice(Scripted(voc), ASK, how)
