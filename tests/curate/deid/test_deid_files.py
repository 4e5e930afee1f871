"""A folder of files: one patient's dates move together in every format, no name is left, all or nothing."""

import csv
import datetime as dt
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from fabrica.curate.deid import headers
from fabrica.curate.deid.cells import kind_of
from fabrica.curate.deid.dicom_table import Options
from fabrica.curate.deid.files import DeidReport, deidentify_files
from fabrica.curate.deid.key import Key
from fabrica.errors import Refused, UsageError
from fabrica.sources.single import hashed
from made_files import write_dicom

KEY = Key(bytes(range(32)))
DAY = dt.date(2020, 3, 1)


def folder(tmp_path: Path) -> Path:
    """One patient, MRN-4711, in six formats."""
    root = tmp_path / "in"
    (root / "Doe_Jane").mkdir(parents=True)
    write_dicom(root / "Doe_Jane" / "a.dcm", np.zeros((4, 4), np.int16), StudyDate=f"{DAY:%Y%m%d}")
    (root / "Doe_Jane" / "report.txt").write_text("Jane Doe (MRN-4711) was seen on 2020-03-01. Lungs clear.")
    rows = "patient_id,surname,visit_date,dob,age,sbp,remark\nMRN-4711,Doe,2020-03-01,1931-05-06,93,128,Jane is well\n"
    (root / "visits.csv").write_text(rows)
    (root / "side.json").write_text(
        json.dumps({"PatientID": "MRN-4711", "AcquisitionDate": "2020-03-01", "EchoTime": 0.03})
    )
    (root / "e.hea").write_text(
        "e 1 250 4 10:11:12 01/03/2020\ne.dat 16 200/mV 16 0 0 0 0 II\n# Patient ID MRN-4711, Jane\n"
    )
    (root / "e.dat").write_bytes(np.arange(4, dtype="<i2").tobytes())
    (root / "notes.md").write_text("Jane Doe")
    return root


def clean(tmp_path: Path, **more: Any) -> tuple[DeidReport, Path]:
    into = tmp_path / "out"
    return deidentify_files(folder(tmp_path), into, KEY, name="s", **more), into


def test_one_patient_moves_by_the_same_days_in_every_format(tmp_path: Path) -> None:
    report, into = clean(tmp_path)
    subject = hashed("subject", "s", "MRN-4711")
    moved = DAY + dt.timedelta(days=KEY.days(subject))
    here = into / KEY.pseudonym("subject", subject)
    texts = {p.suffix: p for p in here.iterdir()}
    assert pydicom.dcmread(texts[".dcm"]).StudyDate == f"{moved:%Y%m%d}"
    assert texts[".txt"].read_text() == f"[NAME] ([ID]) was seen on {moved}. Lungs clear."
    assert json.loads(texts[".json"].read_text()) == {
        "PatientID": KEY.pseudonym("subject", subject), "AcquisitionDate": str(moved), "EchoTime": 0.03,
    }  # fmt: skip
    assert f"{moved:%d/%m/%Y}" in texts[".hea"].read_text()
    table = next(into.rglob("*.csv"), None)
    (row,) = csv.DictReader(io.StringIO(next(p for p in into.rglob("*.csv") if p.parent != into).read_text()))
    assert table is not None
    assert row == {
        "patient_id": KEY.pseudonym("subject", subject), "surname": "[NAME]", "visit_date": str(moved), "dob": "",
        "age": "90+", "sbp": "128", "remark": "[NAME] is well",
    }  # fmt: skip
    assert report.written == {"dicom": 1, "json": 1, "table": 1, "text": 1, "wfdb": 1}
    assert report.quarantined == {"no_rule": 1}


def test_nothing_of_the_patient_is_left_in_bytes_or_names(tmp_path: Path) -> None:
    _, into = clean(tmp_path)
    for path in into.rglob("*"):
        assert "doe" not in str(path.relative_to(into)).lower()
        if path.is_file():
            data = path.read_bytes().lower()
            assert not [w for w in (b"doe", b"jane", b"4711", b"2020-03-01", b"20200301", b"notes.md") if w in data], (
                path
            )


