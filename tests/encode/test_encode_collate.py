"""Records to batches: what is padded, what is drawn, what counts as the same."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.encode.augment import MedicalImageAugment
from fabrica.encode.collate import Collate, Use, key_hash
from fabrica.encode.image import ImageEncode
from fabrica.encode.text import TextEncode
from fabrica.encode.vocabulary import train_vocabulary
from fabrica.errors import Refused, UsageError
from fabrica.types import Absent, Item, Origin, Record

SOURCE = Origin("synthetic", "x", "", "CC0-1.0")
REPORTS = [
    "Left effusion. No nodule. Heart normal.",
    "Heart enlarged. Ring seen.",
    "No disc. No ring. Bar at left. Ok.",
]
TOKENIZER = train_vocabulary(REPORTS * 3, 300)


def record(i, *, images=1, report=True, labels=None, **groups):
    rng = np.random.default_rng(i)
    items = {
        "image": tuple(Item("image", rng.integers(0, 255, (20, 20), dtype=np.uint8), SOURCE) for _ in range(images))
    }
    if report:
        items["report"] = (Item("text", REPORTS[i % 3], SOURCE, hours=float(i)),)
    return Record(f"r{i}", f"p{i // 2}", groups=groups, items=items, labels=labels or {})


def collate(**kw):
    fields = {
        "image": Use(("image",), ImageEncode(16, 1, augment=MedicalImageAugment()), most=3),
        "text": Use(("report",), TextEncode(TOKENIZER, 32, view="one_sentence")),
    }
    return Collate(fields, **{"keys": ("subject", "text"), "seed": 7, **kw})


def rows(batch):
    """Each record's own values, padding taken off."""
    out = {}
    for i, name in enumerate(batch.ids):
        image, text = batch.fields["image"], batch.fields["text"]
        out[name] = (
            image.values[i][image.valid[i]].numpy().tobytes(),
            text.values[i][text.mask[i]].tolist(),
            {k: int(v[i]) for k, v in batch.keys.items()},
        )
    return out


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True), st.integers(0, 3), st.randoms())
def test_order_and_company_change_nothing(numbers, epoch, random):
    records = [record(i, images=i % 3, report=i % 4 != 3) for i in numbers]
    whole = rows(collate()(records, epoch))
    shuffled = records[:]
    random.shuffle(shuffled)
    assert rows(collate()(shuffled, epoch)) == whole
    for one in records:
        assert rows(collate()([one], epoch))[one.id] == whole[one.id]


def test_each_visit_differs_and_seeds_differ():
    records = [record(i) for i in range(3)]
    a, b, c = rows(collate()(records, 0)), rows(collate()(records, 1)), rows(collate(seed=8)(records, 0))
    assert all(len({a[k][0], b[k][0], c[k][0]}) == 3 for k in a)
    said = [rows(collate()([records[0]], e))["r0"][1] for e in range(12)]
    assert len({tuple(s) for s in said}) >= 2  # several sentences of one report over the epochs
    still = collate().still()
    assert rows(still(records, 0)) == rows(still(records, 5))


def test_what_is_absent_is_invalid_and_zero():
    records = [record(0, images=2), record(1, images=0, report=False), record(2)]
    batch = collate()(records, 0)
    image, text = batch.fields["image"], batch.fields["text"]
    assert image.values.shape == (3, 2, 1, 16, 16)
    assert image.valid.tolist() == [[True, True], [False, False], [True, False]]
    assert image.values[1].abs().sum() == 0
    assert text.valid[:, 0].tolist() == [True, False, True]
    assert not text.mask[1].any()
    assert text.values.dtype == torch.int64
    assert (text.values[~text.mask] == 0).all()
    assert text.hours[0, 0] == 0.0
    assert torch.isnan(text.hours[1, 0])  # unknown, not "now"
    assert image.hours is None
    none = collate()([record(1, images=0, report=False)], 0)
    assert not none.fields["image"].valid.any()
    assert not none.fields["text"].valid.any()


