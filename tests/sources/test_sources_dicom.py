"""DICOM: values, geometry, identifiers and kinds against pydicom, its test files and hand-worked numbers."""

import io
import re
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest

import made_files as made
from fabrica.errors import Refused
from fabrica.safe import open_file
from fabrica.sources import Quarantined, Ref, dicom, dicom_geometry, read, walk
from fabrica.sources.dicom_codec import unpack_bits
from fabrica.sources.dicom_parse import PIXELS, parse
from fabrica.types import Absent, record_id

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
PACKAGED = Path(pydicom.data.__file__).parent / "test_files"


def one(path, **kw):
    (found,) = read(Ref(Path(path), Path(path).name, "s", "MIT", **kw))
    assert not isinstance(found, Quarantined), found
    return found


def item_of(record):
    (items,) = record.items.values()
    return items[0]


def reference(path):
    """The pixels as pydicom gives them (by gdcm, Pillow or pylibjpeg), RGB where they were YBR; or None."""
    from pydicom.pixels.decoders.base import get_decoder

    try:
        ds = pydicom.dcmread(path, force=True)
        return ds, get_decoder(ds.file_meta.TransferSyntaxUID).as_array(ds)[0]
    except (RuntimeError, ValueError, AttributeError, NotImplementedError, pydicom.errors.InvalidDicomError):
        return None, None


# ---------------------------------------------------------------- the parser


def test_every_element_equals_pydicoms():
    compared = 0
    for path in sorted(PACKAGED.rglob("*")):
        if not path.is_file():
            continue
        try:
            with open_file(path) as handle:
                ours = parse(handle)
            theirs = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        except (Refused, pydicom.errors.InvalidDicomError, ValueError):
            continue
        if ours.source.unpacked and path.suffix == ".gz":
            continue
        tags = {int(t) for t in theirs.keys()}  # noqa: SIM118 (a data set iterates over elements)
        assert tags == {t for t in ours.elements if t >> 16 != 2} - set(PIXELS), path.name
        for tag in tags:
            raw = theirs.get_item(tag)
            if isinstance(raw.value, bytes) and raw.VR != "SQ":
                assert raw.value == ours.raw(tag), (path.name, hex(tag))
                compared += 1
            elif theirs[tag].VR == "SQ" and "DICOMDIR" not in path.name:
                assert len(theirs[tag].value) == len(ours.items(tag)), (path.name, hex(tag))
    assert compared > 5000


def test_values_inside_nested_sequences_are_read():
    ds = pydicom.dcmread(PACKAGED / "rtplan.dcm")
    with open_file(PACKAGED / "rtplan.dcm") as handle:
        ours = parse(handle)
    beam, want = ours.items(0x300A00B0)[0], ds.BeamSequence[0]
    assert beam.text(0x300A00C2) == want.BeamName
    jaws = beam.items(0x300A00B6)
    assert [j.text(0x300A00B8) for j in jaws] == [j.RTBeamLimitingDeviceType for j in want.BeamLimitingDeviceSequence]


def test_a_scan_says_what_pydicom_says_and_reads_no_pixels(tmp_path):
    path = PACKAGED / "CT_small.dcm"
    ds, got = pydicom.dcmread(path), dicom.scan(path)
    assert (got.modality, got.study, got.series) == (ds.Modality, ds.StudyInstanceUID, ds.SeriesInstanceUID)
    assert (got.rows, got.columns, got.number) == (ds.Rows, ds.Columns, ds.InstanceNumber)
    assert got.spacing == tuple(ds.PixelSpacing)
    big = made.write_dicom(tmp_path / "big.dcm", np.zeros((2000, 2000), np.uint16), **made.place(3))
    with open_file(big) as handle:
        assert len(parse(handle).source.buffer) < 200_000
    assert dicom.scan(big).slice_mm == 3


# ---------------------------------------------------------------- every real file

