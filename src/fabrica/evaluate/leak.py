"""The leak gate: does a test set share subjects, pixels, volumes or texts with what a model was trained on?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fabrica.curate.duplicates import hashing, near
from fabrica.curate.duplicates.dedup import machine_made, picture
from fabrica.errors import Leak
from fabrica.types import Record

if TYPE_CHECKING:
    from fabrica.corpus import Corpus

Kind = Literal["subject", "pixels", "near_pixels", "volume", "text"]
KINDS: tuple[Kind, ...] = ("subject", "pixels", "near_pixels", "volume", "text")
MIN_WORDS = 20  # shorter texts are shared by right
SPECIFIC = 5  # shingles of a shared text that no other training text has
_BATCH = 256  # training records compared at once
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Match:
    """One test record and one training record that share something; `score` 1 = equal."""

    kind: Kind
    test: str
    train: str
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What `check` found. `counts`: kind -> test records; `leaked`: test records with any; `boilerplate`: test texts
    that recur in training but are made of phrases that other training texts have as well (not counted)."""

    train: int
    test: int
    counts: Mapping[str, int]
    leaked: int
    examples: tuple[Match, ...] = ()
    boilerplate: int = 0

    @property
    def mark(self) -> str:
        """What is printed beside a score: "" where nothing leaks."""
        if not self.leaked:
            return ""
        kinds = ", ".join(f"{kind} {n}" for kind, n in self.counts.items() if n)
        return f"LEAK: {self.leaked} of {self.test} test records are in training ({kinds})"

    def gate(self, allow_leak: bool = False) -> str:
        """The mark for the score; `errors.Leak` where something leaks and that was not allowed."""
        if self.leaked and not allow_leak:
            pairs = "; ".join(f"{m.kind}: test {m.test} ~ train {m.train}" for m in self.examples)
            raise Leak(
                f"{self.mark}. For instance {pairs}. Split again with split.BySubject after dedup.ImageDuplicates and "
                f"TextDuplicates(act='group'), or print the score marked with --allow-leak"
            )
        return self.mark


def check(train: Corpus | Iterable[Record], test: Corpus | Iterable[Record]) -> LeakReport:
    """Compare what was trained on with what is tested on; the test set's fingerprints are held, training is streamed.

    - subject: the same subject on both sides;
    - pixels: equal decoded pixel values, however stored; near_pixels: the same picture re-encoded, rescaled or slightly
      cropped (perceptual hash, then detail: `near.near_pictures`); volume: either, for volumes. Constant pictures
      are not compared;
    - text: a text of `MIN_WORDS` words or more whose 5-word shingles have a Jaccard similarity of 0.8 or more with a
      training text, and of which `SPECIFIC` shingles or more stand in no other training text.

    Texts need that last condition because honest reports repeat: of 1,191 findings sections drawn at random from the
    Indiana reports 337 have a near-equal twin among the other patients, nearly all of them templates. Machine text
    (label captions, generated reports) is not compared: it is equal wherever labels are.
    """
    index = _Index(_records(test))
    found = _Found()
    stream, read = _records(train), 0
    while batch := list(islice(stream, _BATCH)):
        read += len(batch)
        index.compare(batch, found)
    index.texts.judge(found)
    return found.report(read, index.count)


def _records(of: Corpus | Iterable[Record]) -> Iterator[Record]:
    scan = getattr(of, "scan", None)
    return iter(of) if scan is None else scan()  # type: ignore[arg-type]


@dataclass(slots=True)
class _Found:
    """Matches as they come: all test ids by kind, a few examples of each."""

    ids: dict[Kind, set[str]] = field(default_factory=lambda: {kind: set() for kind in KINDS})
    examples: list[Match] = field(default_factory=list)
    boilerplate: int = 0

    def add(self, match: Match) -> None:
        if match.test not in self.ids[match.kind]:
            if len(self.ids[match.kind]) < _EXAMPLES:
                self.examples.append(match)
            self.ids[match.kind].add(match.test)

    def report(self, train: int, test: int) -> LeakReport:
        counts: dict[str, int] = {kind: len(ids) for kind, ids in self.ids.items()}
        order = sorted(self.examples, key=lambda m: KINDS.index(m.kind))
        leaked = len(set().union(*self.ids.values()))
        return LeakReport(train, test, counts, leaked, tuple(order), self.boilerplate)


class _Index:
    """The test set's fingerprints."""

    def __init__(self, records: Iterator[Record]) -> None:
        self.count = 0
        self.subjects: dict[str, list[str]] = {}
        self.images, self.volumes = _Pictures("image"), _Pictures("volume")
        self.texts = _Texts()
        for record in records:
            self.count += 1
            self.subjects.setdefault(record.subject, []).append(record.id)
            self.images.add(record)
            self.volumes.add(record)
            self.texts.add(record)
        self.images.ready()
        self.volumes.ready()
        self.texts.ready()

    def compare(self, batch: list[Record], found: _Found) -> None:
        for record in batch:
            for id_ in self.subjects.get(record.subject, ()):
                found.add(Match("subject", id_, record.id))
        self.images.compare(batch, found)
        self.volumes.compare(batch, found)
        self.texts.compare(batch, found)


