"""Towers: what is absent costs and changes nothing; pools; heads; freezing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fabrica.errors import UsageError
from fabrica.models import (
    ConvTower,
    Freeze,
    LinearTower,
    MultiTower,
    ProjectionHead,
    SignalTower,
    TableTower,
    TextTower,
    Tower,
    VolumeTower,
    normalise,
)
from fabrica.objectives.scale import LogitScale
from fabrica.types import Field


def towers(dim=8):
    torch.manual_seed(0)
    return {
        "image": Tower(ConvTower(1, (8, 16)), ProjectionHead((16, 12, dim)), pool="mean"),
        "text": Tower(TextTower(50, 16, 1, 2, 32), ProjectionHead((16, dim)), pool="max"),
        "labs": Tower(TableTower(6, (16,)), ProjectionHead((16, dim), last_norm="ln", normalise=None)),
    }


def batch(counts, seed=0, most=3, length=9):
    """Fields of len(counts) records with that many items each; what is absent is filled with rubbish."""
    g = torch.Generator().manual_seed(seed)
    n = len(counts)
    valid = torch.arange(most)[None] < torch.tensor(counts)[:, None]
    ids = torch.randint(1, 50, (n, most, length), generator=g)
    lengths = torch.randint(1, length + 1, (n, most, 1), generator=g)
    return {
        "image": Field(torch.randn(n, most, 1, 16, 16, generator=g), valid),
        "text": Field(ids, valid, mask=(torch.arange(length) < lengths) & valid[..., None]),
        "labs": Field(torch.randn(n, most, 6, generator=g), valid),
    }


def part(field, rows=slice(None), items=slice(None)):
    cut = [None if t is None else t[rows][:, items] for t in (field.values, field.valid, field.hours, field.mask)]
    return Field(*cut)


MODEL = MultiTower(towers(), 8).eval()
TOKEN = MultiTower(towers(), 8, absent="token").eval()


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 999), st.sampled_from([MODEL, TOKEN]), st.data()
)
def test_masking_an_item_is_a_record_without_it_and_order_changes_nothing(counts, seed, model, data):
    fields = batch(counts, seed)
    with torch.no_grad():
        z, here = model.embed(fields)
        order = data.draw(st.permutations(range(len(counts))))
        zs, _ = model.embed({k: part(f, list(order)) for k, f in fields.items()})
        for name, field in fields.items():
            assert here[name].tolist() == [c > 0 for c in counts]
            assert torch.isfinite(z[name]).all()
            assert torch.allclose(zs[name], z[name][list(order)], atol=1e-5)
            items = data.draw(st.permutations(range(3)))
            assert torch.allclose(model.embed({name: part(field, items=list(items))})[0][name], z[name], atol=1e-5)
            for i, count in enumerate(counts):
                alone = part(field, slice(i, i + 1), slice(0, max(count, 1)))
                assert torch.allclose(model.embed({name: alone})[0][name][0], z[name][i], atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999), st.integers(1, 20), st.sampled_from(["cls", "max", "mean", "last", "attention"]))
def test_padding_a_text_changes_nothing(seed, more, pool):
    torch.manual_seed(0)
    tower = Tower(TextTower(50, 16, 2, 2, 64), pool=pool).eval()
    field = batch([1, 1], seed, most=1)["text"]
    pad = (0, more)
    rubbish = nn.functional.pad(field.values, pad, value=7)
    padded = Field(rubbish, field.valid, mask=nn.functional.pad(field.mask, pad, value=False))
    with torch.no_grad():
        assert torch.allclose(tower(field).pooled, tower(padded).pooled, atol=1e-5)


def test_absent_items_never_reach_the_body():
    seen = []
    tower = towers()["image"]
    tower.body.register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
    tower(batch([0, 2, 3])["image"])
    tower(batch([0, 0])["image"])
    assert seen == [5]


def test_any_subset_of_fields_is_read():
    fields = batch([1, 2])
    for names in (["labs"], ["text", "image"], []):
        z, here = MODEL.embed({n: fields[n] for n in names})
        assert sorted(z) == sorted(here) == sorted(names)
    with pytest.raises(UsageError, match="did you mean 'image'"):
        MODEL.embed({"imge": fields["image"]})


def test_absent_rows_are_zero_or_a_learned_token_and_presence_tells_the_truth():
    fields = batch([0, 1])
    z, here = MODEL.embed(fields)
    assert here["image"].tolist() == [False, True]
    assert z["image"][0].abs().max() == 0
    t, there = TOKEN.embed(fields)
    assert there["image"].tolist() == [False, True]
    assert torch.allclose(t["image"][0].norm(), torch.tensor(1.0))
    assert torch.allclose(t["image"][0], normalise(TOKEN.missing["image"], "l2"))
    t["image"][0, 0].backward()
    assert TOKEN.missing["image"].grad is not None
    TOKEN.zero_grad()


def test_an_absent_row_gives_no_gradient():
    model = MultiTower(towers(), 8)
    z, _ = model.embed({"image": batch([0, 0])["image"]})
    assert not z["image"].requires_grad
    fields = batch([0, 2])
    fields["image"].values.requires_grad_()
    model.embed({"image": fields["image"]})[0]["image"].sum().backward()
    assert fields["image"].values.grad[0].abs().max() == 0
    assert fields["image"].values.grad[1, 2].abs().max() == 0
    assert fields["image"].values.grad[1, :2].abs().max() > 0


def test_several_items_are_averaged_before_the_head():
    field = batch([3], most=3)["image"]
    tower = towers()["image"].eval()
    each = torch.stack([tower(part(field, items=slice(i, i + 1))).pooled[0] for i in range(3)])
    assert torch.allclose(tower(field).pooled[0], each.mean(0), atol=1e-6)
    found = tower(field)
    assert found.tokens.shape == (1, 3 * 64, 16)
    assert found.grid is None
    assert tower(part(field, items=slice(0, 1))).grid == (8, 8)


def test_pools_on_numbers_worked_by_hand():
    values = torch.tensor([[[1.0, 5.0], [3.0, 1.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    from fabrica.models import Pooling, Tokens

    body = TextTower(5, 2, 1, 1, 4)
    want = {"cls": [1, 5], "max": [3, 5], "mean": [2, 3], "last": [3, 1], "attention": [2, 3]}
    for how, row in want.items():
        assert Pooling(how, body)(Tokens(values, mask))[0].tolist() == row
    assert Pooling("mean", body)(Tokens(values, prefix=1))[0].tolist() == [6, 5]
    assert Pooling("last", body)(Tokens(values))[0].tolist() == [9, 9]
    with pytest.raises(UsageError, match="class token"):
        Tower(ConvTower(), pool="cls")
    with pytest.raises(UsageError, match="none of cls"):
        Tower(ConvTower(), pool="sum")


def test_heads():
    x = torch.randn(6, 16)
    assert torch.allclose(ProjectionHead((16, 8))(x).norm(dim=1), torch.ones(6))
    ln = ProjectionHead((16, 8), normalise="layernorm")(x)
    assert torch.allclose(ln.mean(1), torch.zeros(6), atol=1e-6)
    assert torch.equal(ProjectionHead((16,), normalise=None)(x), x)
    head = ProjectionHead((16, 12, 8), norm="bn", last_norm="bn", activation="gelu").eval()
    assert [type(m).__name__ for m in head.layers] == ["Linear", "BatchNorm1d", "GELU", "Linear", "BatchNorm1d"]
    assert head.layers[0].bias is None
    tokens = torch.randn(2, 3, 16)
    assert torch.allclose(head(tokens)[1, 2], head(tokens[1, 2][None])[0], atol=1e-6)  # a 1x1 convolution
    assert ProjectionHead.from_json(head.to_json()).to_json() == head.to_json()
    # ConVIRT: W2 relu(W1 h), to the unit sphere
    g = ProjectionHead((16, 8, 8))
    w1, w2 = g.layers[0], g.layers[2]
    want = torch.relu(x @ w1.weight.T + w1.bias) @ w2.weight.T + w2.bias
    assert torch.allclose(g(x), want / want.norm(dim=1, keepdim=True), atol=1e-6)
    for make in (
        lambda: ProjectionHead(()),
        lambda: ProjectionHead((4, 4), activation="tanh"),
        lambda: ProjectionHead((4, 4), normalise="l1"),
        lambda: ProjectionHead((4, 4), last_norm="gn"),
        lambda: Tower(ConvTower(), ProjectionHead((7, 4))),
        lambda: MultiTower(towers(8), 9),
        lambda: MultiTower({}, 8),
        lambda: MultiTower({"a.b": towers()["image"]}, 8),
        lambda: MultiTower(towers(), 8, absent="zero"),
        lambda: SignalTower(layout="3d"),
        lambda: TextTower(10, 15, heads=4),
        lambda: ConvTower(norm="layer"),
    ):
        with pytest.raises(UsageError):
            make()


@pytest.mark.parametrize(
    ("body", "shape", "tokens"),
    [
        (ConvTower(1), (1, 64, 64), 64),
        (ConvTower(3, norm="batch"), (3, 32, 48), 24),
        (VolumeTower(1, (8, 16, 16)), (1, 16, 16, 8), 32),
        (SignalTower(12, (8, 16)), (12, 1000), 63),
        (SignalTower(12, (8, 16), layout="picture"), (12, 5000), 313),
        (TableTower(100, (32, 64)), (100,), 1),
        (LinearTower(5, 16), (5,), 1),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else None,
)
def test_small_bodies(body, shape, tokens):
    body.check(shape, None)
    out = body(torch.randn(2, *shape))
    assert out.values.shape == (2, tokens, body.width)
    again = type(body).from_json(body.to_json())
    again.load_state_dict(body.state_dict())
    body.eval()
    again.eval()
    x = torch.randn(2, *shape)
    assert torch.equal(body(x).values, again(x).values)
    with pytest.raises(UsageError, match="field gives"):
        body.check((9, *shape[1:]), None)
    with pytest.raises(UsageError):
        body.check(None, 10)


def test_frozen_parts_have_no_gradient_no_dropout_and_the_rest_trains():
    torch.manual_seed(0)
    tower = Tower(TextTower(50, 16, 3, 2, 32, dropout=0.5), pool="max", freeze=Freeze(layers=2)).train()
    frozen = {n for n, p in tower.body.named_parameters() if not p.requires_grad}
    assert {"words.weight", "places", "blocks.0.qkv.weight", "blocks.1.mlp.2.bias"} <= frozen
    assert not any(n.startswith(("blocks.2", "last")) for n in frozen)
    assert [b.training for b in tower.body.blocks] == [False, False, True]
    tower(batch([1, 1], most=1)["text"]).pooled.sum().backward()
    assert all((p.grad is None) == (n in frozen) for n, p in tower.body.named_parameters())
    named = Tower(TextTower(50, 16, 1, 2, 32), freeze=Freeze(("words.*", "places")))
    assert {n for n, p in named.named_parameters() if not p.requires_grad} == {"body.words.weight", "body.places"}
    for freeze in (Freeze(layers=9), Freeze(("wrds.*",))):
        with pytest.raises(UsageError):
            Tower(TextTower(50, 16, 1, 2, 32), freeze=freeze)


def test_a_wholly_frozen_body_runs_without_a_graph_and_keeps_its_statistics():
    tower = Tower(ConvTower(1, (8, 16), norm="batch"), ProjectionHead((16, 4)), freeze=Freeze(layers=-1)).train()
    before = {k: v.clone() for k, v in tower.body.state_dict().items()}
    pooled = tower(batch([1, 1], most=1)["image"]).pooled
    assert not pooled.requires_grad
    assert tower.head(pooled).requires_grad
    assert all(torch.equal(v, before[k]) for k, v in tower.body.state_dict().items())


def test_texts_above_the_positions_are_an_error():
    with pytest.raises(UsageError, match="40 tokens; this tower has 32 positions"):
        TextTower(50, 16, 1, 2, 32)(torch.ones(1, 40, dtype=torch.long))


def test_bf16_autocast_gives_float32_unit_rows():
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        z, _ = MODEL.embed(batch([1, 2]))
    assert z["image"].dtype == torch.float32
    assert np.allclose(z["image"].norm(dim=1), 1, atol=1e-5)


def test_save_pretrained_and_from_pretrained_are_equal_without_a_sound(tmp_path, capsys):
    model = MultiTower(towers(), 8, scale=LogitScale(10.0, learnable=False), absent="token")
    model.save_pretrained(tmp_path / "m")
    again = MultiTower.from_pretrained(str(tmp_path / "m"))
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    fields = batch([0, 2, 3])
    with torch.no_grad():
        a, b = model.eval().embed(fields)[0], again.embed(fields)[0]
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert float(again.logit_scale()) == pytest.approx(10.0)
    assert not again.logit_scale.log_scale.requires_grad
    assert capsys.readouterr().out == ""
