"""Relations by citations: the graph's hygiene, the grades, and what a wrong file is told."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.curate.articles.relate import Citations, Related, Relations, grades, pairs, relate
from fabrica.curate.engine.plan import signature
from fabrica.errors import UsageError
from fabrica.types import Item, Link, Origin, Record

ORIGIN = Origin("made", "x", "", "CC0-1.0")
TEXT = (Item("text", "x", ORIGIN),)


def article(pmid: str, id_: str = "", *, abstract: bool = True, cites: tuple[str, ...] = ()) -> Record:
    items = {"title": TEXT, "abstract": TEXT} if abstract else {"title": TEXT}
    links = tuple(Link("cites", c) for c in cites)
    about = {"modality": "article", "article": f"PMC{pmid}", "pmid": pmid}
    return Record(id_ or f"a{pmid}", f"PMC{pmid}", about, items, links=links)


def note(pmid: str, k: int = 1) -> Record:
    about = {"modality": "note", "article": f"PMC{pmid}", "pmid": pmid}
    return Record(f"n{pmid}-{k}", f"PMC{pmid}", about, {"note": TEXT}, links=(Link("derived_from", f"a{pmid}"),))


def test_golden_grades() -> None:
    """1 has two notes and cites 2 (one note) and 3 (no note); 4 cites 1 and has no abstract; 5 stands alone."""
    records = [article("1"), article("2"), article("3"), article("4", abstract=False), article("5"),
               note("1", 1), note("1", 2), note("2"), note("4"), note("5")]  # fmt: skip
    graph = Citations.of([("1", "2"), ("1", "3"), ("4", "1"), ("5", "5"), ("9", "2")])
    made = relate(records, graph)
    assert made.similar == {
        "n1-1": {"n1-2": 2, "n2-1": 1, "n4-1": 1}, "n1-2": {"n1-1": 2, "n2-1": 1, "n4-1": 1},
        "n2-1": {"n1-1": 1, "n1-2": 1}, "n4-1": {"n1-1": 1, "n1-2": 1}, "n5-1": {},
    }  # fmt: skip
    assert made.relevant == {
        "n1-1": {"a1": 2, "a2": 2, "a3": 1}, "n1-2": {"a1": 2, "a2": 2, "a3": 1}, "n2-1": {"a1": 2, "a2": 2},
        "n4-1": {"a1": 2}, "n5-1": {"a5": 2},
    }  # fmt: skip


def test_two_files_of_one_article_are_one() -> None:
    made = relate([article("1", "b"), article("1", "a"), note("1")], Citations.of([]))
    assert made.relevant == {"n1-1": {"a": 2}}


def test_one_way_citations_count_both_ways_and_graphs_join() -> None:
    one, other = Citations.of([("1", "2")]), Citations.of([("3", "1"), ("1", "2"), ("1", "1")])
    both = one | other
    assert list(both.edges()) == [("1", "2"), ("1", "3")]
    assert (len(both), both.loops) == (2, 1)


def test_citations_in_the_articles_themselves() -> None:
    graph = Citations.of_records([article("1", cites=("pmid:2", "doi:10.1/x", "pmid:1")), article("2")])
    assert list(graph.edges()) == [("1", "10.1/x"), ("1", "2")]


def test_an_article_without_a_pmid_goes_by_its_own_id() -> None:
    bare = article("2").updated(groups={"modality": "article", "article": "PMC2"})
    graph = Citations.of_records([article("1", cites=("pmc:PMC2",)), bare])
    mine = note("2").updated(groups={"modality": "note", "article": "PMC2"})
    made = relate([article("1"), bare, note("1"), mine], graph)
    assert made.similar == {"n1-1": {"n2-1": 1}, "n2-1": {"n1-1": 1}}
    assert made.relevant["n1-1"] == {"a1": 2, "a2": 2}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"c.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"citing": [1, 3, 7], "cited": [2, 1, 8]}), path)
    elif suffix == "jsonl":
        path.write_text('{"citing": 1, "cited": "pmid:2"}\n{"citing": 3.0, "cited": 1}\n{"citing": 7, "cited": 8}\n')
    else:
        path.write_text("citing,cited\n1,2\n3,1\n7,8\n".replace(",", "\t" if suffix == "tsv" else ","))
    assert list(Citations.read(path, touching={"1"}).edges()) == [("1", "2"), ("1", "3")]


def test_a_wrong_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("citting,cited\n1,2\n")
    with pytest.raises(UsageError, match=r"c\.csv: no column 'citing'; did you mean 'citting'"):
        Citations.read(path)
    assert len(Citations.read(path, citing="citting")) == 1


def test_an_empty_cell_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("citing,cited\n1,2\n3,\n")
    with pytest.raises(UsageError, match=r"row 3: citing='3', cited=''"):
        Citations.read(path)


def test_links_are_written_once_and_read_back() -> None:
    made = relate([article("1"), note("1", 1), note("1", 2)], Citations.of([]))
    step = Related(made)
    once = list(step([article("1"), note("1", 1), note("1", 2)], lambda r, why: None))
    assert list(step(once, lambda r, why: None)) == once
    assert once[0].links == ()
    assert grades(once[1], "similar") == {"n1-2": 2}
    assert grades(once[1], "relevant") == {"a1": 2}
    assert once[1].links[0] == Link("derived_from", "a1")


def test_the_plan_knows_relations_by_hash() -> None:
    a, b = Related(Relations({"n": {"m": 1}}, {})), Related(Relations({"n": {"m": 2}}, {}))
    assert signature(a) == signature(Related(Relations({"n": {"m": 1}}, {}))) != signature(b)


EDGES = st.lists(st.tuples(st.sampled_from("12345"), st.sampled_from("12345")), max_size=12)


@given(EDGES, st.lists(st.sampled_from("12345"), max_size=8))
def test_similar_is_symmetric_and_never_oneself(edges: list[tuple[str, str]], of: list[str]) -> None:
    notes = [note(pmid, k) for k, pmid in enumerate(of)]
    similar = relate(notes, Citations.of(edges)).similar
    assert all(similar[b][a] == grade for a, row in similar.items() for b, grade in row.items())
    assert all(a not in row for a, row in similar.items())
    assert similar == relate(reversed(notes), Citations.of([(b, a) for a, b in edges])).similar


def related() -> list[Record]:
    records = [article("1"), article("2"), note("1", 1), note("1", 2), note("2"), note("3")]
    records = [r.updated(split="test" if r.groups["pmid"] == "3" else "train") for r in records]
    graph = Citations.of([("1", "2"), ("1", "3")])
    return list(Related(relate(records, graph))(records, lambda r, why: None))


def test_training_pairs_stay_inside_the_split() -> None:
    made = list(pairs(related(), most=9))
    ends = sorted((p.links[0].to, p.links[1].to) for p in made)
    assert ends == [("n1-1", "n1-2"), ("n1-1", "n2-1"), ("n1-2", "n1-1"), ("n1-2", "n2-1"), ("n2-1", "n1-1"),
                    ("n2-1", "n1-2")]  # fmt: skip
    assert {p.split for p in made} == {"train"}
    assert {p.subject for p in made} == {"PMC1", "PMC2"}
    assert len(list(pairs(related(), most=1))) == 3
    assert list(pairs(related(), most=1)) == list(pairs(reversed(related()), most=1))


def test_training_pairs_with_articles_read_title_and_abstract() -> None:
    made = list(pairs(related(), "relevant", most=9))
    assert {p.links[1].to for p in made} == {"a1", "a2"}
    assert made[0].first("document").text() == "x\nx"  # type: ignore[union-attr]
