"""A folder of invented patients' files with identifiers planted in every channel, for the residual audit. Synthetic."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.curate.deid.plants import Person, Plant, Planter, note
from fabrica.curate.deid.scene_dicom import PICTURES, burned_picture, plant_dicom
from fabrica.curate.deid.unseen import Stranger

UNSEEN = "other_words"  # the channel of notes whose wording the rules were not made with
MANY = 7  # small files of a kind, of a patient


@dataclass(slots=True)
class Scene:
    """What was planted: (channel, path of the file in `root`, plant); clinical terms by report; the DICOM files."""

    root: Path
    plants: list[tuple[str, str, Plant]] = field(default_factory=list)
    terms: dict[str, list[str]] = field(default_factory=dict)
    dicom: list[str] = field(default_factory=list)
    uids: dict[str, list[tuple[str, tuple[Any, ...]]]] = field(default_factory=lambda: defaultdict(list))

    def put(self, channel: str, path: str, *plants: Plant) -> None:
        """Note what was planted."""
        self.plants += [(channel, path, p) for p in plants]

    def write(self, path: str, data: bytes) -> None:
        """A file of the scene."""
        where = self.root / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(data)


def make_scene(root: Path, seed: int, patients: int) -> Scene:
    """Write the files: for each patient CT and ultrasound DICOM, a structured report, notes, letters in other words,
    NIfTI with sidecars, PNG, JPEG, EDF and WFDB; one table of all. About 64 plants a patient in each channel."""
    scene, planter = Scene(root), Planter(seed)
    people = [planter.person() for _ in range(patients)]
    stranger = Stranger(seed)
    for n, person in enumerate(people):
        for i in range(6):
            _letter(scene, stranger, f"letters/{n}_{i}.txt")
        plant_dicom(scene, planter, person, n)
        _notes(scene, planter, person, n)
        for i in range(MANY):
            _nifti_json(scene, planter, person, f"{n}_{i}")
            _signals(scene, planter, person, f"{n}_{i}")
        for i in range(11):
            _picture(scene, planter, person, f"{n}_{i}")
        for i in range(PICTURES):
            _screen(scene, planter, person, f"{n}_{i}")
    _table(scene, planter, people)
    return scene


# ---------------------------------------------------------------- the other channels


def _notes(scene: Scene, planter: Planter, person: Person, n: int) -> None:
    for i in range(8):
        path = f"reports/{person.family}/{person.mrn}_{i}.txt"
        text, plants, terms = note(planter, person, 6)
        scene.write(path, text.encode())
        scene.put("reports", path, *plants)
        scene.put("file_names", path, _whole("id", person.mrn), _whole("name", person.family))
        scene.terms[path] = terms


def _letter(scene: Scene, stranger: Stranger, path: str) -> None:
    text, plants, terms = stranger.letters(5)
    scene.write(path, text.encode())
    scene.put(UNSEEN, path, *plants)
    scene.terms[path] = terms


def _whole(kind: str, text: str) -> Plant:
    return Plant(kind, text, (text,))


def _nifti_json(scene: Scene, planter: Planter, person: Person, n: str) -> None:
    import nibabel as nib

    library: Any = nib
    image = library.Nifti1Image(np.zeros((4, 4, 3), np.int16), np.eye(4))
    name, day = planter.name(person), f"{planter.day():%Y%m%d}"
    image.header["descrip"] = f"{person.given} {person.family}"[:79].encode()
    image.header["db_name"] = person.mrn.encode()[:17]
    image.header["aux_file"] = planter.digits(9).encode()
    image.header["intent_name"] = person.family[:15].encode()
    image.header.extensions.append(library.nifti1.Nifti1Extension("comment", f"{name.text} {day}".encode()))
    path = f"nifti/{person.family}{n}.nii.gz"
    scene.write(path, b"")
    library.save(image, scene.root / path)
    scene.put("nifti_json", path, name, _whole("id", person.mrn), _whole("date", day))
    scene.put("file_names", path, _whole("name", person.family))
    path = f"nifti/{person.family}{n}.json"
    scene.put("file_names", path, _whole("name", person.family))
    _sidecar(scene, planter, person, path)


def _sidecar(scene: Scene, planter: Planter, person: Person, path: str) -> None:
    """What a converter writes beside a NIfTI file."""
    phone, serial, staff, uid = planter.phone(), planter.number(), planter.name(), planter.uid()
    day, birth = planter.day().isoformat(), person.birth.isoformat()
    side = {
        "PatientName": f"{person.family}^{person.given}",
        "PatientID": person.mrn,
        "PatientBirthDate": birth,
        "AcquisitionDateTime": f"{day}T10:11:12.5",
        "DeviceSerialNumber": serial.text,
        "OperatorsName": staff.text,
        "InstitutionAddress": planter.address().text,
        "EchoTime": 0.03,
        "contact": {"phone": phone.text},
        "StudyInstanceUID": uid.text,
    }
    scene.write(path, json.dumps(side).encode())
    scene.put(
        "nifti_json", path, Plant("name", person.family, (person.family, person.given)), serial, staff, phone, uid
    )
    scene.put("nifti_json", path, _whole("id", person.mrn), _whole("date", birth), _whole("date", day))


def _picture(scene: Scene, planter: Planter, person: Person, n: str) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    picture = Image.fromarray((np.random.default_rng(list(n.encode())).random((32, 32)) * 60 + 90).astype(np.uint8))
    staff, day = planter.name(), planter.date()
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = f"{person.given} {person.family}", staff.text
    exif[0x9C9B] = f"{person.mrn}\0".encode("utf-16-le")
    chunks = PngInfo()
    chunks.add_text("Comment", f"{person.given} {person.family} {day.text}", zip=planter.rng.random() < 0.5)
    chunks.add_itxt("Author", staff.text)
    for end, options in (("png", {"pnginfo": chunks}), ("jpg", {"comment": f"{staff.text} {person.mrn}"})):
        out = io.BytesIO()
        picture.save(out, "PNG" if end == "png" else "JPEG", exif=exif, icc_profile=_profile(person), **options)
        path = f"photos/{person.given}{n}.{end}"
        scene.write(path, out.getvalue())
        scene.put("image_metadata", path, Plant("name", person.family, (person.given, person.family)))
        scene.put("image_metadata", path, staff, _whole("id", person.mrn))
        scene.put("file_names", path, Plant("name", person.given, (f"{person.given}{n}", person.given)))


def _screen(scene: Scene, planter: Planter, person: Person, n: str) -> None:
    """A screenshot with text burned in."""
    from PIL import Image

    array, boxes = burned_picture(planter, person, over=True)
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    path = f"photos/screen_{n}.png"
    scene.write(path, out.getvalue())
    scene.put("burned_in", path, *(Plant("pixels", text, tuple(map(str, box))) for text, box in boxes))


def _profile(person: Person) -> bytes:
    """An ICC profile with a description that names somebody."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile + f"desc {person.given} {person.family}".encode()


