"""PMC-Patients from files to benchmark: ingest, plan, relations, BEIR files, a bi-encoder; what each leaves out."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fabrica import curate
from fabrica.corpus import Corpus
from fabrica.corpus.ingest import ingest
from fabrica.corpus.views import beir
from fabrica.curate.articles.case_notes import CaseNotes
from fabrica.curate.articles.relate import Citations, Related, pairs, relate
from fabrica.phantom.case_reports import OPEN, CaseLibrary, case_reports
from fabrica.phantom.jats import write
from fabrica.systems import load_system
from fabrica.types import Record

SYSTEM = load_system("pmc_patients")
SETTINGS = replace(SYSTEM.settings["tiny"], fractions={"train": 0.7, "val": 0.1, "test": 0.2})
COUNT = 240


@pytest.fixture(scope="module")
def library() -> CaseLibrary:
    return case_reports(COUNT, 11, kinds=12)


@pytest.fixture(scope="module")
def source(library: CaseLibrary, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """All articles as files, one of them broken, in a corpus."""
    folder = tmp_path_factory.mktemp("articles")
    for report in library.reports:
        (folder / f"{report.paper.pmcid}.nxml").write_bytes(write(report.paper))
    (folder / "broken.nxml").write_bytes(write(library.reports[0].paper)[:900])
    corpus = Corpus.create(folder.parent / "source")
    ingest(folder, corpus, source="phantom-cases")
    return corpus


@pytest.fixture(scope="module")
def notes(library: CaseLibrary, source: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The plan, then the relations of both citation graphs."""
    assert SYSTEM.plan is not None
    folder = tmp_path_factory.mktemp("notes")
    curate.run(SYSTEM.plan(SETTINGS), source, folder / "cut")
    cut = Corpus.open(folder / "cut")
    (folder / "citations.csv").write_text("citing,cited\n" + "".join(f"{a},{b}\n" for a, b in library.listed))
    graph = Citations.of_records(cut.scan()) | Citations.read(folder / "citations.csv")
    curate.run([Related(relate(cut.scan(), graph))], cut, folder / "related")
    return Corpus.open(folder / "related")


def test_malformed_xml_is_counted_with_its_path(source: Corpus) -> None:
    bad = source.quarantined().to_pylist()
    assert [row["key"] for row in bad] == ["broken.nxml"]
    assert len(source) == COUNT


def test_all_passes_fire_and_are_counted_by_tags(notes: Corpus) -> None:
    found = Counter(r.groups["pass"] for r in notes.scan() if r.groups["modality"] == "note")
    assert set(found) == {"section", "label", "trigger", "title"}
    for name, count in found.items():
        assert notes.count(f"array_has(tags, 'pass:{name}')") == count


def test_an_article_without_a_licence_gives_nothing(library: CaseLibrary, notes: Corpus) -> None:
    closed = {r.paper.pmcid for r in library.reports if r.paper.licence not in OPEN}
    assert closed
    assert not closed & {r.groups["article"] for r in notes.scan()}
    for task in ("ppr", "par"):
        made = beir.patients(notes.scan(), task)  # type: ignore[arg-type]
        assert not closed & {text.owner for text in (*made.documents.values(), *made.queries.values())}


def test_the_ledger_names_every_reason(notes: Corpus) -> None:
    ledger = pq.read_table(notes.path.parent / "cut" / "ledger.parquet").to_pylist()
    assert {"licence", "gender_conflict", "no_age"} <= {row["reason"] for row in ledger if row["step"] == "case_notes"}


def test_no_article_stands_in_two_splits(notes: Corpus) -> None:
    splits: dict[str, set[str]] = {}
    for record in notes.scan():
        splits.setdefault(record.groups["article"], set()).add(str(record.split))
    assert all(len(s) == 1 for s in splits.values())
    assert {"train", "val", "test"} == set().union(*splits.values())


def test_the_benchmark_does_not_leak_and_comes_back_from_files(notes: Corpus, tmp_path: Path) -> None:
    records = list(notes.scan())
    held = {r.groups["article"] for r in records if r.split != "train"}
    made = beir.patients(records, "ppr")
    beir.check(made, apart=True)
    assert not held & {doc.owner for doc in made.documents.values()}
    assert all(q not in row for qrels in made.qrels.values() for q, row in qrels.items())
    assert all(set(row) <= set(made.documents) for qrels in made.qrels.values() for row in qrels.values())
    beir.write(made, tmp_path / "ppr")
    assert beir.read(tmp_path / "ppr") == made


