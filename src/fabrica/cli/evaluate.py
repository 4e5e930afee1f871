"""`fabrica evaluate MODEL --on JOB.toml --data CORPUS`: score cards with intervals, after the leak gate."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli._show import (
    AllowLeak,
    DryRun,
    Few,
    Json,
    Seed,
    emit,
    existing,
    folder_for,
    limited,
    progress,
    score_table,
    table,
)  # fmt: skip


def evaluate(
    model: Annotated[Path, typer.Argument(help="A folder that training wrote.")],
    suite: Annotated[Path, typer.Option("--on", help="A job file whose [[task]] tables are run.")],
    data: Annotated[Path, typer.Option("--data", help="The curated corpus.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for rows and cards.")],
    trained_on: Annotated[
        Path | None, typer.Option("--trained-on", help="The corpus that the model was trained on; default: --data.")
    ] = None,
    allow_leak: AllowLeak = False,
    limit: Few = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Judge a model: score cards with intervals.

    Refuses where train and test share a subject, pixels or text. A fusion of several kinds of data also gets its table
    of any subset: the score as each kind is missing, at random or not.

    Example: fabrica evaluate model --on clinic.toml --data corpus --out eval
    """
    from fabrica.corpus import Corpus
    from fabrica.errors import UsageError
    from fabrica.job import load
    from fabrica.job.cost import of_evaluate
    from fabrica.job.tasks import check_labels, tasks_of

    job = load(suite)
    if not job.task:
        raise UsageError(f"{suite} has no [[task]]; give at least one, with kind, name and labels")
    tasks = tasks_of(job.task)
    existing(model, "model")
    if not (model / "config.json").is_file():
        raise UsageError(f"{model} is no model folder (no config.json); give one that fabrica train or run wrote")
    corpus = Corpus.open(existing(data, "corpus"))
    train = corpus if trained_on is None else Corpus.open(existing(trained_on, "corpus"))
    folder_for(out, "--out")
    check_labels(job, corpus)
    tasks = [replace(t, where=limited(corpus, t.where, limit)) for t in tasks]
    if dry_run:
        counts = [(t.name, corpus.count(t.where), corpus.count(t.fitted_on) if t.fitted_on else 0) for t in tasks]
        cost = of_evaluate(len(set().union(*(corpus.ids(w) for t in tasks for w in (t.where, t.fitted_on) if w))))
        columns = ("task", "judged", "learned from")
        rows = [dict(zip(columns, row, strict=True)) for row in counts]
        emit({"tasks": rows, "cost": asdict(cost)}, as_json=json, text=f"{table(columns, counts)}\n{cost}")
        return
    from fabrica import evaluate as room
    from fabrica.evaluate import cards
    from fabrica.evaluate.any_subset import with_subsets
    from fabrica.models.load import load as load_model

    bundle = load_model(model)
    tasks = with_subsets(tasks, bundle)
    with progress(quiet=json) as bar:
        scores = room.run(
            bundle, corpus, out, tasks=tasks, seed=seed, allow_leak=allow_leak, trained_on=train, progress=bar
        )
    unscored = [asdict(u) for u in cards.read(out).unscored]
    text = score_table(scores, [(u["task"], u["why"]) for u in unscored], whole=True)
    emit({"scores": [asdict(s) for s in scores], "unscored": unscored}, as_json=json, text=text)
