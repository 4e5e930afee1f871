"""Where a curation works: a hidden folder beside its target, one run at a time, swapped in whole."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabrica.curate.engine.plan import signature
from fabrica.errors import UsageError
from fabrica.safe import write_whole
from fabrica.types import Step, Survey

if TYPE_CHECKING:
    from fabrica.corpus import Corpus

CARD = "curate.json"  # in the new corpus: what was done
LEDGER = "ledger.parquet"  # in the new corpus: id, step, reason of every record left out


def check(plan: Sequence[Step | Survey], source: Corpus, into: Path) -> None:
    """Refuse a plan that names nothing, and a target that is something else."""
    if not plan:
        raise UsageError("the plan is empty; give at least one step, such as split.BySubject()")
    for part in plan:
        signature(part)
    if into.resolve() == source.path.resolve():
        raise UsageError(f"{into} is the source itself; curate into another folder")
    if into.exists() and (not into.is_dir() or (any(into.iterdir()) and not (into / CARD).exists())):
        raise UsageError(f"{into} holds something that no curation wrote; give a new folder, or remove it")


@contextlib.contextmanager
def locked(into: Path) -> Iterator[Path]:
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


def same_work(work: Path, mark: str) -> bool:
    """Whether work of the same plan and input stands there; other work is removed."""
    path = work / "plan"
    if path.exists() and path.read_text() == mark:
        return True
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    with write_whole(path) as out:
        out.write(mark.encode())
    return False


def stage(path: Path, into: Path) -> Corpus:
    """The corpus that a pass writes; who was erased from `into` stays out."""
    from fabrica.corpus import Corpus

    corpus = Corpus.at(path)
    if (into / "erased.json").exists():
        with write_whole(path / "erased.json") as out:
            out.write((into / "erased.json").read_bytes())
    return corpus


def card_of(into: Path) -> dict[str, Any] | None:
    """What an earlier run wrote of itself."""
    path = into / CARD
    return json.loads(path.read_text()) if path.exists() else None


def swap(work: Path, made: Path, into: Path) -> None:
    """Put the new corpus where the old one stood. Killed in between, `recover` ends it."""
    ready, old = work.with_suffix(".ready"), work.with_suffix(".old")
    made.rename(ready)
    if into.exists():
        into.rename(old)
    ready.rename(into)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)


def recover(into: Path, work: Path) -> None:
    """End a swap that was cut short: what is ready is whole and newer than what stands."""
    ready, old = work.with_suffix(".ready"), work.with_suffix(".old")
    if ready.exists():
        if into.exists() and not old.exists():
            into.rename(old)
        ready.rename(into)
    shutil.rmtree(old, ignore_errors=True)
