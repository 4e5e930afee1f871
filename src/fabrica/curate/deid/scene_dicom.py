"""DICOM files with planted identifiers for the residual audit: CT, ultrasound with burned-in text, reports."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.curate.deid.dicom_words import VERBATIM
from fabrica.curate.deid.plants import Person, Plant, Planter, note

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from fabrica.curate.deid.scene import Scene

_SEQUENCES = (
    "ScheduledProtocolCodeSequence", "PerFrameFunctionalGroupsSequence", "RequestAttributesSequence",
    "SharedFunctionalGroupsSequence", "ReferencedSeriesSequence",
)  # fmt: skip
_TEXT = ("PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE")
PICTURES = 3  # of ultrasound, of a patient
_SIZES = {"SH": 16, "AE": 16, "LO": 64, "PN": 64, "ST": 200, "LT": 200, "UT": 200, "UC": 64}


def _base(person: Person, planter: Planter, modality: str, sop: str, uids: Mapping[str, Plant]) -> Dataset:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UID(sop)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = UID(uids["instance"].text)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uids["study"].text, planter.uid().text
    ds.FrameOfReferenceUID = uids["frame"].text
    ds.PatientName, ds.PatientID = f"{person.family}^{person.given}", person.mrn
    ds.PatientBirthDate, ds.Modality = person.birth.strftime("%Y%m%d"), modality
    return ds


def plant_dicom(scene: Scene, planter: Planter, person: Person, n: int) -> None:
    """A CT, ultrasound pictures and a structured report of one study, which refer to each other."""
    uids = {name: planter.uid() for name in ("study", "frame")}
    kinds = ("ct", *("us",) * PICTURES, "sr")
    paths = [f"{person.family}_{person.given}_{n}/{kind}{i}{planter.digits(4)}.dcm" for i, kind in enumerate(kinds)]
    instances = [planter.uid() for _ in paths]
    for path, instance in zip(paths, instances, strict=True):
        uids_here = {**uids, "instance": instance}
        kind = path.rsplit("/", 1)[1][:2]
        maker = {"ct": _ct, "us": _us, "sr": _sr}[kind]
        ds = maker(scene, planter, person, path, uids_here)
        for word in (person.family, person.given):
            scene.put("file_names", path, Plant("name", path, (word,)))
        for plant in (*uids.values(), instance):
            scene.put("uids", path, Plant("uid", plant.text, (plant.text,)))
        ds.ReferencedStudySequence = [_reference(planter, uids["study"].text)]
        ds.SourceImageSequence = [_reference(planter, i.text) for i in instances]
        for name, value in (("study", uids["study"]), ("frame", uids["frame"])):
            scene.uids[value.text].append(
                (path, ("StudyInstanceUID",) if name == "study" else ("FrameOfReferenceUID",))
            )
        scene.uids[uids["study"].text].append((path, ("ReferencedStudySequence", 0, "ReferencedSOPInstanceUID")))
        scene.uids[instance.text].append((path, ("SOPInstanceUID",)))
        for i, other in enumerate(instances):
            scene.uids[other.text].append((path, ("SourceImageSequence", i, "ReferencedSOPInstanceUID")))
        out = io.BytesIO()
        ds.save_as(out, enforce_file_format=True)
        scene.write(path, out.getvalue())
        scene.dicom.append(path)


def _reference(planter: Planter, uid: str) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
    return item


def _pixels(ds: Dataset, array: NDArray[Any]) -> None:
    ds.Rows, ds.Columns, ds.SamplesPerPixel = array.shape[0], array.shape[1], 1
    ds.BitsAllocated = ds.BitsStored = array.dtype.itemsize * 8
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(array.dtype.kind == "i")
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelData = array.tobytes()
    ds["PixelData"].VR = "OW" if array.dtype.itemsize == 2 else "OB"


def _ct(scene: Scene, planter: Planter, person: Person, path: str, uids: Mapping[str, Plant]) -> Dataset:
    from pydicom.dataset import Dataset

    ds = _base(person, planter, "CT", "1.2.840.10008.5.1.4.1.1.2", uids)
    scene.put(
        "dicom_tags",
        path,
        Plant("name", person.family, (person.family, person.given)),
        Plant("id", person.mrn, (person.mrn,)),
    )
    scene.put("dicom_tags", path, Plant("date", f"{person.birth:%Y%m%d}", (f"{person.birth:%Y%m%d}",)))
    _fill(scene, planter, ds, path, "dicom_tags", 62)
    block = ds.private_block(0x0009, f"{planter.syllables()} PRIVATE", create=True)
    for element in range(56):
        plant = _value(planter, "LO")
        block.add_new(element, "LO", plant.text)
        scene.put("dicom_private", path, plant)
    hidden = Dataset()
    _fill(scene, planter, hidden, path, "dicom_private", 8)
    block.add_new(0xF0, "SQ", [hidden])
    deep, deeper = Dataset(), Dataset()
    _fill(scene, planter, deep, path, "dicom_sequences", 32)
    _fill(scene, planter, deeper, path, "dicom_sequences", 32)
    nested = [planter.uid() for _ in range(40)]
    deeper.ReferencedSOPInstanceUID = nested[0].text
    scene.put("uids", path, *nested)
    deep.ReferencedImageSequence = [deeper]
    deep.ReferencedInstanceSequence = [_reference(planter, uid.text) for uid in nested[1:]]
    for keyword in planter.rng.sample(_SEQUENCES, 2):
        setattr(ds, keyword, [deep])
    _pixels(ds, np.random.default_rng(planter.rng.randrange(10**6)).integers(-900, 900, (32, 32)).astype(np.int16))
    return ds


def _fill(scene: Scene, planter: Planter, ds: Dataset, path: str, channel: str, count: int) -> None:
    """Identifiers in `count` attributes drawn from the whole dictionary: named by the table or not."""
    for tag, vr, keyword in planter.rng.sample(_attributes(), count):
        if keyword in ds:
            continue
        plant = _value(planter, vr)
        ds.add_new(tag, vr, plant.text)
        scene.put(channel, path, plant)


_CACHE: list[tuple[int, str, str]] = []


def _attributes() -> list[tuple[int, str, str]]:
    """Every public attribute that can hold text or a date, but those that the profile keeps as they are."""
    from pydicom._dicom_dict import DicomDictionary

    if not _CACHE:
        skip = {"SpecificCharacterSet", "SOPClassUID", "Modality", "CodeMeaning", "TimezoneOffsetFromUTC"} | VERBATIM
        skip |= {"SecondaryCaptureDeviceID", "ConversionType", "BurnedInAnnotation"}  # they would have the file refused
        for tag, (vr, _, _, _, keyword) in sorted(DicomDictionary.items()):
            if (
                vr in (*_TEXT, "DA", "DT")
                and keyword
                and keyword not in skip
                and 0x0008 <= tag >> 16 < 0x7FE0
                and tag >> 16 not in (0x28,)
            ):
                _CACHE.append((tag, vr, keyword))
    return _CACHE


def _value(planter: Planter, vr: str) -> Plant:
    if vr in ("DA", "DT"):
        day = planter.day()
        text = f"{day:%Y%m%d}" + (f"{planter.rng.randrange(24):02d}1533" if vr == "DT" else "")
        return Plant("date", text, (text,))
    if vr == "PN":
        family, given = planter.family(), planter.given()
        return Plant("name", f"{family}^{given}"[:64], (family, given))
    draw = planter.rng.choice((planter.name, planter.number, planter.phone, planter.email, planter.name))
    plant = draw()
    limit = _SIZES.get(vr, 64)
    if len(plant.text) <= limit:
        return plant
    short = planter.digits(9)
    return Plant("id", short, (short,))


def _us(scene: Scene, planter: Planter, person: Person, path: str, uids: Mapping[str, Plant]) -> Dataset:
    """An ultrasound picture: patient's name and number burned in above the region that holds the image."""
    from pydicom.dataset import Dataset

    ds = _base(person, planter, "US", "1.2.840.10008.5.1.4.1.1.6.1", uids)
    array, boxes = burned_picture(planter, person)
    if planter.rng.random() < 0.7:  # the others do not say where their image lies
        region = Dataset()
        region.RegionLocationMinX0, region.RegionLocationMinY0 = 20, 120
        region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 619, 279
        ds.SequenceOfUltrasoundRegions = [region]
    for text, box in boxes:
        scene.put("burned_in", path, Plant("pixels", text, tuple(map(str, box))))
    _pixels(ds, array)
    return ds


