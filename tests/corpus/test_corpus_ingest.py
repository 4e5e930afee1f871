"""Ingest: what is in is skipped, what is bad is quarantined, killed anywhere it goes on, bad paths are one line."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ingest_cases import contents, folder

import fabrica.corpus.ingest as module
from fabrica.corpus import Corpus
from fabrica.corpus.ingest import ingest
from fabrica.errors import UsageError

HERE = Path(__file__).parent


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return folder(tmp_path / "files")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus.at(tmp_path / "c")


def test_every_file_is_a_record_or_quarantined(files: Path, corpus: Corpus) -> None:
    report = ingest(files, corpus, source="made", licence="CC0-1.0")
    assert (report.records, report.skipped, report.files) == (12 + 12 + 7, 0, 12 + 12 + 1 + 3)
    assert sum(report.quarantined.values()) == 3
    assert report.bytes == sum(p.stat().st_size for p in files.rglob("*") if p.is_file())
    assert len(corpus) == 31
    assert corpus.stats().source == {"made": 31}
    assert corpus.stats().licence == {"CC0-1.0": 31}
    bad = corpus.quarantined().to_pylist()
    assert [b["key"] for b in bad] == ["png/bad0.png", "png/bad1.png", "png/bad2.png"]
    assert all(b["code"] and b["message"] and len(b["sha256"]) == 64 and b["source"] == "made" for b in bad)


def test_a_second_run_reads_nothing_again(files: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ingest(files, corpus)
    before = corpus.version
    seen: list[str] = []
    real = module.read
    monkeypatch.setattr(module, "read", lambda ref, limits: (seen.append(ref.key), real(ref, limits))[1])
    again = ingest(files, Corpus.open(corpus.path))
    assert (again.records, again.skipped, again.quarantined) == (0, first.records, first.quarantined)
    assert sorted(seen) == ["png/bad0.png", "png/bad1.png", "png/bad2.png"], "only what was bad is tried again"
    assert Corpus.open(corpus.path).version == before


def test_new_changed_and_mended_files(files: Path, corpus: Corpus) -> None:
    ingest(files, corpus, source="made")
    (files / "new.txt").write_text("New report.")
    (files / "000.txt").write_text("Report 0, corrected.")
    shutil.copy(files / "png" / "001.png", files / "png" / "bad1.png")
    report = ingest(files, corpus, source="made")
    assert report.records == 3
    assert report.skipped == 12 + 11 + 7
    assert [b["key"] for b in corpus.quarantined().to_pylist()] == ["png/bad0.png", "png/bad2.png"]


def test_a_table_that_grew_adds_its_new_rows(files: Path, corpus: Corpus) -> None:
    ingest(files / "table.csv", corpus, source="made")
    (files / "table.csv").open("a").write("q99,1.0,new finding\n")
    report = ingest(files / "table.csv", corpus, source="made")
    assert report.records + report.skipped == 8
    assert "new finding" in {r.first("report").text() for r in corpus.scan()}


def test_several_paths_and_limit(files: Path, corpus: Corpus) -> None:
    two = [files / "000.txt", files / "png"]
    assert ingest(two, corpus, source="made", limit=5).records == 5
    again = ingest(two, corpus, source="made", limit=5)
    assert (again.records, again.skipped) == (0, 5)
    assert ingest(two, corpus, source="made", limit=9).records == 4
    part = ingest(files / "table.csv", corpus, source="made", limit=3)
    assert part.records == 3
    assert ingest(files / "table.csv", corpus, source="made").records == 4, "a file that was cut by the limit goes on"


def test_progress_counts_files(files: Path, corpus: Corpus) -> None:
    calls: list[tuple[int, int | None, str]] = []
    ingest(files, corpus, progress=lambda done, total, what: calls.append((done, total, what)))
    assert calls[0][0] == 0
    assert calls[-1] == (28, 28, calls[0][2])
    assert [c[0] for c in calls] == sorted(c[0] for c in calls)


def test_memory_bounds_what_is_held(files: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    real = Corpus.append

    def append(self: Corpus, records: list[object], **more: object) -> int:
        held.append(len(records))
        return real(self, records, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Corpus, "append", append)
    monkeypatch.setattr(module, "MIB", 1 << 13)
    ingest(files, corpus, max_memory=1 << 13)
    assert max(held) <= 8, "at most 8 KiB of records at a time, each counted as over 1 KiB"
    assert sum(held) == 31


def test_an_array_over_the_bound_is_quarantined(tmp_path: Path, corpus: Corpus) -> None:
    from PIL import Image

    (tmp_path / "x").mkdir()
    Image.new("L", (3000, 2000)).save(tmp_path / "x" / "large.png")
    Image.new("L", (30, 20)).save(tmp_path / "x" / "small.png")
    report = ingest(tmp_path / "x", corpus, max_memory=4 << 20)
    assert (report.records, dict(report.quarantined)) == (1, {"array_too_large": 1})
    assert ingest(tmp_path / "x", corpus).records == 1, "with more memory it goes in"
    assert corpus.quarantined().num_rows == 0


def test_the_erased_stay_out(files: Path, corpus: Corpus) -> None:
    ingest(files, corpus, source="made")
    (gone,) = (r.subject for r in corpus.scan() if r.first("report") and "Report 3:" in r.first("report").text())
    assert corpus.erase(gone) == 1
    report = ingest(files, corpus, source="made")
    assert (report.records, len(corpus)) == (0, 30)
    assert not any(b"Report 3:" in p.read_bytes() for p in corpus.path.rglob("*") if p.is_file())
    assert not any(b"003.txt" in p.read_bytes() for p in corpus.path.rglob("*") if p.is_file())


def test_file_names_that_are_not_utf8(tmp_path: Path, corpus: Corpus) -> None:
    odd = tmp_path / "x" / os.fsdecode(b"caf\xe9.txt")
    odd.parent.mkdir()
    odd.write_text("A report.")
    assert ingest(odd.parent, corpus).records == 1
    assert ingest(odd.parent, corpus).skipped == 1
    assert next(corpus.scan()).items["report"][0].origin.key == r"caf\xe9.txt"


# ---------------------------------------------------------------- bad use


def test_bad_paths_are_one_clear_line(tmp_path: Path, corpus: Corpus) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match=r"no file or folder .*nope"):
        ingest(tmp_path / "nope", corpus)
    with pytest.raises(UsageError, match="no files in"):
        ingest(empty, corpus)
    with pytest.raises(UsageError, match="no path was given"):
        ingest([], corpus)
    with pytest.raises(UsageError, match="limit = 0"):
        ingest(empty, corpus, limit=0)
    (empty / "x.weird").write_bytes(b"?")
    with pytest.raises(UsageError, match=r"gave no record .1 unknown_format.*quarantine"):
        ingest(empty, corpus)
    assert len(corpus) == 0


def test_a_good_path_beside_a_bad_one_reads_neither(files: Path, corpus: Corpus) -> None:
    with pytest.raises(UsageError):
        ingest([files, files / "nope"], corpus)
    assert len(corpus) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_says_so(files: Path, corpus: Corpus) -> None:
    (files / "png").chmod(0)
    with pytest.raises(UsageError, match="cannot be read"):
        ingest(files, corpus)


def test_a_folder_that_the_system_refuses_says_so(files: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("png"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)  # type: ignore[return-value]

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UsageError, match="cannot be read"):
        ingest(files, corpus)


def test_an_old_version_cannot_be_written(files: Path, corpus: Corpus) -> None:
    ingest(files, corpus)
    with pytest.raises(UsageError, match="without one to write"):
        ingest(files, Corpus.open(corpus.path, version=1))


# ---------------------------------------------------------------- killed


@pytest.fixture
def run() -> Iterator[Callable[[Path, Path, float], int]]:
    """`run(files, corpus, delay)`: an ingest in a process of its own, killed after `delay` seconds; its exit status."""
    command = [sys.executable, "-W", "ignore", str(HERE / "kill_worker.py")]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(files: Path, corpus: Path, delay: float) -> int:
        assert worker.stdin
        assert worker.stdout
        worker.stdin.write(f"{files} {corpus} {delay:.6f}\n")
        worker.stdin.flush()
        return int(worker.stdout.readline())

    yield ask
    assert worker.stdin
    worker.stdin.close()
    assert worker.wait(20) == 0


def test_killed_at_fifty_points_nothing_is_lost_or_doubled(
    files: Path, tmp_path: Path, run: Callable[[Path, Path, float], int]
) -> None:
    assert run(files, tmp_path / "warm", 60) == 0
    began = time.monotonic()
    assert run(files, tmp_path / "clean", 60) == 0
    whole = time.monotonic() - began
    records, quarantine, done = contents(tmp_path / "clean")
    assert (len(records), len(quarantine), len(done)) == (31, 3, 25)
    known = {str(r) for r in records}
    rng = random.Random(0)
    kills, partial, turn = 0, set[int](), 0
    while kills < 50:
        turn += 1
        assert turn < 60, f"only {kills} kills hit a running ingest"
        path = tmp_path / f"c{turn}"
        for _ in range(5):
            if run(files, path, rng.uniform(0, whole)) == 0:
                break
            kills += 1
            if (path / "corpus.json").exists():
                now = contents(path)[0]
                assert len({str(r) for r in now}) == len(now), "nothing doubled"
                assert {str(r) for r in now} <= known, "nothing half"
                partial.add(len(now))
        assert run(files, path, 60) == 0
        assert contents(path) == (records, quarantine, done)
        shutil.rmtree(path)
    assert len(partial - {0, 31}) >= 5, f"the kills fell at few different points: {sorted(partial)}"


def test_a_folder_of_articles_gives_each_picture_once(tmp_path: Path, corpus: Corpus) -> None:
    """Pictures are their figures' alone: no record of their own, no quarantine; a changed one has its article read."""
    from fabrica.phantom.articles import articles, write_folder

    drawn = write_folder(articles(6, 3, malformed=0.0, size=32), tmp_path / "pmc")
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted((tmp_path / "pmc").rglob("*")):
        if path.is_file():
            shutil.copy(path, flat / path.name)
    shutil.copy(next(flat.glob("*.png"), None) or next(flat.glob("*.jp*g")), flat / "nobody-names-me.png")
    figures = sum(len(a.truth) for a in drawn)
    report = ingest(flat, corpus, source="pmc", licence="CC0-1.0")
    assert (report.files, report.quarantined) == (len(drawn) + 1, {})
    made = list(corpus.scan())
    assert len(made) == report.records == len(drawn) + figures + 1
    pictures = [item for r in made for item in r.all("image") if item.present]
    assert len(pictures) >= figures + 1
    assert len({i.origin.key for i in pictures}) == len(pictures)
    again = ingest(flat, corpus, source="pmc", licence="CC0-1.0")
    assert (again.records, again.skipped) == (0, report.records)
    mine = next(i.origin.key for r in made if r.groups.get("modality") == "figure" for i in r.all("image") if i.present)
    of = next(r for r in made if any(i.origin.key == mine for i in r.all("image"))).groups["article"]
    (ref,) = [r for r in module.walk(flat, source="pmc") if r.key == f"{of}.nxml"]
    before = module._mark(ref)
    (flat / mine).write_bytes((flat / mine).read_bytes() + b"\0")
    assert module._mark(ref) != before
