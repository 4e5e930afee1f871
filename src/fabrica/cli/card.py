"""`fabrica card CORPUS --out card.html`: the datasheet, every number counted from the records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli._show import Json, emit, existing


def card(
    corpus: Annotated[Path, typer.Argument(help="The corpus to describe.")],
    out: Annotated[Path | None, typer.Option("--out", help="The HTML file; without it, numbers alone.")] = None,
    title: Annotated[str, typer.Option("--title", help="Heading of the page; default: the folder's name.")] = "",
    said: Annotated[
        Path | None, typer.Option("--said", help="TOML with the author's answers: [motivation] purpose = '...'.")
    ] = None,
    pictures: Annotated[
        str, typer.Option("--pictures", help="permitted (may be passed on), in_house or none.")
    ] = "permitted",
    json: Json = False,
) -> None:
    """Write the datasheet of a corpus as one HTML file.

    Counts, drops by reason, origins and rights are counted from the records; what only the author can say is asked for.

    Example: fabrica card corpus --out card.html --said datasheet.toml
    """
    from fabrica.corpus import Corpus
    from fabrica.corpus import card as room
    from fabrica.corpus.numbers import numbers
    from fabrica.corpus.pages import share

    source = Corpus.open(existing(corpus, "corpus"))
    answers = {} if said is None else room.read_said(existing(said, "--said"))
    if out is None:
        found = numbers(source)
    else:
        found = room.write(source, out, title=title, said=answers, pictures=pictures)  # type: ignore[arg-type]
    made = share(found.by.get("model", 0), sum(found.by.values()))
    lines = [f"{found.records} records of {found.subjects} subjects; {made} of the items were made by a model"]
    lines += [f"{use}: yes for {audit.yes}" for use, audit in found.rights.items()]
    lines += [f"written to {out}"] if out is not None else []
    emit(found.to_json(), as_json=json, text="\n".join(lines))
