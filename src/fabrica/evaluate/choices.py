"""Multiple choice judged: columns of answers, accuracy with macro-F1 and parse rate, paired tests, deferral curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fabrica.chat.answer import Answer, Strategy
from fabrica.chat.question import Question
from fabrica.chat.request import ChatFailed
from fabrica.errors import UsageError
from fabrica.evaluate.bootstrap import wilson
from fabrica.evaluate.metrics import Columns, Value, Weights, accuracy, mean
from fabrica.evaluate.metrics import _nanmean as mean_known
from fabrica.types import ChatModel

Progress = Callable[[int, int | None, str], None]


def answered(
    model: ChatModel, questions: Sequence[Question], strategy: Strategy, progress: Progress | None = None
) -> list[Answer]:
    """The strategy on every question, in order. A call that the model fails is an answer with its reason code as
    `failure`: it is counted, and wrong."""
    made = []
    for n, question in enumerate(questions, 1):
        try:
            made.append(strategy(model, question))
        except ChatFailed as error:
            made.append(Answer(question.id, None, {}, (), failure=error.code))
        if progress is not None:
            progress(n, len(questions), "questions")
    return made


def columns(questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, NDArray[Any]]:
    """One row a question: `question`, `truth`, `answer` ("" = none), `calls`, `confidence`, `unread`, `same`.

    Errors: `UsageError` where a question has no known answer, or answers are of other questions.
    """
    for question, answer in zip(questions, answers, strict=True):
        if question.id != answer.question:
            raise UsageError(f"the answer of {answer.question!r} stands beside question {question.id!r}")
        if not question.gold:
            raise UsageError(f"question {question.id!r} has no known answer to judge by")
    return {
        "question": np.array([q.id for q in questions]),
        "truth": np.array([q.gold for q in questions]),
        "answer": np.array([a.choice or "" for a in answers]),
        "calls": np.array([a.calls for a in answers]),
        "confidence": np.array([a.confidence for a in answers], np.float64),
        "unread": np.array([a.unread for a in answers]),
        "same": np.array([a.same for a in answers], np.float64),
    }


def macro_f1(truth: ArrayLike, answer: ArrayLike, weights: Weights = None) -> Value:
    """Mean F1 over the classes of `truth` (n,); an answer that is none of them ("" = abstained) is a miss.

    As scikit-learn's `f1_score(average="macro", labels=classes of truth)`.

    >>> round(macro_f1(["A", "A", "B", "C"], ["A", "A", "A", ""]), 4)
    0.2667
    """
    t, a = np.asarray(truth), np.asarray(answer)
    w = np.ones((1, len(t))) if weights is None else np.atleast_2d(np.asarray(weights, np.float64))
    parts = []
    for one in np.unique(t):
        both, said, is_ = w @ ((t == one) & (a == one)), w @ (a == one), w @ (t == one)
        total = said + is_
        parts.append(np.divide(2 * both, total, out=np.full(len(w), np.nan), where=total > 0))
    values = np.asarray(mean_known(np.stack(parts, -1)) if parts else np.full(len(w), np.nan))
    return float(values[0]) if weights is None else values


@dataclass(frozen=True, slots=True)
class Summary:
    """`accuracy` with Wilson's 95 % interval, abstentions wrong; `macro_f1`; `parsed` the share of questions with a
    readable choice; `calls` a question; `same` the mean share of repeated samples; `n` questions."""

    accuracy: float
    low: float
    high: float
    macro_f1: float
    parsed: float
    calls: float
    same: float
    n: int

    def line(self) -> str:
        """For notes: "0.550 [0.412, 0.681], macro-F1 0.31, parsed 1.00, 3.0 calls, n 50"."""
        return (
            f"{self.accuracy:.3f} [{self.low:.3f}, {self.high:.3f}], macro-F1 {self.macro_f1:.2f}, "
            f"parsed {self.parsed:.2f}, {self.calls:.1f} calls, n {self.n}"
        )


def summary(table: Columns) -> Summary:
    """What a card says of one strategy's columns."""
    n = len(table["truth"])
    if not n:
        raise UsageError("no questions to summarise")
    share = float(accuracy(table["truth"], table["answer"]))
    low, high = wilson(share, n)
    return Summary(
        share, low, high, float(macro_f1(table["truth"], table["answer"])), float((table["answer"] != "").mean()),
        float(mean(table["calls"])), float(mean(table["same"])), n,
    )  # fmt: skip


