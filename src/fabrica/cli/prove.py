"""`fabrica prove SYSTEM`: re-run a paper's headline claim."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli._show import DryRun, Json, emit, progress, table
from fabrica.errors import unknown


def prove(
    name: Annotated[str, typer.Argument(help="A system that `fabrica systems` lists.")],
    quick: Annotated[bool, typer.Option("--quick", help="Fewer seeds, at most a minute.")] = False,
    full: Annotated[bool, typer.Option("--full", help="The large experiment, meant for --device cuda.")] = False,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    workers: Annotated[int, typer.Option("--workers", min=0, help="Parts side by side; 0 = one a core.")] = 0,
    store: Annotated[Path | None, typer.Option("--store", help="Folder to write NAME.json to.")] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Re-run a paper's headline claim and print shown or not shown.

    Example: fabrica prove symile --quick
    """
    from fabrica import proofs
    from fabrica.systems import headline

    if name not in proofs.names():
        raise unknown("proof", name, proofs.names())
    if dry_run:
        minutes = "at most 1 minute" if quick else "as long as a GPU takes" if full else "at most 5 minutes"
        claim = headline(name).claim
        text = f"{claim}\nThe claim's arms, each against its baseline at equal budget: {minutes} on 2 idle cores, 2 GiB"
        emit({"name": name, "claim": claim, "cost": minutes}, as_json=json, text=text)
        return
    with progress(quiet=json) as bar:
        plan = proofs.Plan(quick=quick, full=full, device=device, workers=workers, progress=bar)
        proof = proofs.prove(name, plan)
    data = proofs.to_json(proof, plan)
    if store is not None:
        proofs.store(proof, plan, store)
    arms = [(a, f"{sum(v) / len(v):.3f}", " ".join(f"{x:.3f}" for x in v)) for a, v in proof.arms.items()]
    bars = [
        (f"{c.name}: {c.bar}", f"{c.effect:.3f}", "[{:.3f}, {:.3f}]".format(*c.interval), "yes" if c.shown else "NO")
        for c in (*proof.claims, *proof.controls)
    ]
    text = f"{proof.name}: {proof.claim}\ndata: {proof.data}; metric: {proof.metric}; seeds: {len(proof.seeds)}\n\n"
    text += table(("arm", "mean", "by seed"), arms) + "\n\n" + table(("bar", "effect", "95 % interval", "shown"), bars)
    emit(data, as_json=json, text=f"{text}\n\n{proof.notes}\nverdict: {proof.verdict} ({proof.seconds:.0f} s)")
