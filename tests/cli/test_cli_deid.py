"""`fabrica deid`: files in, files out, the audit's table, and wrong use said in one line."""

from pathlib import Path

import numpy as np

from command_line import inside
from made_files import write_dicom


def source(tmp_path: Path) -> Path:
    root = tmp_path / "scans"
    root.mkdir()
    write_dicom(root / "Doe_Jane.dcm", np.zeros((4, 4), np.int16))
    (root / "Doe_Jane.txt").write_text("Jane Doe, MRN-4711, is well.")
    (root / "odd.xyz").write_bytes(b"Doe")
    return root


def test_files_are_rewritten_under_a_new_key(tmp_path: Path) -> None:
    source(tmp_path)
    ran = inside("deid", "scans", "--into", "clean", "--key", "k", "--new-key", "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert ran.data["written"] == {"dicom": 1, "text": 1}
    assert ran.data["quarantined"] == {"no_rule": 1}
    assert "Doe" not in ran.out + ran.err
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    again = inside("deid", "scans", "--into", "clean2", "--key", "k", cwd=tmp_path)
    assert "2 of 3 files of 1 subjects" in again.out
    names = [sorted(p.name for p in (tmp_path / d).rglob("*") if p.is_file()) for d in ("clean", "clean2")]
    assert names[0] == names[1]


def test_the_audit_prints_every_channel_with_its_interval(tmp_path: Path) -> None:
    ran = inside("deid", "--audit", "--seeds", "1", "--patients", "3", cwd=tmp_path)
    assert ran.code == 0, ran.err
    for word in (
        "dicom_private",
        "burned_in",
        "95 % interval",
        "clinical terms changed",
        "every bar is met (other_words apart)",
        "family name alone",
        "synthetic",
    ):
        assert word in ran.out, ran.out


def test_wrong_use(tmp_path: Path) -> None:
    source(tmp_path)
    inside("deid", "scans", cwd=tmp_path).refused(2, "--into", "--key", "--audit")
    inside("deid", "scans", "--into", "c", "--key", "none", cwd=tmp_path).refused(2, "key file", "--new-key")
    inside("deid", "scans", "--into", "c", "--key", "k", "--retain", "uid", cwd=tmp_path).refused(2, "uids")
    inside("deid", "scans", "--into", "c", "--key", "k", "--burned-in", "keep", cwd=tmp_path).refused(2, "mask")
    (tmp_path / "open").write_text("00" * 32)
    (tmp_path / "open").chmod(0o644)
    inside("deid", "scans", "--into", "c", "--key", "open", cwd=tmp_path).refused(3, "chmod 600")
    assert not (tmp_path / "c").exists()
    assert inside("deid", "scans", "--into", "c", "--key", "k", "--dry-run", cwd=tmp_path).code == 0
    assert not (tmp_path / "c").exists()
