"""Runs a plan of steps and surveys over a corpus, here or on a cluster; killed at any moment, the next run goes on."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fabrica.curate.engine.folders import CARD, LEDGER, card_of, check, locked, recover, same_work, stage, swap
from fabrica.curate.engine.ledger import (
    BAD,
    Decisions,
    Left,
    Notes,
    Rows,
    load_decisions,
    mapped,
    save_decisions,
    write_ledger,
)  # fmt: skip
from fabrica.curate.engine.plan import carry_splits, fingerprint, signature
from fabrica.curate.engine.unit import ORDER, Outcome, Unit, Work, save
from fabrica.errors import StepFailed, UsageError, unknown
from fabrica.safe import write_whole
from fabrica.types import Record, Step, Survey

if TYPE_CHECKING:
    from fabrica.corpus import Corpus
    from fabrica.curate.engine.cluster import Runner

Progress = Callable[[int, int | None, str], None]  # done, total, what
Span = tuple[int, int]
Result = tuple[Span, Outcome | None, int, Left | None]  # unit, what came of it (None: in parts), bad ones, the first
_UNIT_ROWS = 1024
_WRITE_ROWS = 16384  # units are written to the corpus together up to this many records
MAX_BAD = 0.01


@dataclass(frozen=True, slots=True)
class CurateReport:
    """What a run kept and left out. `dropped`: step -> reason -> records; `failed`: how many of them because a step
    raised (reasons "raised_..."); `resumed`: whether earlier work was used."""

    read: int
    kept: int
    dropped: Mapping[str, Mapping[str, int]]
    seconds: float
    resumed: bool = False
    failed: int = 0


def run(
    plan: Sequence[Step | Survey], source: Corpus, into: str | Path, *, runner: Runner = "local", workers: int = 2,
    max_memory: int | None = None, max_bad: float = MAX_BAD, limit: int | None = None, progress: Progress | None = None,
) -> CurateReport:  # fmt: skip
    """Curate `source` into a new corpus at `into`.

    Steps are fused into one stream; a survey is a barrier: its notes go to disk, it decides, the decisions are applied
    on the next pass. Work stands in units in a hidden folder beside `into` and the result appears whole, in place of
    what an earlier plan or an earlier version of the source left there. The same plan on the same version does nothing.

    `runner` "local" works in this process; "daft" in `workers` processes of this machine; "ray" in `workers` of the
    cluster that RAY_ADDRESS names, or of this machine: the same records, bytes and ledger, and any of them goes on with
    what another began. A survey decides in this process.

    A step may name a group in an attribute `by`: then the records of each value of it arrive together (`StackSeries`).
    A survey with `light = True` reads no items; one with `notes(records) -> pa.Table` notes a unit at once.
    `max_memory` bytes bounds what all workers hold at once (default 1 GiB).

    A record on which a step raises is tried twice, then left out with the reason "raised_<error>" and its place in the
    code in the ledger. `StepFailed` where that comes to more than `max_bad` of a pass (at least one may, unless it is
    0): a broken step stops the run, an odd record does not. `limit` reads the records of the lowest ids alone.

    Raises `UsageError` where `into` is the source, holds something else, or is being written by another run.
    """
    begun, into = time.perf_counter(), Path(into)
    check(plan, source, into)
    if runner not in ("local", "daft", "ray"):
        raise unknown("runner", runner, ("local", "daft", "ray"))
    if min(workers, 1 if limit is None else limit) < 1 or not 0 <= max_bad <= 1:
        raise UsageError(
            f"workers={workers}, limit={limit}, max_bad={max_bad}: wanted at least 1 of each, and a share from 0 to 1"
        )
    with locked(into) as work:
        recover(into, work)
        card = card_of(into)
        mark = fingerprint(plan, source, limit)
        if card is not None and card["fingerprint"] == mark:
            shutil.rmtree(work, ignore_errors=True)
            seconds = time.perf_counter() - begun
            return CurateReport(card["read"], card["kept"], card["dropped"], seconds, True, card.get("failed", 0))
        resumed = same_work(work, mark)
        job = _Job(work, runner, workers if runner != "local" else 1, max_memory or 1 << 30, max_bad, limit, progress)
        made = job.all(plan, carry_splits(plan, into, card), source, into)
        report = _finish(made, job, plan, source, mark)
        swap(work, made.path, into)
    return replace(report, seconds=time.perf_counter() - begun, resumed=resumed)


@dataclass
class _Job:
    """One run: its folder, its workers, its memory, its passes."""

    work: Path
    runner: Runner
    workers: int
    max_memory: int
    max_bad: float
    limit: int | None
    progress: Progress | None

    def __post_init__(self) -> None:
        self.passes: list[Path] = []

    def all(
        self, plan: Sequence[Step | Survey], deciding: Sequence[Step | Survey], source: Corpus, into: Path
    ) -> Corpus:
        """Every pass of the plan; the new corpus. `deciding` are the same parts, with what an earlier run knew."""
        base = source
        pending: list[tuple[str, Decisions]] = []
        surveys = [part for part in deciding if isinstance(part, Survey)]
        for number, (steps, survey) in enumerate(_segments(plan)):
            folder = self.work / str(number)
            writes = bool(steps) or survey is None
            target = stage(folder / "data", into) if writes else None
            work = Work(folder, base, tuple(name for name, _ in pending), tuple(steps), survey, writes)
            self._pass(
                work, None if base is not source else self.limit, [decisions for _, decisions in pending], target
            )
            if target is not None:
                base, pending = target, []
            if survey is not None:
                pending.append((survey.name, _decided(folder, surveys[number], writes, self.progress)))
        return base

    def _pass(self, work: Work, limit: int | None, pending: Sequence[Decisions], target: Corpus | None) -> None:
        """All units of a pass that are not done."""
        work.folder.mkdir(parents=True, exist_ok=True)
        self.passes.append(work.folder)
        order = _ordered(work, limit, pending)
        notes, left, made = (Notes(work.folder / name) for name in ("notes", work.left, "units"))
        written = 0 if target is None else int(target.token or 0)
        bad, first = self._again(left, (notes, made), written, len(order))
        self._bound(bad, len(order), first, None)
        begin = notes.end() if target is None else written
        units = list(_units(order, begin, self.max_memory // (8 * self.workers)))
        ready = frozenset((start, end) for start, end, _ in (notes if target is None else made).parts()) & set(units)
        for folder in (notes, left, made):
            folder.cut(0 if folder is made else begin, ready)
        merge = _Merge(target, made, begin, self.max_memory // 8)
        with contextlib.closing(self._results(work, units, ready)) as results:
            for unit, out, failed, first in results:
                bad += failed
                self._bound(bad, len(order), first, out.error if out else None)
                merge.take(unit, out)
                if self.progress is not None:
                    self.progress(merge.upto, len(order), work.what)
        merge.flush()

    def _again(self, left: Notes, others: Sequence[Notes], written: int, total: int) -> tuple[int, Left | None]:
        """How many were bad in units that an earlier run did, and the first. Where that is too many, what is not
        written yet of those units is taken back, so that the step is tried again."""
        raised = [(start, end, rows) for start, end, _ in left.parts() if (rows := left.raised(start, end))]
        if sum(len(rows) for *_, rows in raised) > math.ceil(self.max_bad * total):
            for start, end, _ in raised:
                for folder in (left, *others) if end > written else ():
                    folder.path(start, end).unlink(missing_ok=True)
            raised = [unit for unit in raised if unit[1] <= written]
        return sum(len(rows) for *_, rows in raised), raised[0][2][0] if raised else None

    def _results(self, work: Work, units: Sequence[Span], ready: frozenset[Span]) -> Generator[Result, None, None]:
        """Each unit and what came of it, its parts on disk: of a worker's in any order."""
        if self.runner == "local":
            here = Unit(work)
            for unit in units:
                if unit in ready:
                    yield unit, None, 0, None
                    continue
                out = here.run(*unit)
                save(work, *unit, out)
                yield unit, out, len(out.bad), out.bad[0] if out.bad else None
            return
        yield from ((unit, None, 0, None) for unit in units if unit in ready)
        if rest := [unit for unit in units if unit not in ready]:
            from fabrica.curate.engine import cluster

            with contextlib.closing(cluster.run(work, rest, self.runner, self.workers)) as told:
                for unit, said in told:
                    yield unit, None, said["bad"], said["why"]

    def _bound(self, bad: int, total: int, first: Left | None, error: Exception | None) -> None:
        """Stop where more records were left out for errors than may be."""
        if bad <= math.ceil(self.max_bad * total) or first is None:
            return
        raise StepFailed(
            f"step {first['step']!r} {first['reason']} at {first['detail']} (record {first['id']}), and so on {bad} of "
            f"{total} records of this pass: more than max_bad = {self.max_bad:g}; mend the step, or allow more"
        ) from error


