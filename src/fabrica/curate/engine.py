"""Runs a plan of steps and surveys over a corpus, on one machine; killed at any moment, the next run goes on."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabrica.curate.ledger import Notes, Rows, load_decisions, save_decisions, write_ledger
from fabrica.curate.plan import carry_splits, fingerprint, signature
from fabrica.errors import UsageError
from fabrica.safe import write_whole
from fabrica.types import Decision, Drop, Record, Step, Survey

if TYPE_CHECKING:
    from fabrica.corpus import Corpus

Progress = Callable[[int, int | None, str], None]  # done, total, what
CARD = "curate.json"  # in the new corpus: what was done
LEDGER = "ledger.parquet"  # in the new corpus: id, step, reason of every record left out
_UNIT_ROWS = 1024


@dataclass(frozen=True, slots=True)
class CurateReport:
    """What a run kept and left out. `dropped`: step -> reason -> records; `resumed`: whether earlier work was used."""

    read: int
    kept: int
    dropped: Mapping[str, Mapping[str, int]]
    seconds: float
    resumed: bool = False


def run(
    plan: Sequence[Step | Survey], source: Corpus, into: str | Path, *, max_memory: int | None = None,
    progress: Progress | None = None,
) -> CurateReport:  # fmt: skip
    """Curate `source` into a new corpus at `into`.

    Steps are fused into one stream; a survey is a barrier: its notes go to disk, it decides, the decisions are applied
    on the next pass. Work stands in units in a hidden folder beside `into` and the result appears whole, in place of
    what an earlier plan or an earlier version of the source left there. The same plan on the same version does nothing.

    A step may name a group in an attribute `by`: then the records of each value of it arrive together (`StackSeries`).
    A survey with `light = True` reads no items. `max_memory` bytes bounds what is held at once (default 1 GiB).

    Raises `UsageError` where `into` is the source, holds something else, or is being written by another run.
    """
    begun, into = time.perf_counter(), Path(into)
    _check(plan, source, into)
    with _locked(into) as work:
        _recover(into, work)
        card = _card(into)
        mark = fingerprint(plan, source)
        if card is not None and card["fingerprint"] == mark:
            shutil.rmtree(work, ignore_errors=True)
            return CurateReport(card["read"], card["kept"], card["dropped"], time.perf_counter() - begun, True)
        resumed = _same_work(work, mark)
        job = _Job(work, max_memory or 1 << 30, progress)
        made = job.all(carry_splits(plan, into, card), source, into)
        report = _finish(made, job, plan, source, mark)
        _swap(work, made.path, into)
    return replace(report, seconds=time.perf_counter() - begun, resumed=resumed)


class _Job:
    """One run: its folder, its memory, its passes."""

    def __init__(self, work: Path, max_memory: int, progress: Progress | None) -> None:
        self.work, self.max_memory, self.progress = work, max_memory, progress
        self.passes: list[Path] = []

    def all(self, plan: Sequence[Step | Survey], source: Corpus, into: Path) -> Corpus:
        """Every pass of the plan; the new corpus."""
        base = source
        pending: list[tuple[str, Mapping[str, Decision]]] = []
        for number, (steps, survey) in enumerate(_segments(plan)):
            folder = self.work / str(number)
            target = None
            if steps or survey is None:
                target = _stage(folder / "data", into)
            self._pass(folder, base, pending, steps, survey, target)
            if target is not None:
                base, pending = target, []
            if survey is not None:
                pending.append((survey.name, _decided(folder, survey, self.progress)))
        return base

    def _pass(
        self, folder: Path, base: Corpus, pending: Sequence[tuple[str, Mapping[str, Decision]]], steps: Sequence[Step],
        survey: Survey | None, target: Corpus | None,
    ) -> None:  # fmt: skip
        """Read `base` in units; apply decisions and steps; note for the survey; append to the target."""
        folder.mkdir(parents=True, exist_ok=True)
        self.passes.append(folder)
        notes, drops = Notes(folder / "notes"), Notes(folder / "drops")
        ids, sizes, groups = _order(base, steps)
        done = notes.end() if target is None else int(target.token or 0)
        notes.cut(done)
        drops.cut(done)
        what = ", ".join([s.name for s in steps] + ([survey.name] if survey else [])) or "write"
        roles = () if target is None and getattr(survey, "light", False) else None
        for start, end in _units(sizes, groups, done, self.max_memory // 8):
            left_out: list[dict[str, str]] = []
            stream: Iterable[Record] = base.take(ids[start:end], roles=roles)
            for name, decisions in pending:
                stream = _apply(stream, decisions, _dropper(left_out, name))
            for step in steps:
                stream = step(stream, _dropper(left_out, step.name))
            records = list(stream)
            if survey is not None:
                notes.write(start, end, [survey.note(record) for record in records])
            if target is not None:  # a pass that only notes applies the same decisions again later
                drops.write(start, end, left_out)
                target.append(records, token=str(end))
            if self.progress is not None:
                self.progress(end, len(ids), what)


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


def _order(base: Corpus, steps: Sequence[Step]) -> tuple[list[str], list[int], list[str]]:
    """Ids in the order to read, their bytes, and the group that a unit may not cut ("" = none)."""
    by = {name for step in steps if (name := getattr(step, "by", None))}
    if len(by) > 1:
        raise UsageError(f"steps that gather by {sorted(by)} stand side by side; put a survey between them")
    table = base.rows(["id", "bytes", "tags"] if by else ["id", "bytes"])
    ids, sizes = table["id"].to_pylist(), table["bytes"].to_pylist()
    if not by:
        return ids, sizes, [""] * len(ids)
    prefix = f"{by.pop()}:"
    tags = table["tags"].to_pylist()
    groups = [next((t[len(prefix) :] for t in of if t.startswith(prefix)), "") for of in tags]
    order = sorted(range(len(ids)), key=lambda i: (groups[i], ids[i] if groups[i] else ""))
    return [ids[i] for i in order], [sizes[i] for i in order], [groups[i] for i in order]


def _units(sizes: Sequence[int], groups: Sequence[str], start: int, budget: int) -> Iterator[tuple[int, int]]:
    """(start, end) of runs of about `budget` bytes or fewer; a group is never cut."""
    total = 0
    for i in range(start, len(sizes)):
        cut = i > start and not (groups[i] and groups[i] == groups[i - 1])
        if cut and (i - start >= _UNIT_ROWS or total + sizes[i] > budget):
            yield start, i
            start, total = i, 0
        total += sizes[i]
    if start < len(sizes):
        yield start, len(sizes)


def _dropper(left_out: list[dict[str, str]], step: str) -> Drop:
    def drop(record: Record, reason: str) -> None:
        left_out.append({"id": record.id, "step": step, "reason": reason})

    return drop


def _apply(records: Iterable[Record], decisions: Mapping[str, Decision], drop: Drop) -> Iterator[Record]:
    for record in records:
        decision = decisions.get(record.id)
        if decision is None:
            yield record
        elif decision.drop is not None:
            drop(record, decision.drop)
        else:
            groups = {**record.groups, **decision.groups} if decision.groups else record.groups
            yield replace(record, groups=groups, split=decision.split or record.split)


def _decided(folder: Path, survey: Survey, progress: Progress | None) -> Mapping[str, Decision]:
    path = folder / "decisions.parquet"
    if not path.exists():
        rows = Rows.of(folder / "notes")
        save_decisions(path, survey.decide(rows))
        if progress is not None:
            progress(len(rows), len(rows), f"{survey.name}: decided")
    return load_decisions(path)


# ---------------------------------------------------------------- folders


def _check(plan: Sequence[Step | Survey], source: Corpus, into: Path) -> None:
    if not plan:
        raise UsageError("the plan is empty; give at least one step, such as split.BySubject()")
    for part in plan:
        signature(part)
    if into.resolve() == source.path.resolve():
        raise UsageError(f"{into} is the source itself; curate into another folder")
    if into.exists() and (not into.is_dir() or (any(into.iterdir()) and not (into / CARD).exists())):
        raise UsageError(f"{into} holds something that no curation wrote; give a new folder, or remove it")


@contextlib.contextmanager
def _locked(into: Path) -> Iterator[Path]:
    """The hidden work folder beside `into`, for one run at a time."""
    import fcntl

    into = into.absolute()
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        lock = open(into.parent / f".{into.name}.curate.lock", "w")  # noqa: SIM115
    except OSError as error:
        raise UsageError(
            f"nothing can be written beside {into}: {error.strerror}; give a folder you may write"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another run is curating into {into}; wait for it, or stop it") from None
        yield into.parent / f".{into.name}.curate"


def _same_work(work: Path, mark: str) -> bool:
    """Whether work of the same plan and input stands there; other work is removed."""
    path = work / "plan"
    if path.exists() and path.read_text() == mark:
        return True
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    with write_whole(path) as out:
        out.write(mark.encode())
    return False


def _stage(path: Path, into: Path) -> Corpus:
    """The corpus that a pass writes; who was erased from `into` stays out."""
    from fabrica.corpus import Corpus

    corpus = Corpus.at(path)
    if (into / "erased.json").exists():
        with write_whole(path / "erased.json") as out:
            out.write((into / "erased.json").read_bytes())
    return corpus


def _finish(made: Corpus, job: _Job, plan: Sequence[Step | Survey], source: Corpus, mark: str) -> CurateReport:
    """Ledger and card into the new corpus."""
    dropped: dict[str, Counter[str]] = {part.name: Counter() for part in plan}
    ledger = write_ledger(made.path / LEDGER, job.passes)
    for step, reason in zip(ledger["step"].to_pylist(), ledger["reason"].to_pylist(), strict=True):
        dropped[step][reason] += 1
    report = CurateReport(len(source), len(made), {k: dict(sorted(v.items())) for k, v in dropped.items()}, 0.0)
    card = {
        "fingerprint": mark, "plan": [signature(part) for part in plan], "source_version": source.version,
        "read": report.read, "kept": report.kept, "dropped": report.dropped,
    }  # fmt: skip
    with write_whole(made.path / CARD) as out:
        out.write(json.dumps(card, indent=1).encode())
    return report


def _card(into: Path) -> dict[str, Any] | None:
    path = into / CARD
    return json.loads(path.read_text()) if path.exists() else None


def _swap(work: Path, made: Path, into: Path) -> None:
    """Put the new corpus where the old one stood. Killed in between, `_recover` ends it."""
    ready, old = work.with_suffix(".ready"), work.with_suffix(".old")
    made.rename(ready)
    if into.exists():
        into.rename(old)
    ready.rename(into)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)


def _recover(into: Path, work: Path) -> None:
    """End a swap that was cut short: what is ready is whole and newer than what stands."""
    ready, old = work.with_suffix(".ready"), work.with_suffix(".old")
    if ready.exists():
        if into.exists() and not old.exists():
            into.rename(old)
        ready.rename(into)
    shutil.rmtree(old, ignore_errors=True)
