"""Run tasks on a model and a corpus: leak gate first, rows to disk, cards computed from the rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fabrica.errors import UsageError
from fabrica.evaluate import cards
from fabrica.evaluate.features import Progress, Reader, Want
from fabrica.evaluate.tasks import TRAIN, Rows, Skipped, Task
from fabrica.safe import sha256, write_whole
from fabrica.types import Score

if TYPE_CHECKING:
    from fabrica.corpus import Corpus as Store
    from fabrica.models import Bundle


def run(
    bundle: Bundle, corpus: Store, out: Path, *, tasks: Sequence[Task], seed: int = 0, allow_leak: bool = False,
    trained_on: Store | None = None, trained_where: str = TRAIN, arms: Mapping[str, Bundle] | None = None,
    progress: Progress | None = None,
) -> list[Score]:  # fmt: skip
    """Judge `bundle` by `tasks`; write `out/rows/*.parquet` and `out/cards.json`; give the scores.

    `trained_on` and `trained_where` say what the model saw: compared by subject, pixels and text with every part that
    is judged, before anything is scored (`errors.Leak`, unless `allow_leak`, which marks every score). `arms` are
    further models to stand beside (a random one, the weights before training). Tasks whose rows for this model, split
    and seed are already there are not run again; a task that cannot be scored is named in `cards.json` with its reason,
    and an error only where none could be.
    """
    out = Path(out)
    _names(tasks)
    reader = Reader(corpus, {"model": bundle, **(arms or {})}, progress)
    who = [f"{name}={fingerprint(b)}" for name, b in reader.bundles.items()]
    if trained_on is not None:
        who.append(_contents(trained_on, trained_where))
    keys = [_key(task, corpus, [*who, str(seed), str(allow_leak)]) for task in tasks]
    done = _read_done(out)
    left = [task for task, key in zip(tasks, keys, strict=True) if key not in done]
    if left:
        reader.plan, reader.cache = _plan(left), out / "features"
        mark = _gate(corpus, tasks, trained_on, trained_where, allow_leak)
        for order, (task, key) in enumerate(zip(tasks, keys, strict=True)):
            if key not in done:
                done[key] = _one(task, reader, out, order=order, seed=seed, mark=mark, key=key)
                _write_done(out, done)
            if progress is not None:
                progress(order + 1, len(tasks), "tasks")
    return _cards(out, [done[key] for key in keys])


def _cards(out: Path, done: Sequence[Done]) -> list[Score]:
    files = {name: digest for d in done for name, digest in d.files.items()}
    for old in (out / "rows").glob("*.parquet"):
        if old.name not in files:
            old.unlink()  # of an earlier evaluation into this folder
    unscored = [cards.Unscored(task, why) for d in done for task, why in d.unscored]
    if not files:
        raise UsageError("no task could be scored: " + "; ".join(f"{u.task}: {u.why}" for u in unscored))
    marks = dict.fromkeys(d.mark for d in done if d.mark)
    if (out / "cards.json").is_file():
        known = cards.read(out)
        if known.rows == files and known.unscored == tuple(unscored):  # computed from these very rows
            return list(known.scores)
    scores = cards.recompute(out)
    cards.write(out, cards.Cards(tuple(scores), tuple(unscored), "; ".join(marks), files))
    return scores


@dataclass(frozen=True, slots=True)
class Done:
    """A finished task: its rows files (name -> sha256), what could not be scored, the leak mark."""

    files: Mapping[str, str]
    unscored: tuple[tuple[str, str], ...]
    mark: str


def _one(task: Task, reader: Reader, out: Path, *, order: int, seed: int, mark: str, key: str) -> Done:
    files: dict[str, str] = {}
    unscored: list[tuple[str, str]] = []
    split = reader.corpus.split_hash(task.where)
    rows = task.rows(reader, seed=seed)
    number = 0
    while True:
        try:
            table = next(rows, None)
        except UsageError as error:
            unscored.append((task.name, str(error)))
            break
        if table is None:
            break
        if isinstance(table, Skipped):
            unscored.append((table.task, table.why))
            continue
        path = cards.write_rows(out, table, _facts(table, split, seed, mark, key, order * 100 + number))
        if path.name in files:
            raise UsageError(f"task {task.name!r} writes {path.name} twice; give its parts names that differ")
        files[path.name] = sha256(path)
        number += 1
    return Done(files, tuple(unscored), mark)


def _facts(rows: Rows, split: str, seed: int, mark: str, key: str, order: int) -> cards.Facts:
    return cards.Facts(
        rows.task, rows.version, rows.metrics, split, seed, rows.classes, rows.prompt_version, rows.note, mark, key,
        order,
    )  # fmt: skip


def _plan(tasks: Sequence[Task]) -> dict[str, frozenset[Want]]:
    """What all tasks together want of each part, so that each is read and embedded once."""
    plan: dict[str, frozenset[Want]] = {}
    for task in tasks:
        for where, wants in task.wants().items():
            plan[where] = plan.get(where, frozenset()) | frozenset(wants)
    return plan


def _names(tasks: Sequence[Task]) -> None:
    names = [task.name for task in tasks]
    if not names:
        raise UsageError("evaluate: no task given; wanted at least one of ZeroShot, Retrieval, KNN, LinearProbe")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise UsageError(f"evaluate: task names {twice} stand twice; give each task its own name")


def _gate(corpus: Store, tasks: Sequence[Task], trained_on: Store | None, trained_where: str, allow_leak: bool) -> str:
    """The mark that every score bears: "" where train and test share nothing."""
    from fabrica.evaluate import leak

    pairs: dict[tuple[int, str, str], Store] = {}
    for task in tasks:
        if trained_on is not None:
            pairs[id(trained_on), trained_where, task.where] = trained_on
        if task.fitted_on:
            pairs[id(corpus), task.fitted_on, task.where] = corpus
    marks: dict[str, None] = {}
    for (_, train_where, where), train in pairs.items():
        marks[leak.check(train.scan(train_where), corpus.scan(where)).gate(allow_leak)] = None
    if trained_on is None:
        marks["leaks not checked: what the model was trained on was not given"] = None
    return "; ".join(m for m in marks if m)


def _key(task: Task, corpus: Store, rest: Iterable[str]) -> str:
    """Task settings, the records judged and learned from, the models, the seed: what decides a task's rows."""
    wheres = dict.fromkeys([task.where, task.fitted_on, getattr(task, "train", "")])
    parts = [repr(task), task.version, *(_contents(corpus, w) for w in wheres if w), *rest]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:24]


