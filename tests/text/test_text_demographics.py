"""Age and gender of notes: golden values in the sheet's wordings, and what must not be read as an age."""

import csv
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.text.demographics import demographics, find_age, find_gender, from_text, is_animal, to_text, window, years

Y, MO, W, D, H = "year", "month", "week", "day", "hour"

AGES = [
    ("A 45-year-old man", ((45.0, Y),)),
    ("A 45 year old man", ((45.0, Y),)),
    ("A 45 years-old man", ((45.0, Y),)),
    ("a forty-five-year-old woman", ((45.0, Y),)),
    ("a forty five year old woman", ((45.0, Y),)),
    ("an eight-year-old boy", ((8.0, Y),)),
    ("a 45\u2010year\u2010old man", ((45.0, Y),)),
    ("a 45\u2011year\u2011old man", ((45.0, Y),)),
    ("a 45\u2013year\u2013old man", ((45.0, Y),)),
    ("a 45\u2212year\u2212old man", ((45.0, Y),)),
    ("a 45\u00a0-year-old man", ((45.0, Y),)),
    ("a 45-yr-old man", ((45.0, Y),)),
    ("a 45 y/o man", ((45.0, Y),)),
    ("a 45yo man", ((45.0, Y),)),
    ("a 45 y.o. man", ((45.0, Y),)),
    ("45M with chest pain", ((45.0, Y),)),
    ("A 27/F came", ((27.0, Y),)),
    ("two and a half years old", ((2.5, Y),)),
    ("a 2.5-year-old girl", ((2.5, Y),)),
    ("a 2\u00bd-year-old girl", ((2.5, Y),)),
    ("a 2 1/2-year-old girl", ((2.5, Y),)),
    ("a 3-week-old neonate", ((3.0, W),)),
    ("a 10-day-old boy", ((10.0, D),)),
    ("a 36-hour-old girl", ((36.0, H),)),
    ("an 18-month-old girl", ((18.0, MO),)),
    ("aged 51 years", ((51.0, Y),)),
    ("aged 51, presented", ((51.0, Y),)),
    ("a boy aged eight with fever", ((8.0, Y),)),
    ("aged 3 months", ((3.0, MO),)),
    ("at the age of 62", ((62.0, Y),)),
    ("a woman, 33 years of age,", ((33.0, Y),)),
    ("a 2-year-and-3-month-old girl", ((2.0, Y), (3.0, MO))),
    ("a 2-year 3-month-old girl", ((2.0, Y), (3.0, MO))),
    ("1 year and 6 months old", ((1.0, Y), (6.0, MO))),
    ("a boy aged 4 years and 2 months", ((4.0, Y), (2.0, MO))),
    ("a 1 month, 2 week old infant", ((1.0, MO), (2.0, W))),
    ("a man in his early 70s", ((72.5, Y),)),
    ("a man in his late 70s", ((77.5, Y),)),
    ("a man in his 70s", ((75.0, Y),)),
    ("a man in his mid-70s", ((75.0, Y),)),
    ("a woman in her forties", ((45.0, Y),)),
    ("a boy in his late teens", ((17.5, Y),)),
    ("A G3P2 31-year-old at 30 weeks", ((31.0, Y),)),
    ("After a 3-day history, the 60-year-old", ((60.0, Y),)),
    ("A 0-day-old boy", ((0.0, D),)),
    ("Patient of 53 years, with fever", ((53.0, Y),)),
    ("a woman (61 years) with fever", ((61.0, Y),)),
    ("a girl of two and a half years", ((2.5, Y),)),
]


@pytest.mark.parametrize(("text", "age"), AGES)
def test_ages(text: str, age: object) -> None:
    found = find_age(text)
    assert found is not None
    assert found[0] == age
    start, end = found[1]
    assert text[start:end].strip() == text[start:end] != ""


@pytest.mark.parametrize(
    "text",
    [
        "G3P2 at 30 weeks", "a 3-day history of fever", "patients aged 18 to 65 years", "aged 18-65 years",
        "18 to 65 years old", "45\u201360 years old", "between 20 and 40 years old", "mean age of 51 years",
        "a median age of 44", "a gestational age of 38 weeks", "in the early 1970s", "145-year-old tradition", "",
        "a 12-month follow-up", "five six year old", "a 16F catheter", "the patient aged well", "aged 45%",
        "3 weeks before", "year-old", "a bone age of 8 years",
        "deaths under 1 year of age", "older than 60 years of age", "a patient of 5 years duration",
        "a child of 2 to 3 years", "a female of 36 weeks gestation",
    ],
)  # fmt: skip
def test_what_is_no_age(text: str) -> None:
    assert find_age(text) is None


@pytest.mark.parametrize(
    ("text", "gender"),
    [
        ("A woman came", "F"),
        ("A female infant", "F"),
        ("a housewife", "F"),
        ("A 32-year-old G3P2 at 30 weeks", "F"),
        ("She was well", "F"),
        ("a 5-year-old boy", "M"),
        ("Mr. Doe", "M"),
        ("his cough", "M"),
        ("45M with pain", "M"),
        ("a 45 yo F with pain", "F"),
        ("A woman came with her son; he was well.", "F"),
        ("A boy was brought by his mother. She said", "M"),
        ("MR imaging of a girl", "F"),
    ],
)
def test_genders(text: str, gender: str) -> None:
    said = find_gender(text)
    assert said is not None
    assert said[0] == gender