def per_call(arms: Mapping[str, Columns]) -> list[dict[str, float | str]]:
    """Arms by cost: accuracy, calls a question, and the accuracy gained over the cheapest arm for each call more."""
    rows = [(name, summary(t)) for name, t in arms.items()]
    rows.sort(key=lambda r: r[1].calls)
    first = rows[0][1]
    return [
        {
            "arm": name, "accuracy": s.accuracy, "calls": s.calls,
            "gain_per_call": (s.accuracy - first.accuracy) / (s.calls - first.calls) if s.calls > first.calls else 0.0,
        }
        for name, s in rows
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class McNemar:
    """Questions that only one of two arms answers right, and the exact two-sided p-value that both are as good."""

    only_a: int
    only_b: int
    p: float


def mcnemar(right_a: ArrayLike, right_b: ArrayLike) -> McNemar:
    """Exact McNemar test (1947) of two arms on the same questions: binomial on the discordant pairs.

    >>> mcnemar([1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 1])
    McNemar(only_a=6, only_b=1, p=0.125)
    """
    a, b = np.asarray(right_a, bool), np.asarray(right_b, bool)
    if a.shape != b.shape:
        raise UsageError(f"arms of {a.shape} and {b.shape} questions; wanted the same questions in both")
    x, y = int((a & ~b).sum()), int((b & ~a).sum())
    tail = sum(math.comb(x + y, k) for k in range(min(x, y) + 1)) / 2 ** (x + y)
    return McNemar(x, y, min(1.0, 2 * tail))


def selective(confidence: ArrayLike, right: ArrayLike, defer: ArrayLike) -> NDArray[np.float64]:
    """Accuracy on what is left when the share `defer` (k,) with the lowest confidence is deferred (Med-PaLM, sec.
    "Uncertainty and selective prediction") -> (k,).

    Ties are fair: where the border falls among equal confidences, each of them stays with the same probability, and the
    value is the expectation over these draws. At least one question is kept.

    >>> selective([1.0, 0.5, 0.5, 0.2], [1, 1, 0, 0], [0.0, 0.25, 0.5]).round(3).tolist()
    [0.5, 0.667, 0.75]
    """
    c, r, d = np.asarray(confidence, np.float64), np.asarray(right, np.float64), np.asarray(defer, np.float64)
    if len(c) != len(r) or not len(c):
        raise UsageError(f"{len(c)} confidences and {len(r)} answers; wanted as many, at least one")
    if not ((d >= 0) & (d < 1)).all():
        raise UsageError("shares to defer lie in 0 ... 1, below 1")
    order = np.argsort(-c, kind="stable")
    _, group, size = np.unique(-c[order], return_inverse=True, return_counts=True)
    level = np.bincount(group, weights=r[order]) / size  # the accuracy within each tie
    gained = np.concatenate([[0.0], np.cumsum(level[group])])
    keep = np.maximum(1, np.round((1 - d) * len(c)).astype(int))
    return np.asarray(gained[keep] / keep)


def positions(questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, tuple[float, float]]:
    """Place (A = shown first) -> the share of choices that fall on it, and of right options that stand there: what
    differs is bias. Counts orders that `strategies.permuted` made."""
    chosen, right = [], []
    for question, answer in zip(questions, answers, strict=True):
        order = answer.order or "".join(question.letters)
        right.append(order.index(question.gold))
        if answer.choice is not None:
            chosen.append(order.index(answer.choice))
    most = max(len(q.options) for q in questions)
    at = np.arange(most)[:, None]
    said = (np.asarray(chosen)[None] == at).mean(1) if chosen else np.zeros(most)
    stood = (np.asarray(right)[None] == at).mean(1)
    return {"ABCDEFGHIJKLMNOPQRSTUVWXYZ"[i]: (float(said[i]), float(stood[i])) for i in range(most)}


def always(questions: Sequence[Question], letter: str | None = None) -> list[Answer]:
    """The trivial baseline: one letter for all; None = the commonest right one, seen on these very questions, so the
    best that any constant can do."""
    golds = [q.gold for q in questions]
    best = letter or max(sorted(set(golds)), key=golds.count)
    return [Answer(q.id, best if best in q.letters else None, {}, ()) for q in questions]
