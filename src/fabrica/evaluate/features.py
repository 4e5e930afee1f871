"""What tasks read: one pass over a part of the corpus gives ids, subjects, truths, embeddings and small pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError
from fabrica.evaluate.pictures import PICTURED, SIDE, thumbnail
from fabrica.types import Absent, Item, Origin, Record, record_id

if TYPE_CHECKING:
    from fabrica.corpus import Corpus as Store
    from fabrica.models import Bundle

Progress = Callable[[int, int | None, str], None]
Strings = NDArray[np.str_]
Vectors = NDArray[np.float32]
Want = tuple[str, str]  # (field, "embedding" in the shared space | "features" before the head), or PICTURE
PICTURE: Want = ("", "picture")


@dataclass(frozen=True, slots=True)
class Part:
    """The records of one `where`, as columns of n rows in order of id.

    `data` says "real" or "phantom" a row; `labels` (n,) by name with NaN = unknown; `vectors` (n, d) by
    (arm, (field, what)), unit rows where embeddings; `present` (n,) by (arm, field); `texts` (n,) hashes of the
    normalised text by field ("" = none); `pictures` (n, 64, 64) uint8 with `pictured` (n,).
    """

    where: str
    ids: Strings
    subjects: Strings
    groups: Mapping[str, Strings]
    data: Strings
    labels: Mapping[str, NDArray[np.float64]]
    vectors: Mapping[tuple[str, Want], Vectors]
    present: Mapping[tuple[str, str], NDArray[np.bool_]]
    texts: Mapping[str, Strings]
    pictures: NDArray[np.uint8]
    pictured: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    def group(self, name: str) -> Strings:
        """The value of a group a row, "" where it has none."""
        return self.groups.get(name, np.full(len(self), "", dtype="<U1"))

    def truth(self, labels: Sequence[str]) -> NDArray[np.float64]:
        """(n, L) of the named labels, NaN = unknown."""
        nothing = np.full(len(self), np.nan)
        return np.stack([self.labels.get(name, nothing) for name in labels], 1)

    def classes(self, labels: Sequence[str]) -> NDArray[np.float64]:
        """(n,) the number of the one positive label; NaN where not exactly one of `labels` is positive."""
        positive = self.truth(labels) == 1
        return np.where(positive.sum(1) == 1, positive.argmax(1), np.nan).astype(np.float64)


@dataclass(slots=True)
class Reader:
    """Reads each part of a corpus once and keeps its columns. `plan` says what all tasks will want of a `where`."""

    corpus: Store
    bundles: Mapping[str, Bundle]  # by arm; "model" is the one judged
    progress: Progress | None = None
    plan: Mapping[str, frozenset[Want]] = field(default_factory=dict)
    cache: Path | None = None  # a folder: embeddings of real bundles are kept there and not computed again
    _parts: dict[str, tuple[frozenset[Want], Part]] = field(default_factory=dict)

    def part(self, where: str, wants: Iterable[Want]) -> Part:
        """The part with at least `wants` computed; an error where no record fits."""
        wanted = frozenset(wants) | self.plan.get(where, frozenset())
        held = self._parts.get(where)
        if held is None or not wanted <= held[0]:
            held = (wanted, self._read(where, sorted(wanted)))
            self._parts[where] = held
        return held[1]

    def texts(self, prompts: Sequence[str], field: str, arm: str = "model") -> Vectors:
        """Unit rows (len(prompts), d) of texts through a text field."""
        bundle = self.bundles[arm]
        _, made = embed(bundle, text_records(prompts, roles_of(bundle, field)), field, ["embedding"])
        return made["embedding"][0]

    def _read(self, where: str, wants: Sequence[Want]) -> Part:
        fields = sorted({name for name, _ in wants if name})
        roles = {name: roles_of(self.bundles["model"], name) for name in fields}
        pictures = PICTURE in wants
        shown = {role for r in roles.values() for role in r} - set(PICTURED) | set(PICTURED if pictures else ())
        rows = [_row(r, roles, pictures) for r in self._stream(where, sorted(shown), f"read {where}")]
        if not rows:
            raise UsageError(
                f"no record of the corpus fits {where!r}; was it split (fabrica curate), is the filter right?"
            )
        rows.sort(key=lambda row: row.id)
        vectors: dict[tuple[str, Want], Vectors] = {}
        present: dict[tuple[str, str], NDArray[np.bool_]] = {}
        for arm, bundle in self.bundles.items():
            for name in fields:
                whats = [what for f, what in wants if f == name]
                stream = self._stream(where, roles_of(bundle, name), f"embed {name}, {where}")
                ids, made = embed(bundle, stream, name, whats, feature_cache(bundle, self.cache))
                place = np.argsort(ids, kind="stable")
                if len(ids) != len(rows) or any(ids[p] != row.id for p, row in zip(place, rows, strict=True)):
                    raise UsageError(f"embedding {name!r}: {len(ids)} rows for {len(rows)} records, or other ones")
                for what, (values, here) in made.items():
                    vectors[arm, (name, what)], present[arm, name] = values[place], here[place]
        return _columns(where, rows, vectors, present, fields)

    def _stream(self, where: str, roles: Sequence[str], what: str) -> Iterator[Record]:
        done = 0
        for done, record in enumerate(self.corpus.scan(where, roles=roles), 1):
            yield record
            if self.progress is not None and done % 64 == 0:
                self.progress(done, None, what)
        if self.progress is not None:
            self.progress(done, done, what)


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    subject: str
    groups: Mapping[str, str]
    data: str
    labels: Mapping[str, float]
    texts: Mapping[str, str]
    picture: NDArray[np.uint8] | None


def _row(record: Record, roles: Mapping[str, tuple[str, ...]], pictures: bool) -> _Row:
    labels = {k: float(v) for k, v in record.labels.items() if not isinstance(v, Absent)}
    texts = {name: _text_hash(record.first(*r)) for name, r in roles.items()}
    item = record.first(*PICTURED) if pictures else None
    picture = thumbnail(item) if item is not None else None
    return _Row(record.id, record.subject, record.groups, data_of(record), labels, texts, picture)


def _columns(
    where: str, rows: list[_Row], vectors: Mapping[tuple[str, Want], Vectors],
    present: Mapping[tuple[str, str], NDArray[np.bool_]], fields: Sequence[str],
) -> Part:  # fmt: skip
    group_names = sorted({g for row in rows for g in row.groups})
    label_names = sorted({n for row in rows for n in row.labels})
    empty = np.zeros((SIDE, SIDE), dtype=np.uint8)
    return Part(
        where=where,
        ids=np.array([row.id for row in rows]),
        subjects=np.array([row.subject for row in rows]),
        groups={g: np.array([row.groups.get(g, "") for row in rows]) for g in group_names},
        data=np.array([row.data for row in rows]),
        labels={n: np.array([row.labels.get(n, np.nan) for row in rows]) for n in label_names},
        vectors=vectors,
        present=present,
        texts={f: np.array([row.texts[f] for row in rows]) for f in fields},
        pictures=np.stack([empty if row.picture is None else row.picture for row in rows]),
        pictured=np.array([row.picture is not None for row in rows]),
    )


# ---------------------------------------------------------------- embeddings


def embed(
    bundle: Bundle, records: Iterable[Record], name: str, whats: Sequence[str], cache: Any = None
) -> tuple[list[str], dict[str, tuple[Vectors, NDArray[np.bool_]]]]:
    """ids and, by what, rows and presence in the order of `records`. Embeddings are unit rows; a row that is not finite
    counts as absent. Where features and embeddings are wanted, the encoder runs once."""
    kept = {} if cache is None else {"cache": cache}
    if "features" not in whats:
        ids, values, present = bundle.embed(records, name, **kept)
        rows, here = _finite(values, present)
        return list(ids), {"embedding": (unit(rows), here)}
    once = callable(getattr(getattr(bundle, "model", None), "project", None))
    held = records if once or "embedding" not in whats else list(records)
    ids, values, present = bundle.embed(held, name, what="features", unit=False, **kept)
    out = {"features": _finite(values, present)}
    if "embedding" in whats:
        if once:
            projected = _project(bundle, name, *out["features"])
        else:
            _, projected, present = bundle.embed(held, name, **kept)
        rows, here = _finite(projected, present)
        out["embedding"] = (unit(rows), here)
    return list(ids), out


def _finite(values: Vectors, present: NDArray[np.bool_]) -> tuple[Vectors, NDArray[np.bool_]]:
    rows = np.asarray(values, dtype=np.float32)
    here = np.asarray(present, dtype=bool) & np.isfinite(rows).all(1)
    return np.where(here[:, None], rows, np.float32(0)), here


def _project(bundle: Any, name: str, features: Vectors, present: NDArray[np.bool_]) -> Vectors:
    """Features through the model's head."""
    import torch

    device = next(bundle.model.parameters()).device
    parts = []
    with torch.no_grad():
        for start in range(0, max(1, len(features)), 1024):
            rows, here = (torch.from_numpy(x[start : start + 1024]).to(device) for x in (features, present))
            parts.append(bundle.model.project(name, rows, here).float().cpu().numpy())
    return np.concatenate(parts)


