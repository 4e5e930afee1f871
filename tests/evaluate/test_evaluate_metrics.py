"""Metrics against scikit-learn, weights against repeated rows, edges against their meaning."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from fabrica.errors import UsageError
from fabrica.evaluate import metrics


def table(seed: int, n: int = 60, classes: int = 3):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    truth[:classes] = np.arange(classes)
    scores = rng.dirichlet(np.ones(classes), n).round(2)  # rounded: ties
    scores /= scores.sum(1, keepdims=True)
    return truth, scores


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_sklearn(seed):
    truth, scores = table(seed)
    answer = scores.argmax(1)
    one = (truth == 1).astype(int)
    assert metrics.accuracy(truth, answer) == pytest.approx(sk.accuracy_score(truth, answer), abs=1e-12)
    assert metrics.balanced_accuracy(truth, answer) == pytest.approx(
        sk.balanced_accuracy_score(truth, answer), abs=1e-12
    )
    assert metrics.auc(one, scores[:, 1]) == pytest.approx(sk.roc_auc_score(one, scores[:, 1]), abs=1e-12)
    macro = sk.roc_auc_score(truth, scores, multi_class="ovr", average="macro")
    assert metrics.macro_auc(truth, scores) == pytest.approx(macro, abs=1e-12)
    assert metrics.brier(one[:, None], scores[:, 1:2]) == pytest.approx(
        sk.brier_score_loss(one, scores[:, 1]), abs=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_a_weight_is_a_repeated_row(seed, counts):
    truth, scores = table(seed, n=12)
    columns = {
        "truth": truth.astype(float), "answer": scores.argmax(1).astype(float), "scores": scores,
        "rank": np.random.default_rng(seed).integers(1, 20, 12), "dice": scores[:, 0],
    }  # fmt: skip
    columns["hits_5"] = columns["rank"] % 6
    repeated = {k: np.repeat(v, counts, axis=0) for k, v in columns.items()}
    weights = np.array([counts], dtype=float)
    for name in ("accuracy", "balanced accuracy", "macro AUC", "Brier", "MRR", "R@5", "P@5", "Dice"):
        m = metrics.measure(name)
        weighted, plain = m(columns, weights)[0], m(repeated)
        assert (math.isnan(weighted) and math.isnan(plain)) or weighted == pytest.approx(plain, abs=1e-9), name


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_order_of_rows_changes_nothing(seed):
    truth, scores = table(seed)
    order = np.random.default_rng(seed).permutation(len(truth))
    for f in (metrics.macro_auc, metrics.brier, metrics.ece):
        assert f(truth, scores) == pytest.approx(f(truth[order], scores[order]), abs=1e-9)


def test_auc_of_a_constant_is_half_and_of_one_class_is_undefined():
    assert metrics.auc([0, 1, 0, 1], [0.5] * 4) == 0.5
    assert math.isnan(metrics.auc([1, 1], [0.1, 0.9]))
    assert metrics.undefined_labels([[1, 1], [0, 1]], 2) == [1]


def test_unknown_labels_change_nothing():
    truth = np.array([[1.0, np.nan], [0.0, 1.0], [np.nan, 0.0], [1.0, np.nan]])
    score = np.array([[0.9, 0.5], [0.3, 0.8], [0.99, 0.1], [0.2, 0.5]])
    moved = np.where(np.isnan(truth), 1 - score, score)
    for f in (metrics.macro_auc, metrics.brier, metrics.ece):
        assert f(truth, score) == f(truth, moved)
    assert metrics.macro_auc(truth, score) == pytest.approx((0.5 + 1) / 2)


def test_ece_golden():
    """Two equal-mass bins: confidence .6 with 1 of 2 right, .9 with 2 of 2 right -> (|.5 - .6| + |1 - .9|) / 2."""
    scores = np.array([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1]])
    assert metrics.ece([0, 1, 0, 0], scores, bins=2) == pytest.approx(0.1)
    rng = np.random.default_rng(0)
    p = rng.random(40_000)
    assert metrics.ece((rng.random(40_000) < p).astype(float)[:, None], p[:, None]) < 0.02  # a calibrated forecaster


def test_dice_golden_and_hostile():
    assert metrics.dice(np.ones((2, 2)), np.ones((2, 2))) == 1
    assert math.isnan(metrics.dice(np.zeros((2, 2)), np.zeros((2, 2))))
    with pytest.raises(UsageError, match="one shape"):
        metrics.dice(np.ones((2, 2)), np.ones(4))


def test_typos_and_missing_columns_are_named():
    with pytest.raises(UsageError, match="did you mean 'accuracy'"):
        metrics.measure("acuracy")
    with pytest.raises(UsageError, match=r"reads columns \['rank'\]"):
        metrics.measure("R@5")({"truth": np.zeros(3)})
    with pytest.raises(UsageError):
        metrics.measure("R@0")
