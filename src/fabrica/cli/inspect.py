"""`fabrica inspect CORPUS ID --out record.html`: one record as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli._show import Json, emit, existing


def inspect(
    corpus: Annotated[Path, typer.Argument(help="The corpus.")],
    record: Annotated[str, typer.Argument(help="The id of a record.")],
    out: Annotated[Path, typer.Option("--out", help="The HTML file.")] = Path("record.html"),
    json: Json = False,
) -> None:
    """Show one record as an HTML page.

    Pictures with window and level, text with its spans, signals, provenance, relations, duplicates, split, rights.

    Example: fabrica inspect corpus 015d6355f7e0e8d63cdea69a --out record.html
    """
    from fabrica.corpus import Corpus, record_page

    found = record_page.write(Corpus.open(existing(corpus, "corpus")), record, out)
    roles = {role: len(items) for role, items in found.items.items()}
    data = {
        "id": found.id, "subject": found.subject, "split": found.split, "items": roles, "regions": len(found.regions),
        "out": str(out),
    }  # fmt: skip
    emit(data, as_json=json, text=f"{found.id}: {', '.join(roles) or 'no items'}; written to {out}")
