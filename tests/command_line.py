"""Runs the command line as a person does: its output and its exit code, in a process of its own or in this one."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUICK = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What --json printed: one line, one object."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    def refused(self, code: int, *words: str) -> None:
        """One message, no traceback, an exit code, and the words that say what came, what was wanted, what to do."""
        assert self.code == code, (self.code, self.out, self.err)
        assert "Traceback" not in self.err
        messages = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(messages) == 1, self.err
        for word in words:
            assert word in messages[0], (word, messages[0])


def fabrica(
    *args: str | Path, cwd: Path, env: Mapping[str, str] | None = None, prefix: Sequence[str] = (), timeout: float = 240
) -> Ran:
    command = [*prefix, sys.executable, "-m", "fabrica", *map(str, args)]
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **QUICK, **(env or {})}, capture_output=True, text=True, timeout=timeout
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def inside(*args: str | Path, cwd: Path) -> Ran:
    """The same in this process: no import is paid twice."""
    from fabrica.cli import main

    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["fabrica", *map(str, args)]
    try:
        with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        return Ran(int(end.code or 0), out.getvalue(), err.getvalue())
    finally:
        sys.argv = before
    raise AssertionError("main() ends with SystemExit")


def tree(folder: Path) -> list[str]:
    """Everything under a folder, for "nothing half-written"."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))
