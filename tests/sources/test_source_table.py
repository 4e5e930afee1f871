"""Tables through a column map: CSV, TSV, JSON lines, Parquet; images by path; bad rows; hostile paths."""

import csv
import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fabrica.errors import UsageError
from fabrica.sources import Quarantined, Ref, read, walk
from fabrica.types import Absent, Record

MAP = {
    "image": "file", "image_dir": "images", "subject": "who", "report": "notes", "label:covid": "finding == COVID-19",
    "group:modality": "kind", "split": "part", "value:age": "age",
}  # fmt: skip


def rows(path: Path, columns: dict[str, str] | None = None, source: str = "demo") -> list[Record | Quarantined]:
    return list(read(Ref(path, path.name, source, "CC0-1.0", columns or {})))


def good(path: Path, columns: dict[str, str] | None = None, source: str = "demo") -> list[Record]:
    found = rows(path, columns, source)
    assert all(isinstance(r, Record) for r in found), found
    return [r for r in found if isinstance(r, Record)]


def write_csv(path: Path, lines: list[list[object]], **how: str) -> Path:
    with path.open("w", newline="", encoding=how.pop("encoding", "utf-8")) as out:
        csv.writer(out, **how).writerows(lines)  # type: ignore[arg-type]
    return path


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for n in range(3):
        Image.fromarray(np.full((8, 9), 40 * n, np.uint8)).save(tmp_path / "images" / f"{n}.png")
    return write_csv(
        tmp_path / "metadata.csv",
        [
            ["file", "who", "notes", "finding", "kind", "part", "age"],
            ["0.png", "MRN-1", "No effusion.", "COVID-19", "X-ray", "train", "61"],
            ["1.png", "MRN-1", "", "SARS", "CT", "Validation", ""],
            ["2.png", "MRN-2", "Jönköping, shadow", "", "X-ray", "", "44.5"],
        ],
    )


def test_a_row_becomes_a_record(cases: Path) -> None:
    a, b, c = good(cases, MAP)
    assert a.first("image").array().shape == (8, 9)
    assert (a.first("report").text(), a.labels, a.split) == ("No effusion.", {"covid": 1.0}, "train")
    assert (a.groups["modality"], b.groups["modality"], b.split, c.split) == ("xray", "ct", "val", None)
    assert a.first("table").array().tolist() == [61.0]
    assert a.first("table").names == ("age",)
    assert (b.labels, c.labels) == ({"covid": 0.0}, {"covid": Absent.NOT_DONE})
    assert b.items["report"][0].value is Absent.NOT_DONE
    assert a.rights.licence == "CC0-1.0"


def test_subjects_are_hashed_and_shared_by_their_rows(cases: Path) -> None:
    a, b, c = good(cases, MAP)
    assert a.subject == b.subject != c.subject
    assert "MRN" not in repr((a, b, c))


def test_two_tables_with_other_columns_are_two_sources(cases: Path) -> None:
    controls = write_csv(cases.parent / "controls.csv", [["path"], ["images/2.png"]])
    (record,) = good(controls, {"image": "path", "group:modality": "'xray'", "label:covid": "path == x"})
    assert record.labels == {"covid": 0.0}
    assert record.first("image").array().max() == 80


