"""`fabrica train SYSTEM --data CORPUS --out MODEL`: the stages of a system; resumable."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli._show import DryRun, Few, Json, Seed, emit, existing, folder_for, limited, progress


def train(
    system: Annotated[str, typer.Argument(help="A system that `fabrica systems` lists.")],
    data: Annotated[Path, typer.Option("--data", help="A curated corpus with a train split.")],
    out: Annotated[Path, typer.Option("--out", help="Folder: the model in OUT/model, checkpoints in OUT/train.")],
    preset: Annotated[str, typer.Option("--preset", help="A preset that `fabrica show` lists.")] = "tiny",
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Instead of the preset's.")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes that load records.")] = 0,
    limit: Few = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Train a system on a corpus.

    Killed at any step, the same command goes on from the last checkpoint. Works under torchrun.

    Example: fabrica train convirt --data corpus --out model --preset tiny
    """
    from fabrica.corpus import Corpus
    from fabrica.errors import UsageError
    from fabrica.job.run import build
    from fabrica.job.spec import TrainSpec
    from fabrica.job.tasks import settings_of
    from fabrica.systems import load_system

    plan = load_system(system)
    settings = settings_of(TrainSpec(system, settings={} if steps is None else {"steps": steps}), plan, preset)
    corpus = Corpus.open(existing(data, "corpus"))
    folder_for(out, "--out")
    if not corpus.count("split = 'train'"):
        raise UsageError(f"the corpus {data} has no record in split 'train'; split it with: fabrica curate {data} ...")
    from fabrica.objectives.gather import rank
    from fabrica.train import estimate, fit

    bundle = build(plan, settings, corpus, seed)
    stages = [replace(s, where=limited(corpus, s.where, limit)) for s in plan.stages(settings, bundle)]
    if dry_run:
        cost = estimate(bundle, stages, corpus, seed=seed, device=device, workers=workers)
        memory, disk = cost.memory_bytes / 2**20, cost.disk_bytes / 2**20
        text = f"about {cost.minutes:.1f} min, {memory:.0f} MiB of memory, {disk:.0f} MiB of disk for checkpoints"
        emit(asdict(cost), as_json=json, text=text)
        return
    with progress(quiet=json) as bar:
        result = fit(bundle, stages, corpus, out / "train", seed=seed, device=device, workers=workers, progress=bar)
    if rank():  # one process of torchrun's writes and speaks
        return
    card = {"settings": asdict(settings), "trained_on": corpus.split_hash("split = 'train'"), "seed": seed}
    type(bundle)(bundle.model, bundle.collate, {**bundle.card, **card}).save_pretrained(out / "model", replace=True)
    summary = {
        "model": str(out / "model"), "steps": result.steps, "seconds": round(result.seconds, 1),
        "loss": result.losses[-1] if result.losses else None, "resumed_from": result.resumed_from,
    }  # fmt: skip
    text = f"{result.steps} steps in {result.seconds:.1f} s; model: {out / 'model'}"
    emit(summary, as_json=json, text=text)
