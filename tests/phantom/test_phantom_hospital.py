"""The phantom hospital on disk: written files equal what was drawn, byte for byte again, and `sources` reads them."""

import csv
import hashlib
import io
import json

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.phantom import Knobs, hospital, labels
from fabrica.phantom.exams import exams
from fabrica.phantom.files import as_stored, ct_affine, mr_affine, uid
from fabrica.sources import Quarantined, Ref, read
from fabrica.types import Absent, Record

N, SIZE = 6, 48
KNOBS = Knobs(missing=0.1, duplicates=0.2, near_duplicates=0.3)


def tree(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "hospital"
    return hospital.write(folder, n_per_modality=N, seed=3, n_broken=10, knobs=KNOBS, size=SIZE)


def drawn(modality):
    return list(exams(N, modality, 3, knobs=KNOBS, size=SIZE))


def rows(written, modality):
    return list(csv.DictReader(io.StringIO((written.folder / f"{modality}.csv").read_text("utf-8"))))


def table(written, modality):
    return next(t for t in written.tables if t.modality == modality)


def read_back(written, modality):
    t = table(written, modality)
    return list(read(Ref(t.path, t.path.name, t.source, t.licence, t.columns)))


def test_the_same_arguments_write_the_same_bytes(written, tmp_path):
    again = hospital.write(tmp_path / "h", n_per_modality=N, seed=3, n_broken=10, knobs=KNOBS, size=SIZE)
    assert tree(written.folder) == tree(again.folder)
    other = hospital.write(tmp_path / "o", n_per_modality=N, seed=4, n_broken=10, knobs=KNOBS, size=SIZE)
    assert tree(written.folder) != tree(other.folder)


def test_written_again_it_is_left_alone_and_never_overwritten(written):
    before = {p: p.stat().st_mtime_ns for p in written.folder.rglob("*")}
    again = hospital.write(written.folder, n_per_modality=N, seed=3, n_broken=10, knobs=KNOBS, size=SIZE)
    assert again == written == hospital.load(written.manifest)
    assert before == {p: p.stat().st_mtime_ns for p in written.folder.rglob("*")}
    with pytest.raises(UsageError, match="another phantom hospital"):
        hospital.write(written.folder, n_per_modality=N, seed=4)


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UsageError, match="not an empty folder"):
        hospital.write(tmp_path, n_per_modality=1, seed=0, modalities=("labs",))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_everything_says_that_it_is_synthetic(written):
    assert "SYNTHETIC" in (written.folder / "PHANTOM.txt").read_text()
    assert json.loads(written.manifest.read_text())["synthetic"] is True
    assert all(t.licence == "CC0-1.0" and t.columns["group:data"] == "'phantom'" for t in written.tables)


def test_ct_is_dicom_with_the_drawn_hounsfield_units(written):
    import pydicom

    for exam in drawn("ct"):
        slices = [pydicom.dcmread(p) for p in sorted((written.folder / "ct" / exam.key).glob("*.dcm"))]
        assert [s.InstanceNumber for s in slices] == list(range(1, 13))
        slices.sort(key=lambda s: s.ImagePositionPatient[2])
        hu = np.stack([s.pixel_array * s.RescaleSlope + s.RescaleIntercept for s in slices])
        assert np.array_equal(hu, exam.picture.pixels)
        one = slices[0]
        assert len({s.SeriesInstanceUID for s in slices}) == len({s.StudyInstanceUID for s in slices}) == 1
        assert len({s.SOPInstanceUID for s in slices}) == 12
        assert one.PatientID == exam.patient.id
        assert str(one.PatientName).split("^")[::-1] == exam.patient.name.split(" ")
        assert "SYNTHETIC" in one.SeriesDescription
        step = float(one.PixelSpacing[0])
        assert ct_affine(SIZE)[0, 0] == pytest.approx(-step)
        gaps = np.diff([float(s.ImagePositionPatient[2]) for s in slices])
        assert np.allclose(gaps, float(one.SpacingBetweenSlices))


def test_dicom_files_are_valid(written):
    import pydicom
    from pydicom.uid import UID

    ds = pydicom.dcmread(next((written.folder / "ct").glob("0*/*.dcm")))
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert UID(ds[name].value).is_valid
    assert len(ds.PixelData) == SIZE * SIZE * 2
    assert UID(uid("x")).is_valid


def test_mr_is_nifti_with_the_drawn_values(written):
    import nibabel as nib

    for exam in drawn("mr"):
        image = nib.load(written.folder / "mr" / f"{exam.key}.nii.gz")
        data = np.asarray(image.dataobj)
        assert np.array_equal(data, as_stored("mr", exam.picture.pixels))
        assert np.allclose(image.affine, mr_affine(SIZE))
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")


@pytest.mark.parametrize("modality", ["ultrasound", "pathology", "fundus"])
def test_flat_pictures_are_png_with_masks(written, modality):
    from PIL import Image

    for exam in drawn(modality):
        assert np.array_equal(
            np.asarray(Image.open(written.folder / modality / f"{exam.key}.png")), exam.picture.pixels
        )
        for f, mask in zip(exam.truth, exam.picture.masks, strict=True):
            path = written.folder / "masks" / modality / f"{exam.key}-{f.label}.png"
            assert np.array_equal(np.asarray(Image.open(path)) > 0, mask)


def test_ecg_is_wfdb_with_the_drawn_millivolts(written):
    wfdb = pytest.importorskip("wfdb")
    for exam in drawn("ecg"):
        got = wfdb.rdrecord(str(written.folder / "ecg" / f"ecg-{exam.key}"))
        assert np.array_equal(got.p_signal.T.astype(np.float32), exam.signal.values)
        assert (got.fs, got.units[0], got.sig_name[6]) == (500, "mV", "V1")
        raw = wfdb.rdrecord(str(written.folder / "ecg" / f"ecg-{exam.key}"), physical=False)
        assert [c % 65536 for c in raw.checksum] == raw.calc_checksum()


