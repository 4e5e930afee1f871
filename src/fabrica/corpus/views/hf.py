"""Hugging Face `datasets`: Parquet by split with Image features, and a README.md that `load_dataset(folder)` reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fabrica.corpus.rights import Use
from fabrica.corpus.store import Corpus
from fabrica.corpus.views.parts import ROWS, Exported, Shared, read_parquet, tables
from fabrica.errors import UsageError, need
from fabrica.safe import folder_whole
from fabrica.types import Record


def write(
    corpus: Corpus, folder: str | Path, *, where: str | None = None, use: Use | None = None, name: str = "corpus"
) -> Exported:
    """Write `data/SPLIT.parquet` and a dataset card into a new folder, whole or not at all.

    Columns: id, subject, split, modality, source, licence, tags, texts (with text_names), images (decoded by
    `datasets` to PIL), arrays (name, npy) and meta. Records without a split are in "unassigned". `use`: see `Shared`.
    """
    schema = ROWS.with_metadata(_features())
    shared = Shared(corpus, where, use)
    with folder_whole(folder) as temp:
        (temp / "data").mkdir()
        splits = _write(shared, temp / "data", schema)
        licences = sorted(shared.licences - {""})
        (temp / "README.md").write_text(_card(name, splits, licences, shared.report()), "utf-8")
    return shared.report()


def _write(records: Iterable[Record], folder: Path, schema: Any) -> list[str]:
    import pyarrow.parquet as pq

    writers: dict[str, Any] = {}
    try:
        for table in tables(records):
            names = [v or "unassigned" for v in table.column("split").to_pylist()]
            for split in sorted(set(names)):
                if split not in writers:
                    writers[split] = pq.ParquetWriter(folder / f"{split}.parquet", schema)
                rows = [i for i, n in enumerate(names) if n == split]
                writers[split].write_table(table.take(rows).replace_schema_metadata(schema.metadata))
    finally:
        for writer in writers.values():
            writer.close()
    return sorted(writers)


def _features() -> dict[bytes, bytes]:
    """The metadata by which `datasets` knows that `images` are images."""
    datasets = need("datasets", "views")
    text, blob = datasets.Value("string"), datasets.Value("binary")
    lists = {"tags": text, "texts": text, "text_names": text, "images": datasets.Image()}
    features = {n: datasets.List(lists[n]) if n in lists else text for n in ROWS.names}
    features["arrays"] = datasets.List({"name": text, "npy": blob})
    metadata: dict[bytes, bytes] = datasets.Features(features).arrow_schema.metadata
    return metadata


def _card(name: str, splits: list[str], licences: list[str], report: Exported) -> str:
    files = "".join(f"  - split: {s}\n    path: data/{s}.parquet\n" for s in splits)
    return (
        f"---\npretty_name: {name}\nlicense: other\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n"
        f"# {name}\n\n{report.records} records, {report.withheld} of them by id only; {report.left_out} may not be "
        f"shared and are left out.\nLicences of the records: {', '.join(licences) or 'not said'}. "
        "Each row carries its own.\n"
    )


def read(folder: str | Path) -> Iterator[Record]:
    """The records of a folder that `write` made, split by split."""
    files = sorted(Path(folder).glob("data/*.parquet"))
    if not files:
        raise UsageError(f"there are no data/*.parquet in {folder}")
    for file in files:
        yield from read_parquet(file)
