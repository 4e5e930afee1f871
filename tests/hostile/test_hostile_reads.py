"""The abuse table: each bomb refused with its code, quickly, in little memory, and the rest of the batch read."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import made_files as made

SECONDS, MEMORY = 2.0, 300.0  # a file, and MiB above what the process held before it

BILLION = b"<!DOCTYPE a [<!ENTITY a 'ha'>" + b"".join(
    b"<!ENTITY %c '%s'>" % (98 + i, (b"&%c;" % (97 + i)) * 10) for i in range(9)
) + b"]><a>&j;</a>"  # fmt: skip

BOMBS = {
    "deflated_512_mb.dcm": (made.deflated_dicom, "ratio"),
    "rle_60000.dcm": (made.rle_dicom, "array_too_large"),
    "rle_5000_from_nothing.dcm": (lambda: made.rle_dicom(5_000, 5_000), "pixels_short"),
    "rle_12000_from_nothing.dcm": (lambda: made.rle_dicom(12_000, 12_000), "ratio"),
    "jpeg2000_12000.dcm": (made.jpeg2000_dicom, "ratio"),
    "native_12000_from_nothing.dcm": (
        lambda: (
            made.dicom_head(made.EXPLICIT) + made.picture(12_000, 12_000) + made.element(0x7FE0, 0x10, b"OW", b"xx")
        ),
        "pixels_short",
    ),
    "frames_million.dcm": (
        lambda: (
            made.dicom_head(made.EXPLICIT)
            + made.picture(512, 512, frames=1_000_000)
            + made.element(0x7FE0, 0x10, b"OW", b"xx")
        ),
        "array_too_large",
    ),
    "nested_5000.dcm": (made.nested_dicom, "dicom_depth"),
    "nested_5000_known_lengths.dcm": (lambda: made.nested_dicom(how="defined"), "dicom_depth"),
    "nested_5000_implicit.dcm": (lambda: made.nested_dicom(how="implicit"), "dicom_depth"),
    "claims_1024x1024x1500.nii.gz": (made.nifti_bomb, "array_too_large"),
    "claims_1024x1024x1500.nii": (lambda: made.nifti_head((1024, 1024, 1500)), "array_too_large"),
    "claims_30000_cubed.nii": (lambda: made.nifti_head((30_000, 30_000, 30_000), code=64), "array_too_large"),
    "short.nii.gz": (lambda: made.gz(made.nifti_head((600, 600, 600)) + bytes(100)), "nifti_short"),
    "claims_60000.png": (lambda: made.png(60_000, 60_000), "too_many_pixels"),
    "claims_2_to_31.png": (lambda: made.png(2**31 - 1, 2**31 - 1), "too_many_pixels"),
    "zeros_15000.png": (lambda: made.png_of_zeros(15_000, 15_000), "too_many_pixels"),
    "zeros_12000.png": (lambda: made.png_of_zeros(12_000, 12_000), "ratio"),
    "rgba_12000.png": (lambda: made.png(12_000, 12_000, colour=6), "array_too_large"),
    "laughs.xml": (lambda: BILLION, "xml_entity"),
    "external.xml": (lambda: b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "xml_entity"),
    "checkpoint.pt": (lambda: b"\x80\x02}q\x00.", "unknown_format"),
    "empty.dcm": (lambda: b"", "dicom_magic"),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch")
    rng = np.random.default_rng(0)
    made.write_dicom(folder / "00_warm.dcm", rng.integers(0, 99, (8, 8), np.uint16))
    made.write_dicom(folder / "00_warm_rle.dcm", rng.integers(0, 99, (8, 8), np.uint16), compress=made.RLE)
    volume = made.nifti_head((2, 3, 4)) + bytes(24)
    (folder / "00_warm.nii.gz").write_bytes(made.gz(volume))
    (folder / "00_warm.png").write_bytes(made.png_of_zeros(8, 8))
    (folder / "00_warm.xml").write_bytes(b"<a><b>clear lungs</b></a>")
    for name, (make, _) in BOMBS.items():
        (folder / name).write_bytes(make())
    made.write_dicom(folder / "zz_good.dcm", rng.integers(0, 99, (8, 8), np.uint16))
    (folder / "zz_good.nii").write_bytes(volume)
    (folder / "zz_good.png").write_bytes(made.png_of_zeros(8, 8))
    script = Path(__file__).with_name("measure_reads.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=200, check=True
    )
    return {key: (found, seconds, mib) for key, found, seconds, mib in json.loads(done.stdout)}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_with_its_code_quickly_and_in_little_memory(rows, name):
    found, seconds, mib = rows[name]
    assert found == [BOMBS[name][1]]
    assert seconds < SECONDS
    assert mib < MEMORY


def test_the_sizes_are_those_of_the_abuse_table():
    assert 500_000 < len(made.deflated_dicom()) < 550_000
    assert 7_000_000 < len(made.nifti_bomb()) < 7_200_000


def test_the_rest_of_the_batch_is_read(rows):
    good = [key for key in rows if key.startswith(("00_warm", "zz_good")) and not key.endswith(".xml")]
    assert len(good) == 7
    assert all(rows[key][0] == ["record"] for key in good)
    assert len(rows) == len(BOMBS) + 8
