"""`fabrica demo` and `fabrica run JOB.toml`: the main job, from raw files to an evidence report."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fabrica.cli._show import (
    AllowLeak,
    DryRun,
    Json,
    Limit,
    Memory,
    Seed,
    emit,
    folder_for,
    progress,
    score_table,
    size,
    table,
)  # fmt: skip

if TYPE_CHECKING:
    from fabrica.job import Job

DEMO = Path(__file__).parents[1] / "job" / "demo.toml"
Out = Annotated[Path, typer.Option("--out", help="Folder for the corpus, the model, the scores and the report.")]
Fetch = Annotated[bool, typer.Option("--fetch", help="Allow downloads through the package client.")]
Root = Annotated[Path | None, typer.Option("--root", help="Where the job's relative paths start; default: its folder.")]
Scratch = Annotated[bool, typer.Option("--from-scratch", help="Train the preset that needs no pretrained weights.")]


def demo(
    out: Out = Path("demo"), fetch: Fetch = False, from_scratch: Scratch = False, limit: Limit = None, seed: Seed = 0,
    max_memory: Memory = "1GiB", dry_run: DryRun = False, json: Json = False,
) -> None:  # fmt: skip
    """Real chest X-rays and a synthetic hospital: the main job.

    Ingest, curate, train, evaluate, one HTML report. Run it again: what is done is not done again.

    Example: fabrica demo --fetch --out demo
    """
    run(
        DEMO, out, fetch=fetch, from_scratch=from_scratch, limit=limit, seed=seed, max_memory=max_memory,
        dry_run=dry_run, json=json,
    )  # fmt: skip


def run(
    job: Annotated[Path, typer.Argument(help="A job file (TOML); see docs/first-hour.md.")],
    out: Out, root: Root = None, fetch: Fetch = False, from_scratch: Scratch = False, allow_leak: AllowLeak = False,
    limit: Limit = None, seed: Seed = 0, max_memory: Memory = "1GiB", dry_run: DryRun = False, json: Json = False,
) -> None:  # fmt: skip
    """The main job on your own data, by a job file alone.

    Ingest, curate, train, evaluate, one HTML report. Run it again: what is done is not done again.

    Example: fabrica run clinic.toml --out clinic
    """
    from fabrica import job as jobs

    spec, base, memory = jobs.load(job), root or job.resolve().parent, size(max_memory)
    folder_for(out, "--out")
    if limit is not None:
        spec = _limited(spec, limit)
    if dry_run:
        _dry_run(spec, base, out, from_scratch, json)
        return
    with progress(quiet=json) as bar:
        outcome = jobs.run(
            spec, out, fetch=fetch, from_scratch=from_scratch, allow_leak=allow_leak, seed=seed, max_memory=memory,
            progress=bar, base=base, say=(lambda text: None) if json else (lambda text: typer.echo(text, err=True)),
        )  # fmt: skip
    data = {
        "report": str(outcome.report), "seconds": outcome.seconds, "notes": outcome.notes,
        "unscored": [{"task": task, "why": why} for task, why in outcome.unscored],
        "scores": [asdict(s) for s in outcome.scores],
    }  # fmt: skip
    notes = "".join(f"\nnote: {n}" for n in outcome.notes)
    text = f"{score_table(outcome.scores, outcome.unscored)}{notes}\nThe report is {outcome.report.resolve()}"
    emit(data, as_json=json, text=text)


def _limited(spec: Job, limit: int) -> Job:
    sources = tuple(
        replace(s, limit=min(limit, s.limit or limit), phantom=min(s.phantom, limit) if s.phantom else 0)
        for s in spec.source
    )
    return replace(spec, source=sources)


def _dry_run(spec: Job, base: Path, out: Path, from_scratch: bool, json: bool) -> None:
    from fabrica.job import cost
    from fabrica.job.tasks import check

    check(spec, base)
    costs = cost.forecast(spec, base, from_scratch=from_scratch)
    total = cost.total(costs)
    data = {"job": asdict(spec), "cost": {n: asdict(c) for n, c in costs.items()}, "total": asdict(total)}
    rows = [(n, f"{c.minutes:.1f}", f"{c.memory_mib:.0f}", f"{c.disk_mib:.0f}") for n, c in costs.items()]
    lines = [_plan(spec), "", table(("stage", "minutes", "memory MiB", "disk MiB"), rows)]
    lines += [
        "",
        f"predicted for 2 cores, a rough guess: {total}",
        f"the report would be {out.resolve() / 'report.html'}",
    ]
    emit(data, as_json=json, text="\n".join(lines))


def _plan(spec: Job) -> str:
    def whence(s: object) -> str:
        path, catalogue, phantom = (getattr(s, k) for k in ("path", "catalogue", "phantom"))
        return path or (f"catalogue {catalogue}" if catalogue else f"{phantom} synthetic patients a modality")

    lines = [spec.title, ""]
    lines += [f"read      {s.name}: {whence(s)}" + (", if in reach" if s.optional else "") for s in spec.source]
    lines += [f"caption   {c.modality}: {', '.join(c.labels)}" for c in spec.caption]
    lines += [f"split     {', '.join(f'{k} {v:.0%}' for k, v in spec.curate.split.items())} by subject"]
    lines += [f"train     {spec.train.system}, preset {spec.train.preset!r}"]
    lines += [f"evaluate  {t.name} ({t.kind})" for t in spec.task]
    return "\n".join(lines)