# Not readable by pydicom either, or made broken on purpose: name -> our code.
BROKEN = {
    "JPEG2000-embedded-sequence-delimiter.dcm": "pixels_mismatch", "MR_truncated.dcm": "pixels_short",
    "badVR.dcm": "dicom_value", "meta_missing_tsyntax.dcm": "dicom_pixels", "nested_priv_SQ.dcm": "dicom_pixels",
    "no_meta.dcm": "dicom_magic", "rtplan_truncated.dcm": "dicom_short",
}  # fmt: skip
# Read by us and not by pydicom with the decoders at hand: 12-bit JPEG.
ONLY_OURS = {"JPEG-lossy.dcm", "JPGExtended.dcm"}


def check_all(root):
    """Every file is a record or quarantined by the expected code; values equal the second decoder's. How many did."""
    equal = 0
    for ref in walk(root, source="pydicom", licence="MIT"):
        (found,) = list(read(ref))
        name = ref.path.name
        if isinstance(found, Quarantined):
            expected = BROKEN.get(name) or ("dicomdir" if "DICOMDIR" in name else "unknown_format")
            assert found.code == expected, (ref.key, found)
            continue
        assert name not in BROKEN, ref.key
        item = item_of(found)
        ds, want = reference(ref.path)
        if not isinstance(item.value, np.ndarray):
            assert want is None, ref.key
            assert item.value is Absent.NOT_DONE
            continue
        if want is None:
            assert name in ONLY_OURS or item.kind == "signal" or ref.path.suffix == ".gz", ref.key
            continue
        equal += same_values(item, ds, want, ref.key)
    return equal


def same_values(item, ds, want, key):
    got = item.array()
    if "palette" in item.origin.steps:
        want = pydicom.pixels.apply_color_lut(want, ds)
    if item.kind == "volume":
        got = np.moveaxis(got, (2, 1, 0), (0, 1, 2))
    if "monochrome1_inverted" in item.origin.steps:
        want = 2**ds.BitsStored - 1 - want.astype(np.int64)
    if "rescaled" in item.origin.steps:
        slope = ds.get("DoseGridScaling") or ds.get("RescaleSlope", 1)
        want = want * float(slope) + float(ds.get("RescaleIntercept", 0))
    assert got.shape == want.shape, key
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6, err_msg=key)
    return 1


def test_every_packaged_file_is_a_record_or_a_reason_and_equals_the_second_decoder():
    assert check_all(PACKAGED) > 80


@pytest.mark.real_data
def test_pydicom_testfiles(shared_data):
    assert check_all(shared_data("pydicom_testfiles")) > 80


@pytest.mark.real_data
def test_torchio_volumes(shared_data):
    assert check_all(shared_data("torchio_volumes")) == 17


def test_12_bit_jpeg_has_the_values_that_pydicoms_own_tests_give():
    found = item_of(one(PACKAGED / "JPGExtended.dcm")).array()
    # pydicom tests/test_decoders: (420, 140) = 244, (230, 120) = 95
    assert (found.shape, int(found[420, 140]), int(found[230, 120])) == ((1024, 256), 244, 95)


# ---------------------------------------------------------------- values


SYNTAXES = ["1.2.840.10008.1.2", made.EXPLICIT, made.DEFLATED, "1.2.840.10008.1.2.2"]


@pytest.mark.parametrize(
    ("syntax", "dtype"), [(s, d) for s in SYNTAXES for d in ("u1", "u2", "i2")] + [(s, "f4") for s in SYNTAXES[:3]]
)
def test_native_values_survive_every_syntax(tmp_path, syntax, dtype):
    array = np.random.default_rng(1).integers(0, 200, (5, 7)).astype(dtype)
    path = made.write_dicom(tmp_path / "a.dcm", array, syntax=syntax, Modality="OT")
    item = item_of(one(path))
    assert item.array().dtype == array.dtype
    np.testing.assert_array_equal(item.array(), array)


def test_ct_is_float32_hounsfield_units(tmp_path):
    path = made.write_dicom(tmp_path / "a.dcm", np.array([[0, 1000], [2000, 4095]], np.int16), RescaleSlope=1,
                            RescaleIntercept=-1024)  # fmt: skip
    item = item_of(one(path))
    assert (item.unit, item.array().dtype) == ("HU", np.float32)
    np.testing.assert_array_equal(item.array(), [[-1024, -24], [976, 3071]])


