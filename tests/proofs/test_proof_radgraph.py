"""RadGraph's proof at a tiny size: every bar of the sheet is there, baselines are what they say, controls can fail."""

from dataclasses import replace

import numpy as np
import pytest

from fabrica.evaluate.graph import entity_f1, relation_f1
from fabrica.models.span_perceptron import SpanPerceptron
from fabrica.phantom.report_graphs import reports
from fabrica.proofs import Plan, radgraph
from fabrica.proofs._radgraph import Lexicon, falls, graph, negex, permuted, real_reports, tag_counts, valid
from fabrica.proofs.radgraph import NET, PERCEPTRON, Job, Size, part, prove
from fabrica.text.graph import ANAT, TextGraph
from fabrica.text.graph_rules import RuleGraphs

TINY = Size((100, 101), train=40, test=10, edits=12, steps=2, silver=30)


@pytest.fixture(scope="module")
def proof():
    patch = pytest.MonkeyPatch()
    patch.setenv("FABRICA_REAL_DATA", "/nowhere")
    yield prove(TINY, Plan(workers=1))
    patch.undo()


def test_every_bar_of_the_sheet_is_there(proof) -> None:
    names = [c.name for c in proof.claims]
    for arm in (PERCEPTRON, NET):
        assert [n.removeprefix(f"{arm}: ") for n in names if n.startswith(f"{arm}: ")] == [
            "entity F1, style 1", "relation F1, style 1", "entities over the lexicon", "style 2 costs relations more",
        ]  # fmt: skip
    assert names[8:] == ["a denial turned", "sentences in another order"]
    assert [c.name for c in proof.controls] == ["assertions permuted in training", "exact graphs, another order"]
    assert (radgraph.ENTITY, radgraph.RELATION, radgraph.OVER_LEXICON) == (0.95, 0.9, 0.25)
    assert (radgraph.MORE_THAN_ROUGE, radgraph.NEGATED, radgraph.OVER_ANY) == (0.05, 0.85, 0.15)
    assert any("nearest anatomy" in a for a in proof.arms)


def test_two_steps_of_training_do_not_show_the_net(proof) -> None:
    shown = {c.name: c.shown for c in proof.claims}
    assert not shown[f"{NET}: entity F1, style 1"]
    assert not shown[f"{NET}: relation F1, style 1"]
    assert proof.verdict == "not shown"


def test_left_out_real_arms_are_said_aloud(proof) -> None:
    assert "'negex' is not at hand" in proof.notes
    assert "'openi_reports' is not at hand" in proof.notes
    assert proof.data.startswith("synthetic")
    assert "real" not in proof.data


def test_a_part_is_the_same_again() -> None:
    few = replace(TINY, train=15, test=5, edits=4)
    a, b = (part(Job("perceptron", 100, few), Plan()) for _ in range(2))
    for key, rows in a.rows.items():
        np.testing.assert_array_equal(rows, b.rows[key])
    for edit, each in a.falls.items():
        np.testing.assert_array_equal(each, b.falls[edit])


def test_the_lexicon_knows_no_assertion_and_the_nearest_place_is_not_enough() -> None:
    train = [graph(r) for r in reports(150, 950)]
    plain = Lexicon.fit(train)
    near = Lexicon(plain.phrases, plain.modifiers, plain.longest, nearest=True)
    true = [graph(r) for r in reports(40, 951)]
    texts = [g.text for g in true]
    said = plain(texts)
    assert {s.label for g in said for s in g.spans} == {"ANAT-DP", "OBS-DP"}
    assert relation_f1(said, true).f1 == 0
    present = [
        TextGraph(g.text, tuple(s if s.label == ANAT else type(s)(s.start, s.end, "OBS-DP") for s in g.spans))
        for g in true
    ]
    assert entity_f1(said, present).f1 > 0.98  # boundaries are right: what it lacks is what is asserted
    learned = SpanPerceptron.fit(train, epochs=4)
    assert relation_f1(learned(texts), true).f1 > relation_f1(near(texts), true).f1 + 0.02
    text = "There is a mass and nodule in the base and apex respectively."

    def located(model) -> set[tuple[str, str]]:
        g = model([text])[0]
        return {(g.phrase(r.head), g.phrase(r.tail)) for r in g.relations if r.label == "located_at"}

    assert located(near) == {("mass", "base"), ("nodule", "base")}


def test_permuted_assertions_keep_places_and_counts() -> None:
    train = [graph(r) for r in reports(30, 952)]
    mixed = permuted(train, 0)
    assert [[(s.start, s.end) for s in g.spans] for g in mixed] == [[(s.start, s.end) for s in g.spans] for g in train]

    def labels(some) -> list[str]:
        return sorted(s.label for g in some for s in g.spans)

    assert labels(mixed) == labels(train)
    assert mixed != train


def test_exact_graphs_fall_as_the_edit_says() -> None:
    made = falls(reports(40, 953), 0, None)
    assert (made["order"][:, 0] == 0).all()
    assert made["order"][:, 1].min() > 0
    assert made["negation"][:, 0].min() > 0
    assert made["negation"][:, 0].mean() > made["negation"][:, 1].mean()


@pytest.mark.real_data
def test_real_sentences(shared_data) -> None:
    made = negex(shared_data("negex"))
    assert len(made["true"]) > 1400
    assert (made["rules"] == made["true"]).mean() > 0.985
    assert made["any"].sum() > made["true"].sum()


@pytest.mark.real_data
def test_real_reports(shared_data) -> None:
    """Open-i: all graphs keep the schema; what is asserted is nearer to the tags than what is named."""
    records = real_reports(shared_data("openi_reports"))
    assert len(records) > 2600
    some = records[:400]
    graphs = RuleGraphs()([r.items["report"][0].text() for r in some])
    assert valid(graphs) == 1
    asserted, named = (tag_counts(graphs, some, asserted=a) for a in (True, False))
    f1 = [2 * c[:, 0].sum() / c[:, 1:].sum() for c in (asserted, named)]
    assert f1[0] > 0.7 > 0.4 > f1[1]
