"""C-indices, Brier, calibration, log-rank and the penalised Cox model against torchsurv and scikit-survival."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.errors import Leak, UsageError
from fabrica.evaluate.survival import apart, c_index, d_calibration, integrated_brier, log_rank, nested, ridge_cox, uno


def people(n: int = 150, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4))
    t, c = rng.exponential(np.exp(-x[:, 0])), rng.exponential(1.5, n)
    time, event = np.maximum(np.round(np.minimum(t, c), 2), 0.01), t <= c
    return x, np.where(event, time, -time)


def structured(y):
    return np.array(list(zip(y > 0, np.abs(y), strict=True)), dtype=[("e", bool), ("t", float)])


def test_c_index_is_that_of_scikit_survival_and_torchsurv() -> None:
    sksurv = pytest.importorskip("sksurv.metrics")
    torch = pytest.importorskip("torch")
    from torchsurv.metrics.cindex import ConcordanceIndex

    x, y = people()
    risk = np.round(x[:, 0] + x[:, 1], 1)  # with ties
    want = sksurv.concordance_index_censored(y > 0, np.abs(y), risk)[0]
    assert c_index(y, risk) == pytest.approx(want, abs=1e-6)
    theirs = ConcordanceIndex()(torch.tensor(risk), torch.tensor(y > 0), torch.tensor(np.abs(y)))
    assert c_index(y, risk) == pytest.approx(float(theirs), abs=0.005)


@given(st.integers(0, 1000))
def test_weights_are_copies_of_people(seed: int) -> None:
    rng = np.random.default_rng(seed)
    _, y = people(12, seed)
    risk = rng.standard_normal(12)
    w = rng.integers(0, 3, (2, 12)).astype(float)
    got = c_index(y, risk, w)
    for row, value in zip(w.astype(int), got, strict=True):
        at = np.repeat(np.arange(12), row)
        np.testing.assert_allclose(value, c_index(y[at], risk[at]), atol=1e-5)


def test_uno_and_brier_are_those_of_scikit_survival() -> None:
    sksurv = pytest.importorskip("sksurv.metrics")
    pytest.importorskip("torchsurv")
    _, y = people(300)
    x2, z = people(200, 1)
    end = float(np.quantile(np.abs(z), 0.8))
    want = sksurv.concordance_index_ipcw(structured(y), structured(z), x2[:, 0], tau=end)[0]
    assert uno(y, z, x2[:, 0], until=end) == pytest.approx(want, abs=0.01)
    times = np.quantile(np.abs(z), [0.2, 0.4, 0.6])
    curve = np.exp(-np.outer(np.exp(x2[:, 0]), times))
    want = sksurv.integrated_brier_score(structured(y), structured(z), curve, times)
    assert integrated_brier(y, z, curve, times) == pytest.approx(want, abs=0.01)


def test_log_rank_is_that_of_scikit_survival() -> None:
    compare = pytest.importorskip("sksurv.compare")
    x, y = people()
    group = (x[:, 2] > 0.3).astype(int)
    assert log_rank(y, group) == pytest.approx(compare.compare_survival(structured(y), group)[1], abs=1e-6)
    assert log_rank(y, x[:, 0] > 0) < 1e-4


def test_calibrated_curves_are_uniform_and_wrong_ones_are_found() -> None:
    rng = np.random.default_rng(0)
    t, c = rng.exponential(1, 2000), rng.exponential(2, 2000)
    y = np.where(t <= c, t, -c)
    assert d_calibration(y, np.exp(-np.abs(y))) > 0.01
    assert d_calibration(y, np.exp(-2 * np.abs(y))) < 1e-6


def test_ridge_cox_is_that_of_scikit_survival_also_with_more_columns_than_people() -> None:
    linear = pytest.importorskip("sksurv.linear_model")
    x, y = people()
    y = np.sign(y) * (np.abs(y) + 1e-6 * np.arange(len(y)))  # no ties
    events = int((y > 0).sum())
    model = linear.CoxPHSurvivalAnalysis(alpha=0.1 * events / len(y) * len(y) / 1, ties="breslow").fit(x, structured(y))
    np.testing.assert_allclose(ridge_cox(x, y, 0.1), model.coef_, atol=5e-3)
    wide = np.concatenate([x, np.random.default_rng(3).standard_normal((len(x), 400))], 1)
    assert c_index(y, wide @ ridge_cox(wide, y, 1.0)) > 0.8


def test_nested_folds_choose_inside_and_never_see_what_they_report() -> None:
    subjects = [f"p{i // 2}" for i in range(60)]  # two rows a person
    seen: list[tuple[set[int], set[int]]] = []

    def score(train, val, setting: int) -> float:
        seen.append((set(train.tolist()), set(val.tolist())))
        return -abs(setting - 2)

    folds = nested(subjects, [1, 2, 3], score, folds=5, seed=0)
    assert sorted(i for f in folds for i in f.test.tolist()) == list(range(60))
    for k, fold in enumerate(folds):
        assert fold.chosen == 2
        assert not {subjects[i] for i in fold.test} & {subjects[i] for i in fold.train}
        for train, val in seen[3 * k : 3 * k + 3]:
            assert not (train | val) & set(fold.test.tolist())
    with pytest.raises(UsageError, match="folds"):
        nested(["a", "b"], [1], score)
    with pytest.raises(Leak, match="two folds"):
        apart(["a", "b"], ["b"])
