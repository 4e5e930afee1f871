"""Corpus: appends, versions, filters, random access, tokens, erasure, locks, and what bad use gets."""

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from corpus_cases import full, note

from fabrica.corpus import Corpus, appending
from fabrica.errors import UsageError
from fabrica.sources import Quarantined
from fabrica.types import Absent, Item, Origin, Record


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus.at(tmp_path / "c")


def image(name: str, subject: str, **more: object) -> Record:
    pixels = np.full((8, 9), int(name, 36) % 256, np.uint8)
    item = Item("image", pixels, Origin("scans", f"{name}.png", "", "CC0-1.0"))
    return Record(name, subject, {"modality": "xray", "site": "A"}, {"image": (item,)}, **more)  # type: ignore[arg-type]


# ---------------------------------------------------------------- append and read


def test_append_skips_what_is_there(corpus: Corpus) -> None:
    assert corpus.append([note("a"), note("b"), note("a", "other text")]) == 2
    assert corpus.take(["a"])[0].first("report").text() == "No effusion.", "the first of two wins"
    assert corpus.append([note("b"), note("c")]) == 1
    assert corpus.ids() == ["a", "b", "c"]
    assert [r.id for r in Corpus.open(corpus.path).scan()] == ["a", "b", "c"]


def test_take_keeps_order_and_repeats(corpus: Corpus) -> None:
    corpus.append([note(f"{i}") for i in range(300)])
    wanted = ["7", "299", "7", "0"]
    assert [r.id for r in corpus.take(wanted)] == wanted
    assert corpus.take([]) == []
    with pytest.raises(UsageError, match="nope"):
        corpus.take(["0", "nope"])


