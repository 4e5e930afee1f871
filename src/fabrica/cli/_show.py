"""What every verb prints with: JSON or a table, and a progress bar where there is a terminal."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fabrica.errors import UsageError

if TYPE_CHECKING:
    from fabrica.corpus import Corpus
    from fabrica.types import Score

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text; of errors too.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many records of each source.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it costs, and leave.")]
Memory = Annotated[str, typer.Option("--max-memory", help="Bound on what is held at once, such as 4GiB.")]
Few = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many records, those of the lowest ids.")]
AllowLeak = Annotated[bool, typer.Option("--allow-leak", help="Score although train and test overlap; marked.")]
Progress = Callable[[int, int | None, str], None]


def emit(data: Any, *, as_json: bool, text: str) -> None:
    """Print `data` as JSON, or `text`."""
    typer.echo(json.dumps(data, default=str, ensure_ascii=False) if as_json else text)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns padded with spaces.

    >>> print(table(("name", "n"), [("a", 1)]))
    name  n
    a     1
    """
    lines = [tuple(str(c) for c in row) for row in rows]
    widths = [max(len(line[i]) for line in [tuple(columns), *lines]) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [tuple(columns), *lines]
    )


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Progress | None]:
    """A callable `(done, total, what)` that draws a bar on a terminal's stderr, or None where nobody watches.

    Bars that are full make way when the next one begins.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description:<28}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), console=Console(stderr=True),
    )  # fmt: skip
    tasks: dict[str, Any] = {}

    def show(done: int, total: int | None, what: str) -> None:
        if what not in tasks:
            for task in [t for t in bars.tasks if t.finished or t.total is None]:
                bars.remove_task(task.id)
                tasks.pop(task.description)
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)

    with bars:
        yield show


def limited(corpus: Corpus, where: str, limit: int | None) -> str:
    """`where` for the `limit` records of the lowest ids (which are hashes) that it takes; None = all."""
    ids = [] if limit is None else corpus.ids(where or None)
    if limit is None or len(ids) <= limit:
        return where
    few = "id <= '" + ids[limit - 1].replace("'", "''") + "'"
    return f"({where}) and {few}" if where else few


def existing(path: Path, what: str) -> Path:
    """The path, or an error that says what was wanted there."""
    if not path.exists():
        raise UsageError(f"{what}: nothing at {path}; give a path that exists")
    return path


def size(text: str) -> int:
    """Bytes of "512MiB", "4GiB", "2GB" or a plain number.

    >>> size("2GiB"), size("1000")
    (2147483648, 1000)
    """
    units = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].lower() not in units or float(found[1]) == 0:
        raise UsageError(f"size {text!r}; wanted a number over 0 with B, MB, GB, MiB or GiB, such as 4GiB")
    return int(float(found[1]) * units[found[2].lower()])


def folder_for(path: Path, option: str) -> Path:
    """A path that a folder may be written to, or an error before any work is done."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{option} {path} is a file; give a folder")
    above = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not above.is_dir():
        raise UsageError(f"{option} {path}: {above} is a file; give a folder that can be made")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {path}: {above} cannot be written; check its permissions, or give another folder")
    return path


def score_table(scores: Sequence[Score], unscored: Sequence[tuple[str, str]], *, whole: bool = False) -> str:
    """Scores as text: the leading metric of each task over all groups, or the `whole` card; then what has no score."""
    columns = ("task", "data", "group", "arm", "metric", "value", "95 % interval", "n")
    leading = {s.task: s.metric for s in reversed(scores)}
    rows = [
        (s.task, s.data, s.group or "all", s.arm, s.metric, f"{s.value:.3f}", f"[{s.low:.3f}, {s.high:.3f}]", s.n)
        for s in scores
        if whole or (not s.group and s.metric.removesuffix(" difference") == leading[s.task])
    ]
    return "\n".join([table(columns, rows), *(f"not scored: {task}: {why}" for task, why in unscored)])