def test_signals_are_read_as_before(tmp_path: Path) -> None:
    import wfdb

    _, into = clean(tmp_path)
    (head,) = into.rglob("*.hea")
    record = wfdb.rdrecord(str(head.with_suffix("")), physical=False)
    assert record.d_signal[:, 0].tolist() == [0, 1, 2, 3]


def test_it_is_all_or_nothing_and_deterministic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, into = clean(tmp_path)
    again = tmp_path / "again"
    deidentify_files(tmp_path / "in", again, KEY, name="s")
    first = {p.relative_to(into): p.read_bytes() for p in into.rglob("*") if p.is_file() and p.name != "report.json"}
    second = {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file() and p.name != "report.json"}
    assert first == second
    from fabrica.curate.deid import files

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files._Run, "report", killed)
    with pytest.raises(KeyboardInterrupt):
        deidentify_files(tmp_path / "in", tmp_path / "third", KEY, name="s")
    assert not (tmp_path / "third").exists()
    assert not list(tmp_path.glob(".third*"))


def test_what_was_left_out_is_listed_for_the_owner_alone(tmp_path: Path) -> None:
    listing = tmp_path / "left.csv"
    _, into = clean(tmp_path, listing=listing)
    assert "notes.md,no_rule" in listing.read_text()
    assert listing.stat().st_mode & 0o777 == 0o600
    assert KEY.pseudonym("file", "notes.md") in (into / "quarantine.csv").read_text()


def test_wrong_use_is_said(tmp_path: Path) -> None:
    root = folder(tmp_path)
    with pytest.raises(UsageError, match="lies inside"):
        deidentify_files(root, root / "out", KEY)
    with pytest.raises(UsageError, match="group"):
        deidentify_files(root, tmp_path / "out", KEY, subject="patient")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no files"):
        deidentify_files(tmp_path / "empty", tmp_path / "out", KEY)


def test_the_path_says_whose_a_file_is_where_nothing_else_does(tmp_path: Path) -> None:
    root = tmp_path / "in" / "p17"
    root.mkdir(parents=True)
    (root / "a.txt").write_text("Seen 2020-03-01.")
    deidentify_files(tmp_path / "in", tmp_path / "out", KEY, name="s", subject=r"^(p\d+)/")
    subject = hashed("subject", "s", "p17")
    (path,) = (tmp_path / "out" / KEY.pseudonym("subject", subject)).iterdir()
    assert path.read_text() == f"Seen {DAY + dt.timedelta(days=KEY.days(subject))}."


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("PatientID", "subject"), ("subject_id", "subject"), ("mrn", "subject"), ("last_name", "name"),
        ("surname", "name"),
        ("attending_physician", "name"), ("accession_number", "id"), ("hadm_id", "id"), ("dob", "birth"),
        ("BirthDate", "birth"), ("charttime", "date"), ("StudyDate", "date"), ("age", "age"),
        ("home_address", "contact"),
        ("zip", "contact"), ("email", "contact"), ("StudyInstanceUID", "uid"), ("findings", ""), ("heart_rate", ""),
        ("sex", ""), ("label", ""), ("valid", ""), ("drug", ""), ("message", ""), ("dosage", ""),
    ],
)  # fmt: skip
def test_columns_say_what_their_cells_are(column: str, kind: str) -> None:
    assert kind_of(column) == kind


# ---------------------------------------------------------------- formats


def test_nifti_keeps_voxels_and_geometry_and_no_words() -> None:
    import nibabel as nib

    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([1.0, 2, 3, 1]))
    image.header["descrip"], image.header["aux_file"], image.header["db_name"] = b"DOE JANE", b"doe", b"4711"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOE JANE"))
    data = headers.clean_nifti(image.to_bytes())
    assert b"DOE" not in data
    back = nib.Nifti1Image.from_bytes(data)
    np.testing.assert_array_equal(back.get_fdata(), image.get_fdata())
    np.testing.assert_array_equal(back.affine, image.affine)
    assert len(back.header.extensions) == 0


