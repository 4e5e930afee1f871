"""Synthetic reports with graphs: exact and seeded, two styles that differ, edits that change what they say they do."""

import pytest

from fabrica.evaluate.graph import graph_reward
from fabrica.phantom.report_edits import EDITS, edited
from fabrica.phantom.report_graphs import NEW, OLD, Finding, Line, PhantomReport, Place, records, reports, worded
from fabrica.text.graph import RADGRAPH, Relation, Span, TextGraph, from_item


def graph(r: PhantomReport) -> TextGraph:
    made = TextGraph(r.text, tuple(Span(*s) for s in r.spans), tuple(Relation(*x) for x in r.relations))
    return RADGRAPH.check(made, r.id)


def said(r: PhantomReport) -> set[tuple[str, str, str]]:
    g = graph(r)
    return {(g.phrase(x.head).lower(), x.label, g.phrase(x.tail).lower()) for x in g.relations}


def test_reports_are_seeded_and_their_graphs_keep_the_schema() -> None:
    for style in (1, 2):
        made = reports(200, 1, style)
        assert made == reports(200, 1, style)
        assert made[:50] == reports(50, 1, style)
        for r in made:
            g = graph(r)
            assert all(g.phrase(i) == g.phrase(i).strip() for i in range(len(g.spans)))
    assert len({r.text for r in reports(200, 1)}) == 200


def test_every_assertion_and_relation_occurs() -> None:
    made = [graph(r) for r in reports(200, 2)]
    share = {label: sum(s.label == label for g in made for s in g.spans) for label in RADGRAPH.labels}
    assert min(share.values()) > 300
    assert {r.label for g in made for r in g.relations} == set(RADGRAPH.names)


def test_style_2_has_words_that_style_1_never_says() -> None:
    one, two = (" ".join(r.text.lower() for r in reports(300, 3, style)) for style in (1, 2))
    for name in ("nouns", "mods", "heads"):
        unseen = [w for w in getattr(NEW, name) if w not in getattr(OLD, name)]
        assert unseen
        assert not any(w in one for w in unseen)
        assert all(w in two for w in unseen)


def test_wording_by_hand() -> None:
    line = Line(
        "before", "absent", "no", (Finding("effusion", ("small",)), Finding("mass")), (Place("lung", ("left",)),)
    )
    r = worded("hand", (line,))
    assert "No small effusion or mass in the left lung." in r.text
    assert said(r) == {
        ("small", "modify", "effusion"), ("left", "modify", "lung"), ("effusion", "located_at", "lung"),
        ("mass", "located_at", "lung"),
    }  # fmt: skip
    labels = {r.text[a:b]: label for a, b, label in r.spans}
    assert labels == {"small": "OBS-DA", "effusion": "OBS-DA", "mass": "OBS-DA", "left": "ANAT-DP", "lung": "ANAT-DP"}
    each = Line("each", "present", "", (Finding("mass"), Finding("nodule")), (Place("base"), Place("apex")))
    assert said(worded("each", (each,))) == {("mass", "located_at", "base"), ("nodule", "located_at", "apex")}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_changes_what_it_says(edit: str) -> None:
    made = [(r, e) for r in reports(60, 4) if (e := edited(r, edit)) is not None]  # type: ignore[arg-type]
    assert len(made) > 40
    for r, e in made:
        one, two = graph(r), graph(e)
        assert r.text != e.text
        reward = graph_reward(two, one, level="complete", empty="one")
        assert reward is not None
        simple = [{(g.phrase(i).lower(), s.label) for i, s in enumerate(g.spans)} for g in (one, two)]
        if edit == "order":
            assert reward.f1 == 1
        if edit == "negation":
            assert sorted(one.phrase(i).lower() for i in range(len(one.spans))) == sorted(
                two.phrase(i).lower() for i in range(len(two.spans))
            )
            moved = {label for _, label in simple[0] ^ simple[1]}
            assert moved <= {"OBS-DP", "OBS-DA"}
        if edit == "side":
            assert {phrase for phrase, _ in simple[0] ^ simple[1]} <= {"left", "right"}


def test_records_carry_the_same_graph_and_patients_keep_their_reports() -> None:
    for record, r in zip(records(6, 5, per_patient=2), reports(6, 5, per_patient=2), strict=True):
        item = record.items["graph/report"][0]
        assert from_item(item, record.items["report"][0].text()) == graph(r)
        assert (item.origin.by, record.subject) == ("synthetic", r.subject)
    assert len({r.subject for r in records(6, 5, per_patient=2)}) == 3
