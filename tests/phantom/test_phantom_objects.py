"""The synthetic objects: truth, names, seeds."""

import numpy as np
import pytest

from fabrica.phantom import objects


def test_every_object_of_a_modality_is_annotated_and_apart():
    rows = objects.records(30, 0)
    counts = set()
    for record in rows:
        masks = np.stack([r.data for r in record.regions])
        assert masks.shape == (4, 48, 48)
        assert masks.sum(0).max() <= 1
        counts.add(int(masks.any((1, 2)).sum()))
        image = record.first("image").array()
        assert image.shape == ((48, 48, 3) if record.groups["modality"] == "pathology" else (48, 48))
        assert 0 <= image.min() <= image.max() <= 1
    assert counts == {1, 2, 3}
    assert {r.groups["modality"] for r in rows} == set(objects.WORDS)


def test_unheard_names_are_of_known_words():
    names = objects.named()
    heard = {w for n in names for said in (n.name, *n.synonyms) for w in said.split()}
    assert len({n.name for n in names} | {n.unheard for n in names}) == 24
    assert all(set(n.unheard.split()) <= heard for n in names)
    assert not {n.unheard for n in names} & {s for n in names for s in (n.name, *n.synonyms)}


def test_shapes_differ_in_how_much_of_their_box_they_fill():
    fill = {s: [] for s in objects.SHAPES}
    for record in objects.records(60, 1):
        for shape, region in zip(objects.SHAPES, record.regions, strict=True):
            if region.data.any():
                rows, columns = (np.flatnonzero(region.data.any(a)) for a in (1, 0))
                fill[shape].append(region.data.sum() / (np.ptp(rows) + 1) / (np.ptp(columns) + 1))
    mean = {s: np.mean(v) for s, v in fill.items()}
    assert mean["disc"] > 0.7 > 0.6 > mean["ring"] > mean["tree"]
    assert mean["spiral"] < 0.6


def test_a_number_and_a_seed_are_one_patient_whatever_is_annotated():
    a, b = objects.records(3, 5, start=7), objects.records(9, 5, start=7, partial=0.5)
    for x, y in zip(a, b, strict=False):
        np.testing.assert_array_equal(x.first("image").array(), y.first("image").array())
    assert 0 < sum(len(r.regions) for r in b) < 36
    with pytest.raises(ValueError, match="none of xray, mr, pathology"):
        objects.scene(np.random.default_rng(0), "ct")
