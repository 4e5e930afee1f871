"""A rating study: raters are blind, each rates once, forms come back whole, shares have intervals."""

import contextlib
import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import Refused, UsageError
from fabrica.evaluate.rating import CLINICIAN, LAY, Axis, Rating, RatingStudy
from fabrica.types import Grade

QUESTIONS = {f"q{i}": f"What of {i}?" for i in range(6)}
ANSWERS = {
    "clinician": {q: f"See a doctor about {q}." for q in QUESTIONS},
    "ModelX": {q: f"Nothing to do about {q}." for q in QUESTIONS},
}


def study(**changes):
    return RatingStudy(**{"axes": LAY, "questions": QUESTIONS, "answers": ANSWERS, "seed": 7} | changes)


def fill(form: str, word) -> str:
    rows = list(csv.reader(io.StringIO(form)))
    out = io.StringIO()
    csv.writer(out).writerows([rows[0], *([*r[:4], word(r)] for r in rows[1:])])
    return out.getvalue()


def test_a_form_tells_no_source_and_raters_have_their_own_order():
    made = study()
    one, two = made.form("ann"), made.form("bob")
    assert "clinician" not in one
    assert "modelx" not in one.lower()
    assert sorted(one.splitlines()) == sorted(two.splitlines())
    assert one != two
    assert one == study().form("ann")
    assert len(one.splitlines()) == 1 + 2 * 6 * len(LAY)
    assert study(seed=8).form("ann").splitlines()[1][:10] not in one, "codes are of the seed"


def test_a_source_named_in_an_answer_is_found():
    leaking = {**ANSWERS, "ModelX": {**ANSWERS["ModelX"], "q3": "As modelx I cannot say."}}
    with pytest.raises(Refused, match="names the source 'ModelX'"):
        study(answers=leaking)
    fine = {**ANSWERS, "ModelX": {**ANSWERS["ModelX"], "q3": "Ask the clinicians."}}
    study(answers=fine)
    with pytest.raises(UsageError, match="has no answer to q5"):
        study(answers={"a": dict.fromkeys(list(QUESTIONS)[:5], "x")})


def test_ratings_come_back_and_shares_are_by_source():
    made = study()

    def word(row):
        return "yes" if "doctor" in row[2] else "no"

    ratings = [r for rater in ("ann", "bob") for r in made.filled(rater, fill(made.form(rater), word))]
    shares = {(s.source, s.axis): s.share for s in made.shares(ratings)}
    assert shares["clinician", "helpful"].value == 1.0
    assert shares["ModelX", "helpful"].value == 0.0
    assert shares["clinician", "helpful"].low < 1.0, "six questions do not prove a hundred per cent"
    assert (shares["clinician", "intent"].n, shares["clinician", "intent"].subjects) == (12, 6)
    assert "helpful\t0.00" in made.table(made.shares(ratings))


def test_one_rating_a_rater_answer_and_axis():
    made = study()
    form = fill(made.form("ann"), lambda r: "yes")
    twice = form + form.splitlines()[1] + "\r\n"
    with pytest.raises(Refused, match="a second time"):
        made.filled("ann", twice)
    ratings = made.filled("ann", form)
    with pytest.raises(Refused, match="a second time"):
        made.shares([*ratings, ratings[0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: ["0" * 10, *r[1:4], "yes"], "no answer of this study"),
        (lambda r: [*r[:3], "beauty: ?", "yes"], "axis 'beauty'"),
        (lambda r: [*r[:4], "perhaps"], "'perhaps'"),
        (lambda r: r[:3], "3 cells"),
    ],
)
def test_what_cannot_be_a_rating_names_its_line(change, message):
    made = study()
    rows = list(csv.reader(io.StringIO(made.form("ann"))))
    out = io.StringIO()
    csv.writer(out).writerows([rows[0], change(rows[1])])
    with pytest.raises(UsageError, match=message):
        made.filled("ann", out.getvalue())


class Grader:
    name = "judge"

    def __call__(self, question, answer, reference, /, *, rubric=""):
        return Grade(1.0 if "doctor" in answer else 0.0, "")


def test_a_model_that_rates_is_marked_and_stands_apart():
    made = study()
    theirs = made.judged(Grader(), {})
    ours = made.filled("ann", fill(made.form("ann"), lambda r: "no"))
    shares = {(s.source, s.axis, s.by): s.share.value for s in made.shares([*theirs, *ours])}
    assert shares["clinician", "intent", "model"] == 1.0
    assert shares["clinician", "intent", "human"] == 0.0
    assert "rated by a model" in made.table(made.shares([*theirs, *ours]))


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_as_a_form_is_refused_or_read(text):
    with contextlib.suppress(UsageError, Refused):
        assert study().filled("ann", text) == []


def test_axes_make_sense():
    assert len(CLINICIAN) == 12
    with pytest.raises(UsageError, match="some, not all"):
        Axis("x", "?", ("yes", "no"), ("yes", "no"))
    assert Rating("c", "r", "a", "yes").by == "human"
    formula = {**ANSWERS, "ModelX": {**ANSWERS["ModelX"], "q1": "=cmd()"}}
    assert ",'=cmd()," in study(answers=formula).form("ann")
