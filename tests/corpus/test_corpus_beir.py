"""BEIR's layout: notes and articles become a benchmark that does not flatter, and files give it back."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.corpus import Corpus
from fabrica.corpus.views import beir
from fabrica.corpus.views.beir import Benchmark, Text, check, patients
from fabrica.errors import Leak, Refused, UsageError
from fabrica.types import Item, Link, Origin, Record, Rights, Split

ORIGIN = Origin("made", "x", "", "CC-BY-4.0")


def text(value: str) -> tuple[Item, ...]:
    return (Item("text", value, ORIGIN),)


def note(id_: str, article: str, split: Split | None, *links: tuple[str, str, int], share: str = "full") -> Record:
    groups = {"modality": "note", "article": article, "patient": f"{article}-{id_}"}
    made = tuple(Link(rel, to, float(grade)) for rel, to, grade in links)
    rights = Rights("CC-BY-4.0", share=share)  # type: ignore[arg-type]
    items = {"note": text(f"note {id_}"), "title": text(f"title {article}")}
    return Record(id_, article, groups, items, links=made, split=split, rights=rights)


def article(id_: str, own: str, split: Split | None, *, abstract: bool = True) -> Record:
    items = {"title": text(f"title {own}")} | ({"abstract": text(f"abstract {own}")} if abstract else {})
    return Record(id_, own, {"modality": "article", "article": own}, items, split=split)


RECORDS = [
    article("a1", "P1", "train"), article("a2", "P2", "test"), article("a3", "P3", "val", abstract=False),
    article("a4", "P4", "train"),
    note("n1", "P1", "train", ("similar", "n2", 2), ("similar", "n3", 1), ("relevant", "a1", 2), ("relevant", "a4", 1)),
    note("n2", "P1", "train", ("similar", "n1", 2), ("similar", "n3", 1), ("relevant", "a1", 2)),
    note("n3", "P2", "test", ("similar", "n1", 1), ("similar", "n2", 1), ("similar", "n4", 1), ("relevant", "a2", 2)),
    note("n4", "P3", "val", ("similar", "n3", 1), ("relevant", "a3", 2)),
]  # fmt: skip


def test_similar_patients_are_looked_for_among_training_notes_alone() -> None:
    made = patients(RECORDS, "ppr")
    assert sorted(made.documents) == ["P1-n1", "P1-n2"]
    assert made.qrels == {
        "train": {"P1-n1": {"P1-n2": 2}, "P1-n2": {"P1-n1": 2}}, "test": {"P2-n3": {"P1-n1": 1, "P1-n2": 1}},
    }  # fmt: skip
    assert made.dropped == {"val": 1}
    assert sorted(made.queries) == ["P1-n1", "P1-n2", "P2-n3"]
    assert made.of("test") == {"P2-n3": "note n3"}
    assert made.documents["P1-n1"] == Text("note n1", "", "P1")
    check(made, apart=True)


def test_relevant_articles_are_those_with_an_abstract() -> None:
    made = patients(RECORDS, "par")
    assert sorted(made.documents) == ["P1", "P2", "P4"]
    assert made.qrels == {
        "train": {"P1-n1": {"P1": 2, "P4": 1}, "P1-n2": {"P1": 2}}, "test": {"P2-n3": {"P2": 2}},
    }  # fmt: skip
    assert made.texts()["P1"] == "title P1\nabstract P1"


def test_what_may_not_be_shared_takes_no_part() -> None:
    closed = [r.updated(rights=Rights("", share="ids_only")) if r.id == "n2" else r for r in RECORDS]
    made = patients(closed, "ppr")
    assert sorted(made.documents) == ["P1-n1"]
    assert made.qrels == {"test": {"P2-n3": {"P1-n1": 1}}}


def test_an_article_in_two_splits_is_a_leak() -> None:
    torn = [r.updated(split="test") if r.id == "n2" else r for r in RECORDS]
    with pytest.raises(Leak, match="1 documents are of articles with queries outside train, 'P1-n1'"):
        patients(torn, "ppr")


def test_notes_without_a_split_ask_nothing_and_answer_nothing() -> None:
    made = patients([r.updated(split=None) if r.id == "n2" else r for r in RECORDS], "ppr")
    assert "P1-n2" not in {*made.documents, *made.queries}


def test_no_training_note_is_said() -> None:
    with pytest.raises(UsageError, match="no document"):
        patients([r for r in RECORDS if r.split != "train"], "ppr")
    with pytest.raises(UsageError, match="did you mean"):
        patients(RECORDS, "prp")  # type: ignore[arg-type]


def test_two_files_of_an_article_are_one_document() -> None:
    made = patients([*RECORDS, article("b1", "P1", "train")], "par")
    assert len(made.documents) == 3


def test_from_a_corpus(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c")
    corpus.append(RECORDS)
    assert patients(corpus.scan(), "ppr") == patients(RECORDS, "ppr")


# ---------------------------------------------------------------- files


def test_files_give_the_benchmark_back(tmp_path: Path) -> None:
    for task in ("ppr", "par"):
        made = patients(RECORDS, task)  # type: ignore[arg-type]
        beir.write(made, tmp_path / task)
        assert beir.read(tmp_path / task) == made


def test_the_layout_is_beirs(tmp_path: Path) -> None:
    beir.write(patients(RECORDS, "par"), tmp_path / "b")
    files = sorted(str(p.relative_to(tmp_path / "b")) for p in (tmp_path / "b").rglob("*") if p.is_file())
    assert files == ["corpus.jsonl", "qrels/test.tsv", "qrels/train.tsv", "queries.jsonl"]
    lines = (tmp_path / "b/qrels/train.tsv").read_text().splitlines()
    assert lines == ["query-id\tcorpus-id\tscore", "P1-n1\tP1\t2", "P1-n1\tP4\t1", "P1-n2\tP1\t2"]
    first = json.loads((tmp_path / "b/corpus.jsonl").read_text().splitlines()[0])
    assert first == {"_id": "P1", "title": "title P1", "text": "abstract P1", "metadata": {"article": "P1"}}


def test_the_same_benchmark_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, records in (("a", RECORDS), ("b", RECORDS[::-1])):
        beir.write(patients(records, "ppr"), tmp_path / name)
    for file in ("queries.jsonl", "corpus.jsonl", "qrels/test.tsv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def small(**changes: object) -> Benchmark:
    parts = {"queries": {"q": Text("x")}, "documents": {"d": Text("y")}, "qrels": {"val": {"q": {"d": 1}}}}
    return Benchmark(**(parts | changes))  # type: ignore[arg-type]


def test_validation_is_called_dev_on_disk(tmp_path: Path) -> None:
    beir.write(small(), tmp_path / "b")
    assert (tmp_path / "b/qrels/dev.tsv").exists()
    assert beir.read(tmp_path / "b") == small()


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (small(documents={}), UsageError, "no document"),
        (small(queries={}), UsageError, "query 'q'"),
        (small(qrels={"val": {"q": {"e": 1}}}), UsageError, "document 'e'"),
        (small(documents={"d": Text(""), "q": Text("")}, qrels={"val": {"q": {"q": 1}}}), Leak, "its own answer"),
        (small(queries={"q": Text(""), "a\tb": Text("")}), UsageError, "cannot stand"),
        (small(documents={"d": Text(""), " d": Text("")}), UsageError, "cannot stand"),
    ],
)
def test_a_benchmark_that_flatters_or_breaks_is_not_written(
    wrong: Benchmark, error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        beir.write(wrong, tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("queries.jsonl", "{}\n", "line 1"),
        ("queries.jsonl", '{"_id": "q", "text": 3}\n', "line 1"),
        ("corpus.jsonl", '{"_id": "d", "text": "y"}\n[1]\n', "line 2"),
        ("corpus.jsonl", "[" * 100_000, "line 1"),
        ("qrels/dev.tsv", "query-id\tcorpus-id\tscore\nq d 1\n", "line 2"),
        ("qrels/dev.tsv", "query-id\tcorpus-id\tscore\nq\td\tmany\n", "line 2"),
    ],
)
def test_broken_files_are_named(file: str, content: str, said: str, tmp_path: Path) -> None:
    beir.write(small(), tmp_path / "b")
    (tmp_path / "b" / file).write_text(content)
    with pytest.raises(Refused, match=said):
        beir.read(tmp_path / "b")


def test_unknown_ids_and_missing_files(tmp_path: Path) -> None:
    beir.write(small(), tmp_path / "b")
    (tmp_path / "b/qrels/dev.tsv").write_text("q\tother\t1\n")
    with pytest.raises(UsageError, match="'other'"):
        beir.read(tmp_path / "b")
    (tmp_path / "b/queries.jsonl").unlink()
    with pytest.raises(UsageError, match=r"queries\.jsonl"):
        beir.read(tmp_path / "b")


def test_grades_of_zero_are_not_relevant(tmp_path: Path) -> None:
    beir.write(small(), tmp_path / "b")
    (tmp_path / "b/qrels/dev.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t0\n")
    assert beir.read(tmp_path / "b").qrels == {"val": {}}


IDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=6)


@given(st.dictionaries(IDS, st.text(max_size=20), min_size=1, max_size=4), st.text(max_size=20))
def test_any_text_comes_back(texts: dict[str, str], title: str) -> None:
    import tempfile

    clean = {k: v.encode("utf-8", "replace").decode() for k, v in texts.items()}
    documents = {"d": Text("y", title.encode("utf-8", "replace").decode(), "o")}
    made = Benchmark(
        {f"q{k}": Text(v) for k, v in clean.items()}, documents, {"test": {f"q{k}": {"d": 1} for k in clean}}
    )
    with tempfile.TemporaryDirectory() as folder:
        beir.write(made, Path(folder) / "b")
        assert beir.read(Path(folder) / "b") == made
