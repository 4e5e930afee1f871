"""Twins: made from facts, never true, never another word for a true value; and back from records of questions."""

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica import curate
from fabrica.corpus import Corpus
from fabrica.curate.language.probing import (
    DIMENSIONS,
    Related,
    Twins,
    as_record,
    facts_of,
    of_record,
    statements,
    twins,
)
from fabrica.errors import UsageError
from fabrica.phantom.facts import DIMS, PICTURE_DIMS, PLACES, facts, pictures
from fabrica.types import Absent, Item, Origin, Record, Region

ORIGIN = Origin("made", "a", "", "CC0-1.0")
RECORDS = facts(300, 7).records


def made(**changes) -> Record:
    base = Record(
        "r1", "p1", {"modality": "CT", "organ": "brain"},
        {"image": (Item("image", np.zeros((30, 30), np.uint8), ORIGIN),)},
        (Region("image", "box", np.array([20, 2, 28, 8]), "mass", ORIGIN),),
        {"mass": 1.0, "fracture": 0.0, "cyst": Absent.NOT_DONE},
    )  # fmt: skip
    return replace(base, **changes)


SMALL = {
    "modality": ("CT", "MRI"), "organ": ("brain", "chest"), "abnormality": (), "position": PLACES,
    "condition": ("mass", "fracture", "cyst"),
}  # fmt: skip


def test_the_questions_of_one_image() -> None:
    """Hand-made: a mass in the right upper part; a cyst of which nothing is known is never a twin."""
    asked = list(twins([made()], SMALL, seed=3))
    assert [(p.dimension, p.kind, p.gold, p.pair, p.of) for p in asked] == [
        ("modality", "fact", True, "0", 2), ("modality", "twin", False, "0", 2), ("organ", "fact", True, "0", 2),
        ("organ", "twin", False, "0", 2), ("abnormality", "fact", True, "0", 1), ("condition", "fact", True, "0", 2),
        ("condition", "twin", False, "0", 2), ("position", "fact", True, "0", 2), ("position", "twin", False, "0", 2),
    ]  # fmt: skip
    assert [p.text for p in asked if p.dimension == "condition"] == [
        "Is there mass in this image?", "Is there fracture in this image?",
    ]  # fmt: skip
    assert asked[-2].text == "Is the mass located in the right upper?"
    assert asked[0].cell == "CT x brain"


def test_a_normal_image_has_one_condition_question_and_no_place() -> None:
    normal = made(labels={"mass": 0.0, "fracture": 0.0, "cyst": 0.0}, regions=())
    asked = [p for p in twins([normal], SMALL) if p.dimension in ("abnormality", "condition", "position")]
    assert [(p.dimension, p.gold, p.of) for p in asked] == [("abnormality", False, 1), ("condition", False, 1)]


def test_what_is_unknown_is_not_asked_unless_a_list_is_taken_for_complete() -> None:
    unknown = made(labels={"fracture": 0.0}, regions=())
    assert facts_of(unknown, SMALL).normal is None
    assert {p.dimension for p in twins([unknown], SMALL)} == {"modality", "organ"}
    assert facts_of(unknown, SMALL, unlisted="absent").normal is True
    withheld = made(labels={"mass": Absent.WITHHELD, "fracture": 0.0}, regions=())
    assert facts_of(withheld, SMALL, unlisted="absent").normal is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_gold_follows_from_facts_and_order_changes_nothing(seed: int, per_fact: int) -> None:
    some = RECORDS[:40]
    asked = list(twins(some, DIMS, seed=seed, per_fact=per_fact))
    by = {r.id: facts_of(r, DIMS) for r in some}
    for p in asked:
        known = by[p.record]
        if p.dimension == "abnormality":
            assert p.gold is not known.normal
            continue
        true = (p.dimension, p.value, p.about) in known.true
        assert p.gold is true
        assert true or p.value in known.false[p.dimension, p.about]
    assert sorted(asked, key=lambda p: p.id) == sorted(
        twins(some[::-1], DIMS, seed=seed, per_fact=per_fact), key=lambda p: p.id
    )
    assert len({p.id for p in asked}) == len(asked)
    pairs = Counter((p.record, p.dimension, p.pair) for p in asked)
    assert all(pairs[p.record, p.dimension, p.pair] == p.of for p in asked)


def test_a_text_only_answerer_is_at_chance() -> None:
    """Nothing in the words tells fact from twin: the best rule of value -> yes gains little on other images."""
    train, test = list(twins(facts(2000, 1).records, DIMS)), list(twins(facts(2000, 2).records, DIMS))
    for dimension in ("modality", "organ", "position"):
        said = Counter((p.value, p.gold) for p in train if p.dimension == dimension)
        right = [(said[p.value, True] >= said[p.value, False]) == p.gold for p in test if p.dimension == dimension]
        assert abs(np.mean(right) - 0.5) < 0.03


