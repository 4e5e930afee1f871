"""The proof of PMC-Patients at a small size: every number is there, and each check can fail."""

import numpy as np
import pytest

from fabrica.curate.articles.relate import Citations, Relations, relate
from fabrica.phantom.case_reports import CaseLibrary, case_reports
from fabrica.proofs import pmc_patients as proof
from fabrica.types import Record

SIZE = proof.Size(seeds=(100, 101), articles=300, diseases=20, test=0.3)


@pytest.fixture(scope="module")
def library() -> CaseLibrary:
    return case_reports(SIZE.articles, 100, kinds=SIZE.diseases)


@pytest.fixture(scope="module")
def records(library: CaseLibrary) -> list[Record]:
    made, _ = proof.extracted(proof.read(library))
    return proof.split(made, SIZE)[0]


def test_two_seeds_make_a_proof() -> None:
    found = [proof.one_seed(seed, SIZE) for seed in SIZE.seeds]
    made = proof._proof(SIZE, found)
    assert made.name == "pmc_patients"
    assert len(made.claims) == 9
    assert len(made.controls) == 3
    assert all(len(v) == 2 and np.isfinite(v).all() for v in made.arms.values())
    shown = {c.name: c.shown for c in (*made.claims, *made.controls)}
    assert shown["relations"]
    assert shown["licence"]
    assert shown["note recall"]
    assert min(made.arms["precision"]) > max(made.arms["precision, whole case sections"])


def test_wrong_notes_lower_precision_and_lost_ones_recall(library: CaseLibrary, records: list[Record]) -> None:
    notes = [r for r in records if r.groups["modality"] == "note"]
    whole = proof.judged(library, notes)
    twice = proof.judged(library, [*notes, *notes])
    assert twice["precision"] == pytest.approx(whole["precision"] / 2)
    assert twice["recall"] == whole["recall"]
    assert proof.judged(library, notes[::2])["recall"] < 0.6 * whole["recall"]
    swapped = [n.updated(regions=()) for n in notes]
    assert proof.judged(library, swapped)["age exact"] == 0


def test_a_wrong_relation_is_counted(library: CaseLibrary, records: list[Record]) -> None:
    graph = Citations.of_records(records) | Citations.of(library.listed)
    right = relate(records, graph)
    assert proof.wrong_relations(records, library, right) == 0
    assert proof.wrong_relations(records, library, relate(records, Citations.of(library.listed))) > 0
    one = next(i for i, row in right.similar.items() if row)
    lame = Relations({**right.similar, one: {}}, right.relevant)
    assert proof.wrong_relations(records, library, lame) > len(right.similar[one])


def test_permuted_edges_keep_the_shape_and_lose_the_place(library: CaseLibrary) -> None:
    graph = Citations.of(library.listed)
    other = proof.permuted(graph, 0)
    degrees = [sorted(len(v) for v in g.neighbours.values()) for g in (graph, other)]
    assert degrees[0] == degrees[1]
    assert len(set(graph.edges()) & set(other.edges())) < 0.1 * len(graph)
    assert list(proof.permuted(graph, 0).edges()) == list(other.edges()) != list(proof.permuted(graph, 1).edges())


def test_bars() -> None:
    assert proof._least("x", [0.95, 0.96], 0.95).shown
    assert not proof._least("x", [0.94, 0.99], 0.95).shown
    assert not proof._most("x", [0.1, 0.7], 0.6).shown
    assert not proof._none("x", "", [0, 1]).shown
