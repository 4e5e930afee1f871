"""The net contract, the gated U-Net, the critic: shapes, gates, gradients, saving, and hostile configs."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import Refused, UsageError
from fabrica.models.critics import MaskPyramidCritic
from fabrica.models.dense import Condition, DenseModel, Maps, Net, fit_size, part_from_json
from fabrica.models.gated_unet import GatedUNet
from fabrica.objectives.masks_gan import fool, predicted
from fabrica.types import Field


class Same(Net):
    """Answers the image itself, and a level that skips every second pixel."""

    kind = "dense:Same"
    dims, channels, width, multiple = 2, 1, 1, 4

    def forward(self, image, condition=None):
        assert all(n % self.multiple == 0 for n in image.shape[2:])
        return Maps(image, (image[:, :, ::2, ::2],), (image,), {"again": image})


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 19), st.integers(1, 19))
def test_any_sides_come_back_as_they_were(height, width):
    image = torch.randn(2, 1, height, width)
    maps = fit_size(Same(), image)
    assert torch.equal(maps.logits, image)
    assert torch.equal(maps.extra["again"], image)
    assert maps.levels[0].shape[2:] == (-(-height // 2), -(-width // 2))
    assert torch.equal(maps.levels[0], image[:, :, ::2, ::2])


def test_nets_pad_nothing_and_name_what_does_not_fit():
    net = GatedUNet(1, 3, (4, 4), 4)
    with pytest.raises(UsageError, match="no multiples of 4: use fit_size"):
        net(torch.zeros(1, 1, 10, 8))
    with pytest.raises(UsageError, match="reads \\(B, 1, X, Y\\)"):
        fit_size(net, torch.zeros(1, 2, 8, 8))
    with pytest.raises(UsageError, match="reads"):
        fit_size(net, torch.zeros(1, 1, 8, 8, 8))


@pytest.mark.parametrize(("gates", "dims"), [("adversarial", 2), ("additive", 2), ("none", 2), ("adversarial", 3)])
@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
def test_the_gated_unet_gives_logits_and_its_pyramid(gates, dims, norm):
    torch.manual_seed(0)
    sides = (16, 24) if dims == 2 else (8, 16, 8)
    net = GatedUNet(1, 3, (4, 8, 8), 12, gates, norm, dims)
    maps = net(torch.randn(2, 1, *sides))
    assert maps.logits.shape == (2, 3, *sides)
    wanted = [tuple(n // 2**d for n in sides) for d in (1, 2)] if gates == "adversarial" else []
    assert [tuple(level.shape[2:]) for level in maps.levels] == wanted
    assert all(level.shape[1] == 3 for level in maps.levels)
    assert maps.features[-1].shape[1] == net.width == 12
    again = GatedUNet.from_json(json.loads(json.dumps(net.to_json())))
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(torch.ones(1, 1, *sides)).logits, net.eval()(torch.ones(1, 1, *sides)).logits)


def test_a_gate_that_says_background_everywhere_lets_nothing_through():
    """a_d = background: the depth's features are exactly 0, so the net above it sees the skip alone."""
    torch.manual_seed(0)
    net = GatedUNet(1, 3, (4, 4), 4, norm="group")
    up = net.up[0]
    with torch.no_grad():
        up.gate.weight.zero_()
        up.gate.bias.copy_(torch.tensor([200.0, 0.0, 0.0]))
    out, logits = up(torch.randn(1, 4, 4, 4), torch.randn(1, 4, 8, 8))
    assert float(out.detach().abs().max()) == 0.0
    assert logits.softmax(1)[:, 0].min() == 1.0


def test_the_critic_carries_gradient_to_the_deepest_gate():
    """The paper's claim of vanishing gradients: at depth 3 the gate's own convolution gets far more gradient from a
    critic of the pyramid than from a loss at full size alone."""
    torch.manual_seed(0)
    net = GatedUNet(1, 3, (8, 8, 8), 16, norm="group")
    critic = MaskPyramidCritic(3, (16, 16), (8, 16, 16), 4).eval()
    image, target = torch.randn(4, 1, 16, 16), torch.randint(0, 3, (4, 16, 16))
    norms = {}
    for name, scale in (("alone", 1), ("pyramid", 3)):
        net.zero_grad()
        critic.shown = scale
        maps = net(image)
        loss = torch.nn.functional.cross_entropy(maps.logits, target) if name == "alone" else fool(
            critic(predicted(maps.logits, maps.levels, 3)))  # fmt: skip
        loss.backward()
        deepest = net.up[1].gate.weight.grad
        norms[name] = float(deepest.norm()) / float(loss.detach())
    assert norms["alone"] > 0
    assert norms["pyramid"] > 2 * norms["alone"]


