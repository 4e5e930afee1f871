"""The XOR generator and its total correlation."""

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.phantom.xor import total_correlation, xor


def test_definition_and_determinism():
    s = xor(5000, 3, p=0.4)
    assert s.a.shape == s.b.shape == s.c.shape == (5000, 5)
    assert set(np.unique(s.a)) == {0.0, 1.0}
    want = np.where(s.mixed[:, None], (s.a != s.b), s.a)
    assert np.array_equal(s.c, want)
    assert s.mixed.mean() == pytest.approx(0.4, abs=0.03)
    assert all(np.array_equal(x, y) for x, y in zip(s, xor(5000, 3, p=0.4), strict=True))
    assert not np.array_equal(s.a, xor(5000, 4, p=0.4).a)


def test_no_pair_knows_the_third_at_p_1():
    s = xor(20000, 0, p=1.0)
    for x, y in ((s.a, s.b), (s.a, s.c), (s.b, s.c)):
        assert np.abs(np.corrcoef(x.T, y.T)[:5, 5:]).max() < 0.03
    assert np.array_equal(s.c, (s.a + s.b) % 2)


def test_total_correlation_by_hand():
    # d = 1, p = 1/2: H(a, b, c) = 2 ln 2 + (1/2) ln 2, the marginals have 3 ln 2
    assert total_correlation(0.5, 1) == pytest.approx(0.5 * np.log(2))
    # p = 1 and p = 0: c is a function of (a, b), so TC = d ln 2
    assert total_correlation(1.0, 2) == pytest.approx(2 * np.log(2))
    assert total_correlation(0.0, 3) == pytest.approx(3 * np.log(2))
    # d = 2, p = 1/2: given b != 0 (3 of 4) c is one of two values, so H(c | a, b) = (3/4) ln 2
    assert total_correlation(0.5, 2) == pytest.approx(2 * np.log(2) - 0.75 * np.log(2))


def test_total_correlation_matches_a_sample():
    s = xor(200_000, 1, p=0.7, d=2)
    a, b, c = (x @ [1, 2] for x in (s.a, s.b, s.c))
    joint = np.bincount((a * 16 + b * 4 + c).astype(int), minlength=64) / len(a)
    some = joint > 0
    assert (joint[some] * np.log(joint[some] * 64)).sum() == pytest.approx(total_correlation(0.7, 2), abs=0.01)


@pytest.mark.parametrize(("p", "d"), [(-0.1, 2), (1.1, 2), (0.5, 0), (0.5, 7)])
def test_wrong_arguments(p, d):
    with pytest.raises(UsageError):
        total_correlation(p, d)
