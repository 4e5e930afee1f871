"""Yes/no extraction: sixty phrases by hand, hostile wording, and the public rule's faults beside ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.text.yes_no import contains, extract

YES = (
    "Yes", "yes.", "YES!", "  yes  ", "**Yes**", "(Yes)", "<answer>yes</answer>", '{"answer": "yes"}', "Yeah.", "Yep",
    "Yes, there is an effusion.", "Yes (high confidence)", "Answer: yes", "The answer is yes.", "A: Yes",
    "Final answer: Yes", "I think yes", "I would say yes.", "Sure! Yes.", "Yes; a mass is seen, not a cyst",
    "Based on the image, the answer is: **Yes**", "yes\nThe heart is enlarged.", "\uff39\uff45\uff53",
    "Prediction = yes",
)  # fmt: skip
NO = (
    "No", "no.", "NO", "*No*", "[No]", "<answer>no</answer>", '{"label": "no"}', "Nope", "No, there is no effusion.",
    "No effusion is seen.", "No evidence of fracture. The heart is normal.", "The answer is no.", "Answer: No",
    "I would say no.", "I conclude: no", "Looking closely. No.", "no\n", "No, it isn't.", "So no.",
    "The final answer is **no**.",
)  # fmt: skip
BOTH = (
    "Yes or No", "yes/no", "Yes and no.", "No or yes?", "Yes, there is no effusion", "Yes. No.", "No. Yes.",
    "Yes, but no", "No, it isn't; yes it is", "The answer is yes. The answer is no.", "Yes, it is not present",
)  # fmt: skip
NEITHER = (
    "", "   ", "Not sure", "None", "Normal", "Nothing abnormal", "Nodule", "Know", "Unknown", "Yesterday", "Yes-man",
    "no-contrast CT", "No doubt there is one", "No idea", "Maybe", "Possibly.", "There is no effusion",
    "The answer is not yes.", "Ja", "Oui", "No. 3 is the best image", "Noted", "It cannot be excluded", "Positive",
)  # fmt: skip
REFUSED = ("I cannot answer that.", "As an AI, I can't interpret images.", "I'm sorry, but this is not possible.")

PHRASES = {"yes": YES, "no": NO, "ambiguous": BOTH, "unread": NEITHER, "refused": REFUSED}


@pytest.mark.parametrize(
    ("text", "status"),
    [(t, s) for s, of in PHRASES.items() for t in of],
)  # fmt: skip
def test_what_a_phrase_says(text: str, status: str) -> None:
    assert extract(text).status == status


def test_there_are_at_least_sixty_phrases() -> None:
    assert len({*YES, *NO, *BOTH, *NEITHER, *REFUSED}) >= 60


@given(
    st.sampled_from([(t, "yes") for t in YES] + [(t, "no") for t in NO]), st.sampled_from(["", "  ", "\n", "> ", "**"])
)
def test_case_and_markup_change_nothing(phrase: tuple[str, str], around: str) -> None:
    text, status = phrase
    for said in (text.upper(), text.lower(), around + text + around):
        assert extract(said).status == status


@given(st.text(max_size=60))
def test_any_text_is_read_and_never_both_and_a_value(text: str) -> None:
    said = extract(text)
    assert not (said.value is not None and (said.ambiguous or said.refused))


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz ", min_size=1, max_size=20))
def test_a_word_that_contains_no_or_yes_is_no_answer(word: str) -> None:
    """The public rule's fault: "Not", "None", "Normal" count as no."""
    assert extract("x" + word.replace("no", "").replace("yes", "").replace("nope", "") + "x").value is None


def test_the_public_rule_counts_both_words_twice_and_normal_as_no() -> None:
    assert contains("Yes or No", True)
    assert contains("Yes or No", False)
    assert all(contains(t, False) for t in ("Not sure", "None", "Normal"))
    assert all(extract(t).value is None for t in ("Yes or No", "Not sure", "None", "Normal"))
