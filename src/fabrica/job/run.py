"""Run a job: ingest, curate, train, evaluate, report. Each stage leaves its mark; a second run takes seconds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabrica.errors import FabricaError, UsageError
from fabrica.job import marks, read
from fabrica.job.spec import Job
from fabrica.job.tasks import check, check_labels, learned_roles, plan_of, settings_of, tasks_of

if TYPE_CHECKING:
    from fabrica.corpus import Corpus
    from fabrica.models import Bundle
    from fabrica.types import Score, System

Progress = Callable[[int, int | None, str], None]
Say = Callable[[str], None]
TRAIN = "split = 'train'"
SAVE_EVERY = 20  # steps between checkpoints: what a kill costs at most


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job left: the report's path, the scores, tasks that gave none (name, why), seconds of each stage in this
    call, and notes on what was left out or done another way."""

    report: Path
    scores: list[Score]
    unscored: list[tuple[str, str]]
    seconds: dict[str, float]
    notes: list[str]


@dataclass(slots=True)
class Run:
    """One run under way: where it writes, who watches, what it may fetch."""

    job: Job
    out: Path
    fetch: bool
    from_scratch: bool
    seed: int
    max_memory: int
    progress: Progress | None
    say: Say
    base: Path
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Say it now, and in the report."""
        self.notes.append(text)
        self.say(f"  {text}")

    @contextmanager
    def stage(self, name: str, *folders: str) -> Iterator[_Stage]:
        """Time a stage; where it worked, what it cost goes to cost.json: seconds, peak memory, disk."""
        began, stage = time.perf_counter(), _Stage()
        _peak_reset()
        self.say(f"{name} ...")
        yield stage
        seconds = time.perf_counter() - began
        self.seconds[name] = round(seconds, 1)
        costs = marks.read(self.out / "cost.json")
        if stage.worked or name not in costs:
            disk = marks.mib(*(self.out / f for f in folders))
            costs[name] = {"seconds": round(seconds, 1), "peak_mib": _peak_mib(), "disk_mib": disk}
            marks.write(self.out / "cost.json", costs)
        self.say(f"{name}: {seconds:.1f} s" + ("" if stage.worked else ", done before"))


@dataclass(slots=True)
class _Stage:
    """Whether the stage had work to do."""

    worked: bool = False


def run(
    job: Job, out: Path, *, fetch: bool = False, from_scratch: bool = False, seed: int = 0, allow_leak: bool = False,
    max_memory: int = 1 << 30, progress: Progress | None = None, say: Say = print, base: Path | None = None,
) -> Outcome:  # fmt: skip
    """The whole job into the folder `out`: `raw/` and `corpus/` (Lance), `model/`, `eval/`, `report.html`.

    `fetch` allows downloads of catalogue entries; `from_scratch` trains the preset that needs no pretrained weights.
    Relative paths in the job are relative to `base`. Killed at any moment, the same call goes on where it was.
    """
    check(job, base or Path())
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "job.json").exists())):
        here = "a folder of other things" if out.is_dir() else "a file"
        raise UsageError(f"--out {out} is {here}; give a new or empty folder, or one of an earlier run")
    out.mkdir(parents=True, exist_ok=True)
    r = Run(job, out, fetch, from_scratch, seed, max_memory, progress, say, base or Path())
    marks.write(out / "job.json", {"title": job.title})
    with marks.locked(out):
        with r.stage("ingest", "raw", "phantom") as stage:
            raw, stage.worked = read.ingest(r)
        with r.stage("curate", "corpus") as stage:
            corpus, stage.worked = _curate(r, raw)
        with r.stage("train", "model", "train") as stage:
            bundle, stage.worked = _train(r, corpus)
        with r.stage("evaluate", "eval") as stage:
            scores, stage.worked = _evaluate(r, corpus, bundle, allow_leak)
        with r.stage("report", "report.html") as stage:
            report, stage.worked = _report(r, raw, corpus, bundle)
    return Outcome(report, scores, _unscored(out / "eval"), r.seconds, r.notes)


# ---------------------------------------------------------------- stages


def _curate(r: Run, raw: Corpus) -> tuple[Corpus, bool]:
    from fabrica import curate
    from fabrica.corpus import Corpus

    before = _bytes(r.out / "corpus" / "curate.json")
    plan = plan_of(r.job, r.seed)
    report = curate.run(plan, raw, r.out / "corpus", max_memory=r.max_memory, progress=r.progress)
    r.say(f"  {report.kept} of {report.read} records kept")
    corpus = Corpus.open(r.out / "corpus")
    check_labels(r.job, corpus)
    return corpus, _bytes(r.out / "corpus" / "curate.json") != before


def _train(r: Run, corpus: Corpus) -> tuple[Bundle, bool]:
    """The system of the job; a trained model of the same words and records is loaded."""
    from fabrica.models.load import load
    from fabrica.systems import load_system
    from fabrica.train import fit

    system = load_system(r.job.train.system)
    preset = r.job.train.scratch if r.from_scratch or not _weights(r, system) else r.job.train.preset
    settings = settings_of(r.job.train, system, preset)
    mark = marks.mark(r.job.train.system, asdict(settings), marks.contents(corpus, TRAIN), r.seed)
    folder, work = r.out / "model", r.out / "train"
    if marks.read(r.out / "model.json").get("mark") == mark and (folder / "model.safetensors").is_file():
        return load(folder), False
    if marks.read(work / "mark.json").get("mark") != mark:
        shutil.rmtree(work, ignore_errors=True)
        marks.write(work / "mark.json", {"mark": mark})
    bundle = build(system, settings, corpus, r.seed)
    result = fit(
        bundle, system.stages(settings, bundle), corpus, work, seed=r.seed, save_every=SAVE_EVERY, progress=r.progress
    )
    r.say(f"  preset {preset!r}, {result.steps} steps")
    card = {
        "settings": asdict(settings), "preset": preset, "trained_on": corpus.split_hash(TRAIN), "steps": result.steps,
        "seed": r.seed, "licence": "see the licences of the training records",
    }  # fmt: skip
    type(bundle)(bundle.model, bundle.collate, {**bundle.card, **card}).save_pretrained(folder, replace=True)
    marks.write(r.out / "model.json", {"mark": mark})
    return load(folder), True


def build(system: System, settings: Any, corpus: Corpus, seed: int) -> Bundle:
    """The system's bundle with weights drawn from `seed`: the same in any process, whatever ran before."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bundle: Bundle = system.build(settings, corpus.scan(TRAIN, roles=learned_roles(system)))
    return bundle


