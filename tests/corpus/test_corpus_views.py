"""WebDataset, Hugging Face datasets and Croissant: each gives the records back, and reads in its own library."""

import glob
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from corpus_cases import full, note, plain, records
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fabrica.corpus import Corpus
from fabrica.corpus.views import croissant, hf, parts, webdataset
from fabrica.errors import Refused, UsageError
from fabrica.types import Absent, Item, Origin, Record, Rights

VIEWS = [webdataset, hf, croissant]


def image(name: str, shape: tuple[int, ...], dtype: str, **more: object) -> Record:
    pixels = np.random.default_rng(len(name)).integers(0, 255, shape).astype(dtype)
    item = Item("image", pixels, Origin("scans", f"{name}.png", "", "CC0-1.0"))
    return Record(name, f"p-{name}", {"modality": "xray"}, {"image": (item,)}, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    corpus = Corpus.at(tmp_path_factory.mktemp("views") / "c")
    corpus.append(
        [
            full("a", "p1"), full("id with / and .", "p2", seed=2), note("b", split="test"),
            image("gray", (9, 8), "u1", split="val"), image("rgb", (9, 8, 3), "u1"), image("rgba", (9, 8, 4), "u1"),
            image("deep", (9, 8), "<u2"), image("one", (9, 8, 1), "u1"), image("big", (9, 8), ">u2"),
            image("flat", (0, 8), "u1"), note("not utf-8", "lone \udc80 surrogate"),
        ]
    )  # fmt: skip
    return corpus


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.__name__.rsplit(".")[-1])
def test_round_trip(view: ModuleType, corpus: Corpus, tmp_path: Path) -> None:
    report = view.write(corpus, tmp_path / "out")
    assert report == parts.Exported(11, 0, 0)
    assert {r.id: plain(r) for r in view.read(tmp_path / "out")} == {r.id: plain(r) for r in corpus.scan()}
    again = Corpus.at(tmp_path / "again")
    assert again.append(view.read(tmp_path / "out")) == 11
    assert again.split_hash() == corpus.split_hash()


@pytest.mark.parametrize("view", [webdataset, croissant, hf], ids=lambda v: v.__name__.rsplit(".")[-1])
def test_the_same_corpus_gives_the_same_bytes(view: ModuleType, corpus: Corpus, tmp_path: Path) -> None:
    made = []
    for name in ("1", "2"):
        view.write(corpus, tmp_path / name)
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        made.append([(str(p.relative_to(tmp_path / name)), p.read_bytes()) for p in files])
    assert made[0] == made[1]


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.__name__.rsplit(".")[-1])
def test_rights_decide_what_leaves(view: ModuleType, tmp_path: Path) -> None:
    corpus = Corpus.at(tmp_path / "c")
    texts = {"full": "may leave", "ids_only": "SECRETSECRET", "none": "NEVERNEVER"}
    corpus.append(note(k, t, labels={"x": 1.0}, rights=Rights("R", share=k)) for k, t in texts.items())  # type: ignore[arg-type]
    assert view.write(corpus, tmp_path / "out") == parts.Exported(2, 1, 1)
    back = {r.id: r for r in view.read(tmp_path / "out")}
    assert set(back) == {"full", "ids_only"}
    assert back["ids_only"].items["report"][0].value is Absent.WITHHELD
    assert back["ids_only"].labels == {}, "the name of a label says something already"
    held = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert b"NEVER" not in held
    assert b"SECRET" not in held


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.__name__.rsplit(".")[-1])
def test_a_filter_and_a_folder_in_the_way(view: ModuleType, corpus: Corpus, tmp_path: Path) -> None:
    assert view.write(corpus, tmp_path / "out", where="split = 'test'").records == 1
    with pytest.raises(UsageError, match="exists already"):
        view.write(corpus, tmp_path / "out")
    with pytest.raises(UsageError):
        list(view.read(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="no column"):
        view.write(corpus, tmp_path / "other", where="splt = 'x'")
    assert not (tmp_path / "other").exists(), "whole or absent"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(records, min_size=1, max_size=3, unique_by=lambda r: r.id))
def test_any_record_survives_the_parts(given_: list[Record]) -> None:
    for record in given_:
        meta, named = parts.split_up(record)
        assert plain(parts.put_together(meta, named)) == plain(record)
        assert plain(parts.from_row(parts.row(record))) == plain(record)


# ---------------------------------------------------------------- in their own libraries