def burned_picture(
    planter: Planter, person: Person, *, over: bool = False
) -> tuple[NDArray[np.uint8], list[tuple[str, tuple[int, int, int, int]]]]:
    """A speckled fan (300, 640) with lines that identify the patient in white, and where they stand: above the fan, the
    last `over` it instead."""
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(planter.rng.randrange(10**6))
    array = np.zeros((300, 640), np.uint8)
    array[120:280, 20:620] = rng.gamma(2.0, 22.0, (160, 600)).clip(0, 150).astype(np.uint8)
    picture = Image.fromarray(array)
    draw, boxes = ImageDraw.Draw(picture), []
    size = planter.rng.choice((10, 12, 14, 16))
    font = ImageFont.load_default(size)
    lines = _lines(planter, person)
    for i, line in enumerate(lines):
        at = (320 * (i % 2) + planter.rng.randrange(4, 40), 3 + i // 2 * (size + 2))
        if over and i == len(lines) - 1:
            at = (planter.rng.randrange(30, 420), planter.rng.randrange(130, 250))
        x0, y0, x1, y1 = draw.textbbox(at, line, font=font)
        draw.text(at, line, fill=planter.rng.choice((255, 230, 200)), font=font)
        boxes.append((line, (int(x0), int(y0), int(x1) + 1, int(y1) + 1)))
    return np.asarray(picture), boxes


def _lines(planter: Planter, person: Person) -> list[str]:
    """Twelve lines: the patient's name and number, dates, staff and telephones, the last a date."""
    made = [f"{person.family[:14].upper()} {person.given[:8].upper()}", f"ID {person.mrn}", f"{person.birth:%d.%m.%Y}"]
    for _ in range(3):
        made += [planter.name().text[:24], planter.phone().text, f"{planter.day():%d.%m.%Y}"]
    return made


def burned_left(path: Path, plant: Plant) -> bool:
    """Whether any pixel of the place where text was burned in still differs from its darkest value."""
    from pydicom import dcmread

    x0, y0, x1, y1 = (int(v) for v in plant.words)
    array = dcmread(path).pixel_array if path.suffix == ".dcm" else _png(path)
    part = array[y0:y1, x0:x1]
    return bool(part.max() > part.min())


def _png(path: Path) -> NDArray[Any]:
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture)


