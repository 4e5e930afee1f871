"""Graphs by rules: the scope of what is denied, which sections count, and relations of the plain cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.text.graph import RADGRAPH, Relation, Span, TextGraph
from fabrica.text.graph_rules import RuleGraphs, asserted

DP, U, DA = "OBS-DP", "OBS-U", "OBS-DA"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("No change in the effusion.", {"effusion": DP}),
        ("Not only effusion but also pneumothorax.", {"effusion": DP, "pneumothorax": DP}),
        ("Cannot exclude pneumonia.", {"pneumonia": U}),
        ("The lungs are free of consolidation.", {"consolidation": DA}),
        (
            "Without evidence of effusion, pneumothorax, or consolidation.",
            {"effusion": DA, "pneumothorax": DA, "consolidation": DA},
        ),
        ("The effusion has resolved.", {"effusion": DA}),
        ("INDICATION: rule out pneumonia. FINDINGS: Small effusion.", {"effusion": DP}),
        ("FINDINGS: rule out pneumonia.", {"pneumonia": U}),
        ("No effusion, but there is a pneumothorax.", {"effusion": DA, "pneumothorax": DP}),
    ],
)
def test_scope(text: str, want: dict[str, str]) -> None:
    graph = RuleGraphs()([text])[0]
    found = {graph.phrase(i).lower(): s.label for i, s in enumerate(graph.spans) if s.label != "ANAT-DP"}
    assert {k: v for k, v in found.items() if k != "small"} == want


def said(text: str) -> set[tuple[str, str, str]]:
    graph = RuleGraphs()([text])[0]
    return {(graph.phrase(r.head), r.label, graph.phrase(r.tail)) for r in graph.relations}


def test_relations_of_a_coordination() -> None:
    assert said("No effusion or pneumothorax in the left chest.") == {
        ("effusion", "located_at", "chest"), ("pneumothorax", "located_at", "chest"), ("left", "modify", "chest"),
    }  # fmt: skip
    assert said("Small consolidation suggesting pneumonia.") == {
        ("Small", "modify", "consolidation"), ("consolidation", "suggestive_of", "pneumonia"),
    }  # fmt: skip
    assert said("Effusion is seen. The heart is normal.") == set()


def test_the_rules_may_take_the_place_of_learned_labels() -> None:
    text = "No small effusion. Mass."
    wrong = TextGraph(
        text, (Span(3, 8, DP), Span(9, 17, DP), Span(19, 23, DA)), (Relation(0, 1, "modify"),)
    )  # fmt: skip
    assert [s.label for s in asserted(wrong).spans] == [DA, DA, DP]
    assert asserted(wrong).relations == wrong.relations
    assert asserted(TextGraph(text)) == TextGraph(text)


@given(st.text(alphabet="no small left effusion lung in and, .:\nİ", max_size=100))
def test_any_text_gives_a_graph_that_keeps_the_schema(text: str) -> None:
    graph = RuleGraphs()([text])[0]
    assert RADGRAPH.check(graph).text == text
    assert RADGRAPH.check(asserted(graph)).relations == graph.relations
