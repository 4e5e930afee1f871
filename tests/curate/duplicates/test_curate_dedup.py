"""Duplicate surveys: who is kept, what links, what is never judged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.curate.duplicates.dedup import ImageDuplicates, TextDuplicates
from fabrica.types import Absent, Decision, Item, Origin, Record, Rights

ORIGIN = Origin("made", "x", "", "CC0-1.0")
MODEL = Origin("made", "x", "", "CC0-1.0", "model", ("label_captions",))
LONG = "the heart is enlarged and there is a small left effusion with basal atelectasis of the lower lobe"


def grain(seed: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)


def record(id_: str, *images: np.ndarray, subject: str = "", **more: object) -> Record:
    items = {"image": tuple(Item("image", a, ORIGIN) for a in images)} if images else {}
    items |= more.pop("items", {})  # type: ignore[arg-type]
    return Record(id_, subject or f"s{id_}", items=items, **more)  # type: ignore[arg-type]


def decided(survey: ImageDuplicates | TextDuplicates, *records: Record) -> dict[str, Decision]:
    notes = sorted((dict(survey.note(r)) for r in records), key=lambda n: n["id"])
    return dict(survey.decide(notes))


def drops(decisions: dict[str, Decision]) -> dict[str, str]:
    return {id_: d.drop for id_, d in decisions.items() if d.drop is not None}


def groups(decisions: dict[str, Decision], name: str) -> list[set[str]]:
    by: dict[str, set[str]] = {}
    for id_, decision in decisions.items():
        if name in decision.groups:
            by.setdefault(decision.groups[name], set()).add(id_)
    return sorted(by.values(), key=min)


def test_the_record_with_the_best_rights_then_most_items_then_lowest_id_stays() -> None:
    text = {"report": (Item("text", "a report", ORIGIN),)}
    closed = Rights(access="restricted")
    assert drops(decided(ImageDuplicates(), record("b", grain(1)), record("a", grain(1)))) == {"b": "exact_duplicate"}
    assert drops(decided(ImageDuplicates(), record("a", grain(1)), record("b", grain(1), items=text))) == {
        "a": "exact_duplicate"
    }
    richer = record("a", grain(1), items=text, rights=closed)
    assert drops(decided(ImageDuplicates(), richer, record("b", grain(1)))) == {"a": "exact_duplicate"}


def test_copies_that_contradict_each_other_say_so() -> None:
    a, b = record("a", grain(1), labels={"mass": 1.0}), record("b", grain(1), labels={"mass": 0.0})
    c = record("c", grain(1), labels={"mass": Absent.NOT_DONE, "edema": 1.0})
    assert drops(decided(ImageDuplicates(), a, b, c)) == {
        "b": "exact_duplicate_other_labels", "c": "exact_duplicate"
    }  # fmt: skip


def test_near_copies_are_grouped_or_dropped_or_left() -> None:
    noisy = np.clip(grain(1).astype(int) + 3, 0, 255).astype(np.uint8)
    pair = record("a", grain(1)), record("b", noisy), record("c", grain(2))
    assert groups(decided(ImageDuplicates(), *pair), "near_image") == [{"a", "b"}]
    assert drops(decided(ImageDuplicates(near="drop"), *pair)) == {"b": "near_duplicate"}
    assert decided(ImageDuplicates(near="ignore"), *pair) == {}


def test_a_study_is_dropped_only_if_another_record_has_all_its_pictures() -> None:
    whole, part, other = record("z", grain(1), grain(2)), record("a", grain(1)), record("b", grain(2), grain(3))
    found = decided(ImageDuplicates(), whole, part, other)
    assert drops(found) == {"a": "exact_duplicate"}
    assert groups(found, "near_image") == [{"b", "z"}]


def test_a_dropped_copy_still_links_its_subject() -> None:
    """Patient Q's picture is a copy of P's: whatever else Q has must not stand across the split from P."""
    p, q, rest = (
        record("a", grain(1), subject="P"),
        record("b", grain(1), subject="Q"),
        record("c", grain(5), subject="Q"),
    )
    found = decided(ImageDuplicates(), p, q, rest)
    assert drops(found) == {"b": "exact_duplicate"}
    assert groups(found, "near_image") == [{"a", "c"}]


def test_exact_copies_can_be_kept_and_linked() -> None:
    found = decided(ImageDuplicates(exact="group"), record("a", grain(1)), record("b", grain(1)))
    assert drops(found) == {}
    assert groups(found, "near_image") == [{"a", "b"}]


def test_constant_pictures_and_absent_ones_are_not_judged() -> None:
    blank = np.zeros((64, 64), np.uint8)
    absent = {"image": (Item("image", Absent.UNREADABLE, ORIGIN),)}
    assert decided(ImageDuplicates(), *(record(i, blank) for i in "ab"), *(record(i, items=absent) for i in "cd")) == {}


def test_volumes_are_compared_with_volumes() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 40, 40, 40)).astype(np.float32)
    noisy = (a * 1.2 + 3 + rng.normal(0, 0.05, a.shape)).astype(np.float32)
    made = [
        Record(i, f"s{i}", items={"volume": (Item("volume", v, ORIGIN, affine=np.eye(4)),)})
        for i, v in (("a", a), ("b", a.astype(np.float64)), ("c", noisy), ("d", b))
    ]
    found = decided(ImageDuplicates(), *made, record("e", grain(0)))
    assert drops(found) == {"b": "exact_duplicate"}
    assert groups(found, "near_image") == [{"a", "c"}]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.randoms())
@settings(deadline=None, max_examples=30)
def test_order_changes_nothing_and_one_of_each_picture_stays(seeds: list[int], random: object) -> None:
    made = [record(f"r{i}", grain(seed)) for i, seed in enumerate(seeds)]
    found = decided(ImageDuplicates(), *made)
    random.shuffle(made)  # type: ignore[attr-defined]
    assert decided(ImageDuplicates(), *made) == found
    kept = [seed for i, seed in enumerate(seeds) if f"r{i}" not in drops(found)]
    assert sorted(kept) == sorted(set(seeds))


# ---------------------------------------------------------------- texts


def report(id_: str, text: str, origin: Origin = ORIGIN, **items: tuple[Item, ...]) -> Record:
    return Record(id_, f"s{id_}", items={"report": (Item("text", text, origin),), **items})


def test_text_only_records_are_dropped_for_their_text() -> None:
    near = LONG.replace("small", "moderate") + " and a further sentence that makes the report longer by some words"
    base = LONG + " and a further sentence that makes the report longer by some words"
    found = decided(TextDuplicates(threshold=0.6), report("a", base), report("b", base.upper()), report("c", near))
    assert drops(found) == {"b": "exact_duplicate", "c": "near_duplicate"}


def test_a_record_with_a_picture_is_never_dropped_for_its_text() -> None:
    image = (Item("image", grain(1), ORIGIN),)
    assert decided(TextDuplicates(), report("a", LONG), report("b", LONG, image=image)) == {}
    both = report("a", LONG, image=image), report("b", LONG, image=(Item("image", grain(2), ORIGIN),))
    assert decided(TextDuplicates(), *both) == {}
    assert groups(decided(TextDuplicates(act="group"), *both), "near_text") == [{"a", "b"}]


@pytest.mark.parametrize("text", ["No acute findings.", "", "Normal chest radiograph of the patient."])
def test_short_texts_are_not_judged(text: str) -> None:
    assert decided(TextDuplicates(), report("a", text), report("b", text)) == {}


def test_label_captions_do_not_link_patients() -> None:
    image = (Item("image", grain(1), ORIGIN),)
    pair = report("a", LONG, MODEL, image=image), report("b", LONG, MODEL, image=image)
    assert decided(TextDuplicates(act="group"), *pair) == {}
