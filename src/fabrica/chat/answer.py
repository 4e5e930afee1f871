"""What a strategy gives: an answer with the trace of every call; and the calls that all strategies are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol, runtime_checkable

from fabrica.chat.prompts import Prompt, prompt
from fabrica.chat.question import Question, choice, fields
from fabrica.errors import UsageError
from fabrica.types import ChatModel, Message

TOKENS = 512  # the most a reply may take


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the prompt's mark, for which option ("" = none), what came back, and the seed."""

    prompt: str
    option: str
    reply: str
    seed: int = 0

    @property
    def name(self) -> str:
        """The prompt's name, without version and hash."""
        return self.prompt.split("@")[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """`choice` is a letter, or None: nothing could be read, which counts as wrong. `votes` by letter; `scores` by
    letter where the strategy gives them; `unread` calls whose reply could not be read; `same` the share of sampled
    replies that repeat another (1 = the model does not sample); `order` the letters as they were shown ("CAB": C stood
    first), "" = in the question's own order; `failure` a reason code where the model gave nothing."""

    question: str
    choice: str | None
    votes: Mapping[str, int]
    trace: tuple[Call, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    unread: int = 0
    same: float = 0.0
    order: str = ""
    failure: str = ""

    @property
    def calls(self) -> int:
        """How many calls it cost."""
        return len(self.trace)

    @property
    def confidence(self) -> float:
        """The share of votes for the choice; 0 without votes."""
        total = sum(self.votes.values())
        return self.votes.get(self.choice or "", 0) / total if total else 0.0

    @property
    def arguments(self) -> dict[str, str]:
        """Letter -> what was argued for it (verification of choice)."""
        return {c.option: c.reply for c in self.trace if c.name == "propose"}

    @property
    def verdicts(self) -> dict[str, str]:
        """Letter -> "consistent" or "contradicted": whether its score reaches 0.5."""
        checked = [c.option for c in self.trace if c.name in ("verify", "verify_yes")]
        return {a: "consistent" if self.scores[a] >= 0.5 else "contradicted" for a in checked}


Strategy = Callable[[ChatModel, Question], Answer]


@runtime_checkable
class Scoring(Protocol):
    """A chat model whose backend tells log-probabilities: of each answer as the next turn, summed over its tokens."""

    @property
    def name(self) -> str: ...

    def score(self, messages: Sequence[Message], answers: Sequence[str]) -> list[float]: ...


def scoring(model: ChatModel) -> Scoring:
    """The model, if its backend declares log-probabilities; else an error: they are never guessed."""
    if not isinstance(model, Scoring):
        raise UsageError(
            f"the chat model {model.name!r} does not tell log-probabilities of answers (no `score`): use a local one, "
            "or let it state numbers"
        )
    return model


class NotSampling(UserWarning):
    """All sampled replies are the same: the backend ignores temperature or seed, and voting cannot help."""


def ask(
    model: ChatModel, name: str, question: Question, more: Mapping[str, str], *, temperature: float = 0.0, seed: int = 0
) -> Call:
    """One call of the prompt `name`, filled with the question and `more` ("letter" says for which option)."""
    made = newest(name)
    messages = shown(made.messages(**fields(question), **more), question)
    reply = model(messages, max_tokens=TOKENS, temperature=temperature, seed=seed)
    return Call(made.mark, more.get("letter", ""), reply.text, seed)


@lru_cache
def newest(name: str) -> Prompt:
    """A prompt's newest version, looked up once."""
    return prompt(name)


def shown(messages: Sequence[Message], question: Question) -> tuple[Message, ...]:
    """The messages with the question's images before the text of the last."""
    last = messages[-1]
    return (*messages[:-1], Message(last.role, (*question.images, *last.parts)))


def of_option(question: Question, letter: str) -> dict[str, str]:
    """What prompts about one option are filled with."""
    return {"letter": letter, "option": question.option(letter)}


def voted(question: Question, calls: Sequence[Call], cost: Sequence[Call] = ()) -> Answer:
    """The plurality of what the calls choose; ties go to the letter said first. `cost` are calls made before these."""
    read = [choice(call.reply, question) for call in calls]
    votes = Counter(c for c in read if c is not None)
    best = max(votes, key=lambda c: (votes[c], -read.index(c))) if votes else None
    same = 1 - (len({call.reply for call in calls}) - 1) / (len(calls) - 1) if len(calls) > 1 else 0.0
    return Answer(question.id, best, dict(votes), (*cost, *calls), unread=read.count(None), same=same)
