"""Multiple-choice questions as records: each layout, each refusal, and the real sets' counts."""

import json
from pathlib import Path

import pytest

from fabrica.chat.question import of_record
from fabrica.errors import UsageError
from fabrica.sources import Quarantined, Ref, read, sniff
from fabrica.types import Record

PUBMEDQA = {
    "10": {
        "QUESTION": "Does it help?", "CONTEXTS": ["Forty patients.", "It helped."], "LABELS": ["METHODS", "RESULTS"],
        "final_decision": "maybe", "LONG_ANSWER": "It may.",
    },
    "11": {"QUESTION": "Is it safe?", "CONTEXTS": [], "LABELS": []},
    "x": {"QUESTION": "?", "CONTEXTS": []},
    "12": {"QUESTION": "Is it safe?", "CONTEXTS": ["a"], "final_decision": "perhaps"},
}  # fmt: skip
ROW = {"question": "Which drug?", "options": {"B": "warfarin", "A": "aspirin"}, "answer_idx": "B"}


def lines(path: Path, *rows) -> Ref:
    path.write_text("\n".join(json.dumps(r) if not isinstance(r, str) else r for r in rows), "utf-8")
    return Ref(path, path.name, "set", "MIT")


def test_pubmedqa_by_number(tmp_path):
    path = tmp_path / "ori_pqal.json"
    path.write_text(json.dumps(PUBMEDQA), "utf-8")
    assert sniff(path) == "questions"
    first, bare, *bad = read(Ref(path, path.name, "pubmedqa", "MIT"))
    assert [b.code for b in bad] == ["no_question", "answer_unknown"]
    assert (first.subject, first.labels, first.links[0].to) == ("pmid:10", {"answer": 2.0}, "pmid:10")
    assert [(i.text(), i.names) for i in first.items["context"]] == [
        ("Forty patients.", ("METHODS",)), ("It helped.", ("RESULTS",))
    ]  # fmt: skip
    asked = of_record(first, context=True)
    assert (asked.options, asked.gold, asked.context) == (("yes", "no", "maybe"), "C", "Forty patients.\nIt helped.")
    assert not bare.labels
    with pytest.raises(UsageError, match="no item 'context'"):
        of_record(bare, context=True)


def test_every_layout_of_lines(tmp_path):
    rows = [
        ROW,
        {"question": "Which?", "opa": "p", "opb": "q", "opc": "r", "opd": "s", "cop": 3, "exp": "because",
         "subject_name": "Anatomy"},
        {"question": "What?", "choices": ["< 7", "> 7"], "answer": 0, "subject": "virology"},
        {"question": "True?", "options": {"A": "True", "B": "False", "C": "N/A", "D": "N/A"}, "answer_idx": "A"},
        {"question": "Hidden?", "opa": "p", "opb": "q", "opc": "r", "opd": "s", "cop": -1},
    ]  # fmt: skip
    ref = lines(tmp_path / "a.jsonl", *rows)
    assert sniff(ref.path) == "questions"
    made = list(read(ref))
    assert all(isinstance(r, Record) for r in made)
    asked = [of_record(r) for r in made]
    assert [q.options for q in asked] == [
        ("aspirin", "warfarin"),
        ("p", "q", "r", "s"),
        ("< 7", "> 7"),
        ("True", "False"),
        ("p", "q", "r", "s"),
    ]
    assert [q.gold for q in asked] == ["B", "C", "A", "A", ""]
    assert made[1].first("explanation").text() == "because"
    assert [r.groups.get("topic") for r in made] == [None, "Anatomy", "virology", None, None]


def test_what_is_no_question_is_named_and_stops_nothing(tmp_path):
    ref = lines(
        tmp_path / "a.jsonl", ROW, "{broken", [1], {"options": ["a", "b"], "question": ""}, ROW | {"options": ["a"]},
        ROW | {"options": ["a", " A "]}, ROW | {"answer_idx": "C"}, ROW | {"answer_idx": "BC"},
        ROW | {"options": [{"x": 1}, "b"]}, ROW | {"answer_idx": True}, '{"question": NaN, "options": []}', ROW,
    )  # fmt: skip
    codes = [r.code if isinstance(r, Quarantined) else "" for r in read(ref)]
    assert codes == [
        "", "json_bad", "no_question", "no_question", "options_few", "options_twice", "answer_unknown",
        "answer_unknown", "options_few", "answer_unknown", "json_number", "",
    ]  # fmt: skip


def test_the_same_question_has_one_subject_in_any_file(tmp_path):
    a = next(iter(read(lines(tmp_path / "a.jsonl", ROW))))
    b = next(iter(read(lines(tmp_path / "b.jsonl", ROW | {"question": "which  Drug", "answer_idx": "A"}))))
    assert a.subject == b.subject


def test_other_json_is_left_to_others(tmp_path):
    table = lines(tmp_path / "t.jsonl", {"id": 1, "question": "Which?", "answer": "x"})
    assert sniff(table.path) == "table"
    other = tmp_path / "o.json"
    other.write_text('{"QUESTION": 1}')
    assert sniff(other) is None


@pytest.mark.real_data
def test_the_real_sets_are_read_whole(shared_data):
    (path,) = shared_data("pubmedqa").glob("*.json")
    asked = [of_record(r, context=True) for r in read(Ref(path, path.name, "pubmedqa", "MIT")) if isinstance(r, Record)]
    assert [[q.gold for q in asked].count(a) for a in "ABC"] == [276, 169, 55]
    counts = {}
    for path in sorted(shared_data("medqa_suite").glob("*.jsonl")):
        assert sniff(path) == "questions"
        made = list(read(Ref(path, path.name, "medqa_suite", "")))
        good = [of_record(r) for r in made if isinstance(r, Record)]
        assert all(q.gold for q in good)
        counts[path.stem] = (len(good), len(made) - len(good))
    assert counts == {
        "afrimedqa__train": (124, 0), "medexqa__train": (20, 0), "medmcqa__test": (2802, 14), "mmlu__test": (1089, 0),
        "mmlu__train": (5, 0),
    }, "fourteen list an option twice"  # fmt: skip
