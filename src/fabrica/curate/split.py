"""Splits by subject: what belongs together is linked, each group assigned by a hash, so that data may be added."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from fabrica.curate.near import Groups
from fabrica.errors import UsageError
from fabrica.types import Decision, Record, Split

if TYPE_CHECKING:
    from fabrica.corpus import Corpus

_PROTECTED = {"hidden": 0, "test": 1, "val": 2, "train": 3}  # who keeps a record that two splits claim
LINKS = ("study", "series", "patient", "case", "article", "video", "near_image", "near_text")


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

    def decide(self, rows: Sequence[Mapping[str, Any]], /) -> dict[str, Decision]:
        """A split, or a drop, for every id."""
        ids: list[str] = []
        subjects: list[str] = []
        splits: list[str | None] = []
        members: dict[tuple[int, str], list[int]] = {}
        for i, row in enumerate(rows):
            ids.append(row["id"])
            subjects.append(row["subject"])
            splits.append(self.frozen.get(row["id"], row["split"]))
            members.setdefault((0, f"subject\x1f{row['subject']}"), []).append(i)
            for key in row["keys"]:
                members.setdefault((1 + key.startswith("near_"), key), []).append(i)
        groups, dropped = _linked([members[key] for key in sorted(members)], splits)
        roots = groups.roots().tolist()
        leader = self._leaders(roots, subjects)
        out = {}
        for i, id_ in enumerate(ids):
            if i in dropped:
                out[id_] = Decision(drop=f"linked_to_{dropped[i]}")
            else:
                out[id_] = Decision(split=cast(Split, splits[roots[i]] or self.assign(leader[roots[i]])))
        return out

    def _leaders(self, roots: Sequence[int], subjects: Sequence[str]) -> dict[int, str]:
        """Of each group the subject whose hash is lowest: adding members changes it seldom, and is fair."""
        best: dict[int, tuple[float, str]] = {}
        for root, subject in zip(roots, subjects, strict=True):
            bid = (fraction(f"leader{self.salt}", subject), subject)
            best[root] = min(best.get(root, bid), bid)
        return {root: subject for root, (_, subject) in best.items()}

    def assign(self, subject: str) -> str:
        """Where a group led by `subject` goes."""
        place, upto = fraction(self.salt, subject), 0.0
        for name, share in self.fractions.items():
            upto += share
            if place < upto:
                return name
        return [name for name, share in self.fractions.items() if share > 0][-1]


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
