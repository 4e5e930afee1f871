"""Identifiers that survive in published notes are marked where they stand; nothing else changes."""

import numpy as np
import pytest

from fabrica.curate.articles.flags import FlagIdentifiers
from fabrica.errors import UsageError
from fabrica.types import Absent, Item, Origin, Record

ORIGIN = Origin("made", "x", "", "CC-BY-4.0")
TEXT = "Mr. Jan Kowalski, a 45-year-old man, was admitted on 3 May 2019 with a cough."


def note(text: str) -> Record:
    return Record("n", "p", {"modality": "note"}, {"note": (Item("text", text, ORIGIN),)})


def flagged(record: Record, **changes: object) -> Record:
    (made,) = FlagIdentifiers(**changes)([record], lambda r, why: None)  # type: ignore[arg-type]
    return made


def test_names_and_dates_are_marked() -> None:
    made = flagged(note(TEXT))
    found = {r.label: TEXT[slice(*np.asarray(r.data).tolist())] for r in made.regions}
    assert found["identifier/date"] == "3 May 2019"
    assert "Kowalski" in found["identifier/name"]
    assert made.groups["identifiers"] == "date,name"
    assert made.items == note(TEXT).items


def test_only_the_kinds_that_were_asked_for() -> None:
    made = flagged(note(TEXT), kinds=("date",))
    assert {r.label for r in made.regions} == {"identifier/date"}
    assert made.groups["identifiers"] == "date"


def test_what_names_nobody_passes_unchanged() -> None:
    plain = note("A 45-year-old man was admitted with a cough of three weeks.")
    assert flagged(plain) == plain
    absent = Record("n", "p", items={"note": (Item("text", Absent.WITHHELD, ORIGIN),)})
    assert flagged(absent) == absent


def test_wrong_settings() -> None:
    with pytest.raises(UsageError, match="did you mean 'name'"):
        FlagIdentifiers(kinds=("names",))
    with pytest.raises(UsageError, match="lists"):
        FlagIdentifiers(roles="note")
