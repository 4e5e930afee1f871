"""Tables (CSV, TSV, JSON lines, Parquet, NPZ) -> one record a row, through a column map (`sources.columns`).

    path = "cases/metadata.csv"
    columns = { image = "file", image_dir = "images", report = "clinical notes", subject = "Patientid",
                "label:covid" = "finding == COVID-19", "group:modality" = "modality" }

Without a map, headers that are themselves keys of the map ("image", "subject", "label:covid" ...) are taken as such,
and every other number that is no identifier goes to the record's `table` item.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fabrica import safe
from fabrica.errors import Refused, UsageError
from fabrica.safe import LIMITS, Limits
from fabrica.sources import Quarantined, Ref
from fabrica.sources.attach import attach, inside
from fabrica.sources.columns import (
    KEYS,
    PLAIN,
    PREFIXES,
    Expression,
    Row,
    cell,
    check,
    compile_map,
    label,
    modality,
    number,
    plain,
    split_of,
)  # fmt: skip
from fabrica.sources.joins import joined
from fabrica.sources.rows import BadRow, decode, read_rows
from fabrica.sources.single import hashed
from fabrica.types import Absent, Item, Origin, Record, Region, Rights, record_id

TEXTS = ("report", "caption", "text")
_SEVERAL = re.compile(r"[|;,]")
_IDENTIFIER = re.compile(r"(^|[_\W])(id|mrn|ssn|phone|zip|uid|accession|barcode)s?$|[a-z](ID|Id)s?$|^column \d+$", re.I)


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record | Quarantined]:
    """One record a row; a row that cannot be read is quarantined with its reason and the rest goes on.

    A wrong map (unknown key or column, a label column without numbers) is a `UsageError`. Row codes: `row_shape`,
    `label_not_number`, `split_unknown`, `row_empty`; of the files it names: `missing_file`, `path_outside`, and what
    their readers say; such a row keeps its other parts, with the image `Absent`.
    """
    if ref.path.suffix.lower() == ".npz":
        from fabrica.sources.npz import read as read_npz

        yield from read_npz(ref, limits)
        return
    header, rows = read_rows(ref.path, limits, header=ref.columns.get("header", ""))
    columns = dict(ref.columns) or own_headers(header)
    if joins := [key for key in columns if key.startswith("join:")]:
        check(columns)
        header, rows = joined(ref, joins, (header, rows), limits)
    mapping = compile_map(columns, header)
    spare = () if ref.columns else tuple(h for h in header if h not in columns and not _IDENTIFIER.search(h))
    reader = RowReader(ref, mapping, spare, limits)
    for n, row in enumerate(rows):
        yield from reader(n, row)


def own_headers(header: Sequence[str]) -> dict[str, str]:
    """The headers that are keys of the column map themselves.

    >>> own_headers(["image", "age", "label:covid"])
    {'image': 'image', 'label:covid': 'label:covid'}
    """
    return {h: h for h in header if (h in KEYS or h.startswith(PREFIXES)) and not h.startswith(PLAIN)}


@dataclass(slots=True)
class _Files:
    """What the files that a row names gave."""

    items: dict[str, tuple[Item, ...]]
    regions: list[Region]
    groups: dict[str, str]
    lost: list[Quarantined]


class RowReader:
    """Rows -> records of one table. Ids hash a row's content, so that a grown table keeps the ids of its old rows."""

    def __init__(self, ref: Ref, mapping: Mapping[str, Expression], spare: tuple[str, ...], limits: Limits) -> None:
        self.ref, self.map, self.spare, self.limits = ref, mapping, spare, limits
        self.seen: Counter[str] = Counter()
        self.done = 0

    def __call__(self, n: int, row: Row) -> Iterator[Record | Quarantined]:
        key = f"{self.ref.key}#{n + 1}"
        digest = safe.sha256("\x1f".join(f"{k}\x1e{row[k]}" for k in row).encode("utf-8", "surrogatepass"))
        try:
            if isinstance(row, BadRow):
                raise Refused("row_shape", row.why)
            files = self._files(key, digest, row)
            yield from files.lost
            yield self._record(key, digest, row, files)
            self.done += 1
        except Refused as error:
            if not self.done and error.code in ("label_not_number", "split_unknown"):
                raise UsageError(f"{self.ref.path.name}: {str(error).rsplit(' [', 1)[0]}") from error
            yield Quarantined(key, digest, error.code, str(error))

    def value(self, key: str, row: Row) -> Any:
        """What the map gives for a key, None where it is empty or not in the map."""
        expression = self.map.get(key)
        return None if expression is None else expression(row)

    def _record(self, key: str, digest: str, row: Row, files: _Files) -> Record:
        licence = plain(self.value("licence", row)) or self.ref.licence
        origin = Origin(self.ref.source, key, digest, licence)
        items = {**files.items, **self._texts(row, origin, files)}
        if (numbers := self._numbers(row, origin)) is not None:
            items["table"] = (numbers,)
        if codes := [c.strip() for c in _SEVERAL.split(plain(self.value("codes", row))) if c.strip()]:
            items["codes"] = (Item("codes", "\n".join(codes), origin),)
        labels: dict[str, float | Absent] = {}
        for name, expression in self._named("label:"):
            got = label(f"label:{name}", expression, row)
            labels[name] = Absent.NOT_DONE if got is None else got
        if not any(i.present for group in items.values() for i in group) and not any(
            not isinstance(v, Absent) for v in labels.values()
        ):
            raise Refused("row_empty", "the row has no value for anything the column map names")
        again = plain(self.value("id", row)) or str(self.seen[digest])
        self.seen[digest] += 1
        subject = self.value("subject", row)
        return Record(
            record_id(self.ref.source, self.ref.key, digest, again, *sorted(_hashes(files))),
            hashed("subject", self.ref.source, f"row:{key}" if subject is None else plain(subject)),
            groups=self._groups(row, files),
            items=items,
            regions=tuple(files.regions),
            labels=labels,
            rights=Rights(licence=licence),
            split=split_of(self.value("split", row)),
        )

    def _named(self, prefix: str) -> Iterator[tuple[str, Expression]]:
        return ((k[len(prefix) :], e) for k, e in self.map.items() if k.startswith(prefix))

    def _groups(self, row: Row, files: _Files) -> dict[str, str]:
        groups = dict(files.groups)
        if (study := self.value("study", row)) is not None:
            groups["study"] = hashed("study", self.ref.source, plain(study))
        for name, expression in self._named("group:"):
            if (value := plain(expression(row))) != "":
                groups[name] = modality(value) if name == "modality" else value
        return groups

    def _texts(self, row: Row, origin: Origin, files: _Files) -> dict[str, tuple[Item, ...]]:
        found: dict[str, tuple[Item, ...]] = {}
        for role in TEXTS:
            if role in self.map and role not in files.items:
                value = plain(self.value(role, row))
                found[role] = (Item("text", value or Absent.NOT_DONE, origin),)
        return found

    def _numbers(self, row: Row, origin: Origin) -> Item | None:
        pairs = [(name, number(cell(e(row)))) for name, e in self._named("value:")]
        pairs += [(name, number(cell(row.get(name)))) for name in self.spare]
        known = [(n, v) for n, v in pairs if v is not None]
        if not known:
            return None
        return Item("table", np.array([v for _, v in known], np.float32), origin, names=tuple(n for n, _ in known))

    def _files(self, key: str, digest: str, row: Row) -> _Files:
        files = _Files({}, [], {}, [])
        folder = self.ref.path.parent / self.ref.columns.get("image_dir", "")
        licence = plain(self.value("licence", row)) or self.ref.licence
        for part in ("image", "report_file"):
            name = plain(self.value(part, row))
            if part not in self.map or not name:
                continue
            try:
                self._attach(part, inside(folder if part == "image" else self.ref.path.parent, name), licence, files)
            except Refused as error:
                files.lost.append(Quarantined(key, digest, error.code, f"{part}: {error}"))
                role = "image" if part == "image" else "report"
                why = Absent.NOT_LINKED if error.code == "missing_file" else Absent.UNREADABLE
                kind = "image" if part == "image" else "text"
                files.items[role] = (Item(kind, why, Origin(self.ref.source, key, digest, licence)),)  # type: ignore[arg-type]
        for mask_key, expression in self.map.items():
            if mask_key.partition(":")[0] == "mask" and files.items.keys() & {"image", "volume"}:
                if not (name := plain(expression(row))):
                    continue
                try:
                    self._mask(mask_key, inside(folder, name), licence, files)
                except Refused as error:
                    files.lost.append(Quarantined(key, digest, error.code, f"{mask_key}: {error}"))
        return files

    def _attach(self, part: str, path: Path, licence: str, files: _Files) -> None:
        if part == "report_file":
            if not path.is_file():
                raise Refused("missing_file", "the file that is named is not there")
            data = safe.read_bytes(path, safe.Limits(file_bytes=16 << 20))
            origin = Origin(self.ref.source, path.name, safe.sha256(data), licence)
            files.items["report"] = (Item("text", decode(data).strip() or Absent.NOT_DONE, origin),)
            return
        found = attach(path, self.ref, licence, self.limits)
        files.items.update({r: i for r, i in found.items.items() if r.partition("/")[0] not in TEXTS})
        files.regions.extend(found.regions)
        files.groups.update({k: v for k, v in found.groups.items() if k != "study"})

    def _mask(self, key: str, path: Path, licence: str, files: _Files) -> None:
        role = next(r for r in ("image", "volume") if r in files.items)
        image = files.items[role][0]
        found = attach(path, self.ref, licence, self.limits).first("image", "volume")
        if found is None or not image.present:
            return
        data, shape = found.array(), image.array().shape
        if role == "image":
            data, shape = data.max(axis=-1) if data.ndim == 3 else data, shape[:2]
        if data.shape != shape[: data.ndim]:
            raise Refused("mask_shape", f"the mask has shape {data.shape}, its {role} {shape}")
        files.regions.append(Region(role, "mask", data > 0, key.partition(":")[2] or "mask", found.origin))


def _hashes(files: _Files) -> set[str]:
    return {i.origin.sha256 for group in files.items.values() for i in group if i.present}
