"""Outside bytes -> Record: one module per format, an explicit table of them, and nothing that bad bytes can stop."""

from __future__ import annotations

import importlib
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from fabrica.errors import MissingExtra, Refused, UsageError, unknown
from fabrica.safe import LIMITS, Limits, inflate, sha256
from fabrica.types import Record, Rights

if TYPE_CHECKING:
    from fabrica.sources.ehr_map import TableMap

_NONE: Mapping[str, str] = MappingProxyType({})

FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "dicom": "fabrica.sources.dicom:read",
        "nifti": "fabrica.sources.nifti:read",
        "image": "fabrica.sources.image:read",
        "text": "fabrica.sources.text:read",
        "table": "fabrica.sources.table:read",  # csv, tsv, npz, parquet through a column map
        "wfdb": "fabrica.sources.wfdb:read",
        "edf": "fabrica.sources.edf:read",
        "nrrd": "fabrica.sources.nrrd:read",
        "slide": "fabrica.sources.slide:read",
        "xml_report": "fabrica.sources.xml_report:read",
        "meds": "fabrica.sources.meds:read",
        "jats": "fabrica.sources.jats:read",
        "medline": "fabrica.sources.medline:read",
        "webpool": "fabrica.sources.webpool:read",
        "fhir": "fabrica.sources.fhir:read",
        "omop": "fabrica.sources.omop:read",  # the person table, with the tables beside it
        "questions": "fabrica.sources.questions:read",  # multiple choice: PubMedQA, MedQA, MedMCQA, MMLU
        "vqa": "fabrica.sources.vqa:read",  # questions about images: VQA-RAD
        "mimic": "fabrica.sources.mimic:read",  # the table of patients of MIMIC-III, MIMIC-IV, eICU
        "survival_table": "fabrica.sources.survival_table:read",  # follow-up with genes and slides, a patient a record
        "physionet2012": "fabrica.sources.physionet2012:read",  # a stay of the 2012 challenge, its outcomes beside
    }
)


