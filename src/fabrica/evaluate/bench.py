"""A bench of multiple-choice questions from a file: answers judged by subject, beside the best constant answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.chat.answer import Answer
from fabrica.chat.question import Question, of_record
from fabrica.errors import UsageError
from fabrica.evaluate import choices
from fabrica.evaluate.bootstrap import Interval, interval, paired
from fabrica.evaluate.metrics import Columns, Value, Weights, mean
from fabrica.sources import Quarantined, Ref
from fabrica.sources.questions import read

VERSION = "bench-1"


@dataclass(frozen=True, slots=True)
class Bench:
    """`questions` with a known answer and the subject of each (the article, or the question's own text); `left` says
    how many were left out, by reason: reason codes of the reader, "no_answer", "twice"."""

    name: str
    questions: tuple[Question, ...]
    subjects: tuple[str, ...]
    left: Mapping[str, int]

    def first(self, n: int | None) -> Bench:
        """The `n` questions of the lowest ids, which are hashes; None = all."""
        return Bench(self.name, self.questions[:n], self.subjects[:n], self.left)


def load(path: str | Path, *, context: bool = False, name: str = "", licence: str = "") -> Bench:
    """The questions of a file that `sources.questions` reads (PubMedQA's JSON; JSON lines with "question", "options",
    "answer_idx" or the like), in order of id. `context` says that each needs a context.

    Errors: `UsageError` where no question with a known answer is left.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"questions: nothing at {path}; give a file of JSON lines, or PubMedQA's JSON")
    left: Counter[str] = Counter()
    found: dict[str, tuple[Question, str]] = {}
    for made in read(Ref(path, path.name, name or path.stem, licence)):
        if isinstance(made, Quarantined):
            left[made.code] += 1
        elif made.id in found:
            left["twice"] += 1
        elif not (question := of_record(made, context=context)).gold:
            left["no_answer"] += 1
        else:
            found[made.id] = (question, made.subject)
    if not found:
        raise UsageError(f"{path} holds no question with a known answer; left out: {dict(left) or 'nothing'}")
    rows = [found[key] for key in sorted(found)]
    return Bench(name or path.stem, tuple(q for q, _ in rows), tuple(s for _, s in rows), dict(left))


@dataclass(frozen=True, slots=True)
class Judged:
    """One arm: its summary; `accuracy` with the interval by subject; the best `constant` letter of these very questions
    with its accuracy; `gain` over it, paired; `p` of McNemar's exact test of the two."""

    summary: choices.Summary
    accuracy: Interval
    constant: str
    trivial: float
    gain: Interval
    p: float

    @property
    def better(self) -> bool:
        """Whether the interval of the gain over the best constant letter lies above 0."""
        return self.gain.low > 0

    @property
    def verdict(self) -> str:
        """In words: "better than", "worse than", or "not shown better than" the constant."""
        word = "better than" if self.better else "worse than" if self.gain.high < 0 else "not shown better than"
        return f"{word} always {self.constant} ({self.trivial:.3f})"

    def line(self) -> str:
        """For notes: "0.310 [0.250, 0.375], macro-F1 0.28, parsed 1.00, n 200: not shown better than always B ..."."""
        s, a, g = self.summary, self.accuracy, self.gain
        return (
            f"{s.accuracy:.3f} [{a.low:.3f}, {a.high:.3f}], macro-F1 {s.macro_f1:.2f}, parsed {s.parsed:.2f}, n {s.n}: "
            f"{self.verdict}, difference {g.value:+.3f} [{g.low:+.3f}, {g.high:+.3f}], McNemar p {self.p:.3g}"
        )

    def to_json(self) -> dict[str, Any]:
        """For a card."""
        return {**asdict(self), "verdict": self.verdict}


def judged(bench: Bench, answers: Sequence[Answer]) -> Judged:
    """The answers of one arm; abstentions and failures are wrong. The constant is the commonest right letter, seen on
    these very questions: the best that any constant can do."""
    table = choices.columns(bench.questions, answers)
    constant = _constant(bench.questions)
    flat = choices.columns(bench.questions, choices.always(bench.questions, constant))
    mine, theirs = ({"right": t["truth"] == t["answer"]} for t in (table, flat))
    return Judged(
        choices.summary(table), interval(_share, mine, bench.subjects, share=True), constant,
        float(theirs["right"].mean()), paired(_share, mine, theirs, bench.subjects),
        choices.mcnemar(mine["right"], theirs["right"]).p,
    )  # fmt: skip


def rows(bench: Bench, answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """What stands on disk of each question."""
    return [
        {
            "question": q.id, "subject": s, "truth": q.gold, "answer": a.choice, "calls": a.calls,
            "confidence": a.confidence, "scores": dict(a.scores), "unread": a.unread, "failure": a.failure,
            "prompts": sorted({c.prompt for c in a.trace}),
        }
        for q, s, a in zip(bench.questions, bench.subjects, answers, strict=True)
    ]  # fmt: skip


def _constant(questions: Sequence[Question]) -> str:
    golds = [q.gold for q in questions]
    return max(sorted(set(golds)), key=golds.count)


def _share(columns: Columns, weights: Weights) -> Value:
    return mean(np.asarray(columns["right"], np.float64), weights)
