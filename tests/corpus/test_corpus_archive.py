"""The figure archive: 27 fields a row, licences apart, whole shards only, the same bytes; streamed, also by HTTP."""

import json
import tarfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fabrica.corpus import Corpus
from fabrica.corpus.views import archive
from fabrica.corpus.views.stream import open_stream
from fabrica.errors import Refused, UsageError
from fabrica.safe.fetch import Fetcher, Policy
from fabrica.types import Absent, Item, Link, Origin, Record, Rights

LICENCES = ("CC-BY-4.0", "CC-BY-NC-4.0", "other", "CC0-1.0", "CC-BY")
N = 25


def figure(i: int, share: str = "full") -> Record:
    licence = LICENCES[i % len(LICENCES)]
    origin = Origin("pmc", f"{i}.nxml", "", licence)
    pixels = np.random.default_rng(i).integers(0, 255, (8, 10, 3) if i % 2 else (8, 10)).astype(np.uint8)
    return Record(
        f"f{i:03d}", f"PMC{i // 2}", items={
            "image": (Item("image", pixels, origin),), "caption": (Item("text", f"Café {i}.", origin),),
            "context": (Item("text", "See it.", origin),),
        }, groups={"modality": "figure", "article": f"PMC{i // 2}", "concept": ("table", "histology")[i % 2]},
        labels={"cluster_distance": 0.25}, links=(Link("part_of", f"a{i // 2}"),),
        rights=Rights(licence, share=share, attribution="Someone"), split="train",
    )  # fmt: skip