def _contents(corpus: Store, where: str) -> str:
    """A hash of what a part says: ids, subjects, labels, groups, texts, sizes. (`split_hash` knows the ids alone.)"""
    import pyarrow as pa

    table = corpus.rows(["id", "subject", "tags", "texts", "bytes"], where).sort_by("id").combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def fingerprint(bundle: object) -> str:
    """What identifies a model: its own `fingerprint`, else a hash of its weights, else its type's name."""
    own = getattr(bundle, "fingerprint", None)
    if own is not None:
        return str(own() if callable(own) else own)
    model = getattr(bundle, "model", None)
    digest = hashlib.sha256(type(bundle).__name__.encode())
    if callable(getattr(model, "state_dict", None)):
        for name, value in sorted(model.state_dict().items()):  # type: ignore[union-attr]
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(value.detach().cpu().float().numpy()).data)
    return digest.hexdigest()[:24]


def _read_done(out: Path) -> dict[str, Done]:
    """The finished tasks of this folder whose rows files are there, byte for byte."""
    path = out / "rows" / "done.json"
    if not path.is_file():
        return {}
    data = json.loads(path.read_text("utf-8"))
    done = {k: Done(v["files"], tuple((t, w) for t, w in v["unscored"]), v["mark"]) for k, v in data.items()}
    whole = {name: sha256(p) for p in (out / "rows").glob("*.parquet") for name in [p.name]}
    return {k: d for k, d in done.items() if all(whole.get(name) == digest for name, digest in d.files.items())}


def _write_done(out: Path, done: Mapping[str, Done]) -> None:
    path = out / "rows" / "done.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as part:
        part.write(json.dumps({k: asdict(d) for k, d in done.items()}, indent=1).encode())
