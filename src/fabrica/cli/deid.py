"""`fabrica deid SOURCE --into FOLDER --key FILE`: medical files without identifiers; `--audit` counts what is left."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fabrica.cli._show import DryRun, Json, emit, existing, folder_for, progress, table
from fabrica.errors import UsageError, unknown

if TYPE_CHECKING:
    from fabrica.curate.deid.audit import Audit

_OPTIONS = ("uids", "device", "institution", "patient", "full_dates", "modified_dates", "descriptors", "structured")


def deid(
    source: Annotated[Path | None, typer.Argument(help="A file or folder; not needed with --audit.")] = None,
    into: Annotated[Path | None, typer.Option("--into", help="A new folder, written whole or not at all.")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Secret key file (mode 0600); keep it apart.")] = None,
    new_key: Annotated[bool, typer.Option("--new-key", help="Make the key file first.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="Name of the data set, as for ingest.")] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", help="Pattern whose first group in a path is the patient.")
    ] = None,
    retain: Annotated[
        list[str] | None, typer.Option("--retain", help="Option of PS3.15 to switch on; again for each.")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option("--drop", help="Option of PS3.15 to switch off; again for each.")
    ] = None,
    burned_in: Annotated[
        str, typer.Option("--burned-in", help="refuse | mask | ocr: what becomes of text in pictures.")
    ] = "refuse",
    listing: Annotated[
        Path | None, typer.Option("--list", help="Write the paths of what was left out to this file (mode 0600).")
    ] = None,
    audit: Annotated[bool, typer.Option("--audit", help="Plant identifiers in invented files, and count.")] = False,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds of the audit.")] = 3,
    patients: Annotated[int, typer.Option("--patients", min=1, help="Invented patients of each seed.")] = 20,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Remove identifiers from DICOM, reports, tables, signals, pictures.

    DICOM follows PS3.15 Annex E. Dates move by whole days, the same for all files of a patient; UIDs are mapped by the
    key. Options on by default: patient, modified_dates, descriptors, structured. What no rule covers is left out.

    Example: fabrica deid scans/ --into clean --key study.key --new-key

    Example: fabrica deid --audit --seeds 3
    """
    from fabrica.curate.deid.dicom_table import Options

    for option in [*(retain or []), *(drop or [])]:
        if option not in _OPTIONS:
            raise unknown("option of the profile", option, _OPTIONS)
    if burned_in not in ("refuse", "mask", "ocr"):
        raise unknown("way with burned-in text", burned_in, ("refuse", "mask", "ocr"))
    said: dict[str, bool] = {**dict.fromkeys(retain or [], True), **dict.fromkeys(drop or [], False)}
    options = Options(**said, pixels=burned_in != "refuse")
    if audit:
        _audit(options, seeds, patients, burned_in == "ocr", json)
        return
    if source is None or into is None or key is None:
        raise UsageError("wanted SOURCE, --into FOLDER and --key FILE; or --audit to measure on invented files")
    existing(source, "source")
    folder_for(into, "--into")
    if dry_run:
        _dry_run(source, json)
        return
    from fabrica.curate.deid.files import deidentify_files
    from fabrica.curate.deid.key import Key

    secret = Key.create(key) if new_key else Key.load(key)
    with progress(quiet=json) as bar:
        report = deidentify_files(
            source, into, secret, options=options, name=name, subject=subject, reader=_reader(burned_in == "ocr"),
            listing=listing, progress=bar,
        )  # fmt: skip
    done = sum(report.written.values())
    text = f"{done} of {report.files} files of {report.subjects} subjects into {into}, {report.seconds:.1f} s"
    if report.quarantined:
        text += "\nleft out:\n" + table(("reason", "files"), sorted(report.quarantined.items()))
    emit(asdict(report), as_json=json, text=text)


def _reader(wanted: bool) -> Any:
    if not wanted:
        return None
    from fabrica.curate.deid.pixels import OcrReader

    return OcrReader()


def _dry_run(source: Path, json: bool) -> None:
    from collections import Counter

    from fabrica.sources import sniff, walk

    counts = Counter(sniff(ref.path) or "no rule" for ref in walk(source, source="deid"))
    emit({"files": dict(counts)}, as_json=json, text=table(("format", "files"), sorted(counts.items())))


def _audit(options: Any, seeds: int, patients: int, ocr: bool, json: bool) -> None:
    from fabrica.curate.deid.audit import audit

    found = audit(range(seeds), patients=patients, options=options, reader=_reader(ocr))
    emit({**asdict(found), "met": found.met}, as_json=json, text=_shown(found))


def _shown(found: Audit) -> str:
    from fabrica.curate.deid.audit import interval

    rows = [
        (c.name, c.planted, c.left, c.withheld, *_share(c.recall, c.low, c.high), f"{c.bar:g}",
         "met" if c.met else "not met")
        for c in (*found.channels, found.unseen)
    ]  # fmt: skip
    head = ("channel", "planted", "left", "withheld", "recall", "95 % interval", "bar", "")
    share = f"{found.lost} of {found.terms} clinical terms changed ({100 * found.false_positives:.2f} %; bar 1 %)"
    verdict = "every bar is met" if found.met else "a bar is not met"
    kinds = [
        (kind, n, left, *_share(1 - left / n, *interval(n - left, n))) for kind, (n, left) in found.unseen.kinds.items()
    ]
    return "\n".join(
        (
            table(head, rows), share,
            f"{verdict} ({found.unseen.name} apart); synthetic files, seeds {found.seeds[0]}-{found.seeds[-1]}",
            f"{found.unseen.name}: free text in words and names that the rules were not made with",
            table(("kind", "planted", "left", "recall", "95 % interval"), kinds),
        )
    )  # fmt: skip


def _share(value: float, low: float, high: float) -> tuple[str, str]:
    return f"{value:.4f}", f"[{low:.4f}, {high:.4f}]"