class _Pictures:
    """Images or volumes: owners, digests, hashes, thumbnails."""

    def __init__(self, kind: Literal["image", "volume"]) -> None:
        self.kind = kind
        self.owner: list[str] = []
        self.by_sha: dict[str, list[int]] = {}
        self._hashes: list[int] = []
        self._thumbs: list[NDArray[np.uint8]] = []
        self._synthetic: list[bool] = []

    def add(self, record: Record) -> None:
        for items in record.items.values():
            for item in items:
                if (
                    item.kind == self.kind
                    and isinstance(item.value, np.ndarray)
                    and (p := picture(record, item)) is not None
                ):
                    self.by_sha.setdefault(p.sha, []).append(len(self.owner))
                    self.owner.append(record.id)
                    self._hashes.append(p.hash)
                    self._thumbs.append(p.thumb)
                    self._synthetic.append(p.synthetic)

    def ready(self) -> None:
        self.hashes = np.array(self._hashes, np.uint64)
        self.synthetic = np.array(self._synthetic, bool)
        self.thumbs = np.stack(self._thumbs) if self._thumbs else np.empty((0, 1), np.uint8)

    def compare(self, batch: list[Record], found: _Found) -> None:
        if not self.owner:
            return
        mine = _Pictures(self.kind)
        for record in batch:
            mine.add(record)
        mine.ready()
        exact: Kind = "pixels" if self.kind == "image" else "volume"
        for sha, here in mine.by_sha.items():
            for i in self.by_sha.get(sha, ()):
                found.add(Match(exact, self.owner[i], mine.owner[here[0]]))
        pairs = near.match_hashes(mine.hashes, self.hashes)
        known = found.ids[exact]
        pairs = pairs[[self.owner[j] not in known for j in pairs[:, 1].tolist()]] if len(pairs) else pairs
        strict = mine.synthetic[pairs[:, 0]] | self.synthetic[pairs[:, 1]]
        same, scores = near.verified(mine.thumbs, self.thumbs, pairs, strict=strict)
        near_kind: Kind = "near_pixels" if self.kind == "image" else "volume"
        for (i, j), score in zip(pairs[same].tolist(), scores[same].tolist(), strict=True):
            found.add(Match(near_kind, self.owner[j], mine.owner[i], round(score, 3)))


class _Texts:
    """Texts worth comparing: long and not machine-made."""

    def __init__(self) -> None:
        self.owner: list[str] = []
        self.texts: list[str] = []

    def add(self, record: Record) -> None:
        for items in record.items.values():
            for item in items:
                if item.kind == "text" and item.present and not machine_made(record, item):
                    text = hashing.normalise_text(item.text())
                    if text.count(" ") + 1 >= MIN_WORDS:
                        self.owner.append(record.id)
                        self.texts.append(text)

    def ready(self) -> None:
        """Shingles, band keys, and counters: in how many training texts each shingle of ours stands, and in how many
        of those that match its text."""
        self.values, self.offsets = _distinct(*hashing.shingles(self.texts))
        self.keys = near.band_keys(hashing.minhash(self.values, self.offsets))
        self.known = np.unique(self.values)
        self.spread = np.zeros(len(self.known), np.int64)
        self.shared = np.zeros(len(self.values), np.int64)
        self.best: dict[int, Match] = {}

    def compare(self, batch: list[Record], found: _Found) -> None:
        mine = _Texts()
        for record in batch:
            mine.add(record)
        if not self.texts or not mine.texts:
            return
        mine.ready()
        at = np.searchsorted(self.known, mine.values).clip(max=len(self.known) - 1)
        np.add.at(self.spread, at[self.known[at] == mine.values], 1)
        for i, j in _across(mine.keys, self.keys):
            theirs, ours = mine._set(i), self._set(j)
            both = np.isin(ours, theirs, assume_unique=True)
            score = both.sum() / (len(theirs) + len(ours) - both.sum())
            if score >= near.JACCARD:
                self.shared[self.offsets[j] : self.offsets[j + 1]] += both
                match = Match("text", self.owner[j], mine.owner[i], round(float(score), 3))
                self.best[j] = max(self.best.get(j, match), match, key=lambda m: m.score)

    def _set(self, i: int) -> NDArray[np.uint64]:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def judge(self, found: _Found) -> None:
        """Count the matches that are no boilerplate."""
        for j, match in sorted(self.best.items()):
            part = slice(self.offsets[j], self.offsets[j + 1])
            spread = self.spread[np.searchsorted(self.known, self.values[part])]
            if ((self.shared[part] > 0) & (spread == self.shared[part])).sum() >= SPECIFIC:
                found.add(match)
            else:
                found.boilerplate += 1


def _distinct(values: NDArray[np.uint64], offsets: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Each text's shingles once, sorted."""
    text = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((values, text))
    values, text = values[order], text[order]
    first = np.ones(len(values), bool)
    first[1:] = (values[1:] != values[:-1]) | (text[1:] != text[:-1])
    return values[first], np.searchsorted(text[first], np.arange(len(offsets)))


def _across(mine: NDArray[np.uint64], theirs: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Pairs (mine, theirs) that share a key in any band."""
    pairs: set[tuple[int, int]] = set()
    for a, b in zip(mine.T, theirs.T, strict=True):
        order = np.argsort(b, kind="stable")
        low, high = np.searchsorted(b[order], a, "left"), np.searchsorted(b[order], a, "right")
        for i in np.flatnonzero(high > low).tolist():
            pairs.update((i, j) for j in order[low[i] : high[i]].tolist())
    return sorted(pairs)
