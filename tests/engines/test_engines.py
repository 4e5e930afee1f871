"""What every data engine must do (GROUP-2, section 13), asked of each that stands in `engine_cases.ENGINES`."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from engine_cases import COPY, ENGINES, SYSTEMS, Engine, deduplicated, with_copies
from PIL import Image

from fabrica import curate
from fabrica.corpus import Corpus, card
from fabrica.corpus.rights import join, may
from fabrica.corpus.views import croissant, hf, webdataset
from fabrica.curate.duplicates import hashing, near
from fabrica.curate.split import LINKS
from fabrica.systems import load_system
from fabrica.systems import names as system_names
from fabrica.types import Absent, Drop, Record, Rights

HERE = Path(__file__).parent
ROWS = 240


@pytest.fixture(scope="module", params=list(ENGINES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(name: str) -> Engine:
    return ENGINES[name]


@pytest.fixture(scope="module")
def source(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    corpus = Corpus.at(tmp_path_factory.mktemp("engine") / "source")
    corpus.append(engine.make(ROWS, 0))
    return corpus


@pytest.fixture(scope="module")
def built(engine: Engine, source: Corpus) -> Path:
    into = source.path.parent / "built"
    curate.run(engine.plan(), source, into, max_memory=engine.memory)
    return into


def content(into: Path) -> tuple:
    """All that a corpus holds, as bytes and rows."""
    rows = Corpus.open(into).layout(
        ["subject", "split", "modality", "source", "licence", "roles", "kinds", "tags", "texts"]
    )
    payload = [file.read_bytes() for file in sorted((into / "payload").glob("*.bin"))]
    return payload, rows.to_pylist(), (into / "ledger.parquet").read_bytes()


def test_every_system_with_a_plan_is_here() -> None:
    assert {name for name in system_names() if load_system(name).plan is not None} == set(SYSTEMS)


def test_two_builds_are_equal_and_nothing_is_lost(engine: Engine, source: Corpus, built: Path, tmp_path: Path) -> None:
    report = curate.run(engine.plan(), source, tmp_path / "again")
    assert report.failed == 0
    assert content(tmp_path / "again") == content(built)
    ledger = pq.read_table(built / "ledger.parquet")
    assert report.kept > 0
    left = set(ledger["id"].to_pylist())
    made = set(Corpus.open(built).ids())
    assert set(source.ids()) <= left | made | derived(built), (
        "each is kept, left out with a reason, or made into others"
    )


def derived(into: Path) -> set[str]:
    """Records that others were made from."""
    return {link.to for record in Corpus.open(into).scan() for link in record.links}


KILL = """
    import os, signal, sys
    sys.path.insert(0, {here!r})
    from engine_cases import ENGINES
    from fabrica import curate
    from fabrica.corpus import Corpus
    from fabrica.curate.engine import run as engine
    from fabrica.curate.engine import ledger
    def dies(function, left):
        def call(*args, **more):
            global done
            done = globals().get("done", 0) + 1
            if done > left:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **more)
        return call
    at = sys.argv[1]
    if at == "unit":
        engine.Unit.run = dies(engine.Unit.run, 2)
    elif at == "append":
        Corpus._append = dies(Corpus._append, 1)
    else:
        engine.swap = dies(engine.swap, 0)
    curate.run(ENGINES[{name!r}].plan(), Corpus.open({source!r}), {into!r}, max_memory={memory})
