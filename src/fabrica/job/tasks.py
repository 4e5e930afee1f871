"""From a job's words to the tasks of `evaluate` and the plan of `curate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fabrica.errors import UsageError, unknown
from fabrica.job.spec import Job, TaskSpec

KINDS = ("zero_shot", "retrieval", "knn", "linear_probe")


def tasks_of(specs: Sequence[TaskSpec]) -> list[Any]:
    """The task objects that `[[task]]` tables describe."""
    return [_task(spec) for spec in specs]


def _task(spec: TaskSpec) -> Any:
    from fabrica.evaluate import KNN, LinearProbe, Prompts, Retrieval, ZeroShot

    if spec.kind not in KINDS:
        raise unknown("kind of task", spec.kind, KINDS)
    if spec.kind == "retrieval":
        return Retrieval(spec.name, where=spec.where, relevance=spec.relevance, per=spec.per, labels=spec.labels)
    if not spec.labels:
        raise UsageError(f'task {spec.name!r}: no labels given; wanted labels = ["..."]')
    if spec.kind == "knn":
        return KNN(spec.name, spec.labels, where=spec.where, fitted_on=spec.train, exclusive=spec.exclusive)
    if spec.kind == "linear_probe":
        return LinearProbe(
            spec.name, spec.labels, where=spec.where, fitted_on=spec.train, fractions=spec.fractions,
            exclusive=spec.exclusive,
        )  # fmt: skip
    words = {
        label: spec.prompts.get(label, () if label in spec.full else (label.replace("_", " "),))
        for label in spec.labels
    }
    prompts = Prompts(spec.prompt_version, words, spec.frames, full=spec.full)
    return ZeroShot(spec.name, spec.labels, prompts, where=spec.where, train=spec.train, exclusive=spec.exclusive)


def plan_of(job: Job) -> list[Any]:
    """The steps that a job's `[curate]` and `[[caption]]` tables ask for, in order."""
    from fabrica.curate.captions import LabelCaptions, LabelSchema
    from fabrica.curate.dedup import ImageDuplicates, TextDuplicates
    from fabrica.curate.series import MiddleSlice, StackSeries
    from fabrica.curate.split import BySubject

    plan: list[Any] = [StackSeries(), MiddleSlice()]
    if job.caption:
        schemas = [LabelSchema(**asdict(spec)) for spec in job.caption]
        plan.append(LabelCaptions(schemas=schemas))
    if job.curate.duplicates:
        plan += [ImageDuplicates(), TextDuplicates()]
    plan.append(BySubject(fractions=job.curate.split, salt=job.curate.salt, given=job.curate.keep_split))
    return plan
