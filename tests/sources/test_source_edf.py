"""EDF and BDF: values equal to pyedflib's; annotations; headers that mean harm."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fabrica.sources import Quarantined, Ref, read
from fabrica.types import Record

pyedflib = pytest.importorskip("pyedflib")
LABELS = ("EEG Fpz-Cz", "ECG II", "Resp")


def write(path: Path, *, bdf: bool = False, patient: str = "") -> np.ndarray:
    kind = pyedflib.FILETYPE_BDFPLUS if bdf else pyedflib.FILETYPE_EDFPLUS
    top = 8388607 if bdf else 32767
    heads = [
        {
            "label": name, "dimension": unit, "sample_frequency": 100, "physical_min": -500.0, "physical_max": 500.0,
            "digital_min": -top - 1, "digital_max": top, "prefilter": "", "transducer": "",
        }
        for name, unit in zip(LABELS, ("uV", "mV", ""), strict=True)
    ]  # fmt: skip
    data = np.random.default_rng(0).normal(0, 60, (3, 1000))
    with pyedflib.EdfWriter(str(path), 3, file_type=kind) as out:
        out.setSignalHeaders(heads)
        out.setPatientCode(patient)
        out.writeSamples(list(data))
        out.writeAnnotation(2.5, 1.5, "spindle")
    return data


def one(path: Path) -> Record | Quarantined:
    (found,) = read(Ref(path, path.name, "demo"))
    return found


@pytest.mark.parametrize("bdf", [False, True])
def test_values_equal_pyedflib(tmp_path: Path, bdf: bool) -> None:
    path = tmp_path / ("a.bdf" if bdf else "a.edf")
    data = write(path, bdf=bdf)
    record = one(path)
    assert isinstance(record, Record)
    got = {n: i.array()[k] for g in record.items.values() for i in g for k, n in enumerate(i.names)}
    with pyedflib.EdfReader(str(path)) as want:
        for n, name in enumerate(LABELS):
            np.testing.assert_allclose(got[name], want.readSignal(n), rtol=1e-6, atol=1e-5)
            np.testing.assert_allclose(got[name], data[n], atol=0.02)
    assert record.first("eeg").rate == 100
    assert record.first("eeg").unit == "uV"
    assert [(r.label, r.data.tolist()) for r in record.regions] == [("spindle", [2.5, 4.0])]


def test_the_patient_field_is_hashed(tmp_path: Path) -> None:
    write(tmp_path / "a.edf", patient="MRN-77")
    write(tmp_path / "b.edf", patient="MRN-77")
    write(tmp_path / "c.edf")
    a, b, c = (one(tmp_path / f"{x}.edf") for x in "abc")
    assert a.subject == b.subject != c.subject  # type: ignore[union-attr]
    assert "MRN" not in repr(a)


def patched(data: bytes, at: int, text: str, width: int = 8) -> bytes:
    return data[:at] + text.ljust(width).encode() + data[at + width :]


@pytest.mark.parametrize(
    ("at", "text", "width", "code"),
    [
        (252, "9999", 4, "edf_header"), (252, "-1", 4, "edf_header"), (184, "99999999", 8, "edf_header"),
        (244, "-1", 8, "edf_header"), (236, "nan?", 8, "edf_header"), (192, "EDF+D", 44, "edf_discontinuous"),
    ],
)  # fmt: skip
def test_damaged_headers_are_quarantined(tmp_path: Path, at: int, text: str, width: int, code: str) -> None:
    path = tmp_path / "a.edf"
    write(path)
    path.write_bytes(patched(path.read_bytes(), at, text, width))
    found = one(path)
    assert isinstance(found, Quarantined)
    assert found.code == code


def test_a_cut_recording_keeps_its_whole_records(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    write(path)
    whole = one(path).first("eeg").array()  # type: ignore[union-attr]
    path.write_bytes(path.read_bytes()[:-500])
    cut = one(path).first("eeg").array()  # type: ignore[union-attr]
    assert 0 < cut.shape[1] < whole.shape[1]
    np.testing.assert_array_equal(cut, whole[:, : cut.shape[1]])


@pytest.mark.real_data
def test_the_sample_recording_equals_its_wfdb_form(shared_data: Callable[[str], Path]) -> None:
    """pyedflib refuses this file (its unit is a degree sign); wfdb has the same recording, converted by PhysioNet."""
    wfdb = pytest.importorskip("wfdb")
    path = shared_data("wfdb_samples") / "sample-data" / "test_generator_2.edf"
    record = one(path)
    assert isinstance(record, Record)
    got = {n: i.array()[k] for g in record.items.values() for i in g for k, n in enumerate(i.names)}
    want = wfdb.rdrecord(str(path.with_suffix("")), smooth_frames=False)
    for n, name in enumerate(want.sig_name):
        if name in got:
            step = 1 / want.adc_gain[n]  # WFDB rounds the baseline to whole steps
            np.testing.assert_allclose(got[name], want.e_p_signal[n], atol=step, err_msg=name)
    assert len(set(got) & set(want.sig_name)) == 11
    assert [r.label for r in record.regions] == ["RECORD START", "REC STOP"]
    assert record.regions[1].data.tolist() == [600.0, 600.0]
    assert one(path.with_name("test_edfann.edf")).code == "edf_no_signals"  # type: ignore[union-attr]
