"""Which files were read and which could not be: two small tables beside the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from fabrica.corpus.codec import sql_text
from fabrica.corpus.table import Table, quote

FILES = pa.schema([("source", pa.string()), ("key", pa.string()), ("mark", pa.string()), ("records", pa.int64())])
QUARANTINE = pa.schema([(name, pa.string()) for name in ("source", "key", "sha256", "code", "message")])


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file that was read whole: `records` of it are in the corpus; `mark` tells whether it has changed since."""

    source: str
    key: str
    mark: str
    records: int


class Ledger:
    """The tables `files.lance` and `quarantine.lance` of a corpus folder. Writers hold the corpus' lock."""

    def __init__(self, folder: Path) -> None:
        self._files = Table(folder / "files.lance", FILES)
        self._bad = Table(folder / "quarantine.lance", QUARANTINE)
        self._known: tuple[int, dict[tuple[str, str, str], int]] = (-1, {})

    def done(self) -> dict[tuple[str, str, str], int]:
        """(source, key, mark) of the files that were read whole -> their records."""
        self._files.refresh()
        if self._known[0] != self._files.version:
            rows = self._files.read(FILES.names)
            keys = zip(*(rows.column(n).to_pylist() for n in ("source", "key", "mark")), strict=True)
            self._known = (self._files.version, dict(zip(keys, rows.column("records").to_pylist(), strict=True)))
        return self._known[1]

    def finish(self, files: Iterable[FileRow]) -> None:
        """Note files as read whole; twice is once."""
        known = self.done()
        new = {(text(f.source), text(f.key), f.mark): f.records for f in files}
        new = {key: n for key, n in new.items() if key not in known}
        _append(self._files, [dict(zip(FILES.names, (*key, n), strict=True)) for key, n in new.items()])
        self._known = (self._files.version, known | new)

    def quarantine(self, items: Iterable[Any], source: str) -> int:
        """Note what could not be read; the same key of the same source replaces what was said before."""
        self._bad.refresh()
        said = text(source)
        found = [
            dict(zip(QUARANTINE.names, (said, text(i.key), i.sha256, i.code, text(i.message)), strict=True))
            for i in items
        ]
        rows = {r["key"]: r for r in found}
        before = {(r["source"], r["key"]): r for r in self._bad.read(QUARANTINE.names).to_pylist()}
        new = [r for r in rows.values() if before.get((r["source"], r["key"])) != r]
        stale = [r["key"] for r in new if (r["source"], r["key"]) in before]
        if stale:
            self._delete(self._bad, source, stale)
        _append(self._bad, new)
        return len(new)

    def mended(self, source: str, keys: Sequence[str]) -> None:
        """Take files that can be read now out of quarantine."""
        self._bad.refresh()
        before = self.bad_keys()
        gone = [text(k) for k in keys if (text(source), text(k)) in before]
        if gone:
            self._delete(self._bad, source, gone)

    def bad_keys(self) -> set[tuple[str, str]]:
        """(source, key) of what is in quarantine."""
        rows = self._bad.read(("source", "key"))
        return set(zip(rows.column("source").to_pylist(), rows.column("key").to_pylist(), strict=True))

    def quarantined(self) -> pa.Table:
        """The quarantine table."""
        return self._bad.read(QUARANTINE.names)

    def codes(self) -> Mapping[str, int]:
        """Reason code -> how many."""
        return dict(sorted(Counter(self._bad.read(("code",)).column("code").to_pylist()).items()))

    def forget(self, origins: Iterable[tuple[str, str]]) -> None:
        """Leave no byte of these (source, key) in either table, nor in its old versions."""
        by_source: dict[str, list[str]] = {}
        for source, key in sorted(origins):
            by_source.setdefault(source, []).extend(sorted({text(key), text(key).split("#")[0]}))
        for table in (self._files, self._bad):
            table.refresh()
            for source, keys in by_source.items():
                self._delete(table, source, keys)
            table.purge()

    @staticmethod
    def _delete(table: Table, source: str, keys: Sequence[str]) -> None:
        for i in range(0, len(keys), 500):
            listed = ", ".join(quote(k) for k in keys[i : i + 500])
            table.delete(f"source = {quote(text(source))} AND key IN ({listed})")


def text(value: str) -> str:
    """As Arrow can hold it."""
    return str(sql_text(value))


def _append(table: Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        table.append(iter(pa.Table.from_pylist(rows, schema=table.schema).to_batches()))
