"""`fabrica curate CORPUS RECIPE --into CORPUS`: captions, duplicates, split; every drop counted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli._show import DryRun, Json, emit, existing, progress, table
from fabrica.cli.ingest import size


def curate(
    corpus: Annotated[Path, typer.Argument(help="The corpus to read.")],
    recipe: Annotated[Path, typer.Argument(help="A job file whose [curate] and [[caption]] tables are followed.")],
    into: Annotated[Path, typer.Option("--into", help="The curated corpus, written whole.")],
    max_memory: Annotated[str, typer.Option("--max-memory", help="Bound on what is held at once.")] = "1GiB",
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Caption from labels, find duplicates, split by subject. Killed, it resumes; done, it does nothing.

    Example: fabrica curate corpus clinic.toml --into curated
    """
    from fabrica import curate as room
    from fabrica.corpus import Corpus
    from fabrica.curate.plan import signature
    from fabrica.job import load
    from fabrica.job.tasks import plan_of

    plan = plan_of(load(recipe))
    source = Corpus.open(existing(corpus, "corpus"))
    if dry_run:
        steps = [signature(part) for part in plan]
        data = {"records": len(source), "plan": steps}
        emit(data, as_json=json, text=f"{len(source)} records through " + ", ".join(s["name"] for s in steps))
        return
    with progress(quiet=json) as bar:
        report = room.run(plan, source, into, max_memory=size(max_memory), progress=bar)
    rows = [(step, reason, n) for step, reasons in report.dropped.items() for reason, n in reasons.items()]
    text = f"{report.kept} of {report.read} records kept in {into}, {report.seconds:.1f} s"
    emit(asdict(report), as_json=json, text=text + ("\n" + table(("step", "reason", "dropped"), rows) if rows else ""))
