"""Reads every file of a folder in this process and prints, as JSON, what came of each, its seconds and its peak memory.

Usage: measure_reads.py FOLDER. Warm files (names beginning with "0") are read first, so that imports do not count.
"""

import json
import sys
import time
from pathlib import Path

from fabrica.sources import Quarantined, read, walk


def peak_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    rows = []
    for ref in walk(sys.argv[1], source="hostile", licence="CC0-1.0"):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again here
        before, started = peak_mib("VmRSS"), time.perf_counter()
        found = [f.code if isinstance(f, Quarantined) else "record" for f in read(ref)]
        seconds = time.perf_counter() - started
        rows.append([ref.key, found, seconds, peak_mib("VmHWM") - before])
    print(json.dumps(rows))


main()