def test_monochrome1_is_turned_so_that_high_is_bright(tmp_path):
    array = np.array([[0, 1], [4094, 4095]], np.uint16)
    tags = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11, "Modality": "CR"}
    record = one(made.write_dicom(tmp_path / "a.dcm", array, **tags))
    np.testing.assert_array_equal(item_of(record).array(), 4095 - array)
    assert record.groups["modality"] == "xray"
    assert item_of(record).origin.steps == ("monochrome1_inverted",)


@pytest.mark.parametrize(("kind", "stored", "want"), [("u2", 0xF7FF, 0x7FF), ("i2", -2049 & 0xFFFF, 2047)])
def test_bits_above_the_stored_ones_do_not_count(tmp_path, kind, stored, want):
    array = np.array([[stored, 5]], np.uint16).view(kind)
    tags = {"BitsStored": 12, "HighBit": 11, "Modality": "MR"}
    found = item_of(one(made.write_dicom(tmp_path / "a.dcm", array, **tags))).array()
    np.testing.assert_array_equal(found, [[want, 5]])


def test_planar_colour_is_turned_to_pixels(tmp_path):
    array = np.random.default_rng(2).integers(0, 255, (4, 6, 3)).astype(np.uint8)
    path = made.write_dicom(tmp_path / "a.dcm", array)
    ds = pydicom.dcmread(path)
    ds.PlanarConfiguration, ds.PixelData = 1, np.moveaxis(array, -1, 0).tobytes()
    ds.save_as(path)
    np.testing.assert_array_equal(item_of(one(path)).array(), array)


def test_modality_lut_is_applied(tmp_path):
    path = made.write_dicom(tmp_path / "a.dcm", np.array([[10, 11], [12, 99]], np.uint8), Modality="CR")
    ds = pydicom.dcmread(path)
    lut = pydicom.Dataset()
    lut.add_new(0x00283002, "US", [3, 10, 16])
    lut.add_new(0x00283006, "OW", np.array([7, 70, 700], "<u2").tobytes())
    ds.ModalityLUTSequence = [lut]
    ds.save_as(path)
    np.testing.assert_array_equal(item_of(one(path)).array(), [[7, 70], [700, 700]])


def test_one_bit_frames_are_unpacked(tmp_path):
    bits = (np.arange(2 * 5 * 7) % 3 == 0).reshape(2, 5, 7)
    path = made.write_dicom(tmp_path / "a.dcm", np.zeros((5, 7), np.uint8), Modality="SEG")
    ds = pydicom.dcmread(path)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.NumberOfFrames = 1, 1, 0, 2
    ds.PixelData = np.packbits(bits.ravel(), bitorder="little").tobytes() + b"\0"
    ds.save_as(path)
    item = item_of(one(path))
    assert item.kind == "video"
    np.testing.assert_array_equal(item.array(), bits)


def test_rle_in_python_equals_the_library():
    data = bytes([254, 7, 128, 3, 1, 2, 3, 4, 129, 9])
    assert bytes(unpack_bits(data, 1000)) == b"\x07" * 3 + b"\x01\x02\x03\x04" + b"\x09" * 128
    assert len(unpack_bits(bytes([129, 1]) * 1000, 200)) <= 328


# ---------------------------------------------------------------- geometry