def _signals(scene: Scene, planter: Planter, person: Person, n: str) -> None:
    _edf(scene, planter, person, f"signals/{person.family}{n}.edf")
    base = f"{person.family.replace('-', '')}{n}"
    scene.put("file_names", f"signals/{base}.hea", Plant("name", base, (person.family, base)))
    doctor, phone, day = planter.name(), planter.phone(), planter.day()
    lines = (
        f"{base} 1 250 500 10:11:12 {day:%d/%m/%Y}",
        f"{base}.dat 16 200/mV 16 0 0 0 0 ECG",
        f"# Name: {person.given} {person.family}",
        f"# Patient ID: {person.mrn}",
        f"# Physician: Dr. {doctor.text}, Tel. {phone.text}",
        f"# Recorded {day:%Y-%m-%d}",
        "# Age: 54 Sex: F",
    )
    path = f"signals/{base}.hea"
    scene.write(path, "\n".join(lines).encode())
    scene.write(path.replace(".hea", ".dat"), np.zeros(500, "<i2").tobytes())
    scene.put("signal_headers", path, Plant("name", person.family, (person.family, person.given, base)), doctor, phone)
    scene.put("signal_headers", path, _whole("id", person.mrn))
    scene.put("signal_headers", path, Plant("date", f"{day}", (f"{day:%d/%m/%Y}", f"{day:%Y-%m-%d}")))


