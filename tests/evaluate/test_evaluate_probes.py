"""Label fractions, kNN, the linear probe and its controls."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from fabrica.errors import UsageError
from fabrica.evaluate import probes
from fabrica.evaluate.features import unit
from fabrica.evaluate.metrics import auc, macro_auc


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(30, 300), st.floats(0.1, 1))
def test_fractions_are_stratified_and_nested(seed, n, fraction):
    truth = np.concatenate([np.arange(3).repeat(10), np.random.default_rng(seed).integers(0, 3, n)])
    taken = probes.label_fraction(truth, fraction, seed=seed)
    for c in range(3):
        assert abs((truth[taken] == c).sum() - fraction * (truth == c).sum()) <= 0.5 + 1e-9
    assert set(taken) <= set(probes.label_fraction(truth, 1.0, seed=seed))
    assert set(taken) <= set(probes.label_fraction(truth, min(1.0, fraction + 0.1), seed=seed))
    assert (taken == probes.label_fraction(truth, fraction, seed=seed)).all()


def test_another_seed_takes_others():
    truth = np.zeros(1000) + (np.arange(1000) % 2)
    a, b = (probes.label_fraction(truth, 0.1, seed=s) for s in (0, 1))
    assert len(set(a) & set(b)) < 30


def test_findings_keep_their_prevalence():
    rng = np.random.default_rng(0)
    truth = (rng.random((4000, 5)) < [0.5, 0.2, 0.1, 0.05, 0.02]).astype(float)
    truth[::7, 2] = np.nan
    taken = probes.label_fraction(truth, 0.1, seed=0)
    assert len(taken) == pytest.approx(400, abs=15)
    assert np.allclose(np.nanmean(truth[taken], 0), np.nanmean(truth, 0), atol=0.015)


@pytest.mark.parametrize(
    ("truth", "fraction", "match"),
    [
        ([0] * 500 + [1] * 20, 0.01, "leaves 'sick' without a positive \\(20 of 520"),
        (np.array([[1.0, 1.0]] * 400 + [[0.0, 1.0]] * 400), 0.1, "without a negative"),
        ([0, 1], 0.0, "more than 0"),
        ([0, 1], 1.5, "at most 1"),
    ],
)
def test_a_fraction_that_leaves_nothing_is_an_error(truth, fraction, match):
    with pytest.raises(UsageError, match=match):
        probes.label_fraction(truth, fraction, seed=0, names=("well", "sick"))


def blobs(seed, n, classes=3, d=12, spread=1.0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, d)) * 1.5
    y = np.arange(n) % classes
    return (centres[y] + spread * rng.standard_normal((n, d))).astype(np.float32), y.astype(float)


def test_knn_equals_sklearn_with_flat_weights():
    (x, y), (test, _) = blobs(0, 90), blobs(1, 40)
    ours = probes.knn(unit(x), y, unit(test), classes=3, k=7, temperature=1e9)
    peer = KNeighborsClassifier(7, metric="cosine").fit(x, y).predict_proba(test)
    assert np.allclose(ours, peer, atol=1e-6)


def test_knn_asks_known_neighbours_and_falls_back_on_the_prevalence():
    train = unit(np.array([[1.0, 0], [0.9, 0.1], [0, 1]], dtype=np.float32))
    truth = np.array([[np.nan, 1.0], [1.0, np.nan], [0.0, 0.0]])
    out = probes.knn(train, truth, train[:1], classes=2, k=1)
    assert out[0].tolist() == [0.5, 1.0]  # the one neighbour does not know the first label


def test_a_probe_learns_and_random_labels_do_not_help():
    (x, y), (test, truth) = blobs(0, 150), blobs(1, 300)
    out = probes.linear_probe(x, y, test, classes=3, subjects=np.arange(150), seed=0)
    assert macro_auc(truth, out) > 0.95
    assert np.allclose(out.sum(1), 1)
    shuffled = np.random.default_rng(0).permutation(y)
    control = probes.linear_probe(x, shuffled, test, classes=3, subjects=np.arange(150), seed=0)
    assert macro_auc(truth, control) < 0.75


def test_test_rows_do_not_touch_the_scaler_or_c():
    (x, y), (test, _) = blobs(0, 90), blobs(1, 10)
    alone = probes.linear_probe(x, y, test[:1], classes=3, subjects=np.arange(90), seed=0)
    beside = probes.linear_probe(
        x, y, np.concatenate([test[:1], 1e6 + test]), classes=3, subjects=np.arange(90), seed=0
    )
    assert np.allclose(alone[0], beside[0], atol=1e-9)


def test_features_of_any_scale_give_one_answer():
    (x, y), (test, _) = blobs(0, 90), blobs(1, 30)
    scale = np.geomspace(1e-3, 1e3, x.shape[1]).astype(np.float32)
    a, b = (probes.linear_probe(x * s, y, test * s, classes=3, subjects=np.arange(90), seed=0) for s in (1, scale))
    assert np.allclose(a, b, atol=1e-3)


def test_c_is_tuned_without_a_subject_on_both_sides():
    """Every subject has a fingerprint and two rows; a split by row would trust it, a split by subject cannot."""
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(60), 2)
    y = np.repeat(rng.integers(0, 2, 60), 2).astype(float)
    x = np.repeat(rng.standard_normal((60, 200)), 2, axis=0) + 0.01 * rng.standard_normal((120, 200))
    by_subject = probes._tune(x, y.astype(int), subjects, 0)
    by_row = probes._tune(x, y.astype(int), np.arange(120), 0)
    assert by_subject < by_row


def test_missing_labels_of_a_finding_are_left_out():
    x, y = blobs(0, 120, classes=2)
    truth = np.stack([y, 1 - y], 1)
    truth[:40, 1] = np.nan
    out = probes.linear_probe(x, truth, x, classes=2, subjects=np.arange(120), seed=0)
    only = probes.linear_probe(x[40:], truth[40:, 1:], x, classes=1, subjects=np.arange(40, 120), seed=0)
    assert np.allclose(out[:, 1], only[:, 0])


def test_prevalence():
    assert probes.prevalence([0, 0, 1, np.nan], 2, 2).tolist() == [[2 / 3, 1 / 3]] * 2
    assert probes.prevalence(np.array([[1.0, np.nan], [0, np.nan]]), 1, 2).tolist() == [[0.5, 0.5]]


def pictures(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 64, 64), dtype=np.uint8)


def test_the_border_control_sees_the_border_alone():
    a = pictures(20)
    b = a.copy()
    b[:, 8:-8, 8:-8] = 0
    assert (probes.border(a) == probes.border(b)).all()
    assert probes.border(a).shape == (20, 32 * 32 - 28 * 28)
    y = (np.arange(20) % 2).astype(float)
    a[y == 1, :3, :] = 255  # a shortcut at the edge
    marked = probes.linear_probe(probes.border(a), y, probes.border(a), classes=2, subjects=np.arange(20), seed=0)
    assert auc(y, marked[:, 1]) == 1


def test_random_features_are_seeded_and_do_not_depend_on_the_batch():
    a = pictures(300)
    out = probes.random_features(a)
    assert out.shape == (300, 512)
    assert np.allclose(out[290:], probes.random_features(a[290:]), atol=1e-6)
    assert not np.allclose(out, probes.random_features(a, seed=1))
