"""FHIR R4 in JSON (a resource, a Bundle, NDJSON, a bulk export folder) -> one record a patient, as MEDS is laid out.

HL7 FHIR R4 (4.0.1). Nothing is validated against profiles: what is read is in `sources.fhir_rules`. Every resource is
either part of a record or named with a reason, counted by type. References are never followed outside the input.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fabrica import safe
from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits
from fabrica.sources import Quarantined, Ref, stem, suffix
from fabrica.sources.events import Layout, records, schema
from fabrica.sources.fhir_read import Rows, medicine, read_patient, read_resource
from fabrica.sources.fhir_rules import ADMINISTRATIVE, CLINICAL, TYPES, WHO, WRONG
from fabrica.sources.jsons import GROWTH, parse
from fabrica.sources.spill import Spill
from fabrica.sources.stream import lines, open_text
from fabrica.types import Record

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 20_000  # rows
LINES = (".ndjson", ".jsonl")
WHY: Mapping[str, str] = MappingProxyType(
    {
        "fhir_no_patient": "carries no patient",
        "fhir_administrative": "about a patient, but nothing clinical",
        "fhir_no_subject": "names no patient (a group, a device, or nobody)",
        "fhir_nothing": "holds no code, value or text that is read",
        "fhir_error": "was entered in error, says its status",
        "fhir_unknown": "no resource type of R4",
        "fhir_no_resource": "JSON without a resourceType",
    }
)
_BULK = re.compile(r"^([A-Z][A-Za-z]+)(?:[._-].*)?$")


def bulk(path: Path) -> list[Path]:
    """The files of the bulk export that `path` begins: NDJSON named by resource type, this one the first of Patient."""
    if _type_of(path) != "Patient":
        return []
    files = sorted(f for f in path.parent.iterdir() if _type_of(f) and f.is_file())
    first = next(f for f in files if _type_of(f) == "Patient")
    return [f for f in files if f != path] if first == path else []


def _type_of(path: Path) -> str:
    if suffix(path) not in LINES or not (match := _BULK.match(stem(path))):
        return ""
    return match[1] if match[1] in TYPES else ""


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record | Quarantined]:
    """One record a patient of a file, and of the bulk export that it begins (see `bulk`).

    Items: `events` (series), `codes`, `table` (age), `note` and `report` (text), `ecg`, `eeg`, `signal` (sampled data).
    Years and months without a day give events without hours. Quarantined, by type with a count: the codes of `WHY`,
    `time_bad`; of lines: `json_bad`, `json_depth`, `json_key_twice`, `json_number`, `json_too_large`.
    Refused: these for a file of one JSON value; `deflate`, `ratio`, `not_text` for NDJSON.
    """
    yield from read_all([ref, *(Ref(p, p.name, ref.source, ref.licence) for p in bulk(ref.path))], limits)


def read_all(refs: Iterable[Ref], limits: Limits = LIMITS) -> Iterator[Record | Quarantined]:
    """One record a patient of several files that belong together; the first gives the records' source and key."""
    first: Ref | None = None
    many = False
    with Spill(limits) as spill:
        reader = Reader(spill)
        for ref in refs:
            many, first = first is not None, first or ref
            try:
                reader.file(ref.path, ref.key, limits)
            except Refused as error:
                if not many:
                    raise
                digest = safe.sha256(ref.path) if ref.path.is_file() else ""
                yield Quarantined(ref.key, digest, error.code, str(error))
        reader.flush()
        yield from reader.named(first)
        if first is None:
            return
        for table in spill.tables():
            yield from records(reader.resolved(table), Layout(first, people=False))


