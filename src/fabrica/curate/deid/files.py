"""A folder of medical files -> the same without identifiers: every format by its own rule, and none without one.

Two passes: names and numbers of structured fields first, so that reports lose them too; then each file is rewritten
under a pseudonym, whole, or left out with a reason code. What no rule covers is left out.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fabrica import safe
from fabrica.curate.deid import headers
from fabrica.curate.deid.cells import Cells, clean_row, json_value, kind_of, subject_column
from fabrica.curate.deid.dicom import deidentify
from fabrica.curate.deid.dicom_table import EDITION, Options
from fabrica.curate.deid.gather import Gathered, batches, rows
from fabrica.curate.deid.key import Key
from fabrica.curate.deid.pixels import TextReader
from fabrica.errors import Refused, UsageError
from fabrica.safe import LIMITS, Limits
from fabrica.sources import DECODER_ERRORS, Ref, sniff, suffix, walk
from fabrica.sources.rows import decode
from fabrica.sources.single import hashed
from fabrica.text.identifiers import VERSION, Known

Progress = Callable[[int, int | None, str], None]
_WFDB_DATA = frozenset((".dat", ".mat", ".d16", ".flac"))


@dataclass(frozen=True, slots=True)
class DeidReport:
    """What came of a run: files `written` by format, files left out by reason, boxes of burned-in text `masked`, what
    rules were used (`edition` of PS3.15, `rules` of free text, `options`), whose key (`fingerprint`)."""

    files: int
    written: Mapping[str, int]
    quarantined: Mapping[str, int]
    subjects: int
    masked: int
    edition: str
    rules: str
    options: tuple[str, ...]
    fingerprint: str
    seconds: float
    bytes: int


@dataclass(slots=True)
class _Out:
    """A rewritten file: its bytes by suffix beside each other ("" = the file itself), whose it is."""

    data: bytes
    subject: str
    suffix: str
    masked: int = 0
    beside: tuple[tuple[str, bytes], ...] = ()  # (name, bytes)


def deidentify_files(
    source: str | Path, into: str | Path, key: Key, *, options: Options | None = None, name: str | None = None,
    subject: str | None = None, reader: TextReader | None = None, listing: str | Path | None = None,
    limits: Limits = LIMITS, progress: Progress | None = None,
) -> DeidReport:  # fmt: skip
    """De-identify `source` (a file or folder) into the new folder `into`, which appears complete or not at all.

    Files go to `into/SUBJECT/NAME.suffix`, both pseudonyms; `report.json` and `quarantine.csv` (pseudonyms and reason
    codes) stand beside. `name` is the data set's name (default: the folder's), `subject` a pattern whose first group
    in a file's path says whose it is, where the file itself does not. `listing`: a file, readable by its owner alone,
    that gets the paths of what was left out. `UsageError` where `into` lies inside `source`.
    """
    began = time.monotonic()
    root, target = Path(source), Path(into)
    if root.is_dir() and target.resolve().is_relative_to(root.resolve()):
        raise UsageError("the output folder lies inside the source; its files would be read again")
    run = _Run(key, options or Options(), name or root.resolve().name, subject, reader, limits)
    refs = list(walk(root, source=run.source))
    if not refs:
        raise UsageError(f"there are no files in {root}; give a folder that holds medical files")
    for done, ref in enumerate(refs):
        if progress is not None:
            progress(done, len(refs), "gathering names")
        run.found.gather(ref)
    run.known = Known(run.found.values)
    bad: list[tuple[str, str, str]] = []
    with safe.folder_whole(target) as folder:
        for done, ref in enumerate(refs):
            if progress is not None:
                progress(done, len(refs), "rewriting files")
            run.file(ref, folder, bad)
        report = run.report(len(refs), bad, time.monotonic() - began)
        (folder / "report.json").write_text(json.dumps(asdict(report), indent=1) + "\n")
        left = sorted((key.pseudonym("file", k), code) for k, code, _ in bad)
        (folder / "quarantine.csv").write_text("file,reason\n" + "".join(f"{a},{b}\n" for a, b in left))
    if progress is not None:
        progress(len(refs), len(refs), "rewriting files")
    if listing is not None:
        _list(Path(listing), bad)
    return report


def _list(path: Path, bad: list[tuple[str, str, str]]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", newline="") as out:
        csv.writer(out).writerows([("path", "reason", "why"), *bad])


class _Run:
    """One run under way."""

    def __init__(
        self, key: Key, options: Options, source: str, subject: str | None, reader: TextReader | None, limits: Limits
    ) -> None:
        try:
            self.pattern = re.compile(subject) if subject else None
        except re.error as error:
            raise UsageError(f"the subject pattern is no regular expression: {error}") from error
        if self.pattern is not None and self.pattern.groups < 1:
            raise UsageError("the subject pattern needs a group, such as 'patient_(\\d+)'")
        self.key, self.options, self.source, self.reader, self.limits = key, options, source, reader, limits
        self.found, self.known = Gathered(source, self.pattern, limits), Known(())
        self.written: Counter[str] = Counter()
        self.subjects: set[str] = set()
        self.masked = self.bytes = 0

    # ------------------------------------------------------------ pass two

    def file(self, ref: Ref, folder: Path, bad: list[tuple[str, str, str]]) -> None:
        """Rewrite one file into the folder, or note why not."""
        try:
            kind = _kind(ref)
            out = self._clean(kind, ref)
        except Refused as error:
            bad.append((ref.key, error.code, str(error)))
            return
        except DECODER_ERRORS as error:
            bad.append((ref.key, "undecodable", f"the file cannot be read ({type(error).__name__})"))
            return
        where = folder / self.key.pseudonym("subject", out.subject)
        where.mkdir(exist_ok=True)
        base = self.key.pseudonym("file", ref.key)
        for name, data in ((base + out.suffix, out.data), *out.beside):
            with safe.write_whole(where / name) as handle:
                handle.write(data)
            self.bytes += len(data)
        self.written[kind] += 1
        self.subjects.add(out.subject)
        self.masked += out.masked

    def _clean(self, kind: str, ref: Ref) -> _Out:
        data = safe.read_bytes(ref.path, self.limits)
        if kind == "dicom":
            got = deidentify(
                data, self.key, self.options, source=self.source, known=self.known, reader=self.reader,
                limits=self.limits,
            )  # fmt: skip
            return _Out(got.data, got.subject, ".dcm", got.masked)
        rule: Callable[[Ref, bytes], _Out] | None = getattr(self, f"_{kind}", None)
        if rule is None:
            raise Refused("no_rule", f"there is no rule that cleans a {kind} file")
        return rule(ref, data)

    def _who(self, ref: Ref, text: str = "") -> str:
        """Whose file this is: the pattern's group in the path, a known patient's identifier in the text or the path."""
        if self.pattern is not None and (m := self.pattern.search(ref.key)) and m[1]:
            return hashed("subject", self.source, m[1])
        found = {self.found.patients[w] for w in _words(text) if w in self.found.patients}
        if len(found) == 1:
            return found.pop()
        parts = [*_words(ref.key.replace("/", " ")), *re.split(r"[/_. -]", ref.key.lower())]
        found = {self.found.patients[p] for p in parts if p in self.found.patients}
        return found.pop() if len(found) == 1 else hashed("subject", self.source, f"file:{ref.key}")

    def _cells(self, subject: str) -> Cells:
        return Cells(self.key, self.key.days(subject), self.key.pseudonym("subject", subject), self.known)

    def _text(self, ref: Ref, data: bytes) -> _Out:
        text = decode(data)
        who = self._who(ref, text)
        return _Out(self._cells(who).text(text).encode(), who, ".txt")

    def _json(self, ref: Ref, data: bytes) -> _Out:
        if len(data) > 64 << 20:
            raise Refused("file_too_large", "a JSON document over 64 MiB is not read whole")
        try:
            value = json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise Refused("json", f"the file is no JSON ({type(error).__name__})") from error
        who = self._who(ref, data.decode("utf-8-sig"))
        if isinstance(value, dict) and (raw := next((value[k] for k in value if kind_of(k) == "subject"), None)):
            who = hashed("subject", self.source, str(raw))
        return _Out(
            json.dumps(json_value(self._cells(who), value), ensure_ascii=False, indent=1).encode(), who, ".json"
        )

    def _table(self, ref: Ref, data: bytes) -> _Out:
        end = suffix(ref.path)
        if end in (".parquet", ".pq"):
            return self._parquet(ref)
        if end not in (".csv", ".tsv", ".jsonl", ".ndjson"):
            raise Refused("no_rule", f"there is no rule that cleans a table in {end or 'this form'}")
        out = io.StringIO()
        whose = self._who(ref)
        if end in (".jsonl", ".ndjson"):
            for row in rows(ref.path, self.limits):
                out.write(json.dumps(json_value(self._choose(row, whose), row), ensure_ascii=False) + "\n")
        else:
            writer: csv.DictWriter[str] | None = None
            for row in rows(ref.path, self.limits):
                if writer is None:
                    names = {c: self._cells(whose).text(c) for c in row}
                    writer = csv.DictWriter(
                        out, list(row), delimiter="\t" if end == ".tsv" else ",", lineterminator="\n"
                    )
                    writer.writerow(names)
                writer.writerow(clean_row(row, lambda r: self._choose(r, whose)))
        return _Out(out.getvalue().encode(), whose, end)

    _meds = _table

    def _choose(self, row: Mapping[str, Any], whose: str) -> Cells:
        column = subject_column(list(row))
        raw = row.get(column) if column is not None else None
        if raw is None or raw == "":
            return self._cells(whose)
        return self._cells(hashed("subject", self.source, str(raw)))

    def _parquet(self, ref: Ref) -> _Out:
        import pyarrow as pa
        import pyarrow.parquet as pq

        whose, tables = self._who(ref), []
        for batch in batches(ref.path, self.limits):
            cleaned = [clean_row(row, lambda r: self._choose(r, whose)) for row in batch.to_pylist()]
            columns = {}
            for item in batch.schema:
                values = [row[item.name] for row in cleaned]
                try:
                    columns[item.name] = pa.array(values, item.type)
                except (pa.ArrowException, OverflowError, TypeError, ValueError):
                    columns[item.name] = pa.array([None if v is None else str(v) for v in values], pa.string())
            tables.append(pa.table(columns))
        out = io.BytesIO()
        pq.write_table(pa.concat_tables(tables, promote_options="permissive"), out)
        return _Out(out.getvalue(), whose, ".parquet")

    def _xml_report(self, ref: Ref, data: bytes) -> _Out:
        from lxml import etree

        if suffix(ref.path) != ".xml":
            raise Refused("no_rule", "an archive is unpacked before it is cleaned")
        tree = safe.xml(data)
        who = self._who(ref, " ".join(str(t) for t in tree.itertext()))
        cells = self._cells(who)
        for node in list(tree.iter()):
            if not isinstance(node.tag, str):
                node.getparent().remove(node) if node.getparent() is not None else None
                continue
            tag = etree.QName(node).localname
            node.text = None if node.text is None else str(cells.cell(tag, node.text) or "")
            node.tail = None if node.tail is None else cells.text(node.tail)
            for name, value in node.attrib.items():
                node.attrib[name] = str(cells.cell(name, value) or "")
        return _Out(etree.tostring(tree, encoding="utf-8", xml_declaration=True), who, ".xml")

    def _nifti(self, ref: Ref, data: bytes) -> _Out:
        who = self._who(ref)
        end = suffix(ref.path) + (".gz" if ref.path.suffix.lower() == ".gz" else "")
        beside: tuple[tuple[str, bytes], ...] = ()
        image = ref.path.with_suffix(".img")
        if suffix(ref.path) == ".hdr" and image.is_file():
            beside = ((self.key.pseudonym("file", ref.key) + ".img", safe.read_bytes(image, self.limits)),)
        return _Out(headers.clean_nifti(data, self.limits), who, end, beside=beside)

    def _edf(self, ref: Ref, data: bytes) -> _Out:
        said = data[8:88].decode("latin-1").strip()
        who = self._who(ref, said) if re.fullmatch(r"[Xx\s?]*", said) else hashed("subject", self.source, said)
        first = said.split(" ")[0].lower()
        who = self.found.patients.get(first, who)  # EDF+: the first part of the patient field is the code
        cells = self._cells(who)
        return _Out(headers.clean_edf(data, cells.days, cells.text), who, suffix(ref.path))

    def _wfdb(self, ref: Ref, data: bytes) -> _Out:
        text = decode(data)
        who = self._who(ref, text)
        cells, base = self._cells(who), self.key.pseudonym("file", ref.key)
        names: dict[str, str] = {}

        def rename(name: str) -> str:
            if Path(name).name != name:
                raise Refused("path_outside", "a signal file must stand beside its header")
            return names.setdefault(name, f"{base}_{len(names)}{Path(name).suffix.lower()}")

        header = headers.clean_wfdb(text, base, rename, cells.days, cells.text)
        beside = [(new, safe.read_bytes(ref.path.with_name(old), self.limits)) for old, new in names.items()]
        notes = ref.path.with_suffix(".atr")
        if notes.is_file():
            marks = safe.read_bytes(notes, self.limits)
            if headers.annotations_are_plain(marks):
                beside.append((f"{base}.atr", marks))
        return _Out(header.encode(), who, ".hea", beside=tuple(beside))

    def _nrrd(self, ref: Ref, data: bytes) -> _Out:
        return _Out(headers.clean_nrrd(data), self._who(ref), ".nrrd")

    def _image(self, ref: Ref, data: bytes) -> _Out:
        cleaned, boxes = headers.clean_picture(data, mask=self.options.pixels, reader=self.reader, limits=self.limits)
        return _Out(cleaned, self._who(ref), ".png", boxes)

    def _slide(self, ref: Ref, data: bytes) -> _Out:
        raise Refused("slide_label", "a slide's file holds a label picture and names; export tiles instead")

    def report(self, files: int, bad: list[tuple[str, str, str]], seconds: float) -> DeidReport:
        """What was done so far."""
        codes = Counter(code for _, code, _ in bad)
        return DeidReport(
            files, dict(sorted(self.written.items())), dict(sorted(codes.items())), len(self.subjects), self.masked,
            EDITION, VERSION, self.options.on(), self.key.version, round(seconds, 3), self.bytes,
        )  # fmt: skip


def _kind(ref: Ref) -> str:
    if not ref.path.is_file():
        raise Refused("not_a_file", "not a regular file")
    found = sniff(ref.path)
    if found is None and suffix(ref.path) == ".json":
        return "json"
    if found is None:
        raise Refused("no_rule", "no rule knows this kind of file")
    return found


def _words(text: str) -> list[str]:
    return [w.lower() for w in re.findall(r"\w(?:[\w.-]*\w)?", text)]


__all__ = ["DeidReport", "deidentify_files"]
