"""WFDB records as the wfdb package reads them; headers without data, and headers that mean harm."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fabrica.sources import Quarantined, Ref, read
from fabrica.types import Record

wfdb = pytest.importorskip("wfdb")
NO_DATA = {"1003", "12726", "drive02", "drive02-no-len", "n16", "n8_evoked_raw_95_F1_R9", "wave_4"}


def one(path: Path) -> Record | Quarantined:
    (found,) = read(Ref(path, path.name, "demo", "ODC-By-1.0"))
    return found


def channels(record: Record) -> dict[str, tuple[np.ndarray, float, str | None]]:
    return {
        name: (item.array()[n], item.rate or 0.0, item.unit)
        for items in record.items.values()
        for item in items if item.kind == "signal"
        for n, name in enumerate(item.names)
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    t = np.arange(1000) / 250
    signal = np.stack([np.sin(2 * np.pi * t), 80 + 20 * np.cos(2 * np.pi * t), np.cos(t)], 1)
    wfdb.wrsamp(
        "a", fs=250, units=["mV", "mmHg", "uV"], sig_name=["II", "ABP", "EEG Fpz-Cz"], p_signal=signal,
        fmt=["16", "16", "16"], comments=["age: 70"], write_dir=str(tmp_path),
    )  # fmt: skip
    wfdb.wrann("a", "atr", np.array([250, 500]), ["N", "V"], fs=250, write_dir=str(tmp_path))
    return tmp_path


def test_channels_are_grouped_by_what_they_are(folder: Path) -> None:
    record = one(folder / "a.hea")
    assert isinstance(record, Record)
    assert {r: i[0].array().shape for r, i in record.items.items() if r != "text"} == {
        "ecg": (1, 1000), "eeg": (1, 1000), "signal": (1, 1000),
    }  # fmt: skip
    assert (record.groups["modality"], record.first("ecg").unit, record.first("ecg").rate) == ("ecg", "mV", 250)
    assert record.first("text").text() == "age: 70"
    beats = [(r.label, r.data.tolist(), r.origin.by) for r in record.regions]
    assert beats == [("N", [1.0, 1.0], "human"), ("V", [2.0, 2.0], "human")]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("x 1 250 1000\n../a.dat 16 200 16 0 0 0 0 II\n", "wfdb_header"),
        ("x 1 250 1000\n/etc/passwd 16 200 16 0 0 0 0 II\n", "wfdb_header"),
        ("x 1 250 1000\ngone.dat 16 200 16 0 0 0 0 II\n", "wfdb_no_data_file"),
        ("x 1 250 9000000000\na.dat 16 200 16 0 0 0 0 II\n", "array_too_large"),
        ("x 900 250 1000\na.dat 16 200 16 0 0 0 0 II\n", "wfdb_header"),
        ("x/2 1 250 2000\n../a 1000\na 1000\n", "wfdb_header"), ("", None), ("hello world\n", None),
    ],
)  # fmt: skip
def test_hostile_headers_are_quarantined(folder: Path, header: str, code: str | None) -> None:
    (folder / "x.hea").write_text(header)
    found = one(folder / "x.hea")
    assert isinstance(found, Quarantined)
    assert code in (None, found.code)


def test_a_link_out_of_the_folder_is_no_data_file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "secret.dat"
    other.write_bytes(b"\1\0" * 1000)
    (folder / "s.dat").symlink_to(other)
    (folder / "x.hea").write_text("x 1 250 1000\ns.dat 16 200 16 0 0 0 0 II\n")
    assert one(folder / "x.hea").code == "wfdb_no_data_file"  # type: ignore[union-attr]


@pytest.mark.real_data
def test_every_sample_record_equals_the_wfdb_package(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("wfdb_samples") / "sample-data"
    formats: set[str] = set()
    lost = set()
    for path in sorted(folder.glob("*.hea")):
        record = one(path)
        if isinstance(record, Quarantined):
            assert record.code == "wfdb_no_data_file"
            lost.add(path.stem)
            continue
        want = wfdb.rdrecord(str(path.with_suffix("")), smooth_frames=False)
        got = channels(record)
        for n, name in enumerate(want.sig_name):
            if name == "EDF Annotations":
                continue
            values, rate, unit = got[name.strip()]
            np.testing.assert_array_equal(values, want.e_p_signal[n].astype(np.float32), err_msg=f"{path.stem} {name}")
            assert rate == pytest.approx(want.fs * want.samps_per_frame[n])
            assert (unit or "").lower() == want.units[n].lower()
            formats.add(want.fmt[n])
    assert lost == NO_DATA
    assert {"8", "16", "24", "32", "61", "80", "160", "212", "310", "311", "508", "516", "524"} <= formats


@pytest.mark.real_data
def test_record_100_has_its_beats(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("wfdb_samples") / "sample-data" / "100.hea"
    record = one(path)
    notes = wfdb.rdann(str(path.with_suffix("")), "atr")
    assert isinstance(record, Record)
    assert [r.label for r in record.regions] == notes.symbol
    assert record.regions[1].data[0] == pytest.approx(notes.sample[1] / 360)
    assert record.first("ecg").names == ("MLII", "V5")
    first = wfdb.rdrecord(str(path.with_suffix("")), sampto=2, physical=False).d_signal
    assert first.tolist() == [[995, 1011], [995, 1011]], "the first samples, as `rdsamp -r 100` prints them"
    np.testing.assert_allclose(record.first("ecg").array()[:, 0], [(995 - 1024) / 200, (1011 - 1024) / 200], rtol=1e-6)
