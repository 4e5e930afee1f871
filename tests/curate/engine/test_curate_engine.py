"""The engine: counted drops, barriers, resuming after kill -9, nothing done twice, clear errors."""

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fabrica import curate
from fabrica.corpus import Corpus
from fabrica.curate.duplicates.dedup import ImageDuplicates
from fabrica.curate.quality import MinimumSize, MissingText
from fabrica.curate.split import BySubject
from fabrica.errors import StepFailed, UsageError
from fabrica.types import Decision, Drop, Item, Origin, Record, record_id

ORIGIN = Origin("made", "x", "", "CC0-1.0")


def picture(seed: int, side: int = 32) -> Item:
    return Item("image", np.random.default_rng(seed).integers(0, 255, (side, side), np.uint8), ORIGIN)


def records(n: int, *, first: int = 0) -> list[Record]:
    """Every 5th without text, every 7th too small, 11th a copy of the one before."""
    out = []
    for i in range(first, first + n):
        items = {"image": (picture(i - (i % 11 == 10), 8 if i % 7 == 6 else 32),)}
        if i % 5 != 4:
            items["report"] = (Item("text", f"report number {i} of this patient", ORIGIN),)
        out.append(Record(record_id("r", str(i)), f"p{i // 3}", {"modality": "xray"}, items))
    return out


def plan() -> list:
    return [MissingText(), MinimumSize(), ImageDuplicates(), BySubject(salt="s")]


def state(path: Path) -> list[tuple]:
    return sorted((r.id, r.subject, r.split, tuple(r.groups.items())) for r in Corpus.open(path).scan())


@pytest.fixture
def source(tmp_path: Path) -> Corpus:
    corpus = Corpus.at(tmp_path / "source")
    corpus.append(records(300))
    return corpus


def test_every_record_is_kept_or_in_the_ledger_with_a_reason(source: Corpus, tmp_path: Path) -> None:
    report = curate.run(plan(), source, tmp_path / "out")
    ledger = pq.read_table(tmp_path / "out" / "ledger.parquet").to_pylist()
    out = Corpus.open(tmp_path / "out")
    assert report.read == 300
    assert report.kept == len(out)
    assert len(ledger) == sum(n for reasons in report.dropped.values() for n in reasons.values()) == 300 - report.kept
    assert {row["id"] for row in ledger} | set(out.ids()) == set(source.ids())
    assert report.dropped["missing_text"] == {"no_text": 60}
    small = sum(1 for i in range(300) if i % 7 == 6 and i % 5 != 4)
    assert report.dropped["minimum_size"] == {"too_small": small}
    kept = {i for i in range(300) if i % 7 != 6 and i % 5 != 4}
    copies = sum(1 for i in kept if i % 11 == 10 and i - 1 in kept)
    assert report.dropped["image_duplicates"] == {"exact_duplicate": copies}
    assert report.dropped["by_subject"] == {}
    splits: dict[str, set] = {}
    for record in out.scan():
        splits.setdefault(record.subject, set()).add(record.split)
    assert all(len(s) == 1 and None not in s for s in splits.values())


def test_a_second_run_does_nothing_and_a_changed_plan_or_source_does(source: Corpus, tmp_path: Path) -> None:
    into = tmp_path / "out"
    first = curate.run(plan(), source, into)
    before = state(into)
    again = curate.run(plan(), source, into)
    assert again.resumed
    assert (again.kept, again.dropped) == (first.kept, first.dropped)
    assert again.seconds < 1
    other = curate.run([MissingText(min_words=99)], source, into)
    assert not other.resumed
    assert other.kept == 0 == len(Corpus.open(into))
    curate.run(plan(), source, into)
    assert state(into) == before
    source.append(records(50, first=300))
    grown = curate.run(plan(), source, into)
    assert not grown.resumed
    assert grown.read == 350
    assert not list(tmp_path.glob(".out.curate")) + list(tmp_path.glob(".out.ready")) + list(tmp_path.glob(".out.old"))


def test_small_memory_and_large_give_the_same_corpus(source: Corpus, tmp_path: Path) -> None:
    curate.run(plan(), source, tmp_path / "a")
    curate.run(plan(), source, tmp_path / "b", max_memory=1 << 16)
    assert state(tmp_path / "a") == state(tmp_path / "b")


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    from test_curate_engine import plan
    from fabrica import curate
    from fabrica.corpus import Corpus
    left = int(sys.argv[1])
    real = Corpus.append
    def append(self, records, **how):
        global left
        if left == 0 and how.get("token"):
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        out = real(self, records, **how)
        if left == 0 and {after}:
            os.kill(os.getpid(), signal.SIGKILL)
        return out
    Corpus.append = append
    from fabrica.curate.engine import ledger
    noted = ledger.Notes.write
    def write(self, start, end, rows):
        noted(self, start, end, rows)
        if int(sys.argv[2]) == start and self.folder.name == "notes" and self.folder.parent.name == "1":
            os.kill(os.getpid(), signal.SIGKILL)
    ledger.Notes.write = write
    curate.run(plan(), Corpus.open({source!r}), {into!r}, max_memory=1 << 19)
