"""Windows of reports and the targets of span models: what is read, what is known, what is lost."""

import numpy as np
import pytest
import torch

from fabrica.encode.collate import Use
from fabrica.encode.spans import PIECES, SpanCollate, gold, marked, windows
from fabrica.encode.text import TextEncode
from fabrica.encode.vocabulary import train_vocabulary
from fabrica.errors import Refused, UsageError
from fabrica.text.graph import RADGRAPH, Relation, Span, TextGraph
from fabrica.types import Absent, Item, Origin, Record

TEXT = "INDICATION: rule out mass.\nFINDINGS: No effusion. Small mass in the left lung, XXXX."
GRAPH = TextGraph(
    TEXT,
    tuple(
        Span(TEXT.index(w, TEXT.index("FINDINGS")), TEXT.index(w, TEXT.index("FINDINGS")) + len(w), label)
        for w, label in (("effusion", "OBS-DA"), ("Small", "OBS-DP"), ("mass", "OBS-DP"), ("left lung", "ANAT-DP"))
    ),
    (Relation(1, 2, "modify"), Relation(2, 3, "located_at")),
)
VOCABULARY = train_vocabulary(["no effusion small mass in the left lung findings"] * 3, 80)


def collate(**options: object) -> SpanCollate:
    return SpanCollate({"report": Use(("report",), TextEncode(VOCABULARY, 64))}, **options)  # type: ignore[arg-type]


def record(name: str = "a", text: str = TEXT, graph: TextGraph | None = GRAPH) -> Record:
    made = Record(name, name, items={"report": (Item("text", text, Origin("demo", name, "", "")),)})
    return made if graph is None else marked(made, graph)


def test_windows_are_sentences_or_sections_and_leave_the_indication_out() -> None:
    assert [w.text(TEXT) for w in windows(TEXT)] == ["No effusion.", "Small mass in the left lung, XXXX."]
    assert [w.text(TEXT) for w in windows(TEXT, "report")] == ["No effusion. Small mass in the left lung, XXXX."]
    assert next(w.text(TEXT) for w in windows(TEXT, skip=())) == "rule out mass."
    assert windows("") == []
    with pytest.raises(UsageError, match="none of sentence, report"):
        windows(TEXT, "page")  # type: ignore[arg-type]


def test_a_window_knows_its_own_spans() -> None:
    first, second = windows(TEXT)
    assert gold(GRAPH, first) == ([(1, 1, "OBS-DA")], [])
    assert gold(GRAPH, second).spans == [(0, 0, "OBS-DP"), (1, 1, "OBS-DP"), (4, 5, "ANAT-DP")]
    assert gold(GRAPH, second).relations == [(0, 1, "modify"), (1, 2, "located_at")]


def test_targets_say_where_spans_and_relations_are() -> None:
    batch = collate(width=3)([record()])
    spans, known = batch.targets["spans"], batch.known["spans"]
    assert spans.shape == (1, 2, 9, 3)  # a record, two sentences, nine words, up to three words
    label = {name: i + 1 for i, name in enumerate(RADGRAPH.labels)}
    assert spans[0, 0, 1, 0] == label["OBS-DA"]
    assert spans[0, 1, 4, 1] == label["ANAT-DP"]
    assert int((spans > 0).sum()) == 4
    assert known[0, 0].sum() == 3 + 2 + 1  # "No effusion ." has six spans
    kind = {name: i + 1 for i, name in enumerate(RADGRAPH.names)}
    told = batch.targets["relations"][batch.known["relations"]].tolist()
    assert told == [[0, 3, kind["modify"]], [3, 4 * 3 + 1, kind["located_at"]]]


def test_a_span_wider_than_the_width_and_its_relations_are_not_targets() -> None:
    batch = collate(width=1)([record()])
    assert int((batch.targets["spans"] > 0).sum()) == 3
    assert int(batch.known["relations"].sum()) == 1


def test_what_has_no_graph_or_no_text_teaches_nothing() -> None:
    gone = record("b").updated(
        items={**record("b").items, "report": (Item("text", Absent.WITHHELD, Origin("demo", "b", "", "")),)}
    )
    batch = collate()([record("c", graph=None), gone, record()])
    assert [bool(k.any()) for k in batch.known["spans"]] == [False, False, True]
    assert batch.fields["report"].valid.any(1).tolist() == [True, False, True]
    none = collate()([gone])
    assert not none.known["spans"].any()


def test_each_piece_belongs_to_its_word() -> None:
    """Words cut into several pieces, and words of other scripts, keep their place."""
    text = "Effusions 肺 é (left)."
    batch = collate()([record("a", text, None)])
    word = batch.fields[PIECES].values[0, 0]
    ids = batch.fields["report"].values[0, 0]
    by = {int(w): [VOCABULARY.id_to_token(int(i)) for i in ids[word == w]] for w in word.unique() if w >= 0}
    assert sorted(by) == list(range(7))
    assert "".join(by[0]).replace("##", "").startswith("effusion")
    assert by[4] == ["left"]
    assert word[0] == -1  # the special tokens belong to none
    assert word[int(batch.fields["report"].mask[0, 0].sum()) - 1] == -1  # type: ignore[index]


def test_a_window_that_is_too_long_is_cut_and_loses_no_word() -> None:
    text = "effusion " * 100 + "."
    short = SpanCollate({"report": Use(("report",), TextEncode(VOCABULARY, 16))})
    rows = short.read(text)
    assert len(rows) > 4
    assert [c for r in rows for c in r.window.words] == list(windows(text)[0].words)
    assert max(len(r.ids) for r in rows) <= 16


def test_a_graph_of_another_text_is_refused() -> None:
    other = record("x", "Another text.", None).items
    bad = record().updated(items={**other, "graph/report": record().items["graph/report"]})
    with pytest.raises(Refused, match="graph_text"):
        collate()([bad])


def test_settings_survive_json_and_wrong_ones_are_refused() -> None:
    made = collate(width=5, window="report", skip=("history",))
    again = SpanCollate.from_json(made.to_json())
    assert again == made
    a, b = made([record()]), again([record()])
    assert torch.equal(a.targets["spans"], b.targets["spans"])
    with pytest.raises(UsageError, match="width >= 1"):
        collate(width=0)


def test_the_batch_changes_no_row() -> None:
    one, many = collate()([record()]), collate()([record(), record("b", "No mass. " * 9, None)])
    for name in ("spans", "relations"):
        a, b = one.targets[name][0], many.targets[name][0]
        inside = tuple(slice(0, n) for n in a.shape)
        np.testing.assert_array_equal(a.numpy(), b[inside].numpy())
