"""Croissant: one Parquet file and `croissant.json`, which says what it holds, checked by mlcroissant on writing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fabrica.corpus.store import Corpus
from fabrica.corpus.views.parts import ROWS, Exported, Shared, read_parquet, tables
from fabrica.errors import Refused, UsageError, need
from fabrica.safe import folder_whole, sha256
from fabrica.types import Record

_ABOUT = {
    "id": "Stable id of the record.",
    "subject": "Hash of the patient, page, article or video; never in two splits.",
    "split": "train, val, test or hidden; empty where none is assigned.",
    "modality": "xray, ct, mr, ultrasound, pathology, fundus, ecg ...",
    "source": "The data set that the record came from.",
    "licence": "Terms of the record: an SPDX id or the source's own name for them.",
    "tags": "group:value and label:name=value.",
    "texts": "Reports, captions and other text, in the order of text_names.",
    "text_names": "role.number.txt of each text.",
    "images": "Images as PNG.",
    "meta": "JSON that says how the parts make up the record.",
}


def write(
    corpus: Corpus, folder: str | Path, *, where: str | None = None, name: str = "corpus", description: str = "",
    url: str = "https://example.org/corpus", citation: str = "",
) -> Exported:  # fmt: skip
    """Write `records.parquet` and `croissant.json` into a new folder, whole or not at all.

    Sizes, hashes, licences and counts are those of what was written. The metadata is validated by mlcroissant before
    the folder appears. `url` is where the data set will be published.
    """
    shared = Shared(corpus, where)
    with folder_whole(folder) as temp:
        _write(shared, temp / "records.parquet")
        licences = sorted({v for v in corpus.rows(["licence"], where).column("licence").to_pylist() if v})
        about = description or f"{shared.records} multimodal medical records of a fabrica corpus."
        meta = _metadata(temp / "records.parquet", name, about, licences or ["unknown"], url, citation)
        (temp / "croissant.json").write_text(json.dumps(meta, indent=2, ensure_ascii=False) + "\n", "utf-8")
        validate(temp / "croissant.json")
    return shared.report()


def _write(records: Shared, path: Path) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, ROWS) as writer:
        for table in tables(records):
            writer.write_table(table)


def _metadata(file: Path, name: str, about: str, licences: list[str], url: str, citation: str) -> dict[str, Any]:
    mlc = need("mlcroissant", "views")
    data = mlc.FileObject(
        id="records.parquet", name="records.parquet", content_url="records.parquet",
        encoding_formats=["application/x-parquet"], sha256=sha256(file), content_size=f"{file.stat().st_size} B",
    )  # fmt: skip
    fields = [_field(mlc, column, text) for column, text in _ABOUT.items()]
    records = mlc.RecordSet(id="records", name="records", description="One row a record.", fields=fields)
    metadata = mlc.Metadata(
        name=name, description=about, url=url, license=licences, cite_as=citation or None, version="1.0.0",
        distribution=[data], record_sets=[records],
    )  # fmt: skip
    found: dict[str, Any] = metadata.to_json()
    return found


def _field(mlc: Any, column: str, text: str) -> Any:
    many = column in ("tags", "texts", "text_names", "images")
    extract = mlc.Extract(column=column)
    source = mlc.Source(file_object="records.parquet", extract=extract)
    kind = mlc.DataType.IMAGE_OBJECT if column == "images" else mlc.DataType.TEXT
    if column == "images":
        source = mlc.Source(
            file_object="records.parquet", extract=extract, transforms=[mlc.Transform(json_path="bytes")]
        )
    return mlc.Field(
        id=f"records/{column}", name=column, description=text, data_types=[kind], source=source, repeated=many
    )  # fmt: skip


def validate(path: str | Path) -> None:
    """Check a Croissant file with mlcroissant; `UsageError` with its reasons."""
    mlc = need("mlcroissant", "views")
    try:
        metadata = mlc.Dataset(jsonld=str(path)).metadata
    except mlc.ValidationError as error:
        raise UsageError(f"{path} is not valid Croissant: {str(error)[:500]}") from error
    if metadata.ctx.issues.errors:
        raise UsageError(f"{path} is not valid Croissant: {sorted(metadata.ctx.issues.errors)[:3]}")


def read(folder: str | Path) -> Iterator[Record]:
    """The records of a folder that `write` made, the file's hash checked first."""
    folder = Path(folder)
    try:
        meta = json.loads((folder / "croissant.json").read_bytes())
        said = next(d for d in meta["distribution"] if d["@id"] == "records.parquet")["sha256"]
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise UsageError(f"{folder} holds no croissant.json of a corpus ({type(error).__name__})") from error
    if sha256(folder / "records.parquet") != said:
        raise Refused("view_bad", f"{folder / 'records.parquet'} is not the file that croissant.json describes")
    yield from read_parquet(folder / "records.parquet")