"""


@pytest.mark.parametrize(("appends", "notes", "after"), [(2, -1, False), (4, -1, True), (99, 0, False), (9, -1, True)])
def test_kill_9_and_run_again_gives_the_same_corpus(
    source: Corpus, tmp_path: Path, appends: int, notes: int, after: bool
) -> None:
    into = tmp_path / "out"
    code = textwrap.dedent(KILLED).format(
        tests=str(Path(__file__).parent), source=str(source.path), into=str(into), after=after
    )
    died = subprocess.run([sys.executable, "-c", code, str(appends), str(notes)], capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()[-2000:]
    assert not into.exists()
    resumed = curate.run(plan(), source, into, max_memory=1 << 19)
    assert resumed.resumed
    clean = curate.run(plan(), source, tmp_path / "clean")
    assert (resumed.kept, resumed.dropped) == (clean.kept, clean.dropped)
    assert state(into) == state(tmp_path / "clean")
    assert (into / "ledger.parquet").read_bytes() == (tmp_path / "clean" / "ledger.parquet").read_bytes()


@pytest.mark.parametrize("cut", ["before", "between"])
def test_a_swap_that_was_cut_short_is_ended(source: Corpus, tmp_path: Path, cut: str) -> None:
    into = tmp_path / "out"
    curate.run([MissingText(min_words=99)], source, tmp_path / "old")
    curate.run(plan(), source, into)
    wanted = state(into)
    into.rename(tmp_path / ".out.ready")
    (tmp_path / "old").rename(into if cut == "before" else tmp_path / ".out.old")
    report = curate.run(plan(), source, into)
    assert report.resumed
    assert state(into) == wanted


@dataclass
class Explodes:
    name: str = field(default="explodes", init=False)
    version: str = field(default="1", init=False)

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        for record in records:
            if record.subject == "p90":
                raise RuntimeError("step failed")
            yield record


def test_a_failing_step_leaves_nothing_visible(source: Corpus, tmp_path: Path) -> None:
    with pytest.raises(
        StepFailed, match=r"'explodes' raised_RuntimeError at test_curate_engine.py:\d+ in __call__"
    ) as e:
        curate.run([Explodes()], source, tmp_path / "out", max_memory=1 << 19, max_bad=0)
    assert isinstance(e.value.__cause__, RuntimeError)
    assert not (tmp_path / "out").exists()


@dataclass
class Counts:
    """A survey that cannot note one record."""

    name: str = field(default="counts", init=False)
    version: str = field(default="1", init=False)

    def note(self, record: Record, /) -> dict[str, str]:
        if record.id == record_id("r", "7"):
            raise ValueError("odd")
        return {"id": record.id}

    def decide(self, rows: Sequence[Mapping[str, str]], /) -> dict[str, Decision]:
        assert all(row["id"] != record_id("r", "7") for row in rows)
        return {}


def test_what_a_step_raises_on_is_left_out_and_named_and_the_rest_is_built(source: Corpus, tmp_path: Path) -> None:
    report = curate.run([Explodes(), MissingText(), Counts(), Counts()], source, tmp_path / "out", max_bad=0.02)
    ledger = pq.read_table(tmp_path / "out" / "ledger.parquet").to_pylist()
    raised = [row for row in ledger if row["detail"]]
    assert report.failed == len(raised) == 4
    assert {(row["step"], row["reason"]) for row in raised} == {
        ("explodes", "raised_RuntimeError"), ("counts", "raised_ValueError")
    }  # fmt: skip
    assert all(row["detail"].startswith("test_curate_engine.py:") for row in raised)
    assert "step failed" not in str(ledger), "a message may quote a record"
    assert report.dropped["missing_text"] == {"no_text": 60}
    assert {r["id"] for r in ledger} | set(Corpus.open(tmp_path / "out").ids()) == set(source.ids())
    assert len(ledger) + report.kept == 300
    again = curate.run([Explodes(), MissingText(), Counts(), Counts()], source, tmp_path / "out")
    assert (again.failed, again.resumed) == (4, True)


def test_a_survey_alone_that_raises_leaves_the_record_out_once(source: Corpus, tmp_path: Path) -> None:
    report = curate.run([BySubject(), Counts()], source, tmp_path / "out")
    assert report.dropped == {"by_subject": {}, "counts": {"raised_ValueError": 1}}
    [row] = pq.read_table(tmp_path / "out" / "ledger.parquet").to_pylist()
    assert (row["id"], row["step"], row["reason"]) == (record_id("r", "7"), "counts", "raised_ValueError")
    assert row["detail"].startswith("test_curate_engine.py:")
    assert report.kept == 299


@pytest.mark.parametrize("alone", [True, False])
def test_too_many_bad_ones_are_tried_again_by_the_next_run(source: Corpus, tmp_path: Path, alone: bool) -> None:
    """The same run fails again; when what failed has passed (a server was down), the same run succeeds with them."""

    class Server:
        name, version = "server", "1"
        down = True

        def params(self) -> dict[str, str]:
            return {}

        def note(self, record: Record, /) -> dict[str, str]:
            if self.down and record.subject > "p90":
                raise ConnectionError
            return {"id": record.id}

        def decide(self, rows: Sequence[Mapping[str, str]], /) -> dict[str, Decision]:
            return {}

    server = Server()
    steps = [server] if alone else [MissingText(), server]
    for _ in range(2):
        with pytest.raises(StepFailed, match="raised_ConnectionError"):
            curate.run(steps, source, tmp_path / "out", max_memory=1 << 19)
    server.down = False
    report = curate.run(steps, source, tmp_path / "out", max_memory=1 << 19)
    assert (report.failed, report.resumed) == (0, True)
    assert report.kept == (300 if alone else 240)


def test_what_a_user_can_mend_ends_the_run_at_once(source: Corpus, tmp_path: Path) -> None:
    @dataclass
    class Misused(Explodes):
        name: str = field(default="misused", init=False)

        def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
            raise UsageError("no such label")
            yield

    with pytest.raises(UsageError, match="no such label"):
        curate.run([Misused()], source, tmp_path / "out", max_bad=1)


def test_a_limit_reads_the_lowest_ids_in_the_order_of_insertion(source: Corpus, tmp_path: Path) -> None:
    report = curate.run([BySubject(), MinimumSize(pixels=1)], source, tmp_path / "out", limit=40)
    assert (report.read, report.kept) == (40, 40)
    made = [r.id for r in Corpus.open(tmp_path / "out").scan()]
    assert sorted(made) == source.ids()[:40]
    assert made == [r.id for r in source.scan() if r.id in set(made)]
    assert curate.run([BySubject(), MinimumSize(pixels=1)], source, tmp_path / "out", limit=41).read == 41
    with pytest.raises(UsageError, match="limit=0"):
        curate.run([BySubject()], source, tmp_path / "out", limit=0)


def test_errors_say_what_to_do(source: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="plan is empty"):
        curate.run([], source, tmp_path / "out")
    with pytest.raises(UsageError, match="source itself"):
        curate.run(plan(), source, source.path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="no curation wrote"):
        curate.run(plan(), source, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    with pytest.raises(UsageError, match="no name"):
        curate.run([object()], source, tmp_path / "out")  # type: ignore[list-item]
    with pytest.raises(UsageError, match="names nothing stable"):
        curate.run([_with(lambda: 0)], source, tmp_path / "out")


def _with(function: object) -> MinimumSize:
    step = MinimumSize()
    step.pixels = function  # type: ignore[assignment]
    return step


def test_two_runs_at_once_are_refused(source: Corpus, tmp_path: Path) -> None:
    import fcntl

    with open(tmp_path / ".out.curate.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another run"):
            curate.run(plan(), source, tmp_path / "out")


def test_an_empty_source_gives_an_empty_corpus(tmp_path: Path) -> None:
    report = curate.run(plan(), Corpus.at(tmp_path / "none"), tmp_path / "out")
    assert (report.read, report.kept) == (0, 0)
    assert Corpus.open(tmp_path / "out").ids() == []


def test_an_erased_subject_stays_out_of_a_rebuilt_corpus(source: Corpus, tmp_path: Path) -> None:
    into = tmp_path / "out"
    curate.run(plan(), source, into)
    Corpus.open(into).erase("p5")
    curate.run([MissingText()], source, into)
    assert "p5" not in {r.subject for r in Corpus.open(into).scan()}
    assert "p6" in {r.subject for r in Corpus.open(into).scan()}


def test_progress_is_told(source: Corpus, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None, str]] = []
    curate.run(plan(), source, tmp_path / "out", progress=lambda *told: seen.append(told))
    assert seen[-1][0] == seen[-1][1]
    assert {what for _, _, what in seen} >= {"missing_text, minimum_size, image_duplicates", "by_subject", "write"}


def test_a_group_arrives_together(tmp_path: Path) -> None:
    """Records of one series, scattered over the source, come to one call of the step in order."""

    @dataclass
    class Gather:
        by: str = "series"
        name: str = "gather"
        version: str = "1"

        def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
            seen: dict[str, list[str]] = {}
            for record in records:
                seen.setdefault(record.groups["series"], []).append(record.id)
                yield record
            calls.append(seen)

    calls: list[dict[str, list[str]]] = []
    corpus = Corpus.at(tmp_path / "source")
    corpus.append(
        Record(record_id(str(i)), f"p{i % 4}", {"series": f"s{i % 4}"}, {"image": (picture(i, 64),)}) for i in range(60)
    )
    report = curate.run([Gather()], corpus, tmp_path / "out", max_memory=1 << 15)
    assert report.kept == 60
    assert len(calls) == 4
    assert sorted(len(ids) for seen in calls for ids in seen.values()) == [15] * 4