def test_a_slice_has_an_affine_of_row_and_column_in_ras_mm(tmp_path):
    path = made.write_dicom(tmp_path / "a.dcm", np.zeros((4, 5), np.int16), **made.place(7.0, spacing=(0.5, 0.75)))
    record = one(path)
    affine = item_of(record).affine
    # rows run to the back (-A), columns to the left (-R); LPS (10, -20, 7) is RAS (-10, 20, 7)
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], [-10, 20, 7, 1])
    np.testing.assert_allclose(affine @ [2, 0, 0, 1], [-10, 19, 7, 1])
    np.testing.assert_allclose(affine @ [0, 4, 0, 1], [-13, 20, 7, 1])
    np.testing.assert_allclose(affine @ [0, 0, 1, 1], [-10, 20, 9, 1])
    assert float(record.groups["slice_mm"]) == 7.0
    assert record.groups["spacing_mm"] == "0.5x0.75"


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)])
def test_a_multi_frame_volume_is_stacked_by_position(tmp_path, order):
    values = np.arange(4 * 3 * 2, dtype=np.int16).reshape(4, 3, 2)
    path = made.write_dicom(
        tmp_path / "a.dcm", values[list(order)], grey=True, SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1"
    )
    ds = pydicom.dcmread(path)
    shared, frames = pydicom.Dataset(), []
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [pydicom.Dataset()], [pydicom.Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [0.5, 0.75]
    shared.PixelMeasuresSequence[0].SliceThickness = 9.0
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelValueTransformationSequence = [pydicom.Dataset()]
    shared.PixelValueTransformationSequence[0].RescaleSlope = 2
    shared.PixelValueTransformationSequence[0].RescaleIntercept = -10
    for n in order:
        frame = pydicom.Dataset()
        frame.PlanePositionSequence = [pydicom.Dataset()]
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 2.5 * n]
        frames.append(frame)
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], frames
    ds.save_as(path)
    item = item_of(one(path))
    assert (item.kind, item.unit) == ("volume", "HU")
    np.testing.assert_array_equal(item.array(), values.transpose(2, 1, 0) * 2 - 10)
    np.testing.assert_allclose(item.affine @ [1, 2, 3, 1], [-0.75, -1.0, 7.5, 1])


def test_frames_without_geometry_are_a_video():
    item = item_of(one(PACKAGED / "examples_ybr_color.dcm"))
    assert (item.kind, item.array().shape, item.affine) == ("video", (30, 240, 320, 3), None)


def test_a_dose_grid_is_a_volume_with_its_offsets(tmp_path):
    ds = pydicom.dcmread(PACKAGED / "rtdose.dcm")
    item = item_of(one(PACKAGED / "rtdose.dcm"))
    assert item.array().shape == (ds.Columns, ds.Rows, ds.NumberOfFrames)
    last = item.affine @ [0, 0, ds.NumberOfFrames - 1, 1]
    x, y, z = map(float, ds.ImagePositionPatient)
    np.testing.assert_allclose(last[:3], [-x, -y, z + ds.GridFrameOffsetVector[-1] - ds.GridFrameOffsetVector[0]])


def test_uneven_or_tilted_frames_are_seen():
    def at(z, tilt=0.0):
        down = np.array([0.0, -np.cos(tilt), np.sin(tilt)])
        return dicom_geometry.Plane(np.array([0.0, 0.0, z]), down, np.array([-1.0, 0, 0]), (1.0, 1.0), 1.0)

    assert dicom_geometry.stack([at(0), at(1), at(2)])[2]
    assert not dicom_geometry.stack([at(0), at(1), at(5)])[2]
    assert dicom_geometry.stack([at(0), at(1, tilt=0.5)]) is None
    assert dicom_geometry.stack([at(0), at(0), at(1)]) is None
    order = dicom_geometry.stack([at(1), at(0), at(0), at(1)])[0]
    assert order.tolist() in ([[1, 2], [0, 3]], [[0, 3], [1, 2]])


@pytest.mark.real_data
def test_brain_mri_slices_lie_where_nibabel_puts_them(shared_data):
    from nibabel.nicom.dicomwrappers import wrapper_from_file

    folder = shared_data("brain_mri_dicom_4seq")
    paths = [p for p in sorted(folder.rglob("*.dcm")) if "T1post" in str(p)]
    to_ras = np.diag([-1.0, -1, 1, 1])
    places = []
    for path in paths:
        record, wrapper = one(path), wrapper_from_file(path)
        item = item_of(record)
        np.testing.assert_allclose(item.affine[:, [0, 1, 3]], (to_ras @ wrapper.affine)[:, [0, 1, 3]], atol=1e-4)
        assert abs(np.linalg.norm(item.affine[:3, 2]) - 6.5) < 0.01  # 5 mm slices 6.5 mm apart
        np.testing.assert_array_equal(item.array(), wrapper.get_unscaled_data())
        places.append(float(record.groups["slice_mm"]))
        assert record.groups["modality"] == "mr"
    assert len(paths) == 22
    np.testing.assert_allclose(np.diff(sorted(places)), 6.5, atol=0.05)
    assert len({one(p).groups["series"] for p in paths}) == len({one(p).subject for p in paths}) == 1


