"""`fabrica rights CORPUS --use USE`: may I? answered record by record; withdrawals and take-downs into a new corpus."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from fabrica.cli._show import Json, emit, existing, folder_for, progress, table


def rights(
    corpus: Annotated[Path, typer.Argument(help="The corpus to ask about.")],
    use: Annotated[
        str, typer.Option("--use", help="train_commercial, train_research, redistribute or share_ids.")
    ] = "train_commercial",
    where: Annotated[str | None, typer.Option("--where", help="SQL filter of the records.")] = None,
    each: Annotated[bool, typer.Option("--each", help="List every record with its answer and reason.")] = False,
    remove: Annotated[
        Path | None, typer.Option("--remove", help="List of subjects, patients, ids, keys or hashes to leave out.")
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", help="Why, for the ledger: consent_withdrawn or taken_down.")
    ] = "consent_withdrawn",
    into: Annotated[Path | None, typer.Option("--into", help="With --remove: the new corpus, written whole.")] = None,
    json: Json = False,
) -> None:
    """Answer what may be done with each record, and why not.

    Answers come from licence, consent and the source's terms; what is not known is a no. Not legal advice. With
    --remove the listed records, and what is made of them, are left out of a new corpus that has a ledger.

    Example: fabrica rights corpus --use train_commercial --each --json

    Example: fabrica rights corpus --remove withdrawn.tsv --into corpus-2
    """
    from fabrica.corpus import Corpus
    from fabrica.errors import UsageError

    source = Corpus.open(existing(corpus, "corpus"))
    if (remove is None) != (into is None):
        raise UsageError("--remove and --into go together: the list, and the corpus that is written without it")
    if remove is not None and into is not None:
        _remove(source, existing(remove, "--remove"), reason, into, json)
        return
    _answer(source, use, where, each, json)


def _answer(source: Any, use: str, where: str | None, each: bool, json: bool) -> None:
    from fabrica.corpus.rights import REASONS, USES, answers, audit
    from fabrica.errors import unknown

    if use not in USES:
        raise unknown("use", use, USES)
    rows: list[tuple[str, Any]] = []
    found = audit(_kept(answers(source, use, where), rows if each else None), use)
    data = asdict(found)
    if each:
        data["each"] = [{"id": i, "allowed": a.allowed, "reason": a.reason, "licence": a.licence} for i, a in rows]
    text = f"{use}: yes for {found.yes} of {found.records} records"
    if found.no:
        lines = sorted(found.no.items(), key=lambda pair: -pair[1])
        text += "\n" + table(("no", "records", "why"), [(code, n, REASONS[code]) for code, n in lines])
    if each:
        listed = [(i, "yes" if a.allowed else "no", a.reason, a.licence or "not said") for i, a in rows]
        text += "\n\n" + table(("record", "may", "reason", "licence"), listed)
    emit(data, as_json=json, text=text)


def _kept(found: Any, rows: list[tuple[str, Any]] | None) -> Any:
    """The answers; `rows` gets (id, answer)."""
    for record, answer in found:
        if rows is not None:
            rows.append((record.id, answer))
        yield answer


def _remove(source: Any, listed: Path, reason: str, into: Path, json: bool) -> None:
    from fabrica import curate
    from fabrica.curate.rights import Remove
    from fabrica.errors import unknown

    if reason not in ("consent_withdrawn", "taken_down"):
        raise unknown("reason", reason, ("consent_withdrawn", "taken_down"))
    folder_for(into, "--into")
    step = Remove.from_file(listed, reason=reason)  # type: ignore[arg-type]
    with progress(quiet=json) as bar:
        report = curate.run([step], source, into, progress=bar)
    rows = sorted(report.dropped["remove"].items())
    text = f"{report.kept} of {report.read} records kept in {into}; {len(step)} entries on the list"
    emit(asdict(report), as_json=json, text=text + ("\n" + table(("reason", "left out"), rows) if rows else ""))
