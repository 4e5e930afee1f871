"""Synthetic hearts: anatomy, strokes within their class, distractors apart from the heart, the same from a seed."""

import numpy as np
from scipy.ndimage import binary_dilation

from fabrica.phantom import hearts


def test_a_ring_around_a_cavity_beside_a_crescent():
    for number in range(20):
        found = hearts.of(1, number)
        cavity, ring, right = (found.labels == c for c in (3, 2, 1))
        assert cavity.sum() > 30
        assert ring.sum() > 60
        assert right.sum() > 20
        around = binary_dilation(cavity) & ~cavity
        assert (found.labels[around] == 2).all()
        assert (binary_dilation(right) & ring).any()


def test_distractors_are_grey_as_a_heart_and_are_none():
    levels = {c: [] for c in (0, 1, 2, 3)}
    strange = []
    for number in range(20):
        found = hearts.of(2, number)
        assert not (found.blobs & (found.labels > 0)).any()
        assert found.blobs.sum() > 60
        strange += found.image[found.blobs].tolist()
        for c, values in levels.items():
            values += found.image[(found.labels == c) & ~found.blobs].tolist()
    mean = {c: np.mean(v) for c, v in levels.items()}
    assert mean[2] + 0.15 < mean[0] < mean[1] - 0.1
    dark, bright = np.percentile(strange, (10, 90))
    assert dark < mean[0] - 0.15
    assert bright > mean[0] + 0.15


def test_records_carry_what_was_asked_for_and_one_patient_is_one():
    full, strokes, masks, image = (hearts.records(3, 5, what=w) for w in ("full", "scribble", "mask", "image"))
    for a, b, c, d in zip(full, strokes, masks, image, strict=True):
        assert a.subject == b.subject == c.subject == d.subject
        assert np.array_equal(a.first("image").array(), b.first("image").array())
        assert c.first("image") is None
        assert d.regions == ()
        whole = {r.label: r.data for r in a.regions}
        assert {r.label: r.data.sum() for r in c.regions} == {k: v.sum() for k, v in whole.items()}
        for stroke in b.regions:
            name = stroke.label.removeprefix("scribble/")
            inside = whole.get(name, ~np.logical_or.reduce(list(whole.values())))
            assert not (stroke.data & ~inside).any()
            assert 0.03 < stroke.data.sum() / inside.sum() < 0.2
        assert a.first("image").origin.by == "synthetic"
    other = hearts.records(3, 5, what="mask", start=10)
    assert not {r.subject for r in other} & {r.subject for r in full}


def test_wrong_masks_have_the_same_shapes_under_other_names():
    right = hearts.records(10, 3, what="mask")
    for a, b in zip(right, hearts.wrong(right, 3), strict=True):
        assert {r.label for r in b.regions} == {r.label for r in a.regions}
        assert all(
            x.label != y.label and np.array_equal(x.data, y.data) for x, y in zip(a.regions, b.regions, strict=True)
        )
