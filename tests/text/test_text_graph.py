"""Text graphs: offsets that survive the JSON form, a schema that refuses what it must, sections that are not read."""

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.errors import Refused, UsageError
from fabrica.text.graph import (
    RADGRAPH,
    Relation,
    Schema,
    Span,
    TextGraph,
    blanks,
    from_item,
    lower,
    to_item,
    words,
)
from fabrica.text.radgraph import LONG_LABELS, aligned, english, from_radgraph_json, read_radgraph, to_radgraph_json
from fabrica.text.sections import sections, told
from fabrica.types import Origin

RECORD = {  # the form of the collection (Jain et al. 2021), made up
    "text": "FINAL REPORT : No pleural effusion . Small XXXX nodule in the left apex .",
    "entities": {
        "1": {"tokens": "pleural", "label": "ANAT-DP", "start_ix": 4, "end_ix": 4, "relations": []},
        "2": {"tokens": "effusion", "label": "OBS-DA", "start_ix": 5, "end_ix": 5, "relations": [["located_at", "1"]]},
        "3": {"tokens": "Small XXXX", "label": "OBS-DP", "start_ix": 7, "end_ix": 8, "relations": [["modify", "4"]]},
        "4": {"tokens": "nodule", "label": "OBS-DP", "start_ix": 9, "end_ix": 9, "relations": [["located_at", "6"]]},
        "5": {"tokens": "left", "label": "ANAT-DP", "start_ix": 12, "end_ix": 12, "relations": [["modify", "6"]]},
        "6": {"tokens": "apex", "label": "ANAT-DP", "start_ix": 13, "end_ix": 13, "relations": []},
    },
}
WORDS = st.sampled_from(["no", "effusion", "XXXX", "___", "2.5", "cm", "é", "肺", "é", "İ", "(", ".", "left-sided"])


def test_the_collections_form_comes_back_as_it_was() -> None:
    graph = from_radgraph_json(RECORD, name="a")
    assert [graph.phrase(i) for i in range(6)] == ["pleural", "effusion", "Small XXXX", "nodule", "left", "apex"]
    assert to_radgraph_json(graph, blanks) == RECORD


@given(st.lists(WORDS, min_size=1, max_size=12), st.data())
def test_offsets_survive_the_round_trip(parts: list[str], data: st.DataObject) -> None:
    """Unicode, double blanks and blanks for removed words: text[start:end] is the tokens for every span."""
    gaps = [data.draw(st.sampled_from([" ", "  ", "\n", "\u00a0"])) for _ in parts]
    text = "".join(g + p for g, p in zip(gaps, parts, strict=True))
    cuts = words(text)
    spans, at = [], 0
    while at < len(cuts):
        size = data.draw(st.integers(1, 3))
        last = min(at + size, len(cuts)) - 1
        spans.append(Span(cuts[at][0], cuts[last][1], data.draw(st.sampled_from(RADGRAPH.labels))))
        at = last + 1 + data.draw(st.integers(0, 2))
    graph = RADGRAPH.check(TextGraph(text, tuple(spans)))
    made = to_radgraph_json(graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = from_radgraph_json(made, text=text)
        own = from_radgraph_json(made)
    assert again == graph
    for i, s in enumerate(graph.spans):
        said = made["entities"][str(i + 1)]["tokens"]
        assert said.split(" ") == [text[a:b] for a, b in cuts if s.start <= a and b <= s.end]
        assert own.phrase(i) == said


@given(st.text(max_size=60))
def test_tokens_hold_every_visible_character_and_lower_case_keeps_offsets(text: str) -> None:
    held = "".join(text[a:b] for a, b in words(text))
    assert held == "".join(c for c in text if not c.isspace())
    assert len(lower(text)) == len(text)
    assert aligned([text[a:b] for a, b in words(text)], text) == words(text)


def changed(entity: str, **fields: object) -> dict[str, object]:
    made = {k: {**v, **(fields if k == entity else {})} for k, v in RECORD["entities"].items()}  # type: ignore[attr-defined, dict-item]
    return {**RECORD, "entities": made}


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (changed("4", start_ix=8, tokens=None), "span_overlap", "entity 4"),
        (changed("4", end_ix=8), "entity_bad", "entity '4'"),
        (changed("4", end_ix=99), "entity_bad", "entity '4'"),
        (changed("4", tokens="mass"), "entity_bad", "'mass'"),
        (changed("4", start_ix="x"), "entity_bad", "entity '4'"),
        (changed("4", relations=[["modify", "9"]]), "relation_missing", "'9'"),
        (changed("4", relations=[["modify", "4"]]), "relation_self", "entity 4"),
        (changed("4", relations=[["near", "3"]]), "relation_unknown", "'near'"),
        (changed("4", label="OBS-XX"), "label_unknown", "'OBS-XX'"),
        (changed("6", relations=[["located_at", "4"]]), "pair_invalid", "entity 6"),
        ({"text": "  ", "entities": {}}, "report_empty", "no text"),
    ],
)
def test_errors_name_the_report_and_the_entity(data: dict[str, object], code: str, says: str) -> None:
    with pytest.raises(Refused, match="'p10/s7'") as caught:
        from_radgraph_json(data, name="p10/s7")
    assert caught.value.code == code
    assert says in str(caught.value)


