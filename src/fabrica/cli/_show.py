"""What every verb prints with: JSON or a table, and a progress bar where there is a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from fabrica.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Stop after this many.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it costs, and leave.")]
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
    """A callable `(done, total, what)` that draws a bar on a terminal's stderr, or None where nobody watches."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), console=Console(stderr=True),
    )  # fmt: skip
    tasks: dict[str, Any] = {}

    def show(done: int, total: int | None, what: str) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)

    with bars:
        yield show


def existing(path: Path, what: str) -> Path:
    """The path, or an error that says what was wanted there."""
    if not path.exists():
        raise UsageError(f"{what}: nothing at {path}; give a path that exists")
    return path
