"""`fabrica curate CORPUS RECIPE --into CORPUS`: captions, duplicates, split; every drop counted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli._show import DryRun, Json, Memory, Seed, emit, existing, folder_for, progress, size, table


def curate(
    corpus: Annotated[Path, typer.Argument(help="The corpus to read.")],
    recipe: Annotated[Path, typer.Argument(help="A job file whose [curate] and [[caption]] tables are followed.")],
    into: Annotated[Path, typer.Option("--into", help="The curated corpus, written whole.")],
    max_memory: Memory = "1GiB",
    seed: Seed = 0,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Caption from labels, find duplicates, split by subject.

    Killed, the same command resumes; done, it does nothing. Every record that is left out is counted with its reason.

    Example: fabrica curate corpus clinic.toml --into curated
    """
    from fabrica import curate as room
    from fabrica.corpus import Corpus
    from fabrica.curate.plan import signature
    from fabrica.errors import UsageError
    from fabrica.job import load
    from fabrica.job.cost import of_curate
    from fabrica.job.tasks import plan_of

    memory = size(max_memory)
    plan = plan_of(load(recipe), seed)
    source = Corpus.open(existing(corpus, "corpus"))
    folder_for(into, "--into")
    if not len(source):
        raise UsageError(f"the corpus {corpus} is empty; fill it with: fabrica ingest FILES --into {corpus}")
    if dry_run:
        steps = [signature(part) for part in plan]
        cost = of_curate(len(source), source.stats().bytes)
        data = {"records": len(source), "plan": steps, "cost": asdict(cost)}
        text = f"{len(source)} records through " + ", ".join(s["name"] for s in steps)
        emit(data, as_json=json, text=f"{text}; {cost}")
        return
    with progress(quiet=json) as bar:
        report = room.run(plan, source, into, max_memory=memory, progress=bar)
    rows = [(step, reason, n) for step, reasons in report.dropped.items() for reason, n in reasons.items()]
    text = f"{report.kept} of {report.read} records kept in {into}, {report.seconds:.1f} s"
    emit(asdict(report), as_json=json, text=text + ("\n" + table(("step", "reason", "dropped"), rows) if rows else ""))
