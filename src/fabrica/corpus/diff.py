"""What changed between two corpora, or two versions of one: records added, removed, and changed by field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fabrica.corpus.numbers import ledger
from fabrica.corpus.store import Corpus
from fabrica.errors import UsageError
from fabrica.types import Record

FIELDS = tuple(f.name for f in fields(Record) if f.name != "id")
_BATCH = 512


@dataclass(frozen=True, slots=True)
class Diff:
    """Ids `added` and `removed`; `changed`: id -> fields that differ ("items.report", "labels.effusion", "split" ...);
    `same` records. `fields` counts changes by field, `reasons` removals by what the newer corpus' ledger says of them
    ("step: reason"; "not said" where it says nothing)."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, tuple[str, ...]]
    same: int
    fields: Mapping[str, int]
    reasons: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists, for JSON."""
        return asdict(self)


def opened(text: str | Path) -> Corpus:
    """The corpus of `PATH`, or of `PATH@VERSION` where no folder has that whole name."""
    said = str(text)
    path, at, version = said.rpartition("@")
    if at and not Path(said).exists():
        if not (version.isascii() and version.isdigit()):
            raise UsageError(f"{said!r} names no version; wanted PATH@NUMBER, such as corpus@3")
        return Corpus.open(path, int(version))
    return Corpus.open(said)


def diff(old: Corpus, new: Corpus) -> Diff:
    """Compare by id; a record is changed where any bit of it is. At most 512 records of each are held at a time."""
    before, after = old.ids(), new.ids()
    gone, come = set(before) - set(after), set(after) - set(before)
    both = [i for i in before if i not in gone]
    changed: dict[str, tuple[str, ...]] = {}
    for start in range(0, len(both), _BATCH):
        part = both[start : start + _BATCH]
        for a, b in zip(old.take(part), new.take(part), strict=True):
            if found := tuple(differing(a, b)):
                changed[a.id] = found
    why = ledger(new.path)
    said = (why.get(i) for i in sorted(gone))
    reasons = Counter("not said" if w is None else f"{w[0]}: {w[1]}" for w in said)
    by_field = Counter(name.partition(".")[0] for names in changed.values() for name in names)
    return Diff(
        tuple(sorted(come)), tuple(sorted(gone)), changed, len(both) - len(changed),
        dict(sorted(by_field.items())), dict(sorted(reasons.items())),
    )  # fmt: skip


def differing(a: Record, b: Record) -> Iterator[str]:
    """The fields in which two records differ; of items, labels and groups the roles and names.

    >>> list(differing(Record("r", "p", labels={"x": 1.0}), Record("r", "p", labels={"x": 0.0}, split="val")))
    ['labels.x', 'split']
    """
    for name in FIELDS:
        x, y = getattr(a, name), getattr(b, name)
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            keys = dict.fromkeys((*x, *y))
            yield from (f"{name}.{k}" for k in keys if (k in x) != (k in y) or not _same(x.get(k), y.get(k)))
        elif not _same(x, y):
            yield name


def _same(x: Any, y: Any) -> bool:
    """Equality to the last bit; tuples member by member."""
    if isinstance(x, tuple) and isinstance(y, tuple):
        return len(x) == len(y) and all(_same(p, q) for p, q in zip(x, y, strict=True))
    return type(x) is type(y) and bool(x == y)


def summary(found: Diff, most: int = 20) -> Sequence[tuple[str, str, int]]:
    """(what, which, how many) rows for a table: totals, changes by field, removals by reason."""
    rows = [("same", "", found.same), ("added", "", len(found.added)), ("removed", "", len(found.removed))]
    rows += [("removed", reason, n) for reason, n in found.reasons.items()]
    rows += [("changed", "", len(found.changed))]
    rows += [("changed", name, n) for name, n in sorted(found.fields.items(), key=lambda p: -p[1])[:most]]
    return rows