def _sr(scene: Scene, planter: Planter, person: Person, path: str, uids: Mapping[str, Plant]) -> Dataset:
    from pydicom.dataset import Dataset

    ds = _base(person, planter, "SR", "1.2.840.10008.5.1.4.1.1.88.11", uids)
    items = []
    for code, meaning in (("121071", "Finding"), ("121073", "Impression"), ("121106", "Comment")) * 2:
        item, concept = Dataset(), Dataset()
        concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = code, "DCM", meaning
        item.RelationshipType, item.ValueType, item.ConceptNameCodeSequence = "CONTAINS", "TEXT", [concept]
        item.TextValue, plants, _ = note(planter, person, 8)
        scene.put("sr_text", path, *plants)
        items.append(item)
    ds.ValueType, ds.ContentSequence = "CONTAINER", items
    return ds


def uid_references(scene: Scene, files: Mapping[str, Path]) -> dict[str, set[str]]:
    """For each planted UID the new ones that stand where it stood, over all files."""
    from pydicom import dcmread

    read = {path: dcmread(where, stop_before_pixels=True) for path, where in files.items()}
    out: dict[str, set[str]] = {}
    for old, places in scene.uids.items():
        found = {_at(read[path], where) for path, where in places if path in read}
        found.discard("")
        if found:
            out[old] = found
    return out


def _at(ds: Any, where: tuple[Any, ...]) -> str:
    for step in where:
        try:
            ds = ds[step] if isinstance(step, int) else getattr(ds, step)
        except (AttributeError, IndexError, KeyError):
            return ""
    return str(ds)
