"""Slides (a made pyramid) and MEDS events (made rows), read back."""

import datetime as dt
from pathlib import Path

import numpy as np
import pytest

from fabrica.sources import Quarantined, Ref, read
from fabrica.types import Blob, Record


def found(path: Path, source: str = "demo") -> list[Record | Quarantined]:
    return list(read(Ref(path, path.name, source, "CC0-1.0")))


def test_a_slide_is_a_blob_with_a_thumbnail(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.svs"
    rows, columns = np.mgrid[:600, :1200]
    full = np.stack([rows * 255 // 600, columns * 255 // 1200, 0 * rows], -1).astype(np.uint8)
    with tifffile.TiffWriter(path) as out:
        how = {"photometric": "rgb", "tile": (256, 256), "compression": None}
        out.write(full, subfiletype=0, resolution=(20000, 20000), resolutionunit=3, **how)
        out.write(full[::4, ::4], subfiletype=1, **how)
    (record,) = found(path)
    assert isinstance(record, Record)
    blob = record.first("slide").value
    assert isinstance(blob, Blob)
    assert (blob.size, blob.media_type) == (path.stat().st_size, "image/x-aperio-svs")
    image = record.first("image").array()
    assert image.shape == (256, 512, 3)
    np.testing.assert_allclose(image[128, 256], full[300, 600], atol=6)
    assert record.groups["modality"] == "pathology"
    assert (record.groups["width"], record.groups["height"]) == ("1200", "600")
    assert float(record.groups["mpp"]) == pytest.approx(0.5)


def test_what_is_no_slide_is_quarantined(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    (tmp_path / "a.svs").write_bytes(b"II*\0" + b"\xff" * 200)
    (got,) = found(tmp_path / "a.svs")
    assert isinstance(got, Quarantined)
    assert got.code == "slide_unreadable"


T0 = dt.datetime(2020, 1, 1, 8)


def write_meds(path: Path, rows: list[tuple[int, dt.datetime | None, str, float | None]]) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("subject_id", "time", "code", "numeric_value")
    types = (pa.int64(), pa.timestamp("us"), pa.string(), pa.float32())
    columns = [pa.array([r[n] for r in rows], t) for n, t in enumerate(types)]
    parquet.write_table(pa.table(dict(zip(names, columns, strict=True))), path, row_group_size=3)
    return path


ROWS = [
    (7, None, "GENDER//F", None), (7, dt.datetime(1960, 1, 1), "MEDS_BIRTH", None), (7, T0, "ADMISSION", None),
    (7, T0, "LAB//sodium", 140.0), (7, T0, "LAB//glucose", float("nan")),
    (7, T0 + dt.timedelta(hours=6), "LAB//sodium", 136.0), (9, T0, "ADMISSION", None),
]  # fmt: skip


def test_one_record_a_subject_with_hours_from_the_first_event(tmp_path: Path) -> None:
    a, b = found(write_meds(tmp_path / "e.parquet", ROWS))
    assert isinstance(a, Record)
    series = [(i.hours, i.names, i.array().tolist()) for i in a.items["events"]]
    assert series == [(0.0, ("LAB//sodium",), [140.0]), (6.0, ("LAB//sodium",), [136.0])]
    codes = [(i.hours, i.value) for i in a.items["codes"]]
    assert codes == [(None, "GENDER//F"), (0.0, "ADMISSION\nLAB//glucose")]
    assert a.first("table").array()[0] == pytest.approx(60.0, abs=0.01)
    assert a.subject != b.subject
    assert set(b.items) == {"codes"}


def test_splits_and_tasks_beside_the_data(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path = write_meds(tmp_path / "data" / "train" / "0.parquet", ROWS)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "tasks").mkdir()
    parquet.write_table(
        pa.table({"subject_id": [7, 9], "split": ["tuning", "held_out"]}),
        tmp_path / "metadata" / "subject_splits.parquet",
    )
    task = {"subject_id": [7], "prediction_time": [T0 + dt.timedelta(hours=24)], "boolean_value": [True]}
    parquet.write_table(pa.table(task), tmp_path / "tasks" / "death.parquet")
    a, b = found(path)
    assert (a.split, b.split) == ("val", "test")  # type: ignore[union-attr]
    (region,) = a.regions  # type: ignore[union-attr]
    assert (region.label, region.data.tolist(), region.score) == ("task:death", [86400.0, 86400.0], 1.0)


def test_subjects_in_pieces_and_broken_files_are_quarantined(tmp_path: Path) -> None:
    pieces = found(write_meds(tmp_path / "p.parquet", [*ROWS, ROWS[2]]))
    assert pieces[-1].code == "meds_order"  # type: ignore[union-attr]
    path = write_meds(tmp_path / "b.parquet", ROWS)
    data = bytearray(path.read_bytes())
    data[8:60] = b"\xff" * 52
    path.write_bytes(data)
    last = found(path)[-1]
    assert isinstance(last, Quarantined)
    assert last.code in ("parquet_bad", "undecodable")
