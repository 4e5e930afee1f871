"""`fabrica diff A B`: what changed between two corpora, or two versions of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli._show import Json, emit, table


def diff(
    old: Annotated[Path, typer.Argument(help="A corpus, or corpus@VERSION.")],
    new: Annotated[Path, typer.Argument(help="Another corpus, or another version.")],
    json: Json = False,
) -> None:
    """Compare two corpora, or two versions of one.

    Records added, removed (with the reason of the newer one's ledger) and changed, by field.

    Example: fabrica diff corpus@1 corpus@2

    Example: fabrica diff corpus curated --json
    """
    from fabrica.corpus import diff as room

    found = room.diff(room.opened(old), room.opened(new))
    rows = [(what, which, n) for what, which, n in room.summary(found)]
    emit(found.to_json(), as_json=json, text=table(("records", "by", "count"), rows))
