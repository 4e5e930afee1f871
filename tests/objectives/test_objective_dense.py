"""Losses over known voxels: golden values, MONAI's arithmetic, and nothing at all from what is unknown."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fabrica.errors import UsageError
from fabrica.objectives.dense import Dense, dense


def made(seed=0, classes=4, sides=(8, 8), batch=3):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, *sides, generator=g, requires_grad=True)
    target = torch.randint(0, classes, (batch, *sides), generator=g)
    known = torch.rand(batch, *sides, generator=g) < 0.3
    return logits, target, known


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([None, "inverse"]), st.sampled_from([(8, 8), (4, 6, 5)]))
def test_unknown_voxels_give_exactly_no_gradient_and_their_label_is_never_read(seed, balance, sides):
    logits, target, known = made(seed, sides=sides)
    loss, _, _ = dense(logits, target, known, dice=0.0, balance=balance)
    (grad,) = torch.autograd.grad(loss, logits)
    assert (grad[~known[:, None].expand_as(grad)] == 0).all()
    other = torch.where(known, target, (target + 1) % 4)
    again, _, _ = dense(logits, other, known, dice=0.0, balance=balance)
    assert torch.equal(torch.autograd.grad(again, logits)[0], grad)
    both = [dense(logits, t, known, balance=balance)[0] for t in (target, other)]
    assert torch.equal(*[torch.autograd.grad(x, logits)[0] for x in both])
    assert torch.equal(*[x.detach() for x in both])


def test_labels_out_of_range_are_an_error_only_where_they_are_known():
    logits, target, known = made()
    wild = torch.where(known, target, 255)
    assert torch.equal(dense(logits, wild, known)[0], dense(logits, target, known)[0])
    wild[0, 0, 0], known[0, 0, 0] = 255, True
    with pytest.raises(UsageError, match="a known label is"):
        dense(logits, wild, known)


def test_all_known_is_the_usual_loss():
    """Cross-entropy of torch; soft Dice of MONAI's DiceLoss(softmax=True, to_onehot_y=True)."""
    from monai.losses.dice import DiceLoss

    logits, target, _ = made()
    loss, terms, count = dense(logits, target, torch.ones_like(target, dtype=torch.bool))
    ce = functional.cross_entropy(logits, target)
    soft = DiceLoss(softmax=True, to_onehot_y=True)(logits, target[:, None])
    torch.testing.assert_close(loss, ce + soft)
    assert (round(terms["ce"], 5), count) == (round(ce.item(), 5), 3)
    _, terms, _ = dense(logits, target, torch.ones_like(target, dtype=torch.bool), background=False)
    inner = DiceLoss(softmax=True, to_onehot_y=True, include_background=False)(logits, target[:, None])
    assert terms["dice"] == pytest.approx(inner.item(), abs=1e-6)


def test_inverse_balance_is_n_over_n_c_and_a_class_without_a_stroke_has_weight_0():
    """Two classes of three have strokes, 3 and 1 pixels: weights 4 / (2 * 3), 4 / (2 * 1), 0 (finite)."""
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 1, 1, 1] = 2.0
    target = torch.tensor([[[0, 0], [0, 1]]])
    loss, _, _ = dense(logits, target, torch.ones(1, 2, 2, dtype=torch.bool), dice=0.0, balance="inverse")
    log3 = torch.log(torch.tensor(3.0))
    one = -torch.log_softmax(torch.tensor([0.0, 2.0, 0.0]), 0)[1]
    torch.testing.assert_close(loss, (3 * 4 / 6 * log3 + 4 / 2 * one) / 4)


def test_nothing_known_is_skipped_and_not_nan():
    logits, target, known = made()
    loss, terms, count = dense(logits, target, torch.zeros_like(known), balance="inverse")
    assert (loss.item(), terms, count) == (0.0, {}, 0)
    known[1:] = False
    assert dense(logits, target, known)[2] == 1  # samples that contributed


def test_a_class_that_is_unknown_in_a_sample_is_neither_positive_nor_background():
    """(B, K, *S): the sample labels class 0 alone; whatever the net says of class 1 has no part in it."""
    logits = torch.randn(2, 2, 4, 4, requires_grad=True)
    target = torch.randint(0, 2, (2, 2, 4, 4))
    known = torch.ones(2, 2, 4, 4, dtype=torch.bool)
    known[0, 1] = False
    loss, _, _ = dense(logits, target, known)
    (grad,) = torch.autograd.grad(loss, logits)
    assert (grad[0, 1] == 0).all()
    assert (grad[0, 0] != 0).all()
    alone = functional.binary_cross_entropy_with_logits(logits, target.float(), reduction="none")[known].mean()
    torch.testing.assert_close(dense(logits, target, known, dice=0.0)[0], alone)


@pytest.mark.parametrize("wrong", ["shape", "float known", "weights"])
def test_what_does_not_fit_is_named(wrong):
    logits, target, known = made()
    options = {"balance": (1.0, 2.0)} if wrong == "weights" else {}
    target = target[:, :4] if wrong == "shape" else target
    known = known.float() if wrong == "float known" else known
    with pytest.raises(UsageError):
        dense(logits, target, known, dice=0.0, **options)


class Levels(torch.nn.Module):
    """A net with a coarser level, as the model's `see` gives it."""

    def __init__(self):
        super().__init__()
        self.full = torch.nn.Parameter(torch.zeros(1, 2, 4, 4))
        self.coarse = torch.nn.Parameter(torch.zeros(1, 2, 2, 2))

    def see(self, field, rows):
        from fabrica.models.dense import Maps

        at = rows.nonzero().squeeze(1)
        return Maps(self.full.expand(len(at), -1, -1, -1), (self.coarse.expand(len(at), -1, -1, -1),)), at


def test_levels_have_their_weights_and_rows_without_image_or_label_never_run():
    from fabrica.types import Batch, Field

    field = Field(torch.zeros(3, 1, 1, 4, 4), torch.tensor([[True], [False], [True]]))
    known = torch.ones(3, 4, 4, dtype=torch.bool)
    known[2] = False
    batch = Batch(("a", "b", "c"), {"image": field}, {"m": torch.zeros(3, 4, 4, dtype=torch.long)}, {"m": known})
    model = Levels()
    loss = Dense("m", dice=0.0, level_weights=(1.0, 0.5))(model, batch)
    assert loss.count == 1
    assert loss.total.item() == pytest.approx(1.5 * 0.693147, abs=1e-5)
    assert set(loss.terms) == {"ce", "ce/1"}
    none = Batch(batch.ids, batch.fields, batch.targets, {"m": torch.zeros_like(known)})
    assert Dense("m")(model, none).count == 0
