"""RULE's proof at a tiny size: every bar is there, the certificate is rebuilt from fresh draws, controls can fail."""

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.phantom.references import readings, references
from fabrica.phantom.references import risk as risk_of
from fabrica.phantom.told import told
from fabrica.proofs import Plan, _rule, _rule_words, rule
from fabrica.proofs._rule import ALPHA, BOTH, DELTA, EVERY, KBPT, SFT, TRUST, Job, Size, part, real_losses, reports
from fabrica.proofs.rule import prove, upper

TINY = Size(
    (100,), (100, 101), (100, 101), repeats=20, train=400, validation=200, test=300, steps=(5, 20),
    rates=(0.05,), word_train=60, word_test=60, word_steps=4, word_rates=(1e-3,), word_epochs=(1,),
)  # fmt: skip


@pytest.fixture(scope="module")
def proof():
    return prove(TINY, Plan(workers=1))


def test_every_bar_of_the_sheet_is_there(proof) -> None:
    assert [c.name for c in proof.claims] == [
        "certificate holds", "naive choice does not", "more cases, larger set", "over-reliance",
        "accuracy with contexts",
    ]  # fmt: skip
    assert [c.name for c in proof.controls][:2] == ["swapped pairs harm", "random pairs do nothing"]
    assert (DELTA, rule.NAIVE, rule.HALF, rule.GAIN) == (0.1, 0.2, 0.5, 0.08)
    assert "helped" in next(c for c in proof.claims if c.name == "over-reliance").why
    assert any("helped" in name for name in proof.arms)
    assert "No bar asks for these differences" in proof.notes  # against SFT, and against the reader alone


def test_the_rivals_have_the_same_grid(proof) -> None:
    """KBPT, SFT and the pairs of both kinds each choose among all rates and steps; a language model's arms as well."""
    for chosen in proof.details["steps and rate"]:
        assert set(chosen) == {KBPT, SFT, BOTH}
        assert all(steps in TINY.steps and rate in TINY.rates for steps, rate in chosen.values())
    assert {name.split(":")[0] for name in proof.arms} >= {KBPT, SFT, BOTH, EVERY, _rule_words.DPO, _rule_words.SFT}
    assert len(_rule.Size().rates) == 3
    assert not set(Size().reader_seeds) & set(range(20)), "seeds that were run before"


def test_twenty_repeats_are_too_few_to_show_the_certificate(proof) -> None:
    """The upper limit, not the rate, meets the bar: 0 of 20 is no evidence for 10 %."""
    first = proof.claims[0]
    assert first.effect == 0
    assert not first.shown
    assert upper(0.0, 20) > 0.1 > upper(0.0, 400)


def test_the_risk_falls_and_rises_with_the_number_of_references() -> None:
    risk = references(50_000, 100).losses(tuple(range(17)), trust=TRUST).mean(0)
    best = int(risk.argmin())
    assert 1 < best < 6
    exact = risk_of(tuple(range(17)), trust=TRUST)
    np.testing.assert_allclose(risk, exact, atol=0.008)  # four standard errors of 50,000 cases
    assert (np.diff(risk[: best + 1]) < 0).all()
    assert (np.diff(risk[best + 1 :]) > 0).all()
    assert risk.min() < ALPHA < risk.max()
    assert references(50, 3).losses((0, 5), trust=1.0).shape == (50, 2)


def test_readings_are_seeded_and_alone_has_no_vote() -> None:
    a, b = readings(50, 1), readings(50, 1)
    np.testing.assert_array_equal(a.features, b.features)
    assert (a.alone[:, 1:] == 0).all()
    np.testing.assert_array_equal(a.alone[:, 0], a.features[:, 0])


def test_a_part_is_the_same_again() -> None:
    job = Job("certificate", 100, TINY)
    assert part(job, Plan()).values == part(job, Plan()).values


@pytest.mark.real_data
def test_real_reports(shared_data) -> None:
    """Open-i: questions from assertions; nobody's own report is in the store; references help up to a point."""
    losses, subjects = real_losses(reports(shared_data("openi_reports")), 100)
    assert losses.shape == (1500, 11)
    assert len(set(subjects)) == 1500
    assert losses[:, 3].mean() < losses[:, 0].mean()


def test_told_questions_mean_what_they_say() -> None:
    made = told(3000, 100)
    assert made == told(3000, 100)
    right = [("for" in t.alone) == t.truth for t in made]
    assert np.mean(right) == pytest.approx(0.6 * 0.95 + 0.4 * 0.65, abs=0.03)
    says = [(": no " not in said) == t.truth for t in made for said in t.shown.split(" .")[1:4]]
    assert np.mean(says) == pytest.approx(0.45 * 0.85 + 0.55 * 0.45, abs=0.03)
    trusted = [(": no " not in s) == t.truth for t in told(1000, 100, right=0.97) for s in t.shown.split(" .")[1:4]]
    assert np.mean(trusted) == pytest.approx(0.97, abs=0.02)
    with pytest.raises(UsageError, match="told"):
        told(0, 1)
