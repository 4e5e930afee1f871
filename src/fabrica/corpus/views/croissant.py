"""Croissant 1.1: one Parquet file and `croissant.json`, which says what it holds, where it came from and what may be
done with it, checked by mlcroissant on writing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from fabrica.corpus.codec import source_of
from fabrica.corpus.rights import Use, may
from fabrica.corpus.store import Corpus
from fabrica.corpus.views.parts import ROWS, Exported, Shared, read_parquet, tables
from fabrica.errors import Refused, UsageError, need
from fabrica.safe import folder_whole, sha256
from fabrica.types import Record

CONFORMS = "http://mlcommons.org/croissant/1.1"
DUO = {
    "DUO_0000004": "no restriction",
    "DUO_0000026": "user specific restriction",
    "DUO_0000042": "general research use",
    "DUO_0000046": "non-commercial use only",
}
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
    corpus: Corpus, folder: str | Path, *, where: str | None = None, use: Use | None = None, name: str = "corpus",
    description: str = "", url: str = "https://example.org/corpus", citation: str = "", published: date | None = None,
    creators: Sequence[str] = (),
) -> Exported:  # fmt: skip
    """Write `records.parquet` and `croissant.json` into a new folder, whole or not at all.

    Sizes, hashes, licences, sources, steps and counts are those of what was written; `usageInfo` says what may be done
    with the whole in terms of the Data Use Ontology. The metadata is validated by mlcroissant before the folder
    appears. `url` is where the data set will be published. `use`: see `Shared`.
    """
    shared = _Told(corpus, where, use)
    with folder_whole(folder) as temp:
        _write(shared, temp / "records.parquet")
        about = description or f"{shared.records} multimodal medical records of a fabrica corpus."
        said = _Said(name, about, url, citation, published, tuple(creators))
        meta = _metadata(temp / "records.parquet", said, shared, _steps(corpus.path))
        (temp / "croissant.json").write_text(json.dumps(meta, indent=2, ensure_ascii=False) + "\n", "utf-8")
        validate(temp / "croissant.json")
    return shared.report()


@dataclass(frozen=True, slots=True)
class _Said:
    """What the author says of the data set."""

    name: str
    about: str
    url: str
    citation: str
    published: date | None
    creators: tuple[str, ...]


class _Told(Shared):
    """Counts on its way by whom things were made, where they came from, and what all of them permit."""

    def __init__(self, corpus: Corpus, where: str | None, use: Use | None) -> None:
        super().__init__(corpus, where, use)
        self.by: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.forbidden: dict[Use, Counter[str]] = {"train_commercial": Counter(), "train_research": Counter()}

    def __iter__(self) -> Iterator[Record]:
        for record in super().__iter__():
            self.sources[source_of(record)] += 1
            self.by.update(i.origin.by for items in record.items.values() for i in items)
            for asked, no in self.forbidden.items():
                if not (answer := may(record, asked)).allowed:
                    no[answer.reason] += 1
            yield record


def _steps(folder: Path) -> list[str]:
    """The steps of the curation that made this corpus, "name version"; none where it was not curated."""
    card = folder / "curate.json"
    plan = json.loads(card.read_bytes())["plan"] if card.is_file() else []
    return [f"{step['name']} {step['version']}" for step in plan]


def _write(records: Shared, path: Path) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, ROWS) as writer:
        for table in tables(records):
            writer.write_table(table)


def _metadata(file: Path, said: _Said, told: _Told, steps: list[str]) -> dict[str, Any]:
    mlc = need("mlcroissant", "views")
    data = mlc.FileObject(
        id="records.parquet", name="records.parquet", content_url="records.parquet",
        encoding_formats=["application/x-parquet"], sha256=sha256(file), content_size=f"{file.stat().st_size} B",
    )  # fmt: skip
    fields = [_field(mlc, column, text) for column, text in _ABOUT.items()]
    records = mlc.RecordSet(id="records", name="records", description="One row a record.", fields=fields)
    made = [by for by in ("model", "synthetic") if told.by[by]]
    metadata = mlc.Metadata(
        ctx=mlc.Context(conforms_to=CONFORMS), name=said.name, description=said.about, url=said.url,
        license=sorted(told.licences - {""}) or ["unknown"], cite_as=said.citation or None, version="1.0.0",
        date_published=None if said.published is None else datetime.combine(said.published, time()),
        creators=[mlc.Organization(name=who) for who in said.creators], distribution=[data], record_sets=[records],
        data_preprocessing_protocol=steps or None,
        data_annotation_analysis=[f"{n} items by {by}" for by, n in sorted(told.by.items())] or None,
        machine_annotation_tools=[f"items made by a {by}" for by in made] if made else None,
    )  # fmt: skip
    found: dict[str, Any] = metadata.to_json()
    found["@context"]["prov"] = "http://www.w3.org/ns/prov#"
    found["usageInfo"] = _usage(told)
    sources = [s for s in sorted(told.sources) if s]
    if sources:
        found["prov:wasDerivedFrom"] = [{"@type": "prov:Entity", "prov:label": source} for source in sources]
    if steps:
        found["prov:wasGeneratedBy"] = [{"@type": "prov:Activity", "prov:label": step} for step in steps]
    return found


def _usage(told: _Told) -> list[dict[str, Any]]:
    """What may be done with all of it, as terms of the Data Use Ontology (http://purl.obolibrary.org/obo/duo.owl)."""
    research, commercial = told.forbidden["train_research"], told.forbidden["train_commercial"]
    if not commercial and not told.withheld and not research:
        codes = ["DUO_0000004"]
    elif not research:
        codes = ["DUO_0000042", *(["DUO_0000046"] if commercial else [])]
    else:
        codes = ["DUO_0000026"]
    terms = [
        {
            "@type": "sc:DefinedTerm", "@id": f"http://purl.obolibrary.org/obo/{code}", "name": DUO[code],
            "termCode": code, "inDefinedTermSet": "http://purl.obolibrary.org/obo/duo.owl",
        }
        for code in codes
    ]  # fmt: skip
    counts = {"train_commercial": commercial, "train_research": research}
    words = "; ".join(
        f"{use}: {told.records - sum(no.values())} of {told.records} records"
        + (f" (not: {', '.join(f'{n} {reason}' for reason, n in sorted(no.items()))})" if no else "")
        for use, no in counts.items()
    )
    return [*terms, {"@type": "sc:CreativeWork", "name": "answers per record", "text": words}]


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
