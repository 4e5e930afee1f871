"""Gaussian views: the stated best score is the best, in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.evaluate.metrics import auc
from fabrica.phantom.views import views


def phi(x: float) -> float:
    from scipy.stats import norm

    return float(norm.cdf(x))


def test_the_best_score_is_the_one_of_the_closed_form() -> None:
    """AUC of two Gaussians d' apart is Phi(d' / sqrt 2), with d' = 2 shift sqrt(dim)."""
    data = views(40_000, 0)
    y = data.labels[:, 0]
    first, second = 2 * 0.22 * np.sqrt(8), 2 * 0.32 * np.sqrt(16)
    keep = np.array([[True, False]] * len(y))
    assert auc(y, data.best(keep)) == pytest.approx(phi(first / np.sqrt(2)), abs=0.005)
    assert auc(y, data.best(~keep)) == pytest.approx(phi(second / np.sqrt(2)), abs=0.005)
    assert auc(y, data.best()) == pytest.approx(phi(np.hypot(first, second) / np.sqrt(2)), abs=0.005)


def test_tasks_do_not_disturb_each_other() -> None:
    data = views(40_000, 1, dims=(8, 16, 8), shifts=(0.22, 0.32, 0.3), tasks=3)
    for t in range(3):
        assert auc(data.labels[:, t], data.best(task=t)) == pytest.approx(phi(3.31 / np.sqrt(2)), abs=0.006)
        for other in range(3):
            if other != t:
                assert abs(auc(data.labels[:, other], data.best(task=t)) - 0.5) < 0.02


def test_the_same_seed_gives_the_same_rows() -> None:
    a, b = views(10, 3), views(10, 3)
    assert all((x == y).all() for x, y in zip(a.views, b.views, strict=True))
    assert (views(10, 4).views[0] != a.views[0]).any()


@pytest.mark.parametrize("how", [{"dims": (6, 8)}, {"dims": (8,)}, {"dims": (2, 2), "tasks": 3}])
def test_dimensions_must_be_powers_of_two_with_room_for_the_tasks(how) -> None:
    with pytest.raises(UsageError, match="powers of two"):
        views(10, 0, **how)
