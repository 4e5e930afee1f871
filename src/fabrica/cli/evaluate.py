"""`fabrica evaluate MODEL --on JOB.toml --data CORPUS`: score cards with intervals, after the leak gate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli._show import Json, Seed, emit, existing, progress, table


def evaluate(
    model: Annotated[Path, typer.Argument(help="A folder that training wrote.")],
    suite: Annotated[Path, typer.Option("--on", help="A job file whose [[task]] tables are run.")],
    data: Annotated[Path, typer.Option("--data", help="The curated corpus.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for rows and cards.")],
    trained_on: Annotated[
        Path | None, typer.Option("--trained-on", help="Corpus of training; default: --data.")
    ] = None,
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Score although train and test overlap; marked.")
    ] = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Judge a model. Refuses where train and test share a subject, pixels or text.

    Example: fabrica evaluate model --on clinic.toml --data corpus --out eval
    """
    from fabrica import evaluate as room
    from fabrica.corpus import Corpus
    from fabrica.job import load
    from fabrica.job.tasks import tasks_of
    from fabrica.models import Bundle

    bundle = Bundle.from_pretrained(existing(model, "model"))
    corpus = Corpus.open(existing(data, "corpus"))
    train = corpus if trained_on is None else Corpus.open(existing(trained_on, "corpus"))
    with progress(quiet=json) as bar:
        scores = room.run(
            bundle, corpus, out, tasks=tasks_of(load(suite).task), seed=seed, allow_leak=allow_leak, trained_on=train,
            progress=bar,
        )  # fmt: skip
    rows = [
        (
            s.task,
            s.data,
            s.group or "all",
            s.arm,
            s.metric,
            f"{s.value:.3f}",
            f"[{s.low:.3f}, {s.high:.3f}]",
            s.n,
            s.note,
        )
        for s in scores
    ]
    columns = ("task", "data", "group", "arm", "metric", "value", "95 % interval", "n", "note")
    emit([asdict(s) for s in scores], as_json=json, text=table(columns, rows))
