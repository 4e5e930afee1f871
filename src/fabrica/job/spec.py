"""What a job file says: sources, curation, training, tasks. TOML in, frozen dataclasses out, typos named."""

from __future__ import annotations

import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fabrica.errors import UsageError, unknown


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One source: exactly one of `path` (a file or folder), `catalogue` (a name) or `phantom` (patients a modality).

    `columns` maps parts of a record to the columns of a table (`fabrica.sources.columns` has the language); `licence`
    is recorded in every record; `optional` sources are skipped, and said to be, where they are out of reach; `limit`
    takes the first N records.
    """

    name: str
    path: str = ""
    catalogue: str = ""
    phantom: int = 0
    licence: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    optional: bool = False
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class CaptionSpec:
    """Captions from labels for one modality (of one `source`, if given): `labels` gives each label its names, `normal`
    is the label that says that nothing was found, labels in `ignore` make no captions (`curate.grammar.LabelSchema`).
    """

    modality: str
    labels: Mapping[str, list[str]]
    organ: str = ""
    normal: str | None = None
    source: str = ""
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CurateSpec:
    """What is done to the records. `duplicates`: near-duplicates are linked and copies dropped; `split`: shares of
    train, val and test by subject, drawn by a hash of `salt` and the subject; `keep_split`: records that come with a
    split keep it."""

    duplicates: bool = True
    split: Mapping[str, float] = field(default_factory=lambda: {"train": 0.7, "val": 0.1, "test": 0.2})
    salt: str = "fabrica"
    keep_split: bool = False


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """Which system, at which preset, from which weights (`settings` overrides single values of the preset)."""

    system: str = "unimed_clip"
    preset: str = "small"
    settings: Mapping[str, Any] = field(default_factory=dict)
    scratch: str = "tiny"  # the preset when pretrained weights are out of reach or --from-scratch is given


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One evaluation. `kind` is zero_shot, retrieval, knn, linear_probe or any_subset (of a fusion; `labels` are the
    model's own tasks, none: all); the other keys are that task's settings (`fabrica.evaluate.tasks`): `labels`,
    `exclusive`, `where`, `fractions` (linear_probe), `relevance` and `per` (retrieval), and for zero_shot `prompts`
    (label -> synonyms), `frames` with one "{}" each, `full` (label -> whole sentences) and `prompt_version`."""

    kind: str
    name: str
    where: str = "split = 'test'"
    train: str = "split = 'train'"
    labels: tuple[str, ...] = ()
    exclusive: bool = True
    prompts: Mapping[str, list[str]] = field(default_factory=dict)
    frames: tuple[str, ...] = ("an image showing {}",)
    full: Mapping[str, list[str]] = field(default_factory=dict)
    prompt_version: str = "1"
    fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    relevance: str = "record"
    per: str = "data"


@dataclass(frozen=True, slots=True)
class Job:
    """The main job: raw files to an evidence report."""

    title: str
    source: tuple[SourceSpec, ...]
    caption: tuple[CaptionSpec, ...] = ()
    curate: CurateSpec = CurateSpec()
    train: TrainSpec = TrainSpec()
    task: tuple[TaskSpec, ...] = ()


def load(path: Path) -> Job:
    """Read a job file; every key and value is checked, and a wrong one named with what was wanted."""
    if not path.is_file():
        here = "a folder" if path.is_dir() else "nothing"
        raise UsageError(f"{path} is {here}; wanted a job file (TOML): docs/first-hour.md has one to start from")
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a TOML file: {error}") from error
    job: Job = typed(data, Job, path.name)
    if not job.source:
        raise UsageError(f"{path.name}: no [[source]] given; a job needs at least one")
    for specs, what in ((job.source, "source"), (job.task, "task")):
        names = [s.name for s in specs]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise UsageError(f"{path.name}: {what} {twice[0]!r} stands twice; give each its own name")
    for spec in job.source:
        given = [k for k in ("path", "catalogue", "phantom") if getattr(spec, k)]
        if len(given) != 1:
            got = " and ".join(given) or "none of them"
            raise UsageError(
                f"{path.name}: source {spec.name!r} gives {got}; wanted one of path, catalogue and phantom"
            )
        if spec.phantom < 0 or (spec.limit is not None and spec.limit < 1):
            raise UsageError(f"{path.name}: source {spec.name!r}: phantom and limit are counts; wanted at least 1")
    if sum(spec.phantom > 0 for spec in job.source) > 1:
        raise UsageError(f"{path.name}: two sources are the phantom hospital; there is one, give it once")
    return job


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table", list: "a list"}


def typed(value: Any, hint: Any, at: str) -> Any:
    """`value` of a TOML file as a `hint` (dataclass, Mapping, tuple, list, Literal, union, scalar); `at` says where.

    >>> typed({"train": 1}, Mapping[str, float], "job.toml: split")
    {'train': 1.0}
    >>> typed("3", int, "job.toml: phantom")
    Traceback (most recent call last):
    fabrica.errors.UsageError: job.toml: phantom = '3' is text; wanted a whole number
    """
    if hint is Any:
        return value
    origin, args = get_origin(hint), get_args(hint)
    if origin is types.UnionType:
        hint = next(a for a in args if a is not types.NoneType)
        return typed(value, hint, at)
    if origin is Literal:
        if value not in args:
            raise unknown(f"value for {at}", str(value), map(str, args))
        return value
    if is_dataclass(hint):
        return _table(value, hint, at)
    if origin in (tuple, list):
        parts = enumerate(_is(value, list, at), 1)
        return origin(typed(part, args[0], f"{at}[{i}]") for i, part in parts)
    if origin is Mapping:
        return {k: typed(part, args[1], f"{at}.{k}") for k, part in _is(value, dict, at).items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _is(value, hint, at)


def _is(value: Any, kind: type, at: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        came = _WORDS.get(type(value), type(value).__name__)
        raise UsageError(f"{at} = {value!r} is {came}; wanted {_WORDS[kind]}")
    return value


def _table(value: Any, kind: Any, at: str) -> Any:
    known = {f.name: f for f in fields(kind)}
    hints = get_type_hints(kind)
    for key in _is(value, dict, at):
        if key not in known:
            raise unknown(f"key in {at}:", key, known)
    lost = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in value]
    if lost:
        raise UsageError(f"{at}: {lost[0]!r} is missing; wanted {lost[0]} = ...")
    return kind(**{key: typed(part, hints[key], f"{at}: {key}") for key, part in value.items()})
