"""The bootstrap: coverage, subjects that stay together, pairing, and agreement with scipy's."""

import time

import numpy as np
import pytest
from scipy import stats

from fabrica.errors import UsageError
from fabrica.evaluate import bootstrap
from fabrica.evaluate.metrics import auc, measure, recall_at

ACCURACY = measure("accuracy")


def answers(seed, n=200, p=0.8):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n).astype(float)
    return {"truth": truth, "answer": np.where(rng.random(n) < p, truth, 1 - truth)}


def test_weights_sum_to_subjects_and_rows_of_a_subject_stay_together():
    subjects = np.array(["c", "a", "b", "a", "c", "c"])
    (w,) = bootstrap.resamples(subjects, count=50, seed=3)
    assert (w[:, subjects == "a"] == w[:, [1]]).all()
    assert (w[:, [0, 1, 2]].sum(1) == 3).all()  # three draws of three subjects
    sizes = [b.nbytes for b in bootstrap.resamples(np.repeat(np.arange(50), 20_000), count=20, seed=0)]
    assert len(sizes) == 5
    assert max(sizes) <= bootstrap.BLOCK_BYTES
    few, many = (np.concatenate([*bootstrap.resamples(np.arange(9), count=c, seed=7)]) for c in (30, 600))
    assert (few == many[:30]).all()  # a draw depends on subjects, seed and number alone


def test_close_to_scipys_percentile_interval():
    rows = answers(0)
    right = (rows["truth"] == rows["answer"]).astype(float)
    ours = bootstrap.interval(ACCURACY, rows, np.arange(200), count=5000)
    peer = stats.bootstrap((right,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(1))
    assert ours.value == right.mean()
    assert ours.low == pytest.approx(peer.confidence_interval.low, abs=0.01)
    assert ours.high == pytest.approx(peer.confidence_interval.high, abs=0.01)
    bca = stats.bootstrap((right,), np.mean, method="BCa", n_resamples=5000, rng=np.random.default_rng(1))
    assert ours.low == pytest.approx(bca.confidence_interval.low, abs=0.02)


def test_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(200):
        i = bootstrap.interval(ACCURACY, answers(seed), np.arange(200), count=300, seed=seed)
        hits += i.low <= 0.8 <= i.high
    assert 180 <= hits <= 199  # 95 % of 200 is 190


def test_one_subject_with_many_rows_widens_the_interval():
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(0, 2, 40), 10).astype(float)
    rows = {"truth": truth, "answer": np.where(np.repeat(rng.random(40) < 0.7, 10), truth, 1 - truth)}
    by_subject = bootstrap.interval(ACCURACY, rows, np.repeat(np.arange(40), 10))
    by_row = bootstrap.interval(ACCURACY, rows, np.arange(400))
    assert by_subject.high - by_subject.low > 2.5 * (by_row.high - by_row.low)
    assert (by_subject.n, by_subject.subjects) == (400, 40)


def test_paired_is_narrower_than_apart_and_zero_for_one_arm():
    rng = np.random.default_rng(5)
    truth = (rng.random(300) < 0.4).astype(float)
    hard = rng.normal(size=300)
    a = {"truth": truth, "scores": truth + hard}
    b = {"truth": truth, "scores": 0.8 * truth + hard + 0.05 * rng.normal(size=300)}

    def metric(c, w):
        return auc(c["truth"], c["scores"], w)

    gap = bootstrap.paired(metric, a, b, np.arange(300))
    apart = [bootstrap.interval(metric, x, np.arange(300)) for x in (a, b)]
    assert gap.value == pytest.approx(apart[0].value - apart[1].value)
    assert 0 < gap.low < gap.value < gap.high
    assert gap.high - gap.low < 0.5 * (apart[0].high - apart[0].low)
    same = bootstrap.paired(metric, a, a, np.arange(300))
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_paired_seeds_is_students_t():
    a, b = [0.9, 0.85, 0.88, 0.91], [0.8, 0.81, 0.79, 0.83]
    i = bootstrap.paired_seeds(a, b)
    peer = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (i.low, i.high) == pytest.approx((peer.low, peer.high), abs=1e-12)
    for bad in (([0.9], [0.8]), ([0.9, 0.8], [0.8])):
        with pytest.raises(UsageError, match="at least 2"):
            bootstrap.paired_seeds(*bad)
    with pytest.raises(UsageError, match="not finite"):
        bootstrap.paired_seeds([0.9, float("nan")], [0.8, 0.7])


def test_paired_over_seeds_and_rows():
    a, b = [answers(s, p=0.9) for s in range(3)], [answers(s, p=0.7) for s in range(3)]
    nested = bootstrap.paired_seeds_rows(ACCURACY, a, b, np.arange(200))
    assert nested.low > 0
    assert nested.low < nested.value < nested.high
    with pytest.raises(UsageError, match="same seeds"):
        bootstrap.paired_seeds_rows(ACCURACY, a, b[:2], np.arange(200))


def test_perfect_scores_do_not_get_an_interval_without_width():
    rows = {"rank": np.ones(12, dtype=int)}
    i = bootstrap.interval(lambda c, w: recall_at(c["rank"], 1, w), rows, np.arange(12), share=True)
    assert (i.value, i.high, i.method) == (1, 1, "wilson")
    assert i.low == pytest.approx(0.7575, abs=1e-3)  # Wilson, 12 of 12


def test_undefined_is_said():
    one = {"truth": np.ones(5), "scores": np.arange(5.0)[:, None]}
    i = bootstrap.interval(measure("AUC"), one, np.arange(5))
    assert np.isnan(i.value)
    assert i.undefined == 1
    rare = {"truth": np.array([1.0] + [0] * 9), "scores": np.arange(10.0)[:, None]}
    share = bootstrap.interval(measure("AUC"), rare, np.arange(10)).undefined
    assert share == pytest.approx(0.9**10, abs=0.05)  # the positive is not drawn


def test_same_seed_same_bytes_and_wrong_lengths_are_named():
    rows = answers(1)
    assert bootstrap.interval(ACCURACY, rows, np.arange(200)) == bootstrap.interval(ACCURACY, rows, np.arange(200))
    with pytest.raises(UsageError, match="3 subjects"):
        bootstrap.interval(ACCURACY, rows, np.arange(3))


def test_an_auc_interval_of_ten_thousand_rows_takes_seconds_not_minutes():
    rng = np.random.default_rng(0)
    rows = {"truth": (rng.random(10_000) < 0.3).astype(float), "scores": rng.normal(size=(10_000, 1))}
    start = time.process_time()
    i = bootstrap.interval(measure("AUC"), rows, np.arange(10_000))
    assert time.process_time() - start < 8  # 2,000 sorts and roc_auc_scores would take about 20
    assert i.low < 0.5 < i.high
