"""Finding, sniffing and reading files: the table of formats, order, companions, masks, quarantine."""

import importlib
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import made_files as made
from fabrica import sources
from fabrica.errors import UsageError
from fabrica.sources import FORMATS, Quarantined, Ref, read, reader, sniff, walk
from fabrica.types import Record


def test_every_format_of_the_table_imports_and_has_a_reader():
    for name, where in FORMATS.items():
        module, function = where.split(":")
        assert getattr(importlib.import_module(module), function) is reader(name)
    with pytest.raises(UsageError, match="did you mean 'dicom'"):
        reader("dicm")


@pytest.mark.parametrize(
    ("name", "data", "want"),
    [
        ("x", b"\0" * 128 + b"DICM", "dicom"),
        ("x.dcm", b"junk", "dicom"),
        ("IM0001", b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", "dicom"),
        ("a.nii", made.nifti_head((2, 2)), "nifti"),
        ("a.bin", made.gz(made.nifti_head((2, 2))), "nifti"),
        ("a.nii.gz", b"\x1f\x8bjunk", "nifti"),
        ("a.txt", b"no effusion", "text"),
        ("a.jpg", b"\x89PNG\r\n\x1a\n", "image"),
        ("a.csv", b"a,b\n", "table"),
        ("a.csv.gz", made.gz(b"a,b\n1,2\n"), "table"),
        ("a.npz", b"PK\x03\x04", "table"),
        ("a.edf", b"0       ", "edf"),
        ("a.hea", b"100 2 360 650000\n", "wfdb"),
        ("a.svs", b"II*\x00", "slide"),
        ("a.tif", b"II*\x00", "image"),
        ("a.nrrd", b"NRRD0004\n", "nrrd"),
        ("a.xml", b"<a/>", "xml_report"),
        ("README.txt", b"words", None),
        ("LICENSE", b"words", None),
        ("a.exe", b"MZ", None),
    ],
)
def test_sniff_by_content_then_by_suffix(tmp_path, name, data, want):
    (tmp_path / name).write_bytes(data)
    assert sniff(tmp_path / name) == want


def test_walk_is_sorted_and_leaves_out_hidden_files_and_parts_of_others(tmp_path):
    for name in ("b/2.png", "b/10.png", "a.hea", "a.dat", "a.atr", "v.hdr", "v.img", "lone.img", ".hidden/x.png", ".y"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    refs = list(walk(tmp_path, source="s", licence="CC0-1.0", columns={"modality": "mr"}))
    assert [r.key for r in refs] == ["a.hea", "lone.img", "v.hdr", "b/10.png", "b/2.png"]
    assert all(r.source == "s" and r.licence == "CC0-1.0" and r.get("modality") == "mr" for r in refs)
    assert [r.key for r in walk(tmp_path / "a.dat", source="s")] == ["a.dat"]
    with pytest.raises(UsageError, match="no file or folder"):
        list(walk(tmp_path / "nowhere", source="s"))


def test_a_name_that_is_no_utf8_gives_a_key_that_is(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb") as out:
        out.write(b"x")
    (ref,) = walk(tmp_path, source="s")
    assert ref.key == "caf\\xe9.png"
    assert ref.path.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_a_usage_error(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o000)
    with pytest.raises(UsageError, match="cannot be read"):
        list(walk(tmp_path, source="s"))


def test_masks_named_by_columns_are_regions_and_no_records_of_their_own(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    (tmp_path / "images/a.nii").write_bytes(made.nifti_head((2, 3, 4)) + bytes(range(24)))
    (tmp_path / "labels/a.nii").write_bytes(made.nifti_head((2, 3, 4)) + bytes([0, 1, 2, 2] * 6))
    columns = {"mask": "../labels/{name}", "mask_names": "1=anterior,2=posterior", "subject": r"re:/(\w+)\."}
    (ref,) = walk(tmp_path, source="s", columns=columns)
    (record,) = read(ref)
    assert [r.label for r in record.regions] == ["anterior", "posterior"]
    assert [int(r.data.sum()) for r in record.regions] == [6, 12]
    assert all(r.data.shape == (2, 3, 4) and r.role == "volume" for r in record.regions)
    from fabrica.types import record_id

    assert record.subject == record_id("subject", "s", "a")[:16]
    with pytest.raises(UsageError, match="mask_names"):
        list(read(Ref(ref.path, ref.key, "s", "", {**columns, "mask_names": "one"})))


def test_what_cannot_be_read_is_quarantined_with_its_code_and_hash(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"abc")
    (tmp_path / "bad.dcm").write_bytes(b"abc")
    os.mkfifo(tmp_path / "pipe.dcm")
    os.symlink("/nowhere", tmp_path / "dead.png")
    found = {ref.key: list(read(ref)) for ref in walk(tmp_path, source="s")}
    codes = {key: [item.code for item in items] for key, items in found.items()}
    assert codes == {
        "bad.dcm": ["dicom_magic"], "dead.png": ["not_a_file"], "pipe.dcm": ["not_a_file"], "x.bin": ["unknown_format"],
    }  # fmt: skip
    assert found["x.bin"][0].sha256.startswith("ba7816bf")  # sha256 of "abc"
    assert found["dead.png"][0].sha256 == ""


def test_a_decoder_that_stops_is_quarantined_without_quoting_the_data(tmp_path, monkeypatch):
    def stop(ref, limits):
        yield Record("1", "p")
        raise ValueError("Doe^Jane is no number")

    monkeypatch.setattr(sources, "reader", lambda name: stop)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    first, second = read(Ref(tmp_path / "a.png", "a.png", "s"))
    assert isinstance(first, Record)
    assert isinstance(second, Quarantined)
    assert second.code == "undecodable"
    assert "Doe" not in second.message
    assert "ValueError" in second.message


def test_reading_twice_gives_equal_records_and_the_key_is_in_the_id(tmp_path):
    path = made.write_dicom(tmp_path / "a.dcm", np.arange(12, dtype=np.int16).reshape(3, 4), **made.place())
    (one,), (two,) = read(Ref(path, "a.dcm", "s")), read(Ref(path, "a.dcm", "s"))
    assert one == two
    (other,) = read(Ref(path, "b.dcm", "s"))
    assert other.id != one.id
    assert other.subject == one.subject


SUFFIXES = [".dcm", ".nii", ".nii.gz", ".png", ".jpg", ".tif", ".gif", ".hea", ".edf", ".nrrd", ".xml", ".npz",
            ".parquet", ".svs", ""]  # fmt: skip
HEADS = [b"", b"\0" * 128 + b"DICM", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"II*\x00", b"NRRD0004\n",
         b"\x1f\x8b\x08", b"0       ", b"<", b"PK\x03\x04", b"PAR1", made.nifti_head((2, 2, 2))]  # fmt: skip


@given(st.sampled_from(SUFFIXES), st.sampled_from(HEADS), st.binary(max_size=300))
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_raise(tmp_path, suffix, head, tail):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(head + tail)
    for found in read(Ref(path, path.name, "s")):
        assert isinstance(found, (Record, Quarantined))