def test_absent_values_are_skipped_not_read():
    r = record(0).updated(items={"image": (Item("image", Absent.UNREADABLE, SOURCE), *record(0).items["image"])})
    assert collate()([r], 0).fields["image"].valid.tolist() == [[True]]


def test_targets_come_with_what_is_known():
    records = [
        record(0, labels={"disc": 1.0}), record(1, labels={"disc": Absent.NOT_DONE}), record(2, labels={"ring": 0.0}),
        record(3, labels={"disc": float("nan")}),
    ]  # fmt: skip
    batch = collate(targets=("disc",))(records, 0)
    assert batch.targets["disc"].tolist() == [1, 0, 0, 0]
    assert batch.known["disc"].tolist() == [True, False, False, False]


def test_keys_say_what_is_the_same():
    records = [
        record(0, labels={"disc": 1.0}, study="s1", modality="ct"),
        record(1, labels={"disc": 1.0}, study="s1", modality="xray"),
        record(3, labels={"disc": 0.0}, report=True),  # the same report as record 0
        record(4, report=False),
    ]
    fields = {"text": Use(("report",), TextEncode(TOKENIZER, 32))}
    keys = ("subject", "text", "label", "study", "id", "modality+label")
    got = {k: v.tolist() for k, v in Collate(fields, keys=keys)(records, 0).keys.items()}
    same = {k: [[int(x == y) for y in v] for x in v] for k, v in got.items()}
    alone = np.eye(4, dtype=int).tolist()
    assert same["subject"] == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert same["text"] == [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    assert same["label"] == same["study"] == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert same["id"] == same["modality+label"] == alone
    assert key_hash("subject", "p0") == got["subject"][0] == 3533103676127068407  # printf 'subject\x1fp0' | b2sum -l 64


def test_the_text_key_is_of_the_sentence_that_was_read():
    bank = (Item("text", "left effusion", SOURCE), Item("text", "no nodule", SOURCE))
    records = [Record(f"r{i}", f"p{i}", items={"report": bank}) for i in range(40)]
    encode = TextEncode(TOKENIZER, 16, view="one_of")
    batch = Collate({"text": Use(("report",), encode)}, keys=("text",), seed=3)(records, 1)
    said = [
        tuple(v[m].tolist())
        for v, m in zip(batch.fields["text"].values[:, 0], batch.fields["text"].mask[:, 0], strict=True)
    ]
    pairs = set(zip(said, batch.keys["text"].tolist(), strict=True))
    assert len(pairs) == 2


def test_errors_name_the_record_and_the_field():
    bad = record(1).updated(items={"image": (Item("image", np.full((4, 4), np.nan), SOURCE),)})
    with pytest.raises(Refused, match=r"record 'r1', field 'image': .*image_nonfinite") as error:
        collate()([record(0), bad], 0)
    assert error.value.code == "image_nonfinite"
    wrong = record(1).updated(items={"image": (Item("text", "no picture", SOURCE),)})
    with pytest.raises(UsageError, match="record 'r1', field 'image'"):
        collate()([wrong], 0)
    for make in (
        lambda: collate()([], 0),
        lambda: Collate({}),
        lambda: Use("image", ImageEncode(8)),
        lambda: Use(("image",), ImageEncode(8), most=0),
        lambda: Collate({"image": Use(("image",), ImageEncode(8))}, keys=("text",))([record(0)], 0),
        lambda: collate().only("imge"),
    ):
        with pytest.raises(UsageError):
            make()


def test_json_round_trip():
    one = collate(targets=("disc",))
    again = Collate.from_json(json.loads(json.dumps(one.to_json())))
    records = [record(i, images=i, labels={"disc": 1.0}) for i in range(3)]
    assert again == one
    assert rows(again(records, 2)) == rows(one(records, 2))
    with pytest.raises(UsageError, match="version 9"):
        Collate.from_json({**one.to_json(), "version": 9})
