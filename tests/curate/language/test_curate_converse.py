"""Captions to conversations: what is asked of the text model, what is kept of its reply, and what is written down."""

import pytest

from fabrica.chat import ChatFailed, Scripted, prompt
from fabrica.chat.dialogue import TemplateDialogue
from fabrica.curate.language.converse import Converse, kept_turns, turn_ledger
from fabrica.errors import UsageError
from fabrica.phantom.figure_talk import figures
from fabrica.systems import load_system
from fabrica.text.turns import clean, read_turns, turns_of
from fabrica.types import Item, Record


def converse(said, **options):
    model, lost = Scripted(said), []
    step = Converse(model, prompt("converse"), **options)
    made = list(step([f.record() for f in figures(1, 3)], lambda record, why: lost.append(why)))
    return model, made, lost


def test_the_writer_is_given_texts_and_never_an_image() -> None:
    model, (made,), _ = converse(["User: Which organ?\nAssistant: The liver."])
    parts = [part for request in model.requests for message in request.messages for part in message.parts]
    assert parts
    assert all(isinstance(part, str) for part in parts)
    assert made.first("caption").text() in parts[-1]
    assert made.first("context").text() in parts[-1]
    bare, _, _ = converse(["User: Which organ?\nAssistant: The liver."], context=())
    assert made.first("context").text() not in bare.requests[0].messages[-1].text


def test_provenance_says_who_wrote_it_and_what_was_dropped() -> None:
    said = (
        "User: Which organ?\nAssistant: According to the caption, it is the liver.\n"
        "User: Size?\nAssistant: It is 37 mm.\nUser: Side?\nAssistant: The left."
    )
    _, (made,), _ = converse([said])
    item = made.first("conversation")
    assert isinstance(item, Item)
    assert item.origin.by == "model"
    assert any(s.startswith("prompt:converse@1:") for s in item.origin.steps)
    assert "model:scripted" in item.origin.steps
    assert turn_ledger(item) == {"kept": 2, "edited": 1, "invented_number": 1}
    assert turns_of(item.text()) == [("Which organ?", "It is the liver."), ("Side?", "The left.")]


def test_a_failed_item_is_asked_again_with_another_seed_three_times() -> None:
    blind = "User: Which organ?\nAssistant: I cannot see the image."
    model, made, lost = converse([blind, blind, "User: Which organ?\nAssistant: The liver."])
    assert len({r.seed for r in model.requests}) == 3
    assert len(made) == 1
    model, made, lost = converse([blind] * 3)
    assert (made, lost, len(model.requests)) == ([], ["converse_few"], 3)
    _, made, lost = converse([ChatFailed("chat_refused", "declined")])
    assert (made, lost) == ([], ["converse_chat_refused"])


def test_records_without_a_caption_pass_and_settings_are_checked() -> None:
    step = Converse(Scripted([]), prompt("converse"))
    record = Record("r", "r")
    assert list(step([record], lambda r, why: None)) == [record]
    with pytest.raises(UsageError, match="least=0"):
        Converse(Scripted([]), prompt("converse"), least=0)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I'm unable to see the picture.", "blind"), ("As an AI, I would say liver.", "blind"),
        ("The caption says liver.", "mentions_source"), ("It is not mentioned in the text.", "mentions_source"),
        ("A 12 mm nodule.", ""), ("A 13 mm nodule.", "invented_number"),
        ("You should see a surgeon.", "advice"), ("...", "empty"),
        ("The provided description is short.", "mentions_source"),
        ("It cannot be resected.", ""), ("The lesion descends to the pelvis.", ""), ("There is no access port.", ""),
    ],
)  # fmt: skip
def test_each_filter_takes_its_own_and_leaves_near_ones(answer: str, reason: str) -> None:
    assert clean(("What is it?", answer), "A nodule of 12 mm.")[1] == reason


def test_replies_are_split_at_their_speakers() -> None:
    said = "Here it is.\n**User:** One?\n**Assistant:** First line\nsecond line.\nassistant: stray\nQ: Two?\nA: Yes."
    assert read_turns(said) == [("One?", "First line second line."), ("Two?", "Yes.")]
    assert read_turns("nothing of the kind") == []
    assert kept_turns([("a", "b")], "", filtered=False)[0] == [("a", "b")]


def test_the_systems_plan_makes_conversations_without_any_download() -> None:
    system = load_system("llava_med")
    (step,) = system.plan(system.settings["tiny"])
    assert isinstance(step.model, TemplateDialogue)
    made = list(step([f.record() for f in figures(6, 3)], lambda record, why: None))
    assert len(made) == 6
    for record in made:
        turns = turns_of(record.first("conversation").text())
        assert len(turns) == 2
        assert turns[0][1].lower() == record.first("caption").text()