def test_tables_hold_labels_reports_and_tests(written):
    for modality in ("ct", "mr", "ecg"):
        by_key = {r["file"].split("/")[1].split(".")[0].removeprefix("ecg-"): r for r in rows(written, modality)}
        for exam in drawn(modality):
            row = by_key[exam.key]
            for k in labels(modality):
                want = exam.labels[k]
                assert row[k] == ("" if isinstance(want, Absent) else str(int(want)))
            text = row.get("report")
            if modality == "ct" and row["report_file"]:
                text = (written.folder / row["report_file"]).read_text().strip()
            assert (text or "") == ("" if isinstance(exam.report, Absent) else exam.report)
    for row, exam in zip(rows(written, "labs"), drawn("labs"), strict=True):
        want = exam.tests["creatinine"]
        assert row["creatinine [umol/L]"] == ("" if isinstance(want, Absent) else str(want))


@pytest.mark.parametrize("modality", ["ct", "mr", "ultrasound", "ecg", "labs"])
def test_sources_read_every_row_back(written, modality):
    got = read_back(written, modality)
    good = [r for r in got if isinstance(r, Record)]
    assert len(good) == table(written, modality).rows
    assert {r.groups["modality"] for r in good} == {modality}
    assert {r.groups["data"] for r in good} == {"phantom"}
    memory = {r.subject for r in hospital.records(N, modality, 3, knobs=KNOBS, size=SIZE)}
    assert memory <= {r.subject for r in good}  # the same hashed people as in memory
    for r in good:
        assert set(r.labels) == set(labels(modality))


def test_records_from_files_equal_records_in_memory(written):
    memory = list(hospital.records(N, "mr", 3, knobs=KNOBS, size=SIZE))
    disk = [r for r in read_back(written, "mr") if isinstance(r, Record)][: len(memory)]
    for a, b in zip(memory, disk, strict=True):
        assert dict(a.labels) == dict(b.labels)
        assert np.array_equal(a.first("volume").array(), b.first("volume").array())
        assert np.allclose(a.first("volume").affine, b.first("volume").affine)
        assert (a.first("report") is None) == (b.first("report") is None)
        if a.first("report"):
            assert a.first("report").text() == b.first("report").text()
    ecgs = list(hospital.records(N, "ecg", 3, knobs=KNOBS))
    for a, b in zip(ecgs, read_back(written, "ecg"), strict=True):
        assert np.array_equal(a.first("ecg").array(), b.first("ecg").array().astype(np.float32))


def test_damage_is_planted_and_quarantined(written):
    assert len(written.broken) == 10
    assert set(written.broken.values()) == {"truncated", "empty", "other_content", "missing", "bomb"}
    for name, kind in written.broken.items():
        assert (written.folder / name).exists() == (kind != "missing")
    for modality in ("ct", "mr", "ultrasound", "pathology", "fundus"):
        planted = [n for n in written.broken if n.startswith(f"{modality}/")]
        bad = [q for q in read_back(written, modality) if isinstance(q, Quarantined) and q.code != "mask_shape"]
        assert len(bad) == len(planted) == 2
        assert all(q.code for q in bad)


def test_copies_are_known_to_the_manifest(written):
    assert {how for _, how in written.copies.values()} == {"exact", "near"}
    for copy, (original, how) in written.copies.items():
        a, b = written.folder / copy, written.folder / original
        assert a != b
        assert a.exists()
        assert b.exists()
        if how == "exact" and a.suffix == ".png":
            assert a.read_bytes() == b.read_bytes()


def test_records_in_memory_are_synthetic_and_stable():
    few = list(hospital.records(3, "xray", 5, size=48))
    many = list(hospital.records(5, "xray", 5, size=48))
    assert [r.id for r in few] == [r.id for r in many[:3]]
    for a, b in zip(few, many, strict=False):
        assert a.first("image") == b.first("image")
        assert a.first("image").origin.by == "synthetic"
        assert {g.label for g in a.regions} == {k for k, v in a.labels.items() if v == 1.0}


def test_joint_records_hold_every_modality_of_a_patient():
    got = list(hospital.joint(4, ("xray", "ecg", "labs"), 0, size=48))
    assert len(got) == 4
    for r, x in zip(got, hospital.records(4, "xray", 0, size=48), strict=True):
        assert r.subject == x.subject
        assert r.first("image") == x.first("image")
        assert r.first("ecg").array().shape == (12, 5000)
        assert r.first("table").names[0] == "haemoglobin"
        assert r.labels["xray.nodule"] == x.labels["nodule"]


def test_wrong_arguments(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'ct'"):
        hospital.write(tmp_path / "a", n_per_modality=1, seed=0, modalities=("cts",))
    with pytest.raises(UsageError, match="at least one"):
        hospital.write(tmp_path / "a", n_per_modality=0, seed=0)
    with pytest.raises(UsageError, match="no phantom hospital"):
        hospital.load(tmp_path / "manifest.json")
    with pytest.raises(UsageError, match="imaging"):
        hospital.write(tmp_path / "a", n_per_modality=1, seed=0, n_broken=1, modalities=("labs",))
    assert not (tmp_path / "a").exists()
    assert not list(tmp_path.iterdir())


def test_progress_counts_up(tmp_path):
    seen = []
    hospital.write(
        tmp_path / "a", n_per_modality=2, seed=0, modalities=("labs", "ecg"), progress=lambda *a: seen.append(a)
    )
    assert seen == [(1, 4, "phantom labs"), (2, 4, "phantom labs"), (3, 4, "phantom ecg"), (4, 4, "phantom ecg")]
