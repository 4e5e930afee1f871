"""DICOM files without identifiers: PS3.15 Annex E applied to every element, in sequences too; bytes in, bytes out.

What the table does not name fails closed: names, dates and unknown UIDs as if it did, text keeps words of a closed
list, unknown tags, private tags, binary values, curves and overlays go. The preamble is zeroed, the file meta group
rebuilt.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fabrica.curate.deid import pixels
from fabrica.curate.deid.dicom_table import Options
from fabrica.curate.deid.dicom_walk import ERRORS, Walk
from fabrica.curate.deid.key import Key
from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits, inflate, sha256
from fabrica.sources.dicom_parse import DEFLATED, DataSet, parse
from fabrica.sources.dicom_pixels import quiet_pydicom
from fabrica.sources.single import hashed
from fabrica.text.identifiers import Known

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLEMENTATION = "2.25.198373460418337164537210391027736591120"
_ENCAPSULATED = 0x00420011
_NAMES = (0x00100010, 0x00100020, 0x00101000, 0x00101001, 0x00101060, 0x00101005, 0x00080050, 0x00080090, 0x00081050,
          0x00081060, 0x00081070, 0x00080080, 0x00321032, 0x0040A123, 0x00102160, 0x00102154)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A de-identified file: its bytes, the `subject` it belongs to (as `sources` hashes it), the old SOP Instance UID's
    new one, how often each action was taken, and `masked`: boxes of burned-in text that were blanked."""

    data: bytes
    subject: str
    instance: str
    actions: Mapping[str, int]
    masked: int = 0


def subject_of(data: DataSet, source: str) -> str | None:
    """The record subject that `sources.dicom` gives this file: the key of its shift and pseudonym."""
    said, issuer = data.text(0x00100020), data.text(0x00100021)
    if said:
        return hashed("subject", source, f"{issuer}|{said}" if issuer else said)
    study = data.text(0x0020000D)
    return hashed("subject", source, f"study:{study}") if study else None


def deidentify(
    data: bytes, key: Key, options: Options | None = None, *, source: str = "", known: Known | None = None,
    reader: pixels.TextReader | None = None, limits: Limits = LIMITS,
) -> Cleaned:  # fmt: skip
    """One DICOM file. `source` names the data set as `ingest` does, so that a patient's shift is the same in records.

    Refused: what `sources.dicom_parse` refuses; `burned_in`, `ultrasound_unknown`, `secondary_capture` (see `pixels`);
    `encapsulated_document`; `dicomdir`; `dicom_rewrite` (pydicom cannot read or write it).
    """
    options = options or Options()
    header = _parsed(data, limits)
    if header.text(0x00020002) == "1.2.840.10008.1.3.10" or 0x00041220 in header:
        raise Refused("dicomdir", "a DICOMDIR lists files by names and patients; make a new one from the cleaned files")
    if not header.elements:
        raise Refused("dicom_short", "the file holds no element")
    if header.elements.get(_ENCAPSULATED, (b"", 0, 0))[2]:
        raise Refused("encapsulated_document", "a document inside DICOM (PDF, CDA) is not cleaned")
    subject = subject_of(header, source) or hashed("subject", source, f"file:{sha256(data)}")
    with quiet_pydicom():
        try:
            dataset = _load(data, header)
            finding = pixels.clean_dicom(dataset, options.pixels, reader, limits)
            walk = Walk(key, options, key.days(subject), subject, _known(dataset, known))
            walk.dataset(dataset)
            walk.finish(dataset, finding)
            out = _written(dataset, key)
        except Refused:
            raise
        except ERRORS as error:
            raise Refused("dicom_rewrite", f"the file cannot be rewritten ({type(error).__name__})") from error
    return Cleaned(out, subject, str(dataset.file_meta.MediaStorageSOPInstanceUID), dict(walk.actions), finding.boxes)


def _parsed(data: bytes, limits: Limits) -> DataSet:
    with tempfile.TemporaryFile() as handle:  # the hardened parser reads files
        handle.write(data)
        handle.seek(0)
        found = parse(handle, limits)
        found.source.all()
    return found


def _load(data: bytes, header: DataSet) -> Dataset:
    from pydicom import dcmread
    from pydicom.uid import UID

    if data[:2] == b"\x1f\x8b":
        data = inflate(data, limits=header.limits)
    dataset = dcmread(io.BytesIO(_undeflated(data, header) if header.syntax == DEFLATED else data), force=True)
    if header.syntax == DEFLATED:
        dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    return dataset


def _undeflated(data: bytes, header: DataSet) -> bytes:
    """The file with its body inflated, which `parse` did within the limits, under the syntax of plain bodies."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_file_meta_info
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(EXPLICIT)
    meta.MediaStorageSOPClassUID = UID(header.text(0x00080016) or "1.2.3")
    meta.MediaStorageSOPInstanceUID = UID(header.text(0x00080018) or "1.2.3")
    out = DicomBytesIO()
    out.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(out, meta, enforce_standard=True)
    return out.getvalue() + bytes(header.source.buffer)


def _known(dataset: Dataset, known: Known | None) -> Known:
    values = list(known.values) if known is not None else []
    return Known([*values, *identifiers_of(dataset)])


def header_identifiers(data: DataSet) -> list[str]:
    """The same from a header that was only scanned, as far as its text is plain."""
    out = []
    for tag in _NAMES:
        raw = data.raw(tag)
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        out += [part.strip(" \0") for part in text.split("\\")]
    return [v for v in out if len(v.strip("^ ")) >= 3]


def identifiers_of(dataset: Dataset) -> list[str]:
    """Names and numbers of the patient and the staff that the header states: what its texts must not say."""
    out: list[str] = []
    for tag in _NAMES:
        try:
            value = dataset[tag].value if tag in dataset else None
        except ERRORS:
            continue
        many = isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue"
        values = list(value) if many and value is not None else [value]
        out += [str(v) for v in values if v is not None and type(v).__name__ != "Dataset"]
    return [v for v in out if len(v.strip("^ ")) >= 3]


def _written(dataset: Dataset, key: Key) -> bytes:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    old = getattr(dataset, "file_meta", None)
    syntax = str(old.get("TransferSyntaxUID", "")) if old is not None else ""
    if not syntax:
        implicit, little = dataset.original_encoding
        syntax = "1.2.840.10008.1.2" if implicit else EXPLICIT if little else "1.2.840.10008.1.2.2"
    meta.TransferSyntaxUID = UID(syntax)
    meta.MediaStorageSOPClassUID = UID(str(dataset.get("SOPClassUID", "")) or "1.2.840.10008.5.1.4.1.1.66")
    meta.MediaStorageSOPInstanceUID = UID(str(dataset.get("SOPInstanceUID", "")) or key.uid(f"none:{key.version}"))
    meta.ImplementationClassUID, meta.ImplementationVersionName = UID(IMPLEMENTATION), "FABRICA"
    dataset.file_meta, dataset.preamble = meta, b"\0" * 128
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()