@pytest.mark.parametrize(
    "text",
    [
        "12 males and 9 females", "a boy and a girl", "twins, one boy and one girl", "a 30-year-old transgender woman",
        "a trans man", "a patient assigned female at birth", "a male-to-female patient", "he or she",
    ],
)  # fmt: skip
def test_conflicts_give_no_gender(text: str) -> None:
    said = find_gender(text)
    assert said is not None
    assert said[0] is None


def test_the_distance_of_a_conflict_is_as_set() -> None:
    text = "A man, " + "x" * 30 + " woman"
    assert find_gender(text) == ("M", (2, 5))
    assert find_gender(text, conflict_chars=40) == (None, (2, len(text)))


def test_nothing_said_is_none() -> None:
    for text in ("The patient improved.", "MS lesions on MR imaging", "stage T2 N0 M0", "a 16F catheter", ""):
        assert find_gender(text) is None, text


@pytest.mark.parametrize(
    "text",
    ["A 9-year-old neutered male Golden Retriever", "an 8-year-old female domestic shorthair cat", "a cow aged 5 years",
     "a spayed female dog", "A 3-month-old Holstein calf"],
)  # fmt: skip
def test_animals(text: str) -> None:
    assert is_animal(text) is (text != "a cow aged 5 years")  # a species before its age is not looked for


@pytest.mark.parametrize(
    "text",
    ["A 40-year-old man bitten by a dog", "A 35-year-old farmer was kicked by a horse", "a 20-year-old male cat owner",
     "a 7-year-old girl with a cat scratch", "a 50-year-old woman. Her dog"],
)  # fmt: skip
def test_people_with_animals(text: str) -> None:
    assert not is_animal(text)


def test_the_window_grows_over_short_sentences() -> None:
    text = "We report a case. He was 30 years old. He came to us with a fever of four days and cough. A woman left."
    assert text[: window(text)].endswith("and cough.")
    assert demographics(text).age == ((30.0, Y),)
    late = "The patient came to our hospital with a fever of four days and cough. She was 30 years old and well."
    assert demographics(late).age is None
    assert window("no end") == 6


def test_decimals_and_abbreviations_end_no_sentence() -> None:
    text = "Seen by Dr. Hu with a nodule of 2.5 cm and a long standing cough. Next."
    assert text[: window(text)] == text[:-6]


def test_years() -> None:
    assert years(((18.0, "month"),)) == 1.5
    assert years(((2.0, "year"), (6.0, "month"))) == 2.5
    assert years(((36.0, "hour"),)) == pytest.approx(1.5 / 365.2425)


@pytest.mark.real_data
def test_real_notes_agree_with_their_own_columns(shared_data: Callable[[str], Path]) -> None:
    """44 radiograph notes with age and sex in columns beside them; 26 notes tell no age at all."""
    folder = shared_data("covid_cxr_notes")
    rows = [
        r for name in ("metadata.csv", "controls.csv") for r in csv.DictReader((folder / name).open(encoding="utf-8"))
    ]
    notes = {note: r for r in rows if (note := r.get("clinical notes") or "").strip()}
    ages = genders = 0
    for note, row in notes.items():
        found = demographics(note)
        assert not found.animal
        if found.age and row["age"]:
            assert years(found.age) == pytest.approx(float(row["age"]), abs=2.5), note[:80]
            ages += 1
        if found.gender and row["sex"]:
            assert found.gender == row["sex"].strip(), note[:80]
            genders += 1
    assert (ages, genders) == (15, 18)


@pytest.mark.real_data
def test_real_exam_questions(shared_data: Callable[[str], Path]) -> None:
    """Of the questions whose first sentences speak of an age in the usual words, at least 99 % give one."""
    usual = re.compile(r"\d[ -](?:year|month|week|day)s?[ -]old\b")
    told = found = 0
    for path in sorted(shared_data("medqa_suite").glob("*.jsonl")):
        for line in path.open(encoding="utf-8"):
            question = json.loads(line).get("question") or ""
            part = question[: window(question)]
            if usual.search(part):
                told, found = told + 1, found + (find_age(part) is not None)
    assert told > 300
    assert found >= 0.99 * told


PARTS = st.lists(st.tuples(st.integers(0, 99).map(float), st.sampled_from([Y, MO, W, D, H])), min_size=1, max_size=3)


@given(PARTS)
def test_text_form_reads_back(age: list[tuple[float, str]]) -> None:
    assert from_text(to_text(tuple(age))) == tuple(age)  # type: ignore[arg-type]


@given(st.integers(1, 119), st.sampled_from(["-", " ", "\u2010", "\u2011", "\u2013"]), st.sampled_from(["man", "girl"]))
def test_every_age_in_years_is_read(n: int, dash: str, who: str) -> None:
    found = demographics(f"We saw a {n}{dash}year{dash}old {who}.")
    assert found.age == ((float(n), Y),)
    assert found.gender == ("M" if who == "man" else "F")


@given(st.text(max_size=300))
def test_any_text_is_answered(text: str) -> None:
    found = demographics(text)
    if found.age_span is not None:
        assert 0 <= found.age_span[0] < found.age_span[1] <= len(text)


HOSTILE = ("1 " * 20000, "two and a half " * 5000, "1 year, " * 5000, "old " * 20000, "aged 1-" * 9000, "a " * 9999)


@pytest.mark.parametrize("text", HOSTILE, ids=[t[:8] for t in HOSTILE])
def test_hostile_lengths_stay_linear(text: str) -> None:
    begun = time.perf_counter()
    for read in (find_age, find_gender, is_animal, window):
        read(text)
    assert time.perf_counter() - begun < 5
