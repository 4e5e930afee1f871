"""Who answers whom: costs against transformers' own, Hungarian against brute force, shares, points, what is unknown."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import UsageError
from fabrica.objectives.present import of_present, terms
from fabrica.objectives.query_set import at_points, match, pair_costs, shared, uncertain_points


def test_costs_are_those_of_mask2former():
    from transformers.models.mask2former import modeling_mask2former as theirs

    torch.manual_seed(0)
    masks, target = torch.randn(2, 5, 40), (torch.rand(2, 3, 40) > 0.6).float()
    bce, dice = pair_costs(masks, target, torch.ones(2, 3, 40, dtype=torch.bool))
    for row in range(2):
        torch.testing.assert_close(bce[row], theirs.pair_wise_sigmoid_cross_entropy_loss(masks[row], target[row]))
        torch.testing.assert_close(dice[row], theirs.pair_wise_dice_loss(masks[row], target[row]))


def test_unknown_points_have_no_influence():
    torch.manual_seed(0)
    masks, target = torch.randn(1, 4, 30), (torch.rand(1, 2, 30) > 0.5).float()
    known = torch.ones(1, 2, 30, dtype=torch.bool)
    known[..., 20:] = False
    some = pair_costs(masks[..., :20], target[..., :20], known[..., :20])
    torch.testing.assert_close(pair_costs(masks, target.where(known, 1 - target), known), some)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(0, 100))
def test_matching_is_the_best_of_all(prompts, seed):
    cost = torch.rand(2, 4, prompts, generator=torch.Generator().manual_seed(seed))
    found = match(cost, torch.ones(2, prompts, dtype=torch.bool))
    for row in range(2):
        assert len(set(found[row].tolist())) == prompts
        best = min(sum(cost[row, q, k] for k, q in enumerate(p)) for p in permutations(range(4), prompts))
        assert sum(cost[row, q, k] for k, q in enumerate(found[row])) == pytest.approx(float(best))


def test_prompts_that_were_not_asked_take_no_query():
    cost = torch.tensor([[[0.0, 0.0, 0.1], [0.5, 0.9, 0.0]]])
    found = match(cost, torch.tensor([[False, True, True]]))
    assert found[0, 1:].tolist() == [0, 1]
    with pytest.raises(UsageError, match="3 prompts on one image, 2 queries"):
        match(cost, torch.ones(1, 3, dtype=torch.bool))


def test_prompts_of_one_object_share_the_target():
    share = shared(torch.tensor([[3, 1, 0]]), torch.tensor([[5, 8, 5]]), torch.tensor([[True, True, True]]), 4)
    assert share.tolist() == [[[0.5, 0, 0, 0.5], [0, 1, 0, 0], [0.5, 0, 0, 0.5]]]
    alone = shared(torch.tensor([[3, 1]]), torch.tensor([[5, 5]]), torch.tensor([[True, False]]), 4)
    assert alone.tolist() == [[[0, 0, 0, 1], [0, 0, 0, 0]]]


def test_points_are_where_the_mask_is_unsure():
    torch.manual_seed(0)
    logits = torch.linspace(-8, 8, 64).expand(3, 1, 64, 64)  # unsure in the middle columns
    where = uncertain_points(logits, 400)
    assert where.shape == (3, 400, 2)
    assert ((where >= 0) & (where <= 1)).all()
    near = at_points(logits, where).abs() < 3
    assert near.float().mean() > 0.75
    exact = at_points(logits, torch.tensor([[[0.5 / 64, 0.5]]]).expand(3, -1, -1))
    torch.testing.assert_close(exact[..., 0], torch.full((3, 1), -8.0))


def slope(logit, *, all_prompts):
    """The gradient, by one logit of all pixels, of BCE + Dice of two prompts: an object of 92 of 2304 pixels that is
    there, and one that is not."""
    masks = torch.full((2, 1, 2304), logit, requires_grad=True)
    goal = torch.zeros(2, 1, 2304)
    goal[0, 0, :92] = 1
    bce, dice = pair_costs(masks, goal, torch.ones(2, 1, 2304, dtype=torch.bool))
    mean = dice.mean() if all_prompts else of_present(dice.flatten(), goal[:, 0])
    (bce.mean() + mean).backward()
    return float(masks.grad.sum())


def test_dice_of_what_is_not_there_shuts_the_way_out_of_empty_answers():
    """Both arms of a first proof ended at masks without a pixel. At a share of 0.03 % everywhere, Dice of all prompts
    pushes further down; of those that are there alone, up."""
    assert slope(-8.0, all_prompts=True) > 0
    assert slope(-8.0, all_prompts=False) < 0
    assert slope(3.0, all_prompts=False) > 0  # and a full answer comes down


def test_what_is_not_there_has_cross_entropy_alone():
    values = torch.tensor([0.3, 0.9], requires_grad=True)
    of_present(values, torch.tensor([[0.0, 1.0], [0.0, 0.0]])).backward()
    assert values.grad.tolist() == [1.0, 0.0]
    none = of_present(values, torch.zeros(2, 2))
    assert none.item() == 0


def test_a_specialists_loss_is_that_of_a_prompt():
    torch.manual_seed(0)
    logits, target = torch.randn(3, 2, 6, 5), (torch.rand(3, 6, 5) > 0.7).long()
    target[1] = 0
    known = torch.rand(3, 6, 5) > 0.2
    ce, dice = terms(logits, target, known)
    one = (logits[:, 1] - logits[:, 0])[:, None].flatten(2)
    goal, seen = target[:, None].flatten(2), known[:, None].flatten(2)
    bce, theirs = pair_costs(one, goal, seen)
    weight = seen.sum(2).flatten() / seen.sum()  # the batch's mean, not a mean of means
    torch.testing.assert_close(ce, (bce.flatten() * weight).sum())
    torch.testing.assert_close(dice, of_present(theirs.flatten(), (goal * seen).flatten(1)))
    changed = target.where(known, 1 - target)
    torch.testing.assert_close(torch.stack(terms(logits, changed, known)), torch.stack((ce, dice)))