def test_webdataset_reads_it(corpus: Corpus, tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    webdataset.write(corpus, tmp_path / "out", shard_records=2)
    shards = sorted(glob.glob(str(tmp_path / "out" / "*.tar")))
    assert [Path(s).name for s in shards][:2] == ["all-000000.tar", "all-000001.tar"]
    samples = {s["__key__"]: s for s in wds.WebDataset(shards, shardshuffle=False).decode()}
    assert len(samples) == 11
    (rgb,) = corpus.take(["rgb"])
    np.testing.assert_array_equal(samples["rgb"]["image.0.npy"], rgb.first("image").array())
    assert samples["b"]["report.0.txt"] == "No effusion."
    assert samples["a"]["json"]["subject"] == "p1"
    with tarfile.open(shards[0]) as tar:
        assert {(m.mtime, m.uid, m.mode) for m in tar} == {(0, 0, 0o644)}


def test_datasets_loads_it(corpus: Corpus, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    hf.write(corpus, tmp_path / "out", name="demo")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {k: len(v) for k, v in loaded.items()} == {"train": 2, "test": 1, "val": 1, "unassigned": 7}
    assert loaded["test"][0]["texts"] == ["No effusion."]
    (gray,) = corpus.take(["gray"])
    np.testing.assert_array_equal(np.asarray(loaded["val"][0]["images"][0]), gray.first("image").array())
    assert "Each row carries its own" in (tmp_path / "out" / "README.md").read_text()


def test_mlcroissant_reads_it(corpus: Corpus, tmp_path: Path) -> None:
    mlc = pytest.importorskip("mlcroissant")
    croissant.write(corpus, tmp_path / "out", name="demo", description="Made-up records.")
    data = mlc.Dataset(jsonld=str(tmp_path / "out" / "croissant.json"))
    assert not data.metadata.ctx.issues.errors
    meta = json.loads((tmp_path / "out" / "croissant.json").read_text())
    assert meta["license"] == ["CC-BY-4.0", "CC0-1.0"], "the strictest of each record, of its items as well"
    rows = {r["records/id"].decode(): r for r in data.records("records")}
    assert set(rows) == set(corpus.ids())
    assert rows["b"]["records/texts"] == [b"No effusion."]
    (rgb,) = corpus.take(["rgb"])
    np.testing.assert_array_equal(np.asarray(rows["rgb"]["records/images"][0]), rgb.first("image").array())


def test_croissant_that_is_not_valid_is_said_to_be(tmp_path: Path, corpus: Corpus) -> None:
    pytest.importorskip("mlcroissant")
    croissant.write(corpus, tmp_path / "out")
    path = tmp_path / "out" / "croissant.json"
    meta = json.loads(path.read_text())
    meta["recordSet"][0]["field"][0]["source"]["fileObject"]["@id"] = "nowhere.parquet"
    path.write_text(json.dumps(meta))
    with pytest.raises(UsageError, match="not valid Croissant"):
        croissant.validate(path)


# ---------------------------------------------------------------- hostile


def test_a_changed_parquet_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    croissant.write(corpus, tmp_path / "out")
    with (tmp_path / "out" / "records.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(Refused, match="not the file that"):
        list(croissant.read(tmp_path / "out"))


def _tar(path: Path, members: dict[str, bytes]) -> Path:
    import io

    path.mkdir()
    with tarfile.open(path / "x.tar", "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


HUGE = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"


@pytest.mark.parametrize(
    "members",
    [
        {"a.json": b"{"},
        {"a.json": b"[]"},
        {"a.report.0.txt": b"no json"},
        {"a.json": b"{}", "a.x.npy": HUGE},
        {"a.json": b"{}", "a.x.npy": b"\x93NUMPY\x01\x00"},
        {"a.json": b"{}", "a.x.npy": b"\x80\x04pickle"},
        {"../a.json": b"{}"},
    ],
)  # fmt: skip
def test_hostile_shards_are_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(Refused):
        list(webdataset.read(_tar(tmp_path / "w", members)))


def test_hostile_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "h" / "data").mkdir(parents=True)
    (tmp_path / "h" / "data" / "x.parquet").write_bytes(b"PAR1 rubbish PAR1")
    with pytest.raises(Refused):
        list(hf.read(tmp_path / "h"))


def test_a_pickle_in_an_array_never_runs(tmp_path: Path) -> None:
    import io

    out = io.BytesIO()
    np.lib.format.write_array(out, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(Refused):
        parts.from_npy(out.getvalue())


def _bad() -> Iterator[bytes]:
    good = parts.png(np.zeros((4, 4), np.uint8))
    yield from (b"", good[:40], b"\xff\xd8\xff\xe0 jpeg", good[:16] + b"\x00\x01\x00\x00\x00\x01\x00\x00" + good[24:])


@pytest.mark.parametrize("data", _bad())
def test_a_bad_png_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        parts.from_png(data)
