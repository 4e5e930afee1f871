"""A small key -> JSON store in one SQLite file: every write whole, many threads and processes, safe to kill."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fabrica.errors import Full, Refused, UsageError

_WAIT = 60.0  # seconds for another writer
_MOST = 16  # files that one thread keeps open
_open = threading.local()
_FORKED: list[sqlite3.Connection] = []


@contextlib.contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for one transaction, committed at the end; errors of SQLite as errors of this library.

    A killed process loses nothing that was committed; a power failure may lose the last moments, never the file.
    """
    try:
        connection = _connection(path.absolute())
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.rollback()
            raise
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise Full(f"no space left to write {str(path)!r}; nothing partial was kept") from error
        raise UsageError(f"{str(path)!r} cannot be written: {error}; give a file in a folder you may write") from error
    except sqlite3.DatabaseError as error:
        raise Refused("store_bad", f"{str(path)!r} is no store of replies: {error}; give another file") from error


def _connection(path: Path) -> sqlite3.Connection:
    """This thread's connection to a file; a new one after a fork, or where another file took the name."""
    held: dict[Path, tuple[int, int, sqlite3.Connection]] = _open.__dict__.setdefault("held", {})
    process, file = os.getpid(), path.stat().st_ino if path.exists() else 0
    if path in held:
        owner, inode, connection = held[path]
        if (owner, inode) == (process, file):
            return connection
        del held[path]
        if owner == process:
            connection.close()
        else:
            _FORKED.append(connection)  # the parent's: never closed here
    while len(held) >= _MOST:
        held.pop(next(iter(held)))[2].close()
    connection = sqlite3.connect(path, timeout=_WAIT, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error:
        connection.close()
        raise
    held[path] = (process, path.stat().st_ino, connection)
    return connection


class Store:
    """Keys and JSON values in a file.

    >>> import tempfile
    >>> store = Store(Path(tempfile.mkdtemp()) / "a.sqlite")
    >>> store.once("k", lambda: {"n": 1}), store.once("k", lambda: {"n": 2}), len(store)
    ({'n': 1}, {'n': 1}, 1)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._locks, self._guard = dict[str, tuple[threading.Lock, int]](), threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with database(self.path) as db:
            db.execute("CREATE TABLE IF NOT EXISTS pair (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")

    def __len__(self) -> int:
        with database(self.path) as db:
            return int(db.execute("SELECT count(*) FROM pair").fetchone()[0])

    def get(self, key: str) -> Any | None:
        """The value, or None."""
        with database(self.path) as db:
            row = db.execute("SELECT value FROM pair WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, value: Any) -> None:
        """Keep a value; an older one of the key is replaced."""
        with database(self.path) as db:
            db.execute("INSERT OR REPLACE INTO pair VALUES (?, ?)", (key, json.dumps(value)))

    def once(self, key: str, make: Callable[[], Any], keep: Callable[[Any], bool] = lambda _: True) -> Any:
        """The kept value; else `make()`, kept if `keep` says so. Threads that ask for one key wait for each other."""
        found = self.get(key)
        if found is not None:
            return found
        with self._one(key):
            found = self.get(key)
            if found is None:
                found = make()
                if keep(found):
                    self.put(key, found)
        return found

    @contextlib.contextmanager
    def _one(self, key: str) -> Iterator[None]:
        with self._guard:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                users = self._locks[key][1] - 1
                if users:
                    self._locks[key] = (lock, users)
                else:
                    del self._locks[key]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]
