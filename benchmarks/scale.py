"""Near-duplicates and a split of 10^4, 10^5 and 10^6 synthetic reports: seconds, peak memory, recall, growth.

Run: python benchmarks/scale.py [--json] [--rows 10000 100000 1000000] [--runner local] [--max-memory BYTES]. Each size
runs in a process of its own, whose peak resident memory (and that of its workers) is read from the system:
`curate.run` of `TextDuplicates` and `BySubject` over a corpus that another process wrote. A tenth of the reports are
edited copies of others (one word in sixty changed, half of them in upper case): the share that is dropped is the
recall. The row of each size compares its seconds a record with those of the smallest: 1 is linear growth.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

COPIES = 10  # every tenth
WORDS = 60
_BLOCK = 10_000


def vocabulary() -> list[str]:
    """6,000 words of three syllables."""
    syllables = [a + b for a in "bdfglmnprstv" for b in "aeiou"]
    return [a + b + c for a in syllables[:10] for b in syllables[:10] for c in syllables]


def texts(start: int, end: int) -> list[str]:
    """Reports of `WORDS` words, the same for the same number; each tenth an edited copy of the one nine before."""
    out, words = [], vocabulary()
    for lo in range(start - start % _BLOCK, end, _BLOCK):
        rng = np.random.default_rng([7, lo])
        drawn = (5000 * rng.random((_BLOCK, WORDS)) ** 2).astype(np.int64)  # frequent words and rare ones
        drawn[COPIES - 1 :: COPIES] = drawn[::COPIES]
        places = rng.integers(0, WORDS, len(drawn[::COPIES]))
        drawn[np.arange(COPIES - 1, _BLOCK, COPIES), places] = 5000 + np.arange(len(places))
        for i in range(max(start, lo), min(end, lo + _BLOCK)):
            text = " ".join([words[k] for k in drawn[i - lo].tolist()])
            out.append(text.upper() if i % 20 == 19 else text)
    return out


def write(path: Path, rows: int) -> None:
    from fabrica.corpus import Corpus
    from fabrica.types import Item, Origin, Record, record_id

    origin = Origin("synthetic", "benchmarks/scale.py", "", "CC0-1.0", by="synthetic")
    corpus = Corpus.at(path)

    def records(lo: int, hi: int) -> Iterator[Record]:
        for i, text in enumerate(texts(lo, hi), lo):
            items = {"report": (Item("text", text, origin),)}
            yield Record(record_id("scale", str(i)), f"p{i // 3}", {"source": "synthetic"}, items)

    for lo in range(0, rows, 100_000):
        corpus.append(records(lo, min(lo + 100_000, rows)))


def curate(source: Path, into: Path, runner: Any, memory: int, out: Any) -> None:
    from fabrica import curate as room
    from fabrica.corpus import Corpus
    from fabrica.curate.duplicates.dedup import TextDuplicates
    from fabrica.curate.split import BySubject

    marks: list[tuple[str, float]] = []

    def progress(done: int, total: int | None, what: str) -> None:
        if not marks or marks[-1][0] != what:
            marks.append((what, time.perf_counter()))

    begun = time.perf_counter()
    report = room.run(
        [TextDuplicates(), BySubject()], Corpus.open(source), into, runner=runner, max_memory=memory, progress=progress
    )
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ends = [at for _, at in marks[1:]] + [time.perf_counter()]
    out.put(
        {
            "seconds": report.seconds, "kept": report.kept, "peak": peak * 1024, "start": marks[0][1] - begun,
            "dropped": sum(report.dropped["text_duplicates"].values()),
            "phases": {what: round(end - at, 1) for (what, at), end in zip(marks, ends, strict=True)},
        }
    )  # fmt: skip


def child(function: Any, *given: Any) -> Any:
    """Run in a fresh process; what it puts."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    process = context.Process(target=function, args=(*given, out) if function is curate else given)
    process.start()
    result = out.get() if function is curate else None
    process.join()
    assert process.exitcode == 0
    return result


def measured(rows: int, runner: str, memory: int) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="scale"))
    try:
        child(write, folder / "source", rows)
        found = child(curate, folder / "source", folder / "out", runner, memory)
    finally:
        shutil.rmtree(folder)
    return {"rows": rows, "recall": found["dropped"] / (rows // COPIES), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--runner", default="local")
    parser.add_argument("--max-memory", type=int, default=4 << 30, help="bytes")
    given = parser.parse_args()
    found = []
    for rows in given.rows:
        found.append(measured(rows, given.runner, given.max_memory))
        if not given.json:
            f = found[-1]
            speed, peak = rows / f["seconds"], f["peak"] / 2**20
            print(
                f"{rows:>9} rows {f['seconds']:>7.1f} s {speed:>7.0f} rows/s {peak:>6.0f} MiB recall {f['recall']:.4f}"
            )
            print(f"          {f['phases']}", flush=True)
    if given.json:
        print(json.dumps({"rows": [row for f in found for row in table(f, found[0], given)]}))


def table(f: dict[str, Any], first: dict[str, Any], given: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows for benchmarks/table.py: the peer is the smallest size, the bound or the planted copies."""
    n, each = f["rows"], f["seconds"] / f["rows"]
    linear = first["seconds"] / first["rows"]
    sizes = f"{n:,} reports, {given.runner}"
    return [
        {"job": f"{sizes}: near-duplicates and split", "ours": round(n / f["seconds"]), "peer": round(1 / linear),
         "peer_name": f"ours at {first['rows']:,}", "unit": "records/s", "ratio": round(linear / each, 3),
         "roof": "", "n": n},
        {"job": f"{sizes}: peak memory", "ours": round(f["peak"] / 2**20), "peer": round(given.max_memory / 2**20),
         "peer_name": "the bound", "unit": "MiB", "ratio": round(given.max_memory / f["peak"], 3), "roof": "", "n": n},
        {"job": f"{sizes}: planted copies found", "ours": round(f["recall"], 4), "peer": 0.99, "peer_name": "the bar",
         "unit": "share", "ratio": round(f["recall"] / 0.99, 4), "roof": 1.0, "n": n // COPIES},
    ]  # fmt: skip


if __name__ == "__main__":
    main()