@dataclass(slots=True)
class Reader:
    """Resources -> rows of events, and the account of those that gave none."""

    spill: Spill
    rows: Rows = field(default_factory=Rows)
    seen: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # (file, type, reason)
    single: set[str] = field(default_factory=set)  # files that are one resource
    medications: dict[str, str] = field(default_factory=dict)

    def file(self, path: Path, key: str, limits: Limits = LIMITS) -> None:
        """All resources of a file."""
        if suffix(path) in LINES:
            self._lines(path, key, limits)
            return
        with open_text(path, limits) as reader:
            data = reader.read(limits.array_bytes // GROWTH + 1)
        value = parse(data, limits)
        if not isinstance(value, dict) or value.get("resourceType") != "Bundle":
            self.single.add(key)
        self.resource(value, key)

    def _lines(self, path: Path, key: str, limits: Limits) -> None:
        with open_text(path, limits) as reader:
            for _, line in lines(reader, limits.array_bytes // GROWTH):
                if line is not None and not line.strip():
                    continue
                try:
                    if line is None:
                        raise Refused("json_too_large", "a line above the limit")
                    self.resource(parse(line, limits), key)
                except Refused as error:
                    self.seen[key, "line", error.code] += 1

    def resource(self, value: Any, key: str, urls: Mapping[str, str] = MappingProxyType({})) -> None:
        """One resource, or those of a Bundle. `urls` are the addresses of a Bundle's entries -> Type/id."""
        kind = value.get("resourceType") if isinstance(value, dict) else None
        if not isinstance(kind, str):
            self.seen[key, "value", "fhir_no_resource"] += 1
            return
        if kind == "Bundle":
            self._bundle(value, key)
            return
        reason = self._read(value, kind, urls)
        self.seen[key, kind if kind in TYPES else "unknown type", reason] += 1
        if len(self.rows) >= BATCH:
            self.flush()

    def _bundle(self, bundle: Mapping[str, Any], key: str) -> None:
        entries = [e for e in _list(bundle.get("entry")) if isinstance(e, dict)]
        urls = {}
        for entry in entries:
            inner, url = entry.get("resource"), entry.get("fullUrl")
            if isinstance(inner, dict) and isinstance(url, str) and isinstance(inner.get("id"), str):
                urls[url] = f"{inner.get('resourceType')}/{inner['id']}"
        if not any("resource" in e for e in entries):
            self.seen[key, "Bundle", "fhir_nothing"] += 1
        for entry in entries:
            if "resource" in entry:
                self.resource(entry["resource"], key, urls)

    def _read(self, value: Mapping[str, Any], kind: str, urls: Mapping[str, str]) -> str:
        """Why a resource gave nothing; "" where it gave something."""
        if kind == "Medication":
            self._medication(value)
        if kind == "Patient":
            return read_patient(value, self.rows)
        if kind not in TYPES:
            return "fhir_unknown"
        if kind not in CLINICAL:
            return "fhir_administrative" if kind in ADMINISTRATIVE else "fhir_no_patient"
        if value.get("status") == WRONG or "entered-in-error" in str(value.get("verificationStatus"))[:400]:
            return "fhir_error"
        patient = subject_of(value, urls)
        if patient is None:
            return "fhir_no_subject"
        return read_resource(value, kind, patient, self.rows, urls)

    def _medication(self, value: Mapping[str, Any]) -> None:
        if (code := medicine(value)) and isinstance(value.get("id"), str):
            self.medications[f"Medication/{value['id']}"] = code

    def flush(self) -> None:
        """Hand the rows on."""
        if len(self.rows):
            self.spill.add(self.rows.batch(schema()))
            self.rows = Rows(bad=self.rows.bad)

    def resolved(self, table: pa.Table) -> pa.Table:
        """Codes that name a Medication resource -> that resource's code, "MEDICATION" where it is not in the input."""
        import pyarrow as pa

        coded = table.column("code").combine_chunks().dictionary_encode()
        names = []
        for code in coded.dictionary.to_pylist():
            prefix, mark, name = code.partition("//@")
            names.append(f"{prefix}//{self.medications.get(name, 'MEDICATION')}" if mark else code)
        column = pa.array(names, pa.string()).take(coded.indices)
        return table.set_column(table.schema.get_field_index("code"), "code", column)

    def named(self, first: Ref | None) -> Iterator[Quarantined]:
        """The resources that are part of no record: one line a file, type and reason."""
        for (key, kind, reason), count in sorted(self.seen.items()):
            if reason:
                why = WHY.get(reason, "no JSON that is read")
                place = key if key in self.single else f"{key}#{kind}:{reason}"
                yield Quarantined(place, "", reason, f"{count:,} {kind}: {why}")
        for kind, count in sorted(self.rows.bad.items()):
            why = f"{count:,} {kind} with a time that is no date: kept without hours"
            yield Quarantined(f"{first.key if first else ''}#{kind}:time_bad", "", "time_bad", why)


def subject_of(value: Mapping[str, Any], urls: Mapping[str, str] = MappingProxyType({})) -> str | None:
    """The patient that a resource is about, as "Patient/id"; None where it names none.

    >>> subject_of({"subject": {"reference": "http://here.example/fhir/Patient/7/_history/2"}})
    'Patient/7'
    """
    for name in WHO:
        for reference in _list(value.get(name)):
            if isinstance(reference, dict) and (found := _patient(reference, value, urls)):
                return found
    return None


def _patient(reference: Mapping[str, Any], value: Mapping[str, Any], urls: Mapping[str, str]) -> str | None:
    said = reference.get("reference")
    if isinstance(said, str) and said:
        if said.startswith("#"):
            inside = [c for c in _list(value.get("contained")) if isinstance(c, dict) and c.get("id") == said[1:]]
            if inside and inside[0].get("resourceType") == "Patient":
                return f"{value.get('resourceType')}/{value.get('id')}{said}"
            return None
        said = urls.get(said, said)
        if found := re.search(r"(?:^|/)Patient/([A-Za-z0-9.\-]{1,64})(?:/_history/[^/]+)?$", said):
            return f"Patient/{found[1]}"
        return said if said.startswith("urn:") and reference.get("type") == "Patient" else None
    identifier = reference.get("identifier")
    if isinstance(identifier, dict) and identifier.get("value") and reference.get("type", "Patient") == "Patient":
        return f"identifier:{identifier.get('system', '')}|{identifier['value']}"
    return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
