"""Run a job: ingest, curate, train, evaluate, report. Each stage leaves its mark; a second run takes seconds."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabrica.errors import FabricaError, UsageError
from fabrica.job.spec import Job, SourceSpec
from fabrica.job.tasks import plan_of, tasks_of

if TYPE_CHECKING:
    from fabrica.corpus import Corpus
    from fabrica.models import Bundle
    from fabrica.types import Score

Progress = Callable[[int, int | None, str], None]
Say = Callable[[str], None]
BROKEN = 6  # files of the phantom hospital that are damaged on purpose, to show quarantine


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job left: the report's path, the scores, what each stage cost (seconds; 0 = it was done before)."""

    report: Path
    scores: list[Score]
    seconds: dict[str, float]
    notes: list[str]


@dataclass(slots=True)
class _Run:
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
    cost: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and say what it cost."""
        began = time.perf_counter()
        self.say(f"{name} ...")
        yield
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        known = _read(self.out / "cost.json").get(name, {})
        if seconds > known.get("seconds", 0.0) or not known:
            known = {"seconds": round(seconds, 1), "peak_mib": round(peak)}
        self.cost[name] = known | {"now": round(seconds, 1)}
        self.say(f"{name}: {seconds:.1f} s")


def run(
    job: Job, out: Path, *, fetch: bool = False, from_scratch: bool = False, seed: int = 0, allow_leak: bool = False,
    max_memory: int = 1 << 30, progress: Progress | None = None, say: Say = print, base: Path | None = None,
) -> Outcome:  # fmt: skip
    """The whole job into the folder `out`: `raw/` and `corpus/` (Lance), `model/`, `eval/`, `report.html`.

    `fetch` allows downloads of catalogue entries; `from_scratch` trains the preset that needs no pretrained weights.
    Relative paths in the job are relative to `base`. Killed at any moment, the same call goes on where it was.
    """
    out.mkdir(parents=True, exist_ok=True)
    r = _Run(job, out, fetch, from_scratch, seed, max_memory, progress, say, base or Path())
    with r.stage("ingest"):
        raw = _ingest(r)
    with r.stage("curate"):
        corpus = _curate(r, raw)
    with r.stage("train"):
        bundle = _train(r, corpus)
    with r.stage("evaluate"):
        scores = _evaluate(r, corpus, bundle, allow_leak)
    with r.stage("report"):
        report = _report(r, raw, corpus, bundle, scores)
    _write(out / "cost.json", {k: {n: x for n, x in v.items() if n != "now"} for k, v in r.cost.items()})
    return Outcome(report, scores, {k: v["now"] for k, v in r.cost.items()}, r.notes)


# ---------------------------------------------------------------- stages


def _ingest(r: _Run) -> Corpus:
    """Every source into `raw/`; a source that was read under the same words is not read again."""
    from fabrica.corpus import Corpus

    raw = Corpus.at(r.out / "raw")
    done = _read(r.out / "sources.json")
    for spec in r.job.source:
        mark = _mark(asdict(spec))
        if done.get(spec.name, {}).get("mark") == mark:
            r.notes += done[spec.name].get("notes", [])
            continue
        before = len(r.notes)
        try:
            _source(r, spec, raw)
        except FabricaError as error:
            if not spec.optional:
                raise
            r.notes.append(f"source {spec.name!r} was left out: {error}")
            r.say(r.notes[-1])
            continue  # not marked as done: tried again next time
        done[spec.name] = {"mark": mark, "notes": r.notes[before:]}
        _write(r.out / "sources.json", done)
    if not len(raw):
        raise UsageError("no source gave a record; see the reasons above, and `fabrica doctor` for what is installed")
    return raw


def _source(r: _Run, spec: SourceSpec, raw: Corpus) -> None:
    if spec.catalogue:
        _from_catalogue(r, spec, raw)
        return
    if spec.phantom:
        from fabrica.phantom import hospital

        made = hospital.write(
            r.out / "phantom", n_per_modality=spec.phantom, seed=r.seed, n_broken=BROKEN, progress=r.progress
        )
        for part in made.tables:
            words = replace(spec, name=part.source, columns=part.columns, licence=part.licence)
            _from_path(r, words, part.path, raw)
        return
    _from_path(r, spec, r.base / spec.path, raw)


def _from_path(r: _Run, spec: SourceSpec, path: Path, raw: Corpus) -> None:
    from fabrica.corpus.ingest import ingest

    report = ingest(
        path, raw, source=spec.name, licence=spec.licence, columns=spec.columns or None, limit=spec.limit,
        max_memory=r.max_memory, progress=r.progress,
    )  # fmt: skip
    r.say(f"  {spec.name}: {report.records} records, {sum(report.quarantined.values())} files quarantined")


def _from_catalogue(r: _Run, spec: SourceSpec, raw: Corpus) -> None:
    from itertools import islice

    from fabrica import catalogue
    from fabrica.sources import Quarantined

    catalogue.fetch(spec.catalogue, allow_network=r.fetch, progress=r.progress)
    found = islice(catalogue.read(spec.catalogue), spec.limit)
    records = bad = 0
    while batch := list(islice(found, 256)):
        refused = [item for item in batch if isinstance(item, Quarantined)]
        kept = [item for item in batch if not isinstance(item, Quarantined)]
        raw.append(kept)
        raw.quarantine(refused, source=spec.name)
        records, bad = records + len(kept), bad + len(refused)
        if r.progress is not None:
            r.progress(records + bad, None, spec.name)
    r.say(f"  {spec.name}: {records} records, {bad} files quarantined")


def _curate(r: _Run, raw: Corpus) -> Corpus:
    from fabrica import curate
    from fabrica.corpus import Corpus

    report = curate.run(plan_of(r.job), raw, r.out / "corpus", max_memory=r.max_memory, progress=r.progress)
    r.say(f"  {report.kept} of {report.read} records kept")
    return Corpus.open(r.out / "corpus")


def _train(r: _Run, corpus: Corpus) -> Bundle:
    """The system of the job; a trained model of the same words and records is loaded."""
    from fabrica.models import Bundle
    from fabrica.systems import load_system
    from fabrica.train import fit

    system = load_system(r.job.train.system)
    settings = _settings(r, system)
    mark = _mark([r.job.train.system, asdict(settings), corpus.split_hash("split = 'train'"), r.seed])
    folder = r.out / "model"
    if _read(r.out / "model.json").get("mark") == mark and (folder / "model.safetensors").is_file():
        return Bundle.from_pretrained(folder)
    work = r.out / f"train-{mark}"
    bundle = system.build(settings, corpus.scan("split = 'train'", roles=_roles(system)))
    result = fit(bundle, system.stages(settings, bundle), corpus, work, seed=r.seed, progress=r.progress)
    trained = Bundle(bundle.model, bundle.collate, bundle.card | {
        "settings": asdict(settings), "trained_on": corpus.split_hash("split = 'train'"),
        "seconds": round(result.seconds, 1), "seed": r.seed, "licence": "see the licences of the training records",
    })  # fmt: skip
    trained.save_pretrained(folder, replace=True)
    _write(r.out / "model.json", {"mark": mark, "log": f"{work.name}/train.jsonl"})
    return trained


def _settings(r: _Run, system: Any) -> Any:
    """The preset with the job's overrides; the from-scratch preset where pretrained weights are out of reach."""
    from fabrica.errors import unknown

    spec = r.job.train
    for name in (spec.preset, spec.scratch):
        if name not in system.settings:
            raise unknown(f"preset of {spec.system}", name, system.settings)
    preset = spec.scratch if r.from_scratch or not _weights(r, system.settings[spec.preset]) else spec.preset
    settings = system.settings[preset]
    wrong = [k for k in spec.settings if not hasattr(settings, k)]
    if wrong:
        raise unknown(f"setting of {spec.system}", wrong[0], list(asdict(settings)))
    return replace(settings, **spec.settings)


