"""`fabrica demo` and `fabrica run JOB.toml`: the main job, from raw files to an evidence report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli._show import DryRun, Json, Seed, emit, progress, table
from fabrica.cli.ingest import size

Out = Annotated[Path, typer.Option("--out", help="Folder for the corpus, the model, the scores and the report.")]
Fetch = Annotated[bool, typer.Option("--fetch", help="Allow downloads through the package client.")]
Scratch = Annotated[bool, typer.Option("--from-scratch", help="Train the small preset without pretrained weights.")]
AllowLeak = Annotated[bool, typer.Option("--allow-leak", help="Score although train and test overlap; marked.")]
Memory = Annotated[str, typer.Option("--max-memory", help="Bound on what curation holds at once.")]


def demo(
    out: Out = Path("demo"), fetch: Fetch = False, from_scratch: Scratch = False, seed: Seed = 0,
    max_memory: Memory = "1GiB", dry_run: DryRun = False, json: Json = False,
) -> None:  # fmt: skip
    """Real chest X-rays and a synthetic hospital: ingest, curate, train, evaluate, one HTML report.

    Example: fabrica demo --fetch --out demo
    """
    run(
        Path(__file__).parents[1] / "job" / "demo.toml",
        out,
        fetch,
        from_scratch,
        False,
        seed,
        max_memory,
        dry_run,
        json,
    )


def run(
    job: Annotated[Path, typer.Argument(help="A job file (TOML); see docs/first-hour.md.")],
    out: Out, fetch: Fetch = False, from_scratch: Scratch = False, allow_leak: AllowLeak = False, seed: Seed = 0,
    max_memory: Memory = "1GiB", dry_run: DryRun = False, json: Json = False,
) -> None:  # fmt: skip
    """The main job on your own data, by a job file alone. Run it again: what is done is not done again.

    Example: fabrica run clinic.toml --out clinic
    """
    from fabrica import job as jobs

    spec = jobs.load(job)
    if dry_run:
        emit(asdict(spec), as_json=json, text=_plan(spec))
        return
    with progress(quiet=json) as bar:
        outcome = jobs.run(
            spec, out, fetch=fetch, from_scratch=from_scratch, allow_leak=allow_leak, seed=seed,
            max_memory=size(max_memory), progress=bar, base=job.resolve().parent,
            say=(lambda text: None) if json else (lambda text: typer.echo(text, err=True)),
        )  # fmt: skip
    data = {
        "report": str(outcome.report), "seconds": outcome.seconds, "notes": outcome.notes,
        "scores": [asdict(s) for s in outcome.scores],
    }  # fmt: skip
    rows = [
        (s.task, s.data, s.group or "all", s.arm, s.metric, f"{s.value:.3f}", f"[{s.low:.3f}, {s.high:.3f}]", s.n)
        for s in outcome.scores
        if not s.group
    ]
    text = table(("task", "data", "group", "arm", "metric", "value", "95 % interval", "n"), rows)
    notes = "".join(f"\nnote: {n}" for n in outcome.notes)
    emit(data, as_json=json, text=f"{text}{notes}\nreport: {outcome.report}")


def _plan(spec: object) -> str:
    from fabrica.job import Job

    assert isinstance(spec, Job)
    lines = [spec.title, ""]
    lines += [
        f"read      {s.name}: {s.path or s.catalogue or f'{s.phantom} synthetic images a modality'}"
        for s in spec.source
    ]
    lines += [f"caption   {c.modality}: {', '.join(c.labels)}" for c in spec.caption]
    lines += [f"split     {', '.join(f'{k} {v:.0%}' for k, v in spec.curate.split.items())} by subject"]
    lines += [f"train     {spec.train.system}, preset {spec.train.preset!r}"]
    lines += [f"evaluate  {t.name} ({t.kind})" for t in spec.task]
    return "\n".join(lines)
