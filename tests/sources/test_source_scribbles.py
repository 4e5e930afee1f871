"""Strokes: files with an unknown value, skeletons and walks that stay in their mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from fabrica.errors import UsageError
from fabrica.sources.scribbles import masks, random_walk, skeleton, strokes
from fabrica.types import Origin

ORIGIN = Origin("demo", "a.npz", "", "CC0-1.0")
NAMES = {0: "background", 1: "rv", 2: "lv"}


def test_a_scribble_without_an_unknown_value_is_a_full_mask_and_refused():
    with pytest.raises(UsageError, match="no pixel of the unknown value 4: this is a full mask"):
        strokes(np.zeros((3, 3), np.uint8), NAMES, ORIGIN, unknown=4)
    with pytest.raises(UsageError, match=r"values \[3\], which no class has"):
        strokes(np.array([[4, 3]]), NAMES, ORIGIN, unknown=4)


def test_strokes_and_masks_as_regions():
    drawn = strokes(np.array([[4, 0, 2], [4, 4, 4]]), NAMES, ORIGIN, unknown=4)
    assert [(r.label, r.data.sum()) for r in drawn] == [("scribble/background", 1), ("scribble/lv", 1)]
    whole = masks(np.array([[0, 0], [2, 2]]), NAMES, ORIGIN)
    assert [(r.label, r.data.sum()) for r in whole] == [("rv", 0), ("lv", 2)]  # looked for and not there
    with pytest.raises(UsageError, match="which no class has"):
        masks(np.array([[7]]), NAMES, ORIGIN)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.1, 0.5]))
def test_a_walk_stays_in_its_mask_and_covers_its_share(seed, share):
    rng = np.random.default_rng(seed)
    mask = np.zeros((24, 24), bool)
    a, b = rng.integers(0, 10, 2)
    mask[a : a + rng.integers(3, 14), b : b + rng.integers(3, 14)] = True
    drawn = random_walk(mask, rng, share=share)
    assert not (drawn & ~mask).any()
    wanted = max(1, round(share * mask.sum()))
    assert wanted <= drawn.sum() <= wanted + 5
    again = random_walk(mask, np.random.default_rng(1), share=share)
    assert np.array_equal(again, random_walk(mask, np.random.default_rng(1), share=share))


def test_a_skeleton_is_thin_connected_and_inside():
    mask = np.zeros((20, 20), bool)
    mask[4:16, 3:17] = True
    drawn = skeleton(mask)
    assert not (drawn & ~mask).any()
    assert 0 < drawn.sum() < 0.7 * mask.sum()
    assert label(drawn, np.ones((3, 3)))[1] == 1


def test_nothing_in_gives_nothing_out():
    empty = np.zeros((5, 5), bool)
    assert not skeleton(empty).any()
    assert not random_walk(empty, np.random.default_rng(0)).any()
    with pytest.raises(UsageError, match="share"):
        random_walk(~empty, np.random.default_rng(0), share=0.0)


@pytest.mark.real_data
def test_the_experts_strokes_of_acdc_lie_in_their_masks(shared_data):
    """208 slices of 10 patients: 0 to 3 with 4 = unknown; strokes and masks agree on nearly every marked pixel."""
    from fabrica.proofs.scribble_aag import NAMES as HEART
    from fabrica.proofs.scribble_aag import acdc

    records = acdc(shared_data("acdc_scribble_slices"))
    assert (len(records), len({r.subject for r in records})) == (208, 10)
    right = marked = 0
    for record in records:
        whole = {r.label: r.data for r in record.regions if not r.label.startswith("scribble/")}
        assert set(whole) == set(HEART.values())
        for stroke in record.regions:
            name = stroke.label.removeprefix("scribble/")
            if name != stroke.label and name in whole:
                right += int((stroke.data & whole[name]).sum())
                marked += int(stroke.data.sum())
    assert marked > 10_000
    assert right / marked > 0.95
