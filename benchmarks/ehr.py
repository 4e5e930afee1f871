"""EHR tables to events, against a pandas baseline: time and peak memory.

Run: python benchmarks/ehr.py [--json] [--rows 1000000] [--runs 3] [--folder FOLDER]. A synthetic folder in MIMIC-IV's
layout (patients, admissions, diagnoses, prescriptions, laboratory values: --rows of these), or a real one by --folder.
Job 1: all tables to one stream of events (patient, time, code, value) sorted by patient and time. Job 2: one record a
patient, as a corpus has it; pandas builds the same groups (hours, codes, values a time). The baseline reads each
table with `read_csv(usecols, dtype=str)`, writes codes by string addition, concatenates and sorts. Both sides' events
are compared once (count, and the sum of values). Alternately in one process; medians. Memory: the peak of a
fresh process each, minus that of the imports. Ratio: peer / ours, above 1 we win. Roof: pyarrow parsing the same files
and dropping them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.sources import Quarantined, Ref, ehr, mimic

PEER = "pandas"
COLUMNS = {
    "patients": ["subject_id", "gender", "anchor_age", "anchor_year"],
    "admissions": ["subject_id", "hadm_id", "admittime", "dischtime", "admission_type", "discharge_location"],
    "diagnoses_icd": ["subject_id", "hadm_id", "icd_code", "icd_version"],
    "prescriptions": ["subject_id", "starttime", "stoptime", "drug"],
    "labevents": ["subject_id", "itemid", "charttime", "valuenum", "valueuom"],
}


def synthetic(folder: Path, rows: int) -> None:
    """Tables of MIMIC-IV's names and columns; 200 laboratory rows a patient, in no order."""
    import pandas as pd

    rng = np.random.default_rng(0)
    people = max(rows // 200, 1)
    start = np.datetime64("2150-01-01T00:00:00")

    def when(n: int) -> Any:
        seconds = rng.integers(0, 5 * 365 * 86400, n).astype("timedelta64[s]")
        return pd.Series(start + seconds).dt.strftime("%Y-%m-%d %H:%M:%S")

    who = np.arange(people) + 10_000_000
    ages = {"anchor_age": rng.integers(18, 90, people), "anchor_year": 2150}
    pd.DataFrame({"subject_id": who, "gender": rng.choice(["F", "M"], people), **ages}).to_csv(
        folder / "patients.csv", index=False
    )
    stays = people * 3
    of = rng.choice(who, stays)
    pd.DataFrame({
        "subject_id": of, "hadm_id": np.arange(stays) + 20_000_000, "admittime": when(stays), "dischtime": when(stays),
        "admission_type": rng.choice(["URGENT", "ELECTIVE"], stays),
        "discharge_location": rng.choice(["HOME", "SNF"], stays),
    }).to_csv(folder / "admissions.csv", index=False)  # fmt: skip
    n = rng.integers(0, stays, rows // 20)
    pd.DataFrame({
        "subject_id": of[n], "hadm_id": n + 20_000_000, "icd_version": 10,
        "icd_code": [f"E{k:04}" for k in rng.integers(0, 3000, len(n))],
    }).to_csv(folder / "diagnoses_icd.csv", index=False)  # fmt: skip
    n = rows // 10
    pd.DataFrame({
        "subject_id": rng.choice(who, n), "starttime": when(n), "stoptime": when(n),
        "drug": [f"Drug {k}" for k in rng.integers(0, 800, n)],
    }).to_csv(folder / "prescriptions.csv", index=False)  # fmt: skip
    pd.DataFrame({
        "labevent_id": np.arange(rows), "subject_id": rng.choice(who, rows),
        "itemid": rng.integers(50_800, 51_300, rows),
        "charttime": when(rows), "value": "text", "valuenum": rng.normal(50, 20, rows).round(2), "valueuom": "mg/dL",
        "comments": "",
    }).to_csv(folder / "labevents.csv", index=False)  # fmt: skip


def ours_events(folder: Path) -> tuple[int, float]:
    """Events and the sum of their values."""
    import pyarrow.compute as pc

    count, total = 0, 0.0
    ref = Ref(folder / "patients.csv", "patients.csv", "synthetic")
    for table in ehr.event_tables(ref, mimic.MIMIC4):
        events = table.filter(pc.equal(table.column("kind"), 0))
        count += events.num_rows
        total += pc.sum(events.column("value")).as_py() or 0.0
    return count, total


def ours_records(folder: Path) -> tuple[int, float]:
    """Events of the records and the sum of their values."""
    count, total = 0, 0.0
    for found in ehr.read(Ref(folder / "patients.csv", "patients.csv", "synthetic"), mimic.MIMIC4):
        if not isinstance(found, Quarantined):
            for item in found.items.get("events", ()):
                count += len(item.names)
                total += float(item.array().sum(dtype=np.float64))
            count += sum(item.text().count("\n") + 1 for item in found.items.get("codes", ()))
    return count, total


def their_frame(folder: Path) -> Any:
    """The baseline's events, sorted."""
    import pandas as pd

    t = {name: pd.read_csv(folder / f"{name}.csv", usecols=wanted, dtype=str) for name, wanted in COLUMNS.items()}
    a, d, p, lab = t["admissions"], t["diagnoses_icd"], t["prescriptions"], t["labevents"]
    d = d.merge(a[["hadm_id", "dischtime"]], on="hadm_id", how="left")
    value = pd.to_numeric(lab.valuenum, errors="coerce")
    parts = [
        (t["patients"].subject_id, None, "GENDER//" + t["patients"].gender, None),
        (a.subject_id, a.admittime, "HOSPITAL_ADMISSION//" + a.admission_type, None),
        (a.subject_id, a.dischtime, "HOSPITAL_DISCHARGE//" + a.discharge_location, None),
        (d.subject_id, d.dischtime, "DIAGNOSIS//ICD//" + d.icd_version + "//" + d.icd_code, None),
        (p.subject_id, p.starttime, "MEDICATION//START//" + p.drug, None),
        (p.subject_id, p.stoptime, "MEDICATION//STOP//" + p.drug, None),
        (lab.subject_id, lab.charttime, "LAB//" + lab.itemid + "//" + lab.valueuom, value),
    ]
    frames = [pd.DataFrame({"who": w, "time": pd.to_datetime(at), "code": c, "value": v}) for w, at, c, v in parts]
    events = pd.concat(frames, ignore_index=True)
    return events.sort_values(["who", "time"], kind="stable", na_position="first", ignore_index=True)


def their_events(folder: Path) -> tuple[int, float]:
    """Events and the sum of their values."""
    events = their_frame(folder)
    return len(events), float(events.value.sum())


def their_records(folder: Path) -> tuple[int, float]:
    """The same groups as a record holds: lists of codes and of values by patient and hours since the first."""
    events = their_frame(folder)
    events["hours"] = (events.time - events.groupby("who").time.transform("min")).dt.total_seconds() / 3600
    numeric = events.value.notna()
    events["value"] = events.value.astype(np.float32)
    count, total = 0, 0.0
    for part in (events[numeric], events[~numeric]):
        groups = part.groupby(["who", "hours"], sort=False, dropna=False).agg({"code": list, "value": list})
        for (_, _), names, values in zip(groups.index, groups.code, groups.value, strict=True):
            count += len(names)
            got = np.array(values, np.float32).sum(dtype=np.float64)
            total += 0.0 if np.isnan(got) else float(got)
    return count, total


def roof(folder: Path) -> float:
    from pyarrow import csv

    begun = time.perf_counter()
    for name in COLUMNS:
        for _ in csv.open_csv(folder / f"{name}.csv"):
            pass
    return time.perf_counter() - begun


JOBS: dict[str, tuple[Callable[[Path], tuple[int, float]], Callable[[Path], tuple[int, float]]]] = {
    "events": (ours_events, their_events),
    "records": (ours_records, their_records),
}


def peak(job: str, side: int, folder: Path) -> float:
    """MiB that a fresh process needs for one side of a job, beyond its imports."""
    command = [sys.executable, __file__, "--measure", job, str(side), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def most() -> int:
    """The most KiB that this process has had in memory (ru_maxrss would begin at its parent's)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(job: str, side: int, folder: Path) -> None:
    import pandas  # noqa: F401
    import pyarrow.compute
    import pyarrow.csv  # noqa: F401

    before = most()
    JOBS[job][side](folder)
    print((most() - before) / 1024)


def compare(folder: Path, runs: int) -> list[dict[str, Any]]:
    rows = []
    limit = roof(folder)
    for job, sides in JOBS.items():
        times: tuple[list[float], list[float]] = ([], [])
        results = [(0, 0.0), (0, 0.0)]
        for _ in range(runs):
            for side, function in enumerate(sides):
                begun = time.perf_counter()
                results[side] = function(folder)
                times[side].append(time.perf_counter() - begun)
        (mine, total), (theirs, other) = results
        if mine != theirs or abs(total - other) > 1e-4 * abs(other):
            raise SystemExit(f"{job}: the sides differ: {results}")
        a, b = (statistics.median(t) for t in times)
        rows.append(row(f"EHR tables to {job}", a, b, "s", round(limit, 3), mine))
        a, b = (peak(job, side, folder) for side in (0, 1))
        rows.append(row(f"EHR tables to {job}, peak memory", a, b, "MiB", 0.0, mine))
    return rows


def row(job: str, ours: float, peer: float, unit: str, limit: float, n: int) -> dict[str, Any]:
    return {
        "job": job, "ours": round(ours, 3), "peer": round(peer, 3), "peer_name": PEER, "unit": unit,
        "ratio": round(peer / max(ours, 1e-9), 2), "roof": limit, "roof_name": "pyarrow parsing the files", "n": n,
    }  # fmt: skip


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", nargs=2, metavar=("JOB", "SIDE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure[0], int(given.measure[1]), given.folder)
        return
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        if given.folder is None:
            synthetic(folder, given.rows)
        rows = compare(folder, given.runs)
    if given.json:
        print(json.dumps({"rows": rows}))
        return
    for r in rows:
        print(f"{r['job']:<36} ours {r['ours']:>9.2f} {r['unit']:<4} {PEER} {r['peer']:>9.2f}  x{r['ratio']:<6} "
              f"roof {r['roof']}, n = {r['n']:,}")  # fmt: skip


if __name__ == "__main__":
    main()
