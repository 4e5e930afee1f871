"""One member of a zip by its exact name, in memory: also one whose name leads out; nothing is ever written."""

import os
import stat
import zipfile
from dataclasses import replace

import pytest

from fabrica import safe
from fabrica.errors import Refused
from fabrica.sources import Ref
from fabrica.sources.survival_table import read
from fabrica.types import Record

OUT = "../up/a.csv"
TABLE = b"case_id,survival_months,censorship,TP53_cnv\nA,10,1,-1\nB,4.5,0,2\nB,4.5,0,2\n"


def make(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def code_of(*args):
    with pytest.raises(Refused) as refused:
        safe.read_member(*args)
    return refused.value.code


def test_a_name_that_leads_out_is_read_in_memory_by_who_asks_for_it(tmp_path):
    (tmp_path / "in").mkdir()
    path = make(tmp_path / "in" / "z.csv.zip", (OUT, TABLE), ("b", b"2"))
    assert safe.read_member(path, OUT) == TABLE
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["in", "z.csv.zip"]
    with pytest.raises(Refused) as refused:
        list(safe.members(path))
    assert refused.value.code == "archive_path"


def test_only_the_exact_name_is_found(tmp_path):
    path = make(tmp_path / "z.csv.zip", (OUT, TABLE))
    for other in ("a.csv", "up/a.csv", "../up/A.csv", "/etc/passwd", ""):
        assert code_of(path, other) == "archive_no_member"
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = make(tmp_path / "t.zip", ("a", b"1"), ("a", b"2"))
    assert code_of(twice, "a") == "archive_twice"


def test_links_folders_bombs_and_broken_archives_are_refused(tmp_path):
    link = zipfile.ZipInfo("l")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    folder = zipfile.ZipInfo("d/")
    path = make(
        tmp_path / "z.zip", (link, b"/etc/passwd"), (folder, b""), ("bomb", bytes(200 << 20)), ("big", os.urandom(4000))
    )
    assert code_of(path, "l") == "archive_link"
    assert code_of(path, "d/") == "archive_link"
    assert code_of(path, "bomb") == "ratio"
    assert code_of(path, "big", replace(safe.LIMITS, array_bytes=1000)) == "file_too_large"
    assert code_of(path, "big", replace(safe.LIMITS, members=2)) == "archive_members"
    data = bytearray(path.read_bytes())
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    assert code_of(tmp_path / "cut.zip", "big") == "archive_bad"


def test_a_survival_table_is_read_from_a_named_member(tmp_path):
    path = make(tmp_path / "z.csv.zip", (OUT, TABLE))
    found = list(read(Ref(path, "z.zip", "test", columns={"member": OUT})))
    assert all(isinstance(r, Record) for r in found)
    assert [r.labels["survival"] for r in found] == [-10.0, 4.5]  # censorship 1 = censored; one record a patient
    assert [r.first("omics").names for r in found] == [("TP53_cnv",)] * 2
    with pytest.raises(Refused, match="archive_path"):
        list(read(Ref(path, "z.csv.zip", "test")))
