"""Batches of table rows as Arrow columns, for tables too large to hold: CSV, CSV.gz, Parquet; bad cells counted."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabrica.errors import Refused
from fabrica.safe import LIMITS, MIB, Limits
from fabrica.sources import suffix
from fabrica.sources.rows import parquet_batches, parquet_header, unique
from fabrica.sources.stream import open_quote, open_text

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = 4096  # of one table
HEADER = MIB  # bytes of a header line
BLOCK, ROWS = 4 * MIB, 65536  # read at once, at most
NULLS = ["", "NULL", "null", "\\N", "NaN", "nan"]
NUMBER = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?$"
FIRST_YEAR, LAST_YEAR = 1800, 2300  # de-identified records are shifted into 2100-2200


@dataclass(slots=True)
class Trouble:
    """Rows of a table that were not taken whole: reason -> how many, and the first of them (1 = first row of data)."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[int]] = field(default_factory=dict)

    def add(self, reason: str, rows: Sequence[int], count: int | None = None) -> None:
        """Count rows; the first five are kept by number."""
        n = len(rows) if count is None else count
        if n:
            self.counts[reason] = self.counts.get(reason, 0) + n
            kept = self.first.setdefault(reason, [])
            kept.extend(int(r) for r in rows[: 5 - len(kept)])


@dataclass(slots=True)
class Frame:
    """A batch of rows: columns by name in lower case; `at` is the number of the row before its first."""

    columns: dict[str, Any]
    rows: int
    at: int
    trouble: Trouble
    made: dict[str, Any] = field(default_factory=dict)  # columns as they were asked for, so that each is made once

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def text(self, name: str) -> pa.Array:
        """A column as trimmed text, empty cells absent; a column that is not there is absent throughout."""
        if name not in self.made:
            self.made[name] = self._text(name)
        return self.made[name]

    def _text(self, name: str) -> pa.Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        if name not in self.columns:
            return pa.nulls(self.rows, pa.string())
        column = self.columns[name]
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            column = _as_text(column)
        column = pc.utf8_trim_whitespace(column)
        return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column).cast(pa.string())

    def key(self, name: str) -> pa.Array:
        """An identifier as text; "3.0", as a column with gaps is often written, is "3"."""
        import pyarrow.compute as pc

        column = self.text(name)
        if pc.any(pc.ends_with(column, ".0")).as_py():
            column = pc.replace_substring_regex(column, r"^(-?\d+)\.0$", r"\1")
        return column

    def number(self, name: str) -> pa.Array:
        """A column as float64; what is no finite number is absent."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if name not in self.columns:
            return pa.nulls(self.rows, pa.float64())
        column = self.columns[name]
        if pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_decimal(column.type):
            numbers = column.cast(pa.float64(), safe=False)
        else:
            column = self.text(name)
            try:
                numbers = column.cast(pa.float64())
            except pa.ArrowInvalid:
                fits = pc.match_substring_regex(column, NUMBER)
                numbers = pc.if_else(fits, column, pa.scalar(None, pa.string())).cast(pa.float64())
        return pc.if_else(pc.is_finite(numbers), numbers, pa.scalar(None, pa.float64()))

    def time(self, names: str) -> pa.Array:
        """Timestamps (microseconds, UTC where a zone is given) of the first of "a|b" that is not empty.

        `time_bad` (no date) and `time_range` (year outside 1800-2299) are counted, and such times absent."""
        import pyarrow as pa
        import pyarrow.compute as pc

        key = f"time {names}"
        if key not in self.made:
            found = [self._time(name) for name in names.split("|") if name in self.columns]
            self.made[key] = pc.coalesce(*found) if found else pa.nulls(self.rows, pa.timestamp("us"))
        return self.made[key]

    def _time(self, name: str) -> pa.Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        column, kind = self.columns[name], pa.timestamp("us")
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            times = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
            times = times.cast(kind)
        else:
            text = self.text(name)
            times = timestamps(text)
            if times.null_count != text.null_count:
                self._count("time_bad", pc.and_(times.is_null(), text.is_valid()))
        year = pc.year(times)
        outside = pc.fill_null(pc.or_(pc.less(year, FIRST_YEAR), pc.greater_equal(year, LAST_YEAR)), False)
        if pc.any(outside).as_py():
            self._count("time_range", outside)
            times = pc.if_else(outside, pa.scalar(None, kind), times)
        return times

    def _count(self, reason: str, mask: Any) -> None:
        import numpy as np

        rows = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
        self.trouble.add(reason, (rows + self.at + 1).tolist())

    def count(self, reason: str, mask: pa.Array) -> None:
        """Count the rows of a mask under a reason."""
        self._count(reason, mask.fill_null(False))


def timestamps(text: pa.Array) -> pa.Array:
    """ISO dates and times as microseconds, UTC where a zone is given; what is none is absent.

    >>> import pyarrow as pa
    >>> timestamps(pa.array(["2150-03-15 08:00:00", "2150-02-30"])).null_count
    1
    """
    import pyarrow as pa

    kind = pa.timestamp("us")
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        return pa.array([_when(t) for t in text.to_pylist()], kind)


def date_of(years: pa.Array, months: pa.Array | None = None, days: pa.Array | None = None) -> pa.Array:
    """Dates of birth from numbers: a month or day that is not known is the first; an impossible date is absent."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = [pc.utf8_lpad(years.cast(pa.int64(), safe=False).cast(pa.string()), 4, "0")]
    for part in (months, days):
        numbers = pa.repeat(pa.scalar(1), len(years)) if part is None else part.cast(pa.int64(), safe=False)
        parts.append(pc.utf8_lpad(numbers.fill_null(1).cast(pa.string()), 2, "0"))
    return timestamps(pc.binary_join_element_wise(*parts, "-"))


