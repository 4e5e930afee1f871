"""Splits by subject: what belongs together is linked, each group assigned by a hash, so that data may be added."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fabrica.curate.duplicates.near import Groups, merged
from fabrica.curate.engine.ledger import Decisions, Rows
from fabrica.errors import UsageError
from fabrica.types import Record

if TYPE_CHECKING:
    from fabrica.corpus import Corpus

_PROTECTED = {"hidden": 0, "test": 1, "val": 2, "train": 3}  # who keeps a record that two splits claim
_SIDES = sorted(_PROTECTED, key=_PROTECTED.__getitem__)
LINKS = ("study", "series", "patient", "case", "article", "video", "near_image", "near_text")


_NOTES = pa.schema(
    [("id", pa.string()), ("subject", pa.string()), ("split", pa.string()), ("keys", pa.list_(pa.string()))]
)


def fraction(salt: str, key: str) -> float:
    """A number in [0, 1) that depends on salt and key alone.

    >>> fraction("", "p1") == fraction("", "p1"), 0 <= fraction("x", "p1") < 1
    (True, True)
    """
    return int.from_bytes(hashlib.sha256(f"{salt}\x1f{key}".encode("utf-8", "surrogatepass")).digest()[:7]) / 2**56


@dataclass(kw_only=True)
class BySubject:
    """Train, val and test by subject, after everything that belongs together is linked.

    Records are joined (union-find) over `subject` and the groups in `link`; near-duplicate groups come from
    `dedup.ImageDuplicates` and `dedup.TextDuplicates`, which must stand before. A joined group goes where
    hash(`salt`, group) falls in `fractions`: no state, so adding records of new subjects moves nobody.

    A record that has a split keeps it: from its source (`given`), or from an earlier run (`frozen`, id -> split;
    `curate.run` fills it in from what the same plan wrote before). Its group follows. New data may link two groups
    that stand in different splits: then neither moves, and the records that make the link are dropped from all but the
    most protected split (hidden, test, val, train; reason "linked_to_<split>"), as are records of a subject whose
    source put it in two splits.
    """

    fractions: Mapping[str, float] = field(default_factory=lambda: {"train": 0.8, "val": 0.1, "test": 0.1})
    salt: str = ""
    link: tuple[str, ...] = LINKS
    given: bool = True
    frozen: Mapping[str, str] = field(default_factory=dict)
    name: str = field(default="by_subject", init=False)
    version: str = field(default="1", init=False)
    light: bool = field(default=True, init=False, repr=False)  # `note` reads no items

    def __post_init__(self) -> None:
        wrong = sorted(set(self.fractions) - set(_PROTECTED))
        total = sum(self.fractions.values())
        if wrong or abs(total - 1) > 1e-9 or min(self.fractions.values(), default=0) < 0:
            raise UsageError(
                f"split fractions {dict(self.fractions)}: wanted shares of {', '.join(_PROTECTED)} that sum to 1"
            )

    def note(self, record: Record, /) -> dict[str, Any]:
        """What links the record to others, and the split it came with."""
        keys = [f"{name}\x1f{record.groups[name]}" for name in self.link if record.groups.get(name)]
        split = record.split if self.given else None
        return {"id": record.id, "subject": record.subject, "split": split, "keys": keys}

    def decide(self, rows: Sequence[Mapping[str, Any]], /) -> Decisions:
        """A split, or a drop, for every id. About 150 bytes a record."""
        rows = Rows.wrap(rows, _NOTES)
        ids, codes, subjects = rows.column("id"), *_coded(rows.column("subject"))
        splits = self._known(ids, rows.column("split"))
        labels = np.arange(len(ids))
        keys = rows.column("keys")
        owners = np.repeat(np.arange(len(ids)), pc.list_value_length(keys).to_numpy(zero_copy_only=False).astype(int))
        for owner, code in ((np.arange(len(ids)), codes), (owners, _coded(pc.list_flatten(keys))[0])):
            labels = merged(labels, owner[_first(code)][code], owner)
        given = np.flatnonzero(splits >= 0)
        claims = np.unique(np.stack([labels[given], splits[given]], axis=1), axis=0)
        groups, count = np.unique(claims[:, 0], return_counts=True)
        clash = np.isin(labels, groups[count > 1])
        split_of = self._assigned(labels, codes, subjects)
        claimed = dict(claims[np.isin(claims[:, 0], groups[count == 1])].tolist())
        side = np.array([claimed.get(label, split_of[label]) for label in np.unique(labels).tolist()], np.int64)
        at = np.unique(labels, return_inverse=True)[1]
        drop, split = _names(np.full(len(ids), -1)), _names(side[at])
        if clash.any():
            self._unlink(rows, np.flatnonzero(clash), splits, drop, split)
        return Decisions.of(ids, drop=drop.tolist(), split=split.tolist())

    def _known(self, ids: pa.Array, given: pa.Array) -> NDArray[np.int64]:
        """The split that each record comes with, as its number in `_PROTECTED`; -1 = none."""
        names = given.to_pylist()
        if self.frozen:
            names = [self.frozen.get(id_, name) for id_, name in zip(ids.to_pylist(), names, strict=True)]
        return np.fromiter((-1 if name is None else _PROTECTED[name] for name in names), np.int64, len(names))

    def _assigned(self, labels: NDArray[np.int64], codes: NDArray[np.int64], subjects: Sequence[str]) -> dict[int, int]:
        """Where each group goes by the subject that leads it: the one whose hash is lowest. Adding members changes
        that seldom, and it is fair."""
        bids = np.array([fraction(f"leader{self.salt}", subject) for subject in subjects])
        by_name = np.argsort(np.argsort(np.array(subjects, object))) if len(subjects) else codes
        order = np.lexsort((by_name[codes], bids[codes], labels))
        groups, first = np.unique(labels[order], return_index=True)
        leaders = codes[order[first]].tolist()
        return {
            group: _PROTECTED[self.assign(subjects[code])] for group, code in zip(groups.tolist(), leaders, strict=True)
        }

    def _unlink(
        self, rows: Rows, at: NDArray[np.int64], splits: NDArray[np.int64], drop: NDArray[Any], split: NDArray[Any]
    ) -> None:
        """Where what belongs together came with several splits: who stays where (`_linked`), row by row."""
        members: dict[tuple[int, str], list[int]] = {}
        some = [dict(row) for row in rows.pick(at)]
        for i, row in enumerate(some):
            members.setdefault((0, f"subject\x1f{row['subject']}"), []).append(i)
            for key in row["keys"]:
                members.setdefault((1 + key.startswith("near_"), key), []).append(i)
        claims: list[str | None] = _names(splits[at]).tolist()
        groups, dropped = _linked([members[key] for key in sorted(members)], claims)
        roots = groups.roots()
        codes, subjects = _coded(pa.array([row["subject"] for row in some], pa.string()))
        assigned = self._assigned(roots, codes, subjects)
        for i, row in enumerate(at.tolist()):
            if i in dropped:
                drop[row], split[row] = f"linked_to_{dropped[i]}", None
            else:
                split[row] = claims[roots[i]] or _SIDES[assigned[int(roots[i])]]

    def assign(self, subject: str) -> str:
        """Where a group led by `subject` goes."""
        place, upto = fraction(self.salt, subject), 0.0
        for name, share in self.fractions.items():
            upto += share
            if place < upto:
                return name
        return [name for name, share in self.fractions.items() if share > 0][-1]


def _coded(values: pa.Array) -> tuple[NDArray[np.int64], list[str]]:
    """(n,) numbers of texts, by first occurrence, and the texts."""
    coded = values.dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist()


def _first(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each code (0..k-1, all there) stands first (k,)."""
    return np.unique(codes, return_index=True)[1]