@dataclass(frozen=True, slots=True)
class Ref:
    """A file to read: where it is, its `key` inside the `source`, the licence, and how to read fields from it.

    `columns` for tables: field -> column name (see `sources.table`). For files that hold one thing (DICOM, NIfTI,
    images ...): field -> literal value, or `re:PATTERN` whose first group is searched in the key
    (`{"modality": "mr", "subject": "re:hippocampus_(\\d+)"}`); `mask` is the path of the segmentation beside the file,
    with `{name}` and `{stem}` of the file (`"../labels/{name}"`), `mask_names` names its values (`"1=anterior,2=..."`).
    """

    path: Path
    key: str
    source: str
    licence: str = ""
    columns: Mapping[str, str] = field(default_factory=lambda: _NONE)

    def get(self, name: str) -> str | None:
        """What `columns` says of a single-file field: the literal, or the first group of `re:PATTERN` in the key."""
        said = self.columns.get(name)
        if said is None or not said.startswith("re:"):
            return said
        found = re.search(said[3:], self.key)
        return (found.group(1) if found.re.groups else found.group(0)) if found else None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A file that was not read: `code` for machines, `message` without any value from the file."""

    key: str
    sha256: str
    code: str
    message: str


# What third-party decoders are known to raise on damaged bytes. SyntaxError: Pillow and lxml use it for broken files.
DECODER_ERRORS: tuple[type[Exception], ...] = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, OSError, ArithmeticError, struct.error,
    zlib.error, RuntimeError, SyntaxError, MemoryError, AssertionError, BufferError, StopIteration,
)  # fmt: skip

# ---------------------------------------------------------------- which format

_MAGIC: tuple[tuple[bytes, int, str], ...] = (
    (b"DICM", 128, "dicom"),
    (b"\x89PNG\r\n\x1a\n", 0, "image"),
    (b"\xff\xd8\xff", 0, "image"),
    (b"GIF8", 0, "image"),
    (b"BM", 0, "image"),
    (b"\x00\x00\x00\x0cjP  \r\n", 0, "image"),
    (b"\xff\x4f\xff\x51", 0, "image"),
    (b"II*\x00", 0, "image"),
    (b"MM\x00*", 0, "image"),
    (b"II+\x00", 0, "image"),
    (b"MM\x00+", 0, "image"),
    (b"NRRD000", 0, "nrrd"),
    (b"\xffBIOSEMI", 0, "edf"),
    (b"0       ", 0, "edf"),
    (b"n+1\x00", 344, "nifti"),
    (b"ni1\x00", 344, "nifti"),
    (b"n+2\x00\r\n\x1a\n", 4, "nifti"),
    (b"ni2\x00\r\n\x1a\n", 4, "nifti"),
)
_SUFFIX: Mapping[str, str] = MappingProxyType(
    {
        ".dcm": "dicom", ".dicom": "dicom", ".nii": "nifti", ".hdr": "nifti", ".png": "image", ".jpg": "image",
        ".jpeg": "image", ".gif": "image", ".tif": "image", ".tiff": "image", ".bmp": "image", ".jp2": "image",
        ".svs": "slide", ".ndpi": "slide", ".scn": "slide", ".mrxs": "slide", ".vms": "slide", ".bif": "slide",
        ".txt": "text", ".csv": "table", ".tsv": "table", ".npz": "table", ".parquet": "table", ".hea": "wfdb",
        ".edf": "edf", ".bdf": "edf", ".nrrd": "nrrd", ".nhdr": "nrrd", ".xml": "xml_report",
        ".tgz": "xml_report", ".nxml": "jats", ".tar": "jats", ".jsonl": "table", ".ndjson": "table", ".pq": "table",
        ".json": "fhir",
    }
)  # fmt: skip
_MEDLINE = re.compile(rb"<PubmedArticleSet[\s>]|<!DOCTYPE\s+PubmedArticleSet\b")
_ARTICLE = re.compile(rb"<(?:\w+:)?article[\s>]|<!DOCTYPE\s+(?:\w+:)?article\b|<pmc-articleset")
_FHIR = re.compile(rb'"resourceType"\s*:')
_PEOPLE = frozenset({"person", "patients", "patient"})  # tables of patients, by name: heads of folders of EHR tables
_PAPERWORK = frozenset({"readme", "license", "licence", "notice", "copying", "changelog", "authors"})


def suffix(path: str | Path) -> str:
    """The lower-case suffix, seen through `.gz` (".nii.gz" -> ".nii").

    >>> suffix("a/B.NII.GZ")
    '.nii'
    """
    path = Path(path)
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def stem(path: str | Path) -> str:
    """The name without its suffix, and without `.gz`.

    >>> stem("a/b.nii.gz")
    'b'
    """
    path = Path(path)
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def sniff(path: str | Path) -> str | None:
    """The format of a file by its first bytes, then by its suffix; None when nothing fits."""
    path = Path(path)
    said = _SUFFIX.get(suffix(path))
    if path.stem.lower() in _PAPERWORK:
        return None
    with path.open("rb") as handle:
        head = handle.read(4096)
    if head[:2] == b"\x1f\x8b" and (said != "table" or suffix(path) in (".jsonl", ".ndjson")):
        try:
            head = inflate(head, at_most=4096)
        except Refused:
            return said
    if said == "text" and head.startswith(b"Time,Parameter,Value"):
        return "physionet2012"
    if said in ("slide", "wfdb", "text") or not head:
        return said
    for magic, at, name in _MAGIC:
        if head[at : at + len(magic)] == magic:
            return name
    if said == "xml_report" and suffix(path) == ".xml" and _MEDLINE.search(head):
        return "medline"
    if said == "xml_report" and suffix(path) == ".xml" and _ARTICLE.search(head):
        return "jats"
    if suffix(path) in (".json", ".jsonl", ".ndjson"):
        if _is_questions(path, head):
            return "questions"
        if suffix(path) == ".json" and _is_vqa(head):
            return "vqa"
        return "fhir" if _is_fhir(path, head) else None if said == "fhir" else said
    if said == "table" and (map := _ehr(path)) is not None:
        return "omop" if map.name == "omop" else "mimic"
    if head[:4] == b"PAR1":
        names = _parquet_columns(path)
        if {"code", "subject_id"} <= names:
            return "meds"
        return "webpool" if _is_pool(names) else "table"
    if said is None and _headless_dicom(head):
        return "dicom"
    return said


def _parquet_columns(path: Path) -> set[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError):
        return set()


def _is_questions(path: Path, head: bytes) -> bool:
    from fabrica.sources.questions import is_questions

    return is_questions(head, lines=suffix(path) != ".json")


def _is_vqa(head: bytes) -> bool:
    from fabrica.sources.vqa import is_vqa

    return is_vqa(head)


def _is_fhir(path: Path, head: bytes) -> bool:
    """Whether JSON is of FHIR. Some writers sort keys, so that `resourceType` comes late: 8 MiB of a `.json` are looked
    at; of lines the first 4 KiB."""
    if _FHIR.search(head):
        return True
    if path.suffix.lower() != ".json" or len(head) < 4096:
        return False
    with path.open("rb") as handle:
        return _FHIR.search(handle.read(8 << 20)) is not None


def _ehr(path: Path) -> TableMap | None:
    """The map of the folder of EHR tables whose table of patients this file is; None for any other file."""
    if stem(path).lower() not in _PEOPLE or suffix(path) not in (".csv", ".parquet", ".pq"):
        return None
    from fabrica.sources.ehr_map import recognise
    from fabrica.sources.mimic import MAPS
    from fabrica.sources.omop import OMOP

    return recognise(path, (OMOP, *MAPS.values()))


def parts(path: Path, columns: Mapping[str, str] = _NONE) -> list[Path]:
    """The files that are read together with a file: the tables beside a table of patients, the other files of a FHIR
    bulk export, the outcomes beside a set of stays, the pictures that an article names; where a column map is given,
    the tables that it joins. Sorted; empty for any other file."""
    if _is_article(path):
        from fabrica.sources.jats_beside import beside

        return beside(path)
    if columns:
        from fabrica.sources.joins import files

        return sorted(p for p in files(path, columns) if p.is_file())
    if (map := _ehr(path)) is not None:
        from fabrica.sources.ehr_map import parts as tables

        return sorted(tables(path, map))
    if suffix(path) in (".jsonl", ".ndjson"):
        from fabrica.sources.fhir import bulk

        return bulk(path)
    if path.suffix == ".txt" and path.parent.name.startswith("set-"):
        from fabrica.sources.physionet2012 import outcomes

        return [found] if (found := outcomes(path)) is not None else []
    return []


def _is_article(path: Path) -> bool:
    """Whether a file is an article in JATS by its name, a `.xml` by its first bytes."""
    if path.suffix.lower() not in (".nxml", ".xml") or not path.is_file():
        return False
    try:
        with path.open("rb") as handle:
            return path.suffix.lower() == ".nxml" or _ARTICLE.search(handle.read(4096)) is not None
    except OSError:
        return False  # the reader says why


def _is_pool(names: set[str]) -> bool:
    from fabrica.sources.webpool import is_pool

    return is_pool(sorted(names))


def _headless_dicom(head: bytes) -> bool:
    """A data set without preamble: begins with an element of group 0002 or 0008, little or big endian."""
    return len(head) > 16 and head[:4] in (
        b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x08\x00\x16\x00", b"\x08\x00\x12\x00",
        b"\x02\x00\x00\x00", b"\x02\x00\x01\x00", b"\x02\x00\x02\x00", b"\x00\x08\x00\x00", b"\x00\x08\x00\x05",
        b"\x00\x08\x00\x08", b"\x00\x08\x00\x16",
    )  # fmt: skip


# ---------------------------------------------------------------- which files

_COMPANIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        ".hea": (".dat", ".atr", ".xyz", ".mat", ".qrs", ".ecg", ".pu", ".man", ".apn", ".in", ".al"),
        ".hdr": (".img",),
        ".nhdr": (".raw", ".zraw"),
    }
)


def walk(
    root: str | Path, *, source: str, licence: str = "", columns: Mapping[str, str] | None = None
) -> Iterator[Ref]:
    """Every file under `root` (or `root` itself) in sorted order, but hidden files and parts of another file:
    the data beside a header (`.dat` of `.hea`, `.img` of `.hdr`), the pictures that an article's XML names, the tables
    beside a table of patients where no column map is given (see `parts`), the masks that `columns["mask"]` names."""
    root, columns = Path(root), dict(columns or {})
    if not root.exists():
        raise UsageError(f"there is no file or folder {str(root)!r}")
    if root.is_file():
        yield Ref(root, _key(Path(root.name)), source, licence, columns)
        return
    masks: set[Path] = set()
    files = list(_files(root))
    inner = {part for f in files for part in parts(f, columns)}
    if "mask" in columns:
        masks = {m for m in (mask_path(Ref(f, "", source, "", columns)) for f in files) if m is not None}
    for path in files:
        if path.resolve() not in masks and path not in inner:
            yield Ref(path, _key(path.relative_to(root)), source, licence, columns)


def _key(path: Path) -> str:
    """The path as text that any store takes: bytes that are no UTF-8 are written \\xNN."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _files(root: Path) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        raise UsageError(f"the folder {error.filename!r} cannot be read: {error.strerror}") from error

    for where, folders, names in os.walk(root, onerror=stop):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        kept = sorted(n for n in names if not n.startswith("."))
        if any(suffix(n) == ".nxml" for n in kept):
            kept = [n for n in kept if suffix(n) != ".pdf"]  # the article once more
        heads = {(stem(n), suffix(n)) for n in kept if suffix(n) in _COMPANIONS}
        parts = {(name, part) for name, head in heads for part in _COMPANIONS[head]}
        yield from (Path(where, n) for n in kept if (stem(n), suffix(n)) not in parts)