"""


@pytest.mark.parametrize("at", ["unit", "append", "swap"])
def test_killed_at_three_points_it_goes_on(name: str, source: Corpus, built: Path, tmp_path: Path, at: str) -> None:
    import textwrap

    code = textwrap.dedent(KILL).format(
        here=str(HERE), name=name, source=str(source.path), into=str(tmp_path / "out"), memory=ENGINES[name].memory
    )
    died = subprocess.run([sys.executable, "-c", code, at], capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()[-2000:]
    assert not (tmp_path / "out").exists()
    report = curate.run(ENGINES[name].plan(), source, tmp_path / "out", max_memory=ENGINES[name].memory)
    assert report.resumed
    assert content(tmp_path / "out") == content(built)


@dataclass
class Odd:
    """Raises on one record."""

    id: str
    name: str = "odd"
    version: str = "1"

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        for record in records:
            if record.id == self.id:
                raise ValueError(record.subject)
            yield record


def test_a_record_that_cannot_be_worked_on_is_left_out_and_named(
    engine: Engine, source: Corpus, tmp_path: Path
) -> None:
    odd = source.ids()[7]
    report = curate.run([Odd(odd), *engine.plan()], source, tmp_path / "out")
    [row] = [r for r in pq.read_table(tmp_path / "out" / "ledger.parquet").to_pylist() if r["step"] == "odd"]
    assert (row["id"], row["reason"]) == (odd, "raised_ValueError")
    assert report.failed == 1
    assert report.kept > 0


def test_damaged_files_are_quarantined_and_the_rest_is_built(engine: Engine, tmp_path: Path) -> None:
    """Whole files, and copies of three of them cut short, emptied and of other content."""
    from fabrica.corpus.ingest import ingest

    folder = tmp_path / "files"
    folder.mkdir()
    if engine.files is None:
        for i in range(8):
            Image.effect_noise((48, 48), 60 + i).save(folder / f"{i}.png")
    else:
        engine.files(folder, 8, 1)
    whole = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".nxml"))[:3]
    data = whole[0].read_bytes()
    for path, damaged in zip(whole, (data[: len(data) // 2], b"", data[:8] + bytes(40)), strict=True):
        path.with_stem(f"damaged-{path.stem}").write_bytes(damaged)
    corpus = Corpus.at(tmp_path / "source")
    report = ingest(folder, corpus, source="made", licence="CC0-1.0")
    bad = corpus.quarantined().to_pylist()
    named = [Path(row["key"]).name for row in bad if "damaged" in row["key"]]
    assert sorted(named) == sorted(f"damaged-{path.name}" for path in whole if path.suffix in whole[0].suffix)
    assert all(row["code"] for row in bad)
    assert report.records >= 5
    corpus.append(engine.make(40, 2))
    done = curate.run(engine.plan(), corpus, tmp_path / "out")
    assert done.read == len(corpus)
    assert done.failed == 0


def test_no_network_with_default_ports(engine: Engine, source: Corpus, tmp_path: Path, monkeypatch) -> None:
    def opened(*args: object, **more: object) -> None:
        raise AssertionError(f"a socket was opened: {args}")

    for what in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, what, opened)
    assert curate.run(engine.plan(), source, tmp_path / "out").failed == 0


def test_nothing_that_belongs_together_stands_in_two_splits(engine: Engine, source: Corpus, tmp_path: Path) -> None:
    curate.run(deduplicated(engine), source, tmp_path / "out")
    sides: dict[tuple[str, str], set[str | None]] = {}
    for record in Corpus.open(tmp_path / "out").scan(roles=()):
        assert record.split is not None
        for key in (("subject", record.subject), *((k, v) for k, v in record.groups.items() if k in LINKS)):
            sides.setdefault(key, set()).add(record.split)
    assert sides
    assert all(len(found) == 1 for found in sides.values())


def test_planted_copies_are_found(engine: Engine, tmp_path: Path) -> None:
    """At least 99 %: of a copy and what it copies one is left out, or both are named as near and stand on one side."""
    corpus = Corpus.at(tmp_path / "source")
    corpus.append(with_copies(engine.make(2 * ROWS, 2), engine.judged))
    report = curate.run(deduplicated(engine), corpus, tmp_path / "out")
    of: dict[str, list[Record]] = {}
    for record in Corpus.open(tmp_path / "out").scan():
        of.setdefault(record.subject, []).append(record)
    found = missed = 0
    for subject in {record.subject for record in corpus.scan(roles=()) if record.subject.startswith(COPY)}:
        for copy, kept in product(of.get(subject, ()), of.get(subject.removeprefix(COPY), ())):
            if same(copy, kept):
                found += bool(named(copy) & named(kept))
                missed += not named(copy) & named(kept)
    gone = sum(n for step, of_step in report.dropped.items() if "duplicates" in step for n in of_step.values())
    assert found + gone >= 20
    assert missed <= 0.01 * (found + gone), f"{missed} beside {found} named and {gone} left out"


def same(a: Record, b: Record) -> bool:
    """By their pixels, or where there are none by their texts' words."""
    images = [[i.array().astype(float) for i in r.all("image") if i.kind == "image"] for r in (a, b)]
    if all(images):
        one, two = images[0][0], images[1][0]
        return one.shape == two.shape and bool(np.abs(one - two).max() <= 0.02 * max(np.ptp(one), 1e-9))
    texts = [[hashing.normalise_text(i.text()) for i in r.all("report", "caption", "note")] for r in (a, b)]
    if any(images) or not all(texts) or min(len(t[0].split()) for t in texts) < 8:
        return False
    both = [texts[0][0], texts[1][0]]
    return bool(near.similarity(lambda at: [both[i] for i in at], np.array([0]), np.array([1]))[0] >= near.JACCARD)


def named(record: Record) -> set[tuple[str, str, str | None]]:
    return {(k, v, record.split) for k, v in record.groups.items() if k.startswith("near_")}


RIGHTS = (
    Rights("CC0-1.0"), Rights("CC-BY-4.0"), Rights("CC-BY-NC-4.0"), Rights("CC-BY-ND-4.0"), Rights("a custom licence"),
    Rights("CC0-1.0", share="ids_only"), Rights("CC0-1.0", share="none"), Rights("CC0-1.0", access="restricted"),
    Rights("CC0-1.0", consent="withdrawn"),
)  # fmt: skip


