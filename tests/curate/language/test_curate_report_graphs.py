"""The step that marks reports: a model's mark says so, people's marks stay, and no machine mark is a reference."""

import warnings
from dataclasses import replace

import pytest

from fabrica.curate.language.graphs import ReportGraphs, of_radgraph
from fabrica.curate.split import BySubject
from fabrica.errors import Leak, Refused
from fabrica.evaluate.graph import references
from fabrica.phantom.report_graphs import records
from fabrica.text.graph import Span, TextGraph, from_item
from fabrica.text.graph_rules import RuleGraphs
from fabrica.types import Absent, Item, Origin, Record


def report(name: str, text: str) -> Record:
    return Record(name, name, items={"report": (Item("text", text, Origin("demo", name, "", "CC0-1.0")),)})


def run(step, some):
    return list(step(some, lambda record, why: pytest.fail(f"dropped {record.id}: {why}")))


def test_a_models_graph_says_so_and_is_no_reference() -> None:
    [made] = run(ReportGraphs(RuleGraphs()), [report("a", "No effusion. Small mass.")])
    item = made.items["graph/report"][0]
    assert (item.kind, item.origin.by, item.origin.licence) == ("graph", "model", "CC0-1.0")
    assert item.origin.steps[-1].startswith("report_graphs:rule-graphs:")
    graph = from_item(item, made.items["report"][0].text())
    assert [graph.phrase(i) for i in range(3)] == ["effusion", "Small", "mass"]
    with pytest.raises(Leak, match="'a'"):
        references([made.updated(split="test")])


def test_graphs_that_are_there_stay_and_a_second_run_changes_nothing() -> None:
    people = records(2, 5)
    assert run(ReportGraphs(RuleGraphs()), people) == people
    once = run(ReportGraphs(RuleGraphs(), batch=2), [report(c, f"No effusion {c}.") for c in "abcde"])
    assert [r.id for r in once] == list("abcde")
    assert run(ReportGraphs(RuleGraphs()), once) == once


def test_what_has_no_text_or_is_not_english_passes_unmarked() -> None:
    withheld = report("b", "x").updated(items={"report": (Item("text", Absent.WITHHELD, Origin("demo", "b", "", "")),)})
    german = report("c", "Kein Pleuraerguss beidseits, Herz nicht vergrößert, Zwerchfelle glatt begrenzt.")
    step = ReportGraphs(RuleGraphs())
    with pytest.warns(UserWarning, match="'c' does not look English"):
        made = run(step, [report("a", "  "), withheld, german])
    assert [("graph/report" in r.items) for r in made] == [False] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(step, [german]) == [german]  # it warns once
        assert "graph/report" in run(ReportGraphs(RuleGraphs(), anyway=True), [german])[0].items


def test_a_graph_that_breaks_the_schema_is_refused_with_its_record() -> None:
    class Bad:
        name, version = "bad", "1"

        def __call__(self, texts, /):
            return [TextGraph(t, (Span(0, 1, "OBS-XX"),)) for t in texts]

    with pytest.raises(Refused, match="report 'a', entity 1"):
        run(ReportGraphs(Bad()), [report("a", "No mass.")])


def test_the_collections_files_become_records_of_people() -> None:
    one = {"text": "No mass .", "entities": {"1": {"tokens": "mass", "label": "OBS-DA", "start_ix": 1, "end_ix": 1}}}
    two = {"text": "No mass .", "labeler_1": {"entities": one["entities"]}, "labeler_2": {"entities": {}}}
    made = of_radgraph({"p10/p100/s1.txt": one, "p10/p100/s2.txt": one, "p11/p110/s3.txt": two}, source="radgraph")
    assert [r.subject for r in made] == ["p100", "p100", "p110"]
    assert [len(r.items["graph/report"]) for r in made] == [1, 1, 2]
    assert {i.origin.by for r in made for i in r.items["graph/report"]} == {"human"}
    assert set(references(made)) == {r.id for r in made}


def test_reports_of_one_patient_stay_in_one_split() -> None:
    some = records(60, 6, per_patient=3)
    survey = BySubject(fractions={"train": 0.5, "val": 0.2, "test": 0.3})
    decided = survey.decide([survey.note(r) for r in some])
    side = {}
    for r in some:
        split = decided[r.id].split
        assert side.setdefault(r.subject, split) == split
    assert len(side) == 20
    assert {"train", "test"} <= set(side.values())


def test_the_systems_plan_marks_then_splits() -> None:
    from fabrica.systems import load_system

    system = load_system("radgraph")
    assert system.plan is not None
    step, survey = system.plan(system.settings["tiny"])
    assert isinstance(step, ReportGraphs)
    assert isinstance(survey, BySubject)
    assert replace(step, batch=1).role == "graph/report"
