"""What a job will cost, from counts alone: minutes, memory, disk. A rough guess, to tell minutes from hours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabrica.job.spec import Job, SourceSpec
from fabrica.job.tasks import settings_of

# Seconds on 2 cores, measured with the demo.
READ, READ_BYTE = 0.004, 1 / 60e6  # a file, a byte
DRAW = 0.03  # an examination of the phantom hospital, drawn and written
CURATE = 0.008  # a record
STEP_PIXEL = {True: 3.5e-6, False: 5e-7}  # a picture's pixel, forward and back: pretrained towers, small ones
EMBED = {True: 0.02, False: 0.003}  # a record
TASK = 4.0  # bootstrap and probes
PHANTOM_BYTES = 60_000  # an examination on disk and as a record
ENTRY_RECORDS = 4_000  # of a catalogue entry, where nothing says more


@dataclass(frozen=True, slots=True)
class Cost:
    """Predicted `minutes`, `memory_mib` at the peak and `disk_mib` that stays."""

    minutes: float
    memory_mib: float
    disk_mib: float

    def __str__(self) -> str:
        return f"about {self.minutes:.1f} min, {self.memory_mib:.0f} MiB of memory, {self.disk_mib:.0f} MiB of disk"


def of_ingest(files: int, size: int, drawn: int = 0) -> Cost:
    """Of reading `files` of `size` bytes in all, and of drawing `drawn` examinations first."""
    seconds = files * READ + size * READ_BYTE + drawn * DRAW
    return Cost(seconds / 60, 400, 2 * size / 2**20)


def of_curate(records: int, size: int) -> Cost:
    """Of curating `records` whose decoded size is `size` bytes."""
    return Cost(records * CURATE / 60, 700, size / 2**20)


def of_train(settings: Any, pretrained: bool) -> Cost:
    """Of a preset: steps x batch x pixels."""
    side, batch, steps = (getattr(settings, k, d) for k, d in (("image_size", 64), ("batch", 64), ("steps", 0)))
    per = STEP_PIXEL[pretrained]
    return Cost(steps * batch * side**2 * per / 60, 1800 if pretrained else 900, 300 if pretrained else 30)


def of_evaluate(records: int, tasks: int = 1, pretrained: bool = True) -> Cost:
    """Of embedding `records` once and scoring `tasks`."""
    return Cost((records * EMBED[pretrained] + tasks * TASK) / 60, 1500, records * 8 / 1024)


def forecast(job: Job, base: Path, *, from_scratch: bool = False) -> dict[str, Cost]:
    """Stage -> cost of a whole job that nothing was done of yet."""
    from fabrica.systems import load_system

    counts = [_count(spec, base) for spec in job.source]
    files, size, drawn = (sum(c[i] for c in counts) for i in range(3))
    system = load_system(job.train.system)
    settings = settings_of(job.train, system, job.train.scratch if from_scratch else job.train.preset)
    return {
        "ingest": of_ingest(files, size, drawn),
        "curate": of_curate(files, size),
        "train": of_train(settings, not from_scratch),
        "evaluate": of_evaluate(files, len(job.task), not from_scratch),
        "report": Cost(0.3, 1500, 5),
    }


def total(costs: Mapping[str, Cost]) -> Cost:
    """Minutes and disk add up, memory is that of the largest stage."""
    parts = list(costs.values())
    return Cost(sum(c.minutes for c in parts), max(c.memory_mib for c in parts), sum(c.disk_mib for c in parts))


def _count(spec: SourceSpec, base: Path) -> tuple[int, int, int]:
    """Files or records, bytes, and examinations to draw of a source."""
    from fabrica import catalogue
    from fabrica.phantom import hospital

    if spec.phantom:
        n = spec.phantom * (1 + len(hospital.WRITTEN))
        return n, n * PHANTOM_BYTES, n
    if spec.catalogue:
        entry = catalogue.get(spec.catalogue)
        return min(spec.limit or ENTRY_RECORDS, ENTRY_RECORDS), entry.bytes, 0
    path = base / spec.path
    if not path.exists():
        return 0, 0, 0
    folder = path.parent / spec.columns.get("image_dir", "") if path.is_file() else path
    files = [p for p in (folder.rglob("*") if folder != path.parent else [path]) if p.is_file()]
    return min(spec.limit or len(files), len(files)), sum(p.stat().st_size for p in files), 0
