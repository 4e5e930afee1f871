"""Multiple-choice questions (PubMedQA's JSON; MedQA, MedMCQA, MMLU and their like as JSON lines) -> one record each.

Layout: items `question`, `option` (in order, `names` = its letter), `context` (PubMedQA: one a section, `names` = its
label), `explanation`; label `answer` = the place of the right option from 0; groups `modality` "question", `topic`.
The subject is the article (PubMedQA) or the question's own text: the same question in two files is in one split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fabrica.errors import Refused
from fabrica.safe import LIMITS, MIB, Limits, sha256
from fabrica.sources import Quarantined, Ref, rights_of, suffix
from fabrica.sources.jsons import parse
from fabrica.sources.stream import open_text
from fabrica.types import Item, Link, Origin, Record, record_id

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PUBMEDQA = ("yes", "no", "maybe")
_LINE = 4 * MIB  # the most bytes of one question
_PUBMEDQA = re.compile(rb'"QUESTION"\s*:.*"CONTEXTS"\s*:|"CONTEXTS"\s*:.*"QUESTION"\s*:', re.DOTALL)
_ASKED = re.compile(rb'"question"\s*:')
_CHOICES = re.compile(rb'"(?:options|choices|opa)"\s*:')
_NOTHING = "N/A"  # fills the columns of questions with fewer options
_WORDS = re.compile(r"\w+")


def is_questions(head: bytes, *, lines: bool) -> bool:
    """Whether a file that begins with `head` holds such questions.

    >>> is_questions(b'{"question": "Which?", "options": {"A": "x"}}', lines=True)
    True
    """
    if lines:
        return _ASKED.search(head) is not None and _CHOICES.search(head) is not None
    return _PUBMEDQA.search(head) is not None


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record | Quarantined]:
    """The questions of a file. Quarantined by itself: `no_question`, `options_few` (below two), `options_twice` (two of
    one text), `answer_unknown` (names no option), and those of `jsons.parse`; one without an answer has no label."""
    if suffix(ref.path) == ".json":
        yield from _pubmedqa(ref, limits)
        return
    with open_text(ref.path, limits) as file:
        number = 0
        while line := file.readline(_LINE + 1):
            number += 1
            if not line.strip():
                continue
            key = f"{ref.key}#{number}"
            try:
                if len(line) > _LINE:
                    raise Refused("row_too_large", f"line {number} has more than {_LINE >> 20} MiB")
                yield _record(ref, key, _row(parse(line, limits)), sha256(line))
            except Refused as error:
                yield Quarantined(key, sha256(line), error.code, str(error))


def _pubmedqa(ref: Ref, limits: Limits) -> Iterator[Record | Quarantined]:
    with open_text(ref.path, limits) as file:
        whole = parse(file.read(limits.file_bytes), limits)
    if not isinstance(whole, dict):
        raise Refused("questions_bad", f"{ref.path.name!r} holds no object of questions by PubMed number")
    for pmid, row in whole.items():
        key = f"{ref.key}#{pmid}"
        mark = sha256(json.dumps(row, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        try:
            if not (isinstance(row, dict) and pmid.isascii() and pmid.isdigit()):
                raise Refused("no_question", "an entry that is no question under a PubMed number")
            yield _record(ref, key, _article(pmid, row), mark)
        except Refused as error:
            yield Quarantined(key, mark, error.code, str(error))


class _Asked(dict[str, Any]):
    """question, options, answer (text of the answer, a letter, or a place), context [(label, text)], explanation,
    topic, pmid."""


def _article(pmid: str, row: Mapping[str, Any]) -> _Asked:
    texts, labels = _texts(row.get("CONTEXTS")), _texts(row.get("LABELS"))
    said = row.get("final_decision")
    return _Asked(
        question=row.get("QUESTION"), options=PUBMEDQA, pmid=pmid, explanation=row.get("LONG_ANSWER"),
        answer=None if said is None else PUBMEDQA.index(said) if said in PUBMEDQA else -1,
        context=[(labels[i] if i < len(labels) else "", t) for i, t in enumerate(texts)],
    )  # fmt: skip


def _row(row: Any) -> _Asked:
    if not isinstance(row, dict):
        raise Refused("no_question", "a line that is no JSON object")
    options = row.get("options", row.get("choices"))
    if isinstance(options, dict):
        options = [options[k] for k in sorted(options)]
    elif options is None and "opa" in row:
        options = [row.get(k) for k in ("opa", "opb", "opc", "opd")]
    told = row.get("reason") or row.get("exp") or row.get("explanation")
    context = row.get("context")
    return _Asked(
        question=row.get("question"), options=options, answer=_answer(row), explanation=told,
        context=[("", context)] if isinstance(context, str) else [],
        topic=row.get("subject") or row.get("subject_name") or row.get("category"),
    )  # fmt: skip


def _answer(row: Mapping[str, Any]) -> int | None:
    """The place of the right option; None where nothing is said, -1 where it cannot be read."""
    if row.get("answer_idx") is not None:
        said = row["answer_idx"]
    elif row.get("cop") is not None:  # MedMCQA counts from 1; 0 or -1 in its hidden test part
        return int(row["cop"]) - 1 if isinstance(row["cop"], int) and row["cop"] > 0 else None
    else:
        said = row.get("answer")
    if isinstance(said, bool) or said is None:
        return None if said is None else -1
    if isinstance(said, int):
        return said
    return LETTERS.index(said) if isinstance(said, str) and len(said) == 1 and said in LETTERS else -1


def _record(ref: Ref, key: str, asked: _Asked, digest: str) -> Record:
    question, options = asked["question"], asked["options"]
    if not isinstance(question, str) or not question.strip():
        raise Refused("no_question", "a row without a question")
    texts = _texts(options)
    while texts and texts[-1] == _NOTHING and asked["answer"] != len(texts) - 1:
        texts, options = texts[:-1], options[:-1]
    if len(texts) < 2 or len(texts) != len(options) or len(texts) > len(LETTERS):
        raise Refused("options_few", f"{len(texts)} options that can be read; wanted 2 to {len(LETTERS)}")
    if len({" ".join(t.lower().split()) for t in texts}) < len(texts):
        raise Refused("options_twice", "two options have the same text")
    answer = asked["answer"]
    if answer is not None and not 0 <= answer < len(texts):
        raise Refused("answer_unknown", f"the answer names none of the {len(texts)} options")
    pmid = asked.get("pmid")
    about = Origin(ref.source, f"pmid:{pmid}" if pmid else key, digest, ref.licence)
    items = {
        "question": (Item("text", question.strip(), about),),
        "option": tuple(Item("text", t, about, names=(LETTERS[i],)) for i, t in enumerate(texts)),
    }
    if told := tuple(Item("text", t.strip(), about, names=(n,)) for n, t in asked.get("context", []) if t.strip()):
        items["context"] = told
    if isinstance(asked.get("explanation"), str) and asked["explanation"].strip():
        items["explanation"] = (Item("text", asked["explanation"].strip(), about),)
    groups = {"modality": "question"}
    if isinstance(asked.get("topic"), str):
        groups["topic"] = asked["topic"]
    subject = f"pmid:{pmid}" if pmid else record_id("question", _plain(question))
    return Record(
        record_id(ref.source, "question", _plain(question), *texts), subject, groups, items,
        labels={} if answer is None else {"answer": float(answer)},
        links=(Link("cites", f"pmid:{pmid}"),) if pmid else (), rights=rights_of(ref),
    )  # fmt: skip


def _texts(values: Any) -> list[str]:
    """The texts of a list; numbers are written out."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        return []
    plain = [str(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else v for v in values]
    return [v.strip() for v in plain if isinstance(v, str) and v.strip()]


def _plain(text: str) -> str:
    """Words alone, lower case: what two copies of a question share. Texts of signs alone stay as they are."""
    return " ".join(_WORDS.findall(text.lower())) or text