class _Merge:
    """Takes units as they end and writes their records in order: those of several units in one append."""

    def __init__(self, target: Corpus | None, made: Notes, begin: int, budget: int) -> None:
        self.target, self.made, self.budget = target, made, budget
        self.upto = begin  # all units before are taken
        self._waiting: dict[int, tuple[int, list[Record] | None]] = {}  # start -> end, records (None: in a part)
        self._records: list[Record] = []
        self._parts: list[Span] = []
        self._rows = self._bytes = 0

    def take(self, unit: Span, out: Outcome | None) -> None:
        """One more unit is done."""
        self._waiting[unit[0]] = unit[1], None if out is None else out.records
        while self.upto in self._waiting:
            start = self.upto
            self.upto, records = self._waiting.pop(start)
            if self.target is None:
                continue
            if records is None:
                self._part((start, self.upto))
            else:
                self._held(records)

    def _held(self, records: Sequence[Record]) -> None:
        from fabrica.corpus.codec import size_of

        if self._parts:
            self.flush(self.upto)
        self._records += records
        self._count(len(records), sum(map(size_of, records)))

    def _part(self, unit: Span) -> None:
        if self._records:
            self.flush(unit[0])
        self._parts.append(unit)
        self._count(unit[1] - unit[0], self.made.path(*unit).stat().st_size)

    def _count(self, rows: int, size: int) -> None:
        self._rows, self._bytes = self._rows + rows, self._bytes + size
        if self._rows >= _WRITE_ROWS or self._bytes > self.budget:
            self.flush()

    def flush(self, upto: int | None = None) -> None:
        """Write what is held; the corpus' token says how far the pass has come."""
        if self.target is None:
            return
        token = str(self.upto if upto is None else upto)
        if self._parts:
            self.target.adopt((mapped(self.made.path(*unit)) for unit in self._parts), token=token)
        elif self._records or self.target.token != token:
            self.target.append(self._records, token=token)
        for unit in self._parts:
            self.made.path(*unit).unlink()
        self._records, self._parts, self._rows, self._bytes = [], [], 0, 0