def test_an_unknown_column_is_a_usage_error_with_the_near_name(cases: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'finding'"):
        rows(cases, {"label:x": "findings == y"})


def test_a_label_column_of_words_is_a_usage_error_with_the_cure(cases: Path) -> None:
    with pytest.raises(UsageError, match="finding == COVID-19"):
        rows(cases, {"label:x": "finding"})


def test_ids_stay_when_rows_are_added_or_moved(cases: Path) -> None:
    before = {r.id for r in good(cases, MAP)}
    head, *lines = list(csv.reader(cases.open(encoding="utf-8")))
    new = ["2.png", "MRN-9", "New.", "SARS", "CT", "test", "1"]
    write_csv(cases, [head, new, *reversed(lines), lines[0]])
    after = [r.id for r in good(cases, MAP)]
    assert before < set(after)
    assert len(set(after)) == 5, "an exact copy of a row has an id of its own"


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("../secret.png", "path_outside"), ("/etc/passwd", "path_outside"), ("gone.png", "missing_file"),
        ("link.png", "path_outside"), ("a\x01.png", "missing_file"), ("broken.png", None),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read_keep_the_row_and_say_why(cases: Path, cell: str, code: str | None) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(cases.parent / "secret.png")
    (cases.parent / "images" / "link.png").symlink_to(cases.parent / "secret.png")
    (cases.parent / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    table = write_csv(cases.parent / "t.csv", [["file", "notes"], [cell, "Clear."]])
    found = rows(table, {"image": "file", "image_dir": "images", "report": "notes"})
    lost = [q for q in found if isinstance(q, Quarantined)]
    (record,) = (r for r in found if isinstance(r, Record))
    assert len(lost) == 1
    assert code in (None, lost[0].code)
    assert record.first("image") is None
    assert record.first("report").text() == "Clear."
    assert "secret" not in lost[0].message


def test_a_row_with_nothing_but_a_lost_image_is_quarantined(cases: Path) -> None:
    found = rows(write_csv(cases.parent / "t.csv", [["file"], ["gone.png"]]), {"image": "file"})
    assert [q.code for q in found] == ["missing_file", "row_empty"]  # type: ignore[union-attr]


def test_masks_are_regions_of_their_image(cases: Path) -> None:
    mask = np.zeros((8, 9), np.uint8)
    mask[2:4, 3:6] = 255
    Image.fromarray(mask).save(cases.parent / "images" / "m.png")
    Image.fromarray(mask[:4]).save(cases.parent / "images" / "small.png")
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(cases.parent / "images" / "rgb.png")
    table = write_csv(
        cases.parent / "t.csv", [["file", "mask"], ["0.png", "m.png"], ["rgb.png", "m.png"], ["0.png", "small.png"]]
    )
    a, b, lost, c = rows(table, {"image": "file", "image_dir": "images", "mask:lung": "mask"})
    for record in (a, b):
        (region,) = record.regions  # type: ignore[union-attr]
        assert (region.label, region.data.sum(), region.role) == ("lung", 6, "image")
    assert lost.code == "mask_shape"  # type: ignore[union-attr]
    assert c.regions == ()  # type: ignore[union-attr]


def test_reports_may_be_files(cases: Path) -> None:
    (cases.parent / "r.txt").write_text("Heart enlarged.\n")
    table = write_csv(cases.parent / "t.csv", [["file", "r"], ["images/0.png", "r.txt"]])
    (record,) = good(table, {"image": "file", "report_file": "r"})
    assert record.first("report").text() == "Heart enlarged."


def test_without_a_map_own_headers_and_numbers_are_taken(tmp_path: Path) -> None:
    table = write_csv(
        tmp_path / "t.csv", [["report", "PatientID", "label:x", "sodium", "note"], ["a", "7", "1", "140", "b"]]
    )
    (record,) = good(table)
    assert record.first("report").text() == "a"
    assert record.labels == {"x": 1.0}
    assert record.first("table").names == ("sodium",), "an identifier is no number, a note is none either"


@pytest.mark.parametrize("kind", ["csv", "semicolon", "tsv", "csv.gz", "jsonl", "parquet", "cp1252"])
def test_every_kind_of_table_reads_the_same(tmp_path: Path, kind: str) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = [["n", "words", "y"], [1, 'Jönköping; "a", b', 0], [2, "line\none", 1]]
    dicts = [dict(zip(table[0], row, strict=True)) for row in table[1:]]
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(dicts), path)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(d) for d in dicts))
    elif kind == "tsv":
        write_csv(path, table, delimiter="\t")
    elif kind == "csv.gz":
        path.write_bytes(gzip.compress(write_csv(tmp_path / "plain.csv", table).read_bytes()))
    else:
        path = tmp_path / "t.csv"
        write_csv(path, table, **{"semicolon": {"delimiter": ";"}, "cp1252": {"encoding": "cp1252"}}.get(kind, {}))
    from fabrica.safe import LIMITS
    from fabrica.sources.table import read as read_table

    ref = Ref(path, path.name, "demo", "", {"report": "words", "label:y": "y", "value:n": "n"})
    a, b = read_table(ref, LIMITS)
    assert [r.first("report").text() for r in (a, b)] == ['Jönköping; "a", b', "line\none"]
    assert [r.labels["y"] for r in (a, b)] == [0.0, 1.0]
    assert [float(r.first("table").array()[0]) for r in (a, b)] == [1.0, 2.0]


