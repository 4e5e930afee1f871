"""The task of every fusion: its score with each subset of its fields, and where absence depends on the truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError, unknown
from fabrica.evaluate.features import Reader, Want, data_of
from fabrica.evaluate.missing import subsets
from fabrica.evaluate.subsets import RATE, present_name, shifts
from fabrica.evaluate.survival import C_INDEX
from fabrica.evaluate.tasks import TEST, Rows, Skipped
from fabrica.types import Absent, Record

if TYPE_CHECKING:
    from fabrica.models.fusion_bundle import FusionBundle

Said = Mapping[str, NDArray[np.floating[Any]]]  # task -> (n, C)


@dataclass(frozen=True, slots=True)
class AnySubset:
    """Every task of a fusion (`labels`: of those tasks alone) from each subset of its fields: the arm "model" has all
    of them, "only image" what it says; "nothing" is the model's prior. Of more than 6 fields: each one alone, and each
    one left out. Then each field withheld from a share `rate` of one half of the truth (`evaluate.subsets.Shift`).
    Classes give AUC or accuracy, times a C-index."""

    name: str = "any subset"
    labels: Sequence[str] = ()
    where: str = TEST
    rate: float = RATE
    group: str = "modality"
    version: str = "any_subset-1"
    fitted_on: str = field(default="", init=False)

    def wants(self) -> Mapping[str, Sequence[Want]]:
        """Nothing of the shared pass: the model answers from its own fields."""
        return {self.where: []}

    def rows(self, reader: Reader, /, *, seed: int) -> Iterator[Rows | Skipped]:
        """One table a task of the model."""
        bundle: Any = reader.bundles["model"]
        if not answers_tasks(bundle):
            raise UsageError(f"task {self.name!r}: this model answers no task from its fields; wanted a fusion")
        tasks = tuple(self.labels) or tuple(bundle.model.tasks)
        for task in tasks:
            if task not in bundle.model.tasks:
                raise unknown(f"task of the model (task {self.name!r})", task, bundle.model.tasks)
        fields: tuple[str, ...] = tuple(bundle.fields)
        there = _There(reader, self.where, bundle)
        arms = {"model": there.said()}
        for present in subsets(fields, sample=0)[1:]:
            arms[f"only {present_name(present)}" if present else present_name(())] = there.said(
                without=[f for f in fields if f not in present]
            )
        for task in tasks:
            name = self.name if len(tasks) == 1 else f"{self.name}: {task}"
            truth = there.truth(task)
            if not np.isfinite(truth).any():
                yield Skipped(name, f"no record of {self.where!r} has a known label {task!r}")
                continue
            made = {arm: said[task] for arm, said in arms.items()}
            for shift in shifts(fields, self.rate):
                keep = shift.removal(truth, fields, seed).keep[:, fields.index(shift.role)]
                made[shift.said(truth)] = there.said(gone=(shift.role, ~keep))[task]
            yield self._rows(name, task, there, truth, made, _is_survival(bundle))

    def _rows(
        self, name: str, task: str, there: _There, truth: NDArray[np.float64],
        made: Mapping[str, NDArray[np.floating[Any]]], survival: bool,
    ) -> Rows:  # fmt: skip
        classes = next(iter(made.values())).shape[1]
        columns: dict[str, list[NDArray[Any]]] = {}
        status = np.where(np.isfinite(truth), "ok", "no_truth")
        two = not survival and classes == 2
        for arm, said in made.items():
            held = {
                "id": there.ids, "subject": there.subjects, "group": there.group(self.group), "data": there.data,
                "arm": np.full(len(truth), arm), "status": status, "truth": truth[:, None] if two else truth,
                "scores": _risk(said) if survival else said[:, 1:].astype(np.float64) if two else said,
            }  # fmt: skip
            if not survival and not two:
                held["answer"] = said.argmax(1).astype(np.float64)
            for column, values in held.items():
                columns.setdefault(column, []).append(values)
        metrics = (C_INDEX.name,) if survival else ("AUC", "ECE", "Brier") if two else ("macro AUC", "accuracy", "ECE")
        joined = {column: np.concatenate(parts) for column, parts in columns.items()}
        return Rows(name, self.version, metrics, joined, (task,), note=there.shares())


@dataclass(slots=True)
class _There:
    """The records of a part as a fusion reads them: streamed anew for each arm, in the same order."""

    reader: Reader
    where: str
    bundle: FusionBundle
    rows: list[Record] = field(default_factory=list)  # without their items
    present: list[tuple[bool, ...]] = field(default_factory=list)
    real: list[str] = field(default_factory=list)

    def said(self, *, without: Sequence[str] = (), gone: tuple[str, NDArray[np.bool_]] | None = None) -> Said:
        """Probabilities by task, without some fields; or with one field taken from some rows."""
        return self.bundle.answer(self._stream(gone), without=without).tasks

    def _stream(self, gone: tuple[str, NDArray[np.bool_]] | None) -> Iterator[Record]:
        uses = self.bundle.collate.fields
        every = sorted({role for f in self.bundle.fields for role in uses[f].roles})
        first = not self.rows
        for i, record in enumerate(self.reader.corpus.scan(self.where, roles=every)):
            if first:
                self.present.append(tuple(record.first(*uses[f].roles) is not None for f in self.bundle.fields))
                self.real.append(data_of(record))
                self.rows.append(record.updated(items={}))
            yield _less(record, uses[gone[0]].roles) if gone is not None and gone[1][i] else record

    def truth(self, task: str) -> NDArray[np.float64]:
        """(n,), NaN = unknown."""
        held = [r.labels.get(task, Absent.NOT_DONE) for r in self.rows]
        return np.array([np.nan if isinstance(v, Absent) else float(v) for v in held])

    @property
    def ids(self) -> NDArray[np.str_]:
        return np.array([r.id for r in self.rows])

    @property
    def subjects(self) -> NDArray[np.str_]:
        return np.array([r.subject for r in self.rows])

    @property
    def data(self) -> NDArray[np.str_]:
        return np.array(self.real)

    def group(self, name: str) -> NDArray[np.str_]:
        return np.array([r.groups.get(name, "") for r in self.rows])

    def shares(self) -> str:
        """How many of the records have each field at all."""
        share = np.array(self.present).mean(0)
        parts = (f"{name} {part:.0%}" for name, part in zip(self.bundle.fields, share, strict=True))
        return "there: " + ", ".join(parts)


def answers_tasks(bundle: object) -> bool:
    """Whether a model is a fusion: several fields, any subset of which answers its tasks."""
    model = getattr(bundle, "model", None)
    return callable(getattr(bundle, "answer", None)) and bool(getattr(model, "tasks", None)) and hasattr(model, "read")


def with_subsets(tasks: Sequence[Any], bundle: object) -> list[Any]:
    """`tasks`, and for a fusion of several fields its any-subset table where none of them is one."""
    several = answers_tasks(bundle) and len(getattr(bundle, "fields", ())) > 1
    return [*tasks, AnySubset()] if several and not any(isinstance(t, AnySubset) for t in tasks) else list(tasks)


def _less(record: Record, roles: Sequence[str]) -> Record:
    def under(role: str) -> bool:
        return any(role == r or role.startswith(r + "/") for r in roles)

    items = {
        role: tuple(replace(i, value=Absent.WITHHELD) for i in held) if under(role) else held
        for role, held in record.items.items()
    }
    return record.updated(items=items)


def _is_survival(bundle: Any) -> bool:
    return hasattr(bundle.model.heads, "bins")


def _risk(said: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    from fabrica.objectives.survival import risk

    return risk(said)