def test_the_critic_sees_masks_of_its_size_without_background_and_its_levels_matter():
    torch.manual_seed(0)
    critic = MaskPyramidCritic(4, (16, 16), (8, 8, 8), 4).eval()
    pyramid = [torch.rand(2, 3, 16 // 2**d, 16 // 2**d) for d in range(3)]
    scores = critic(pyramid)
    assert scores.shape == (2,)
    for d in range(3):
        other = [p.flip(2) if i == d else p for i, p in enumerate(pyramid)]
        assert not torch.allclose(critic(other), scores), d
    alone = MaskPyramidCritic(4, (16, 16), (8, 8, 8), 4, shown=1).eval()
    assert torch.equal(alone(pyramid[:1]), alone([pyramid[0], pyramid[1] * 0, pyramid[2] * 0]))
    with pytest.raises(UsageError, match="without background"):
        critic([torch.rand(2, 4, 16 // 2**d, 16 // 2**d) for d in range(3)])
    with pytest.raises(UsageError, match="a net without gates has one"):
        critic(pyramid[:1])
    with pytest.raises(UsageError, match="halvings"):
        MaskPyramidCritic(4, (18, 16), (8, 8, 8))


def test_noise_and_flips_are_for_training_alone_and_a_flip_keeps_the_gradient():
    torch.manual_seed(0)
    critic = MaskPyramidCritic(2, (8, 8), (4, 4), 2, noise=0.0, flip=1.0)
    pyramid = [torch.rand(1, 1, 8, 8, requires_grad=True), torch.rand(1, 1, 4, 4)]
    critic.eval()
    assert torch.equal(critic(pyramid), critic(pyramid))
    plain = critic(pyramid)
    (grad,) = torch.autograd.grad(plain, pyramid[0])
    critic.flip, critic.training = 1.0, True  # spectral norms stay as they are
    flipped = critic(pyramid)
    torch.testing.assert_close(flipped, -plain)
    torch.testing.assert_close(torch.autograd.grad(flipped, pyramid[0])[0], grad)
    critic.flip, critic.noise = 0.0, 0.2
    assert not torch.equal(critic(pyramid), critic(pyramid))


def test_a_model_runs_what_is_there_and_saves_all_parts(tmp_path):
    torch.manual_seed(0)
    model = DenseModel(
        {"net": GatedUNet(1, 3, (4, 4), 4, norm="group"), "critic": MaskPyramidCritic(3, (8, 8), (4, 4))}
    )
    values = torch.randn(3, 1, 1, 8, 8)
    field = Field(values, torch.tensor([[True], [False], [True]]))
    maps, at = model.see(field)
    assert at.tolist() == [0, 2]
    values[1] = float("nan")
    assert torch.equal(model.see(field)[0].logits, maps.logits)
    assert model.see(field, rows=torch.tensor([False, True, True]))[1].tolist() == [2]
    model._save_pretrained(tmp_path)
    again = DenseModel.of_files(tmp_path / "config.json", tmp_path / "model.safetensors")
    assert again.to_json() == model.to_json()
    assert torch.equal(again.see(field)[0].logits, model.eval().see(field)[0].logits)


def test_a_condition_goes_with_its_rows():
    told = Condition(index=torch.arange(4), vector=torch.arange(8.0).reshape(4, 2)).rows(torch.tensor([2, 0]))
    assert told.index.tolist() == [2, 0]
    assert told.vector[0].tolist() == [4.0, 5.0]
    assert told.tokens is None


@pytest.mark.parametrize(
    "kind", ["os:System", "../x:Y", "gated_unet:nn", "gated_unet:Net.mro", "no_such:Thing", "bundle:Bundle", "", None]
)
def test_a_config_can_name_nothing_but_parts(kind):
    with pytest.raises(Refused, match="part_kind"):
        part_from_json({"kind": kind})
    with pytest.raises(UsageError, match="no dense model"):
        DenseModel.from_json({"library": "other", "format": 1})
