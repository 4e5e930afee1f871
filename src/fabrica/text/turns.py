"""Conversations as text: turns of question and answer, read from a model's reply, freed of what betrays its sources."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise

from fabrica.errors import Refused

Turn = tuple[str, str]  # question, answer; without a question the answer is a plain text

_SPEAKER = re.compile(
    r"^\s*\**(user|human|question|q|assistant|gpt|answer|a)\**\s*:\**\s*", re.IGNORECASE | re.MULTILINE
)
_ASKS = ("user", "human", "question", "q")
_SOURCE = (
    r"(?:figure |image |given |provided |accompanying |above )*"
    r"(?:captions?|descriptions?|legends?|contexts?|in-?line mentions?|(?:article|paper|text|passage|information))"
)
_LEAD_IN = re.compile(
    r"^(?:(?:according to|based on|as (?:\w+ )?(?:in|by|per)|as per|from|judging (?:from|by)|given) the " + _SOURCE
    + r"(?: provided| above| given)?|(?:as|like) the " + _SOURCE
    + r" (?:says|states|mentions|notes|describes))\s*[,:]\s*",
    re.IGNORECASE,
)  # fmt: skip
_MENTIONS = re.compile(
    r"\b(?:captions?|legends?|in-?line mentions?)\b|\b(?:figure|image|provided|given|accompanying|above) "
    r"(?:descriptions?|contexts?|text|information)\b|\bthe (?:description|context|article|paper|text|passage|author|"
    r"authors)\b|\b(?:not |is |are |was |were )?(?:mentioned|described|stated|provided|specified) in the\b",
    re.IGNORECASE,
)  # fmt: skip
_BLIND = re.compile(
    r"\b(?:can ?not|can't|could not|couldn't|unable to|am not able to|do not have the ability to) "
    r"(?:actually |directly )?(?:see|view|access|look at|examine|inspect)\b|"
    r"\bwithout (?:seeing|viewing|access to|looking at)\b|"
    r"\b(?:no|not have|don't have|do not have) (?:direct )?access to\b|"
    r"\b(?:image|picture|figure) (?:itself )?(?:is|was) not (?:available|provided|given|shown|visible)\b|"
    r"\bas an? (?:ai|text-based|text based|language)\b",
    re.IGNORECASE,
)
_ADVICE = re.compile(
    r"\b(?:you should|i (?:would )?(?:recommend|advise|suggest)|please (?:consult|see|ask)|consult (?:a|your|with)|"
    r"seek medical|talk to your doctor)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*")
REASONS = ("blind", "mentions_source", "invented_number", "advice", "empty")


def turns_json(turns: Sequence[Turn]) -> str:
    """Turns as the text of a "conversation" item.

    >>> turns_of(turns_json([("Which side?", "Left.")]))
    [('Which side?', 'Left.')]
    """
    return json.dumps([{"question": q, "answer": a} for q, a in turns], ensure_ascii=False)


def turns_of(text: str, name: str = "") -> list[Turn]:
    """The inverse of `turns_json`; `Refused("conversation_bad")` for anything else."""
    try:
        return [(str(t["question"]), str(t["answer"])) for t in json.loads(text)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refused("conversation_bad", f"record {name!r} holds no conversation of questions and answers") from error


def read_turns(said: str) -> list[Turn]:
    """The turns of a reply written as "User: ... Assistant: ...". What comes before the first speaker, and a question
    without an answer, is left out.

    >>> read_turns("Sure!\\nUser: Which side?\\nAssistant: The left.\\nUser: And")
    [('Which side?', 'The left.')]
    """
    marks = list(_SPEAKER.finditer(said))
    if not marks:
        return []
    ends = [m.start() for m in marks[1:]] + [len(said)]
    parts = [(m[1].lower() in _ASKS, " ".join(said[m.end() : e].split())) for m, e in zip(marks, ends, strict=True)]
    return [
        (q, a) for (asks, q), (again, a) in pairwise(parts) if asks and not again and q and a
    ]  # fmt: skip


def clean(turn: Turn, source: str) -> tuple[Turn, str]:
    """The turn without a lead-in such as "According to the caption,", and why it must go ("" = it stays).

    "blind": somebody says that the image cannot be seen; "mentions_source": a caption, legend, description or text is
    still spoken of; "invented_number": a number that `source` lacks; "advice"; "empty". The rules are LLaVA-Med's
    (arXiv 2306.00890, appendix, and its post-processing), written anew.

    >>> clean(("Which organ?", "According to the caption, it is the liver."), "Liver.")
    (('Which organ?', 'It is the liver.'), '')
    >>> clean(("Size?", "It measures 37 mm."), "A large nodule.")[1]
    'invented_number'
    """
    question, answer = turn[0].strip(), turn[1].strip()
    short = _LEAD_IN.sub("", answer)
    if short != answer and short:
        answer = short[:1].upper() + short[1:] if answer[:1].isupper() else short
    both = f"{question}\n{answer}"
    told = set(_NUMBER.findall(source))
    for reason, wrong in (
        ("empty", not question or not re.search(r"\w", answer)), ("blind", bool(_BLIND.search(both))),
        ("mentions_source", bool(_MENTIONS.search(both))), ("advice", bool(_ADVICE.search(both))),
        ("invented_number", any(n not in told for n in _NUMBER.findall(both))),
    ):  # fmt: skip
        if wrong:
            return (question, answer), reason
    return (question, answer), ""


def speaks_of_source(text: str) -> bool:
    """Whether a text still speaks of a caption, a description, a legend or the text beside the image.

    >>> speaks_of_source("The caption says liver."), speaks_of_source("It is the liver.")
    (True, False)
    """
    return _MENTIONS.search(text) is not None or _LEAD_IN.search(text) is not None