def _edf(scene: Scene, planter: Planter, person: Person, path: str) -> None:
    """An EDF+ recording of one second, with names in the header, in a signal's fields and in an annotation."""
    staff, said, device, day = planter.name(), planter.name(), planter.number(), planter.day()
    patient = f"{person.mrn} M {person.birth:%d-%b-%Y} {person.given}_{person.family}".upper()
    recording = f"Startdate {day:%d-%b-%Y} {device.text} {staff.text.replace(' ', '_')} X".upper()
    head = b"0".ljust(8) + b"".join(t.encode("latin-1", "replace")[:80].ljust(80) for t in (patient, recording))
    head += f"{day:%d.%m.%y}".encode() + b"10.11.12" + b"768".ljust(8) + b"EDF+C".ljust(44) + b"1".ljust(8) * 2
    fields = (
        ("ECG I", "EDF Annotations", 16), (device.text, "", 80), ("mV", "", 8), ("-5", "-1", 8), ("5", "1", 8),
        ("-32768", "-32768", 8), ("32767", "32767", 8), ("HP:0.1Hz", "", 80), ("100", "60", 8), ("", "", 32),
    )  # fmt: skip
    head += b"2".ljust(4) + b"".join(a.encode().ljust(w) + b.encode().ljust(w) for a, b, w in fields)
    marks = b"+0\x14\x14\x00" + f"+0.5\x14Tech: {said.text}\x14\x00".encode()
    scene.write(path, head + np.zeros(100, "<i2").tobytes() + marks[:120].ljust(120, b"\0"))
    scene.put("signal_headers", path, Plant("name", patient, (person.family, person.given)), staff, device, said)
    scene.put("signal_headers", path, _whole("id", person.mrn))
    scene.put("signal_headers", path, Plant("date", f"{day}", (f"{day:%d.%m.%y}", f"{day:%d-%b-%Y}")))
    scene.put("file_names", path, Plant("name", person.family, (person.family, Path(path).stem)))


COLUMNS = (
    "patient_id", "last_name", "first_name", "dob", "admit_date", "phone", "email", "home_address",
    "accession_number", "age", "referring_physician", "visit_time", "systolic", "finding", "notes",
)  # fmt: skip


def _table(scene: Scene, planter: Planter, people: list[Person]) -> None:
    """One table of all patients as CSV and as Parquet, a free note in each row."""
    import csv

    import pyarrow as pa
    import pyarrow.parquet as pq

    for form in ("csv", "parquet"):
        path = f"tables/visits.{form}"
        rows = [_row(scene, planter, person, path) for person in people for _ in range(4)]
        if form == "csv":
            out = io.StringIO()
            csv.writer(out, lineterminator="\n").writerows([COLUMNS, *rows])
            scene.write(path, out.getvalue().encode())
        else:
            table = pa.table({c: [row[i] for row in rows] for i, c in enumerate(COLUMNS)})
            pq.write_table(table, scene.root / path)


def _row(scene: Scene, planter: Planter, person: Person, path: str) -> tuple[str, ...]:
    phone, mail, address, number, doctor = (
        planter.phone(), planter.email(), planter.address(), planter.number(), planter.name()
    )  # fmt: skip
    day, age, birth = planter.day(), planter.age(), person.birth.isoformat()
    written = planter.rng.choice((day.isoformat(), f"{day:%m/%d/%Y}", f"{day:%d.%m.%Y}", f"{day:%Y%m%d}"))
    text, plants, _ = note(planter, person, 6)
    scene.put(
        "table_cells", path, _whole("id", person.mrn), _whole("name", person.family), _whole("name", person.given)
    )
    scene.put("table_cells", path, _whole("date", birth), _whole("date", written), phone, mail, address, number, doctor)
    scene.put("table_notes", path, *plants)
    return (
        person.mrn, person.family, person.given, birth, written, phone.text, mail.text, address.text, number.text,
        age.text, doctor.text, f"{day.isoformat()} 10:12:00", "128", "effusion", text,
    )  # fmt: skip
