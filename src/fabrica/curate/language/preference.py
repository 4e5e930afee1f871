"""Preference pairs from a reader's own answers: where contexts made it wrong, prefer what it said without them.

Kinds: "resist" (right alone, wrong with contexts: over-reliance, RULE), "use" (wrong alone, right with contexts). A
pair is kept only if its two answers say opposite things, the chosen one agrees with the reference, and both stand under
one prompt; what is left out is counted by reason.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fabrica.errors import Refused
from fabrica.text.assertions import statuses
from fabrica.text.yes_no import extract
from fabrica.types import Item, Origin, Record, record_id

Kind = Literal["resist", "use"]
REASONS = ("same_text", "prompts_differ", "chosen_unread", "rejected_unread", "same_polarity", "against_reference")
_QUESTION = re.compile(r"question:\s*(.+?)\s*(?:\n|<image>|$)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Asked:
    """One training question as a reader answered it: `alone` without and `shown` with the contexts of `prompt`; `gold`
    True = yes; `evidence` ids of what was shown."""

    id: str
    subject: str
    question: str
    prompt: str
    gold: bool
    alone: str
    shown: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preference:
    """A pair: under `prompt`, `chosen` is better than `rejected`. `rejected_prompt` "" = the same one; `gold` None
    where no reference answer is at hand."""

    id: str
    subject: str
    prompt: str
    chosen: str
    rejected: str
    kind: Kind = "resist"
    question: str = ""
    gold: bool | None = None
    evidence: tuple[str, ...] = ()
    rejected_prompt: str = ""


def polarity(reply: str, question: str = "") -> bool | None:
    """Whether a reply says yes or no: by its words of answer, else by what it asserts of the findings that the question
    names ("does not show any effusion" is a no); None where neither can be read.

    >>> ask = "Is there any pleural effusion?"
    >>> polarity("Yes, on the left."), polarity("The image does not show an effusion.", ask), polarity("Normal.", ask)
    (True, False, None)
    """
    said = extract(reply)
    if said.value is not None or said.ambiguous:
        return said.value
    asked, told = statuses(question), statuses(reply)
    found = {told[label] for label in asked if label in told}
    return {frozenset({"present"}): True, frozenset({"absent"}): False}.get(frozenset(found))


def mine(
    asked: Iterable[Asked], *, kinds: Iterable[Kind] = ("resist",), dropped: Counter[str] | None = None
) -> Iterator[Preference]:
    """The pairs of the questions where contexts changed a right answer into a wrong one ("resist") or the reverse
    ("use"). Answers that cannot be read make no pair ("unread"); the rest is checked as in `wrong_with`."""
    dropped, wanted = Counter() if dropped is None else dropped, set(kinds)
    for a in asked:
        alone, shown = polarity(a.alone, a.question), polarity(a.shown, a.question)
        if alone is None or shown is None:
            dropped["unread"] += 1
            continue
        kind: Kind = "resist" if alone == a.gold else "use"
        if alone == shown or kind not in wanted:
            continue
        chosen, rejected = (a.alone, a.shown) if kind == "resist" else (a.shown, a.alone)
        made = Preference(a.id, a.subject, a.prompt, chosen, rejected, kind, a.question, a.gold, a.evidence)
        if why := wrong_with(made):
            dropped[why] += 1
        else:
            yield made


def wrong_with(pair: Preference) -> str:
    """Why a pair teaches nothing or the wrong thing, one of REASONS; "" where it is sound."""
    if " ".join(pair.chosen.lower().split()) == " ".join(pair.rejected.lower().split()):
        return "same_text"
    if pair.rejected_prompt and pair.rejected_prompt != pair.prompt:
        return "prompts_differ"
    good, bad = polarity(pair.chosen, pair.question), polarity(pair.rejected, pair.question)
    if good is None or bad is None:
        return "chosen_unread" if good is None else "rejected_unread"
    if good == bad:
        return "same_polarity"
    return "against_reference" if pair.gold is not None and good != pair.gold else ""


def checked(pairs: Iterable[Preference], dropped: Counter[str]) -> Iterator[Preference]:
    """The sound pairs; the others are counted by reason."""
    for pair in pairs:
        if why := wrong_with(pair):
            dropped[why] += 1
        else:
            yield pair


def from_conversations(text: str, gold: Mapping[str, bool] | None = None) -> Iterator[Preference]:
    """Pairs of RULE's public files: a JSON list of {"id", "conversations", "rejected_conversations"}, each a human turn
    and a reply. `gold` question -> answer, where known. `Refused("preferences_bad")` names the entry that is none."""
    try:
        rows: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused("preferences_bad", f"no JSON list of preference pairs: {error}") from error
    if not isinstance(rows, list):
        raise Refused("preferences_bad", f"a JSON {type(rows).__name__}; wanted a list of preference pairs")
    for n, row in enumerate(rows):
        try:
            (asked, chosen), (other, rejected) = (
                [str(turn["value"]) for turn in row[name]] for name in ("conversations", "rejected_conversations")
            )
            subject = str(row["id"]).split("/")[0]
        except (KeyError, TypeError, ValueError) as error:
            raise Refused("preferences_bad", f"entry {n} is no preference pair of two turns each: {error!r}") from error
        found = _QUESTION.search(asked)
        question = found[1] if found else ""
        known = (gold or {}).get(question)
        yield Preference(
            f"{row['id']}#{n}", subject, asked, chosen, rejected, "resist", question, known, (),
            "" if other == asked else other,
        )  # fmt: skip


def as_record(pair: Preference, reference: tuple[float, float] | None = None) -> Record:
    """Items prompt, chosen, rejected, for a language model's DPO (`objectives.preference.PreferText`); `reference`
    (log p(chosen), log p(rejected)) of the start model becomes labels."""
    origin = Origin("preference", pair.id, "", "", "model", (pair.kind,))
    texts = {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
    labels = {} if reference is None else {"reference/chosen": reference[0], "reference/rejected": reference[1]}
    return Record(
        record_id("preference", pair.id, pair.kind), pair.subject, {"kind": pair.kind},
        {name: (Item("text", said, origin),) for name, said in texts.items()}, labels=labels,
    )  # fmt: skip
