"""Surveys that find near-duplicate pictures and texts: drop copies, or group them to stay on one side of a split."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fabrica.curate.duplicates import hashing
from fabrica.curate.duplicates.near import (
    BANDS,
    DETAIL,
    HAMMING,
    JACCARD,
    Groups,
    band_keys,
    hash_pairs,
    merged,
    near_groups,
    verified,
)  # fmt: skip
from fabrica.curate.engine.ledger import Decisions, Rows
from fabrica.types import Absent, Decision, Item, Record, record_id

_ACCESS = {"open": 0, "credentialed": 1, "restricted": 2}
_SHARE = {"full": 0, "ids_only": 1, "none": 2}

Row = Mapping[str, Any]


def synthetic(record: Record, item: Item) -> bool:
    """Whether a patient was invented: the item's origin says so, or the record's group "data" is "phantom" (synthetic
    files that were written and read back)."""
    return item.origin.by == "synthetic" or record.groups.get("data") == "phantom"


def machine_made(record: Record, item: Item) -> bool:
    """Whether no person wrote a text: a model's or a generator's, label captions among them. Two such texts that are
    equal say that two labels are, not that one was copied from the other."""
    return item.origin.by == "model" or synthetic(record, item)


def _rank(record: Record) -> str:
    """Sorts the record to keep first: widest rights, then most present items and known labels, then lowest id."""
    items = sum(item.present for of_role in record.items.values() for item in of_role)
    labels = sum(not isinstance(v, Absent) for v in record.labels.values())
    rights = _ACCESS[record.rights.access], _SHARE[record.rights.share]
    return f"{rights[0]}{rights[1]}{9999 - min(items, 9999):04d}{9999 - min(labels, 9999):04d}{record.id}"


def _group_names(roots: NDArray[np.int64], owners: Sequence[str]) -> dict[str, str]:
    """Record id -> name of its group, for groups that join two records or more."""
    members: dict[int, set[str]] = {}
    for root, owner in zip(roots.tolist(), owners, strict=True):
        members.setdefault(root, set()).add(owner)
    return {
        owner: record_id("near", min(owners))[:12] for owners in members.values() if len(owners) > 1 for owner in owners
    }


# ---------------------------------------------------------------- pictures


@dataclass(kw_only=True)
class ImageDuplicates:
    """Images and volumes that were there before.

    `exact`: pixel values are equal (however stored); `near`: the same picture re-encoded, rescaled, brightened or
    slightly cropped (perceptual hash, then detail tile by tile: `near.near_pictures`).
    "drop" leaves out records all of whose pictures a kept record has, best rights first, then most items and labels,
    then lowest id; "group" keeps them and names the group in `groups["near_image"]`, which `split.BySubject` keeps on
    one side. Exact copies that are kept for another picture's sake are grouped as well.

    The default drops exact copies and groups near ones: a patient's consecutive pictures may differ little and matter.
    Constant pictures are not judged. Reasons: exact_duplicate, exact_duplicate_other_labels (the copies' labels
    contradict each other: somebody was wrong), near_duplicate.

    Memory: about 300 bytes a picture; 4 KB (volume: 32 KB) each for those that have a candidate.
    """

    exact: Literal["drop", "group"] = "drop"
    near: Literal["drop", "group", "ignore"] = "group"
    distance: int = HAMMING
    detail: float = DETAIL
    name: str = field(default="image_duplicates", init=False)
    version: str = field(default="1", init=False)

    def note(self, record: Record, /) -> dict[str, Any]:
        """Digest, hash and thumbnail of each picture; rank and labels of the record."""
        pictures = [p for item in _pictures(record) if (p := picture(record, item)) is not None]
        labels = {k: v for k, v in record.labels.items() if not isinstance(v, Absent)}
        return {
            "id": record.id, "subject": record.subject, "rank": _rank(record),
            "labels": json.dumps(labels, sort_keys=True), "sha": [p.sha for p in pictures],
            "hash": [_signed(p.hash) for p in pictures], "thumb": [p.thumb.tobytes() for p in pictures],
            "synthetic": [p.synthetic for p in pictures],
        }  # fmt: skip

    def decide(self, rows: Sequence[Row], /) -> dict[str, Decision]:
        """Drops and groups by id."""
        found = _Pictures(rows)
        first: dict[str, int] = {}
        exact = np.array([first.setdefault(sha, i) for i, sha in enumerate(found.sha)], np.int64)
        alike = exact if self.near == "ignore" else found.near(exact, self.distance, self.detail)
        decisions: dict[str, Decision] = {}
        if self.near == "drop":
            decisions |= found.drops(alike, exact)
        elif self.exact == "drop":
            decisions |= found.drops(exact, exact)
        names = found.linked(alike, decisions)
        return decisions | {id_: Decision(groups={"near_image": name}) for id_, name in names.items()}


def _pictures(record: Record) -> Iterator[Item]:
    for items in record.items.values():
        yield from (i for i in items if i.kind in ("image", "volume") and isinstance(i.value, np.ndarray))


def _signed(hash_: int) -> int:
    """Arrow has no list of uint64 from Python ints above 2^63: the same bits as int64."""
    return hash_ - (1 << 64) if hash_ >= 1 << 63 else hash_


class Picture(NamedTuple):
    """An image's or volume's fingerprints: pixel digest, perceptual hash, thumbnail; `synthetic` pictures are compared
    strictly (`near.verified`)."""

    sha: str
    hash: int
    thumb: NDArray[np.uint8]
    synthetic: bool


def picture(record: Record, item: Item) -> Picture | None:
    """The fingerprints of a record's image or volume that is an array; None where it is constant."""
    value = item.array()
    image = item.kind == "image"
    thumb = hashing.thumbnail(value) if image else hashing.volume_thumbnail(value)
    if thumb is None:
        return None
    hashes = (hashing.perceptual if image else hashing.perceptual_volume)(thumb[None])
    return Picture(hashing.pixel_sha(value), int(hashes[0]), thumb, synthetic(record, item))


