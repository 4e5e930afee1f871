"""What a job file says: sources, curation, training, tasks. TOML in, frozen dataclasses out, typos named."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fabrica.errors import UsageError, unknown


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One source: exactly one of `path` (a file or folder), `catalogue` (a name) or `phantom` (images a modality).

    `columns` maps record fields to the columns of a table (see docs/sources.md); `licence` is recorded in every record;
    `optional` sources are skipped, and said to be, where they are out of reach;
    `limit` takes the first N records.
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
    """What is done to the records. `split` gives shares of train, val and test by subject; records of a source whose
    own split is to be kept name it in `keep_split`."""

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
    """One evaluation. `kind` is zero_shot, retrieval, knn or linear_probe; the other keys are that task's settings
    (`fabrica.evaluate.tasks`): `labels`, `exclusive`, `where`, `fractions` (linear_probe), `relevance` and `per`
    (retrieval), and for zero_shot `prompts` (label -> synonyms), `frames` with one "{}" each, `full` (label -> whole
    sentences) and `prompt_version`."""

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
    """Read a job file. Relative paths in it are relative to the file. A wrong key names the near one."""
    if not path.is_file():
        raise UsageError(f"no job file at {path}; see docs/first-hour.md for one to start from")
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a TOML file: {error}") from error
    job: Job = _fill(Job, data, str(path.name))
    if not job.source:
        raise UsageError(f"{path.name}: no [[source]] given; a job needs at least one")
    for spec in job.source:
        given = [k for k in ("path", "catalogue", "phantom") if getattr(spec, k)]
        if len(given) != 1:
            raise UsageError(
                f"{path.name}: source {spec.name!r} gives {given or 'nothing'}; wanted one of path, catalogue, phantom"
            )
    return job


_NESTED: dict[str, Any] = {
    "source": SourceSpec, "caption": CaptionSpec, "task": TaskSpec, "curate": CurateSpec, "train": TrainSpec,
}  # fmt: skip


def _fill(kind: Any, data: Mapping[str, Any], where: str) -> Any:
    known = {f.name: f for f in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            raise unknown(f"key in {where}", key, known)
        nested = _NESTED.get(key) if kind is Job else None
        if nested is None:
            values[key] = tuple(value) if isinstance(value, list) else value
        elif isinstance(value, list):
            values[key] = tuple(_fill(nested, v, f"{where} [[{key}]]") for v in value)
        elif isinstance(value, dict):
            values[key] = _fill(nested, value, f"{where} [{key}]")
        else:
            raise UsageError(f"{where}: {key} = {value!r}; wanted a table")
        _check(key, values[key], known[key].type, where)
    try:
        return kind(**values)
    except TypeError as error:
        raise UsageError(f"{where}: {str(error).split('__init__() ')[-1]}") from error


def _check(key: str, value: Any, wanted: Any, where: str) -> None:
    """The scalar types of the fields; nested tables were checked on their own."""
    types = {"str": str, "int": int, "bool": bool, "int | None": int}
    kind = types.get(str(wanted))
    if kind is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise UsageError(f"{where}: {key} = {value!r} is {type(value).__name__}; wanted {wanted}")
