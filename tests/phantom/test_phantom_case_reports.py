"""Synthetic case reports: same bytes every time, truth that stands in the files, citations that prefer a disease."""

from collections import Counter

import pytest

from fabrica.phantom.case_reports import LAYOUTS, CaseLibrary, case_reports
from fabrica.phantom.case_texts import ORGANS, PROCESSES, SIGNS
from fabrica.phantom.jats import write
from fabrica.sources.jats import parse


@pytest.fixture(scope="module")
def library() -> CaseLibrary:
    return case_reports(600, 7, kinds=30)


def test_the_same_arguments_give_the_same_bytes(library: CaseLibrary) -> None:
    again, other = case_reports(600, 7, kinds=30), case_reports(600, 8, kinds=30)
    assert again == library != other
    assert [write(r.paper) for r in again.reports[:50]] == [write(r.paper) for r in library.reports[:50]]


def test_every_layout_and_number_of_patients_occurs(library: CaseLibrary) -> None:
    assert {r.layout for r in library.reports} == {*LAYOUTS, "none"}
    assert {len(r.patients) for r in library.reports} == {0, 1, 2, 3, 4}
    assert all((r.layout == "none") == (not r.patients) for r in library.reports)
    why = Counter(p.why for r in library.reports for p in r.patients)
    assert {"animal", "transgender", "no_age", "age_in_title", ""} <= set(why)


def test_the_patients_stand_in_the_files(library: CaseLibrary) -> None:
    for report in library.reports[:150]:
        article = parse(write(report.paper))
        said = [" ".join(p.text.split()) for p in article.paragraphs]
        for patient in report.patients:
            assert all(" ".join(line.split()) in said for line in patient.text.split("\n"))


def test_identifiers_and_licences(library: CaseLibrary) -> None:
    papers = [r.paper for r in library.reports]
    assert len({p.pmid for p in papers}) == len({p.pmcid for p in papers}) == len(papers)
    assert {parse(write(p)).licence for p in papers} >= {"CC-BY-4.0", "CC0-1.0", "CC-BY-NC-ND-4.0", "other"}


def test_citations_prefer_the_disease_and_its_variant(library: CaseLibrary) -> None:
    of = {r.paper.pmid: r for r in library.reports}
    edges = [(of[a], of[b]) for a, b in {*library.in_text, *library.listed} if a != b]
    assert all(b.paper.pmid < a.paper.pmid for a, b in edges), "only what was there before"
    same = sum(a.disease == b.disease for a, b in edges) / len(edges)
    close = sum(a.disease == b.disease and a.variant == b.variant for a, b in edges) / len(edges)
    assert same > 0.85
    assert close > 0.4
    assert any(a == b for a, b in library.in_text + library.listed), "some cite themselves"


def test_each_list_of_citations_lacks_some_of_the_other(library: CaseLibrary) -> None:
    text, listed = set(library.in_text), set(library.listed)
    assert text - listed
    assert listed - text
    assert text & listed
    for report in library.reports[:50]:
        assert {(report.paper.pmid, r.pmid) for r in report.paper.references} == {
            e for e in text if e[0] == report.paper.pmid
        }


def test_no_word_belongs_to_two_organs_or_processes() -> None:
    words = [w for group in (*ORGANS, *PROCESSES) for w in group[2:]]
    assert len(words) == len(set(words))
    assert len({s for sign in SIGNS for s in sign}) == sum(map(len, SIGNS))
