"""`fabrica systems`: what is here."""

from __future__ import annotations

from dataclasses import asdict

from fabrica.cli._show import Json, emit, table


def systems(json: Json = False) -> None:
    """List the published systems that are here, without importing any.

    Example: fabrica systems
    """
    from fabrica.systems import headline, names

    rows = [headline(name) for name in names()]
    emit(
        [asdict(r) for r in rows],
        as_json=json,
        text=table(("name", "seed", "title"), [(r.name, r.seed, r.title) for r in rows]),
    )