class _Pictures:
    """The pictures of all rows, flat: owners, digests and hashes in memory, thumbnails read when asked for."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.owner: list[str] = []
        self.sha: list[str] = []
        self.rank: dict[str, str] = {}
        self.subject: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        self.mine: dict[str, list[int]] = {}
        hashes: list[int] = []
        synthetic: list[bool] = []
        self.place: list[tuple[int, int]] = []
        for r, row in enumerate(narrow(rows, "id", "subject", "rank", "labels", "sha", "hash", "synthetic")):
            self.subject[row["id"]] = row["subject"]
            if not row["sha"]:
                continue
            self.rank[row["id"]], self.labels[row["id"]] = row["rank"], row["labels"]
            self.mine[row["id"]] = list(range(len(self.sha), len(self.sha) + len(row["sha"])))
            synthetic += row["synthetic"]
            for k, (sha, hash_) in enumerate(zip(row["sha"], row["hash"], strict=True)):
                self.owner.append(row["id"])
                self.sha.append(sha)
                hashes.append(hash_)
                self.place.append((r, k))
        self.hashes = np.array(hashes, np.int64).view(np.uint64)
        self.synthetic = np.array(synthetic, bool)

    def near(self, labels: NDArray[np.int64], distance: int, detail: float) -> NDArray[np.int64]:
        """Groups (n,) of exact copies -> groups of pictures that are alike; images and volumes apart. Pairs that are in
        one group already are not compared again."""
        for pairs in hash_pairs(self.hashes, distance=distance):
            for lo in range(0, len(pairs), 4096):
                part = pairs[lo : lo + 4096]
                part = part[labels[part[:, 0]] != labels[part[:, 1]]]
                used, at = np.unique(part, return_inverse=True)
                thumbs = [self._thumb(int(i)) for i in used]
                same = _same(thumbs, at.reshape(-1, 2), self.synthetic[part].any(1), detail)
                labels = merged(labels, *part[same].T)
        return labels

    def _thumb(self, i: int) -> NDArray[np.uint8]:
        row, k = self.place[i]
        flat = np.frombuffer(self.rows[row]["thumb"][k], np.uint8)
        shape = (hashing.THUMB,) * 2 if flat.size == hashing.THUMB**2 else (hashing.VOLUME_THUMB,) * 3
        return flat.reshape(shape)

    def linked(self, alike: NDArray[np.int64], gone: Mapping[str, Decision]) -> dict[str, str]:
        """Kept record id -> name of its group. A dropped record still links: whoever else is of its subject belongs to
        whoever has its picture."""
        ids = list(self.subject)
        place = {id_: i for i, id_ in enumerate(ids)}
        groups = Groups(len(ids))
        for owner, root in zip(self.owner, alike.tolist(), strict=True):
            groups.join(place[self.owner[root]], place[owner])
        of_subject: dict[str, int] = {self.subject[id_]: place[id_] for id_ in gone}
        for id_ in ids:
            if self.subject[id_] in of_subject:
                groups.join(of_subject[self.subject[id_]], place[id_])
        kept = [i for i, id_ in enumerate(ids) if id_ not in gone]
        return _group_names(groups.roots()[kept], [ids[i] for i in kept])

    def drops(self, alike: NDArray[np.int64], exact: NDArray[np.int64]) -> dict[str, Decision]:
        """Records all of whose pictures (by group `alike`) one better record holds."""
        holders: dict[int, set[str]] = {}
        out: dict[str, Decision] = {}
        for id_ in sorted(self.mine, key=self.rank.__getitem__):
            keys = {int(alike[i]) for i in self.mine[id_]}
            holding = set.intersection(*(holders.get(k, set()) for k in keys))
            if not holding:
                for k in keys:
                    holders.setdefault(k, set()).add(id_)
                continue
            keeper = min(holding, key=self.rank.__getitem__)
            theirs = {int(exact[i]) for i in self.mine[keeper]}
            if not {int(exact[i]) for i in self.mine[id_]} <= theirs:
                out[id_] = Decision(drop="near_duplicate")
            elif _contradict(self.labels[id_], self.labels[keeper]):
                out[id_] = Decision(drop="exact_duplicate_other_labels")
            else:
                out[id_] = Decision(drop="exact_duplicate")
        return out


def _same(
    thumbs: Sequence[NDArray[np.uint8]], pairs: NDArray[np.int64], strict: NDArray[np.bool_], detail: float
) -> NDArray[np.bool_]:
    """Whether each pair shows the same thing; an image and a volume never do."""
    out = np.zeros(len(pairs), bool)
    for dims in (2, 3):
        index = {i: n for n, i in enumerate(i for i, t in enumerate(thumbs) if t.ndim == dims)}
        rows = [n for n, (i, j) in enumerate(pairs.tolist()) if i in index and j in index]
        if rows:
            stack = np.stack([thumbs[i] for i in index])
            at = np.array([[index[i], index[j]] for i, j in pairs[rows].tolist()], np.int64)
            out[rows] = verified(stack, stack, at, strict=strict[rows], detail=detail)[0]
    return out


def _contradict(a: str, b: str) -> bool:
    mine, theirs = json.loads(a), json.loads(b)
    return any(theirs.get(k, v) != v for k, v in mine.items())


# ---------------------------------------------------------------- texts

_TEXT_NOTES = pa.schema(
    [
        ("id", pa.string()), ("rank", pa.string()), ("text", pa.large_binary()), ("digest", pa.binary(16)),
        ("keys", pa.binary(8 * BANDS)),
    ]
)  # fmt: skip


@dataclass(kw_only=True)
class TextDuplicates:
    """Texts that were there before: 5-word shingles, MinHash, then true Jaccard similarity of `threshold` or more.

    "drop" leaves out text-only records whose text a kept record has (best rights first, as `ImageDuplicates`). A record
    that holds a picture, signal or table is never dropped for its text: two patients share the sentence "no acute
    findings" and not their radiograph. "group" keeps all and names groups in `groups["near_text"]`.
    Texts of fewer than `min_words` words, and texts that a model or generator made of labels in a record that holds
    more than text, are not judged. Reasons: exact_duplicate, near_duplicate.
    """

    roles: tuple[str, ...] = ("report", "caption", "text")
    threshold: float = JACCARD
    min_words: int = 8
    act: Literal["drop", "group"] = "drop"
    name: str = field(default="text_duplicates", init=False)
    version: str = field(default="2", init=False)

    def note(self, record: Record, /) -> dict[str, Any]:
        """The record's normalised text, "" where it is not judged, with its digest and band keys."""
        row: dict[str, Any] = self.notes([record]).to_pylist()[0]
        return row

    def notes(self, records: Sequence[Record], /) -> pa.Table:
        """The same of many at once."""
        texts = [self._judged(record) for record in records]
        digests = [blake2b(t.encode("utf-8", "surrogatepass"), digest_size=16).digest() if t else None for t in texts]
        keys = pa.py_buffer(band_keys(hashing.minhash(*hashing.shingles(texts))).tobytes())
        columns = [
            pa.array([record.id for record in records], pa.string()), pa.array(map(_rank, records), pa.string()),
            pa.array([t.encode("utf-8", "surrogatepass") for t in texts], pa.large_binary()),
            pa.array(digests, pa.binary(16)),
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(8 * BANDS), len(texts), [None, keys]),
        ]  # fmt: skip
        return pa.Table.from_arrays(columns, schema=_TEXT_NOTES)

    def _judged(self, record: Record) -> str:
        rest = [i for items in record.items.values() for i in items if i.present and i.kind != "text"]
        if rest and self.act == "drop":
            return ""
        texts = [
            i.text() for i in record.all(*self.roles) if i.kind == "text" and not (rest and machine_made(record, i))
        ]
        text = hashing.normalise_text("\n".join(texts))
        return text if text.count(" ") + 1 >= self.min_words else ""

    def decide(self, rows: Sequence[Row], /) -> Decisions:
        """Drops or groups by id. About 300 bytes a record, and the texts of those that have a candidate."""
        found = _Texts(Rows.wrap(rows, _TEXT_NOTES), self.threshold)
        together, number = np.unique(found.group, return_inverse=True)
        many = np.bincount(number, minlength=len(together))[number] > 1
        ids = found.rows.gather("id", found.judged[many])
        if self.act == "group":
            first = found.rows.gather("id", found.judged[found.group[many]]).to_pylist()
            names = {id_: json.dumps({"near_text": record_id("near", id_)[:12]}) for id_ in set(first)}
            return Decisions.of(ids, groups=[names[id_] for id_ in first])
        group, digest = found.group[many], found.digest[many]
        best = np.argsort(found.rows.gather("rank", found.judged[many]).to_numpy(zero_copy_only=False), kind="stable")
        roots, firsts = np.unique(group[best], return_index=True)
        keeper = best[firsts][np.searchsorted(roots, group)]
        goes = keeper != np.arange(len(group))
        same = (digest == digest[keeper]).all(1)
        reasons = np.where(same, "exact_duplicate", "near_duplicate")[goes]
        return Decisions.of(ids.filter(pa.array(goes)), drop=reasons.tolist())