def mask_path(ref: Ref) -> Path | None:
    """The segmentation that `ref.columns["mask"]` names, if that file exists and is not the file itself."""
    pattern = ref.columns.get("mask")
    if pattern is None:
        return None
    said = pattern.replace("{name}", ref.path.name).replace("{stem}", stem(ref.path))
    if said.startswith("re:"):
        raise UsageError("columns['mask'] is a path beside the file with {name} or {stem}, not a pattern")
    found = (ref.path.parent / said).resolve()
    return found if found.is_file() and found != ref.path.resolve() else None


# ---------------------------------------------------------------- reading


def reader(name: str) -> Callable[[Ref, Limits], Iterator[Record | Quarantined]]:
    """The `read` function of a format, imported now."""
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    module, function = FORMATS[name].split(":")
    found: Callable[[Ref, Limits], Iterator[Record | Quarantined]] = getattr(importlib.import_module(module), function)
    return found


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record | Quarantined]:
    """The records of a file; what cannot be read comes as `Quarantined` with a reason code and stops nothing.

    Codes: those of `Refused`, `unknown_format`, `file` (cannot be opened), `missing_extra`, `undecodable` (the
    decoder failed; the message names the exception's type only, since its text may quote the data).
    """
    name = "unknown"
    try:
        if not ref.path.is_file():
            raise Refused("not_a_file", "not a regular file")
        found = sniff(ref.path)
        if found is None:
            raise Refused("unknown_format", f"no reader knows this file; known: {', '.join(FORMATS)}")
        if ref.columns and (found in ("omop", "mimic") or "header" in ref.columns):
            found = "table"  # somebody's own reading of it
        name = found
        yield from reader(name)(ref, limits)
    except Refused as error:
        yield _quarantined(ref, error.code, str(error))
    except MissingExtra as error:
        yield _quarantined(ref, error.code, str(error))
    except (FileNotFoundError, PermissionError) as error:
        yield _quarantined(ref, "file", f"the file cannot be opened: {error.strerror}")
    except DECODER_ERRORS as error:
        yield _quarantined(ref, "undecodable", f"the {name} decoder stopped with {type(error).__name__}")


def _quarantined(ref: Ref, code: str, message: str) -> Quarantined:
    try:
        digest = sha256(ref.path)
    except (OSError, Refused):
        digest = ""
    return Quarantined(ref.key, digest, code, message)


def rights_of(ref: Ref) -> Rights:
    """The `Rights` that a record of this file carries."""
    return Rights(licence=ref.licence)
