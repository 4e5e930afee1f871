"""Stays of the 2012 challenge: times, -1, descriptors, outcomes beside, damage; the real set where it is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fabrica.sources import Quarantined, Ref, parts, read, sniff, walk
from fabrica.types import Record

STAY = """Time,Parameter,Value
00:00,RecordID,132539
00:00,Age,54
00:00,Gender,0
00:00,Height,-1
00:00,ICUType,4
00:00,Weight,-1
00:07,GCS,15
00:07,HR,73
01:37,HR,77
47:59,Urine,60
47:59,Urine,62
"""
OUTCOMES = """RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death
132539,6,1,5,-1,0
132540,16,8,8,12,1
"""


def made(folder: Path, text: str = STAY, name: str = "132539.txt") -> Path:
    path = folder / "set-a" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    (folder / "Outcomes-a.txt").write_text(OUTCOMES)
    return path


def found(path: Path) -> list[Record | Quarantined]:
    return list(read(Ref(path, path.name, "demo", "ODC-By-1.0")))


def test_a_stay_is_a_record_of_events_with_hours_and_its_outcome(tmp_path: Path) -> None:
    path = made(tmp_path)
    assert sniff(path) == "physionet2012"
    (record,) = found(path)
    assert isinstance(record, Record)
    events = record.items["events"]
    assert [e.hours for e in events] == [None, 7 / 60, 97 / 60, 47 + 59 / 60]
    assert events[0].names == ("Age", "Gender", "ICUType")
    assert events[0].array().tolist() == [54, 0, 4]
    assert events[1].names == ("GCS", "HR")
    assert events[3].array().tolist() == [60, 62]
    assert record.labels == {"saps_i": 6, "sofa": 1, "length_of_stay_days": 5, "in_hospital_death": 0}
    assert record.rights.licence == "ODC-By-1.0"
    assert "132539" not in record.subject


def test_the_outcomes_are_read_with_the_stays_and_are_no_report(tmp_path: Path) -> None:
    path = made(tmp_path)
    assert parts(path) == [tmp_path / "Outcomes-a.txt"]
    assert [r.path for r in walk(tmp_path, source="demo")] == [path]
    (tmp_path / "Outcomes-a.txt").unlink()
    (record,) = found(path)
    assert isinstance(record, Record)
    assert record.labels == {}


def test_bad_rows_are_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    broken = STAY + "02:00,,3\n99:99,HR,80\n03:00,HR,fast\n04:00,HR,nan\n05:00,HR\n05:00,HR,81\n"
    bad, record = found(made(tmp_path, broken))
    assert isinstance(bad, Quarantined)
    assert (bad.code, bad.message.split()[0]) == ("row_shape", "5")
    assert isinstance(record, Record)
    assert record.items["events"][-2].array().tolist() == [81]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Time,Parameter,Value\n00:07,HR,73\n", "stay_no_id"),
        ("Time,Parameter,Value\n00:00,RecordID,1\n00:00,Height,-1\n", "no_events"),
        ("Time,Parameter,Value\n" + "\0" * 50, "not_text"),
    ],
)
def test_a_file_without_a_stay_is_quarantined(tmp_path: Path, text: str, code: str) -> None:
    (got,) = found(made(tmp_path, text))
    assert isinstance(got, Quarantined)
    assert got.code == code


@pytest.mark.real_data
def test_the_real_set(shared_data) -> None:
    folder = shared_data("physionet2012")
    refs = list(walk(folder, source="physionet2012"))
    assert len(refs) == 2390
    records = [r for ref in refs[:200] for r in read(ref)]
    assert all(isinstance(r, Record) for r in records)
    deaths = [r.labels["in_hospital_death"] for r in records]
    assert 0.05 < np.mean(deaths) < 0.25
    names = {n for r in records for e in r.items["events"] for n in e.names}
    assert {"HR", "Age", "Lactate", "Height"} <= names
    assert "RecordID" not in names
    values = [v for r in records for e in r.items["events"] for v in e.array().tolist()]
    assert -1 not in values
    assert max(e.hours for r in records for e in r.items["events"] if e.hours is not None) <= 48
