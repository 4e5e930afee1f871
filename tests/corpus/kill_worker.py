"""Runs ingests asked for on stdin, each in a forked child that the test may kill. Not a test.

A line `ROOT CORPUS DELAY` starts one; DELAY seconds later it is killed with SIGKILL if it still runs. Answers the
child's exit status: 0 done, -9 killed. Modules are imported once, before the forks, and nothing else is done here.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import lance  # noqa: F401 - imported before the forks, used after
import PIL.PngImagePlugin  # noqa: F401

import fabrica.corpus.store
import fabrica.sources.image
import fabrica.sources.table
import fabrica.sources.text
from fabrica.corpus import ingest as module


def child(root: str, path: str) -> None:
    module.MIB = 1 << 12  # a write every few records
    module.ingest(root, fabrica.corpus.store.Corpus.at(path), source="made", licence="CC0-1.0", max_memory=1)


def main() -> None:
    for line in sys.stdin:
        root, path, delay = line.split()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child(root, path)
                code = 0
            finally:
                os._exit(code)
        until = time.monotonic() + float(delay)
        done = 0
        while time.monotonic() < until and not (done := os.waitpid(pid, os.WNOHANG)[0]):
            time.sleep(0.0005)
        if not done:
            os.kill(pid, signal.SIGKILL)
        status = 0 if done else os.waitpid(pid, 0)[1]
        print(os.waitstatus_to_exitcode(status) if not done else 0, flush=True)


if __name__ == "__main__":
    main()
