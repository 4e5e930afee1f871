"""From a job's words to the tasks of `evaluate` and the plan of `curate`, and what can be checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from fabrica.errors import UsageError, unknown
from fabrica.job.spec import Job, TaskSpec, TrainSpec, typed

if TYPE_CHECKING:
    from fabrica.corpus import Corpus
    from fabrica.types import System

KINDS = ("zero_shot", "retrieval", "knn", "linear_probe", "any_subset")


def tasks_of(specs: Sequence[TaskSpec]) -> list[Any]:
    """The task objects that `[[task]]` tables describe."""
    return [_task(spec) for spec in specs]


def _task(spec: TaskSpec) -> Any:
    from fabrica.evaluate import KNN, LinearProbe, Prompts, Retrieval, ZeroShot

    if spec.kind not in KINDS:
        raise unknown(f"kind of task (task {spec.name!r})", spec.kind, KINDS)
    if spec.kind == "retrieval":
        return Retrieval(spec.name, where=spec.where, relevance=spec.relevance, per=spec.per, labels=spec.labels)
    if spec.kind == "any_subset":
        from fabrica.evaluate.any_subset import AnySubset

        return AnySubset(spec.name, spec.labels, where=spec.where)
    if not spec.labels:
        raise UsageError(f'task {spec.name!r}: no labels given; wanted labels = ["..."]')
    if spec.kind == "knn":
        return KNN(spec.name, spec.labels, where=spec.where, fitted_on=spec.train, exclusive=spec.exclusive)
    if spec.kind == "linear_probe":
        if not all(0 < f <= 1 for f in spec.fractions):
            raise UsageError(f"task {spec.name!r}: fractions {list(spec.fractions)}; wanted shares over 0, at most 1")
        return LinearProbe(
            spec.name, spec.labels, where=spec.where, fitted_on=spec.train, fractions=spec.fractions,
            exclusive=spec.exclusive,
        )  # fmt: skip
    for given in (spec.prompts, spec.full):
        for label in given:
            if label not in spec.labels:
                raise unknown(f"label of task {spec.name!r} that prompts are given for,", label, spec.labels)
    words = {
        label: spec.prompts.get(label, () if label in spec.full else (label.replace("_", " "),))
        for label in spec.labels
    }
    prompts = Prompts(spec.prompt_version, words, spec.frames, full=spec.full)
    return ZeroShot(spec.name, spec.labels, prompts, where=spec.where, train=spec.train, exclusive=spec.exclusive)


def plan_of(job: Job, seed: int = 0) -> list[Any]:
    """The steps that a job's `[curate]` and `[[caption]]` tables ask for, in order."""
    from fabrica.curate.duplicates.dedup import ImageDuplicates, TextDuplicates
    from fabrica.curate.language.captions import LabelCaptions, LabelSchema
    from fabrica.curate.series import MiddleSlice, StackSeries
    from fabrica.curate.split import BySubject

    plan: list[Any] = [StackSeries(), MiddleSlice()]
    if job.caption:
        schemas = [LabelSchema(**asdict(spec)) for spec in job.caption]
        plan.append(LabelCaptions(schemas=schemas, seed=seed))
    if job.curate.duplicates:
        plan += [ImageDuplicates(), TextDuplicates()]
    plan.append(BySubject(fractions=job.curate.split, salt=job.curate.salt, given=job.curate.keep_split))
    return plan


def settings_of(spec: TrainSpec, system: System, preset: str) -> Any:
    """The settings of a preset with the job's overrides, names and types checked."""
    if preset not in system.settings:
        raise unknown(f"preset of {spec.system}", preset, system.settings)
    settings = system.settings[preset]
    hints = get_type_hints(type(settings))
    for key in spec.settings:
        if key not in hints:
            raise unknown(f"setting of {spec.system}", key, hints)
    return replace(settings, **{k: typed(v, hints[k], f"train: settings.{k}") for k, v in spec.settings.items()})


def learned_roles(system: System) -> list[str]:
    """Text and table roles: what vocabularies and statistics are learned from; pictures stay on disk."""
    return sorted({role for roles in system.reads.values() for role in roles} - {"image", "volume", "slide"})


def check(job: Job, base: Path) -> None:
    """All that can be known to be wrong before anything is read: names, settings, tasks, captions, paths."""
    from fabrica import catalogue
    from fabrica.sources import columns
    from fabrica.systems import load_system

    system = load_system(job.train.system)
    for preset in (job.train.preset, job.train.scratch):
        settings_of(job.train, system, preset)
    plan_of(job)
    tasks_of(job.task)
    for spec in job.source:
        columns.check(spec.columns)
        if spec.catalogue and (kind := catalogue.get(spec.catalogue).kind) != "data":
            raise UsageError(f"source {spec.name!r}: {spec.catalogue!r} is {kind}, not data; see fabrica fetch --list")
        if spec.path and not spec.optional and not (base / spec.path).exists():
            raise UsageError(
                f"source {spec.name!r}: nothing at {base / spec.path}; relative paths of a job start at its folder, "
                "or at --root"
            )


def check_labels(job: Job, corpus: Corpus) -> None:
    """Labels and filters of the tasks against the curated corpus, before training: a typo costs no hours.

    A task whose records are missing is left for the evaluation to name as unscored.
    """
    known = set(corpus.stats().labels)
    for spec in job.task:
        for where in dict.fromkeys((spec.where, spec.train)):
            corpus.count(where)  # a filter that is no SQL is an error here
        for label in spec.labels:
            if label not in known and corpus.count(spec.where):
                raise unknown(f"label in the records (task {spec.name!r})", label, known)