def _weights(r: Run, system: System) -> bool:
    """Whether the catalogue's weights that the preset names are at hand, fetched now if that is allowed."""
    from fabrica import catalogue

    names = set(catalogue.names())
    try:
        for value in asdict(settings_of(r.job.train, system, r.job.train.preset)).values():
            if isinstance(value, str) and value in names:
                catalogue.fetch(value, allow_network=r.fetch, progress=r.progress)
                catalogue.weights(value)
    except FabricaError as error:
        r.note(f"pretrained weights are out of reach, preset {r.job.train.scratch!r} is trained instead: {error}")
        return False
    return True


def _evaluate(r: Run, corpus: Corpus, bundle: Bundle, allow_leak: bool) -> tuple[list[Score], bool]:
    from fabrica import evaluate
    from fabrica.evaluate.any_subset import with_subsets

    tasks = with_subsets(tasks_of(r.job.task), bundle)
    if not tasks:
        r.note("the job has no [[task]]: nothing is scored")
        return [], False
    before = _bytes(r.out / "eval" / "cards.json")
    scores = evaluate.run(
        bundle, corpus, r.out / "eval", tasks=tasks, seed=r.seed, allow_leak=allow_leak,
        trained_on=corpus, progress=r.progress,
    )  # fmt: skip
    for task, why in _unscored(r.out / "eval"):
        r.say(f"  not scored: {task}: {why}")
    return scores, _bytes(r.out / "eval" / "cards.json") != before


def _report(r: Run, raw: Corpus, corpus: Corpus, bundle: Bundle) -> tuple[Path, bool]:
    """The report, unless the one that stands there says the same."""
    from fabrica import __version__
    from fabrica.evaluate import report

    path, folder = r.out / "report.html", r.out / "eval"
    mark = marks.mark(
        __version__, r.job.title, r.notes, marks.read(folder / "cards.json"), marks.read(r.out / "model.json"),
        marks.read(r.out / "corpus" / "curate.json"), marks.contents(corpus), raw.version,
    )  # fmt: skip
    if path.is_file() and marks.read(r.out / "report.json").get("mark") == mark:
        return path, False
    if r.progress is not None:
        r.progress(0, None, "writing the report")
    report.write(
        path, corpus=corpus, raw=raw, curate=r.out / "corpus", train_log=r.out / "train" / "train.jsonl",
        scores=folder if (folder / "cards.json").is_file() else (), bundle=bundle, title=r.job.title,
        cost=marks.read(r.out / "cost.json"), notes=r.notes,
    )  # fmt: skip
    marks.write(r.out / "report.json", {"mark": mark})
    return path, True


def _unscored(folder: Path) -> list[tuple[str, str]]:
    return [(u["task"], u["why"]) for u in marks.read(folder / "cards.json").get("unscored", [])]


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


# ---------------------------------------------------------------- memory


def _peak_reset() -> None:
    """Let the kernel forget the peak so far, where it can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_mib() -> int:
    """Peak resident memory since the reset, or of the process where there is none."""
    import resource
    import sys

    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) // 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)
