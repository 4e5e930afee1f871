"""One encoder, many heads: kept apart, MONAI's network underneath, a field of view that dilation doubles; transfer."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import UsageError
from fabrica.models.dense import Condition, DenseModel, fit_size
from fabrica.models.shared_encoder import SharedEncoder
from fabrica.models.transfer import transfer
from fabrica.objectives.by_domain import ByDomain
from fabrica.types import Batch, Field

TINY = {"layers": (1, 1, 1, 1), "widths": (4, 8, 8, 8), "first": 3, "pool": False}


def net(heads=None, **changes):
    torch.manual_seed(0)
    return SharedEncoder(heads or {"a": 2, "b": 3}, **{**TINY, **changes})


@pytest.mark.parametrize(
    ("layers", "block", "shortcut", "millions"),
    [((1, 1, 1, 1), "basic", "B", 14.4), ((2, 2, 2, 2), "basic", "A", 33.0), ((3, 4, 6, 3), "bottleneck", "B", 46.2)],
)
def test_the_encoder_has_the_size_of_medicalnets(layers, block, shortcut, millions):
    """Millions of parameters in MedicalNet's README for ResNet-10, -18 and -50; they are those of the encoder alone."""
    model = SharedEncoder({"a": 2}, layers=layers, block=block, shortcut=shortcut)
    assert sum(p.numel() for p in model.encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_weights_of_monais_resnet_fit_as_they_are(shortcut):
    from monai.networks.nets.resnet import ResNet

    plain = ResNet("basic", [1, 1, 1, 1], [4, 8, 8, 8], n_input_channels=1, conv1_t_size=3, conv1_t_stride=2,
                   no_max_pool=True, shortcut_type=shortcut, feed_forward=False, bias_downsample=False)  # fmt: skip
    model = net(shortcut=shortcut)
    report = transfer(model, plain.state_dict(), backbone="encoder.", rename={"": "encoder."})
    assert (report.share, report.left, report.missing) == (1.0, (), ())
    assert torch.equal(model.encoder.layer2[0].conv1.weight, plain.layer2[0].conv1.weight)


def test_the_grid_stays_at_stride_8_and_dilation_doubles_the_field_of_view():
    model = SharedEncoder({"a": 2}, widths=(4, 4, 4, 4)).eval()
    image = torch.zeros(1, 1, 64, 16, 16, requires_grad=True)
    shapes = [f.shape[2] for f in model.encode(image)]
    assert shapes == [16, 8, 8, 8]
    assert (model.encoder.layer3[0].conv1.dilation, model.encoder.layer4[0].conv2.dilation) == ((2,) * 3, (4,) * 3)

    def seen(dilation):
        for layer, d in ((model.encoder.layer3, dilation), (model.encoder.layer4, 2 * dilation if dilation > 1 else 1)):
            for m in layer.modules():
                if isinstance(m, torch.nn.Conv3d) and m.kernel_size[0] == 3:
                    m.dilation = m.padding = (d,) * 3
        middle = model.encode(torch.rand(1, 1, 160, 16, 16).requires_grad_())
        return middle[-1].shape[2], sum(2 * d for d in ((dilation,) * 2 + ((2 * dilation if dilation > 1 else 1),) * 2))

    (grid, wide), (same, narrow) = seen(2), seen(1)
    assert grid == same == 20
    assert wide >= 2 * narrow


@settings(max_examples=10, deadline=None)
@given(st.tuples(*[st.integers(9, 21)] * 3))
def test_odd_sides_come_back_exactly(sides):
    maps = fit_size(net({"a": 2}), torch.randn(1, 1, *sides))
    assert maps.logits.shape == (1, 2, *sides)


def batch(index, n=4):
    g = torch.Generator().manual_seed(0)
    field = Field(torch.randn(n, 1, 1, 8, 8, 8, generator=g), torch.ones(n, 1, dtype=torch.bool))
    known = torch.ones(n, 8, 8, 8, dtype=torch.bool)
    target = torch.randint(0, 2, (n, 8, 8, 8), generator=g)
    domains = torch.tensor(index)
    return Batch(tuple(map(str, range(n))), {"image": field}, {"mask": target, "domain": domains},
                 {"mask": known, "domain": torch.ones(n, dtype=torch.bool)})  # fmt: skip


def test_a_batch_of_one_set_leaves_every_other_decoder_bit_identical():
    """Also under weight decay: AdamW moves nothing that has no gradient."""
    model = DenseModel({"net": net({"a": 2, "b": 3, "c": 2})})
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    loss = ByDomain()(model, batch([1, 1, 1, 1]))
    loss.total.backward()
    optimiser.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert not any("heads.a" in n or "heads.c" in n for n in moved)
    assert {"net.heads.b.weight", "net.encoder.conv1.weight"} <= moved
    assert set(loss.terms) == {"1"}


def test_every_set_reaches_the_encoder():
    for number in range(3):
        model = DenseModel({"net": net({"a": 2, "b": 3, "c": 2})})
        ByDomain()(model, batch([number] * 4)).total.backward()
        assert model.net.encoder.conv1.weight.grad.abs().sum() > 0


def test_a_mixed_batch_is_the_batches_apart():
    model = DenseModel({"net": net({"a": 2, "b": 3})}).eval()
    mixed = batch([0, 1, 1, 0])
    image = mixed.fields["image"].values[:, 0]
    whole = model.net(image, Condition(index=torch.tensor([0, 1, 1, 0])))
    apart = model.net(image[1:3], Condition(index=torch.tensor([1, 1])))
    torch.testing.assert_close(whole.logits[1:3], apart.logits, rtol=1e-4, atol=1e-5)
    shares = whole.logits.softmax(1)
    assert (shares[[0, 3], 2] == 0).all()  # head a has no third class
    loss = ByDomain()(model, mixed)
    parts = [ByDomain()(model, batch([n] * 4)) for n in (0, 1)]
    assert loss.count == 4
    assert set(loss.terms) == {"0", "1"}
    assert all(torch.isfinite(p.total) for p in (loss, *parts))
    ce = torch.nn.functional.cross_entropy(whole.logits, mixed.targets["mask"])
    torch.testing.assert_close(loss.total, ce)


def test_what_is_unknown_or_absent_does_not_run():
    model = DenseModel({"net": net({"a": 2, "b": 3})})
    given = batch([0, 1, 1, 0])
    given.known["domain"][0] = False
    given.known["mask"][1] = False
    given.fields["image"].valid[2] = False
    assert ByDomain()(model, given).count == 1
    given.known["domain"][3] = False
    assert ByDomain()(model, given).count == 0


def test_which_head_must_be_said_and_be_there():
    model = net({"a": 2, "b": 3})
    image = torch.zeros(1, 1, 8, 8, 8)
    with pytest.raises(UsageError, match="which of the heads a, b"):
        model(image)
    with pytest.raises(UsageError, match="head number"):
        model(image, Condition(index=torch.tensor([2])))
    with pytest.raises(UsageError, match="no head 'c'"):
        model.number("c")
    assert model.number("b") == 1


def test_a_missing_shortcut_type_names_both():
    with pytest.raises(UsageError, match=r"'A': strided identity .* or 'B': 1x1 convolution"):
        net(shortcut="")


@pytest.mark.parametrize(("norm", "dims"), [("group", 3), ("batch", 2), ("group", 2)])
def test_json_brings_the_net_back(norm, dims):
    model = net(norm=norm, dims=dims, head="strong", channels=3).eval()
    again = SharedEncoder.from_json(json.loads(json.dumps(model.to_json()))).eval()
    again.load_state_dict(model.state_dict())
    image, told = torch.randn(2, 3, *(8,) * dims), Condition(index=torch.tensor([0, 1]))
    assert torch.equal(model(image, told).logits, again(image, told).logits)
    kinds = {type(m) for m in model.modules()}
    assert (torch.nn.GroupNorm in kinds) == (norm == "group")
    assert (torch.nn.BatchNorm3d in kinds) == (norm == "batch" and dims == 3)


def test_the_shortcut_of_type_a_carries_gradient():
    """MONAI's takes `.data` of it, so that the identity teaches nothing; ours is a module."""
    model = net({"a": 2}, shortcut="A")
    with torch.no_grad():
        model.encoder.layer2[0].bn2.weight.zero_()
    image = torch.randn(1, 1, 16, 16, 16, requires_grad=True)
    model.encode(image)[1].sum().backward()
    assert image.grad.abs().sum() > 0


# ---------------------------------------------------------------- transfer


def test_a_prefix_that_does_not_fit_is_an_error_and_not_silence():
    """`module.` decides in the public code whether anything is loaded; nothing is said about it there."""
    source = {f"module.{n}": t for n, t in net().state_dict().items()}
    fresh = net({"new": 2}, widths=TINY["widths"])
    before = fresh.encoder.conv1.weight.detach().clone()
    with pytest.raises(UsageError, match=r"0\.0 % of the backbone loaded.*module\.encoder\.conv1"):
        transfer(fresh, source, backbone="encoder.")
    assert torch.equal(fresh.encoder.conv1.weight, before)
    report = transfer(fresh, source, backbone="encoder.", rename={"module.": ""})
    assert report.share == 1.0
    assert torch.equal(fresh.encoder.conv1.weight, source["module.encoder.conv1.weight"])
    assert {n.split(".")[0] for n in report.left} == {"heads"}


def test_the_other_shortcut_type_does_not_pass_for_this_one():
    with pytest.raises(UsageError, match="other shortcuts"):
        transfer(net(shortcut="B"), net(shortcut="A").state_dict(), backbone="encoder.", least=0.99)


def test_heads_are_skipped_and_reported():
    fresh = net({"a": 2})
    report = transfer(fresh, net({"a": 2}).state_dict(), skip=("heads.",))
    assert all(n.startswith("heads.") for n in report.skipped)
    assert report.skipped
    assert not any(n.startswith("heads.") for n in report.loaded)
    assert "100.0 %" in str(report)


@pytest.mark.parametrize("how", ["repeat", "mean", "first", "error"])
def test_one_channel_weights_for_a_four_channel_input(how):
    one, four = net(channels=1), net(channels=4)
    source, target = (four, one) if how in ("mean", "first") else (one, four)
    if how == "error":
        strict = transfer(target, source.state_dict(), backbone="encoder.", least=0.0)
        assert "encoder.conv1.weight" in strict.missing
        return
    report = transfer(target, source.state_dict(), backbone="encoder.", inputs=how)
    assert report.reshaped == ("encoder.conv1.weight",)
    image = torch.randn(1, 1, 8, 8, 8)
    if how == "repeat":  # the same grey in all channels gives the same map
        torch.testing.assert_close(target.encoder.conv1(image.expand(-1, 4, -1, -1, -1)), source.encoder.conv1(image))
    if how == "mean":
        torch.testing.assert_close(target.encoder.conv1(image), source.encoder.conv1(image.expand(-1, 4, -1, -1, -1)))
    if how == "first":
        assert torch.equal(target.encoder.conv1.weight, source.encoder.conv1.weight[:, :1])
