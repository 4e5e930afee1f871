"""CMTA's fusion and its encoders: what is absent changes nothing, rows keep to themselves, long bags are affordable."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fabrica.errors import UsageError
from fabrica.models import LinearTower, ProjectionHead, Tower
from fabrica.models.bags import BagBody, GroupsBody
from fabrica.models.hazards import Hazards
from fabrica.models.nystrom import BagEncoder, GridPosition, NystromAttention, packed
from fabrica.models.translate import Translate, start
from fabrica.objectives.survival import Bins, Survival
from fabrica.types import Batch, Field

WIDTH, FEATURES = 16, 6


def net(**options) -> Translate:
    torch.manual_seed(0)
    bag = BagBody(FEATURES, WIDTH, 2, landmarks=4, exact=64, kernel=3, dropout=0.0)
    genes = GroupsBody(7, [(0, 1, 2), (2, 3), (4, 5, 6)], WIDTH, 2, hidden=8, dropout=0.0)
    towers = {
        n: Tower(b, ProjectionHead((WIDTH,), normalise=None), pool="cls") for n, b in (("slide", bag), ("genes", genes))
    }
    return Translate(towers, WIDTH, Hazards("survival", WIDTH, Bins((1.0, 2.0, 3.0))), **options).eval()


def fields(rows: int = 5, most: int = 12, slides: int = 1) -> dict[str, Field]:
    rng = torch.Generator().manual_seed(1)
    bags = torch.randn(rows, slides, most, FEATURES + 1, generator=rng)
    bags[..., -1] = 0
    for i in range(rows):
        bags[i, :, : 3 + i, -1] = 1
    bags *= bags[..., -1:]
    genes = torch.randn(rows, 1, 7, generator=rng)
    return {
        "slide": Field(bags, torch.ones(rows, slides).bool()), "genes": Field(genes, torch.ones(rows, 1).bool())
    }  # fmt: skip


def said(model: Translate, given: dict[str, Field]) -> torch.Tensor:
    with torch.no_grad():
        return model.answer(given)["survival"]


@pytest.mark.parametrize("options", [{}, {"translate": False}, {"join": "bilinear"}])
def test_left_out_absent_and_nan_are_one(options) -> None:
    model, given = net(**options), fields()
    for name in given:
        other = {n: f for n, f in given.items() if n != name}
        absent = Field(torch.full_like(given[name].values, torch.nan), torch.zeros_like(given[name].valid))
        want = said(model, other)
        torch.testing.assert_close(said(model, {**other, name: absent}), want, atol=1e-6, rtol=0)
        assert torch.isfinite(want).all()
        assert not torch.allclose(want, said(model, given))
    gone = {n: Field(f.values, torch.zeros_like(f.valid)) for n, f in given.items()}
    prior = said(model, gone)
    torch.testing.assert_close(prior, prior[:1].expand_as(prior))


@pytest.mark.parametrize("slides", [1, 2])
def test_a_row_does_not_depend_on_its_batch(slides: int) -> None:
    model, given = net(), fields(slides=slides)
    given["slide"].valid[1] = False
    given["genes"].valid[2] = False
    if slides == 2:
        given["slide"].valid[3, 0] = False
    whole = said(model, given)
    for i in range(5):
        alone = {n: Field(f.values[i : i + 1], f.valid[i : i + 1]) for n, f in given.items()}
        torch.testing.assert_close(said(model, alone)[0], whole[i], atol=1e-5, rtol=0)


def test_saved_and_loaded_say_the_same(tmp_path: Path) -> None:
    model = net(join="bilinear")
    model._save_pretrained(tmp_path)
    again = Translate.of_files(tmp_path / "config.json", tmp_path / "model.safetensors")
    torch.testing.assert_close(said(again, fields()), said(model, fields()))


def test_alignment_gives_the_own_encoding_no_gradient_and_alpha_0_moves_no_more_than_the_likelihood() -> None:
    model, given = net(), fields()
    pairs = model.read(given).pairs
    loss = sum((told - own.detach()).abs().mean() for told, own, _ in pairs.values())
    grads = torch.autograd.grad(loss, [pairs["slide"][1], pairs["genes"][1]], allow_unused=True, retain_graph=True)
    batch = Batch(tuple("abcde"), given, {"survival": torch.tensor([1.0, -2.0, 3.0, 0.0, 9.0])},
                  {"survival": torch.tensor([True, True, True, False, True])})  # fmt: skip
    whole, plain = (
        Survival("survival", ("slide", "genes"), Bins((1.0, 2.0, 3.0)), w)(model, batch) for w in (1.0, 0.0)
    )
    assert grads == (None, None) or all(g is None or not g.any() for g in grads)
    assert plain.count == 4
    assert float(plain.total.detach()) == pytest.approx(plain.terms["likelihood"])
    added = sum(whole.terms[f"align/{n}"] for n in pairs)
    assert float(whole.total.detach() - plain.total.detach()) == pytest.approx(added, rel=1e-4)
    assert {"norm/slide", "spread/genes"} <= set(whole.terms)


def test_no_gradient_reaches_a_tower_from_rows_without_its_field() -> None:
    model, given = net(), fields()
    given["slide"].valid[:] = False
    model.answer(given)["survival"].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.tower("slide").parameters())
    assert model.queries["slide"].grad.abs().sum() > 0


def test_attention_is_a_distribution_over_the_patches_there() -> None:
    model, given = net(), fields()
    given["slide"].valid[1] = False
    found = model.attention(given)
    assert found.shape == (5, 3, 12) or found.shape[1] == 3
    torch.testing.assert_close(found.sum(-1)[[0, 2, 3, 4]], torch.ones(4, 3))
    assert not found[1].any()
    assert not found[0, :, 3:].any()  # the first row has three patches


def test_every_linear_layer_starts_as_in_the_public_code() -> None:
    model = net()
    start(model)
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    ratios = [
        float(m.weight.detach().std() / (2 / sum(m.weight.shape)) ** 0.5) for m in linear if m.weight.numel() > 200
    ]
    assert all(0.8 < r < 1.2 for r in ratios), ratios
    assert not any(m.bias.any() for m in linear if m.bias is not None)


def test_two_sides_with_first_tokens_are_wanted() -> None:
    plain = {n: Tower(LinearTower(3, WIDTH), ProjectionHead((WIDTH,), normalise=None)) for n in "ab"}
    heads = Hazards("survival", WIDTH, Bins((1.0,)))
    with pytest.raises(UsageError, match="first token"):
        Translate(plain, WIDTH, heads)
    with pytest.raises(UsageError, match="between two sides"):
        Translate({"a": plain["a"]}, WIDTH, heads)


def test_nystrom_is_close_to_exact_attention_and_equal_where_landmarks_are_tokens() -> None:
    torch.manual_seed(0)
    x, mask = torch.randn(1, 96, 16), torch.ones(1, 96).bool()
    few = NystromAttention(16, 2, landmarks=96, steps=30, exact=96, kernel=0, dropout=0.0).eval()
    exact = few(x, mask)
    few.exact = 0
    torch.testing.assert_close(few(x, mask), exact, atol=2e-3, rtol=0)
    few.landmarks = 24
    assert (few(x, mask) - exact).abs().mean() < 0.5 * exact.abs().mean()


def test_long_bags_cost_memory_in_line_with_their_length() -> None:
    encoder = BagEncoder(8, 2, position=True, landmarks=16, exact=64).eval()
    with torch.no_grad():
        cls, tokens = encoder(torch.randn(1, 50_000, 8), torch.ones(1, 50_000).bool())  # exact: 20 GB of attention
        one, _ = encoder(torch.randn(1, 1, 8), torch.ones(1, 1).bool())
    assert tokens.shape == (1, 50_000, 8)
    assert torch.isfinite(cls).all()
    assert torch.isfinite(one).all()


def test_how_much_the_order_of_patches_matters() -> None:
    """With convolutions a lot (random weights: 0.8 of the norm), hence raster order in `encode.bags`; without, none."""
    torch.manual_seed(0)
    x, mask = torch.randn(1, 30, 8), torch.ones(1, 30).bool()
    other = x[:, torch.randperm(30)]
    plain = BagEncoder(8, 2, position=False, kernel=0).eval()
    torch.testing.assert_close(plain(x, mask)[0], plain(other, mask)[0], atol=1e-5, rtol=0)
    placed = BagEncoder(8, 2, position=True, kernel=33).eval()
    moved = float((placed(x, mask)[0] - placed(other, mask)[0]).detach().norm() / placed(x, mask)[0].detach().norm())
    assert 0.1 < moved < 1.5


def test_grid_position_by_hand_of_one_token_and_of_padding() -> None:
    grid = GridPosition(2)
    for conv in grid.convs:
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
        conv.weight.data[:, :, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1.0
    x = torch.arange(10.0).view(1, 5, 2)
    torch.testing.assert_close(grid(x, torch.ones(1, 5).bool()), 4 * x)  # itself and three centres


def test_packed_keeps_order() -> None:
    values, mask = torch.arange(8.0).view(2, 4, 1), torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0]]).bool()
    got, there = packed(values, mask)
    np.testing.assert_array_equal(got[..., 0].numpy(), [[1, 3], [4, 0]])
    assert there.tolist() == [[True, True], [True, False]]