def _when(text: str | None) -> dt.datetime | None:
    if text is None or len(text) > 64:
        return None
    try:
        got = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return got.astimezone(dt.UTC).replace(tzinfo=None) if got.tzinfo else got


def _as_text(column: Any) -> Any:
    """Any column as text; bytes that are no UTF-8 are read as Windows-1252, as everywhere."""
    import pyarrow as pa

    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
            raise
        return pa.array([None if v is None else _decoded(v) for v in column.to_pylist()], pa.string())
    except (pa.ArrowNotImplementedError, NotImplementedError):
        return pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("cp1252", errors="replace")


def header(path: Path, limits: Limits = LIMITS) -> tuple[str, ...]:
    """The column names of a table file, in lower case.

    Refused: `table_empty`, `table_columns` (more than 4,096, or a header line above 1 MiB), and those of `stream`."""
    if suffix(path) in (".parquet", ".pq"):
        return tuple(name.lower() for name in parquet_header(path, limits))
    with open_text(path, limits) as reader:
        return _csv_header(reader.readline(HEADER + 1), path)[0]


def _csv_header(line: bytes, path: Path) -> tuple[tuple[str, ...], str]:
    if len(line) > HEADER or line.count(b",") + line.count(b"\t") >= COLUMNS:
        raise Refused("table_columns", f"{path.name!r} has a header of more than {COLUMNS} columns or 1 MiB")
    text = _decoded(line).strip("\r\n")
    delimiter = max(",;\t|", key=text.count)
    names = next(csv.reader([text], delimiter=delimiter), [])
    if not any(n.strip() for n in names):
        raise Refused("table_empty", f"{path.name!r} has no header line")
    return unique([n.lower() for n in names]), delimiter


def batches(path: Path, wanted: set[str], trouble: Trouble, limits: Limits = LIMITS) -> Iterator[Frame]:
    """The wanted columns of a table file in batches of rows. Refused: see `header`; `csv_bad`, `parquet_bad`."""
    at = 0
    if suffix(path) in (".parquet", ".pq"):
        exact = [name for name in parquet_header(path, limits) if name.lower() in wanted]
        for batch in parquet_batches(path, limits, columns=exact, size=ROWS):
            columns = {name.lower(): batch.column(name) for name in exact}
            yield Frame(columns, batch.num_rows, at, trouble)
            at += batch.num_rows
        return
    for batch in _csv(path, wanted, trouble, limits):
        yield Frame({n: batch.column(n) for n in batch.schema.names}, batch.num_rows, at, trouble)
        at += batch.num_rows


def _csv(path: Path, wanted: set[str], trouble: Trouble, limits: Limits) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    def bad(row: Any) -> str:
        trouble.add("row_shape", [] if row.number is None else [row.number], 1)
        return "skip"

    with open_text(path, limits) as reader:
        names, delimiter = _csv_header(reader.readline(HEADER + 1), path)
        if not reader.peek(1):  # type: ignore[attr-defined]
            return
        kept = [n for n in names if n in wanted]
        parse = arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=bad)
        convert = arrow_csv.ConvertOptions(
            include_columns=kept, column_types=dict.fromkeys(kept, pa.binary()), null_values=NULLS,
            strings_can_be_null=True, quoted_strings_can_be_null=True,
        )  # fmt: skip
        block = max(MIB, min(BLOCK, limits.array_bytes // 32))
        options = arrow_csv.ReadOptions(block_size=block, column_names=list(names), use_threads=False)
        rows = 1
        try:
            for batch in arrow_csv.open_csv(
                pa.PythonFile(reader, mode="r"), read_options=options, parse_options=parse, convert_options=convert
            ):
                rows += batch.num_rows
                yield batch
            if open_quote(reader, rows + trouble.counts.get("row_shape", 0)):
                raise Refused("csv_bad", f"{path.name!r} has a quote that nothing closes: rows are lost in it")
        except pa.ArrowInvalid as error:
            raise Refused(
                "csv_bad", f"{path.name!r} is no CSV that can be read: a row above {block} bytes, or an open quote"
            ) from error
