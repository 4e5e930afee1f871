"""`fabrica show SYSTEM`: what a system claims, reads, minimises and departs in."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Annotated, Any

import typer

from fabrica.cli._show import Json, emit


def show(name: Annotated[str, typer.Argument(help="A name that `fabrica systems` lists.")], json: Json = False) -> None:
    """Explain one system: claim, inputs, presets, departures.

    Example: fabrica show convirt
    """
    from fabrica.systems import load_system

    system = load_system(name)
    presets = {k: asdict(v) if is_dataclass(v) and not isinstance(v, type) else v for k, v in system.settings.items()}
    data: dict[str, Any] = {
        "name": name, "seed": system.seed, "title": system.title, "paper": system.paper, "claim": system.claim,
        "departs": system.departs, "reads": {k: list(v) for k, v in system.reads.items()}, "presets": presets,
        "tasks": list(system.tasks),
    }  # fmt: skip
    lines = [
        f"{system.seed} {system.title}",
        system.paper,
        "",
        f"Claim    {system.claim}",
        f"Departs  {system.departs}",
        "",
    ]
    lines += [f"Reads    {field}: {', '.join(roles)}" for field, roles in data["reads"].items()]
    for preset, values in presets.items():
        lines += ["", f"Preset {preset!r}", *(f"  {k} = {v!r}" for k, v in dict(values).items())]
    lines += ["", f"Prove it: fabrica prove {name}"]
    emit(data, as_json=json, text="\n".join(lines))