@pytest.mark.parametrize("data", [b"", b"\0" * 348, b"\x5c\x01\0\0" + b"\xff" * 344, b"\x1f\x8b\x08" + b"\0" * 20])
def test_hostile_nifti_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        headers.clean_nifti(data)


def test_a_png_is_its_pixels_alone() -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    picture = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
    chunks, out = PngInfo(), io.BytesIO()
    chunks.add_text("Comment", "Doe Jane")
    exif = Image.Exif()
    exif[0x010E] = "Doe Jane"
    picture.save(out, "PNG", pnginfo=chunks, exif=exif)
    data, boxes = headers.clean_picture(out.getvalue() + b"Doe Jane", mask=False)
    assert boxes == 0
    assert b"Doe" not in data
    names = {
        data[m : m + 4] for m in range(len(data)) if data[m : m + 4] in (b"tEXt", b"eXIf", b"iCCP", b"iTXt", b"zTXt")
    }
    assert not names
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(picture))


def test_pictures_that_turn_or_are_no_pictures() -> None:
    from PIL import Image

    picture, out = Image.new("RGB", (8, 4), (9, 9, 9)), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture.save(out, "JPEG", exif=exif)
    data, _ = headers.clean_picture(out.getvalue(), mask=False)
    assert Image.open(io.BytesIO(data)).size == (4, 8)
    frames = io.BytesIO()
    picture.save(frames, "GIF", save_all=True, append_images=[Image.new("RGB", (8, 4), (1, 2, 3))])
    for bad in (b"", b"\x89PNG\r\n\x1a\n", out.getvalue()[:40], frames.getvalue()):
        with pytest.raises(Refused):
            headers.clean_picture(bad, mask=False)


def test_nrrd_keeps_what_its_array_needs() -> None:
    head = b"NRRD0004\n# Doe Jane\ntype: short\ndimension: 2\nsizes: 2 2\nencoding: raw\n"
    head += b"content: Doe Jane\npatient:=Doe\n\n"
    data = headers.clean_nrrd(head + b"\1\0\2\0\3\0\4\0")
    assert data == b"NRRD0004\ntype: short\ndimension: 2\nsizes: 2 2\nencoding: raw\n\n\1\0\2\0\3\0\4\0"
    with pytest.raises(Refused, match="another file"):
        headers.clean_nrrd(b"NRRD0004\ntype: short\ndata file: doe.raw\n\n")


def test_annotation_files_with_free_text_do_not_go_along() -> None:
    beat, rhythm = (1 << 10 | 5).to_bytes(2, "little"), (63 << 10 | 5).to_bytes(2, "little") + b"(AFIB\0"
    said = (63 << 10 | 8).to_bytes(2, "little") + b"Jane Doe"
    assert headers.annotations_are_plain(beat + rhythm + b"\0\0")
    assert not headers.annotations_are_plain(beat + said + b"\0\0")


def test_text_in_a_picture_is_refused_or_masked(tmp_path: Path) -> None:
    from PIL import Image, ImageDraw, ImageFont

    picture, out = Image.new("L", (200, 100), 10), io.BytesIO()
    ImageDraw.Draw(picture).text((20, 20), "DOE JANE 4711", fill=255, font=ImageFont.load_default(14))
    picture.save(out, "PNG")
    with pytest.raises(Refused, match="text was found"):
        headers.clean_picture(out.getvalue(), mask=False)
    data, boxes = headers.clean_picture(out.getvalue(), mask=True)
    assert boxes >= 1
    assert np.asarray(Image.open(io.BytesIO(data))).max() <= 10
    assert Options(pixels=True).on()[-1] == "pixels"
