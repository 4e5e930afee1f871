"""Triples of image, words and mask; stretched pictures; what is unknown teaches nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.curate.ontology import Ontology, Thing
from fabrica.encode.collate import Use
from fabrica.encode.prompts import PromptCollate, plain
from fabrica.encode.stretch import StretchEncode
from fabrica.encode.text import TextEncode
from fabrica.encode.vocabulary import train_vocabulary
from fabrica.errors import Refused, UsageError
from fabrica.phantom.objects import named, records
from fabrica.types import Absent, Item, Origin, Record, Region

NAMES = Ontology(tuple(Thing(n.name, ((n.modality, n.anatomy),), n.synonyms) for n in named()))
HERE = Origin("demo", "a", "", "")


def collate(length=16, **changes):
    words = TextEncode(train_vocabulary(NAMES.texts(), 300, min_frequency=1), length)
    use = Use(("image",), StretchEncode((48, 48), 3, scale=(0.0, 1.0)))
    return PromptCollate({"image": use}, ontology=NAMES, words=words, **changes)


def test_each_triple_is_an_object_in_words_of_its_own():
    rows, make = records(6, 0), collate(absent=2)
    heard = set()
    for epoch in range(40):
        batch = make(rows, epoch)
        assert batch.targets["prompts"].shape[:2] == batch.known["same"].shape
        for i, record in enumerate(rows):
            truth = make.labelled(record)
            for j, one in enumerate(make.asked(record, epoch)):
                heard.add(one.text)
                np.testing.assert_array_equal(batch.targets["objects"][i, j].numpy(), truth[one.name])
                assert batch.known["objects"][i, j].all()
                ids = batch.targets["prompts"][i, j][batch.known["prompts"][i, j]]
                assert make.words.tokenizer.decode(ids.tolist()) == one.text.lower().replace("-", " - ")
    assert len(heard) == 36  # three ways to ask for each of twelve objects
    assert not heard & {n.unheard for n in named()}


def test_what_has_no_region_is_unknown_and_what_is_empty_is_not_there():
    """A set that labels some objects alone must not teach that the others are absent."""
    record = records(1, 3)[0]
    there, gone = (next(r for r in record.regions if r.data.any() is np.bool_(b)) for b in (True, False))
    make = collate(most=4, absent=4)
    for epoch in range(10):
        names = {a.name: a.mask.any() for a in make.asked(record.updated(regions=(there, gone)), epoch)}
        assert names == {there.label: True, gone.label: False}
        assert {a.name for a in make.asked(record.updated(regions=(there,)), epoch)} == {there.label}
    nothing = make([record.updated(regions=())], 0)
    assert not nothing.known["same"].any()
    assert not nothing.known["objects"].any()


def test_a_picture_that_is_absent_asks_nothing():
    record = records(1, 0)[0]
    lost = record.updated(items={"image": (Item("image", Absent.NOT_DONE, HERE),)})
    assert collate().asked(lost, 0) == []


def test_prompts_are_never_cut():
    make = collate(length=8)
    assert len(make.ids("round nodule in chest x")) == 7
    with pytest.raises(Refused, match="11 tokens, the model reads 8"):
        make.ids("round nodule in chest round nodule in chest round")
    with pytest.raises(Refused, match="without words"):
        make.ids("  ")
    with pytest.raises(UsageError, match="one picture field"):
        collate(most=0)


def test_a_collate_comes_back_from_json():
    make = collate(most=3, absent=2)
    again = PromptCollate.from_json(make.to_json())
    assert again.to_json() == make.to_json()
    a, b = make(records(3, 0), 1), again(records(3, 0), 1)
    assert (a.targets["prompts"] == b.targets["prompts"]).all()


@pytest.mark.parametrize(("values", "fine"), [([0, 255], True), ([0, 1], True), ([0], True), ([255], True),
                                              ([0, 1, 2], False), ([0, 128, 255], False), ([0, 1, 255], False),
                                              ([0, 7], False)])  # fmt: skip
def test_masks_of_other_values_are_refused(values, fine):
    mask = np.resize(np.array(values, np.uint8), (3, 4))
    if fine:
        np.testing.assert_array_equal(plain(mask, "r"), mask > 0)
    else:
        with pytest.raises(Refused, match="wanted 0 and 1, or 0 and 255"):
            plain(mask, "r")


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 60), st.integers(3, 60))
def test_any_picture_is_stretched_and_answers_come_back_on_its_own_grid(h, w):
    item = Item("image", np.full((h, w), 40, np.uint8), HERE)
    grid = StretchEncode((16, 24), 3, scale=(0.0, 255.0))
    assert grid(item, np.random.default_rng(0)).shape == (3, 16, 24)
    np.testing.assert_allclose(grid.whole(item), 40 / 255, atol=1e-6)
    half = np.zeros((h, w), bool)
    half[: h // 2] = True
    small = grid.labels(half, item)
    assert small.shape == (16, 24)
    back = grid.restore(small[None].astype(np.float32), item)[0] > 0.5
    assert back.shape == (h, w)
    assert abs(back.mean() - half.mean()) <= 1 / 16 + 1 / h


def test_deeper_pictures_need_a_window():
    deep = Item("image", np.full((8, 8), 900, np.uint16), HERE)
    with pytest.raises(Refused, match="choose scale"):
        StretchEncode((8, 8), 3, scale=(0.0, 255.0)).whole(deep)
    assert StretchEncode((8, 8), 3, scale=(0.0, 1000.0)).whole(deep) == pytest.approx(0.9)
    with pytest.raises(UsageError, match="two sides"):
        StretchEncode((8, 8, 8))


def test_several_regions_of_one_object_are_one_mask():
    a, b = np.zeros((48, 48), bool), np.zeros((48, 48), bool)
    a[0], b[9] = True, True
    name = NAMES.names[0]
    record = Record("r", "p", {"modality": "xray", "anatomy": "chest"}, {"image": (Item("image", a * 1.0, HERE),)},
                    tuple(Region("image", "mask", m, name, HERE) for m in (a, b)))  # fmt: skip
    (one,) = collate().asked(record, 0)
    np.testing.assert_array_equal(one.mask, a | b)
