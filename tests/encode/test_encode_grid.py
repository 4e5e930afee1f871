"""One grid for image and mask: nothing is stretched, everything comes back to the item's own voxels."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.encode.grid import GridEncode, centred
from fabrica.errors import Refused, UsageError
from fabrica.types import Item, Origin

ORIGIN = Origin("demo", "a", "", "CC0-1.0", "synthetic")
RNG = np.random.default_rng(0)


def volume(shape=(5, 6, 7), affine=None, seed=0):
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return Item("volume", values, ORIGIN, affine=np.eye(4) if affine is None else affine)


@settings(max_examples=40, deadline=None)
@given(
    st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    st.tuples(*[st.sampled_from([0.7, 1.0, 3.0])] * 3), st.tuples(*[st.integers(2, 7)] * 3),
)  # fmt: skip
def test_an_identity_net_gives_the_input_grid_exactly(order, signs, mm, shape):
    """Anisotropic, flipped and permuted affines."""
    affine = np.eye(4)
    affine[:3, :3] = np.diag(np.array(signs) * np.array(mm))[:, order]
    item = volume(shape, affine)
    grid = GridEncode((8, 8, 8), scale=(-10.0, 10.0))
    back = grid.restore(grid.whole(item), item)
    np.testing.assert_allclose(back[0] * 20 - 10, item.array(), atol=1e-5)
    mask = item.array() > 0
    np.testing.assert_array_equal(grid.whole_labels(mask, item), grid.whole(item)[0] > 0.5)


def test_a_mask_lies_on_its_image_after_turning_resampling_and_cropping():
    affine = np.diag([-2.0, 1.0, 1.0, 1.0])
    values = np.zeros((10, 20, 20), np.float32)
    values[2:5, 4:12, 10:16] = 1.0
    item = Item("volume", values, ORIGIN, affine=affine)
    grid = GridEncode((18, 18, 14), spacing=(1.0, 1.0, 1.0), scale=(0.0, 1.0))
    image = grid(item, RNG)[0]
    mask = grid.labels(values > 0.5, item)
    assert image.shape == mask.shape == (18, 18, 14)
    assert mask.sum() > 200
    assert ((image > 0.5) == mask).mean() > 0.98
    assert image[mask].min() > 0.2
    back = grid.restore(grid.whole(item), item)
    assert back.shape == (1, 10, 20, 20)
    assert 2 * ((back[0] > 0.5) & (values > 0.5)).sum() / ((back[0] > 0.5).sum() + values.sum()) > 0.97


@settings(max_examples=25, deadline=None)
@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_centring_there_and_back_keeps_what_both_hold(have, want):
    grid = np.arange(1, 1 + have[0] * have[1]).reshape(1, *have)
    there = centred(grid, want)
    back = centred(there, have)
    assert there.shape == (1, *want)
    assert set(np.unique(back)) - {0} == set(np.unique(there)) - {0}
    assert np.array_equal(back[back > 0], grid[back > 0])


def test_padding_is_not_inside():
    item = Item("image", np.ones((3, 5)), ORIGIN)
    inside = GridEncode((8, 4)).inside(item)
    assert inside.sum() == 3 * 4
    assert inside[2:5].all()


def test_scales_and_the_explicit_foreground():
    """The rule "above 0" loses everything below water in CT; it is a setting, and off unless asked for."""
    values = np.concatenate([np.full(50, -1000.0), np.full(50, 40.0)]).reshape(10, 10).astype(np.float32)
    item = Item("image", values, ORIGIN, unit="HU")
    every = GridEncode((10, 10), scale="zscore").whole(item)
    np.testing.assert_allclose([every.mean(), every.std()], [0, 1], atol=1e-4)
    above = GridEncode((10, 10), scale="zscore", above=-500.0).whole(item)
    assert above.max() == 0.0  # all of it is of one value
    window = GridEncode((10, 10), scale=(-200.0, 250.0)).whole(item)
    np.testing.assert_allclose([window.min(), window.max()], [0.0, 240 / 450], atol=1e-6)
    ramp = Item("image", np.arange(101.0)[None], ORIGIN)
    robust = GridEncode((1, 101)).whole(ramp)
    np.testing.assert_allclose([robust[0, 0, 50], robust[0, 0, 75] - robust[0, 0, 25]], [0.0, 1.0], atol=1e-6)
    flat = Item("image", np.full((4, 4), 7.0), ORIGIN)
    for scale in ("robust", "zscore", "percentile"):
        assert np.isfinite(GridEncode((4, 4), scale=scale).whole(flat)).all()


def test_colour_and_grey():
    colour = Item("image", np.full((4, 6, 3), 128, np.uint8), ORIGIN)
    grey = Item("image", np.full((4, 6), 128, np.uint8), ORIGIN)
    for item in (colour, grey):
        assert GridEncode((4, 6), 3, scale=(0, 255)).whole(item).shape == (3, 4, 6)
        np.testing.assert_allclose(GridEncode((4, 6), 1, scale=(0, 255)).whole(item), 128 / 255, atol=1e-2)


@pytest.mark.parametrize(
    ("size", "item", "code"),
    [
        ((4, 4, 4), Item("volume", np.zeros((3, 3)), ORIGIN), "volume_shape"),
        ((4, 4, 4), Item("volume", np.zeros((0, 3, 3)), ORIGIN), "volume_shape"),
        ((4, 4), Item("image", np.full((3, 3), np.nan), ORIGIN), "image_nonfinite"),
        ((4, 4), Item("image", np.zeros((3, 3, 9)), ORIGIN), "image_shape"),
    ],
)
def test_what_is_no_image_is_refused(size, item, code):
    with pytest.raises(Refused, match=code):
        GridEncode(size)(item, RNG)


def test_masks_of_another_shape_and_settings_that_make_no_sense_are_refused():
    with pytest.raises(Refused, match="mask_shape"):
        GridEncode((4, 4)).labels(np.zeros((3, 4)), Item("image", np.zeros((4, 4)), ORIGIN))
    with pytest.raises(Refused, match="mask_shape"):
        GridEncode((4, 4)).labels(np.zeros((3, 4, 5)))
    for wrong in ({"size": (4,)}, {"size": (4, 4), "channels": 2}, {"size": (4, 4), "spacing": (1.0, 1.0, 1.0)},
                  {"size": (4, 4), "scale": (2.0, 1.0)}):  # fmt: skip
        with pytest.raises(UsageError):
            GridEncode(**wrong)


def test_json_brings_it_back():
    grid = GridEncode((4, 5, 6), spacing=(1.0, 2.0, 3.0), scale=(-200.0, 250.0), above=0.0)
    assert GridEncode.from_json(json.loads(json.dumps(grid.to_json()))) == grid
