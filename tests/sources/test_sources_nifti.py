"""NIfTI against nibabel: values, geometry, scaling, both versions, both byte orders, pairs; and hostile headers."""

import gzip
import struct
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import made_files as made
from fabrica.errors import Refused
from fabrica.sources import Quarantined, Ref, nifti, read, walk

PACKAGED = Path(nibabel.__file__).parent / "tests" / "data"


def same(path):
    """Compare with nibabel: values (float32 where scaled) and affine."""
    got, want = nifti.load(path), nibabel.load(path)
    values = np.asarray(want.dataobj)
    if values.dtype.names:
        values = np.stack([values[n] for n in values.dtype.names], -1)
    shape = [*values.shape, 1, 1, 1][: max(3, values.ndim)]
    np.testing.assert_allclose(got.array, values.reshape(got.array.shape, order="F"), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got.affine, want.affine, atol=1e-5)
    assert got.array.shape[:3] == tuple(shape[:3])
    assert got.array.dtype.isnative
    return got


@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    dtype=st.sampled_from(["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8"]),
    kind=st.sampled_from([nibabel.Nifti1Image, nibabel.Nifti2Image]),
    name=st.sampled_from(["a.nii", "a.nii.gz"]),
    big=st.booleans(),
    geometry=st.sampled_from(["sform", "qform", "none"]),
    scale=st.sampled_from([None, (2.0, 0.0), (0.5, -1024.0)]),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_reads_as_nibabel_reads_it(tmp_path, shape, dtype, kind, name, big, geometry, scale, seed):
    rng = np.random.default_rng(seed)
    data = (rng.random(shape) * 100).astype(dtype)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.5, 3, 3)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn, rng.uniform(-50, 50, 3)
    header = kind.header_class(endianness=">" if big else "<")
    image = kind(data, affine, header)
    image.set_data_dtype(dtype)
    if geometry != "sform":
        image.set_sform(affine, 0)
        image.set_qform(affine if geometry == "qform" else None, 1 if geometry == "qform" else 0)
    if scale and np.dtype(dtype).kind in "iu":
        image.header.set_slope_inter(*scale)
    image.to_filename(tmp_path / name)
    same(tmp_path / name)


def test_every_file_that_nibabel_carries():
    found = {ref.key: list(read(ref)) for ref in walk(PACKAGED, source="nibabel") if ".nii" in ref.key}
    for key, (item,) in found.items():
        if isinstance(item, Quarantined):
            assert (key, item.code) == ("row_major.dconn.nii", "nifti_cifti")
        else:
            same(PACKAGED / key)
    assert len(found) >= 8


@pytest.mark.real_data
def test_msd_hippocampus_has_nibabels_geometry_and_its_label_regions(shared_data):
    root = shared_data("msd_hippocampus")
    columns = {"modality": "mr", "mask": "../labels/{name}", "mask_names": "1=anterior,2=posterior"}
    refs = [r for r in walk(root, source="msd", licence="CC-BY-SA-4.0", columns=columns) if ".nii" in r.key]
    assert len(refs) == 127
    for ref in refs[::4]:
        (record,) = read(ref)
        image, label = nibabel.load(ref.path), nibabel.load(ref.path.parents[1] / "labels" / ref.path.name)
        item = record.first("volume")
        np.testing.assert_array_equal(item.array(), np.asarray(image.dataobj))
        np.testing.assert_allclose(item.affine, image.affine)
        assert record.groups["modality"] == "mr"
        for value, region in zip((1, 2), record.regions, strict=True):
            assert region.label == ("anterior", "posterior")[value - 1]
            np.testing.assert_array_equal(region.data, np.asarray(label.dataobj) == value)


@pytest.mark.parametrize("suffix", [".img", ".img.gz"])
def test_a_pair_of_header_and_image_is_one_record(tmp_path, suffix):
    image = nibabel.Nifti1Pair(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([1, 2, 3, 1]))
    image.to_filename(tmp_path / "a.hdr")
    if suffix == ".img.gz":
        (tmp_path / "a.img.gz").write_bytes(gzip.compress((tmp_path / "a.img").read_bytes()))
        (tmp_path / "a.img").unlink()
    (ref,) = walk(tmp_path, source="s")
    (record,) = read(ref)
    np.testing.assert_array_equal(record.first("volume").array(), np.arange(24).reshape(2, 3, 4))
    np.testing.assert_allclose(record.first("volume").affine, image.affine)
    next(tmp_path.glob("a.img*")).unlink()
    (lost,) = read(ref)
    assert lost.code == "nifti_pair"