def test_a_public_export_holds_only_what_may_be_passed_on(engine: Engine, tmp_path: Path) -> None:
    """Whatever the plan made of it: rights go with records, and the writer asks them."""
    corpus = Corpus.at(tmp_path / "source")
    numbers: dict[str, int] = {}  # of subjects: what belongs together has one licence
    given = {}
    for record in engine.make(ROWS, 3):
        rights = RIGHTS[numbers.setdefault(record.subject, len(numbers)) % len(RIGHTS)]
        given[record.subject] = rights
        items = {
            role: tuple(replace(i, origin=replace(i.origin, licence=rights.licence)) for i in of)
            for role, of in record.items.items()
        }
        corpus.append([record.updated(rights=rights, items=items)])
    curate.run(engine.plan(), corpus, tmp_path / "out")
    made = {record.id: record for record in Corpus.open(tmp_path / "out").scan()}
    for record in made.values():
        assert join(record.rights, given[record.subject]) == record.rights, "rights were loosened"
    closed = {id_ for id_, record in made.items() if not may(record, "redistribute").allowed}
    assert closed
    assert closed != set(made)
    for view in (webdataset, hf, croissant):
        view.write(Corpus.open(tmp_path / "out"), tmp_path / view.__name__, use="redistribute")
        back = {record.id: record for record in view.read(tmp_path / view.__name__)}
        assert set(made) - closed <= set(back) <= set(made)
        for id_ in closed & set(back):
            assert may(made[id_], "share_ids").allowed
            values = [item.value for items in back[id_].items.values() for item in items]
            assert all(isinstance(value, Absent) for value in values), "content of what may not be passed on"


def test_planted_identifiers_are_removed(engine: Engine, tmp_path: Path) -> None:
    """Of identifiers in free text at least 99 % are gone from the result of the plan after `Deidentify`."""
    from fabrica.curate.deid.key import Key
    from fabrica.curate.deid.plants import Planter, note
    from fabrica.curate.deid.steps import Deidentify

    planter, plants, made = Planter(7), [], []
    for record in engine.make(ROWS, 4):
        items = {role: list(of) for role, of in record.items.items()}
        texts = [(role, k) for role, of in items.items() for k, i in enumerate(of) if i.kind == "text" and i.present]
        for role, k in texts[:1]:
            text, planted, _ = note(planter, planter.person())
            items[role][k] = replace(items[role][k], value=f"{items[role][k].text()}\n{text}")
            plants += planted
        made.append(record.updated(items={role: tuple(of) for role, of in items.items()}))
    corpus = Corpus.at(tmp_path / "source")
    corpus.append(made)
    report = curate.run([Deidentify(key=Key(bytes(range(32)))), *engine.plan()], corpus, tmp_path / "out")
    assert report.kept > 0
    texts = Corpus.open(tmp_path / "out").rows(["texts"])["texts"].to_pylist()
    said = "\n".join(text for of in texts for text in of)
    assert len(plants) > 100
    plants = [plant for plant in plants if len(plant.text) > 4]  # two digits stand in any text
    left = [plant for plant in plants if plant.text in said]
    assert len(left) <= 0.01 * len(plants), [plant.kind for plant in left]


def test_numbers_on_the_card_are_recounted(built: Path, source: Corpus, tmp_path: Path) -> None:
    card.write(Corpus.open(built), tmp_path / "card.html")
    said = card.numbers_of((tmp_path / "card.html").read_text("utf-8"))
    records = list(Corpus.open(built).scan())
    ledger = pq.read_table(built / "ledger.parquet").to_pylist()
    assert said["records"] == len(records)
    assert said["read"] == len(source)
    assert said["subjects"] == len({r.subject for r in records})
    assert said["split"] == dict(Counter(r.split or "" for r in records))
    assert said["modality"] == dict(Counter(r.groups.get("modality", "") for r in records))
    present = [i for r in records for items in r.items.values() for i in items if i.present]
    assert said["kinds"] == dict(Counter(i.kind for i in present))
    assert said["by"] == dict(Counter(i.origin.by for i in present))
    counted = Counter((row["step"], row["reason"]) for row in ledger)
    assert {(step, why): n for step, of in said["dropped"].items() for why, n in of.items()} == dict(counted)


def test_views_give_the_records_back(built: Path, tmp_path: Path) -> None:
    corpus = Corpus.open(built)
    full = {r.id: r for r in corpus.scan() if r.rights.share == "full"}
    assert full
    for view in (webdataset, hf, croissant):
        view.write(corpus, tmp_path / view.__name__)
        back = {r.id: r for r in view.read(tmp_path / view.__name__) if r.rights.share == "full"}
        assert back == full, view.__name__


def test_ten_times_the_input_takes_no_more_memory(name: str, tmp_path: Path) -> None:
    """Under 1.5 times the peak of anonymous memory (file pages are the system's to drop), each in a fresh process."""
    peaks = []
    for rows in (150, 1500):
        args = [sys.executable, str(HERE / "engine_memory.py"), name, str(rows), str(tmp_path / str(rows))]
        env = os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        peaks.append(json.loads(subprocess.run(args, env=env, capture_output=True, check=True).stdout))
    small, large = peaks
    assert large["read"] >= 9 * small["read"]
    assert large["bytes"] > 2 * large["bound"], "what would be held otherwise"
    assert large["peak"] < 1.5 * small["peak"], peaks