def feature_cache(bundle: object, folder: Path | None) -> Any:
    """The feature cache of a bundle that can use one (those of `models`), else None."""
    if folder is None or not hasattr(bundle, "model"):
        return None
    from fabrica.models.cache import FeatureCache

    return FeatureCache(folder)


def unit(vectors: NDArray[Any]) -> Vectors:
    """Rows (n, d) scaled to length 1; a row of zeros stays.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    values = np.asarray(vectors, dtype=np.float32)
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    out = np.zeros_like(values)
    np.divide(values, length, out=out, where=length > 0)
    return out


def roles_of(bundle: object, field: str) -> tuple[str, ...]:
    """The roles that a bundle's field reads; the field's own name where the bundle does not say."""
    fields = getattr(getattr(bundle, "collate", None), "fields", {})
    use = fields.get(field) if isinstance(fields, Mapping) else None
    return tuple(getattr(use, "roles", (field,)))


def text_records(texts: Sequence[str], roles: Sequence[str]) -> list[Record]:
    """Texts as records that a text field reads (prompts, queries)."""
    records = []
    for number, text in enumerate(texts):
        origin = Origin("prompt", str(number), "", "", by="human")
        items = {roles[0]: (Item("text", text, origin),)}
        records.append(Record(record_id("prompt", str(number), text), "prompt", items=items))
    return records


def data_of(record: Record) -> str:
    """ "phantom" where the record's group "data" says so or anything of it was synthesised, else "real"."""
    synthetic = any(i.origin.by == "synthetic" for items in record.items.values() for i in items)
    return "phantom" if synthetic or record.groups.get("data") == "phantom" else "real"


def _text_hash(item: Item | None) -> str:
    if item is None or not isinstance(item.value, str):
        return ""
    return hashlib.sha256(" ".join(item.value.lower().split()).encode("utf-8", "surrogatepass")).hexdigest()[:16]