def test_colours_and_label_maps(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 255, (3, 4, 5, 3)).astype(np.uint8)
    structured = rgb.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.Nifti1Image(structured, np.eye(4)).to_filename(tmp_path / "rgb.nii")
    np.testing.assert_array_equal(nifti.load(tmp_path / "rgb.nii").array, rgb)
    image = nibabel.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4))
    image.header.set_intent("label")
    image.to_filename(tmp_path / "label.nii")
    (record,) = read(Ref(tmp_path / "label.nii", "label.nii", "s"))
    assert record.groups["modality"] == "seg"


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1.0), ("meter", 1000.0), ("micron", 0.001)])
def test_affines_are_in_mm_whatever_the_unit(tmp_path, unit, scale):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.diag([2.0, 2, 2, 1]))
    image.header.set_xyzt_units(unit)
    image.to_filename(tmp_path / "a.nii")
    np.testing.assert_allclose(nifti.load(tmp_path / "a.nii").affine, np.diag([2 * scale] * 3 + [1]))


@pytest.mark.parametrize("fast", [True, False])
def test_gzip_with_and_without_libdeflate(tmp_path, monkeypatch, fast):
    if not fast:
        monkeypatch.setitem(sys.modules, "imagecodecs", None)
    data = made.nifti_head((20, 20, 20)) + np.random.default_rng(0).bytes(8000)
    path = tmp_path / "a.nii.gz"
    for whole in (
        gzip.compress(data), gzip.compress(data[:999]) + gzip.compress(data[999:]), gzip.compress(data + b"behind"),
    ):  # fmt: skip
        path.write_bytes(whole)
        assert nifti.load(path).array.ravel(order="F").tobytes() == data[352:]
    broken = bytearray(gzip.compress(data))
    broken[-6] ^= 255  # the CRC
    for raw, code in (
        (bytes(broken), "deflate"), (gzip.compress(data)[:-300], "nifti_short"),
        (gzip.compress(data[:-1]), "nifti_short"),
    ):  # fmt: skip
        path.write_bytes(raw)
        with pytest.raises(Refused) as error:
            nifti.load(path)
        assert error.value.code == code


def edited(at, fmt, *values):
    head = bytearray(made.nifti_head((2, 2, 2)) + bytes(8))
    struct.pack_into("<" + fmt, head, at, *values)
    return bytes(head)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (edited(40, "h", 0), "nifti_header"),
        (edited(40, "h", 9), "nifti_header"),
        (edited(42, "h", -3), "nifti_header"),
        (edited(42, "h", 0), "nifti_header"),
        (edited(70, "h", 32), "nifti_dtype"),  # complex64
        (edited(70, "h", 77), "nifti_dtype"),
        (edited(108, "f", float("nan")), "nifti_header"),
        (edited(108, "f", 1e30), "nifti_header"),
        (edited(108, "f", 8.0), "nifti_header"),
        (edited(108, "f", 400.0), "nifti_short"),
        (edited(112, "2f", 1.0, float("nan")), "nifti_header"),
        (edited(254, "h", 1) + b"", None),
        (edited(256, "3f", 2.0, 2.0, 2.0), None),
        (edited(68, "h", 3001), "nifti_cifti"),
        (edited(344, "4s", b"xyz\0"), "nifti_magic"),
        (b"\0" * 400, "nifti_magic"),
        (edited(42, "hhh", 32767, 32767, 32767), "array_too_large"),
    ],
)
def test_headers_that_lie_are_refused_by_code(tmp_path, data, code):
    (tmp_path / "a.nii").write_bytes(data)
    if code is None:
        assert nifti.load(tmp_path / "a.nii").array.shape == (2, 2, 2)
        return
    with pytest.raises(Refused) as error:
        nifti.load(tmp_path / "a.nii")
    assert error.value.code == code


def test_a_sform_that_is_not_finite_and_a_long_quaternion_are_refused(tmp_path):
    bad = bytearray(edited(254, "h", 1))
    struct.pack_into("<f", bad, 280, float("inf"))
    long = bytearray(edited(252, "h", 1))
    struct.pack_into("<3f", long, 256, 2.0, 2.0, 2.0)
    for data in (bad, long):
        (tmp_path / "a.nii").write_bytes(data)
        with pytest.raises(Refused, match="nifti_header"):
            nifti.load(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("shape", "affine", "code"),
    [((2, 3, 5), np.eye(4), "mask_shape"), ((2, 3, 4), np.diag([2, 1, 1, 1]), "mask_geometry")],
)
def test_a_mask_that_does_not_fit_quarantines_the_file(tmp_path, shape, affine, code):
    nibabel.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4)).to_filename(tmp_path / "a.nii")
    nibabel.Nifti1Image(np.ones(shape, np.uint8), affine).to_filename(tmp_path / "a_mask.nii")
    (found,) = read(Ref(tmp_path / "a.nii", "a.nii", "s", "", {"mask": "{stem}_mask.nii"}))
    assert found.code == code


def test_more_labels_than_64_stay_one_region_of_integers(tmp_path):
    labels = np.arange(120, dtype=np.uint8).reshape(4, 5, 6)
    nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4)).to_filename(tmp_path / "a.nii")
    nibabel.Nifti1Image(labels, np.eye(4)).to_filename(tmp_path / "m.nii")
    (record,) = read(Ref(tmp_path / "a.nii", "a.nii", "s", "", {"mask": "m.nii"}))
    (region,) = record.regions
    assert region.label == "labels"
    np.testing.assert_array_equal(region.data, labels)
