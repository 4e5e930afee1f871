"""RULE's proof at a tiny size: every bar is there, the certificate is rebuilt from fresh draws, controls can fail."""

import numpy as np
import pytest

from fabrica.phantom.references import readings, references
from fabrica.proofs import Plan, rule
from fabrica.proofs.rule import ALPHA, Job, Size, part, prove, real_losses, reports, upper

TINY = Size((100,), (100, 101), repeats=20, population=20_000, train=400, validation=200, test=300, steps=(5, 20))


@pytest.fixture(scope="module")
def proof():
    return prove(TINY, Plan(workers=1))


def test_every_bar_of_the_sheet_is_there(proof) -> None:
    assert [c.name for c in proof.claims] == [
        "certificate holds", "naive choice does not", "more cases, larger set", "over-reliance",
        "accuracy with contexts",
    ]  # fmt: skip
    assert [c.name for c in proof.controls][:2] == ["swapped pairs harm", "random pairs do nothing"]
    assert (rule.DELTA, rule.NAIVE, rule.HALF, rule.GAIN) == (0.1, 0.2, 0.5, 0.08)
    assert "helped" in next(c for c in proof.claims if c.name == "over-reliance").why
    assert any("helped" in name for name in proof.arms)


def test_twenty_repeats_are_too_few_to_show_the_certificate(proof) -> None:
    """The upper limit, not the rate, meets the bar: 0 of 20 is no evidence for 10 %."""
    first = proof.claims[0]
    assert first.effect == 0
    assert not first.shown
    assert upper(0.0, 20) > 0.1 > upper(0.0, 400)


def test_the_risk_falls_and_rises_with_the_number_of_references() -> None:
    risk = references(50_000, 100).losses(tuple(range(17)), trust=rule.TRUST).mean(0)
    best = int(risk.argmin())
    assert 1 < best < 6
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