def test_ids_stay_apart_across_the_sorted_and_the_recent(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabrica.corpus.ids._RECENT", 10)
    names = [f"{i}" for i in range(35)] + ["a\x00", "a", "a\x00\x00", "é"]
    for i in range(0, len(names), 4):
        corpus.append([note(n, n) for n in names[i : i + 4]])
        assert corpus.append([note(n) for n in names[: i + 4]]) == 0
    assert [r.first("report").text() for r in corpus.take(names[::-1])] == names[::-1]


def test_scan_from_the_middle(corpus: Corpus) -> None:
    corpus.append([note(f"{i:02d}", split="train" if i % 2 else "test") for i in range(20)])
    assert [r.id for r in corpus.scan("split = 'train'", start=2, limit=3)] == ["05", "07", "09"]
    assert [r.id for r in corpus.scan(start=18)] == ["18", "19"]
    assert list(corpus.scan(limit=0)) == []
    assert list(corpus.scan(start=20)) == []


def test_filters(corpus: Corpus) -> None:
    corpus.append(
        [
            image("a", "p1", split="train", labels={"effusion": 1.0}),
            image("b", "p1", split="test", labels={"effusion": 0.0, "mass": Absent.NOT_DONE}),
            note("c", "Large effusion.", groups={"modality": "ct", "site": "O'Brien"}),
        ]
    )
    assert corpus.ids("modality = 'xray' AND split = 'test'") == ["b"]
    assert corpus.ids("array_has(tags, 'label:effusion=1')") == ["a"]
    assert corpus.ids("array_has(tags, 'label:mass=not_done')") == ["b"]
    assert corpus.ids("array_has(tags, 'site:O''Brien')") == ["c"]
    assert corpus.ids("array_has(kinds, 'image') AND array_has(roles, 'image')") == ["a", "b"]
    assert corpus.ids("split IS NULL") == ["c"]
    assert corpus.ids("subject = 'p1'") == ["a", "b"]
    assert corpus.ids("bytes > 1000000") == []
    assert corpus.count("subject = 'p1'") == 2
    table = corpus.rows(["id", "texts"], "array_has(kinds, 'text')")
    assert table.to_pylist() == [{"id": "c", "texts": ["Large effusion."]}]


def test_stats(corpus: Corpus) -> None:
    corpus.append([image("a", "p1", split="train", labels={"x": 1.0}), image("b", "p1", labels={"x": Absent.NOT_DONE})])
    corpus.append([note("c")])
    corpus.quarantine([Quarantined("bad.png", "00", "image_broken", "no")], source="s")
    found = corpus.stats()
    assert (found.records, found.subjects) == (3, 2)
    assert found.modality == {"": 1, "xray": 2}
    assert found.split == {"": 2, "train": 1}
    assert found.source == {"made": 1, "scans": 2}
    assert found.kinds == {"image": 2, "text": 1}
    assert found.labels == {"x": {"1": 1, "not_done": 1}}
    assert found.quarantined == {"image_broken": 1}
    assert found.bytes > 2 * 72
    assert json.loads(json.dumps(found.to_json()))["records"] == 3
    assert corpus.stats("modality = 'xray'").records == 2


def test_split_hash_knows_the_set_alone(corpus: Corpus, tmp_path: Path) -> None:
    corpus.append([note("a"), note("b")])
    other = Corpus.at(tmp_path / "other")
    other.append([note("b", "different"), note("a")])
    assert corpus.split_hash() == other.split_hash()
    # printf 'a\nb' | sha256sum
    assert corpus.split_hash() == "7e18f737311b2dc3b2f269dd78396b0351f14fb66efa879f768cb23181883c78"
    other.append([note("c")])
    assert corpus.split_hash() != other.split_hash()


# ---------------------------------------------------------------- versions, tokens, processes


def test_versions(corpus: Corpus) -> None:
    assert corpus.version == 0
    assert corpus.versions() == []
    corpus.append([note("a")])
    first = corpus.version
    corpus.append([note("b")])
    old = Corpus.open(corpus.path, version=first)
    assert old.ids() == ["a"]
    assert [r.id for r in old.scan()] == ["a"]
    assert [v.records for v in corpus.versions()] == [1, 2]
    with pytest.raises(UsageError, match="without one to write"):
        old.append([note("c")])
    with pytest.raises(UsageError, match="no version 99"):
        Corpus.open(corpus.path, version=99)
    assert old.refresh().append([note("c")]) == 1


def test_tokens_are_written_with_the_records(corpus: Corpus) -> None:
    assert corpus.token is None
    corpus.append([note("a")], token="1")
    assert Corpus.open(corpus.path).token == "1"
    corpus.append([note("a")], token="2")
    assert Corpus.open(corpus.path).token == "2", "a batch of which nothing was kept is done all the same"
    corpus.append([], token="3")
    corpus.append([note("b")], token="4")
    assert Corpus.open(corpus.path).token == "4"
    corpus.append([], token="5")
    corpus.compact()
    assert Corpus.open(corpus.path).token == "5"


def test_token_on_an_empty_corpus(corpus: Corpus) -> None:
    corpus.append([], token="0")
    assert Corpus.open(corpus.path).token == "0"
    assert len(corpus) == 0
    assert list(corpus.scan()) == []


def test_another_process_reads_the_same_version(corpus: Corpus) -> None:
    corpus.append([full("a"), note("b")])
    frozen = pickle.dumps(corpus)
    corpus.append([note("c")])
    code = "import pickle, sys; c = pickle.load(sys.stdin.buffer); print(c.ids(), c.take(['a'])[0].subject)"
    out = subprocess.run([sys.executable, "-c", code], input=frozen, capture_output=True, check=True).stdout
    assert out.decode().split("\n")[0] == "['a', 'b'] p1"


def test_two_writers_do_not_double(corpus: Corpus) -> None:
    def work() -> None:
        mine = Corpus.open(corpus.path)
        for i in range(0, 40, 4):
            mine.append([note(f"{k}") for k in range(i, i + 6)])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    rows = corpus.refresh().rows(["id"]).column("id").to_pylist()
    assert sorted(rows) == sorted({f"{i}" for i in range(42)})
    assert len(corpus.take(corpus.ids())) == 42


def test_a_source_that_fails_leaves_nothing(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "MIB", 16)  # a batch is a few records, so that several were handed to Lance
    corpus.append([image("a", "p1")])
    before = files(corpus.path)

    def records() -> Iterator[Record]:
        for i in range(40):
            yield note(f"n{i}", "x" * 50)
        raise KeyError("the source broke")

    with pytest.raises(KeyError, match="the source broke"):
        corpus.append(records())
    assert files(corpus.path) == before
    assert corpus.ids() == ["a"]
    assert corpus.append(note(f"n{i}", "x" * 50) for i in range(40)) == 40


def test_what_a_kill_left_is_overwritten(corpus: Corpus) -> None:
    corpus.append([image("a", "p1")])
    tail = corpus.path / "payload" / "000000.bin"
    with tail.open("ab") as file:
        file.write(b"half a record" * 1000)
    (corpus.path / "payload" / "000001.bin").write_bytes(b"stray")
    corpus.append([image("b", "p2")])
    assert b"half a record" not in tail.read_bytes()
    assert not (corpus.path / "payload" / "000001.bin").exists()
    assert [r.first("image").array()[0, 0] for r in corpus.take(["a", "b"])] == [10, 11]


def test_payload_grows_over_files(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabrica.corpus.payload._FILE", 4096)
    for k in range(3):
        corpus.append([image(f"{k}{i}", f"p{i}") for i in range(20)])
    assert len(list((corpus.path / "payload").iterdir())) > 5
    assert [r.id for r in Corpus.open(corpus.path).scan()] == [f"{k}{i}" for k in range(3) for i in range(20)]
    assert all((r.first("image").array() == int(r.id, 36) % 256).all() for r in corpus.scan())


def files(folder: Path) -> dict[str, int]:
    """Path -> size of what is in a corpus folder."""
    return {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


# ---------------------------------------------------------------- erasure


def holding(folder: Path, *marks: str) -> list[str]:
    """Files (and names) in which one of the marks stands."""
    wanted = [m.encode() for m in marks]
    found = [p for p in folder.rglob("*") if p.is_file() and any(m in p.read_bytes() for m in wanted)]
    return [str(p) for p in found] + [
        str(p) for p in folder.rglob("*") if any(m in str(p.relative_to(folder)) for m in marks)
    ]


def marked(name: str) -> Record:
    """A record that carries a marker in every place that can hold one."""
    mark = Origin("ZZsource", f"ZZkey{name}", "ZZsha", "ZZlicence", "human", ("ZZstep",))
    pixels = np.frombuffer(b"ZZpixels" * 512, np.uint8).reshape(64, 64)
    return Record(
        f"ZZid{name}", "ZZsubject", {"study": "ZZstudy"},
        {"image": (Item("image", pixels, mark, unit="ZZunit"),), "report": (Item("text", "ZZtext " * 2000, mark),)},
        labels={"ZZlabel": 1.0},
    )  # fmt: skip


def test_erase_leaves_no_byte(corpus: Corpus) -> None:
    lance = pytest.importorskip("lance")
    corpus.append([image("a", "p1"), marked("1"), note("b")], token="1")
    corpus.append([note(f"n{i}") for i in range(50)] + [marked("2")] + [image("c", "p1")], token="2")
    data = lance.dataset(str(corpus.path / "records.lance"))
    for column in ("subject", "id"):
        data.create_scalar_index(column, "BTREE")
    data.create_scalar_index("texts", "INVERTED")
    corpus.quarantine([Quarantined("ZZkey1", "", "undecodable", "ZZ")], source="ZZsource")
    corpus.append([note("late")], token="3")
    order = [r.id for r in corpus.scan()]
    assert len(holding(corpus.path, "ZZ")) >= 4, "the marker must have been there"

    assert corpus.erase("ZZsubject") == 2

    assert holding(corpus.path, "ZZ", "zztext") == []
    assert [r.id for r in corpus.scan()] == [i for i in order if not i.startswith("ZZ")]
    assert len(corpus.versions()) == 1
    assert {i["name"] for i in lance.dataset(str(corpus.path / "records.lance")).list_indices()} >= {"subject_idx"}
    assert (corpus.take(["c"])[0].first("image").array() == 12).all(), "the others' bytes are untouched"
    assert corpus.token == "3"


def test_the_erased_do_not_come_back(corpus: Corpus) -> None:
    corpus.append([marked("1"), note("a")])
    corpus.erase("ZZsubject")
    assert corpus.append([marked("1"), note("b")]) == 1
    assert holding(corpus.path, "ZZ") == []
    assert corpus.erase("ZZsubject") == 0, "again does no harm"
    assert corpus.erase("nobody's name") == 0


@pytest.mark.parametrize("where", ["delete", "purge"])
def test_an_erasure_that_was_killed_is_finished(corpus: Corpus, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.append([marked("1"), note("a")])
    with monkeypatch.context() as patch:
        patch.setattr(f"fabrica.corpus.table.Table.{where}", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            corpus.erase("ZZsubject")
    assert holding(corpus.path, "ZZ"), "killed half-way"
    Corpus.open(corpus.path).append([])
    assert holding(corpus.path, "ZZ") == []
    assert Corpus.open(corpus.path).ids() == ["a"]


def test_erase_the_only_subject(corpus: Corpus) -> None:
    corpus.append([marked("1")])
    corpus.erase("ZZsubject")
    assert holding(corpus.path, "ZZ") == []
    assert len(corpus) == 0
    assert corpus.append([note("a")]) == 1


def test_erase_strays_of_a_killed_append(corpus: Corpus) -> None:
    corpus.append([marked("1"), note("a")])
    with (corpus.path / "payload" / "000000.bin").open("ab") as file:
        file.write(b"ZZtail" * 100)
    (corpus.path / "records.lance" / "data" / "stray.lance").write_bytes(b"ZZstray")
    corpus.erase("ZZsubject")
    assert holding(corpus.path, "ZZ") == []


# ---------------------------------------------------------------- bad use


def test_open_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no corpus at .*nothing there"):
        Corpus.open(tmp_path / "nope")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "photo.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"no corpus\.json in it"):
        Corpus.open(tmp_path / "x")
    with pytest.raises(UsageError, match="a folder of other things"):
        Corpus.at(tmp_path / "x")
    with pytest.raises(UsageError, match="is a file"):
        Corpus.create(tmp_path / "x" / "photo.png")
    with pytest.raises(UsageError, match="no corpus can be made"):
        Corpus.create(tmp_path / "x" / "photo.png" / "c")
    Corpus.create(tmp_path / "c")
    with pytest.raises(UsageError, match="is a corpus"):
        Corpus.create(tmp_path / "c")
    (tmp_path / "c" / "corpus.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        Corpus.open(tmp_path / "c")
    (tmp_path / "c" / "corpus.json").write_text('{"format": 99}')
    with pytest.raises(UsageError, match="format 99"):
        Corpus.open(tmp_path / "c")


def test_a_creation_that_was_killed_goes_on(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / ".corpus.json.0123456789ab.part").write_bytes(b"{")
    assert Corpus.at(tmp_path / "c").append([note("a")]) == 1


@pytest.mark.parametrize(
    ("where", "match"),
    [("splt = 'x'", "did you mean 'split'"), ("split == = 1", "does not work"), ("array_has(id, 1)", "does not work")],
)
def test_a_wrong_filter_is_one_clear_line(corpus: Corpus, where: str, match: str) -> None:
    corpus.append([note("a")])
    for ask in (corpus.ids, corpus.count, corpus.split_hash, lambda w: list(corpus.scan(w)), corpus.stats):
        with pytest.raises(UsageError, match=match):
            ask(where)


def test_a_wrong_column_names_the_near_one(corpus: Corpus) -> None:
    with pytest.raises(UsageError, match="did you mean 'modality'"):
        corpus.rows(["modalty"])


def test_a_damaged_payload_is_said_to_be(corpus: Corpus) -> None:
    corpus.append([image("a", "p1")])
    (corpus.path / "payload" / "000000.bin").write_bytes(b"short")
    with pytest.raises(UsageError, match="damaged"):
        Corpus.open(corpus.path).take(["a"])
    os.remove(corpus.path / "payload" / "000000.bin")
    with pytest.raises(UsageError, match="damaged"):
        list(Corpus.open(corpus.path).scan())


def test_empty_corpus_reads_as_empty(corpus: Corpus) -> None:
    assert (len(corpus), corpus.ids(), list(corpus.scan()), corpus.take([])) == (0, [], [], [])
    assert corpus.stats().records == 0
    assert corpus.rows(["id", "split"]).num_rows == 0
    assert corpus.quarantined().num_rows == 0
    assert "records=0" in repr(corpus)