def test_another_text_is_refused_and_another_language_warns() -> None:
    with pytest.raises(Refused, match="tokens_differ"):
        from_radgraph_json(RECORD, text="No effusion at all.")
    german = "Kein Pleuraerguss beidseits , Herz nicht vergrößert , Zwerchfelle glatt begrenzt ."
    with pytest.warns(UserWarning, match="'x' does not look English"):
        from_radgraph_json({"text": german, "entities": {}}, name="x")
    assert not english("胸部X線写真に異常なし")
    assert english("Heart size is normal. No effusion.")


def test_a_span_inside_a_word_has_no_token_form() -> None:
    with pytest.raises(Refused, match="span_tokens"):
        to_radgraph_json(TextGraph("effusions", (Span(0, 8, "OBS-DP"),)))


@pytest.mark.parametrize("spans", [(Span(3, 3, "OBS-DP"),), (Span(4, 2, "OBS-DP"),), (Span(0, 99, "OBS-DP"),)])
def test_a_span_lies_in_its_text(spans: tuple[Span, ...]) -> None:
    with pytest.raises(Refused, match="span_bounds"):
        TextGraph("No mass.", spans)


def test_a_schema_with_a_relation_to_an_unknown_label_is_refused_when_built() -> None:
    with pytest.raises(UsageError, match="'ANATOMY'"):
        Schema(("OBS",), {"located_at": frozenset({("OBS", "ANATOMY")})})
    with pytest.raises(UsageError, match="none twice"):
        Schema(("OBS", "OBS"))
    assert Schema.from_json(RADGRAPH.to_json()) == RADGRAPH


def test_radgraphs_pairs() -> None:
    """Located_at: observation to anatomy; modify: within one kind; suggestive_of: between observations."""
    kinds = ("OBS-DP", "OBS-U", "OBS-DA")
    for a in kinds:
        assert RADGRAPH.allows(a, "located_at", "ANAT-DP")
        assert not RADGRAPH.allows("ANAT-DP", "located_at", a)
        assert not RADGRAPH.allows("ANAT-DP", "modify", a)
        assert not RADGRAPH.allows(a, "modify", "ANAT-DP")
        assert all(RADGRAPH.allows(a, "suggestive_of", b) and RADGRAPH.allows(a, "modify", b) for b in kinds)
    assert RADGRAPH.allows("ANAT-DP", "modify", "ANAT-DP")
    assert not RADGRAPH.allows("ANAT-DP", "suggestive_of", "ANAT-DP")


def test_two_annotators_and_long_labels() -> None:
    both = {"text": RECORD["text"], "labeler_1": {"entities": RECORD["entities"]}, "labeler_2": {"entities": {}}}
    made = read_radgraph({"r1": RECORD, "r2": both})
    assert list(made["r1"]) == [""]
    assert {k: len(g.spans) for k, g in made["r2"].items()} == {"labeler_1": 6, "labeler_2": 0}
    long = {v: k for k, v in LONG_LABELS.items()}
    entities = {k: {**v, "label": long[v["label"]]} for k, v in RECORD["entities"].items()}  # type: ignore[attr-defined]
    assert from_radgraph_json({**RECORD, "entities": entities}, rename=LONG_LABELS) == from_radgraph_json(RECORD)


def test_a_graph_in_a_record_holds_no_word_of_its_text() -> None:
    graph = from_radgraph_json(RECORD)
    item = to_item(graph, Origin("demo", "a", "", ""))
    assert from_item(item, graph.text) == graph
    assert not any(w in item.text() for w in ("effusion", "nodule", "apex"))
    with pytest.raises(Refused, match="graph_text"):
        from_item(item, graph.text + " ")


def test_sections_that_were_asked_or_done_are_not_read() -> None:
    text = "Exam: chest\nIndication: rule out pneumonia\nFindings: No mass.\nIMPRESSION: Normal. HISTORY: fever."
    assert [s.name for s in sections(text)] == ["examination", "indication", "findings", "impression", "history"]
    assert [text[a:b].strip() for a, b in told(text)] == ["No mass.", "Normal."]
    assert len(told(text, ())) == 5
    assert [s.name for s in sections("The impression: none of that.")] == [""]
    assert told("") == []
    assert [text_[a:b] for text_ in ["FINAL REPORT: No mass."] for a, b in told(text_)] == [" No mass."]


def test_sorted_keeps_what_is_said() -> None:
    graph = TextGraph("a b c", (Span(4, 5, "OBS-DP"), Span(0, 1, "OBS-DP")), (Relation(1, 0, "modify"),) * 2)
    made = graph.sorted()
    assert [made.phrase(i) for i in range(2)] == ["a", "c"]
    assert made.relations == (Relation(0, 1, "modify"),)
