"""An archive of figures: WebDataset triples and Parquet by licence group, 27 fields a figure, resumable shard by shard.

`commercial-000000.tar` holds `KEY.png`, `KEY.txt` (caption), `KEY.json` (the fields); its `.parquet` the same
fields for filters. `index.json` lists what is complete, with sizes and digests: a shard that is not in it is not there.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fabrica.corpus.rights import Use, may
from fabrica.corpus.store import Corpus
from fabrica.corpus.views.parts import Exported, key_of, png
from fabrica.errors import UsageError
from fabrica.safe import sha256, write_whole
from fabrica.sources.jats_licence import licence_group
from fabrica.types import Absent, Record

INDEX = "index.json"
GROUPS = ("commercial", "noncommercial", "other")
FIELDS = pa.schema(
    [
        ("key", pa.string()), ("accession_id", pa.string()), ("pmid", pa.string()), ("doi", pa.string()),
        ("title", pa.string()), ("abstract", pa.string()), ("journal", pa.string()), ("date", pa.string()),
        ("keywords", pa.list_(pa.string())), ("article_type", pa.string()), ("licence", pa.string()),
        ("licence_group", pa.string()), ("attribution", pa.string()), ("figure", pa.string()),
        ("caption", pa.string()), ("panels", pa.string()), ("context", pa.list_(pa.string())),
        ("concept", pa.string()), ("concept_local", pa.string()), ("panel_type", pa.string()), ("cluster", pa.string()),
        ("cluster_distance", pa.float32()), ("image_sha256", pa.string()), ("width", pa.int32()),
        ("height", pa.int32()), ("copy", pa.string()), ("split", pa.string()),
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shard:
    """A complete shard: its tar and Parquet are `NAME.tar`, `NAME.parquet`."""

    name: str
    group: str  # licence group of every row in it
    rows: int
    bytes: int
    sha256: str  # of the tar
    parquet_sha256: str


def write(
    corpus: Corpus, folder: str | Path, *, where: str | None = None, use: Use | None = None,
    shard_records: int = 10_000, shard_bytes: int = 1 << 30,
) -> Exported:  # fmt: skip
    """Write the figures that `where` takes (records of modality "figure" with an image) under `folder`.

    Stopped at any moment, the next call with the same corpus and arguments goes on behind the last complete shard; the
    same corpus gives the same bytes. Records whose rights do not share "full", or do not permit `use`, are left out.
    `UsageError` where the folder holds another archive.
    """
    folder = Path(folder)
    asked = "array_has(tags, 'modality:figure')" if where is None else f"({where})"
    plan = f"{corpus.split_hash(asked)} {corpus.version} {shard_records} {shard_bytes} {use}"
    job = _Job(corpus, folder, hashlib.sha256(plan.encode()).hexdigest(), use)
    ids: dict[str, list[str]] = {group: [] for group in GROUPS}
    rows = corpus.rows(["id", "licence"], asked)
    for name, licence in zip(rows.column("id").to_pylist(), rows.column("licence").to_pylist(), strict=True):
        ids[licence_group(licence or "")].append(name)
    for group, own in ids.items():
        for number, start in enumerate(range(0, len(own), shard_records)):
            job.shard(f"{group}-{number:06d}", group, sorted(own)[start : start + shard_records], shard_bytes)
    return Exported(job.written, 0, sum(job.reasons.values()), dict(sorted(job.reasons.items())))


class _Job:
    def __init__(self, corpus: Corpus, folder: Path, plan: str, use: Use | None) -> None:
        self.corpus, self.folder, self.plan, self.use = corpus, folder, plan, use
        self.done: dict[str, Shard] = {}
        self.written = 0
        self.reasons: Counter[str] = Counter()
        self.article: tuple[str, dict[str, Any]] = ("", {})
        if (folder / INDEX).exists():
            said = json.loads((folder / INDEX).read_bytes())
            if said.get("plan") != plan:
                raise UsageError(f"{folder} holds the archive of another corpus or filter; give a new folder")
            self.done = {s["name"]: Shard(**s) for s in said["shards"]}
        elif folder.exists() and any(p for p in folder.iterdir() if not p.name.startswith(".")):
            raise UsageError(f"{folder} holds something that is no archive; give a new folder")
        folder.mkdir(parents=True, exist_ok=True)

    def shard(self, name: str, group: str, ids: Sequence[str], most: int) -> None:
        """One shard, or what is left of it: too many bytes go on in NAME+1, NAME+2 ..."""
        part = 0
        while ids:
            own = name if part == 0 else f"{name}+{part}"
            if own in self.done and part == 0 and f"{name}+1" not in self.done and self.done[own].rows >= len(ids):
                self.written += self.done[own].rows
                return
            ids = self._write(own, group, ids, most)
            part += 1

    def _write(self, name: str, group: str, ids: Sequence[str], most: int) -> Sequence[str]:
        tar_path, table_path = self.folder / f"{name}.tar", self.folder / f"{name}.parquet"
        rows: list[dict[str, Any]] = []
        used = 0
        with (
            write_whole(tar_path) as out,
            tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for record in self._records(ids):
                used += 1
                found = self._fields(record, group)
                if found is None:
                    continue
                fields, image = found
                rows.append(fields)
                said = json.dumps(fields, ensure_ascii=True, sort_keys=True).encode()
                for suffix, data in (("json", said), ("png", image), ("txt", fields["caption"].encode())):
                    info = tarfile.TarInfo(f"{fields['key']}.{suffix}")
                    info.size, info.mode = len(data), 0o644
                    tar.addfile(info, io.BytesIO(data))
                if tar.offset >= most:
                    break
        if rows:
            self._listed(name, group, rows, tar_path, table_path)
        else:
            tar_path.unlink()
        return ids[used:]

    def _records(self, ids: Sequence[str]) -> Iterator[Record]:
        for start in range(0, len(ids), 64):
            yield from self.corpus.take(ids[start : start + 64])

    def _listed(self, name: str, group: str, rows: list[dict[str, Any]], tar: Path, table: Path) -> None:
        import pyarrow.parquet as pq

        with write_whole(table) as out:
            pq.write_table(pa.Table.from_pylist(rows, schema=FIELDS), out, compression="zstd")
        self.done[name] = Shard(name, group, len(rows), tar.stat().st_size, sha256(tar), sha256(table))
        said = {"what": "fabrica figure archive", "plan": self.plan, "fields": FIELDS.names,
                "shards": [asdict(s) for _, s in sorted(self.done.items())]}  # fmt: skip
        with write_whole(self.folder / INDEX) as out:
            out.write(json.dumps(said, indent=1).encode())
        self.written += len(rows)

    def _fields(self, record: Record, group: str) -> tuple[dict[str, Any], bytes] | None:
        """The 27 fields and the PNG; None where the record may not leave whole or has no picture."""
        answers = [may(record, "share_ids"), *([may(record, self.use)] if self.use else [])]
        why = next((a.reason for a in answers if not a.allowed), "")
        why = why or ("share_ids_only" if record.rights.share != "full" else "")
        item = record.first("image")
        pixels = item.value if item is not None and isinstance(item.value, np.ndarray) else None
        if why or pixels is None or not _fits_png(pixels):
            self.reasons[why or ("no_image" if pixels is None else "image_kind")] += 1
            return None
        g, caption = record.groups, record.first("caption")
        spans = {r.label: r.text or "" for r in record.regions if r.role == "caption" and r.shape == "span"}
        distance = record.labels.get("cluster_distance")
        data = png(pixels)
        return {
            "key": key_of(record), "accession_id": g.get("article", ""), "pmid": g.get("pmid", ""),
            "journal": g.get("journal", ""), "date": g.get("date", ""), "article_type": g.get("article_type", ""),
            "licence": record.rights.licence, "licence_group": group, "attribution": record.rights.attribution,
            "figure": g.get("figure", ""), "caption": caption.text() if caption else "",
            "panels": json.dumps(spans, sort_keys=True), "context": [i.text() for i in record.all("context")],
            "concept": g.get("concept", ""), "concept_local": g.get("concept_local", ""),
            "panel_type": g.get("panel_type", ""), "cluster": g.get("cluster", ""),
            "cluster_distance": None if distance is None or isinstance(distance, Absent) else float(distance),
            "image_sha256": hashlib.sha256(data).hexdigest(), "width": pixels.shape[1], "height": pixels.shape[0],
            "copy": g.get("copy", ""), "split": record.split or "", **self._of_article(record),
        }, data  # fmt: skip

    def _of_article(self, record: Record) -> dict[str, Any]:
        """Title, abstract, keywords and DOI of the article's own record, where the corpus holds it."""
        to = next((link.to for link in record.links if link.rel == "part_of"), "")
        if to != self.article[0]:
            found: dict[str, Any] = {"title": "", "abstract": "", "keywords": [], "doi": ""}
            if to and self.corpus.count(f"id = '{_plain(to)}'"):
                (own,) = self.corpus.take([to], roles=("title", "abstract", "keyword"))
                texts = {role: [i.text() for i in own.all(role)] for role in ("title", "abstract", "keyword")}
                found = {"title": " ".join(texts["title"]), "abstract": "\n".join(texts["abstract"]),
                         "keywords": texts["keyword"], "doi": own.groups.get("doi", "")}  # fmt: skip
            self.article = (to, found)
        return self.article[1]


def _fits_png(pixels: NDArray[Any]) -> bool:
    """Whether a PNG holds the picture without loss."""
    if min(pixels.shape, default=0) < 1 or pixels.ndim not in (2, 3):
        return False
    return (
        pixels.dtype.str in ("|u1", "<u2") if pixels.ndim == 2 else pixels.dtype.str == "|u1" and pixels.shape[2] == 3
    )


def _plain(name: str) -> str:
    return name.replace("'", "''")


def shards(folder: str | Path) -> list[Shard]:
    """The complete shards of an archive, by name."""
    path = Path(folder) / INDEX
    if not path.is_file():
        raise UsageError(f"there is no {INDEX} in {folder}; it is no archive, or its first shard was never finished")
    return listed(json.loads(path.read_bytes()))


def listed(index: Mapping[str, Any]) -> list[Shard]:
    """The shards of a parsed index."""
    return [Shard(**s) for s in index["shards"]]
