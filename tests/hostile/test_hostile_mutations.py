"""2,000 damaged DICOM and NIfTI files, and damaged compressed pixels: no crash, no hang, only records or reasons.

Run in a child process: a decoder that ends the process (as gdcm does on damaged JPEG-LS) fails the test.
"""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np
import pytest

import made_files as made

EACH, LIMIT = 250, 10  # files a batch; seconds a file may take on a loaded machine before it is a hang


def seeds(folder: Path) -> list[Path]:
    """Valid files to damage: made ones, and the real ones that pydicom and nibabel carry."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 4000, (24, 20)).astype(np.uint16)
    colour = rng.integers(0, 255, (24, 20, 3)).astype(np.uint8)
    made.write_dicom(folder / "ct.dcm", grey.astype(np.int16), **made.place(3.0))
    made.write_dicom(folder / "rgb.dcm", colour)
    made.write_dicom(folder / "big.dcm", grey, syntax="1.2.840.10008.1.2.2")
    made.write_dicom(folder / "implicit.dcm", grey, syntax="1.2.840.10008.1.2")
    made.write_dicom(folder / "rle.dcm", grey, compress=made.RLE)
    made.write_dicom(folder / "frames.dcm", np.stack([grey] * 4), grey=True)
    import nibabel

    volume = nibabel.Nifti1Image(rng.integers(0, 99, (9, 8, 7)).astype(np.int16), np.diag([1, 2, 3, 1]))
    volume.header.set_slope_inter(2.0, 5.0)
    volume.to_filename(folder / "a.nii")
    volume.to_filename(folder / "b.nii.gz")
    nibabel.Nifti2Image(rng.random((5, 4, 3, 2)).astype(np.float32), np.eye(4)).to_filename(folder / "c.nii")
    return sorted(folder.iterdir())


def real_seeds() -> list[Path]:
    import nibabel
    import pydicom.data

    dicoms = Path(pydicom.data.__file__).parent / "test_files"
    niftis = Path(nibabel.__file__).parent / "tests" / "data"
    found = [*dicoms.glob("*.dcm"), *niftis.glob("*.nii"), *niftis.glob("*.nii.gz")]
    return sorted(p for p in found if p.stat().st_size < 150_000)


def _child(folder: str, first: str) -> None:
    from fabrica.sources import Quarantined, Ref, read
    from fabrica.types import Record

    paths = [Path(p) for p in sorted(json.loads(Path(folder, "seeds.json").read_text()))]
    counts: Counter[str] = Counter()
    slowest = 0.0
    for n in range(int(first), int(first) + EACH):
        rng = random.Random(n)
        seed = paths[n % len(paths)]
        suffix = "".join(seed.suffixes[-2:]) if seed.name.endswith(".nii.gz") else seed.suffix
        bad = Path(folder, f"bad{first}{suffix}")
        data = seed.read_bytes()
        if suffix == ".nii.gz" and n % 2:  # damage what is inside
            import gzip

            bad.write_bytes(made.gz(made.mutate(gzip.decompress(data), rng)))
        else:
            bad.write_bytes(made.mutate(data, rng))
        signal.alarm(LIMIT)
        started = time.perf_counter()
        for found in read(Ref(bad, seed.name, "hostile")):
            assert isinstance(found, (Record, Quarantined))
            counts[found.code if isinstance(found, Quarantined) else "record"] += 1
        slowest = max(slowest, time.perf_counter() - started)
        signal.alarm(0)
    print(json.dumps({"counts": counts, "slowest": slowest}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("mutations")
    (base / "good").mkdir()
    paths = [*seeds(base / "good"), *real_seeds()]
    assert len(paths) > 40
    (base / "seeds.json").write_text(json.dumps([str(p) for p in paths]))
    return base


@pytest.mark.parametrize("batch", range(8))
def test_2000_damaged_files_end_as_records_or_reasons(folder, batch):
    done = subprocess.run(
        [sys.executable, __file__, str(folder), str(batch * EACH)], capture_output=True, text=True, timeout=250,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert sum(said["counts"].values()) >= EACH  # every file gave something
    assert said["counts"].get("record", 0) > 0
    assert len(said["counts"]) > 5  # and the damage was of many kinds
    assert said["counts"].get("undecodable", 0) <= EACH * 0.02  # our own code refuses by name, not by accident


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    _child(sys.argv[1], sys.argv[2])
