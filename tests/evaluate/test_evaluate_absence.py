"""The validity test: exact p-values, calibration, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, kstest

from fabrica.errors import UsageError
from fabrica.evaluate.absence import Absence, BetaCheck, statistics
from fabrica.evaluate.mean_mask import mean_masks

PAIR = ("ct", "nodule")


@given(st.floats(0.5, 40), st.floats(0.5, 40), st.floats(0.001, 0.999))
@settings(max_examples=60, deadline=None)
def test_one_value_has_the_exact_kolmogorov_smirnov_p(a, b, value):
    check = BetaCheck({PAIR: np.array([[a, b]] * 4)})
    assert check.each(PAIR, [value] * 4) == pytest.approx(kstest([value], beta(a, b).cdf).pvalue, abs=1e-9)
    assert check.p(PAIR, [value] * 4) == pytest.approx(check.each(PAIR, [value] * 4)[0], abs=1e-9)


def test_the_fit_has_the_moments_of_the_training_answers():
    rows = np.random.default_rng(0).beta(4, 9, (4000, 4))
    found = BetaCheck.fit({PAIR: rows}).table[PAIR]
    np.testing.assert_allclose(found[:, 0] / found.sum(1), rows.mean(0), atol=1e-9)
    np.testing.assert_allclose(found, [[4, 9]] * 4, rtol=0.1)


def test_raw_p_is_not_uniform_for_true_masks_and_the_calibrated_one_is():
    """Four correlated statistics: their geometric mean is no p-value by construction."""
    rng = np.random.default_rng(1)

    def rows(n):
        grey = rng.beta(6, 8, n)
        return np.stack([rng.beta(30, 4, n), grey, grey, grey], 1)

    check = BetaCheck.fit({PAIR: rows(500)})
    absence = Absence.calibrate(check, [(PAIR, r) for r in rows(400)])
    raw = np.array([check.p(PAIR, r) for r in rows(4000)])
    fair = absence.of_raw(raw)
    assert kstest(raw, "uniform").pvalue < 1e-6
    assert np.abs(np.quantile(fair, [0.05, 0.25, 0.5, 0.75]) - [0.05, 0.25, 0.5, 0.75]).max() < 0.06
    for alpha in (0.02, 0.05, 0.1, 0.3):  # the false alarms of a held-out set of 400 vary by their own chance
        assert (fair <= alpha).mean() < alpha + 4 * np.sqrt(alpha * (1 - alpha) / 400)


def test_an_empty_mask_is_as_unlikely_as_anything_can_be():
    empty = statistics(np.zeros((4, 4)), np.full((3, 4, 4), 0.5))
    assert empty.tolist() == [0, 0, 0, 0]
    check = BetaCheck.fit({PAIR: np.random.default_rng(0).beta(5, 5, (50, 4))})
    absence = Absence.calibrate(check, [(PAIR, r) for r in np.random.default_rng(1).beta(5, 5, (99, 4))])
    assert check.p(PAIR, empty) == 0
    assert absence.p(PAIR, empty) == 0.01
    assert absence(PAIR, np.zeros((4, 4), np.float32), np.full((3, 4, 4), 0.5, np.float32)) == 0.01


def test_three_values_of_a_grey_image_are_one():
    image = np.random.default_rng(0).random((1, 5, 5))
    share = np.random.default_rng(1).random((5, 5))
    grey, colour = statistics(share, image), statistics(share, np.repeat(image, 3, 0))
    np.testing.assert_allclose(grey, colour)
    assert grey[1] == grey[2] == grey[3]


def test_an_unknown_pair_names_the_known_ones_and_few_rows_are_no_fit():
    check = BetaCheck.fit({PAIR: np.full((9, 4), 0.5)})
    assert np.isfinite(check.p(PAIR, [0.5] * 4))  # what never varied is no division by zero
    with pytest.raises(UsageError, match="did you mean 'ct nodule'"):
        check.p(("ct", "nodul"), [0.5] * 4)
    with pytest.raises(UsageError, match="at least 5 rows"):
        BetaCheck.fit({PAIR: np.full((3, 4), 0.5)})
    with pytest.raises(UsageError, match="no held-out object"):
        Absence.calibrate(check, [])


def test_a_check_comes_back_from_json():
    check = BetaCheck.fit({PAIR: np.random.default_rng(0).beta(3, 5, (20, 4))})
    absence = Absence.calibrate(check, [(PAIR, r) for r in np.random.default_rng(1).beta(3, 5, (9, 4))])
    again = Absence.from_json(absence.to_json())
    assert again.p(PAIR, [0.4, 0.3, 0.3, 0.3]) == absence.p(PAIR, [0.4, 0.3, 0.3, 0.3])


def test_the_mean_mask_is_cut_where_training_dice_is_best():
    rng = np.random.default_rng(0)
    masks = [("a", rng.random((6, 6)) < np.linspace(0, 1, 6)) for _ in range(40)]
    mean = np.mean([m for _, m in masks], 0)
    made = mean_masks([*masks, ("b", np.zeros((6, 6)))])
    assert not made["b"].any()

    def score(cut):
        here = mean >= cut
        return 2 * sum((m & here).sum() for _, m in masks) / sum(m.sum() + here.sum() for _, m in masks)

    chosen = made["a"] >= 0.5
    mine = 2 * sum((m & chosen).sum() for _, m in masks) / sum(m.sum() + chosen.sum() for _, m in masks)
    assert mine >= max(score(c) for c in np.linspace(0.05, 0.95, 19)) - 1e-9
