"""NPZ archives through a column map, and archives that mean harm."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.sources import Quarantined, Ref, read
from fabrica.types import Record


def found(path: Path, columns: dict[str, str] | None = None) -> list[Record | Quarantined]:
    return list(read(Ref(path, path.name, "demo", "CC-BY-4.0", columns or {})))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 5), ("val", 3)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (n, 6, 7), np.uint8)
        arrays[f"{split}_labels"] = np.arange(n).reshape(n, 1) % 2
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz"


def test_splits_images_and_labels(archive: Path) -> None:
    columns = {"image": "{split}_images", "label:x": "{split}_labels", "group:modality": "'X-ray'"}
    records = found(archive, columns)
    raw = np.load(archive)
    assert [r.split for r in records] == ["train"] * 5 + ["val"] * 3
    assert [r.labels["x"] for r in records] == [0, 1, 0, 1, 0, 0, 1, 0]
    assert all(r.groups["modality"] == "xray" for r in records)
    for n in range(3):
        np.testing.assert_array_equal(records[5 + n].first("image").array(), raw["val_images"][n])
    assert len({r.id for r in records}) == len({r.subject for r in records}) == 8


def test_the_usual_names_need_no_map(archive: Path) -> None:
    assert [r.labels["label"] for r in found(archive)[:2]] == [0, 1]


def test_tests_on_arrays(archive: Path) -> None:
    records = found(archive, {"image": "{split}_images", "label:zero": "{split}_labels == 0"})
    assert [r.labels["zero"] for r in records[:2]] == [1, 0]


def test_wrong_names_are_usage_errors(archive: Path) -> None:
    with pytest.raises(UsageError, match="there are train_images"):
        found(archive, {"image": "{split}_pictures"})
    with pytest.raises(UsageError, match="did you mean 'train_images'"):
        found(archive, {"image": "train_image"})
    with pytest.raises(UsageError, match="did you mean 'image'"):
        found(archive, {"imag": "{split}_images"})


def header(shape: tuple[int, ...], dtype: str) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"shape": shape, "fortran_order": False, "descr": dtype})
    return out.getvalue()


@pytest.mark.parametrize(
    ("member", "code"),
    [
        (header((60_000, 60_000), "<u2") + b"\0" * 64, "array_too_large"),
        (header((2,), "|O") + b"\x80\x04.", "pickle"),
        (header((4, 4), "<u2") + b"\0" * 8, "npz_bad"), (b"\x93NUMPY\x01\x00\xff\xff{", "npz_bad"),
    ],
)  # fmt: skip
def test_hostile_members_are_refused(tmp_path: Path, member: bytes, code: str) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("x.npy", member)
    (got,) = found(path, {"image": "x"})
    assert isinstance(got, Quarantined)
    assert got.code == code


def test_arrays_of_other_lengths_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2, 2)), y=np.zeros(4))
    (got,) = found(tmp_path / "a.npz", {"image": "x", "label:y": "y"})
    assert isinstance(got, Quarantined)
    assert got.code == "npz_rows"


@pytest.mark.real_data
def test_pneumoniamnist_by_config_alone(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("pneumoniamnist") / "pneumoniamnist_train_val.npz"
    records = found(path, {"image": "{split}_images", "label:pneumonia": "{split}_labels", "group:modality": "'xray'"})
    raw = np.load(path)
    assert [sum(r.split == s for r in records) for s in ("train", "val")] == [4708, 524]
    labels = np.array([r.labels["pneumonia"] for r in records])
    np.testing.assert_array_equal(labels, np.concatenate([raw["train_labels"], raw["val_labels"]])[:, 0])
    np.testing.assert_array_equal(records[4708].first("image").array(), raw["val_images"][0])
