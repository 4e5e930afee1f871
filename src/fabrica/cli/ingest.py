"""`fabrica ingest SOURCE... --into CORPUS`: any medical files to one corpus."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli._show import DryRun, Json, Limit, Memory, emit, folder_for, progress, size, table
from fabrica.errors import UsageError


def ingest(
    sources: Annotated[list[Path], typer.Argument(help="Files or folders.")],
    into: Annotated[Path, typer.Option("--into", help="The corpus, made if it is not there.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the source; default: the folder's name.")] = None,
    licence: Annotated[str, typer.Option("--licence", help="SPDX id or name of the terms, kept in every record.")] = "",
    column: Annotated[
        list[str] | None, typer.Option("--column", help="KEY=EXPRESSION of the column map, again for each.")
    ] = None,
    max_memory: Memory = "1GiB",
    limit: Limit = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Read medical files of any known kind into a corpus.

    Bad files are quarantined with a reason. Run it again: only what is new is read.

    Example: fabrica ingest scans/ --into corpus --licence CC-BY-4.0

    Example: fabrica ingest meta.csv --into corpus --column image=file --column "subject=patient"
    """
    columns = dict(_pair(text) for text in column or [])
    memory = size(max_memory)
    folder_for(into, "--into")
    found = _files(sources, name, columns)
    if dry_run:
        _dry_run(found, json)
        return
    from fabrica.corpus import Corpus
    from fabrica.corpus.ingest import ingest as run

    with progress(quiet=json) as bar:
        report = run(
            sources, Corpus.at(into), source=name, licence=licence, columns=columns or None, limit=limit,
            max_memory=memory, progress=bar,
        )  # fmt: skip
    text = f"{report.records} records into {into}, {report.skipped} already there, {report.seconds:.1f} s"
    if report.quarantined:
        text += "\nquarantined:\n" + table(("reason", "files"), sorted(report.quarantined.items()))
    emit(asdict(report), as_json=json, text=text)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(
            f'--column {text!r}; wanted KEY=EXPRESSION, such as image=file or "label:covid=finding == COVID"'
        )
    return key.strip(), value.strip()


def _files(sources: list[Path], name: str | None, columns: dict[str, str]) -> list[Path]:
    """Every file to read; an error for a path that is missing, unreadable or empty, before a corpus is made."""
    from fabrica.sources import columns as language
    from fabrica.sources import walk

    language.check(columns)
    found: list[Path] = []
    for path in sources:
        if not path.exists():
            raise UsageError(f"nothing at {path}; give a file or folder that exists")
        if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
            raise UsageError(f"{path} cannot be read; check its permissions")
        files = [ref.path for ref in walk(path, source=name or path.resolve().name, columns=columns)]
        if not files:
            raise UsageError(f"there are no files in {path}; give a folder that holds medical files")
        found += files
    return found


def _dry_run(files: list[Path], json: bool) -> None:
    from collections import Counter

    from fabrica.job.cost import of_ingest
    from fabrica.sources import sniff

    counts = Counter(sniff(path) or "unknown" for path in files)
    size = sum(path.stat().st_size for path in files)
    cost = of_ingest(len(files), size)
    data = {"files": dict(counts), "bytes": size, "cost": asdict(cost)}
    text = table(("format", "files"), sorted(counts.items())) + f"\n{size / 1e6:.1f} MB to read; {cost}"
    emit(data, as_json=json, text=text)
