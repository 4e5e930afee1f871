"""`fabrica curate CORPUS RECIPE --into CORPUS`: captions, duplicates, split; every drop counted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fabrica.cli._show import DryRun, Few, Json, Memory, Seed, emit, existing, folder_for, progress, size, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fabrica.types import Step, Survey


def curate(
    corpus: Annotated[Path, typer.Argument(help="The corpus to read.")],
    recipe: Annotated[str, typer.Argument(help="A job file, or a system that makes a data set.")],
    into: Annotated[Path, typer.Option("--into", help="The curated corpus, written whole.")],
    preset: Annotated[str, typer.Option("--preset", help="Of a system: a preset that `fabrica show` lists.")] = "paper",
    runner: Annotated[str, typer.Option("--runner", help="local (this process), daft (this machine), ray.")] = "local",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes of daft or ray.")] = 2,
    max_bad: Annotated[
        float,
        typer.Option("--max-bad", min=0, max=1, help="Share of records that may go because a step failed."),
    ] = 0.01,
    limit: Few = None,
    max_memory: Memory = "1GiB",
    seed: Seed = 0,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Caption from labels, find duplicates, split by subject.

    Killed, the same command resumes; done, it does nothing. Every record that is left out is counted with its reason.

    A record on which a step fails is left out and named, up to --max-bad. The same plan runs on Daft's engine and on a
    Ray cluster (RAY_ADDRESS): the same records, bytes and ledger.

    Example: fabrica curate corpus clinic.toml --into curated

    Example: fabrica curate articles pmc_patients --into notes
    """
    from fabrica import curate as room
    from fabrica.corpus import Corpus
    from fabrica.curate.engine.cluster import RUNNERS
    from fabrica.curate.engine.plan import signature
    from fabrica.errors import UsageError, unknown
    from fabrica.job.cost import of_curate

    memory = size(max_memory)
    plan = _plan(recipe, preset, seed)
    source = Corpus.open(existing(corpus, "corpus"))
    folder_for(into, "--into")
    if not len(source):
        raise UsageError(f"the corpus {corpus} is empty; fill it with: fabrica ingest FILES --into {corpus}")
    if runner not in RUNNERS:
        raise unknown("runner", runner, RUNNERS)
    if dry_run:
        steps = [signature(part) for part in plan]
        number = min(len(source), limit or len(source))
        cost = of_curate(number, source.stats().bytes * number // len(source))
        data = {"records": number, "plan": steps, "cost": asdict(cost)}
        text = f"{number} records through " + ", ".join(s["name"] for s in steps)
        emit(data, as_json=json, text=f"{text}; {cost}")
        return
    with progress(quiet=json) as bar:
        report = room.run(
            plan, source, into, runner=runner, workers=workers, max_memory=memory, max_bad=max_bad, limit=limit,
            progress=bar,
        )  # fmt: skip
    rows = [(step, reason, n) for step, reasons in report.dropped.items() for reason, n in reasons.items()]
    text = f"{report.kept} of {report.read} records kept in {into}, {report.seconds:.1f} s"
    if report.failed:
        text += f"\n{report.failed} left out because a step failed on them; where stands in {into / 'ledger.parquet'}"
    emit(asdict(report), as_json=json, text=text + ("\n" + table(("step", "reason", "dropped"), rows) if rows else ""))


def _plan(recipe: str, preset: str, seed: int) -> Sequence[Step | Survey]:
    """The plan of a job file, or of a system by name."""
    from fabrica.errors import UsageError, unknown
    from fabrica.job import load
    from fabrica.job.tasks import plan_of
    from fabrica.systems import load_system, names

    if recipe not in names():
        if not Path(recipe).exists() and Path(recipe).suffix != ".toml":
            raise unknown("job file or system", recipe, names())
        return plan_of(load(Path(recipe)), seed)
    system = load_system(recipe)
    if system.plan is None:
        makers = [name for name in names() if load_system(name).plan is not None]
        raise UsageError(f"{recipe} makes no data set; these do: {', '.join(makers)}")
    if preset not in system.settings:
        raise unknown(f"preset of {recipe}", preset, system.settings)
    return system.plan(system.settings[preset])
