"""Preference pairs: mined where contexts did harm, checked before they teach, and the public file's faults flagged."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.curate.language.preference import (
    Asked,
    Preference,
    as_record,
    checked,
    from_conversations,
    mine,
    polarity,
    wrong_with,
)
from fabrica.errors import Refused

ASK = "Is there any pleural effusion?"
SOUND = Preference("q", "p", "prompt", "No, there is none.", "Yes, on the left.", gold=False, question=ASK)


def asked(gold: bool, alone: str, shown: str, id_: str = "q") -> Asked:
    return Asked(id_, "p", ASK, "with reports: " + ASK, gold, alone, shown, ("r1",))


def test_over_reliance_makes_a_pair_and_nothing_else_does() -> None:
    all_of = [
        asked(True, "Yes.", "No.", "resist"), asked(True, "No.", "Yes.", "use"), asked(True, "Yes.", "Yes.", "kept"),
        asked(False, "Yes.", "Yes.", "wrong"), asked(True, "Yes.", "Perhaps.", "unread"),
    ]  # fmt: skip
    dropped = Counter[str]()
    (pair,) = mine(all_of, dropped=dropped)
    assert (pair.id, pair.chosen, pair.rejected, pair.kind, pair.evidence) == (
        "resist",
        "Yes.",
        "No.",
        "resist",
        ("r1",),
    )
    assert dropped == {"unread": 1}
    assert [(p.id, p.chosen) for p in mine(all_of, kinds=("use", "resist"))] == [("resist", "Yes."), ("use", "Yes.")]


@given(st.booleans(), st.sampled_from(["Yes.", "No.", "Maybe", "yes or no"]), st.sampled_from(["Yes.", "No.", "Maybe"]))
def test_mined_pairs_are_sound(gold: bool, alone: str, shown: str) -> None:
    for pair in mine([asked(gold, alone, shown)], kinds=("use", "resist")):
        assert wrong_with(pair) == ""
        assert polarity(pair.chosen) == gold != polarity(pair.rejected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""), ({"rejected": "no,  there is none."}, "same_text"), ({"rejected": "No effusion."}, "same_polarity"),
        ({"rejected_prompt": "another"}, "prompts_differ"), ({"gold": True}, "against_reference"),
        ({"chosen": "The image is normal."}, "chosen_unread"), ({"rejected": "Perhaps."}, "rejected_unread"),
        ({"gold": None}, ""), ({"rejected": "There is a pleural effusion."}, ""),
    ],
)  # fmt: skip
def test_why_a_pair_is_left_out(change, reason) -> None:
    pair = replace(SOUND, **change)
    assert wrong_with(pair) == reason
    dropped = Counter[str]()
    assert list(checked([pair], dropped)) == ([] if reason else [pair])
    assert dropped == ({reason: 1} if reason else {})


def conversation(chosen: str, rejected: str, question: str, other: str = "") -> dict[str, object]:
    """An entry in the layout of the public preference files."""
    asks = f"You are provided with an image and 1 reference report(s): clear.\nQuestion: {question}\n<image>"
    return {
        "id": "CXR1/0.png", "image": "CXR1/0.png",
        "conversations": [{"from": "human", "value": asks}, {"from": "gpt", "value": chosen}],
        "rejected_conversations": [{"from": "human", "value": other or asks}, {"from": "gpt", "value": rejected}],
    }  # fmt: skip


def test_faults_of_the_public_file_are_flagged() -> None:
    """Entries of the kinds that stand there: both sides say the same; the chosen one contradicts the record."""
    clear = "Are the lungs clear?"
    rows = [
        conversation("Yes, the lungs are clear.", "Yes, the lungs are clear, which means that nothing is seen.", clear),
        conversation("No, there is no pleural effusion.", "The film does not show a pleural effusion.", ASK),
        conversation("Yes, an effusion is seen.", "No, none is seen.", ASK),
        conversation("No, none is seen.", "Yes, an effusion is seen.", ASK),
        conversation("No.", "Yes.", ASK, "another prompt"),
    ]
    pairs = list(from_conversations(json.dumps(rows), {ASK: False}))
    assert [wrong_with(p) for p in pairs] == [
        "same_polarity",
        "same_polarity",
        "against_reference",
        "",
        "prompts_differ",
    ]
    assert pairs[0].question == clear
    assert {p.subject for p in pairs} == {"CXR1"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '[{"id": "a"}]',
        '[{"id": "a", "conversations": [], "rejected_conversations": []}]',
        "[" * 100_000,
    ],
)
def test_files_that_are_none(text: str) -> None:
    with pytest.raises(Refused, match="preferences_bad"):
        list(from_conversations(text))


def test_as_a_record() -> None:
    record = as_record(SOUND, (-1.0, -2.0))
    assert [record.first(n).text() for n in ("prompt", "chosen", "rejected")] == [
        "prompt",
        SOUND.chosen,
        SOUND.rejected,
    ]
    assert record.labels == {"reference/chosen": -1.0, "reference/rejected": -2.0}
    assert (record.subject, record.groups["kind"]) == ("p", "resist")
