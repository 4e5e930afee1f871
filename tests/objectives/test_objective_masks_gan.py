"""Adversarial losses on masks: who gets gradient, what the critic sees, and how the two losses are weighed."""

import pytest
import torch

from fabrica.models.critics import MaskPyramidCritic
from fabrica.models.dense import DenseModel
from fabrica.models.gated_unet import GatedUNet
from fabrica.objectives.masks_gan import Fool, MaskCritic, Scribble, balanced, fool, predicted, real
from fabrica.types import Batch, Field


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = GatedUNet(1, 4, (4, 8, 8), 8, norm="group")
    return DenseModel({"net": net, "critic": MaskPyramidCritic(4, (16, 16), (8, 8, 8), 4, flip=0.0)})


def batch(known=0.2, masks=True, images=True):
    """Two scribbled images, one unmarked image, one mask without an image."""
    g = torch.Generator().manual_seed(1)
    valid = torch.tensor([[images], [images], [images], [False]])
    target = torch.randint(0, 4, (4, 16, 16), generator=g)
    strokes = torch.rand(4, 16, 16, generator=g) < known
    strokes[2:] = False
    whole = torch.zeros(4, 16, 16, dtype=torch.bool)
    whole[3] = masks
    field = Field(torch.randn(4, 1, 1, 16, 16, generator=g), valid)
    return Batch(tuple("abcd"), {"image": field}, {"scribble": target, "mask": target},
                 {"scribble": strokes, "mask": whole})  # fmt: skip


def moved(model):
    return {n.partition(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_the_critics_loss_never_reaches_the_segmentor(model):
    loss = MaskCritic()(model, batch())
    loss.total.backward()
    assert moved(model) == {"critic"}
    assert loss.count == 4
    assert {"real", "fake", "gap", "area_spread"} == set(loss.terms)


def test_the_supervised_loss_holds_what_fools_the_critic_and_not_the_critics_own_loss(model):
    """The public code minimises the critic's loss in the supervised step: the segmentor would learn to look fake. Here
    the adversarial gradient is that of 1/2 (D - 1)^2, so a step along it raises the critic's score."""
    model.eval()
    given = batch()
    maps, at = model.see(given.fields["image"], rows=torch.tensor([True, True, False, False]))
    before = model.critic(predicted(maps.logits, maps.levels, 3))
    loss = Scribble(adversarial=1.0, balance=False)(model, given).total
    loss = loss - Scribble(adversarial=0.0)(model, given).total
    grads = torch.autograd.grad(loss, list(model.net.parameters()), allow_unused=True)
    with torch.no_grad():
        for p, g in zip(model.net.parameters(), grads, strict=True):
            if g is not None:
                p -= 0.05 * g / (g.norm() + 1e-6)
    maps, _ = model.see(given.fields["image"], rows=torch.tensor([True, True, False, False]))
    after = model.critic(predicted(maps.logits, maps.levels, 3))
    assert fool(after) < fool(before)
    assert len(at) == 2


def test_the_background_is_left_out_at_every_level(model):
    maps, _ = model.see(batch().fields["image"])
    for levels in (predicted(maps.logits, maps.levels, 3), real(torch.zeros(2, 16, 16, dtype=torch.long), 4, 3)):
        assert [p.shape[1:] for p in levels] == [(3, 16, 16), (3, 8, 8), (3, 4, 4)]
    empty = real(torch.zeros(1, 16, 16, dtype=torch.long), 4, 3)
    assert all(float(p.abs().sum()) == 0 for p in empty)
    half = real(torch.ones(1, 16, 16, dtype=torch.long), 4, 3)
    assert all(torch.allclose(p[:, 0], torch.ones_like(p[:, 0])) for p in half)


def test_a0_has_no_gradient_and_is_clipped():
    deceit, partial = torch.tensor(2.0, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    a0 = balanced(deceit, partial, 100.0)
    assert a0.item() == 4.0
    assert not a0.requires_grad
    assert balanced(deceit, torch.tensor(0.0), 100.0).item() == 100.0


def test_balance_changes_the_gradient_and_not_the_value(model):
    model.eval()
    given = batch()
    losses = [Scribble(adversarial=0.1, balance=b)(model, given) for b in (True, False)]
    assert losses[0].total.item() == pytest.approx(losses[1].total.item(), abs=1e-6)
    a0 = losses[0].terms["a0"]
    assert a0 == pytest.approx(losses[0].terms["fool"] / losses[0].terms["pce"], rel=1e-4)
    grads = [torch.autograd.grad(x.total, model.net.last.weight)[0] for x in losses]
    pce = torch.autograd.grad(Scribble(adversarial=0.0)(model, given).total, model.net.last.weight)[0]
    torch.testing.assert_close(grads[0] - grads[1], (a0 - 1) * pce, rtol=1e-3, atol=1e-6)


def test_an_image_without_a_stroke_is_adversarial_only_and_empty_batches_are_skipped(model):
    given = batch()
    assert Fool()(model, given).count == 1
    assert Scribble()(model, given).count == 2
    none = batch(known=0.0)
    assert Scribble()(model, none).count == 0
    assert Fool()(model, none).count == 3
    assert MaskCritic()(model, batch(masks=False)).count == 0
    gone = batch(images=False)
    assert [o(model, gone).count for o in (MaskCritic(), Fool(), Scribble())] == [0, 0, 0]


def test_collapse_shows_in_the_spread_of_areas(model):
    """A net that says the same of every image has no spread of predicted areas beside that of real masks."""
    given = batch()
    given.targets["mask"][0] = 0
    given.known["mask"][:2] = True
    with torch.no_grad():
        model.net.last.weight.zero_()
        for up in model.net.up:
            up.gate.weight.zero_()
    assert MaskCritic()(model, given).terms["area_spread"] < 1e-3
