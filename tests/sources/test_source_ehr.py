"""EHR table folders: real demo extracts against a pandas recount; made tables for memory, layouts and hostile input."""

import csv
import errno
import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import Full, Refused
from fabrica.safe import LIMITS, Limits
from fabrica.sources import Quarantined, Ref, ehr, mimic, omop, parts, read, sniff, walk
from fabrica.sources.ehr_map import Event, People, TableMap
from fabrica.sources.single import hashed
from fabrica.sources.spill import Spill
from fabrica.types import Absent, Record

Shared = Callable[[str], Path]
Said = Counter[tuple[float | None, str, float | None]]  # (hours, code, value)
SMALL = Limits(array_bytes=1 << 20)


def all_of(path: Path, limits: Limits = LIMITS) -> tuple[list[Record], dict[str, Quarantined]]:
    found = list(read(Ref(path, path.name, "demo", "CC0-1.0"), limits))
    lost = {q.key.partition("#")[2]: q for q in found if isinstance(q, Quarantined)}
    return [r for r in found if isinstance(r, Record)], lost


def said(record: Record) -> Said:
    """All that a record's events and codes say."""
    out: Said = Counter()
    for item in record.items.get("events", ()):
        hours = None if item.hours is None else round(item.hours, 3)
        out.update((hours, n, round(float(v), 3)) for n, v in zip(item.names, item.array(), strict=True))
    for item in record.items.get("codes", ()):
        hours = None if item.hours is None else round(item.hours, 3)
        out.update((hours, code, None) for code in item.text().split("\n"))
    return out


