"""Quality steps: each reason by a record that has it, everything else passes."""

import numpy as np
import pytest

from fabrica.curate.quality import MinimumSize, MissingText
from fabrica.types import Absent, Item, Origin, Record, Step

ORIGIN = Origin("made", "x", "", "CC0-1.0")


def why(step: Step, **items: Item) -> str | None:
    reasons: list[str] = []
    record = Record("r", "p", {"modality": "xray"}, {role: (item,) for role, item in items.items()})
    kept = list(step(iter([record]), lambda r, reason: reasons.append(reason)))
    assert len(kept) + len(reasons) == 1
    return reasons[0] if reasons else None


def image(value: np.ndarray) -> Item:
    return Item("image", value, ORIGIN)


GRAIN = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)


@pytest.mark.parametrize(
    ("value", "reason"),
    [(GRAIN, None), (GRAIN[:20], "too_small"), (np.tile(GRAIN, (1, 9)), "too_narrow"), (GRAIN * 0, "constant")],
)
def test_pictures(value: np.ndarray, reason: str | None) -> None:
    assert why(MinimumSize(), image=image(value)) == reason


def test_records_without_pictures_pass() -> None:
    assert why(MinimumSize(), report=Item("text", "x", ORIGIN)) is None
    assert why(MinimumSize(), image=Item("image", Absent.UNREADABLE, ORIGIN)) is None


@pytest.mark.parametrize(
    ("text", "words", "reason"),
    [("No effusion.", 1, None), ("No effusion.", 3, "short_text"), ("", 1, "no_text"), ("  \n", 1, "no_text")],
)
def test_texts(text: str, words: int, reason: str | None) -> None:
    assert why(MissingText(min_words=words), report=Item("text", text, ORIGIN)) == reason


def test_absent_text_is_no_text_and_other_modalities_pass() -> None:
    absent = Item("text", Absent.WITHHELD, ORIGIN)
    assert why(MissingText(), report=absent) == "no_text"
    assert why(MissingText(modalities=("ct",)), report=absent) is None
    assert why(MissingText(modalities=("xray",)), report=absent) == "no_text"
