"""NRRD: values and geometry equal to pynrrd's; masks beside images; headers that mean harm."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from fabrica.sources import Quarantined, Ref, read
from fabrica.types import Record

nrrd = pytest.importorskip("nrrd")
LPS = {
    "space": "left-posterior-superior", "kinds": ["domain"] * 3, "space origin": np.array([10.0, -20.0, 30.0]),
    "space directions": np.array([[0.5, 0, 0], [0, 0.7, 0.1], [0, -0.1, 2.0]]),
}  # fmt: skip


def found(path: Path, **columns: str) -> list[Record | Quarantined]:
    return list(read(Ref(path, path.name, "demo", "BSD-3-Clause", columns)))


def one(path: Path, **columns: str) -> Record | Quarantined:
    (got,) = found(path, **columns)
    return got


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("dtype", ["i2", "u1", "f4"])
def test_values_and_geometry_equal_pynrrd(tmp_path: Path, encoding: str, dtype: str) -> None:
    data = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(dtype)
    nrrd.write(str(tmp_path / "a.nrrd"), data, {**LPS, "encoding": encoding})
    record = one(tmp_path / "a.nrrd")
    assert isinstance(record, Record)
    item = record.first("volume")
    np.testing.assert_array_equal(item.array(), nrrd.read(str(tmp_path / "a.nrrd"))[0])
    assert item.array().dtype == data.dtype
    index = np.array([1, 2, 3])
    lps = LPS["space origin"] + index @ LPS["space directions"]
    np.testing.assert_allclose((item.affine @ [*index, 1])[:3], lps * [-1, -1, 1])


def test_without_orientation_there_is_no_affine(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), np.zeros((3, 3, 3), np.uint8), {"spacings": [1, 1, 1]})
    item = one(tmp_path / "a.nrrd").first("volume")  # type: ignore[union-attr]
    assert item.affine is None
    assert "affine:unknown" in item.origin.steps


def test_two_dimensions_are_an_image_and_colour_goes_last(tmp_path: Path) -> None:
    data = np.arange(12, dtype=np.uint8).reshape(4, 3)
    nrrd.write(str(tmp_path / "a.nrrd"), data, {"kinds": ["domain", "domain"]})
    np.testing.assert_array_equal(one(tmp_path / "a.nrrd").first("image").array(), data.T)  # type: ignore[union-attr]
    nrrd.write(str(tmp_path / "c.nrrd"), np.zeros((3, 4, 5, 6), np.uint8), {"kinds": ["vector", *["domain"] * 3]})
    assert one(tmp_path / "c.nrrd").first("volume").array().shape == (4, 5, 6, 3)  # type: ignore[union-attr]


def test_a_label_beside_an_image_is_its_region(tmp_path: Path) -> None:
    mask = np.zeros((64, 64, 300), np.uint8)
    mask[1, 1, 1] = 1
    nrrd.write(str(tmp_path / "a_image.nrrd"), mask.astype(np.int16), LPS)
    nrrd.write(str(tmp_path / "a_label.nrrd"), mask, LPS)
    record = one(tmp_path / "a_image.nrrd", mask_label="lesion")
    (region,) = record.regions  # type: ignore[union-attr]
    assert (region.role, region.label, int(region.data.sum())) == ("volume", "lesion", 1)
    assert found(tmp_path / "a_label.nrrd") == [], "an almost empty mask is no bomb, and no record of its own"


def head(*lines: str) -> bytes:
    return "\n".join(("NRRD0004", *lines, "", "")).encode()


CUBE = ("type: short", "dimension: 3", "sizes: 2 2 2", "endian: little")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (head("type: short", "dimension: 3", "sizes: 60000 60000 9", "encoding: raw"), "array_too_large"),
        (head(*CUBE, "encoding: raw", "data file: ../a.raw"), "path_outside"),
        (head(*CUBE, "encoding: raw", "data file: /etc/passwd"), "path_outside"),
        (head(*CUBE, "encoding: raw", "data file: LIST"), "path_outside"),
        (head(*CUBE, "encoding: raw") + b"\0" * 15, "nrrd_data"),
        (head(*CUBE, "encoding: zrl") + b"\0" * 16, "nrrd_encoding"),
        (head(*CUBE, "encoding: gzip") + gzip.compress(b"\0" * 9), "nrrd_data"),
        (head(*CUBE, "encoding: gzip") + b"\x1f\x8b" + b"\0" * 9, "deflate"),
        (head("type: block", "dimension: 1", "sizes: 2", "encoding: raw"), "nrrd_type"),
        (head("type: short", "dimension: 2", "sizes: 2 2 2", "encoding: raw"), "nrrd_header"),
        (head("type: short", "dimension: 1", "sizes: -2", "encoding: raw"), "nrrd_header"),
        (head("type: short", "dimension: x", "sizes: 2", "encoding: raw"), "nrrd_header"),
        (b"NRRD0004 no end", "nrrd_header"),
    ],
)  # fmt: skip
def test_hostile_headers_are_quarantined(tmp_path: Path, data: bytes, code: str) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(data)
    got = one(path)
    assert isinstance(got, Quarantined)
    assert got.code == code


def test_a_gzip_bomb_is_refused_at_the_size_the_header_claims(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    claim = ("type: short", "dimension: 3", "sizes: 512 512 512", "endian: little", "encoding: gzip")
    path.write_bytes(head(*claim) + gzip.compress(b"\0" * (256 << 20), 6))
    assert one(path).code == "ratio"  # type: ignore[union-attr]
