"""One unit of a curation: some records through decisions and steps, in this process or in a worker.

A step that raises on a record does not end the run: the unit is tried again record by record, and what raises a second
time is left out with the reason "raised_<error>" and the place in the code. The engine bounds how many (`max_bad`).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fabrica.curate.engine.ledger import BAD, DROPPED, DROPS, Left, Notes, decision, mapped
from fabrica.errors import FabricaError, Refused
from fabrica.safe import write_whole
from fabrica.types import Drop, Record, Step, Survey

if TYPE_CHECKING:
    from fabrica.corpus import Corpus

ORDER = "order.arrow"  # of a pass: ids in the order to read, places, groups that stay together, decisions to apply


@dataclass(frozen=True, slots=True)
class Work:
    """What a pass does to every unit; what a worker gets. `pending` names the surveys whose decisions are applied."""

    folder: Path
    base: Corpus
    pending: tuple[str, ...]
    steps: tuple[Step, ...]
    survey: Survey | None
    writes: bool  # whether records are kept, or noted alone

    @property
    def roles(self) -> tuple[str, ...] | None:
        """What to read of each record; None = all."""
        return () if not self.writes and getattr(self.survey, "light", False) else None

    @property
    def left(self) -> str:
        """The folder of what was left out. A pass that only notes applies the same decisions again later: what they
        drop is written then; what raised is written now."""
        return DROPPED if self.writes else BAD

    @property
    def what(self) -> str:
        """Names of steps and survey."""
        names = [step.name for step in self.steps] + ([self.survey.name] if self.survey else [])
        return ", ".join(names) or "write"


@dataclass(slots=True)
class Outcome:
    """What came of a unit. `bad` are records left out because a step raised; `error` the first such."""

    records: list[Record] = field(default_factory=list)
    notes: list[pa.Table] = field(default_factory=list)
    drops: list[Left] = field(default_factory=list)
    bad: list[Left] = field(default_factory=list)
    error: Exception | None = None

    def add(self, other: Outcome) -> None:
        """Append another's."""
        self.records += other.records
        self.notes += other.notes
        self.drops += other.drops


class Unit:
    """Runs units of one pass; made once in each process, so that what its steps hold (models) is loaded once."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.order = mapped(work.folder / ORDER)

    def run(self, start: int, end: int) -> Outcome:
        """Records `start` to `end` of the pass; those that raise, once more alone (or with the group that must arrive
        together), then without them. `FabricaError`s say what a user can mend and end the run, but for `Refused`."""
        rows = self.order.slice(start, end - start)
        try:
            return self._through(rows)
        except Exception as error:  # noqa: BLE001 - a step may raise anything; counted, named and bounded
            _only_of_records(error)
        out = Outcome()
        for lo, hi in atoms(rows["group"].to_pylist()):
            some = rows.slice(lo, hi - lo)
            try:
                out.add(self._through(some))
            except Exception as error:  # noqa: BLE001
                _only_of_records(error)
                out.error = out.error or error
                out.bad += [_bad(id_, error) for id_ in some["id"].to_pylist()]
        return out

    def _through(self, rows: pa.Table) -> Outcome:
        work, out = self.work, Outcome()
        stream: Iterable[Record] = work.base.read_at(rows, roles=work.roles)
        if work.pending:
            stream = _apply(stream, rows, work.pending, out.drops)
        for step in work.steps:
            stream = _named(step(stream, _dropper(out.drops, step.name)), step.name)
        out.records = list(stream)
        if work.survey is not None:
            with _Named(work.survey.name):
                out.notes.append(noted(work.survey, out.records))
        return out

    def write(self, start: int, end: int) -> dict[str, Any]:
        """Run a unit and leave its parts on disk, the last of them last: then the unit is done. How many were bad."""
        out = self.run(start, end)
        save(self.work, start, end, out)
        if self.work.writes:
            from fabrica.corpus import codec

            with (
                write_whole(Notes(self.work.folder / "units").path(start, end)) as file,
                pa.ipc.new_file(file, codec.PACKED) as arrow,
            ):
                arrow.write_table(codec.pack(out.records))
        return {"bad": len(out.bad), "why": out.bad[0] if out.bad else None}


def save(work: Work, start: int, end: int, out: Outcome) -> None:
    """Notes of a unit, and what it left out."""
    left_out = (out.drops if work.writes else []) + out.bad
    if left_out:
        Notes(work.folder / work.left).write(start, end, pa.Table.from_pylist(left_out, DROPS))
    if work.survey is not None:
        tables = [t for t in out.notes if t.num_rows]
        table = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
        Notes(work.folder / "notes").write(start, end, table)


def noted(survey: Survey, records: Sequence[Record]) -> pa.Table:
    """Notes of some records as a table: by the survey's `notes(records)` where it has one, else one by one."""
    many: Callable[[Sequence[Record]], pa.Table] | None = getattr(survey, "notes", None)
    if many is not None:
        return many(records)
    rows = [dict(survey.note(record)) for record in records]
    return pa.Table.from_pylist(rows) if rows else pa.table({})


def atoms(groups: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(start, end) of each run of one group; of no group ("") each alone.

    >>> list(atoms(["", "", "a", "a", "b"]))
    [(0, 1), (1, 2), (2, 4), (4, 5)]
    """
    start = 0
    for i in range(1, len(groups) + 1):
        if i == len(groups) or not groups[i] or groups[i] != groups[start]:
            yield start, i
            start = i


def _only_of_records(error: Exception) -> None:
    """Raise what no other try can mend: wrong settings, a missing library, a full disk, no memory."""
    if isinstance(error, MemoryError) or (isinstance(error, FabricaError) and not isinstance(error, Refused)):
        raise error


def _bad(id_: str, error: Exception) -> Left:
    """Where and what; the error's message is left out, since it may quote a record."""
    code = error.code if isinstance(error, Refused) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    inside = max(i for i, f in enumerate(frames) if f.filename == __file__) + 1  # the step's own frame
    own = frames[inside].filename if inside < len(frames) else __file__
    last = [f for f in frames if f.filename == own][-1]
    place = f"{Path(last.filename).name}:{last.lineno} in {last.name}"
    return {"id": id_, "step": getattr(error, _STEP, "decode"), "reason": f"raised_{code}", "detail": place}


_STEP = "fabrica_step"  # set on an error by the first that sees it pass


class _Named:
    """Says which step an error came from."""

    def __init__(self, step: str) -> None:
        self.step = step

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not hasattr(error, _STEP):
            setattr(error, _STEP, self.step)


def _named(records: Iterator[Record], step: str) -> Iterator[Record]:
    with _Named(step):
        yield from records


def _dropper(left_out: list[Left], step: str) -> Drop:
    def drop(record: Record, reason: str) -> None:
        left_out.append({"id": record.id, "step": step, "reason": reason, "detail": None})

    return drop


def _apply(records: Iterable[Record], rows: pa.Table, pending: Sequence[str], left_out: list[Left]) -> Iterator[Record]:
    """Records as the decisions in `rows` want them: one set of columns for each survey of `pending`, in order."""
    sides = [[rows[f"{name}{k}"].to_pylist() for name in ("drop", "groups", "split")] for k in range(len(pending))]
    for i, record in enumerate(records):
        for survey, (drops, groups, splits) in zip(pending, sides, strict=True):
            made = decision(drops[i], groups[i], splits[i])
            if made.drop is not None:
                _dropper(left_out, survey)(record, made.drop)
                break
            if made.groups or made.split:
                joined = {**record.groups, **made.groups} if made.groups else record.groups
                record = replace(record, groups=joined, split=made.split or record.split)
        else:
            yield record
