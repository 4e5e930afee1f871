"""Scripted answerers of yes/no questions with planted skill and habits: what a task must rank as planted before it may
score a real model. Each is a `ChatModel`; it knows an image by the name of its item and a question by its text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fabrica.chat.request import Asked, Request
from fabrica.curate.language.probing import Probe
from fabrica.errors import UsageError
from fabrica.types import Item, Reply

Say = Callable[[Probe, "Draw"], str]


@dataclass(frozen=True, slots=True)
class Draw:
    """Uniform numbers in [0, 1) that depend on a seed and names alone, so that order changes no answer."""

    seed: str

    def __call__(self, *names: object) -> float:
        said = "\x1f".join(map(str, (self.seed, *names)))
        return int.from_bytes(hashlib.blake2b(said.encode(), digest_size=8).digest(), "big") / 2**64


class Answerer(Asked):
    """Answers by `say(probe, draw)`. `probes` are the questions it may be asked, found again by the image's key and the
    question's text; `keys` record -> key of its image item (default: the record's id)."""

    def __init__(
        self, name: str, say: Say, probes: Iterable[Probe], *, seed: int = 0, keys: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.say, self.draw = name, say, Draw(f"{seed}/{name}")
        keys = keys or {}
        self.probes = {(keys.get(p.record, p.record), p.text): p for p in probes}

    def answer(self, request: Request) -> Reply:
        """The reply to a question."""
        last = request.messages[-1]
        image = next((part.origin.key for part in last.parts if isinstance(part, Item)), "")
        text = last.text.split("\n")[0]
        probe = self.probes.get((image, text))
        if probe is None:
            raise UsageError(f"{self.name} is asked {text!r} of image {image!r}, which it does not know")
        return Reply(self.say(probe, self.draw), self.name, len(text.split()), 1)


def word(yes: bool) -> str:
    """ "Yes" or "No"."""
    return "Yes" if yes else "No"


def coin(probe: Probe, draw: Draw) -> str:
    """Heads or tails."""
    return word(draw(probe.id) < 0.5)


def yes_bias(p: float) -> Say:
    """Yes with probability p, whatever is asked."""
    return lambda probe, draw: word(draw(probe.id) < p)


def constant(text: str) -> Say:
    """The same words always."""
    return lambda probe, draw: text


def skilled(skill: Mapping[str, float], *, yes: float = 0.5) -> Say:
    """Knows a pair with probability `skill[dimension]`, both questions of it; else says yes with probability `yes`."""

    def say(probe: Probe, draw: Draw) -> str:
        knows = draw("knows", probe.record, probe.dimension, probe.pair) < skill.get(probe.dimension, 0.0)
        return word(probe.gold if knows else draw(probe.id) < yes)

    return say


def hesitant(say: Say, share: float, words: str = "I am unable to tell from this image.") -> Say:
    """As `say`, but refuses all questions of a `share` of the images."""
    return lambda probe, draw: words if draw("refuses", probe.record) < share else say(probe, draw)


def format_breaker(say: Say, share: float) -> Say:
    """As `say`, but answers a `share` of the questions in a form that cannot be read."""
    return lambda probe, draw: "Possibly." if draw("breaks", probe.id) < share else say(probe, draw)


def known(answers: Mapping[str, bool]) -> Say:
    """What a table says of each question (a model's answers computed beforehand); "" where it has none."""
    return lambda probe, draw: word(answers[probe.id]) if probe.id in answers else ""