def test_the_guard_rejects_synonyms_and_what_is_above_or_below() -> None:
    related = Related(parents={"pneumonia": ("infection",), "infection": ("disease",)})
    assert related("pneumothorax", "collapsed lung") == "same"
    assert related("Pleural Effusion", "pleural_fluid") == "same"
    assert related("pneumonia", "disease") == "broader"
    assert related("disease", "pneumonia") == "narrower"
    assert related("mass", "fracture") == ""
    dims = {"condition": ("pneumothorax", "collapsed lung", "fracture")}
    one = made(labels={"pneumothorax": 1.0, "collapsed lung": 0.0, "fracture": 0.0})
    rejected = Counter[str]()
    for seed in range(20):
        assert [p.value for p in twins([one], dims, seed=seed, rejected=rejected)] == ["pneumothorax", "fracture"]
    assert rejected == {"same": 20}


def test_a_fact_without_a_possible_twin_is_left_out_and_counted() -> None:
    dims = {"modality": ("CT", "MRI"), "condition": ("pneumothorax", "collapsed lung")}
    one = made(labels={"pneumothorax": 1.0, "collapsed lung": 0.0})
    rejected = Counter[str]()
    assert {p.dimension for p in twins([one], dims, rejected=rejected)} == {"modality"}
    assert rejected == {"same": 1, "no_twin": 1}


@pytest.mark.parametrize(
    ("records", "dims", "message"),
    [
        ([made()], {"modality": ("CT",)}, "no twin is possible"),
        ([made()], {"modalty": ("CT", "MRI")}, "did you mean 'modality'"),
        ([made(), made()], {"modality": ("CT", "MRI")}, "stands twice"),
        ([made(groups={})], {"modality": ("CT", "MRI")}, "nothing is known of modality"),
        ([made()], {}, "wanted 1 or more"),
    ],
)
def test_errors(records, dims, message) -> None:
    with pytest.raises(UsageError, match=message):
        list(twins(records, dims))


def test_places_from_words_boxes_masks_and_points() -> None:
    mask = np.zeros((30, 30), bool)
    mask[25:28, 2:6] = True
    shapes = {
        "left lower": Region("image", "mask", mask, "mass", ORIGIN),
        "right middle": Region("image", "point", np.array([20.0, 15.0]), "mass", ORIGIN),
        "left upper": Region("image", "point", np.array([0.0, 0.0]), "mass", ORIGIN, text="In the LEFT UPPER lobe"),
        "right upper": Region("image", "polygon", np.array([[20, 1], [28, 1], [24, 9]]), "mass", ORIGIN),
    }
    for place, region in shapes.items():
        assert ("position", place, "mass") in facts_of(made(regions=(region,)), SMALL).true
    both = facts_of(made(regions=tuple(shapes.values())), SMALL)
    assert both.false["position", "mass"] == ("left middle", "right lower")


def test_statements_are_what_questions_ask() -> None:
    for record in pictures(20, 3):
        known = statements(record, PICTURE_DIMS)
        assert len(known) == 1 + 6 + 36
        for p in twins([record], PICTURE_DIMS):
            name = "/".join(x for x in (p.dimension, p.about, p.value) if x)
            assert known[name] == float(p.gold)


def test_records_of_questions_and_back() -> None:
    for p in twins(RECORDS[:20], DIMS):
        record = next(r for r in RECORDS if r.id == p.record)
        one = as_record(p, record)
        assert of_record(one) == replace(p, id=one.id)
        assert (one.subject, one.rights, one.first("image")) == (record.subject, record.rights, record.first("image"))
    with pytest.raises(UsageError, match="wanted 0 \\(yes\\) or 1"):
        of_record(one.updated(labels={"answer": 2.0}))
    with pytest.raises(UsageError, match="no probing question"):
        of_record(record)


def test_the_step_in_a_curation(tmp_path) -> None:
    from fabrica.chat.question import of_record as asked

    source = Corpus.create(tmp_path / "source")
    pickle.loads(pickle.dumps(Twins(dims=dict(DIMS))))  # workers of a cluster get the step
    source.append([*RECORDS[:10], Record("bare", "p9", items={"image": RECORDS[0].items["image"]})])
    out = tmp_path / "out"
    report = curate.run([Twins(dims=DIMS)], source, out)
    assert {k: dict(v) for k, v in report.dropped.items()} == {"twins": {"no_facts": 1}}
    rows = list(Corpus.open(out).scan())
    assert len(rows) == len(list(twins(RECORDS[:10], DIMS)))
    assert {asked(r).gold for r in rows} == {"A", "B"}
    assert {of_record(r).dimension for r in rows} == set(DIMENSIONS)