def whole(i: int) -> Record:
    origin = Origin("pmc", f"{i}.nxml", "", "CC-BY-4.0")
    items = {"title": (Item("text", f"Title {i}", origin),), "abstract": (Item("text", "An abstract.", origin),)}
    return Record(f"a{i}", f"PMC{i}", items=items, groups={"modality": "article"}, rights=Rights("CC-BY-4.0"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    made = Corpus.at(tmp_path_factory.mktemp("archive") / "c")
    made.append([*(figure(i) for i in range(N)), *(whole(i) for i in range(N // 2))])
    return made


@pytest.fixture(scope="module")
def folder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards") / "a"
    report = archive.write(corpus, path, shard_records=4)
    assert (report.records, report.left_out) == (N, 0)
    return path


def test_every_row_has_27_fields_and_its_licence(corpus: Corpus, folder: Path) -> None:
    assert len(archive.FIELDS.names) == 27
    shards = archive.shards(folder)
    assert sum(s.rows for s in shards) == N
    for shard in shards:
        table = pq.read_table(folder / f"{shard.name}.parquet")
        assert table.schema.equals(archive.FIELDS)
        groups = {archive.licence_group(x) for x in table.column("licence").to_pylist()}
        assert groups == set(table.column("licence_group").to_pylist()) == {shard.group}
    rows = {s.fields["key"]: s for s in open_stream(folder)}
    assert rows.keys() == {f"f{i:03d}" for i in range(N)}
    for i in range(N):
        fields = rows[f"f{i:03d}"].fields
        assert (fields["caption"], fields["licence"], fields["attribution"]) == (
            f"Café {i}.",
            LICENCES[i % 5],
            "Someone",
        )
        assert (fields["title"], fields["abstract"]) == (
            (f"Title {i // 2}", "An abstract.") if i // 2 < N // 2 else ("", "")
        )
        np.testing.assert_array_equal(rows[f"f{i:03d}"].image(), figure(i).items["image"][0].array())


def test_the_commercial_stream_has_zero_other_rows(folder: Path) -> None:
    rows = [s.fields["licence"] for s in open_stream(folder, groups=("commercial",))]
    assert len(rows) == sum(LICENCES[i % 5] in ("CC-BY-4.0", "CC0-1.0", "CC-BY") for i in range(N))
    assert not [x for x in rows if "NC" in x or x in ("other", "")]


def test_a_row_in_the_wrong_shard_stops_the_stream(folder: Path, tmp_path: Path) -> None:
    """An audit at read time: a shard that was tampered with or mixed up is refused, not passed on."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "commercial-000000.tar").write_bytes((folder / "noncommercial-000000.tar").read_bytes())
    with pytest.raises(Refused, match="licence"):
        list(open_stream(tmp_path, groups=("commercial",)))


def test_the_same_corpus_gives_the_same_bytes(corpus: Corpus, folder: Path, tmp_path: Path) -> None:
    archive.write(corpus, tmp_path / "b", shard_records=4)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_stopped_in_a_shard_it_goes_on_and_nothing_half_is_listed(
    corpus: Corpus, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in (1, 7, 20):
        where, calls = tmp_path / str(at), 0
        real = archive.png

        def failing(pixels: np.ndarray, at: int = at, real=real) -> bytes:  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            if calls == at:
                raise KeyboardInterrupt
            return real(pixels)

        monkeypatch.setattr(archive, "png", failing)
        with pytest.raises(KeyboardInterrupt):
            archive.write(corpus, where, shard_records=4)
        listed = archive.shards(where) if (where / archive.INDEX).exists() else []
        assert {p.name for p in where.glob("*.tar")} == {f"{s.name}.tar" for s in listed}
        monkeypatch.setattr(archive, "png", real)
        archive.write(corpus, where, shard_records=4)
        assert calls >= at
        for path in folder.iterdir():
            assert path.read_bytes() == (where / path.name).read_bytes()
    begun = time.monotonic()
    monkeypatch.setattr(archive, "png", lambda _: pytest.fail("a complete archive is not written again"))
    archive.write(corpus, tmp_path / "1", shard_records=4)
    assert time.monotonic() - begun < 5


def test_small_shards_by_bytes_hold_all_rows(corpus: Corpus, tmp_path: Path) -> None:
    archive.write(corpus, tmp_path / "x", shard_bytes=9000)
    shards = archive.shards(tmp_path / "x")
    assert len(shards) > 3
    assert sum(s.rows for s in shards) == N
    archive.write(corpus, tmp_path / "x", shard_bytes=9000)
    assert archive.shards(tmp_path / "x") == shards


def test_rights_keep_records_out(tmp_path: Path) -> None:
    corpus = Corpus.at(tmp_path / "c")
    gone = figure(4).updated(items={"image": (Item("image", Absent.NOT_LINKED, Origin("p", "k", "", "CC-BY")),)})
    corpus.append([figure(0), figure(5, "ids_only"), figure(10, "none"), gone, figure(1)])
    report = archive.write(corpus, tmp_path / "a", use="train_commercial")
    assert report.records == 1
    assert dict(report.reasons) == {"share_ids_only": 1, "share_none": 1, "no_image": 1, "non_commercial": 1}
    assert [s.fields["key"] for s in open_stream(tmp_path / "a")] == ["f000"]


def test_another_corpus_or_folder_is_refused(corpus: Corpus, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another corpus or filter"):
        archive.write(corpus, folder, shard_records=5)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="no archive"):
        archive.write(corpus, tmp_path)
    with pytest.raises(UsageError, match="no archive"):
        list(open_stream(tmp_path))


def test_filters_shuffles_and_ranks(folder: Path) -> None:
    tables = [s.fields["key"] for s in open_stream(folder, keep=lambda f: f["concept"] == "table")]
    assert tables == [k for k in (s.fields["key"] for s in open_stream(folder)) if int(k[1:]) % 2 == 0]
    keys = [[s.fields["key"] for s in open_stream(folder, buffer=6, seed=n)] for n in (1, 1, 2)]
    assert keys[0] == keys[1] != keys[2]
    assert sorted(keys[0]) == sorted(keys[2])
    ranks = [[s.fields["key"] for s in open_stream(folder, rank=r, world=3)] for r in range(3)]
    assert sorted(k for own in ranks for k in own) == sorted(keys[0])
    with pytest.raises(UsageError, match="rank 3"):
        list(open_stream(folder, rank=3, world=3))


def test_the_public_reader_takes_the_triples(folder: Path) -> None:
    with tarfile.open(folder / "commercial-000000.tar") as tar:
        names = tar.getnames()
    assert [n.partition(".")[2] for n in names[:3]] == ["json", "png", "txt"]
    webdataset = pytest.importorskip("webdataset")
    urls = [str(folder / f"{s.name}.tar") for s in archive.shards(folder)]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8"))
    assert len(samples) == N
    assert {s["txt"] for s in samples} == {f"Café {i}." for i in range(N)}
    assert all(s["png"].shape == (8, 10, 3) and s["json"]["key"] == s["__key__"] for s in samples)


# ---------------------------------------------------------------- over HTTP


@pytest.fixture
def served(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def fetcher() -> Fetcher:
    policy = Policy(schemes=("http",), interval=0.0, retries=1, first_wait=0.01, max_bytes=1 << 30)
    return Fetcher(policy, allow_network=True, allow_private=True)


def test_a_url_gives_what_the_folder_gives(folder: Path, served: str) -> None:
    with fetcher() as web:
        far = [(s.fields, s.png) for s in open_stream(served, fetcher=web)]
        near = [(s.fields, s.png) for s in open_stream(folder)]
        assert far == near
        assert len(list(open_stream(served + "/", groups=("other",), fetcher=web))) == N // 5
    with pytest.raises(Refused, match="network_off"):
        list(open_stream(served))


def test_a_shard_that_is_not_what_the_index_says_is_refused(folder: Path, served: str) -> None:
    index = folder / archive.INDEX
    before = index.read_bytes()
    said = json.loads(before)
    said["shards"][0]["sha256"] = "0" * 64
    try:
        index.write_text(json.dumps(said))
        with fetcher() as web, pytest.raises(Refused, match="shard_bad"):
            list(open_stream(served, fetcher=web))
    finally:
        index.write_bytes(before)
    with fetcher() as web, pytest.raises(Refused, match="no_index"):
        list(open_stream(served + "/nowhere", fetcher=web))
