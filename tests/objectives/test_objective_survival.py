"""Survival losses against hand computation, scikit-survival's Cox model, and what must hold at the edges."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fabrica.errors import UsageError
from fabrica.objectives.survival import (
    Bins,
    align,
    cox,
    log_outcomes,
    nll_discrete,
    nll_outcomes,
    ranking,
    same_unit,
    signed,
    survival_curve,
    unsigned,
)


def test_likelihood_of_five_people_by_hand() -> None:
    h = np.array([[0.1, 0.2, 0.3], [0.5, 0.5, 0.5], [0.9, 0.1, 0.2], [0.3, 0.3, 0.3], [0.2, 0.4, 0.6]])
    bins, event = [0, 2, 0, 2, 1], [1, 1, 0, 0, 1]
    want = [
        -np.log(0.1),  # the event in the first bin
        -np.log(0.5 * 0.5 * 0.5),  # in the last: two bins lived through, then the event
        -np.log(0.1),  # censored in the first bin
        -np.log(0.7**3),  # censored in the last
        -np.log(0.8 * 0.4),
    ]
    got = nll_discrete(torch.from_numpy(np.log(h / (1 - h))), torch.tensor(bins), torch.tensor(event).bool())
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-5)


def test_one_bin_and_events_alone_is_binary_cross_entropy() -> None:
    logits = torch.tensor([[-2.0], [0.5], [3.0]])
    got = nll_discrete(logits, torch.zeros(3).long(), torch.ones(3).bool())
    want = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], torch.ones(3), reduction="none")
    torch.testing.assert_close(got, want)


@given(st.lists(st.floats(-90, 90), min_size=4, max_size=4), st.integers(0, 3), st.booleans())
def test_both_forms_agree_and_gradients_are_finite(values: list[float], bin: int, event: bool) -> None:
    logits = torch.tensor([values], requires_grad=True)
    b, e = torch.tensor([bin]), torch.tensor([event])
    loss = nll_discrete(logits, b, e)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
    torch.testing.assert_close(nll_outcomes(log_outcomes(logits.detach()), b, e), loss.detach(), atol=1e-3, rtol=1e-4)
    curve = survival_curve(log_outcomes(logits.detach()).exp().numpy())
    assert (np.diff(curve) <= 1e-6).all()


def test_bins_of_the_training_part() -> None:
    bins = Bins.fit([1, 2, 3, 4, 5, 6, 7, 8, 99], [1] * 8 + [0], 4)
    assert bins.edges == (2.75, 4.5, 6.25)
    assert bins([0.1, 2.75, 8.0, 1e6]).tolist() == [0, 1, 3, 3]
    with pytest.raises(UsageError, match="2 distinct times with an event for 4 bins"):
        Bins.fit([1, 1, 2, 2, 3], [1, 1, 1, 1, 0], 4)
    with pytest.raises(UsageError, match="above 0"):
        Bins.fit([1, -2, 3, 4], [1, 1, 1, 1], 2)
    with pytest.raises(UsageError, match="wanted 0"):
        Bins.fit([1, 2, 3, 4], [1, 1, 2, 1], 2)


@pytest.mark.parametrize("time", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_is_above_0(time: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        signed(time, True)
    with pytest.raises(UsageError, match="survival label"):
        unsigned([3.0, 0.0])


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_cox_with_ties_is_that_of_scikit_survival(ties: str) -> None:
    linear = pytest.importorskip("sksurv.linear_model")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 3))
    time = np.ceil(rng.exponential(np.exp(-x[:, 0])) * 5)  # many ties
    event = rng.random(80) < 0.7
    y = np.array(list(zip(event, time, strict=True)), dtype=[("e", bool), ("t", float)])
    model = linear.CoxPHSurvivalAnalysis(ties=ties).fit(x, y)
    b = torch.tensor(model.coef_, requires_grad=True)
    loss, events = cox(torch.from_numpy(x) @ b, torch.from_numpy(time), torch.from_numpy(event), ties=ties)
    loss.backward()
    assert events == event.sum()
    assert b.grad.abs().max() < 1e-4  # their optimum is ours


def test_without_an_event_nothing_counts() -> None:
    loss, events = cox(torch.ones(3, requires_grad=True), torch.tensor([1.0, 2, 3]), torch.zeros(3).bool())
    assert (loss.item(), events) == (0.0, 0)
    loss, pairs = ranking(torch.ones(2), torch.tensor([1.0, 2.0]), torch.zeros(2).bool())
    assert (loss.item(), pairs) == (0.0, 0)


def test_alignment_moves_the_translation_alone() -> None:
    told, own = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    align(told, own, torch.ones(4).bool())[0].backward()
    assert own.grad is None
    assert told.grad.abs().sum() > 0


def test_days_beside_months_are_told() -> None:
    same_unit({"a": [20.0] * 6, "b": [60.0] * 6, "few": [9000.0] * 4})
    with pytest.raises(UsageError, match="days beside months"):
        same_unit({"a": [20.0] * 6, "b": [610.0] * 6})