def write(path: Path, header: str, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n", "utf-8")
    return path


# ---------------------------------------------------------------- real extracts, recounted with pandas


@pytest.fixture
def demo(shared_data: Shared) -> Path:
    return shared_data("pyhealth_demo_ehr") / "test-resources"


def recount(rows: list[tuple[str, object, str, float | None]]) -> dict[str, Said]:
    """(patient, time or NaT, code, value) -> what each patient's record must say, hours from the first time."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=["who", "time", "code", "value"])
    frame["time"] = pd.to_datetime(frame["time"])
    out = {}
    for who, part in frame.groupby("who"):
        zero = part["time"].min()
        hours = (part["time"] - zero).dt.total_seconds() / 3600
        values = [None if v is None or v != v else round(float(np.float32(v)), 3) for v in part["value"]]
        said = zip([None if h != h else round(h, 3) for h in hours], part["code"], values, strict=True)
        out[hashed("subject", "demo", str(who))] = Counter(said)
    return out


@pytest.mark.real_data
def test_mimic3_demo_says_what_pandas_counts(demo: Path) -> None:
    pd = pytest.importorskip("pandas")
    root = demo / "core" / "mimic3demo"
    t = {p.name.split(".")[0].lower(): pd.read_csv(p, dtype=str) for p in root.glob("*.csv.gz")}
    stays = t["admissions"]
    ends = dict(zip(stays.hadm_id, stays.dischtime, strict=True))
    rows = [(r.subject_id, None, f"GENDER//{r.gender}", None) for r in t["patients"].itertuples()]
    rows += [(r.subject_id, r.dod, "MEDS_DEATH", None) for r in t["patients"].itertuples() if isinstance(r.dod, str)]
    for r in stays.itertuples():
        rows.append(
            (r.subject_id, r.admittime, f"HOSPITAL_ADMISSION//{r.admission_type}//{r.admission_location}", None)
        )
        rows.append((r.subject_id, r.dischtime, f"HOSPITAL_DISCHARGE//{r.discharge_location}", None))
        rows.append((r.subject_id, r.admittime, f"RACE//{r.ethnicity}", None))
    for name, code in (("diagnoses_icd", "DIAGNOSIS"), ("procedures_icd", "PROCEDURE")):
        t[name] = t[name].dropna(subset="icd9_code")
        rows += [(r.subject_id, ends[r.hadm_id], f"{code}//ICD//9//{r.icd9_code}", None) for r in t[name].itertuples()]
    for r in t["prescriptions"].itertuples():
        rows.append((r.subject_id, r.startdate, f"MEDICATION//START//{r.drug.strip()}", None))
        if isinstance(r.enddate, str):
            rows.append((r.subject_id, r.enddate, f"MEDICATION//STOP//{r.drug.strip()}", None))
    records, lost = all_of(root / "PATIENTS.csv.gz")
    assert {r.subject: said(r) for r in records} == recount(rows)
    assert len(records) == 100
    assert not lost
    withheld = [r for r in records if r.items["table"][0].value is Absent.WITHHELD]
    old = t["patients"].merge(stays.groupby("subject_id").admittime.min(), on="subject_id")
    old = old[old.admittime.str[:4].astype(int) - old.dob.str[:4].astype(int) > 200]
    assert len(withheld) == len(old) > 0, "ages above 89 are written as 300"


@pytest.mark.real_data
def test_eicu_demo_says_what_pandas_counts(demo: Path) -> None:
    pd = pytest.importorskip("pandas")
    root = demo / "core" / "eicudemo"
    patients, labs = (pd.read_csv(root / f"{n}.csv") for n in ("patient", "lab"))
    records, lost = all_of(root / "patient.csv")
    assert len(records) == len(patients) == 174
    assert len({r.subject for r in records}) == patients.uniquepid.nunique()
    by_stay = {r.groups["stay"]: r for r in records}
    for stay, part in labs.dropna(subset="labresult").groupby("patientunitstayid"):
        record = by_stay[hashed("stay", "demo", str(stay))]
        got = Counter(
            (h, round(v, 3)) for (h, c, v) in said(record).elements() if c.startswith("LAB//") and v is not None
        )
        want = Counter(
            (round(m / 60, 3), round(float(np.float32(v)), 3))
            for m, v in zip(part.labresultoffset, part.labresult, strict=True)
        )
        assert got == want
    total: Counter[str] = Counter(c.split("//")[0] for r in records for _, c, _ in said(r).elements())
    counts = {n: len(pd.read_csv(root / f"{n}.csv")) for n in ("treatment", "physicalExam", "admissionDx")}
    assert (total["TREATMENT"], total["EXAM"], total["ADMISSION_DX"]) == tuple(counts.values())
    drugs = pd.read_csv(root / "medication.csv")
    no_name = int((drugs.drugname.isna() & drugs.drughiclseqno.isna()).sum())
    assert f"{no_name:,} rows" in lost["medication:code_empty"].message
    codes = Counter(c.split("//")[1] for r in records for _, c, _ in said(r).elements() if c.startswith("MEDICATION//"))
    assert codes["START"] == len(drugs) - no_name
    ages = [r.items["table"][0] for r in records if "table" in r.items]
    assert sum(not a.present for a in ages) == int((patients.age == "> 89").sum())
    assert sorted(float(a.array()[0]) for a in ages if a.present) == sorted(
        float(a) for a in patients.age.dropna() if a != "> 89"
    )


@pytest.mark.real_data
def test_omop_demo_says_what_pandas_counts(demo: Path) -> None:
    pd = pytest.importorskip("pandas")
    t = {p.stem: pd.read_csv(p, dtype=str) for p in (demo / "omop").glob("*.csv")}
    records, lost = all_of(demo / "omop" / "person.csv")
    assert not lost
    assert {r.subject for r in records} == {hashed("subject", "demo", p) for p in t["person"].person_id}
    by_who = {r.subject: Counter(c.split("//")[0] for _, c, _ in said(r).elements()) for r in records}
    kinds = {"visit_occurrence": "VISIT", "condition_occurrence": "CONDITION", "drug_exposure": "DRUG",
             "procedure_occurrence": "PROCEDURE", "measurement": "MEASUREMENT"}  # fmt: skip
    for table, kind in kinds.items():
        for who, n in t[table].groupby("person_id").size().items():
            assert by_who[hashed("subject", "demo", str(who))][kind] == n, (table, who)
    first = pd.concat([t[n].set_index("person_id")[c] for n, c in (
        ("visit_occurrence", "visit_start_datetime"), ("condition_occurrence", "condition_start_datetime"),
        ("drug_exposure", "drug_exposure_start_datetime"), ("procedure_occurrence", "procedure_datetime"),
        ("measurement", "measurement_datetime"))]).groupby("person_id").min()  # fmt: skip
    rows = t["measurement"]
    want = Counter(
        (hashed("subject", "demo", r.person_id),
         round((pd.Timestamp(r.measurement_datetime) - pd.Timestamp(first[r.person_id])).total_seconds() / 3600, 3),
         round(float(np.float32(r.value_as_number)), 3))
        for r in rows.itertuples() if isinstance(r.value_as_number, str)
    )  # fmt: skip
    got = Counter((r.subject, h, v) for r in records for h, c, v in said(r).elements() if v is not None)
    assert got == want


@pytest.mark.real_data
def test_mimic4_folder_is_one_source(demo: Path) -> None:
    root = demo / "core" / "mimic4demo"
    refs = list(walk(root, source="demo"))
    assert [r.key for r in refs] == ["hosp/patients.csv"]
    records, lost = all_of(refs[0].path)
    assert len(records) == 13
    total = Counter(c.split("//")[0] for r in records for _, c, _ in said(r).elements())
    assert (total["DIAGNOSIS"], total["ICU_ADMISSION"], total["LAB"]) == (46, 15, 68), "7 of 53 diagnoses have no code"
    assert lost["d_labitems"].code == "table_ignored"


# ---------------------------------------------------------------- made tables

PATIENTS = "subject_id,gender,anchor_age,anchor_year,dod"
LABS = "subject_id,itemid,charttime,value,valuenum,valueuom"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "patients.csv", PATIENTS, "1,F,60,2150,", "2,M,41,2150,2151-01-01")
    write(
        tmp_path / "labevents.csv", LABS, "1,50912,2150-03-15 10:00:00,1.5,1.5,mg/dL",
        "1,50912,2150-03-15 16:30:00,1.1,1.1,mg/dL", "1,51464,2150-03-15 16:30:00,NEG,,",
        "2,50912,2150-04-01,0.9,0.9,mg/dL",
    )  # fmt: skip
    write(tmp_path / "admissions.csv", "subject_id,hadm_id,admittime,dischtime,admission_type,discharge_location",
          "1,10,2150-03-15 08:00:00,2150-03-20 08:00:00,URGENT,HOME")  # fmt: skip
    write(tmp_path / "diagnoses_icd.csv", "subject_id,hadm_id,icd_code,icd_version", "1,10,E1165,10", "1,11,I10,10")
    return tmp_path


def test_a_patient_is_laid_out_as_meds_is(folder: Path) -> None:
    (a, b), lost = all_of(folder / "patients.csv")
    assert not lost
    assert [(i.hours, i.names, i.array().tolist()) for i in a.items["events"]] == [
        (2.0, ("LAB//50912//mg/dL",), [1.5]), (8.5, ("LAB//50912//mg/dL",), [pytest.approx(1.1)])]  # fmt: skip
    assert [(i.hours, i.value) for i in a.items["codes"]] == [
        (None, "GENDER//F\nDIAGNOSIS//ICD//10//I10"), (0.0, "HOSPITAL_ADMISSION//URGENT"), (8.5, "LAB//51464//NEG"),
        (120.0, "HOSPITAL_DISCHARGE//HOME\nDIAGNOSIS//ICD//10//E1165"),
    ]  # fmt: skip
    assert a.first("table").array()[0] == pytest.approx(60.2, abs=0.01)
    assert a.subject == hashed("subject", "demo", "1")
    assert "2150" not in repr((a, b))
    assert sniff(folder / "patients.csv") == "mimic"
    assert [p.name for p in parts(folder / "patients.csv")] == ["admissions.csv", "diagnoses_icd.csv", "labevents.csv"]


def test_parquet_gzip_and_csv_give_the_same_records(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    pacsv, parquet = pytest.importorskip("pyarrow.csv"), pytest.importorskip("pyarrow.parquet")
    packed, columnar = tmp_path_factory.mktemp("gz"), tmp_path_factory.mktemp("parquet")
    for path in folder.glob("*.csv"):
        (packed / f"{path.stem.upper()}.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
        parquet.write_table(pacsv.read_csv(path), columnar / f"{path.stem}.parquet")
    ids = [r.id for r in all_of(folder / "patients.csv")[0]]
    assert ids == [r.id for r in all_of(packed / "PATIENTS.csv.gz")[0]]
    assert ids == [r.id for r in all_of(columnar / "patients.parquet")[0]]


def test_a_column_map_wins_over_the_folder(folder: Path) -> None:
    refs = list(walk(folder, source="demo", columns={"value:age": "anchor_age"}))
    assert len(refs) == 4
    found = list(read(next(r for r in refs if r.key == "patients.csv")))
    assert [f.first("table").array()[0] for f in found] == [60, 41]


def test_tables_that_grow_keep_the_ids_of_other_patients(folder: Path) -> None:
    a, b = (r.id for r in all_of(folder / "patients.csv")[0])
    with (folder / "labevents.csv").open("a") as out:
        out.write("2,50912,2150-04-02,1.0,1.0,mg/dL\n")
    c, d = (r.id for r in all_of(folder / "patients.csv")[0])
    assert (a == c, b == d) == (True, False)


def test_a_map_of_ones_own(tmp_path: Path) -> None:
    write(tmp_path / "people.csv", "pid,sex", "a,f")
    write(tmp_path / "vitals.csv", "pid,when,hr", "a,2020-01-01,61", "a,2020-01-02,", "a,2020-01-03,x")
    own = TableMap(
        "own", "pid", People("people", ("sex",), static=("SEX//{sex}",)), (Event("vitals", "HR", "when", value="hr"),)
    )
    (record,) = ehr.read(Ref(tmp_path / "people.csv", "people.csv", "demo"), own)
    assert said(record) == Counter({(None, "SEX//f", None): 1, (0.0, "HR", 61.0): 1})


def test_omop_concepts_are_written_by_their_vocabulary(tmp_path: Path) -> None:
    write(tmp_path / "person.csv", "person_id,gender_concept_id,year_of_birth,month_of_birth", "-7,8507,1950,3")
    write(tmp_path / "condition_occurrence.csv",
          "person_id,condition_concept_id,condition_start_date,condition_source_value", "-7,320128,2020-03-01,I10",
          "-7,0,2020-03-01,local/x", "-7,99,2020-03-02,Y")  # fmt: skip
    write(tmp_path / "CONCEPT.csv", "concept_id\tconcept_name\tvocabulary_id\tconcept_code",
          "320128\tEssential hypertension\tSNOMED\t59621000", "8507\tMALE\tGender\tM")  # fmt: skip
    (record,), lost = all_of(tmp_path / "person.csv")
    assert [i.value for i in record.items["codes"]] == [
        "GENDER//Gender//M", "CONDITION//SNOMED//59621000\nCONDITION//SOURCE//local/x", "CONDITION//OMOP//99",
    ]  # fmt: skip
    assert record.first("table").array()[0] == pytest.approx(70.0, abs=0.01)
    assert lost["concept"].code == "table_ignored"


# ---------------------------------------------------------------- memory


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=4), st.integers(0, 9)), max_size=60), st.integers(1, 300))
def test_the_spill_keeps_every_row_once_and_every_patient_whole(rows: list[tuple[str, int]], budget: int) -> None:
    import pyarrow as pa

    with Spill(LIMITS) as spill:
        spill.budget = budget
        for k in range(0, len(rows), 7):
            part = rows[k : k + 7]
            spill.add(
                pa.record_batch({"patient": pa.array([r[0] for r in part], pa.string()), "n": [r[1] for r in part]})
            )
        tables = [t.to_pylist() for t in spill.tables()]
        large = {name for name, _ in spill.too_large}
    got = [(r["patient"], r["n"]) for t in tables for r in t]
    assert Counter(got) == Counter(r for r in rows if r[0] not in large)
    whole = [{r["patient"] for r in t} for t in tables]
    assert sum(map(len, whole)) == len(set().union(*whole))
    for name in {r[0] for r in rows} - large:
        assert [n for who, n in got if who == name] == [n for who, n in rows if who == name], "in their order"


def made(folder: Path, patients: int, each: int) -> Path:
    rng = np.random.default_rng(0)
    who = rng.permutation(np.repeat(np.arange(patients), each))
    write(folder / "patients.csv", PATIENTS, *(f"{n},F,60,2150," for n in range(patients)))
    write(
        folder / "labevents.csv",
        LABS,
        *(f"{n},{50000 + k % 97},2150-01-{k % 28 + 1:02} 10:00:00,,{k % 13},mg" for k, n in enumerate(who)),
    )
    return folder / "patients.csv"


def test_a_small_budget_changes_no_record(tmp_path: Path) -> None:
    path = made(tmp_path, 300, 60)
    many, few = all_of(path)[0], all_of(path, SMALL)[0]
    assert {r.id: said(r) for r in many} == {r.id: said(r) for r in few}
    assert len(many) == 300


def test_ten_times_the_rows_take_the_same_memory(tmp_path: Path) -> None:
    import pyarrow as pa

    peaks, default, pool = [], pa.default_memory_pool(), pa.system_memory_pool()
    for name, patients in (("a", 4000), ("b", 40000)):
        path = made(tmp_path / name, patients, 20)
        pa.set_memory_pool(pool)
        try:
            tables = ehr.event_tables(Ref(path, path.name, "demo"), mimic.MIMIC4, Limits(array_bytes=8 << 20))
            rows = sum(table.num_rows for table in tables)
        finally:
            pa.set_memory_pool(default)
        peaks.append(pool.max_memory())
        assert rows == patients * 23, "a row for who is known, one for sex, one for birth and 20 events"
    assert 0 < peaks[1] < 1.5 * peaks[0]


def test_one_patient_above_the_budget_is_named_and_the_others_stay(tmp_path: Path) -> None:
    path = made(tmp_path, 40, 100)
    with (tmp_path / "labevents.csv").open("a") as out:
        out.writelines(f"7,50912,2150-01-01 10:00:00,,{k},mg/dL\n" for k in range(20000))
    records, lost = all_of(path, SMALL)
    assert len(records) == 39
    assert [q.code for q in lost.values()] == ["patient_too_large"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path, room = made(tmp_path, 300, 60), tmp_path / "room"
    room.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(room))
    monkeypatch.setattr(Spill, "_write", full)
    with pytest.raises(Full, match="TMPDIR"):
        all_of(path, SMALL)
    assert not list(room.iterdir())


def test_the_spill_is_private_and_goes_when_reading_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, room = made(tmp_path, 300, 60), tmp_path / "room"
    room.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(room))
    reading = read(Ref(path, path.name, "demo"), SMALL)
    next(reading)
    (folder,) = room.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    reading.close()  # type: ignore[attr-defined]
    assert not list(room.iterdir())


# ---------------------------------------------------------------- hostile tables


def refused(path: Path) -> str:
    (found,) = read(Ref(path, path.name, "demo"))
    assert isinstance(found, Quarantined)
    return found.code


def test_cut_and_broken_gzip_refuse_the_whole_source(folder: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"1,{n},2150-03-15 10:00:00,,{n},mg" for n in rng.integers(0, 10**9, 20000)]
    packed = gzip.compress("\n".join([LABS, *lines]).encode())
    (folder / "labevents.csv").unlink()
    for data in (packed[: len(packed) // 2], packed[:2000] + b"\xff" * 50 + packed[2050:], b"\x1f\x8b" + b"x" * 99):
        (folder / "labevents.csv.gz").write_bytes(data)
        assert refused(folder / "patients.csv") == "deflate"


def test_a_gzip_bomb_is_refused(folder: Path) -> None:
    (folder / "labevents.csv").unlink()
    (folder / "labevents.csv.gz").write_bytes(gzip.compress(LABS.encode() + b"\n" + b"0" * (300 << 20), 9))
    assert refused(folder / "patients.csv") in ("ratio", "csv_bad")


@pytest.mark.parametrize("data", [LABS.encode("utf-16"), LABS.encode() + b"\n1,\0,2150-01-01,,1,\n"])
def test_what_is_no_text_is_refused(folder: Path, data: bytes) -> None:
    (folder / "labevents.csv").write_bytes(data)
    assert refused(folder / "patients.csv") == "not_text"


def test_windows_1252_cells_are_read(folder: Path) -> None:
    write(folder / "prescriptions.csv", "subject_id,starttime,drug")
    with (folder / "prescriptions.csv").open("ab") as out:
        out.write("1,2150-03-15 09:00:00,Vitamin C – naïve\n".encode("cp1252"))
    (a, _), _ = all_of(folder / "patients.csv")
    assert (1.0, "MEDICATION//START//Vitamin C – naïve", None) in said(a)


def test_a_million_columns(folder: Path) -> None:
    with (folder / "labevents.csv").open("a") as out:
        out.write("1," * 10**6 + "1\n")
        out.write("1,50912,2150-03-15 17:30:00,2.5,2.5,mg/dL\n")
    (a, _), lost = all_of(folder / "patients.csv")
    assert lost["labevents:row_shape"].message.startswith("1 rows of 'labevents' (first: 5)")
    assert (9.5, "LAB//50912//mg/dL", 2.5) in said(a), "the rows after it"
    write(folder / "labevents.csv", ",".join(f"c{k}" for k in range(10**6)), "1")
    assert refused(folder / "patients.csv") == "table_columns"


@pytest.mark.parametrize("row", ['1,"50912,2150-03-15', '1,50912,2150-03-15 10:00:00,,1,"mg'])
@pytest.mark.parametrize("after", [3, 60000])
def test_an_open_quote_is_refused(folder: Path, row: str, after: int) -> None:
    write(folder / "labevents.csv", LABS, row, *(f"2,{k},2150-04-01,0.9,0.9,mg/dL{'x' * 60}" for k in range(after)))
    assert refused(folder / "patients.csv") == "csv_bad"


def test_a_code_of_two_lines_is_one_code(folder: Path) -> None:
    write(folder / "prescriptions.csv", "subject_id,starttime,drug", '1,2150-03-15 09:00:00,"Vitamin', 'C"')
    (a, _), _ = all_of(folder / "patients.csv")
    assert said(a)[1.0, "MEDICATION//START//Vitamin C", None] == 1


def test_an_inch_mark_and_a_note_of_many_lines_are_no_open_quote(folder: Path) -> None:
    write(folder / "prescriptions.csv", "subject_id,starttime,drug", '1,2150-03-15 09:00:00,5" tube')
    write(folder / "discharge.csv", "subject_id,charttime,text", '1,2150-03-20,"One.', 'Two, ""quoted"".', '"')
    (a, _), lost = all_of(folder / "patients.csv")
    assert not lost
    assert (1.0, 'MEDICATION//START//5" tube', None) in said(a)
    assert (a.first("note").text(), a.first("note").hours) == ('One.\nTwo, "quoted".', 112.0)


def test_numbers_and_times_that_are_none(folder: Path) -> None:
    rows = ["1,1,2150-03-15 09:00:00,,nan,", "1,2,2150-03-15 09:00:00,,inf,", "1,3,2150-03-15 09:00:00,,1e999,",
            f"1,4,2150-03-15 09:00:00,,{'9' * 400},", "1,5,2150-03-15 09:00:00,,1e300,", "1,6,not a date,,6,",
            "1,7,0001-01-01,,7,", "1,8,9999-12-31,,8,", "1,9,2150-02-30,,9,", "1,10,,,10,", ",11,2150-03-15,,11,",
            "1,,2150-03-15 09:00:00,,12,"]  # fmt: skip
    write(folder / "labevents.csv", LABS, *rows)
    (a, _), lost = all_of(folder / "patients.csv")
    got = said(a)
    for n in (1, 2, 3, 4, 5):
        assert got[1.0, f"LAB//{n}", None] == 1, "kept as an event, without a number"
    for n in (6, 7, 8, 9, 10):
        assert got[None, f"LAB//{n}", float(n)] == 1, "kept without hours"
    assert {k.partition(":")[2]: q.message.split(" rows")[0] for k, q in lost.items()} == {
        "time_bad": "2", "time_range": "2", "row_no_patient": "1", "code_empty": "1"}  # fmt: skip
    assert got[1.0, "LAB", 12.0] == 0, "the row that names no item"
    assert all(np.isfinite(i.array()).all() for i in a.items["events"])


def test_giant_and_missing_patients(folder: Path) -> None:
    with (folder / "labevents.csv").open("a") as out:
        out.write(f"{10**40},50912,2150-03-15,,1,mg/dL\n99,50912,2150-03-15,,1,mg/dL\n99,50912,2150-03-16,,1,mg/dL\n")
    with (folder / "patients.csv").open("a") as out:
        out.write(f"{10**40},F,30,2150,\n3,M,30,2150,\n2,F,41,2150,\n")
    records, lost = all_of(folder / "patients.csv")
    who = {r.subject for r in records}
    assert hashed("subject", "demo", str(10**40)) in who
    assert hashed("subject", "demo", "3") in who, "known, with a sex and no events"
    missing = lost[hashed("subject", "demo", "99")]
    assert (missing.code, missing.message[:8]) == ("person_missing", "2 events")
    assert "99" not in missing.key.replace(hashed("subject", "demo", "99"), "")


def test_repeated_columns_twice_given_tables_and_unknown_ones_are_named(folder: Path) -> None:
    write(folder / "labevents.csv", LABS + ",itemid", "1,50912,2150-03-15 10:00:00,,1.5,mg/dL,666")
    (folder / "labevents.csv.gz").write_bytes(gzip.compress(b"subject_id\n1\n"))
    write(folder / "mystery.csv", "subject_id,x", "1,2")
    write(folder / "services.csv", "subject_id,ward", "1,2")
    (a, _), lost = all_of(folder / "patients.csv")
    assert (2.0, "LAB//50912//mg/dL", 1.5) in said(a), "the first of two columns of one name"
    assert {k: q.code for k, q in lost.items()} == {
        "labevents.csv.gz": "table_twice", "mystery": "table_not_mapped", "services": "table_columns"}  # fmt: skip
    assert "curr_service" in lost["services"].message


def test_tables_that_fit_no_map_are_tables(tmp_path: Path) -> None:
    write(tmp_path / "patient.csv", "id,age", "1,60")
    assert sniff(tmp_path / "patient.csv") == "table"
    write(tmp_path / "person.csv", "person_id,gender_concept_id,year_of_birth", "1,1,1950")
    assert sniff(tmp_path / "person.csv") == "table", "nothing stands beside it"
    with pytest.raises(Refused, match="ehr_unknown"):
        list(omop.read(Ref(tmp_path / "person.csv", "person.csv", "demo")))
    with pytest.raises(Refused, match="ehr_unknown"):
        list(mimic.read(Ref(tmp_path / "patient.csv", "patient.csv", "demo")))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
            min_size=6,
            max_size=6,
        ),
        max_size=8,
    )
)
def test_any_cells_give_records_or_names(tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]]) -> None:
    root = tmp_path_factory.mktemp("any")
    write(root / "patients.csv", PATIENTS, "1,F,60,2150,")
    with (root / "labevents.csv").open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([LABS.split(","), *cells])
    records, lost = all_of(root / "patients.csv")
    assert not {q.code for q in lost.values()} & {"undecodable", "file"}, lost
    assert len(records) == 1 or lost
