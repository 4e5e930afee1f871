"""Text files and Open-i report XML, alone and in archives."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fabrica.safe import LIMITS
from fabrica.sources import Quarantined, Ref, read
from fabrica.sources.xml_report import read as read_reports
from fabrica.types import Record

XML = """<?xml version="1.0"?><eCitation><uId id="CXR{n}"/>
<licenseURL>http://creativecommons.org/licenses/by-nc-nd/4.0/</licenseURL>
<MedlineCitation><Article><Abstract>
<AbstractText Label="INDICATION">Cough</AbstractText>
<AbstractText Label="FINDINGS">Heart  is
 large.</AbstractText>
<AbstractText Label="IMPRESSION">{impression}</AbstractText>
</Abstract></Article></MedlineCitation><MeSH><major>Cardiomegaly/mild</major></MeSH></eCitation>"""


def one(path: Path, **columns: str) -> Record | Quarantined:
    (found,) = read(Ref(path, path.name, "demo", "CC0-1.0", columns))
    return found


def test_a_text_file_is_a_report(tmp_path: Path) -> None:
    path = tmp_path / "12_note.txt"
    path.write_bytes("Jönköping.\r\nClear.".encode("cp1252"))
    record = one(path, subject="re:^([0-9]+)_", modality="CR", split="test")
    assert isinstance(record, Record)
    assert record.first("report").text() == "Jönköping.\nClear."
    assert (record.groups, record.split, record.rights.licence) == ({"modality": "xray"}, "test", "CC0-1.0")
    assert record.subject == one(path, subject="12").subject  # type: ignore[union-attr]
    caption = one(path, role="caption")
    assert caption.first("caption") is not None  # type: ignore[union-attr]


@pytest.mark.parametrize(("data", "code"), [(b"", "text_empty"), (b" \n", "text_empty"), (b"a\0b", "not_text")])
def test_what_is_no_text_is_quarantined(tmp_path: Path, data: bytes, code: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    found = one(path)
    assert isinstance(found, Quarantined)
    assert found.code == code


def test_a_report_has_sections_labels_and_its_own_licence(tmp_path: Path) -> None:
    path = tmp_path / "1.xml"
    path.write_text(XML.format(n=1, impression="Cardiomegaly."))
    record = one(path)
    assert isinstance(record, Record)
    text = record.first("report").text()
    assert text == "Heart is large.\nCardiomegaly."
    assert record.first("indication").text() == "Cough"
    spans = {r.label: text[slice(*r.data)] for r in record.regions}
    assert spans == {"section:findings": "Heart is large.", "section:impression": "Cardiomegaly."}
    assert record.labels == {"cardiomegaly": 1.0, "normal": 0.0}
    assert record.rights.licence == record.first("report").origin.licence == "CC-BY-NC-ND-4.0"
    assert "CXR1" not in repr(record.subject)


def test_an_archive_gives_each_report_and_quarantines_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "reports.tgz"
    members = {
        "1.xml": XML.format(n=1, impression="A."), "2.xml": "<a><b></a>", "3.xml": "<a/>",
        "4.xml": '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "5.xml": XML.format(n=5, impression=""), "x.txt": "no",
    }  # fmt: skip
    with tarfile.open(path, "w:gz") as out:
        for name, text in members.items():
            info = tarfile.TarInfo(f"r/{name}")
            info.size = len(text.encode())
            out.addfile(info, io.BytesIO(text.encode()))
    found = list(read_reports(Ref(path, path.name, "demo"), LIMITS))
    assert [r.code if isinstance(r, Quarantined) else "read" for r in found] == [
        "read", "xml_bad", "not_a_report", "xml_entity", "read",
    ]  # fmt: skip
    assert found[1].key == "reports.tgz/r/2.xml"  # type: ignore[union-attr]


@pytest.mark.real_data
def test_openi_reports(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("openi_reports") / "reports.tgz"
    found = list(read_reports(Ref(path, path.name, "openi"), LIMITS))
    records = [r for r in found if isinstance(r, Record)]
    assert len(found) == 2707
    assert {q.code for q in found if isinstance(q, Quarantined)} <= {"report_empty"}
    assert len(records) > 2600
    assert len({r.subject for r in records}) == len(records)
    assert {r.rights.licence for r in records} == {"CC-BY-NC-ND-4.0"}
    spans = sum(len(r.regions) for r in records)
    for record in records:
        text = record.first("report").text() if record.first("report") else ""
        assert all(text[slice(*s.data)].strip() == text[slice(*s.data)] != "" for s in record.regions)
    assert spans > 4000
