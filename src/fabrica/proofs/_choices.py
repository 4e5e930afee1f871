"""What the proofs of systems that answer questions share: parts, arms on scripted worlds, paired claims, real questions
ranked by a small model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fabrica.proofs.real import absent, real

if TYPE_CHECKING:
    from fabrica.chat.answer import Answer, Strategy
    from fabrica.chat.local import LocalChat
    from fabrica.chat.question import Question
    from fabrica.evaluate.bootstrap import Interval
    from fabrica.models.language_bundle import LanguageBundle

MODEL = "smollm2-135m"
RANKED = {"letter": "likeliest letter", "text": "likeliest words"}


@dataclass(frozen=True, slots=True)
class Job:
    """One part of a proof: `what` it is, its seed, how much, and the folder where its parts leave weights."""

    what: str
    seed: int
    size: Any
    folder: str = ""


@dataclass(slots=True)
class Found:
    """Values by name; of a scripted world, rows of right and wrong by arm, and which questions are `misled`; tables for
    the details; of real questions, what a reader is `told`."""

    values: dict[str, float] = field(default_factory=dict)
    right: dict[str, list[bool]] = field(default_factory=dict)
    misled: list[bool] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def add(self, name: str, table: Mapping[str, Any]) -> None:
        """An arm's accuracy and its rows."""
        from fabrica.evaluate import choices

        self.values[name] = choices.summary(table).accuracy
        self.right[name] = (table["truth"] == table["answer"]).tolist()


def asked(
    questions: Sequence[Question], strategy: Strategy, reader: Callable[[str, float, int], str]
) -> dict[str, Any]:
    """The columns of a strategy's answers where `reader` answers its prompts."""
    from fabrica.chat.scripted import Told
    from fabrica.evaluate import choices

    return choices.columns(questions, choices.answered(Told(reader), questions, strategy))


# ---------------------------------------------------------------- claims


def gathered(parts: Sequence[Found]) -> dict[str, tuple[float, ...]]:
    """Arm -> its values, in the order of the parts."""
    arms: dict[str, tuple[float, ...]] = {}
    for found in parts:
        for name, value in found.values.items():
            arms[name] = (*arms.get(name, ()), value)
    return arms


def pooled(worlds: Sequence[Found], a: str, b: str, *, misled: bool = False) -> Interval:
    """a - b over the questions of all seeds, resampled together; `misled` keeps those with one-sided mistakes."""
    from fabrica.evaluate.bootstrap import paired
    from fabrica.evaluate.metrics import mean

    keep = np.concatenate([np.asarray(f.misled) for f in worlds]) if misled else slice(None)
    one, two = ({"right": np.concatenate([np.asarray(f.right[n], float) for f in worlds])[keep]} for n in (a, b))
    return paired(lambda c, w: mean(c["right"], w), one, two, np.arange(len(one["right"])))


def difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Mean of a - b over seeds with its t interval; with one seed the value alone.

    >>> difference([0.5], [0.25])
    (0.25, 0.25, 0.25)
    """
    from fabrica.evaluate.bootstrap import paired_seeds

    if len(a) < 2:
        return a[0] - b[0], a[0] - b[0], a[0] - b[0]
    i = paired_seeds(a, b)
    return i.value, i.low, i.high


# ---------------------------------------------------------------- small language models


def refill(bundle: LanguageBundle, weights: Mapping[str, Any] | Path, *, base: bool = False) -> None:
    """Put weights, or those of the file that a stage left in a folder, into the model; `base` only under its adapter,
    whatever adapter they were trained beside."""
    from fabrica import safe
    from fabrica.models.weights import fill

    where = weights if isinstance(weights, Path) else Path("base")
    state = safe.weights(weights / "model.safetensors") if isinstance(weights, Path) else dict(weights)
    if base and isinstance(weights, Path):
        state = {n.removeprefix("lm.").replace(".base_layer.", "."): t for n, t in state.items() if "lora_" not in n}
    fill(bundle.model.base_state() if base else bundle.model.state_dict(), state, where)


# ---------------------------------------------------------------- real questions


@lru_cache(maxsize=1)
def local(name: str, device: str) -> LocalChat:
    """A small released model in the number format of its release (on a CPU with bfloat16 units a third of the time),
    loaded once a process."""
    from fabrica.chat.local import LocalChat

    return LocalChat(name, device=device, dtype="bfloat16")


def benched(
    path: Path, title: str, n: int, *, by: Sequence[Any] = ("letter", "text"), constant: str = "",
    context: bool = False, turned: bool = False, device: str = "cpu",
) -> Found:  # fmt: skip
    """Rankings of the `n` questions of a file with the lowest ids, beside the best constant letter (called `constant`);
    `turned` also ranks letters with the options in another order. Intervals are by question."""
    from fabrica.evaluate import bench

    whole, found = bench.load(path, context=context).first(n), Found()
    model = local(MODEL, device)
    from fabrica.chat.likely import likeliest

    answers: dict[str, list[Answer]] = {
        RANKED[b]: a for b, a in likeliest(model, whole.questions, by=by).items()
    }  # fmt: skip
    if turned:
        answers["likeliest letter, another order"] = _turned(model, whole.questions)
    for name, rows in answers.items():
        judged = bench.judged(whole, rows)
        found.values[f"real {title}: {name}"] = judged.summary.accuracy
        found.details[name] = judged.line()
        a = judged.accuracy
        found.told.append(f"{title}, {name}: {a.value:.3f} [{a.low:.3f}, {a.high:.3f}], {judged.verdict}")
        found.values[f"real {title}: always {constant}" if constant else f"real {title}: best constant letter"] = (
            judged.trivial
        )
    if "letter" in by:
        from fabrica.evaluate.choices import positions

        found.details["places chosen, and right"] = {k: positions(whole.questions, v) for k, v in answers.items()}
    found.details["questions, left out"] = [len(whole.questions), dict(whole.left)]
    return found


def _turned(model: LocalChat, questions: Sequence[Question]) -> list[Answer]:
    """The letters ranked with the options in another order, in the questions' own letters."""
    from dataclasses import replace

    from fabrica.chat.likely import likeliest

    shuffled = [q.shuffled(1) for q in questions]
    made = likeliest(model, [q for q, _ in shuffled], by=("letter",))["letter"]
    return [
        replace(a, choice=back[a.choice or ""], order="".join(back.values()))
        for a, (_, back) in zip(made, shuffled, strict=True)
    ]


def told(parts: Sequence[Found], name: str) -> str:
    """The sentence on real questions that a proof's notes end with."""
    said = [line for found in parts for line in found.told]
    if said:
        return f"Real questions, SmolLM2-135M: {'; '.join(said)}."
    return absent(name) if real(name) is None else "The real arm is left out of the quick run."
