"""Masks judged: golden distances in mm, empties with their own words, slices as volumes, steps to a target."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.encode.masks import MaskTarget
from fabrica.errors import UsageError
from fabrica.evaluate.segment import judged, steps_to, summary, table
from fabrica.types import Item, Origin, Record, Region

ORIGIN = Origin("demo", "a", "", "CC0-1.0", "synthetic")
TARGET = MaskTarget(("background", "organ", "tumour"))


def box(low, high, shape=(20, 20, 10), value=1):
    out = np.zeros(shape, int)
    out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = value
    return out


def test_a_shift_is_measured_in_mm():
    """A box moved by 2 voxels of 1.5 mm: Dice 2 * 6 / 16, HD95 3 mm; surfaces within 3 mm, not all within 1 mm."""
    truth, said = box((4, 4, 2), (12, 12, 8)), box((6, 4, 2), (14, 12, 8))
    (score, _) = judged(said, truth, 3, mm=(1.5, 1.0, 4.0), tolerance=3.0)
    assert score.dice == pytest.approx(6 / 8)
    assert score.hd95 == pytest.approx(3.0)
    assert score.surface == pytest.approx(1.0)
    assert judged(said, truth, 3, mm=(1.5, 1.0, 4.0), tolerance=1.0)[0].surface < 1.0
    assert judged(said, truth, 3)[0].hd95 == pytest.approx(2.0)


def test_empties_have_their_own_words():
    truth = box((4, 4, 2), (12, 12, 8))
    none = np.zeros_like(truth)
    organ, tumour = judged(none, truth, 3)
    assert (organ.dice, organ.hd95, organ.status) == (0.0, math.inf, "one_empty")
    assert (tumour.dice, tumour.hd95, tumour.surface, tumour.status) == (1.0, 0.0, 1.0, "both_empty")
    assert judged(truth, none, 3)[0].status == "one_empty"
    absent = judged(None, truth, 3)[0]
    assert absent.status == "absent"
    assert math.isnan(absent.dice)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_a_score_is_symmetric_and_the_same_wherever_the_mask_lies(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.random((6, 6)) < 0.4 for _ in range(2))
    a[0, 0] = b[0, 0] = True
    one, two = judged(a.astype(int), b.astype(int), 2)[0], judged(b.astype(int), a.astype(int), 2)[0]
    assert (one.dice, one.hd95) == (two.dice, two.hd95)
    wide = [np.pad(m, ((7, 3), (2, 9))).astype(int) for m in (a, b)]
    assert judged(*wide, 2)[0] == one


def slices():
    """A volume of three slices, out of order, and a patient with one slice that is not annotated."""
    made = []
    for number in (2, 0, 1):
        data = np.zeros((8, 8), bool)
        data[2:6, 2:6] = number > 0
        regions = (
            Region("image", "mask", data, "organ", ORIGIN),
            Region("image", "mask", ~data & False, "tumour", ORIGIN),
        )
        item = Item("image", np.full((8, 8), float(number)), ORIGIN)
        made.append(Record(f"s{number}", "p", {"volume": "v", "slice": str(number)}, {"image": (item,)}, regions))
    made.append(Record("q", "q", {"volume": "w", "slice": "0"}, {"image": (item,)}))
    return made


def test_slices_are_judged_as_one_volume_in_their_order_and_what_is_not_annotated_is_left_out():
    def two_of_three(record):
        out = np.zeros((8, 8), int)
        if record.first("image").array()[0, 0] == 2:
            out[2:6, 2:6] = 1
        return out

    rows = table(slices(), two_of_three, TARGET, volume="volume", order="slice", mm=lambda r: (1.0, 1.0, 5.0))
    assert rows["id"].tolist() == ["v", "v"]
    assert rows["class"].tolist() == ["organ", "tumour"]
    assert rows["dice"][0] == pytest.approx(2 * 16 / 48)
    assert rows["hd95"][0] == pytest.approx(5.0)
    assert rows["status"].tolist() == ["ok", "both_empty"]
    found = summary(rows)
    assert found["organ"]["dice"] == pytest.approx(2 / 3)
    assert found["tumour"]["both_empty"] == 1
    assert found["mean"]["n"] == 2


def test_a_failed_sample_is_counted_and_is_no_score():
    rows = table(slices(), lambda record: None, TARGET, volume="volume", order="slice")
    assert rows["status"].tolist() == ["absent", "absent"]
    assert summary(rows) == {}


def test_infinite_distances_are_a_rate():
    truth = box((4, 4, 2), (12, 12, 8))
    record = Record("a", "p", {}, {"volume": (Item("volume", truth * 1.0, ORIGIN),)},
                    (Region("volume", "mask", truth == 1, "organ", ORIGIN),))  # fmt: skip
    rows = table([record], lambda r: np.zeros_like(truth), MaskTarget(("background", "organ")), roles=("volume",))
    found = summary(rows)["organ"]
    assert (found["one_empty"], found["hd95_mm"], found["dice"]) == (1.0, math.inf, 0.0)


def test_grids_that_differ_are_an_error():
    with pytest.raises(UsageError, match="wanted one grid"):
        judged(np.zeros((3, 3), int), np.zeros((3, 4), int), 2)


def test_steps_to_a_target_it_keeps():
    """A lucky peak does not count; never reached is infinite; one score below at the end undoes it."""
    assert steps_to([10, 20, 30, 40], [0.9, 0.1, 0.9, 0.9], 0.8, smooth=1) == 30
    assert steps_to([10, 20, 30, 40], [0.1, 0.9, 0.9, 0.9], 0.8) == 20
    assert steps_to([10, 20], [0.1, 0.2], 0.8) == math.inf
    assert steps_to([10, 20, 30], [0.9, 0.9, 0.1], 0.8, smooth=1) == math.inf
    with pytest.raises(UsageError):
        steps_to([1], [], 0.5)