class _Texts:
    """The judged texts of all rows: `judged` (m,) their rows, `digest` (m, 2), `group` (m,) the first of the group of
    each. Digests are in memory, keys and texts read when asked for."""

    def __init__(self, rows: Rows, threshold: float) -> None:
        self.rows = rows
        self.judged = np.flatnonzero(rows.column("digest").is_valid())
        self.digest = _words(rows.gather("digest", self.judged), 2)
        first = _first_equal(self.digest)
        self.distinct = np.flatnonzero(first == np.arange(len(first)))
        self._bands: tuple[int, NDArray[np.uint64]] = (-1, np.empty((0, 0), np.uint64))
        labels = near_groups(self._keys, self._texts, len(self.distinct), threshold=threshold)
        self.group = self.distinct[labels[np.searchsorted(self.distinct, first)]]

    def _keys(self, band: int) -> NDArray[np.uint64]:
        """(distinct,) keys of one band; four bands are read at a time."""
        lot = band // 4
        if self._bands[0] != lot:
            keys = np.empty((len(self.distinct), 4), np.uint64)
            for lo in range(0, len(keys), 65536):
                some = self.rows.gather("keys", self.judged[self.distinct[lo : lo + 65536]])
                keys[lo : lo + 65536] = _words(some, BANDS)[:, 4 * lot : 4 * lot + 4]
            self._bands = lot, keys
        return self._bands[1][:, band % 4]

    def _texts(self, at: NDArray[np.int64]) -> list[str]:
        found = self.rows.gather("text", self.judged[self.distinct[at]]).to_pylist()
        return [str(text, "utf-8", "surrogatepass") for text in found]


def _words(column: pa.Array, width: int) -> NDArray[np.uint64]:
    """A column of fixed-size binary without nulls -> (n, width)."""
    words = np.frombuffer(column.buffers()[1], np.uint64) if len(column) else np.empty(0, np.uint64)
    return words[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)


def _first_equal(digest: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The first row (n,) that is equal to each row of (n, 2)."""
    order = np.lexsort((digest[:, 1], digest[:, 0]))  # stable: equal rows stay in order
    ranked = digest[order]
    new = np.ones(len(order), bool)
    new[1:] = (ranked[1:] != ranked[:-1]).any(1)
    out = np.empty(len(order), np.int64)
    out[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    return out


def narrow(rows: Sequence[Row], *names: str) -> Iterable[Row]:
    """Rows with these columns alone, where the sequence can do that cheaply (`ledger.Rows`)."""
    return rows.select(*names) if isinstance(rows, Rows) else rows