def _names(numbers: NDArray[np.int64]) -> NDArray[Any]:
    """Splits by number; -1 is None."""
    out: NDArray[Any] = np.array([*_SIDES, None], object)[numbers]
    return out


def _linked(keys: Sequence[Sequence[int]], splits: list[str | None]) -> tuple[Groups, dict[int, str]]:
    """Groups over rows that share a key, and rows dropped with the split they clashed with.

    `splits` holds each row's split; on return, that of each group stands at its root.
    """
    groups = Groups(len(splits))
    dropped: dict[int, str] = {}
    for rows in keys:
        rows = [i for i in rows if i not in dropped]
        claims = {s for i in rows if (s := splits[groups.find(i)])}
        split = min(claims, key=_PROTECTED.__getitem__, default=None)
        anchor = None
        for i in rows:
            root = groups.find(i)
            if splits[root] not in (None, split):
                dropped[i] = str(split)
                continue
            anchor = root if anchor is None else anchor
            groups.join(anchor, root)
            splits[groups.find(root)] = split
    return groups, dropped


def assigned(corpus: Corpus) -> dict[str, str]:
    """Record id -> split of a corpus, for `BySubject(frozen=...)`."""
    rows = corpus.rows(["id", "split"], "split is not null")
    return dict(zip(rows["id"].to_pylist(), rows["split"].to_pylist(), strict=True))
