"""Units of a pass on Daft: its native engine (processes of this machine) or its Ray runner (a cluster).

Daft schedules; each worker runs whole units and leaves their parts on disk, where the engine takes them up in order.
Parts of units that were done stay for the next run. The corpus must lie where every worker sees it (one file system).
What waits is bounded: a worker holds one unit, of at most the engine's bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Literal

from fabrica.curate.engine.unit import Unit, Work
from fabrica.errors import FabricaError, Full, MissingExtra, Refused, UsageError, need

Runner = Literal["local", "daft", "ray"]
RUNNERS: tuple[Runner, ...] = ("local", "daft", "ray")
_TASKS = 16  # partitions a worker on Ray: more let the engine take up parts sooner, each costs about 30 ms
_STOP = "stop"  # a file of the pass: workers leave what they have not begun
_QUIET = {  # no call home
    "DAFT_ANALYTICS_ENABLED": "0", "DO_NOT_TRACK": "true", "SCARF_NO_ANALYTICS": "true", "RAY_USAGE_STATS_ENABLED": "0",
    "DAFT_PROGRESS_BAR": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}  # fmt: skip


class _Worker:
    """Lives as long as its process does; the plan's steps with it."""

    def __init__(self, work: Work) -> None:
        self.unit = Unit(work)

    def run(self, starts: Any, ends: Any) -> list[str]:
        """What came of each unit, as JSON. Errors that a user can mend are values here: Daft would hide their kind."""
        said: list[dict[str, Any]] = []
        for start, end in zip(starts.to_pylist(), ends.to_pylist(), strict=True):
            try:
                stopped = (self.unit.work.folder / _STOP).exists()
                said.append({} if stopped else self.unit.write(start, end))
            except FabricaError as error:
                said.append({"failed": type(error).__name__, "code": error.code, "message": str(error)})
        return [json.dumps(each) for each in said]


def run(
    work: Work, units: Sequence[tuple[int, int]], runner: Runner, workers: int
) -> Generator[tuple[tuple[int, int], dict[str, Any]], None, None]:
    """Each unit and what `Unit.write` says of it, as they end, in any order."""
    daft = start(runner, workers)
    said = daft.method.batch(return_dtype=daft.DataType.string(), batch_size=1)(_Worker.run)
    kind = type("_Worker", (_Worker,), {"run": said})
    made = daft.cls(kind, use_process=True, max_concurrency=workers)(work)
    frame = daft.from_pydict({"start": [u[0] for u in units], "end": [u[1] for u in units]})
    if runner == "ray":
        frame = frame.into_partitions(min(len(units), workers * _TASKS))
    frame = frame.with_column("said", made.run(frame["start"], frame["end"]))
    before = _children()
    rows, stop = iter(frame.iter_rows(results_buffer_size=2 * workers)), work.folder / _STOP
    stop.unlink(missing_ok=True)
    try:
        for row in rows:
            told = json.loads(row["said"])
            if "failed" in told:
                raise _error(told)
            yield (row["start"], row["end"]), told
    finally:  # Daft ends its workers in a thread, and aborts a process that exits meanwhile: wait for both
        stop.touch()
        for _ in rows:
            pass
        if runner == "daft":
            _gone(before)


def _children() -> frozenset[str]:
    """Processes that this one has begun, as Linux lists them; none elsewhere."""
    found: set[str] = set()
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found.update(file.read_text().split())
    return frozenset(found)


def _gone(before: frozenset[str], seconds: float = 10.0) -> None:
    """Wait until the processes that were begun since have ended, and the thread that waits for them has."""
    until = time.monotonic() + seconds
    while _children() - before and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)


def start(runner: Runner, workers: int) -> Any:
    """Daft, set to a runner; a process can have one kind alone."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    daft = need("daft", "scale")
    if runner == "ray":
        _ray(workers)
    kind = "ray" if runner == "ray" else "native"
    with contextlib.suppress(daft.exceptions.DaftCoreException):  # set before: then it must be the same
        daft.set_runner_ray(noop_if_initialized=True) if kind == "ray" else daft.set_runner_native()
    if (now := daft.get_or_infer_runner_type()) != kind:
        raise UsageError(f"Daft runs on {now!r} in this process and cannot change to {kind!r}; start a new process")
    return daft


def _ray(workers: int) -> None:
    """The cluster that `ray.init` or RAY_ADDRESS names, or one of this machine alone."""
    ray = need("ray", "scale")
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    else:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")


def _error(told: dict[str, Any]) -> FabricaError:
    if told["failed"] == "Refused":
        return Refused(told["code"], told["message"].removesuffix(f" [{told['code']}]"))
    kinds = {kind.__name__: kind for kind in (UsageError, MissingExtra, Full)}
    return kinds.get(told["failed"], FabricaError)(told["message"])
