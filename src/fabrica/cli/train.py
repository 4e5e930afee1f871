"""`fabrica train SYSTEM --data CORPUS --out MODEL`: the stages of a system; resumable."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli._show import DryRun, Json, Seed, emit, existing, progress


def train(
    system: Annotated[str, typer.Argument(help="A system that `fabrica systems` lists.")],
    data: Annotated[Path, typer.Option("--data", help="A curated corpus with a train split.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the model; checkpoints stand in OUT/train.")],
    preset: Annotated[str, typer.Option("--preset", help="A preset that `fabrica show` lists.")] = "tiny",
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Instead of the preset's.")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes that load records.")] = 0,
    seed: Seed = 0,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Train; killed at any step, the same command goes on from the last checkpoint. Works under torchrun.

    Example: fabrica train convirt --data corpus --out model --preset tiny
    """
    from dataclasses import replace

    from fabrica.corpus import Corpus
    from fabrica.errors import unknown
    from fabrica.models import Bundle
    from fabrica.systems import load_system
    from fabrica.train import estimate, fit

    corpus = Corpus.open(existing(data, "corpus"))
    plan = load_system(system)
    if preset not in plan.settings:
        raise unknown(f"preset of {system}", preset, plan.settings)
    settings = plan.settings[preset] if steps is None else replace(plan.settings[preset], steps=steps)
    bundle = plan.build(settings, corpus.scan("split = 'train'"))
    stages = plan.stages(settings, bundle)
    if dry_run:
        cost = estimate(bundle, stages, corpus, seed=seed, device=device)
        emit(asdict(cost), as_json=json, text=f"about {cost.minutes:.1f} min, {cost.memory_mib:.0f} MiB")
        return
    with progress(quiet=json) as bar:
        result = fit(bundle, stages, corpus, out / "train", seed=seed, device=device, workers=workers, progress=bar)
    card = bundle.card | {
        "settings": asdict(settings),
        "trained_on": corpus.split_hash("split = 'train'"),
        "seed": seed,
    }
    Bundle(bundle.model, bundle.collate, card).save_pretrained(out / "model", replace=True)
    summary = {
        "model": str(out / "model"),
        "steps": result.steps,
        "seconds": result.seconds,
        "loss": result.losses[-1:],
    }
    emit(summary, as_json=json, text=f"{result.steps} steps in {result.seconds:.1f} s; model: {out / 'model'}")
