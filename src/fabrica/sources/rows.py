"""Rows of CSV, TSV, JSON lines and Parquet files (also gzipped, also the one file inside a zip), one at a time."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from fabrica import safe
from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits

BATCH = 2048
DEEP = 8  # levels of inner objects that become columns
Rows = tuple[tuple[str, ...], Iterator[Mapping[str, Any]]]


class BadRow(dict[str, Any]):
    """A row that does not fit its header: `why` says how."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why


def read_rows(path: Path, limits: Limits = LIMITS, *, header: str = "") -> Rows:
    """(header, rows) of a table file; cells are str (CSV), or what JSON and Parquet hold: an object or struct `a` gives
    columns `a.b`, a list its values joined by "|". `header` is the header line of a text table that has none.

    Refused: `table_suffix`, `csv_bad`, `jsonl_bad`, `parquet_bad`, and the codes of `safe`.
    """
    suffixes = [s.lower() for s in path.suffixes]
    kind = next((s for s in reversed(suffixes) if s not in (".gz", ".zip")), "")
    if kind in (".parquet", ".pq"):
        return _parquet(path, limits)
    if kind in (".csv", ".tsv", ".tab", ".txt"):
        return _csv(decode(_bytes(path, limits)), tab=kind in (".tsv", ".tab"), header=header)
    if kind in (".jsonl", ".ndjson"):
        return _jsonl(decode(_bytes(path, limits)))
    raise Refused("table_suffix", f"{path.name!r} is no table that can be read; wanted csv, tsv, jsonl or parquet")


def csv_rows(data: bytes, *, tab: bool = False) -> Rows:
    """(header, rows) of a text table in memory.

    >>> header, rows = csv_rows(b"id,age\\n7,61\\n")
    >>> header, list(rows)
    (('id', 'age'), [{'id': '7', 'age': '61'}])
    """
    return _csv(decode(data), tab=tab)


def _bytes(path: Path, limits: Limits) -> bytes:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return safe.inflate(safe.read_bytes(path, limits), limits=limits)
    if suffix == ".zip":
        for _, reader in safe.members(path, limits):
            return read_all(reader, limits)
        raise Refused("table_empty", f"{path.name!r} holds no file")
    with safe.open_file(path, limits) as handle:
        return read_all(handle, limits)


def read_all(reader: BinaryIO, limits: Limits) -> bytes:
    """The rest of a reader within `limits.array_bytes`."""
    data = reader.read(limits.array_bytes + 1)
    if len(data) > limits.array_bytes:
        raise Refused("file_too_large", f"a text file above {limits.array_bytes} bytes")
    return data


def decode(data: bytes) -> str:
    """Text of UTF-8 (with or without its mark), UTF-16 with its mark, else of Windows-1252. Bytes 0 are refused.

    >>> decode("Jönköping".encode("cp1252"))
    'Jönköping'
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise Refused("not_text", f"broken UTF-16: {error.reason}") from error
    if b"\0" in data:
        raise Refused("not_text", "the file holds zero bytes: it is not text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _csv(text: str, *, tab: bool, header: str = "") -> Rows:
    first = header or text[: text.find("\n") if "\n" in text else len(text)]
    delimiter = "\t" if tab else max(",;\t|", key=first.count)  # the first of equals, so the comma
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    line = header.split(delimiter) if header else next(_csv_lines(reader), None)
    if not line or not any(h.strip() for h in line):
        raise Refused("table_empty", "the table has no header line")
    names = unique([*line[:-1], line[-1].strip().removesuffix("*")] if header else line)
    return names, _csv_rows(reader, names, rest=header.rstrip().endswith("*"))


def _csv_lines(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise Refused("csv_bad", f"the CSV cannot be read: {error}") from error


def _csv_rows(reader: Iterator[list[str]], names: tuple[str, ...], *, rest: bool) -> Iterator[Mapping[str, Any]]:
    at = len(names) - 1
    for line in _csv_lines(reader):
        if not line:
            continue
        if rest:
            line = [*line[:at], "|".join(c.strip() for c in line[at:] if c.strip())]
        if len(line) > len(names) and any(c.strip() for c in line[len(names) :]):
            yield BadRow(f"{len(line)} cells under a header of {len(names)}")
        else:
            yield dict(zip(names, line, strict=False))


def unique(header: list[str]) -> tuple[str, ...]:
    """Header names stripped, empty ones as "column N", repeated ones with a number.

    >>> unique(["a", "", "a "])
    ('a', 'column 2', 'a.2')
    """
    seen: dict[str, int] = {}
    names = []
    for n, raw in enumerate(header, 1):
        name = raw.strip() or f"column {n}"
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}.{seen[name]}")
    return tuple(names)


def _jsonl(text: str) -> Rows:
    header: dict[str, None] = {}
    for n, line in enumerate(text.splitlines()):  # the header is what the first thousand objects use
        if n == 1000:
            break
        if isinstance(got := _json(line), dict):
            header.update(dict.fromkeys(flat(got)))
    if not header:
        raise Refused("jsonl_bad", "no line of the file is a JSON object")
    return tuple(header), _json_rows(text)


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A row without inner objects: `a.b` for what stands inside `a`, lists joined by "|".

    >>> flat({"id": 1, "who": {"age": 61, "codes": ["A", "B"]}})
    {'id': 1, 'who.age': 61, 'who.codes': 'A|B'}
    """
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict) and value and prefix.count(".") < DEEP:
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[prefix + name] = "|".join(map(str, value)) if isinstance(value, list) else value
    return found


def _json_rows(text: str) -> Iterator[Mapping[str, Any]]:
    for line in text.splitlines():
        if not line.strip():
            continue
        got = _json(line)
        if isinstance(got, dict):
            yield flat(got)
        else:
            yield BadRow("the line is no JSON object")


def _parquet(path: Path, limits: Limits) -> Rows:
    rows = (flat(row) for batch in parquet_batches(path, limits) for row in batch.to_pylist())
    return tuple(_leaves(_parquet_schema(path, limits))), rows


def _leaves(fields: Any, prefix: str = "") -> Iterator[str]:
    """Column names, those of a struct's fields as `a.b`."""
    import pyarrow as pa

    for field in fields:
        if pa.types.is_struct(field.type) and prefix.count(".") < DEEP:
            yield from _leaves(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def parquet_header(path: Path, limits: Limits = LIMITS) -> tuple[str, ...]:
    """Column names of a Parquet file; its row groups are checked against the limits."""
    return tuple(_parquet_schema(path, limits).names)


def _parquet_schema(path: Path, limits: Limits) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    with safe.open_file(path, limits) as handle:
        try:
            meta = parquet.read_metadata(handle)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise Refused("parquet_bad", f"{path.name!r} is no readable Parquet file: {str(error)[:160]}") from error
    for n in range(meta.num_row_groups):
        if meta.row_group(n).total_byte_size > limits.array_bytes:
            raise Refused(
                "array_too_large", f"{path.name!r}: row group {n} claims more than {limits.array_bytes} bytes"
            )
    return meta.schema.to_arrow_schema()


def parquet_batches(
    path: Path, limits: Limits = LIMITS, *, columns: list[str] | None = None, size: int = BATCH
) -> Iterator[Any]:
    """Record batches of at most `size` rows of a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    parquet_header(path, limits)
    with safe.open_file(path, limits) as handle:
        try:
            yield from parquet.ParquetFile(handle).iter_batches(size, columns=columns)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise Refused("parquet_bad", f"{path.name!r} is no readable Parquet file: {str(error)[:160]}") from error
