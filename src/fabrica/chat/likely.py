"""Many questions ranked by log-probability: prompts read several at a time, each once for both ways of ranking."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from fabrica.chat.answer import Answer, Call, newest, scoring, shown
from fabrica.chat.local import LocalChat
from fabrica.chat.question import Question, exemplars, fields
from fabrica.chat.request import Request
from fabrica.errors import UsageError, need
from fabrica.types import ChatModel, Message

if TYPE_CHECKING:
    from fabrica.chat.prompts import Prompt

By = Literal["letter", "text"]
Asked = tuple[Sequence[Message], Sequence[str]]  # messages, and the next turns whose log-probability is asked
Progress = Callable[[int, int | None, str], None]


def likeliest(
    model: ChatModel, questions: Sequence[Question], *, by: Sequence[By] = ("letter",),
    shots: Sequence[Question] = (), batch: int = 4, progress: Progress | None = None,
) -> dict[By, list[Answer]]:  # fmt: skip
    """`strategies.option_likelihood` of every question, for each way of `by`; a local model reads `batch` questions of
    near length at a time, and each prompt once. Answers agree with the strategy's to rounding.

    Errors: `UsageError` where the backend tells no log-probabilities.
    """
    scorer, (made, asked) = scoring(model), _prompts(questions, shots)
    ends = [[said(q, b) for b in by] for q in questions]
    wanted: list[Asked] = [(m, [e for some in es for e in some]) for m, es in zip(asked, ends, strict=True)]
    if isinstance(model, LocalChat):
        logs = _many(model, wanted, batch, progress)
    else:
        logs = [scorer.score(*one) for one in wanted]
    out: dict[By, list[Answer]] = {b: [] for b in by}
    for question, row in zip(questions, logs, strict=True):
        for i, b in enumerate(by):
            n = len(question.options)
            out[b].append(chosen(question, made, row[i * n : (i + 1) * n], b))
    return out


def said(question: Question, by: By) -> list[str]:
    """The next turns that stand for the options: "Answer: (A)" ..., or each option's own words."""
    return [f"Answer: ({a})" for a in question.letters] if by == "letter" else list(question.options)


def chosen(question: Question, made: Prompt, logs: Sequence[float], by: By) -> Answer:
    """The answer that log-probabilities give; an option's own words count by the character (Brown et al. 2020, arXiv
    2005.14165, 2.4 use tokens)."""
    per = [1 if by == "letter" else len(o) for o in question.options]
    scores = {a: v / n for a, v, n in zip(question.letters, logs, per, strict=True)}
    best = max(question.letters, key=lambda a: scores[a])
    return Answer(question.id, best, {}, (Call(made.mark, "", f"likeliest: ({best})"),), scores)


def _prompts(questions: Sequence[Question], shots: Sequence[Question]) -> tuple[Prompt, list[tuple[Message, ...]]]:
    made, before = newest("choose"), exemplars(shots)
    return made, [shown(made.messages(**fields(q), exemplars=before), q) for q in questions]


def _many(model: LocalChat, asked: Sequence[Asked], batch: int, progress: Progress | None) -> list[list[float]]:
    torch: Any = need("torch", "train")
    from fabrica.models.transformers_tower import _quiet

    if batch < 1 or any(not ends or not all(ends) for _, ends in asked):
        raise UsageError(f"batch={batch}, wanted 1 or more; or no answers to score, or an empty one")
    out: dict[int, list[float]] = {}
    with model._lock, torch.no_grad():
        with _quiet(need("transformers", "train")):
            net, tokenizer = model._model()
        starts = [model._ids(tokenizer, model._prompt(Request(tuple(m)))) for m, _ in asked]
        ends = [[tokenizer(e, add_special_tokens=False)["input_ids"] for e in es] for _, es in asked]
        _fits(model, net, asked, starts, ends)
        order = sorted(range(len(asked)), key=lambda n: len(starts[n]))
        for at in range(0, len(order), batch):
            rows = order[at : at + batch]
            sums = _sums(net, [starts[n] for n in rows], [ends[n] for n in rows], model.device)
            out |= dict(zip(rows, sums, strict=True))
            if progress is not None:
                progress(len(out), len(order), "questions")
    return [out[n] for n in range(len(asked))]


def _fits(
    model: LocalChat, net: Any, asked: Sequence[Asked], starts: Sequence[list[int]], ends: Sequence[list[list[int]]]
) -> None:
    """Refuse what is longer than the model reads, with the count of tokens."""
    room = getattr(net.config, "max_position_embeddings", None)
    for (messages, _), start, some in zip(asked, starts, ends, strict=True):
        if room is not None and (whole := len(start) + max(map(len, some))) > room:
            raise UsageError(f"{whole} tokens of {messages[-1].text[:60]!r} ...; {model.source} reads {room}")


def _sums(net: Any, starts: Sequence[list[int]], ends: Sequence[list[list[int]]], device: str) -> list[list[float]]:
    """log p(end | start) of each row's ends: starts (n, S) padded on the left, read once; the ends go on from copies of
    their rows of the cache, those of near length together (m, L), padded on the right."""
    torch: Any = need("torch", "train")
    from fabrica.models.language import cache_for

    long = max(map(len, starts))
    ids = torch.tensor([[0] * (long - len(s)) + s for s in starts], device=device)
    mask = torch.tensor([[0] * (long - len(s)) + [1] * len(s) for s in starts], device=device)
    name, cache = cache_for(net)
    few = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(net.forward).parameters else {}
    places = (mask.cumsum(1) - 1).clamp(min=0)
    first = net(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=True, **few, **{name: cache})
    pairs = [(row, n) for row, some in enumerate(ends) for n in range(len(some))]
    out = [[0.0] * len(some) for some in ends]
    for group in _near([len(ends[row][n]) for row, n in pairs]):
        rows = torch.tensor([pairs[i][0] for i in group], device=device)
        said = [ends[row][n] for row, n in (pairs[i] for i in group)]
        most = max(map(len, said))
        after = torch.tensor([e + [0] * (most - len(e)) for e in said], device=device)  # (m, L)
        counted = torch.tensor([[1] * len(e) + [0] * (most - len(e)) for e in said], device=device)
        logits = first.logits[rows, -1:]
        if most > 1:
            mine = copy.deepcopy(cache)
            mine.batch_select_indices(rows)
            whole = torch.cat([mask[rows], counted], 1)[:, :-1]
            at = mask[rows].sum(1, keepdim=True) + torch.arange(most - 1, device=device)
            rest = net(input_ids=after[:, :-1], attention_mask=whole, position_ids=at, use_cache=True, **{name: mine})
            logits = torch.cat([logits, rest.logits], 1)
        logs = logits.float().log_softmax(-1).gather(-1, after[..., None])[..., 0]  # (m, L)
        for i, value in zip(group, (logs * counted).sum(1).tolist(), strict=True):
            out[pairs[i][0]][pairs[i][1]] = value
    return out


def _near(lengths: Sequence[int]) -> list[list[int]]:
    """The places of `lengths` in groups of near ones: the longest of a group is at most half again its shortest.

    >>> _near([3, 20, 2, 24, 3])
    [[2, 0, 4], [1, 3]]
    """
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and 2 * lengths[i] <= 3 * lengths[groups[-1][0]]:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
