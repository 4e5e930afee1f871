"""Measures of generated images: known distances, equal n, order, labels of low n, copies, leaks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import Leak, Refused, UsageError
from fabrica.evaluate.generation import (
    fid,
    kid,
    memorisation,
    ms_ssim_within_prompt,
    nearest,
    prompt_auroc,
    utility,
)
from fabrica.evaluate.picture_readers import apart, learn


def normal(n, d, seed, shift=0.0, spread=1.0):
    return (np.random.default_rng(seed).normal(shift, spread, (n, d))).astype(np.float32)


def test_fid_of_two_normals_is_the_closed_form():
    """|m1 - m2|^2 + sum (s1 - s2)^2 for diagonal covariances (Heusel et al. 2017, eq. 6): 4 * 0.25 + 4 * 0.25."""
    found = fid(normal(20_000, 4, 0), normal(20_000, 4, 1, 0.5, 1.5), extractor="plain")
    assert found.fid == pytest.approx(4 * 0.25 + 4 * 0.25, rel=0.05)
    assert (found.label, found.n, found.width) == ("", 20_000, 4)


def test_low_n_is_said_with_n():
    found = fid(normal(100, 4, 0), normal(100, 4, 1), extractor="chest")
    assert found.label == "low n"
    assert "n = 100 a side, chest, low n" in str(found)
    assert fid(normal(2100, 4, 0), normal(2100, 4, 1), extractor="chest").label == ""


def test_the_extractor_that_also_judges_is_said():
    a, b = normal(50, 3, 0), normal(50, 3, 1)
    assert "also the judge" in str(fid(a, b, extractor="x", judge="x"))
    assert "judge" not in str(fid(a, b, extractor="x", judge="y"))


def test_sets_of_different_size_or_ids_are_refused_and_never_cut():
    a, b = normal(50, 3, 0), normal(40, 3, 1)
    with pytest.raises(UsageError, match="the same n on both sides"):
        fid(a, b, extractor="x")
    with pytest.raises(UsageError, match=r"other ids: 2 are on one side alone \(b, c\)"):
        fid(a[:2], a[:2], extractor="x", ids=(("a", "b"), ("a", "c")))
    assert fid(a[:2], a[:2], extractor="x", ids=(("a", "b"), ("b", "a"))).n == 2


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 500))
def test_the_order_of_files_changes_nothing(seed):
    a, b = normal(60, 5, seed), normal(60, 5, seed + 1, 0.3)
    order = np.random.default_rng(seed).permutation(60)
    one, two = fid(a, b, extractor="x"), fid(a[order], b[order[::-1]], extractor="x")
    assert one.fid == two.fid
    assert one.kid == pytest.approx(two.kid, rel=1e-9, abs=1e-9)


def test_kid_is_unbiased_at_small_n_where_fid_is_not():
    pairs = [(normal(40, 6, 2 * s), normal(40, 6, 2 * s + 1)) for s in range(60)]
    kids = np.array([kid(a, b) for a, b in pairs])
    assert abs(kids.mean()) < 3 * kids.std() / np.sqrt(60)
    assert np.mean([fid(a, b, extractor="x").fid for a, b in pairs]) > 0.3  # of equal distributions


def test_images_that_are_all_alike_have_ms_ssim_one_within_a_prompt():
    rng = np.random.default_rng(0)
    smooth = rng.random((2, 4, 4)).repeat(8, 1).repeat(8, 2).astype(np.float32)
    assert ms_ssim_within_prompt(np.concatenate([smooth] * 3), ["a", "b"] * 3) == pytest.approx(1.0, abs=1e-5)
    free = rng.random((6, 32, 32)).astype(np.float32)
    assert ms_ssim_within_prompt(free, ["a", "b"] * 3) < 0.3
    assert ms_ssim_within_prompt((free * 255).astype(np.uint8), ["a", "b"] * 3) < 0.3
    with pytest.raises(UsageError, match="no prompt has two images"):
        ms_ssim_within_prompt(smooth, ["a", "b"])


def test_images_of_different_prompts_are_not_compared():
    rng = np.random.default_rng(0)
    one, two = rng.random((2, 32, 32)).astype(np.float32)
    assert ms_ssim_within_prompt(np.stack([one, one, two, two]), ["a", "a", "b", "b"]) == pytest.approx(1, abs=1e-5)


def test_prompt_auroc_by_hand_and_unknown_sides_do_not_count():
    truth = np.array([[1, np.nan], [1, 1], [0, 0], [0, np.nan]])
    scores = np.array([[0.9, 0.0], [0.2, 0.8], [0.4, 0.3], [0.1, 1.0]], np.float32)
    found = prompt_auroc(scores, truth, ("nodule", "left"))
    assert found.by_label == {"nodule": 0.75, "left": 1.0}
    assert found.auroc.value == 0.875
    assert found.auroc.low <= 0.875 <= found.auroc.high
    with pytest.raises(UsageError, match="wanted them alike"):
        prompt_auroc(scores, truth[:3], ("nodule", "left"))


def test_nearest_is_the_euclidean_distance():
    a, b = normal(7, 3, 0), normal(9, 3, 1)
    np.testing.assert_allclose(nearest(a, b), torch.cdist(torch.tensor(a), torch.tensor(b)).min(1).values, rtol=1e-4)


def test_copies_of_training_images_block_the_release():
    train, held = normal(300, 4, 0), normal(200, 4, 1)
    new = memorisation(normal(200, 4, 2), train, held)
    assert new.duplicates <= 2
    assert new.low < 1 < new.high
    copied = memorisation(np.concatenate([train[:50] + 1e-4, normal(50, 4, 3)]), train, held)
    assert copied.duplicates >= 50
    assert copied.high < 1
    with pytest.raises(Refused, match=r"nearer than .* to a training image.*\[memorised\]"):
        copied.release()
    with pytest.raises(UsageError, match="half of the held-out images are in the training set"):
        memorisation(held, train, train)


def test_the_three_arms_of_utility_meet_the_same_fit_and_test():
    met = []

    def fitted(images, truth, seed):
        met.append((len(images), seed))
        return lambda x: np.full((len(x), 1), float(len(images)), np.float32) + x[:, :1]

    def sets(n):
        return normal(n, 2, n), (np.arange(n) % 2).astype(np.float32)[:, None]

    found = utility(fitted, sets(4), sets(10), sets(30), seeds=(0, 1))
    assert met == [(4, 0), (4, 1), (14, 0), (14, 1), (10, 0), (10, 1)]
    assert set(found) == {"real", "real + synthetic", "synthetic"}


def test_whoever_judges_has_learned_from_others():
    apart(generator=["a", "b"], judge=["c"], extractor=["d"])
    with pytest.raises(Leak, match=r"generator and judge share 1 subjects \(b\)"):
        apart(generator=["a", "b"], judge=["b"])


def test_a_reader_learns_a_finding_and_its_side_and_unknown_labels_teach_nothing():
    rng = np.random.default_rng(0)
    images = rng.random((200, 32, 32)).astype(np.float32) * 0.2
    left = np.arange(200) % 2
    for i in range(200):
        images[i, 8:14, (4 if left[i] else 20) : (12 if left[i] else 28)] += 0.7
    truth = np.stack([left, np.full(200, np.nan)], 1).astype(np.float32)
    reader = learn(images, truth, labels=("left", "never"), subjects=["s"], steps=60)
    assert ((reader.scores(images)[:, 0] > 0.5) == left).mean() > 0.95
    assert reader.features(images).shape == (200, 32)
    again = learn(images, truth, labels=("left", "never"), subjects=["s"], steps=60)
    np.testing.assert_array_equal(again.scores(images), reader.scores(images))
    with pytest.raises(UsageError, match="for 200 pictures and 1 labels"):
        learn(images, truth, labels=("left",))
