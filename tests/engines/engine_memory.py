"""Curate N records of an engine in this process and print the peak of its anonymous memory, sampled."""

import json
import re
import sys
import threading
import time
from pathlib import Path

from engine_cases import ENGINES

from fabrica import curate
from fabrica.corpus import Corpus

BOUND = 2 << 20  # bytes


def anonymous() -> int:
    return int(re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024


def main() -> None:
    name, rows, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    engine = ENGINES[name]
    corpus = Corpus.at(folder / "source")
    for part in range(0, rows, 150):
        corpus.append(engine.make(150, part))
    peak, over = [anonymous()], threading.Event()

    def watch() -> None:
        while not over.is_set():
            peak[0] = max(peak[0], anonymous())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    report = curate.run(engine.plan(), Corpus.open(folder / "source"), folder / "out", max_memory=BOUND)
    over.set()
    watcher.join()
    size = sum(corpus.rows(["bytes"])["bytes"].to_pylist())
    print(json.dumps({"peak": peak[0], "read": report.read, "bytes": size, "bound": BOUND}))


if __name__ == "__main__":
    main()
