"""Score cards: rows on disk are the evidence, every number is computed from them and can be computed again.

out/rows/<task>.parquet   one row a record and arm, with its status; the task's facts in the file's metadata
out/cards.json            what `recompute(out)` gives from the rows; deleting it loses nothing
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError
from fabrica.evaluate import bootstrap
from fabrica.evaluate.metrics import Measure, measure
from fabrica.evaluate.survival import C_INDEX
from fabrica.safe import write_whole
from fabrica.types import Score

if TYPE_CHECKING:
    from rich.table import Table

    from fabrica.evaluate.tasks import Rows

FEW = 30  # subjects: below, the card says so
FACTS = b"fabrica"
FAILED = {
    "absent": "without this input",
    "no_truth": "without a known label",
    "no_relevant": "without a relevant candidate",
}
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rows file says of itself beside its columns. `key` identifies task, split, model and seed: equal key, same
    rows."""

    task: str
    version: str
    metrics: tuple[str, ...]
    split_hash: str
    seed: int
    classes: tuple[str, ...] = ()
    prompt_version: str = ""
    note: str = ""
    leak: str = ""
    key: str = ""
    order: int = 0  # the task's place on the card


@dataclass(frozen=True, slots=True)
class Unscored:
    """A task that gave no score, and why."""

    task: str
    why: str


@dataclass(frozen=True, slots=True)
class Cards:
    """What stands in `cards.json`. `rows`: name -> sha256 of the rows files that the scores were computed from."""

    scores: tuple[Score, ...]
    unscored: tuple[Unscored, ...] = ()
    leak: str = ""
    rows: Mapping[str, str] = field(default_factory=dict)


def rows_path(out: Path, task: str) -> Path:
    """The rows file of a task: its name with everything but letters and digits made a hyphen."""
    return out / "rows" / f"{re.sub(r'[^a-z0-9]+', '-', task.lower()).strip('-') or 'task'}.parquet"


def write_rows(out: Path, rows: Rows, facts: Facts) -> Path:
    """Write a task's rows whole; NaN becomes null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {name: _to_arrow(column) for name, column in rows.columns.items()}
    table = pa.table(arrays).replace_schema_metadata({FACTS: json.dumps(asdict(facts), sort_keys=True).encode()})
    path = rows_path(out, rows.task)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as part:
        pq.write_table(table, part, compression="zstd")
    return path


def read_rows(path: Path) -> tuple[Facts, Columns]:
    """The facts and columns of a rows file; null becomes NaN."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{path} is not a rows file: {error}") from error
    body = (table.schema.metadata or {}).get(FACTS)
    if body is None:
        raise UsageError(f"{path} is a parquet file without the facts of a task; wanted one that evaluate.run wrote")
    data: dict[str, Any] = json.loads(body)
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    facts = Facts(**given)
    return facts, {name: _from_arrow(table.column(name)) for name in table.column_names}


def _to_arrow(column: NDArray[Any]) -> Any:
    import pyarrow as pa

    if column.ndim == 2:
        flat = pa.array(column.ravel(), from_pandas=True)
        return pa.FixedSizeListArray.from_arrays(flat, column.shape[1])
    return pa.array(column.tolist() if column.dtype.kind == "U" else column, from_pandas=True)


def _from_arrow(column: Any) -> NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_fixed_size_list(column.type):
        flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return cast("NDArray[Any]", np.asarray(flat).reshape(len(column), column.type.list_size))
    values = column.to_numpy(zero_copy_only=False)
    return np.asarray(values.tolist()) if values.dtype == object else np.asarray(values)


def recompute(out: Path, *, count: int = bootstrap.RESAMPLES) -> list[Score]:
    """Every score of a folder from its rows, in the order of the tasks; the same rows give the same numbers."""
    files = sorted((out / "rows").glob("*.parquet"))
    if not files:
        raise UsageError(f"no rows under {out / 'rows'}; run an evaluation into this folder first")
    read = sorted((read_rows(path) for path in files), key=lambda pair: (pair[0].order, pair[0].task))
    return [score for facts, columns in read for score in score_rows(facts, columns, count=count)]


def score_rows(facts: Facts, columns: Columns, *, count: int = bootstrap.RESAMPLES) -> Iterator[Score]:
    """The scores of one task: real and phantom apart, arms beside each other, the first metric by group too, and the
    model's paired difference to each other arm."""
    first = _measure(facts.metrics[0])
    for data in sorted(set(columns["data"].tolist()), reverse=True):  # real before phantom
        cell = _where(columns, columns["data"] == data)
        arms = list(dict.fromkeys(cell["arm"].tolist()))
        groups = sorted(set(cell["group"].tolist()))
        for arm in arms:
            mine = _where(cell, cell["arm"] == arm)
            for name in facts.metrics:
                yield _score(facts, _measure(name), mine, count, arm=arm, data=data, group="")
            for group in groups if len(groups) > 1 else ():
                here = _where(mine, mine["group"] == group)
                if (here["status"] == "ok").any():
                    yield _score(facts, first, here, count, arm=arm, data=data, group=group)
        for other in arms:
            if other != "model" and "model" in arms:
                yield from _difference(facts, first, cell, other, data, count)


def _measure(name: str) -> Measure:
    """Of `metrics`, or the C-index of `survival`."""
    return C_INDEX if name == C_INDEX.name else measure(name)


def _where(columns: Columns, rows: NDArray[np.bool_]) -> Columns:
    return {name: column[rows] for name, column in columns.items()}