def _segments(plan: Sequence[Step | Survey]) -> list[tuple[list[Step], Survey | None]]:
    """Steps up to and including each survey; the last segment has none."""
    out: list[tuple[list[Step], Survey | None]] = []
    steps: list[Step] = []
    for part in plan:
        if isinstance(part, Survey):
            out.append((steps, part))
            steps = []
        else:
            steps.append(part)
    return [*out, (steps, None)]


def _ordered(work: Work, limit: int | None, pending: Sequence[Decisions]) -> pa.Table:
    """Ids in the order to read, their places, the group that a unit may not cut ("" = none), what was decided."""
    path = work.folder / ORDER
    if path.exists():
        return mapped(path)
    by = {name for step in work.steps if (name := getattr(step, "by", None))}
    if len(by) > 1:
        raise UsageError(f"steps that gather by {sorted(by)} stand side by side; put a survey between them")
    table = work.base.layout(["tags"] if by else [])
    if limit is not None and limit < len(table):
        few = pc.sort_indices(table["id"]).slice(0, limit)
        table = table.take(np.sort(few.to_numpy()))
    groups = [""] * len(table)
    if by:
        prefix = f"{by.pop()}:"
        tags, ids = table["tags"].to_pylist(), table["id"].to_pylist()
        named = [next((t[len(prefix) :] for t in of if t.startswith(prefix)), "") for of in tags]
        rows = sorted(range(len(ids)), key=lambda i: (named[i], ids[i] if named[i] else ""))
        table, groups = table.drop_columns("tags").take(rows), [named[i] for i in rows]
    table = table.append_column("group", pa.array(groups, pa.string())).combine_chunks()
    for number, decisions in enumerate(pending):
        found = decisions.aligned(table["id"])
        for name in found.column_names:
            table = table.append_column(f"{name}{number}", found[name])
    with write_whole(path) as out, pa.ipc.new_file(out, table.schema) as file:
        file.write_table(table.combine_chunks())
    return mapped(path)


def _units(order: pa.Table, start: int, budget: int) -> Iterator[Span]:
    """(start, end) of runs of about `budget` bytes or fewer; a group is never cut."""
    sizes, groups = order["bytes"].to_pylist(), order["group"].to_pylist()
    total = 0
    for i in range(start, len(sizes)):
        cut = i > start and not (groups[i] and groups[i] == groups[i - 1])
        if cut and (i - start >= _UNIT_ROWS or total + sizes[i] > budget):
            yield start, i
            start, total = i, 0
        total += sizes[i]
    if start < len(sizes):
        yield start, len(sizes)


def _decided(folder: Path, survey: Survey, writes: bool, progress: Progress | None) -> Decisions:
    """What the survey says of its notes; a record that it could not note goes, unless the pass left it out already."""
    path = folder / "decisions.arrow"
    if not path.exists():
        rows = Rows.of(folder / "notes")
        decisions = Decisions.wrap(survey.decide(rows))
        bad = Notes(folder / BAD).table()
        if not writes and len(bad):
            decisions = decisions.and_drop(bad["id"], bad["reason"])
        save_decisions(path, decisions)
        if progress is not None:
            progress(len(rows), len(rows), f"{survey.name}: decided")
    return load_decisions(path)


def _finish(made: Corpus, job: _Job, plan: Sequence[Step | Survey], source: Corpus, mark: str) -> CurateReport:
    """Ledger and card into the new corpus."""
    dropped: dict[str, Counter[str]] = {part.name: Counter() for part in plan}
    ledger = write_ledger(made.path / LEDGER, job.passes)
    for step, reason in zip(ledger["step"].to_pylist(), ledger["reason"].to_pylist(), strict=True):
        dropped[step][reason] += 1
    counts = {k: dict(sorted(v.items())) for k, v in dropped.items()}
    failed = len(ledger) - ledger["detail"].null_count
    read = min(len(source), job.limit or len(source))
    report = CurateReport(read, len(made), counts, 0.0, failed=failed)
    card: dict[str, Any] = {
        "fingerprint": mark, "plan": [signature(part) for part in plan], "source_version": source.version,
        "read": report.read, "kept": report.kept, "dropped": report.dropped, "failed": failed,
    }  # fmt: skip
    with write_whole(made.path / CARD) as out:
        out.write(json.dumps(card, indent=1).encode())
    return report
