"""The datasheet of a corpus: counted numbers, pictures that may be shown, and what only its author can say.

Sections after Gebru et al., "Datasheets for Datasets" (CACM 2021). What the author says stands in a TOML file, one
table a section: `[motivation]` `purpose = "..."`; what is not said is printed as not said.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fabrica.corpus.codec import source_of
from fabrica.corpus.numbers import Numbers, numbers
from fabrica.corpus.pages import data_uri, grey, line_points, plane, render, save
from fabrica.corpus.rights import REASONS, licence_of, may
from fabrica.corpus.store import Corpus
from fabrica.corpus.table import quote
from fabrica.errors import UsageError, unknown
from fabrica.safe import read_bytes
from fabrica.types import Item, Record

Pictures = Literal["permitted", "in_house", "none"]
QUESTIONS: Mapping[str, Mapping[str, str]] = {
    "motivation": {
        "purpose": "For what purpose was the data set made?",
        "makers": "Who made it, and on behalf of whom?",
        "funding": "Who paid for it?",
    },
    "composition": {
        "instances": "What does one record stand for, and is the set a sample of something larger?",
        "errors": "Which errors, noise and redundancies are known?",
        "sensitive": "What in it may be confidential, identifying or distressing?",
    },
    "collection": {
        "how": "How were the data acquired, when, and with which devices?",
        "ethics": "Which ethics board reviewed it, and under which number?",
        "consent": "How did the people in it consent, and how can they withdraw?",
    },
    "preprocessing": {
        "raw": "Where are the raw data kept, and who may see them?",
        "annotators": "Who annotated it, with which training and agreement?",
    },
    "uses": {
        "intended": "What is it meant for, and what has it been used for?",
        "not_for": "What should it not be used for?",
        "groups": "Which groups of people are too few in it to say anything about?",
    },
    "distribution": {
        "how": "How and to whom is it passed on, and under which terms as a whole?",
        "restrictions": "Which regulations or agreements bind those who receive it?",
    },
    "maintenance": {
        "contact": "Who maintains it, and how are they reached?",
        "updates": "How are errors corrected and versions announced?",
    },
}
_ASKED = {
    "train_commercial": "May a commercial model be trained on it?",
    "train_research": "May a model for research be trained on it?",
    "redistribute": "May it be passed on?",
    "share_ids": "May its ids be passed on?",
}
_NOTES: Mapping[str, str] = {
    "permitted": "Records whose rights permit passing them on; the others are counted, not shown.",
    "in_house": "Records as they are, for readers inside the house: this page may not leave it.",
    "none": "Pictures and texts of records were left out on purpose.",
}
_TEXTS = ("report", "caption", "text", "title", "abstract")


@dataclass(frozen=True, slots=True)
class Question:
    """What the author is asked, by `key` of the TOML file, and the answer ("" = none)."""

    key: str
    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One record on the contact sheet: a picture (data URI), the points of a signal, some numbers, or words."""

    picture: str
    points: str
    table: tuple[tuple[str, str], ...]
    text: str
    alt: str
    by: str
    source: str
    licence: str


@dataclass(frozen=True, slots=True)
class Samples:
    """Some records of a modality."""

    modality: str
    figures: tuple[Figure, ...]


def write(
    corpus: Corpus, path: str | Path, *, title: str = "", said: Mapping[str, Mapping[str, str]] | None = None,
    pictures: Pictures = "permitted", each: int = 4,
) -> Numbers:  # fmt: skip
    """Write the datasheet as one HTML file, whole; gives the numbers on it.

    `said` answers `QUESTIONS` (see `read_said`). `pictures`: "permitted" shows records that may be redistributed,
    "in_house" those whose content is not withheld from exports, "none" no record; `each` of every modality.
    """
    if pictures not in _NOTES:
        raise unknown("choice of pictures", pictures, _NOTES)
    found = numbers(corpus)
    page = {
        "title": title or corpus.path.resolve().name,
        "n": found,
        "n_dropped": sum(sum(reasons.values()) for reasons in found.dropped.values()),
        "pictures_note": _NOTES[pictures],
        "samples": [] if pictures == "none" else _samples(corpus, found, pictures, each),
        "questions": questions(said or {}),
        "regions_links": {f"region: {k}": v for k, v in found.regions.items()}
        | {f"link: {k}": v for k, v in found.links.items()},
        "labels": _labels(found),
        "plan": [
            dict(step) | {"params": json.dumps(step.get("params", {}), ensure_ascii=False)} for step in found.plan
        ],
        "answers": _answers(found),
        "as_json": safe_json(found.to_json()),
    }
    save(path, render("card.html.jinja", page))
    return found


