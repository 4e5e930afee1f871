"""Patient notes out of articles made by hand: each pass, their order, each reason to leave out, what a note holds."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.curate.articles.case_notes import CaseNotes, family
from fabrica.curate.articles.note_grammar import Paragraph, candidates
from fabrica.errors import UsageError
from fabrica.text.demographics import from_text
from fabrica.types import Item, Link, Origin, Record, Rights

ORIGIN = Origin("made", "a.nxml", "", "CC-BY-4.0")
MAN = "A 45-year-old man presented to our clinic with a cough of three weeks and fever."
WOMAN = "A 32-year-old woman was admitted for abdominal pain that had begun four days before."
GIRL = "A 3-week-old girl was brought in with jaundice that her parents had seen since birth."
Body = Sequence[tuple[tuple[str, ...], str]]


def article(body: Body, *, licence: str = "CC-BY-4.0", title: str | None = "A rare case", **groups: str) -> Record:
    items: dict[str, tuple[Item, ...]] = {
        "paragraph": tuple(Item("text", text, ORIGIN, names=path) for path, text in body)
    }
    if title is not None:
        items["title"] = (Item("text", title, ORIGIN),)
    found = {"modality": "article", "article": "PMC7", "pmid": "77", **groups}
    return Record("a7", "PMC7", found, items, rights=Rights(licence))


def notes(body: Body, step: CaseNotes | None = None, **about: str) -> tuple[list[Record], list[str]]:
    reasons: list[str] = []
    step = step or CaseNotes(keep_articles=False)
    return list(step([article(body, **about)], lambda r, why: reasons.append(why))), reasons  # type: ignore[arg-type]


def found(body: Body) -> list[tuple[str, str]]:
    return [(c.found_by, c.text) for c in candidates([Paragraph(path, text) for path, text in body])]


# ---------------------------------------------------------------- the passes


@pytest.mark.parametrize(
    "titles",
    [("Case 1", "Case 2"), ("Patient A", "Patient B"), ("Case report (i)", "Case report (ii)"), ("CASE I", "CASE II"),
     ("2.1. Case 1", "2.2. Case 2"), ("Case #1: a man", "Case #2: a woman"), ("First case", "Second case"),
     ("Case No. 1", "Case No. 2"), ("Case 1.", "Case 2."), ("Clinical case 1", "Clinical case 2")],
)  # fmt: skip
def test_numbered_sections_are_one_note_each(titles: tuple[str, str]) -> None:
    body = [
        (("Introduction",), "Text."),
        ((titles[0],), MAN),
        ((titles[0], "Follow-up"), "Well."),
        ((titles[1],), WOMAN),
    ]
    assert found(body) == [("section", f"{MAN}\nWell."), ("section", WOMAN)]


def test_the_first_level_with_numbered_sections_ends_the_search() -> None:
    body = [(("Case 1",), MAN), (("Series", "Case 2"), WOMAN)]
    assert found(body) == [("section", MAN)]
    assert found([(("Reports", "Case 1"), MAN), (("Reports", "Case 2"), WOMAN)]) == [
        ("section", MAN),
        ("section", WOMAN),
    ]


def test_labels_cut_a_section_and_are_left_out() -> None:
    section = ("Case presentations",)
    said = ["Two patients.", "Case 1", MAN, "He left.", "Case 2.", WOMAN]
    body = [*((section, text) for text in said), (("Discussion",), "Case 3")]
    assert found(body) == [("label", f"{MAN}\nHe left."), ("label", WOMAN)]


def test_triggers_cut_a_section_and_are_kept() -> None:
    section = ("Clinical findings",)
    first, second = f"Case 1: {MAN}", f"Our second patient was different. {WOMAN}"
    body = [(section, "Two patients."), (section, first), (section, "He left."), (section, second)]
    assert found(body) == [("trigger", f"{first}\nHe left."), ("trigger", second)]


def test_one_label_or_trigger_is_not_enough() -> None:
    assert found([(("Case report",), "Case 1"), (("Case report",), MAN)]) == [("title", f"Case 1\n{MAN}")]
    assert found([(("Clinical course",), f"Case 1: {MAN}")]) == []


@pytest.mark.parametrize(
    "title", ["Case report", "Case presentation", "Clinical case", "2. Case Report", "Case", "The patient",
              "Case Description", "Case presentation and management", "Case report(s)", "Patient history"],
)  # fmt: skip
def test_a_titled_section_is_one_note(title: str) -> None:
    body = [(("Background",), "Text."), ((title,), MAN), ((title, "Outcome"), "Well."), (("Case summary",), WOMAN)]
    assert found(body) == ([("title", f"{MAN}\nWell.")] if title != "The patient" else [("title", WOMAN)])


@pytest.mark.parametrize(
    "title", ["Patient consent", "Case-control study", "Patients and methods", "Ethics approval of the case report",
              "Discussion", "Case 1 and Case 2", "Cases 1-3", "Caseload", "Case series", "Patient characteristics"],
)  # fmt: skip
def test_other_sections_are_no_notes(title: str) -> None:
    assert found([((title,), MAN)]) == []


def test_consent_inside_a_case_is_left_out() -> None:
    body = [(("Case report",), MAN), (("Case report", "Patient consent"), "She agreed."), (("Case report",), "Well.")]
    assert found(body) == [("title", f"{MAN}\nWell.")]


def test_passes_follow_the_stated_order() -> None:
    """One article that all four passes would read: each, once taken away, leaves the next."""
    labels = ("Clinical reports",)
    body = [
        (("Case report",), "An overview of both patients."),
        (labels, "Case 1"), (labels, f"Case 1. {MAN}"), (labels, "Case 2"), (labels, f"Case 2. {WOMAN}"),
        (("Case 1",), GIRL),
    ]  # fmt: skip
    assert [name for name, _ in found(body)] == ["section"]
    assert [name for name, _ in found(body[:-1])] == ["label", "label"]
    assert [name for name, _ in found([p for p in body[:-1] if p[1] not in ("Case 1", "Case 2")])] == ["trigger"] * 2
    assert [name for name, _ in found(body[:1])] == ["title"]


# ---------------------------------------------------------------- what a note holds


def test_a_note_says_whose_it_is_and_where_that_stands() -> None:
    (first, second), reasons = notes([(("Case 1",), MAN), (("Case 2",), GIRL)])
    assert reasons == []
    assert first.groups["patient"] == "PMC7-1"
    assert second.groups["patient"] == "PMC7-2"
    assert first.groups | {"patient": ""} == {
        "modality": "note", "article": "PMC7", "pass": "section", "pmid": "77", "patient": "",
    }  # fmt: skip
    assert first.subject == "PMC7"
    assert first.links == (Link("derived_from", "a7"),)
    assert first.rights == Rights("CC-BY-4.0")
    assert dict(first.labels) == {"age_years": 45.0, "female": 0.0}
    assert second.labels["age_years"] == pytest.approx(3 / 52.1775)
    spans = {r.label: (r.role, second.first("note").text()[slice(*r.data)]) for r in second.regions}  # type: ignore[union-attr]
    assert spans == {"age": ("note", "3-week"), "gender": ("note", "girl")}
    assert [from_text(r.text or "") for r in second.regions if r.label == "age"] == [((3.0, "week"),)]
    assert first.first("note").origin.steps == ("case_notes",)  # type: ignore[union-attr]


def test_articles_pass_on_before_their_notes() -> None:
    made, _ = notes([(("Case report",), MAN)], CaseNotes())
    assert [r.groups["modality"] for r in made] == ["article", "note"]
    made, reasons = notes([(("Methods",), MAN)], CaseNotes())
    assert ([r.groups["modality"] for r in made], reasons) == (["article"], [])


def test_age_only_in_the_title() -> None:
    text = "The patient came to our clinic with a cough of three weeks and a mild fever."
    (note,), _ = notes([(("Case report",), text)], title="Cough in a 12-year-old boy")
    assert dict(note.labels) == {"age_years": 12.0, "female": 0.0}
    assert {r.role for r in note.regions} == {"title"}
    both = [(("Case 1",), text), (("Case 2",), text + " It grew.")]
    assert notes(both, title="Cough in a 12-year-old boy") == ([], ["no_age", "no_age", "no_note"])


def test_the_notes_own_word_comes_before_the_titles() -> None:
    (note,), _ = notes([(("Case report",), MAN.replace("man", "patient"))], title="Cough in an 80-year-old woman")
    assert dict(note.labels) == {"age_years": 45.0, "female": 1.0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A 45-year-old man died.", "short_text"),
        (MAN + " \u4e2d\u6587\u4e2d\u6587\u4e2d\u6587", "non_ascii"),
        (MAN.replace("45-year-old ", ""), "no_age"),
        (MAN.replace("man", "patient"), "no_gender"),
        ("A 45-year-old man and his neighbour, a 40-year-old woman, presented with cough.", None),
        ("A couple of 45-year-old twins, a man and a woman, presented to our clinic with cough.", "gender_conflict"),
        (MAN.replace("man", "transgender man"), "gender_conflict"),
        (MAN.replace("man", "neutered male Labrador"), "animal"),
        ("There were 12 males and 9 females aged 18 to 65 years in the series that we saw.", "gender_conflict"),
    ],
)
def test_each_reason(text: str, reason: str | None) -> None:
    made, reasons = notes([(("Case report",), text)], CaseNotes())
    if reason is None:  # the words stand more than 20 characters apart: the first one decides
        assert [r.labels["female"] for r in made[1:]] == [0.0]
    else:
        assert (len(made), reasons) == (1, [reason])


def test_equal_notes_of_an_article_count_once() -> None:
    made, reasons = notes([(("Case 1",), MAN), (("Case 2",), MAN), (("Case 3",), WOMAN)])
    assert [r.groups["patient"] for r in made] == ["PMC7-1", "PMC7-2"]
    assert reasons == ["duplicate_text"]


@pytest.mark.parametrize("licence", ["NO-CC CODE", "", "CC-BY-ND-4.0", "CC-BY-SA-4.0", "CC-BY-NC-ND-4.0", "other"])
def test_other_licences_give_nothing_not_even_the_article(licence: str) -> None:
    assert notes([(("Case report",), MAN)], CaseNotes(), licence=licence) == ([], ["licence"])


@pytest.mark.parametrize("licence", ["CC0-1.0", "CC-BY-4.0", "CC-BY-NC-3.0", "CC BY-NC-SA 4.0", "cc-by-4.0"])
def test_licences_that_allow(licence: str) -> None:
    made, reasons = notes([(("Case report",), MAN)], licence=licence)
    assert (len(made), reasons) == (1, [])


def test_articles_without_title_or_body_and_other_records() -> None:
    assert notes([(("Case report",), MAN)], CaseNotes(), title=None) == ([], ["no_title"])  # type: ignore[arg-type]
    assert notes([], CaseNotes()) == ([], ["no_body"])
    assert notes([(("Case report",), MAN)], CaseNotes(), modality="figure") == ([], ["not_article"])


def test_wrong_settings() -> None:
    for wrong in ({"licences": "CC-BY"}, {"licences": ()}, {"min_words": 0}, {"max_non_ascii": 2}):
        with pytest.raises(UsageError):
            CaseNotes(**wrong)  # type: ignore[arg-type]


def test_families() -> None:
    assert family("CC-BY-NC-SA-2.5") == "CC-BY-NC-SA"
    assert family("") == ""


def test_hostile_lengths_stay_linear() -> None:
    begun = time.perf_counter()
    for text in (
        "Case 1" + " " * 50_000 + "x",
        "." * 50_000,
        "case " * 10_000,
        "1. " * 20_000,
        "Case report and " * 5_000,
    ):
        found([((text,), text), (("Case",), text), (("Case",), text)] * 3)
    assert time.perf_counter() - begun < 5


def test_a_label_is_short() -> None:
    long = "Case 1" + " " * 300 + MAN
    assert found([(("Cases",), long), (("Cases",), long)])[0][0] == "trigger"


TITLES = st.sampled_from(["Case 1", "Case report", "Cases", "Patient consent", "Discussion", ""])
BODIES = st.lists(st.tuples(st.lists(TITLES, max_size=3).map(tuple), st.sampled_from([MAN, WOMAN, "Case 1", "x"])))


@given(BODIES)
def test_a_note_is_made_of_whole_paragraphs_in_order_each_used_once(body: Body) -> None:
    said = [text for _, text in body]
    used = [line for _, text in found(body) for line in text.split("\n")]
    place = iter(said)
    assert all(line in place for line in used), "a subsequence of the paragraphs"
    assert not any("consent" in t for path, text in body for t in path if len(body) == 1 and used)
