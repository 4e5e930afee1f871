"""Records encoded elsewhere: the same bytes as an append, all or none, nothing twice; bytes before rows on the disk."""

import os
from pathlib import Path

import pyarrow as pa
import pytest
from corpus_cases import full, note, plain
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.corpus import Corpus, codec, payload, table
from fabrica.types import Record


def files(path: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((path / "payload").glob("*.bin"))]


def some() -> list[Record]:
    return [full(f"r{i}", f"p{i // 2}", seed=i) for i in range(7)] + [note("n", "lone \udc80 surrogate")]


def test_the_same_bytes_and_rows_as_an_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "_FILE", 4096)  # so that several files are begun
    one, two = Corpus.at(tmp_path / "one"), Corpus.at(tmp_path / "two")
    one.append(some()[:3])
    one.append(some()[3:], token="t")
    two.append(some()[:3])
    assert two.adopt([codec.pack(some()[3:5]), codec.pack([]), codec.pack(some()[5:])], token="t") == 5
    assert files(two.path) == files(one.path)
    assert len(files(one.path)) > 1
    columns = [name for name in codec.SQL_COLUMNS if name not in ("id", "bytes")]
    assert two.layout(columns).equals(one.layout(columns))
    assert two.token == one.token == "t"
    assert [plain(r) for r in Corpus.open(two.path).scan()] == [plain(r) for r in some()]


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_ids_that_are_there_are_skipped(tmp_path_factory: pytest.TempPathFactory, numbers: list[int], cut: int) -> None:
    one, two = (Corpus.at(tmp_path_factory.mktemp("c")) for _ in range(2))
    records = [note(f"n{i}", f"text {k}") for k, i in enumerate(numbers)]
    for lo in range(0, len(records), cut):
        assert two.adopt([codec.pack(records[lo : lo + cut])]) == one.append(records[lo : lo + cut])
    assert files(two.path) == files(one.path)
    assert two.ids() == one.ids()


def test_erased_subjects_stay_out(tmp_path: Path) -> None:
    corpus = Corpus.at(tmp_path / "c")
    corpus.append([note("a")])
    corpus.erase("p-a")
    assert corpus.adopt([codec.pack([note("b").updated(subject="p-a"), note("c")])]) == 1
    assert corpus.ids() == ["c"]


def test_a_part_that_fails_leaves_nothing(tmp_path: Path) -> None:
    corpus = Corpus.at(tmp_path / "c")
    corpus.append(some()[:1])
    before = files(corpus.path)

    def parts():
        yield codec.pack(some()[1:])
        raise InterruptedError("no more")

    with pytest.raises(InterruptedError):
        corpus.adopt(parts())
    assert files(corpus.path) == before
    assert corpus.ids() == ["r0"]


def test_reading_by_place_is_reading(tmp_path: Path) -> None:
    corpus = Corpus.at(tmp_path / "c")
    corpus.append(some())
    layout = corpus.layout()
    assert [plain(r) for r in corpus.read_at(layout)] == [plain(r) for r in corpus.scan()]
    assert [r.id for r in corpus.read_at(layout.take(pa.array([3, 0])))] == ["r3", "r0"]


@pytest.mark.parametrize("how", ["append", "adopt"])
def test_bytes_are_on_the_disk_before_rows_point_at_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The payload and its folder are synced after the last write to it and before Lance commits."""
    corpus = Corpus.at(tmp_path / "c")
    seen: list[str] = []
    real_sync, real_write, real_commit = os.fsync, os.writev, table.Table._write
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append(os.readlink(f"/proc/self/fd/{fd}")), real_sync(fd))[1])
    monkeypatch.setattr(os, "writev", lambda fd, data: (seen.append("write"), real_write(fd, data))[1])
    monkeypatch.setattr(table.Table, "_write", lambda self, data: (seen.append("commit"), real_commit(self, data))[1])
    if how == "append":
        corpus.append(some())
    else:
        corpus.adopt([codec.pack(some())])
    steps = [Path(s).name for s in seen[seen.index("write") :]]
    assert steps[:4] == ["write", "000000.bin", "payload", "commit"]
