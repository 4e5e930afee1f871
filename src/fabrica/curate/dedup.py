"""Surveys that find near-duplicate pictures and texts: drop copies, or group them to stay on one side of a split."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fabrica.curate import hashing
from fabrica.curate.near import DETAIL, HAMMING, JACCARD, Groups, Pairs, near_hashes, near_texts, verified
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
        exact = Groups(len(found.sha))
        first: dict[str, int] = {}
        for i, sha in enumerate(found.sha):
            exact.join(first.setdefault(sha, i), i)
        alike = Groups(len(found.sha))
        for i, root in enumerate(exact.roots().tolist()):
            alike.join(root, i)
        if self.near != "ignore":
            for i, j in found.near(self.distance, self.detail):
                alike.join(int(i), int(j))
        decisions: dict[str, Decision] = {}
        if self.near == "drop":
            decisions |= found.drops(alike.roots(), exact.roots())
        elif self.exact == "drop":
            decisions |= found.drops(exact.roots(), exact.roots())
        names = found.linked(alike.roots(), decisions)
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

    def near(self, distance: int, detail: float) -> Pairs:
        """Pairs of pictures that are near-duplicates and not exact ones; images and volumes apart."""
        pairs = near_hashes(self.hashes, distance=distance)
        sha = np.array([int(s[:15], 16) for s in self.sha], np.int64)
        pairs = pairs[sha[pairs[:, 0]] != sha[pairs[:, 1]]]
        used, place = np.unique(pairs, return_inverse=True)
        place = place.reshape(-1, 2)
        strict = self.synthetic[pairs].any(1)
        good = np.zeros(len(pairs), bool)
        for lo in range(0, len(pairs), 4096):
            part = place[lo : lo + 4096]
            here, at = np.unique(part, return_inverse=True)
            thumbs = [self._thumb(int(used[i])) for i in here]
            good[lo : lo + 4096] = _same(thumbs, at.reshape(-1, 2), strict[lo : lo + 4096], detail)
        found: Pairs = pairs[good]
        return found

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
    version: str = field(default="1", init=False)

    def note(self, record: Record, /) -> dict[str, Any]:
        """The record's normalised text, "" where it is not judged."""
        rest = [i for items in record.items.values() for i in items if i.present and i.kind != "text"]
        texts = [
            i.text() for i in record.all(*self.roles) if i.kind == "text" and not (rest and machine_made(record, i))
        ]
        text = hashing.normalise_text("\n".join(texts))
        judged = text.count(" ") + 1 >= self.min_words and not (rest and self.act == "drop")
        return {"id": record.id, "rank": _rank(record), "text": text if judged else ""}

    def decide(self, rows: Sequence[Row], /) -> dict[str, Decision]:
        """Drops or groups by id."""
        kept = [row for row in rows if row["text"]]
        texts = [row["text"] for row in kept]
        groups = Groups(len(texts))
        for i, j in near_texts(texts, threshold=self.threshold).tolist():
            groups.join(i, j)
        roots = groups.roots()
        if self.act == "group":
            names = _group_names(roots, [row["id"] for row in kept])
            return {id_: Decision(groups={"near_text": name}) for id_, name in names.items()}
        best: dict[int, int] = {}
        for i in sorted(range(len(kept)), key=lambda i: str(kept[i]["rank"])):
            best.setdefault(int(roots[i]), i)
        out: dict[str, Decision] = {}
        for i, row in enumerate(kept):
            keeper = best[int(roots[i])]
            if keeper != i:
                out[row["id"]] = Decision(drop="exact_duplicate" if texts[keeper] == texts[i] else "near_duplicate")
        return out


def narrow(rows: Sequence[Row], *names: str) -> Iterable[Row]:
    """Rows with these columns alone, where the sequence can do that cheaply (`engine.Rows`)."""
    select = getattr(rows, "select", None)
    return rows if select is None else select(*names)