def questions(said: Mapping[str, Mapping[str, str]]) -> dict[str, list[Question]]:
    """Every question of every section with the author's answer."""
    for section, answers in said.items():
        if section not in QUESTIONS:
            raise unknown("section of the datasheet", section, QUESTIONS)
        if not isinstance(answers, Mapping):
            raise UsageError(f"{section} is not a table; write [{section}] and below it KEY = 'answer'")
        for key, answer in answers.items():
            if key not in QUESTIONS[section]:
                raise unknown(f"question of {section}", key, QUESTIONS[section])
            if not isinstance(answer, str):
                raise UsageError(f"{section}.{key} is {type(answer).__name__}; wanted text in quotes")
    return {
        section: [
            Question(f"{section}.{k}", text, said.get(section, {}).get(k, "").strip()) for k, text in asked.items()
        ]
        for section, asked in QUESTIONS.items()
    }


def read_said(path: str | Path) -> dict[str, dict[str, str]]:
    """The author's answers from a TOML file, checked."""
    try:
        found: dict[str, dict[str, str]] = tomllib.loads(read_bytes(path).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML file: {error}") from error
    questions(found)
    return found


def safe_json(data: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can end that."""
    text = json.dumps(data, ensure_ascii=True, sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def numbers_of(html: str) -> dict[str, Any]:
    """The numbers that a written card holds, for a recount."""
    _, _, rest = html.partition('<script type="application/json" id="numbers">')
    found: dict[str, Any] = json.loads(rest.partition("</script>")[0])
    return found


# ---------------------------------------------------------------- parts


def _labels(found: Numbers, most: int = 60) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, counts in found.labels.items():
        yes, no, other = (counts.get(k, 0) for k in ("1", "0", "other"))
        rows.append(
            {"name": name, "yes": yes, "no": no, "other": other, "unknown": sum(counts.values()) - yes - no - other}
        )
    return sorted(rows, key=lambda r: (-int(r["yes"]) - int(r["other"]), str(r["name"])))[:most]


def _answers(found: Numbers) -> list[dict[str, Any]]:
    return [
        {
            "question": _ASKED[use], "yes": audit.yes, "records": audit.records,
            "no": [{"count": n, "words": REASONS[r]} for r, n in sorted(audit.no.items(), key=lambda p: -p[1])],
        }
        for use, audit in found.rights.items()
    ]  # fmt: skip


def _samples(corpus: Corpus, found: Numbers, pictures: Pictures, each: int) -> list[Samples]:
    out = []
    for modality in found.modality:
        where = f"modality = {quote(modality)}" if modality else "modality IS NULL OR modality = ''"
        ids = corpus.ids(where)
        figures: list[Figure] = []
        for id_ in _spread(ids, 12 * each):
            (record,) = corpus.take([id_])
            if shown(record, pictures):
                figures.append(figure(record))
            if len(figures) == each:
                break
        if figures:
            out.append(Samples(modality, tuple(figures)))
    return out


def _spread(ids: list[str], most: int) -> list[str]:
    """Ids far from each other first."""
    step = max(1, len(ids) // 4)
    order = [i for start in range(step) for i in range(start, len(ids), step)]
    return [ids[i] for i in order[:most]]


def shown(record: Record, pictures: Pictures) -> bool:
    """Whether a record's content may stand on a page."""
    if pictures == "permitted":
        return may(record, "redistribute").allowed
    return pictures == "in_house" and record.rights.share == "full" and may(record, "share_ids").allowed


def figure(record: Record) -> Figure:
    """A record as the contact sheet shows it."""
    said = record.first(*_TEXTS)
    text = " ".join(said.text().split()) if said is not None and said.kind == "text" else ""
    text = text if len(text) <= 170 else text[:170].rsplit(" ", 1)[0] + " …"
    picture, points = "", ""
    table: tuple[tuple[str, str], ...] = ()
    shown_item = said
    for item in (i for items in record.items.values() for i in items if i.present):
        pixels = plane(item)
        if pixels is not None:
            picture, shown_item = data_uri(grey(pixels)), item
            break
        if not isinstance(item.value, np.ndarray) or points:
            continue
        if item.kind == "signal":
            points, shown_item = line_points(np.atleast_2d(item.value)[0], width=600, height=100, most=300), item
        elif item.names and item.value.ndim == 1 and not table:
            table, shown_item = values_of(item)[:6], shown_item or item
    modality = record.groups.get("modality", "").replace("_", " ") or "record"
    by = shown_item.origin.by if shown_item is not None else "source"
    alt = f"{modality}: {text or 'no description'}"
    return Figure(picture, points, table, text, alt, by, source_of(record), licence_of(record))


def values_of(item: Item) -> tuple[tuple[str, str], ...]:
    """(name, value) of a table item."""
    values = zip(item.names, item.array().ravel().tolist(), strict=False)
    return tuple((name, f"{v:.4g}" if isinstance(v, int | float) else str(v)) for name, v in values)
