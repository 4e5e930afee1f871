"""Best 30 % of a pool by score, or rare uids, against pandas: seconds and peak memory, at 10^7 rows (peer) and beyond.

Run: python benchmarks/pool_selection.py [--json] [--rows 10000000] [--alone 100000000]. The pool lies in Parquet shards
of 10^6 rows as DataComp's metadata does. Each job runs in a process of its own, whose peak resident memory is read from
the system. At `--rows` pandas does the same on the whole table; at `--alone` (0 = not run) it would need some 30 GB, so
the row stands against the bound of 2 GB (S51's sheet).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SHARD = 1_000_000
BOUND = 2_000_000_000  # bytes


def write(folder: Path, rows: int) -> None:
    """Shards with 32 hex digits and a score a row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    for k in range(rows // SHARD):
        rng = np.random.default_rng([51, k])
        digits = rng.bytes(16 * SHARD).hex().encode()
        ends = pa.py_buffer((32 * np.arange(SHARD + 1, dtype=np.int32)).tobytes())
        uid = pa.StringArray.from_buffers(SHARD, ends, pa.py_buffer(digits))
        score = pa.array(rng.random(SHARD, dtype=np.float32))
        pq.write_table(pa.table({"uid": uid, "score": score}), folder / f"{k:05}.parquet", row_group_size=SHARD // 4)


def ours(folder: Path, out: Any) -> None:
    """`choose` into a subset on disk."""
    from fabrica.curate.pools.select import Pool, Random, TopFraction, choose

    begun = time.perf_counter()
    made = choose(TopFraction("score", 0.3) | Random(0.01, seed=1), Pool.open(folder), folder.parent / "subset.npy")
    out.put((time.perf_counter() - begun, _peak(), len(made.subset)))


def pandas(folder: Path, out: Any) -> None:
    """The same on a table in memory: quantile, draw, uids sorted and saved."""
    import pandas as pd

    begun = time.perf_counter()
    table = pd.read_parquet(folder)
    keep = table["score"].to_numpy() >= table["score"].quantile(0.7)
    keep |= np.random.default_rng(1).random(len(table)) < 0.01
    uids = np.array([(int(u[:16], 16), int(u[16:], 16)) for u in table["uid"][keep]], "u8,u8")
    np.save(folder.parent / "pandas.npy", np.sort(uids))
    out.put((time.perf_counter() - begun, _peak(), len(uids)))


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def alone(function: Any, folder: Path) -> tuple[float, int, int]:
    """Seconds, peak bytes and rows kept of a job in a fresh process."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    process = context.Process(target=function, args=(folder, out))
    process.start()
    found: tuple[float, int, int] = out.get()
    process.join()
    return found


def rows_of(rows: int, peer: bool) -> list[dict[str, Any]]:
    """Rows for benchmarks/table.py at one size."""
    root = Path(tempfile.mkdtemp(prefix="selectors"))
    try:
        write(root / "pool", rows)
        seconds, peak, kept = alone(ours, root / "pool")
        theirs = alone(pandas, root / "pool") if peer else (0.0, BOUND, kept)
        scan = _scan(root / "pool")
    finally:
        shutil.rmtree(root)
    assert abs(theirs[2] - kept) < 0.01 * kept, "the two keep different shares"
    job = f"best 30 % or 1 % at random of {rows:,} rows"
    memory = {"job": f"{job}: peak memory", "unit": "bytes", "ours": peak, "peer": theirs[1], "n": rows,
              "roof": 16 * kept, "peer_name": "pandas" if peer else "bound", "ratio": theirs[1] / peak}  # fmt: skip
    speed = {"job": f"{job}: time", "unit": "s", "ours": seconds, "peer": theirs[0], "n": rows, "roof": scan,
             "peer_name": "pandas", "ratio": theirs[0] / seconds}  # fmt: skip
    return [speed, memory] if peer else [memory]


def _scan(folder: Path) -> float:
    """The roof: seconds to read both columns and do nothing."""
    import pyarrow.parquet as pq

    begun = time.perf_counter()
    for file in sorted(folder.iterdir()):
        pq.read_table(file, use_threads=False)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--alone", type=int, default=100_000_000)
    given = parser.parse_args()
    found = rows_of(given.rows, True) + (rows_of(given.alone, False) if given.alone else [])
    if given.json:
        print(json.dumps({"rows": found}))
        return
    for r in found:
        print(
            f"{r['job']}: {r['ours']:.4g} against {r['peer']:.4g} {r['unit']} ({r['peer_name']}), roof {r['roof']:.4g}"
        )


if __name__ == "__main__":
    main()
