"""`fabrica ingest SOURCE... --into CORPUS`: any medical files to one corpus."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli._show import DryRun, Json, Limit, emit, progress, table
from fabrica.errors import UsageError


def ingest(
    sources: Annotated[list[Path], typer.Argument(help="Files or folders.")],
    into: Annotated[Path, typer.Option("--into", help="The corpus, made if it is not there.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the source; default: the folder's name.")] = None,
    licence: Annotated[str, typer.Option("--licence", help="SPDX id or name of the terms, kept in every record.")] = "",
    column: Annotated[
        list[str] | None, typer.Option("--column", help="KEY=EXPRESSION of the column map, again for each.")
    ] = None,
    max_memory: Annotated[str, typer.Option("--max-memory", help="Bound on what is held at once.")] = "1GiB",
    limit: Limit = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Read files of any known kind; bad files are quarantined with a reason. Run it again: only what is new is read.

    Example: fabrica ingest scans/ --into corpus --licence CC-BY-4.0

    Example: fabrica ingest meta.csv --into corpus --column image=file --column "subject=patient"
    """
    columns = dict(_pair(text) for text in column or [])
    if dry_run:
        _dry_run(sources, name, columns, json)
        return
    from fabrica.corpus import Corpus
    from fabrica.corpus.ingest import ingest as run

    _check(sources)
    with progress(quiet=json) as bar:
        report = run(
            sources, Corpus.at(into), source=name, licence=licence, columns=columns or None, limit=limit,
            max_memory=size(max_memory), progress=bar,
        )  # fmt: skip
    text = f"{report.records} records into {into}, {report.skipped} already there, {report.seconds:.1f} s"
    if report.quarantined:
        text += "\nquarantined:\n" + table(("reason", "files"), sorted(report.quarantined.items()))
    emit(asdict(report), as_json=json, text=text)


def size(text: str) -> int:
    """Bytes of "512MiB", "4GiB", "2GB" or a plain number.

    >>> size("2GiB"), size("1000")
    (2147483648, 1000)
    """
    units = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    number = text.strip().rstrip("BbIiKkMmGg ")
    unit = text.strip()[len(number) :].strip().lower()
    if unit not in units or not number.replace(".", "", 1).isdigit():
        raise UsageError(f"size {text!r}; wanted a number with B, MB, GB, MiB or GiB, such as 4GiB")
    return int(float(number) * units[unit])


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(
            f'--column {text!r}; wanted KEY=EXPRESSION, such as image=file or "label:covid=finding == COVID"'
        )
    return key.strip(), value.strip()


def _check(sources: list[Path]) -> None:
    for path in sources:
        if not path.exists():
            raise UsageError(f"nothing at {path}; give a file or folder that exists")


def _dry_run(sources: list[Path], name: str | None, columns: dict[str, str], json: bool) -> None:
    from collections import Counter

    from fabrica.sources import sniff, walk

    _check(sources)
    counts: Counter[str] = Counter()
    total = 0
    for path in sources:
        for ref in walk(path, source=name or path.name, columns=columns):
            counts[sniff(ref.path) or "unknown"] += 1
            total += ref.path.stat().st_size
    data = {"files": dict(counts), "bytes": total}
    emit(
        data, as_json=json, text=table(("format", "files"), sorted(counts.items())) + f"\n{total / 1e6:.1f} MB to read"
    )