def _weights(r: _Run, settings: Any) -> bool:
    """Whether the catalogue's weights that these settings name are at hand, fetched now if that is allowed."""
    from fabrica import catalogue

    try:
        for value in asdict(settings).values():
            if isinstance(value, str) and value in catalogue.names():
                catalogue.fetch(value, allow_network=r.fetch, progress=r.progress)
    except FabricaError as error:
        r.notes.append(
            f"pretrained weights are out of reach, preset {r.job.train.scratch!r} is trained instead: {error}"
        )
        r.say(r.notes[-1])
        return False
    return True


def _roles(system: Any) -> list[str]:
    """Text and table roles: what vocabularies and statistics are learned from; pictures stay on disk."""
    return sorted({role for roles in system.reads.values() for role in roles} - {"image", "volume", "slide"})


def _evaluate(r: _Run, corpus: Corpus, bundle: Bundle, allow_leak: bool) -> list[Score]:
    from fabrica import evaluate

    tasks = tasks_of(r.job.task)
    return evaluate.run(
        bundle, corpus, r.out / "eval", tasks=tasks, seed=r.seed, allow_leak=allow_leak, trained_on=corpus,
        progress=r.progress,
    )  # fmt: skip


def _report(r: _Run, raw: Corpus, corpus: Corpus, bundle: Bundle, scores: list[Score]) -> Path:
    from fabrica.evaluate import report

    path = r.out / "report.html"
    log = r.out / _read(r.out / "model.json").get("log", "train.jsonl")
    report.write(
        path, corpus=corpus, raw=raw, curate=r.out / "corpus", train_log=log, scores=scores, bundle=bundle,
        title=r.job.title, cost=r.cost, notes=r.notes,
    )  # fmt: skip
    return path


# ---------------------------------------------------------------- marks


def _mark(data: Any) -> str:
    return sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return data


def _write(path: Path, data: dict[str, Any]) -> None:
    from fabrica.safe import write_whole

    with write_whole(path) as file:
        file.write((json.dumps(data, indent=1) + "\n").encode())
