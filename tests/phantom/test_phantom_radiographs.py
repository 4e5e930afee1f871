"""The chest phantom of RoentGen: sides as radiographs hang, sentences that fit, words that tell no other word."""

import numpy as np
import pytest

from fabrica.phantom import radiographs
from fabrica.phantom.radiographs import FINDINGS, LABELS, NAMES, NOTHING, SIDES, chest, chests, records, shapes, table
from fabrica.types import Absent


@pytest.mark.parametrize("finding", FINDINGS)
@pytest.mark.parametrize("side", SIDES)
def test_the_patients_left_is_the_images_right(finding, side):
    """The same patient with and without: what differs lies in the half of the side, left = image right."""
    half = {"left": 0.0, "right": 0.0}
    for i in range(20):
        found = chest(np.random.default_rng([1, i]), finding=finding, side=side)
        other = chest(np.random.default_rng([1, i]), finding=finding, side="left" if side == "right" else "right")
        change = np.abs(found.image - found.image[:, ::-1]) - np.abs(other.image - other.image[:, ::-1])
        assert change.shape == (32, 32)
        half["left"] += float(found.image[:, 17:].sum() - other.image[:, 17:].sum())
        half["right"] += float(found.image[:, :15].sum() - other.image[:, :15].sum())
    sign = -1 if finding == "pneumothorax" else 1  # air is dark
    there, away = half[side], half["left" if side == "right" else "right"]
    assert sign * there > 0 > sign * away


def test_each_patient_depends_on_seed_and_number_alone():
    some, later = chests(5, 3), chests(3, 3, start=2)
    for a, b in zip(some[2:], later, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        assert a.sentence == b.sentence
    assert (chests(1, 4)[0].image != some[0].image).any()


def test_sentences_have_at_most_eight_words_and_name_finding_side_and_size():
    for patient in chests(200, 0):
        words = patient.sentence.split()
        assert len(words) <= 8
        if patient.finding:
            assert patient.side in words
            assert patient.size in words
            assert patient.name in NAMES[patient.finding]
        else:
            assert patient.sentence in NOTHING


def test_no_word_joins_two_names_and_none_is_known_to_the_first_domain():
    told = [set(n.split()) for names in (*NAMES.values(), NOTHING) for n in names]
    assert sum(map(len, told)) == len(set.union(*told))
    seen = {w for r in shapes(300, 0) for w in r.items["impression"][0].text().split()}
    assert not seen & set.union(*told)
    assert {*SIDES, "small", "large"} <= seen


def test_records_say_that_they_are_synthetic_and_where_a_side_is_unknown():
    rows = records(60, 0)
    assert {r.items["image"][0].origin.by for r in rows} == {"synthetic"}
    assert all(r.items["image"][0].array().dtype == np.uint8 for r in rows)
    for r in rows:
        assert set(r.labels) == set(LABELS)
        assert (r.labels["left"] is Absent.NOT_DONE) == (sum(float(r.labels[f]) for f in FINDINGS) == 0)
    images, truth = table(chests(60, 0))
    assert images.shape == (60, 32, 32)
    assert (np.isnan(truth[:, 3]) == (truth[:, :3].sum(1) == 0)).all()
    assert 0 <= images.min() <= images.max() <= 1


def test_all_kinds_of_patients_are_drawn():
    found = [p.finding for p in chests(400, 1)]
    assert {f: 60 < found.count(f) < 140 for f in ("", *FINDINGS)} == dict.fromkeys(("", *FINDINGS), True)
    assert radiographs.SIDE == 32