# ---------------------------------------------------------------- identity and other objects


def test_no_identifier_leaves_the_reader(tmp_path):
    path = made.write_dicom(
        tmp_path / "a.dcm", np.zeros((2, 2), np.int16), AccessionNumber="ACC-99", InstitutionName="St Elsewhere",
        PatientBirthDate="19500101", StudyDate="20200101", ReferringPhysicianName="House^G", InstanceNumber=7,
        FrameOfReferenceUID="1.9.9.9", PatientSex="F", **made.place(),
    )  # fmt: skip
    record = one(path)
    said = re.sub("[0-9a-f]{16,}", "<hash>", repr(record) + repr(record.groups) + repr(item_of(record)))
    for secret in ("4711", "Doe", "ACC-99", "Elsewhere", "1950", "2020", "House", "1.2.3.4", "1.9.9.9"):
        assert secret not in said
    assert record.subject == record_id("subject", "s", "MRN-4711")[:16]
    assert record.groups["study"] == record_id("study", "s", "1.2.3.4")[:16]
    assert record.groups["series"] == record_id("series", "s", "1.2.3.4.5")[:16]
    assert (record.groups["instance"], record.groups["sex"], record.groups["modality"]) == ("7", "f", "ct")
    assert record.rights.licence == "MIT"


def test_a_file_without_patient_id_groups_by_study_then_by_itself(tmp_path):
    array = np.zeros((2, 2), np.int16)
    first = one(made.write_dicom(tmp_path / "a.dcm", array, PatientID=""))
    second = one(made.write_dicom(tmp_path / "b.dcm", array, PatientID=""))
    lone = one(made.write_dicom(tmp_path / "c.dcm", array, PatientID="", StudyInstanceUID=""))
    assert first.subject == second.subject != lone.subject


def test_a_report_is_a_record_without_pixels():
    record = one(PACKAGED / "reportsi.dcm")
    assert item_of(record).value is Absent.NOT_DONE
    assert record.groups["modality"] == "report"


def test_a_12_lead_ecg_is_a_signal_in_mv():
    from pydicom.waveforms import multiplex_array

    record = one(PACKAGED / "waveform_ecg.dcm")
    items = record.items["ecg"]
    ds = pydicom.dcmread(PACKAGED / "waveform_ecg.dcm")
    want = multiplex_array(ds, 0, as_raw=False).T / 1000  # its unit is microvolt
    assert (items[0].rate, items[0].unit, items[0].array().shape) == (1000.0, "mV", (12, 10000))
    assert items[0].names == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    np.testing.assert_allclose(items[0].array(), want, rtol=1e-5, atol=1e-6)
    assert len(items) == len(ds.WaveformSequence)


def test_a_dataset_without_preamble_is_read_where_it_is_plausible(tmp_path):
    path = made.write_dicom(tmp_path / "a.dcm", np.full((2, 2), 3, np.int16), Modality="MR")
    body = io.BytesIO()
    ds = pydicom.dcmread(path)
    pydicom.filewriter.write_dataset(_little(body), ds)
    (tmp_path / "bare").write_bytes(body.getvalue())
    assert (item_of(one(tmp_path / "bare")).array() == 3).all()


def _little(stream):
    made_stream = pydicom.filebase.DicomBytesIO() if not isinstance(stream, io.BytesIO) else None
    stream = pydicom.filebase.DicomFileLike(stream) if made_stream is None else made_stream
    stream.is_little_endian, stream.is_implicit_VR = True, False
    return stream


def test_unknown_and_video_syntaxes_are_refused_by_name(tmp_path):
    path = made.write_dicom(tmp_path / "a.dcm", np.zeros((8, 8), np.uint16), compress=made.RLE)
    raw = path.read_bytes().replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.9\0")
    path.write_bytes(raw)
    (found,) = read(Ref(path, "a", "s"))
    assert found.code == "transfer_syntax"
