"""Regions as targets: full masks, strokes, what is unknown, annotators who disagree, masks without an image."""

import json

import numpy as np
import pytest

from fabrica.encode.collate import Use
from fabrica.encode.grid import GridEncode
from fabrica.encode.image import ImageEncode
from fabrica.encode.masks import MaskCollate, MaskTarget, apart
from fabrica.errors import Leak, Refused, UsageError
from fabrica.train import InMemory
from fabrica.types import Absent, Item, Origin, Record, Region

ORIGIN = Origin("demo", "a", "", "CC0-1.0", "synthetic")
CLASSES = ("background", "rv", "lv")


def mask(cells, label, shape=(4, 4)):
    data = np.zeros(shape, bool)
    for cell in cells:
        data[cell] = True
    return Region("image", "mask", data, label, ORIGIN)


def record(*regions, image=True, name="r"):
    value = np.arange(16.0).reshape(4, 4) if image else Absent.WITHHELD
    return Record(name, name, items={"image": (Item("image", value, ORIGIN),)}, regions=regions)


def collate(size=(4, 4), **changes):
    masks = {
        "mask": MaskTarget(CLASSES), "scribble": MaskTarget(CLASSES, "strokes", "scribble/", **changes),
    }  # fmt: skip
    return MaskCollate({"image": Use(("image",), GridEncode(size))}, masks=masks)


def test_a_full_mask_is_known_everywhere_and_a_record_without_one_nowhere():
    batch = collate()([record(mask([(0, 0)], "rv"), mask([(3, 3)], "lv")), record(mask([], "rv")), record()])
    assert batch.targets["mask"].dtype.is_floating_point is False
    assert batch.targets["mask"][0].unique().tolist() == [0, 1, 2]
    assert [k.all().item() for k in batch.known["mask"]] == [True, True, False]
    assert not batch.known["mask"][2].any()
    assert not batch.known["scribble"].any()


def test_strokes_are_known_where_they_lie_and_nowhere_else():
    one = record(mask([(0, 0), (0, 1)], "scribble/background"), mask([(2, 2)], "scribble/lv"))
    batch = collate()([one])
    assert batch.known["scribble"][0].nonzero().tolist() == [[0, 0], [0, 1], [2, 2]]
    assert batch.targets["scribble"][0][batch.known["scribble"][0]].tolist() == [0, 0, 2]
    assert not batch.known["mask"].any()


def test_two_annotators_in_conflict_are_unknown_or_vote():
    three = (mask([(1, 1)], "scribble/lv"), mask([(1, 1)], "scribble/lv"), mask([(1, 1)], "scribble/rv"))
    tie = (mask([(0, 0)], "scribble/lv"), mask([(0, 0)], "scribble/background"))
    alone = (mask([(3, 3)], "scribble/rv"),)
    given = record(*three, *tie, *alone)
    unknown = collate()([given])
    assert unknown.known["scribble"][0].nonzero().tolist() == [[3, 3]]
    vote = collate(conflict="vote")([given])
    assert vote.known["scribble"][0].nonzero().tolist() == [[1, 1], [3, 3]]
    assert vote.targets["scribble"][0, 1, 1] == 2


def test_padding_is_unknown_and_masks_move_with_the_image():
    batch = collate((6, 2))([record(mask([(0, 1), (0, 0)], "lv"))])
    assert batch.known["mask"][0].sum() == 4 * 2
    assert not batch.known["mask"][0, 0].any()
    assert batch.targets["mask"][0].nonzero().tolist() == [[1, 0]]  # column 1 of 4 is column 0 of the middle 2


def test_a_mask_without_its_image_is_a_target_all_the_same():
    batch = collate()([record(mask([(0, 0)], "lv"), image=False)])
    assert not batch.fields["image"].valid.any()
    assert batch.known["mask"].all()
    assert batch.targets["mask"][0, 0, 0] == 2


def test_regions_of_other_roles_shapes_and_names_do_not_count():
    other = mask([(0, 0)], "lv")
    batch = collate()([
        record(Region("photo", "mask", other.data, "lv", ORIGIN)), record(mask([(0, 0)], "liver")),
        record(Region("image", "box", np.array([0.0, 0, 1, 1]), "lv", ORIGIN)),
    ])  # fmt: skip
    assert not batch.known["mask"].any()


def test_shapes_that_differ_are_refused_with_the_record():
    with pytest.raises(Refused, match=r"record 'r', mask 'mask': .*mask_shape"):
        collate()([record(mask([], "lv"), mask([], "rv", (5, 5)))])
    with pytest.raises(Refused, match="mask_shape"):
        collate()([record(mask([], "lv", (5, 5)))])


def test_only_a_grid_can_carry_masks():
    with pytest.raises(UsageError, match="read by a GridEncode"):
        MaskCollate({"image": Use(("image",), ImageEncode(4, 1))}, masks={"mask": MaskTarget(CLASSES)})
    with pytest.raises(UsageError, match="at least one more"):
        MaskTarget(("background",))
    with pytest.raises(UsageError, match="kind 'weak'"):
        MaskTarget(CLASSES, "weak")


def test_json_and_memory_bring_it_back():
    one = collate(conflict="vote")
    again = MaskCollate.from_json(json.loads(json.dumps(one.to_json())))
    assert again == one
    records = [record(mask([(0, i)], "lv"), name=str(i)) for i in range(3)]
    held = InMemory.of(records, one).batch(["2", "0"], 5)
    plain = one([records[2], records[0]], 5)
    assert (held.targets["mask"] == plain.targets["mask"]).all()
    assert (held.known["mask"] == plain.known["mask"]).all()
    assert one.only("image").masks == {}


def test_masks_for_a_critic_come_from_other_patients():
    apart([record(name="a")], [record(name="b")])
    with pytest.raises(Leak, match="1 subjects \\(a\\)"):
        apart([record(name="a")], [record(name="b"), record(name="a")])