def _score(facts: Facts, metric: Measure, rows: Columns, count: int, *, arm: str, data: str, group: str) -> Score:
    good = _where(rows, rows["status"] == "ok")
    answer = bootstrap.interval(metric, good, good["subject"], count=count, seed=facts.seed, share=metric.share)
    return Score(
        facts.task, metric.name, answer.value, answer.low, answer.high, answer.n, answer.subjects, facts.version,
        facts.split_hash, facts.prompt_version, group, arm, cast("Any", data), _note(facts, rows, answer),
    )  # fmt: skip


def _difference(facts: Facts, metric: Measure, cell: Columns, other: str, data: str, count: int) -> Iterator[Score]:
    """model minus `other` on the records that both answered."""
    ok = cell["status"] == "ok"
    a, b = _where(cell, ok & (cell["arm"] == "model")), _where(cell, ok & (cell["arm"] == other))
    both = np.intersect1d(a["id"], b["id"])
    if not len(both):
        return
    a, b = (_where(x, np.isin(x["id"], both)) for x in (a, b))
    a, b = (_where_order(x) for x in (a, b))
    gap = bootstrap.paired(metric, a, b, a["subject"], count=count, seed=facts.seed)
    yield Score(
        facts.task, f"{metric.name} difference", gap.value, gap.low, gap.high, gap.n, gap.subjects, facts.version,
        facts.split_hash, facts.prompt_version, "", f"model minus {other}", cast("Any", data), facts.leak,
    )  # fmt: skip


def _where_order(columns: Columns) -> Columns:
    order = np.argsort(columns["id"], kind="stable")
    return {name: column[order] for name, column in columns.items()}


def _note(facts: Facts, rows: Columns, answer: bootstrap.Interval) -> str:
    notes = [facts.leak] if facts.leak else []
    notes += [facts.note] if facts.note else []
    failed = rows["status"][rows["status"] != "ok"]
    notes += [f"{int((failed == name).sum())} {FAILED.get(name, name)}" for name in sorted(set(failed.tolist()))]
    if answer.n and answer.subjects < FEW:
        notes.append(f"fewer than {FEW} subjects")
    if answer.method == "wilson":
        notes.append("nothing varied: Wilson's interval")
    if answer.undefined > 0.005 and answer.n:
        notes.append(f"undefined in {answer.undefined:.0%} of resamples")
    return "; ".join(notes)


def write(out: Path, cards: Cards) -> Path:
    """Write `cards.json` whole; a score without value (nothing to compute it from) is null there."""
    body = {
        "leak": cards.leak,
        "rows": dict(sorted(cards.rows.items())),
        "scores": [{k: _plain(v) for k, v in asdict(s).items()} for s in cards.scores],
        "unscored": [asdict(u) for u in cards.unscored],
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / "cards.json"
    with write_whole(path) as part:
        part.write(json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n")
    return path


def read(out: Path) -> Cards:
    """Read `cards.json` of a folder."""
    path = out / "cards.json"
    if not path.is_file():
        raise UsageError(f"no cards.json in {out}; run an evaluation into this folder, or recompute it from its rows")
    data = json.loads(path.read_text("utf-8"))
    rows: list[dict[str, Any]] = [{k: math.nan if v is None else v for k, v in s.items()} for s in data["scores"]]
    scores = [Score(**row) for row in rows]
    return Cards(tuple(scores), tuple(Unscored(**u) for u in data["unscored"]), data["leak"], data["rows"])


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def same(a: Score, b: Score, tolerance: float = 1e-12) -> bool:
    """Whether two scores are one, NaN equal to NaN."""
    close = all(
        (math.isnan(x) and math.isnan(y)) or abs(x - y) <= tolerance
        for x, y in ((a.value, b.value), (a.low, b.low), (a.high, b.high))
    )
    zero: Mapping[str, Any] = {"value": 0.0, "low": 0.0, "high": 0.0}
    return close and replace(a, **zero) == replace(b, **zero)


def table(scores: Iterable[Score], *, unscored: Sequence[Unscored] = (), groups: bool = True) -> Table:
    """A table for the terminal: one line a task, data, group and arm; real and phantom apart."""
    from rich.table import Table

    view = Table(title="Score cards: value [95 % interval by subject]", title_justify="left", header_style="bold")
    for column, right in (
        ("task", 0), ("data", 0), ("group", 0), ("arm", 0), ("metric", 0), ("value", 1), ("95 %", 1), ("n", 1),
        ("subjects", 1), ("note", 0),
    ):  # fmt: skip
        view.add_column(column, justify="right" if right else "left", overflow="fold")
    last: tuple[str, str] | None = None
    for s in scores:
        if s.group and not groups:
            continue
        head = (s.task, s.data)
        if last is not None and head != last:
            view.add_section()
        task, data = ("", "") if head == last else head
        last = head
        style = "bold" if s.arm == "model" else "dim" if s.subjects < FEW else ""
        view.add_row(
            task, data, s.group, s.arm, s.metric, number(s.value), f"{number(s.low)} to {number(s.high)}", f"{s.n:,}",
            f"{s.subjects:,}", s.note, style=style,
        )  # fmt: skip
    for item in unscored:
        view.add_section()
        view.add_row(item.task, "", "", "", "not scored", "", "", "", "", item.why, style="yellow")
    return view


def number(value: float) -> str:
    """Three decimals, or what it is when there is none.

    >>> number(0.98765), number(float("nan"))
    ('0.988', 'undefined')
    """
    return "undefined" if math.isnan(value) else f"{value:.3f}"
