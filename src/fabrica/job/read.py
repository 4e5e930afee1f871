"""The first stage of a job: every source into one raw corpus, each once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabrica.errors import FabricaError, UsageError
from fabrica.job import marks
from fabrica.job.spec import SourceSpec

if TYPE_CHECKING:
    from fabrica.corpus import Corpus
    from fabrica.job.run import Run

BROKEN = 6  # files of the phantom hospital that are damaged on purpose, to show quarantine
SOURCES = "sources.json"  # name -> {"mark": of its words, "files": of what lay there, null until it was read}


def ingest(r: Run) -> tuple[Corpus, bool]:
    """The raw corpus and whether anything was read.

    A source whose words did not change is not read again, one whose files changed gives what is new. Where the words of
    a source changed, or a source was taken out of the job, all is read anew: its old records would stay otherwise.
    """
    from fabrica.corpus import Corpus

    wanted = {spec.name: marks.mark(*_words(r, spec)) for spec in r.job.source}
    done = marks.read(r.out / SOURCES)
    if stale := [n for n, of in done.items() if wanted.get(n) != of["mark"]]:
        r.say(f"  {', '.join(map(repr, stale))} changed since the last run: all sources are read anew")
        _forget(r.out)
        done = {}
    raw, worked = Corpus.at(r.out / "raw"), False
    for spec in r.job.source:
        known = done.get(spec.name)
        files = marks.listing(r.base / spec.path) if spec.path and (r.base / spec.path).exists() else ""
        if (known is None or known["files"] != files) and _reached(r, spec):
            done[spec.name] = {"mark": wanted[spec.name], "files": None}  # begun: killed here, it is read again
            marks.write(r.out / SOURCES, done)
            _one(r, spec, raw)
            done[spec.name]["files"] = files
            marks.write(r.out / SOURCES, done)
            worked = True
    if not len(raw):
        raise UsageError("no source gave a record; see the reasons above, and `fabrica doctor` for what is installed")
    return raw, worked


def _words(r: Run, spec: SourceSpec) -> Iterator[Any]:
    """What decides the records of a source, beside its files."""
    from fabrica import catalogue
    from fabrica.phantom import hospital

    yield asdict(spec)
    if spec.catalogue:
        entry = catalogue.get(spec.catalogue)
        yield [entry.sha256, entry.revision]
    if spec.phantom:
        yield [r.seed, hospital.VERSION, BROKEN]


def _forget(out: Path) -> None:
    """Remove what was read and what was curated from it; the record of it goes last."""
    for name in ("corpus", "raw", "phantom"):
        shutil.rmtree(out / name, ignore_errors=True)
    (out / SOURCES).unlink(missing_ok=True)


def _reached(r: Run, spec: SourceSpec) -> bool:
    """Whether a source is there, fetched now if that is allowed; False, and said, where an optional one is not."""
    from fabrica import catalogue

    try:
        if spec.catalogue:
            catalogue.fetch(spec.catalogue, allow_network=r.fetch, progress=r.progress)
        elif spec.path and not (r.base / spec.path).exists():
            raise UsageError(f"nothing at {r.base / spec.path}")
    except FabricaError as error:
        if not spec.optional:
            raise
        r.note(f"source {spec.name!r} was left out: {error}")
        return False
    return True


def _one(r: Run, spec: SourceSpec, raw: Corpus) -> None:
    if spec.catalogue:
        _from_catalogue(r, spec, raw)
    elif spec.phantom:
        _from_phantom(r, spec, raw)
    else:
        _from_path(r, spec, r.base / spec.path, raw)


def _from_phantom(r: Run, spec: SourceSpec, raw: Corpus) -> None:
    from fabrica.phantom import hospital

    made = hospital.write(
        r.out / "phantom", n_per_modality=spec.phantom, seed=r.seed, n_broken=BROKEN,
        modalities=("xray", *hospital.WRITTEN), progress=r.progress,
    )  # fmt: skip
    for part in made.tables:
        words = replace(spec, name=part.source, columns=part.columns, licence=part.licence)
        _from_path(r, words, part.path, raw)


def _from_path(r: Run, spec: SourceSpec, path: Path, raw: Corpus) -> None:
    from fabrica.corpus.ingest import ingest

    report = ingest(
        path, raw, source=spec.name, licence=spec.licence, columns=spec.columns or None, limit=spec.limit,
        max_memory=r.max_memory, progress=r.progress,
    )  # fmt: skip
    bad = sum(report.quarantined.values())
    r.say(f"  {spec.name}: {report.records} records from {path.name}" + (f", {bad} files quarantined" if bad else ""))


def _from_catalogue(r: Run, spec: SourceSpec, raw: Corpus) -> None:
    from fabrica import catalogue
    from fabrica.sources import Quarantined

    found = catalogue.read(spec.catalogue, limit=spec.limit)
    records = bad = 0
    while batch := list(islice(found, 64)):
        refused = [item for item in batch if isinstance(item, Quarantined)]
        kept = [item for item in batch if not isinstance(item, Quarantined)]
        raw.append(kept)
        raw.quarantine(refused, source=spec.name)
        records, bad = records + len(kept), bad + len(refused)
        if r.progress is not None:
            r.progress(records + bad, spec.limit, f"reading {spec.name}")
    r.say(f"  {spec.name}: {records} records" + (f", {bad} files quarantined" if bad else ""))