def test_two_runs_give_the_same_notes(source: Corpus, notes: Corpus, tmp_path: Path) -> None:
    assert SYSTEM.plan is not None
    curate.run(SYSTEM.plan(SETTINGS), source, tmp_path / "again")
    again = Corpus.open(tmp_path / "again")
    assert again.split_hash() == notes.split_hash()
    text = {r.id: r.first("note") for r in again.scan()}
    assert all(text[r.id] == r.first("note") for r in notes.scan())


def test_republished_cases_are_dropped_or_named() -> None:
    """In a larger library: equal texts go, near ones share a group and so a split."""
    from fabrica.curate.duplicates.dedup import TextDuplicates
    from fabrica.proofs.pmc_patients import read

    library = case_reports(2500, 3, kinds=60)
    copies = [p for r in library.reports if r.paper.licence in OPEN for p in r.patients if "copy" in p.why]
    kept = {r.paper.pmcid for r in library.reports if any("copy" in p.why for p in r.patients)}
    texts = {p.text for p in copies}
    chosen = [r for r in library.reports if r.paper.pmcid in kept or any(
        p.text in texts or f"{p.text} This case was followed further." in texts for p in r.patients)]  # fmt: skip
    made = CaseNotes(keep_articles=False)(read(replace(library, reports=tuple(chosen))), lambda r, why: None)
    notes = list(made)
    equal, near = TextDuplicates(roles=("note",), threshold=1.0), TextDuplicates(roles=("note",), act="group")
    gone = equal.decide([equal.note(n) for n in notes])
    assert gone
    words = Counter(n.first("note").text() for n in notes)  # type: ignore[union-attr]
    assert len(gone) == sum(n - 1 for n in words.values())
    left = [n for n in notes if n.id not in gone]
    named = near.decide([near.note(n) for n in left])
    followed = [n for n in left if "This case was followed further." in n.first("note").text()]  # type: ignore[union-attr]
    assert followed
    originals = {n.first("note").text() for n in left}  # type: ignore[union-attr]
    for note in followed:
        if note.first("note").text().removesuffix(" This case was followed further.") in originals:  # type: ignore[union-attr]
            assert note.id in named


def test_a_bi_encoder_learns_what_is_similar(notes: Corpus, tmp_path: Path) -> None:
    """Trained on pairs of train, it finds more for test queries than before training."""
    import torch

    from fabrica.evaluate.ranking import ranking_scores
    from fabrica.retrieve.dense import Dense
    from fabrica.train import fit

    records = list(notes.scan())
    made = list(pairs(records, most=3))
    assert made
    assert {r.split for r in made} == {"train"}
    settings = replace(SETTINGS, steps=60, batch=24, length=96)
    torch.manual_seed(0)
    bundle = SYSTEM.build(settings, made)
    benchmark = beir.patients(records, "ppr")

    class Side:
        """One tower as an embedder."""

        def __init__(self, field: str) -> None:
            self.name = field

        def __call__(self, items: list) -> np.ndarray:
            asked = [Record(str(i), str(i), items={self.name: (item,)}) for i, item in enumerate(items)]
            return bundle.embed(asked, self.name)[1]

    def found() -> float:
        run = Dense(benchmark.texts(), Side("document"), queries=Side("query")).search(benchmark.of("test"))
        return ranking_scores(run, benchmark.qrels["test"], ["nDCG@10"])["nDCG@10"]

    before = found()
    fit(bundle, SYSTEM.stages(settings, bundle), made, tmp_path, save_every=0)
    after = found()
    assert after > before + 0.03, (before, after)


@pytest.mark.real_data
def test_real_articles_that_are_no_case_reports_give_no_note(shared_data, tmp_path: Path) -> None:
    """Eight open articles: none describes a patient, so that any note would be a false one; licences as they say."""
    corpus = Corpus.create(tmp_path / "c")
    ingest(shared_data("pmc_jats") / "data", corpus, source="pmc")
    articles = [r for r in corpus.scan() if r.first("paragraph") is not None]
    assert len(articles) == 8
    drops: Counter[str] = Counter()
    made = list(CaseNotes()(articles, lambda r, why: drops.update([why])))
    assert [r for r in made if r.groups["modality"] == "note"] == []
    assert len(made) + drops["licence"] == 8
    assert drops["licence"] == 2  # a public domain mark, which is no licence, and one that names none
