"""The language model that needs no download: true sentences by rule from the facts in the last message."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from fabrica.chat.fill import fill
from fabrica.chat.request import Asked, Request
from fabrica.chat.scripted import words
from fabrica.curate.language.grammar import ABSENT_FRAMES, DENIALS, FRAMES, IMAGE_NAMES, NORMAL_FRAMES
from fabrica.types import Reply

_SPOKEN = ("modality", "organ", "findings", "absent", "normal")
_BEFORE = ("severity", "size", "side")  # words before a finding's name
_TRIES = 200  # places in a message where JSON is looked for


class TemplateGrammar(Asked):
    """Says every fact and nothing else; what varies with `seed` is the frame of each sentence.

    Facts are the last JSON object in the last message, or its "facts" member: "modality" (as in
    `groups["modality"]`), "organ", "findings" (names, or objects with name, side, size, severity, place), "absent"
    (names), "normal" (true: nothing was found); any other fact is said as "Name: value.". With a schema the reply is a
    JSON object that obeys it: members that are named like a fact hold it, texts hold the sentences. The temperature
    changes nothing; `max_tokens` counts words and cuts sentences, not objects.

    >>> from fabrica.chat.request import user
    >>> model = TemplateGrammar()
    >>> model(user('{"modality": "xray", "findings": [{"name": "pleural effusion", "side": "left"}]}')).text
    'This X-ray demonstrates left pleural effusion.'
    """

    name = "template-grammar@1"

    def answer(self, request: Request) -> Reply:
        """Sentences, or an object of the schema."""
        facts = last_facts(request.messages[-1].text)
        rng = random.Random(f"{request.seed}\x1f{json.dumps(facts, sort_keys=True)}")
        text = " ".join(sentences(facts, rng))
        if request.schema is not None:
            said = json.dumps(fill(request.schema, facts, text), ensure_ascii=False)
        else:
            said = " ".join(text.split()[: request.max_tokens])
        return Reply(said, self.name, words(request), len(said.split()))


def last_facts(text: str) -> dict[str, Any]:
    """The last JSON object in a text, or its "facts" member; empty where there is none."""
    found: dict[str, Any] = {}
    decoder, at = json.JSONDecoder(), 0
    for _ in range(_TRIES):
        at = text.find("{", at)
        if at < 0:
            break
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        if isinstance(value, dict):
            found = value
    inner = found.get("facts")
    return inner if isinstance(inner, dict) else found


def sentences(facts: Mapping[str, Any], rng: random.Random) -> list[str]:
    """Each fact in a sentence of its own kind, in a fixed order."""
    if not facts:
        return ["No facts are given."]
    image = _image(facts, rng)
    present = [_phrase(f) for f in _several(facts.get("findings"))]
    absent = [_phrase(f) for f in _several(facts.get("absent"))]
    out = []
    if present:
        out.append(rng.choice(FRAMES).format(image=image, findings=_joined(present, "and")))
        out += [rng.choice(DENIALS).format(_joined(absent, "or"))] if absent else []
    elif facts.get("normal") is True:
        out.append(rng.choice(NORMAL_FRAMES).format(image=image))
        out += [rng.choice(DENIALS).format(_joined(absent, "or"))] if absent else []
    elif absent:
        out.append(rng.choice(ABSENT_FRAMES).format(image=image, findings=_joined(absent, "or")))
    for key in [k for k in facts if k not in _SPOKEN and facts[k] is not None]:
        out.append(f"{str(key).replace('_', ' ')}: {_plain(facts[key])}.")
    if not out:
        out.append(f"{image}.")
    return [s[:1].upper() + s[1:] for s in out]


def _image(facts: Mapping[str, Any], rng: random.Random) -> str:
    modality = str(facts.get("modality") or "observation")
    name = rng.choice(IMAGE_NAMES.get(modality, (modality,)))
    organ = facts.get("organ")
    return f"{organ} {name}" if organ else name


def _phrase(finding: Any) -> str:
    if not isinstance(finding, Mapping):
        return _plain(finding)
    name = finding.get("name", finding.get("label", ""))
    told = [str(finding[k]) for k in _BEFORE if finding.get(k)]
    place = finding.get("place")
    rest = [f"{k.replace('_', ' ')} {_plain(v)}" for k, v in finding.items()
            if k not in (*_BEFORE, "name", "label", "place") and v is not None]  # fmt: skip
    said = " ".join([*told, str(name)]) + (f" in the {place}" if place else "")
    return said + (f" ({', '.join(rest)})" if rest else "")


def _several(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _joined(phrases: Sequence[str], last: str) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} {last} {phrases[-1]}"


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "; ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, Sequence):
        return ", ".join(_plain(v) for v in value)
    return json.dumps(value)