def test_rows_that_do_not_fit_go_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("report,y\na,1\nb,2,3\nc\n")
    codes = [
        r.code if isinstance(r, Quarantined) else r.first("report").text() for r in rows(path, {"report": "report"})
    ]
    assert codes == ["a", "row_shape", "c"]


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "table_empty"), (b"a,b\0c\n1,2\n", "not_text"), (b"a\n" + b'"' + b"x" * 200_000 + b'"\n', "csv_bad")],
)
def test_what_is_no_table_is_quarantined(tmp_path: Path, data: bytes, code: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    (found,) = rows(path, {"report": "a"} if data else {})
    assert isinstance(found, Quarantined)
    assert found.code == code


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_no_bytes_stop_the_reader(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes(b"report,image\n" + data)
    for found in rows(path, {"report": "report"}):
        assert isinstance(found, Record | Quarantined)


@pytest.mark.real_data
def test_covid_cxr_notes_by_config_alone(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("covid_cxr_notes")
    cases = rows(
        folder / "metadata.csv",
        {
            "image": "file", "image_dir": "images", "report": "clinical notes", "subject": "Patientid",
            "label:covid": "finding == COVID-19", "group:modality": "modality", "group:view": "view",
            "licence": "license", "value:age": "age",
        },
        "covid",
    )  # fmt: skip
    records = [r for r in cases if isinstance(r, Record)]
    lost = Counter(q.code for q in cases if isinstance(q, Quarantined))
    with_image = [r for r in records if r.first("image") is not None]
    assert not lost
    assert len(with_image) == 62
    assert len({r.subject for r in with_image}) == 39
    assert {r.groups["modality"] for r in records} <= {"xray", "ct"}
    assert {r.labels["covid"] for r in records} == {0.0, 1.0}
    controls = good(
        folder / "controls.csv", {"image": "file", "image_dir": "images", "label:covid": "finding == COVID-19"}, "covid"
    )
    assert len(controls) == 77
    assert all(r.first("image") is not None and r.labels["covid"] == 0.0 for r in controls)


def test_tables_beside_a_table_join_by_a_key(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text('F1\t A film, of "a" chest.\nF2\t An ECG.\nF3\t Alone.\n')
    (tmp_path / "codes.txt").write_text("F1\t\tC01\tC02\nF2\t\tC03\nF2\t\tC04\n")
    write_csv(
        tmp_path / "licences.txt",
        [["ROCO_ID", "PMC_ID", "CC"], ["F1", "PMC9_a.jpg", "CC BY"], ["F2", "PMC9_b.jpg", ""]],
    )
    columns = {
        "header": "id\tcaption", "caption": "caption", "id": "id", "join:cui": "codes.txt on id",
        "header:cui": "id\tcodes*", "codes": "cui.codes", "join:by": "licences.txt on ROCO_ID == id",
        "licence": "by.CC", "subject": "by.PMC_ID ~ (PMC[0-9]+)",
    }  # fmt: skip
    a, b, c = good(tmp_path / "captions.txt", columns)
    assert (a.first("caption").text(), a.first("codes").text()) == ('A film, of "a" chest.', "C01\nC02")
    assert (a.rights.licence, b.rights.licence) == ("CC BY", "CC0-1.0")
    assert a.subject == b.subject != c.subject
    assert b.first("codes").text() == "C03", "a key that comes twice gives its first row"
    assert c.first("codes") is None
    refs = list(walk(tmp_path, source="demo", columns=columns))
    assert [r.key for r in refs] == ["captions.txt"], "the tables that are joined are no sources of their own"


@pytest.mark.parametrize(
    ("join", "error"),
    [("codes.txt", "wanted FILE on"), ("codes.txt on nope", "did you mean|no column"), ("../x on id", "path_outside"),
     ("gone.txt on id", "missing_file")],
)  # fmt: skip
def test_a_join_that_cannot_be(tmp_path: Path, join: str, error: str) -> None:
    (tmp_path / "captions.txt").write_text("F1\ta\n")
    (tmp_path / "codes.txt").write_text("F1\tC1\n")
    columns = {"header": "id\tcaption", "caption": "caption", "join:cui": join, "header:cui": "id\tcodes*"}
    if "_" in error:
        (lost,) = rows(tmp_path / "captions.txt", columns)
        assert isinstance(lost, Quarantined)
        assert lost.code == error
    else:
        with pytest.raises(UsageError, match=error):
            rows(tmp_path / "captions.txt", columns)


@pytest.mark.real_data
def test_roco_captions_through_a_column_map_alone(shared_data: Callable[[str], Path]) -> None:
    root = shared_data("roco_captions") / "data" / "validation"
    columns = {
        "header": "id\tcaption", "id": "id", "caption": "caption", "join:cui": "cuis.txt on id",
        "header:cui": "id\tcodes*", "codes": "cui.codes", "join:by": "licences.txt on ROCO_ID == id",
        "licence": "by.CC", "subject": "by.PMC_ID ~ (PMC[0-9]+)", "group:article": "by.PMC_ID ~ (PMC[0-9]+)",
    }  # fmt: skip
    for part, count in (("radiology", 8180), ("non-radiology", 611)):
        records = good(root / part / "captions.txt", columns, source="roco")
        assert len(records) == count
        lines = [line.split(",") for line in (root / part / "licences.txt").read_text("utf-8").splitlines()[1:]]
        assert Counter(r.rights.licence for r in records) == Counter(line[-1].strip() for line in lines)
        assert len({r.subject for r in records}) == len({line[1].partition("_")[0] for line in lines})
        cuis = [line.split("\t")[1:] for line in (root / part / "cuis.txt").read_text("utf-8").splitlines()]
        want = Counter(c.strip() for line in cuis for c in line if c.strip())
        assert Counter(c for r in records if (i := r.first("codes")) for c in i.text().split("\n")) == want
        texts = [
            line.partition("\t")[2].strip() for line in (root / part / "captions.txt").read_text("utf-8").splitlines()
        ]
        assert [r.first("caption").text() for r in records] == texts


def test_nested_columns_of_json_lines_and_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = [
        {"note": "a", "who": {"id": 7, "age": 61.0}, "found": ["C1", "C2"]},
        {"note": "b", "who": {"id": 8, "age": None}, "found": []},
    ]
    parquet.write_table(pa.Table.from_pylist(table), tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text(
        "\n".join(map(json.dumps, table)) + "\n[1]\n{\n" + '{"note": ' + "[" * 5000 + "\n"
    )
    columns = {"report": "note", "subject": "who.id", "value:age": "who.age", "codes": "found"}
    for name in ("t.parquet", "t.jsonl"):
        found = rows(tmp_path / name, columns)
        a, b = (r for r in found if isinstance(r, Record))
        assert (a.first("table").array().tolist(), a.first("codes").text()) == ([61.0], "C1\nC2")
        assert (b.first("table"), b.first("codes"), b.first("report").text()) == (None, None, "b")
        assert [q.code for q in found if isinstance(q, Quarantined)] == (["row_shape"] * 3 if name == "t.jsonl" else [])


def test_giant_numbers_are_no_numbers(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        json.dumps({"note": "a", "age": 10**400}) + "\n" + json.dumps({"note": "b", "age": 3})
    )
    a, b = good(tmp_path / "t.jsonl", {"report": "note", "value:age": "age"})
    assert (a.first("table"), b.first("table").array().tolist()) == (None, [3.0])
