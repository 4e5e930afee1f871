"""Subset files: uids, sorting, set algebra by merge, round trips, and every way a file can be wrong."""

import json
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.corpus import Corpus
from fabrica.corpus.views import webdataset
from fabrica.curate.pools.reshard import reshard, uids_in
from fabrica.curate.pools.subset import UID, Subset, gathered, hexes, merge, ordered, uid_of, uids
from fabrica.errors import Refused, UsageError
from fabrica.phantom.crawl import crawl

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30)


def of(pairs):
    return np.array(pairs, UID) if pairs else np.empty(0, UID)


def text(number):
    return f"{number:032x}"


def test_the_halves_are_those_of_the_public_format():
    """datacomp's subset files: np.array([(int(uid[:16], 16), int(uid[16:32], 16)) ...], np.dtype("u8,u8"))."""
    uid = "8003b9d5e1d0f3f8a2f0b1c2d3e4f506"
    assert uids([uid])[0].item() == (int(uid[:16], 16), int(uid[16:], 16))
    assert hexes(uids([uid, uid.upper()])) == [uid, uid]


@pytest.mark.parametrize("bad", ["", "00", "0" * 31, "0" * 33, "g" * 32, "0" * 31 + "é", " " + "0" * 31])
def test_a_uid_that_is_none_is_named(bad):
    with pytest.raises(UsageError, match="uid"):
        uids([text(1), bad])


def test_a_million_uids_round_trip_exactly(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2**64, (1_000_000, 2), dtype=np.uint64).view(UID).ravel()
    made = Subset.of(rows)
    made.save(tmp_path / "s.npy")
    back = Subset.load(tmp_path / "s.npy")
    assert isinstance(back.uids, np.memmap)
    assert len(back) == 1_000_000
    assert back.uids.tobytes() == np.sort(rows, order=("f0", "f1")).tobytes()
    plain = np.load(tmp_path / "s.npy")
    assert plain.dtype == np.dtype("u8,u8")
    assert back == made


@given(PAIRS, PAIRS, st.integers(1, 5))
def test_the_algebra_is_that_of_sets(a, b, block):
    left, right = Subset.of(of(sorted(set(a)))), Subset.of(of(sorted(set(b))))
    got = {name: [r.item() for r in s.uids] for name, s in
           (("and", left & right), ("or", left | right), ("minus", left - right))}  # fmt: skip
    assert got == {"and": sorted(set(a) & set(b)), "or": sorted(set(a) | set(b)), "minus": sorted(set(a) - set(b))}
    walked = [(r.item(), x, y) for u, m, t in merge(left, right, rows=block) for r, x, y in zip(u, m, t, strict=True)]
    assert walked == [(k, int(k in a), int(k in b)) for k in sorted({*a, *b})]


@given(PAIRS, PAIRS)
def test_counts_merge_as_the_smaller_and_the_larger(a, b):
    left, right = Subset.of(of(a), repeats=True), Subset.of(of(b), repeats=True)
    both, either = left & right, left | right
    for pair in {*a, *b}:
        one = of([pair])
        assert both.count(one)[0] == min(a.count(pair), b.count(pair))
        assert either.count(one)[0] == max(a.count(pair), b.count(pair))
    assert left.total == len(a)


@given(PAIRS)
def test_sorting_and_spilling_give_the_same(tmp_path_factory, pairs):
    rows = of(pairs)
    assert [r.item() for r in ordered(rows)] == sorted(pairs)
    folder = tmp_path_factory.mktemp("spill")
    for where in (None, folder):
        found, repeated = gathered([rows[:4], rows[4:9], rows[9:]], where)
        assert [r.item() for r in found] == sorted(set(pairs))
        assert repeated == len(pairs) - len(set(pairs))


def test_repeats_must_be_asked_for_and_survive_the_file(tmp_path):
    rows = uids([text(7), text(3), text(7)])
    with pytest.raises(UsageError, match=f"uid {text(7)} comes more than once"):
        Subset.of(rows)
    made = Subset.of(rows, repeats=True)
    made.save(tmp_path / "s.npy")
    assert len(np.load(tmp_path / "s.npy")) == 3
    with pytest.raises(UsageError, match="more than once"):
        Subset.load(tmp_path / "s.npy")
    back = Subset.load(tmp_path / "s.npy", repeats=True)
    assert back == made
    assert back.counts.tolist() == [1, 2]


def test_an_unsorted_file_is_refused_or_sorted_with_a_warning(tmp_path):
    np.save(tmp_path / "s.npy", uids([text(9), text(2)]))
    with pytest.raises(UsageError, match="not sorted"):
        Subset.load(tmp_path / "s.npy")
    with pytest.warns(UserWarning, match="not sorted"):
        back = Subset.load(tmp_path / "s.npy", strict=False)
    assert hexes(back.uids) == [text(2), text(9)]


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(3, np.uint64), np.zeros((2, 2), UID), np.zeros(2, "u8,u4"), np.zeros(2, "i8,i8"), np.array(["a" * 32])],
)
def test_rows_that_are_no_uids_are_refused(tmp_path, wrong):
    np.save(tmp_path / "s.npy", wrong)
    with pytest.raises(UsageError, match="wanted one row"):
        Subset.load(tmp_path / "s.npy")


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"not numpy at all", b"PK\x03\x04"])
def test_bytes_that_are_no_array_are_refused(tmp_path, data):
    (tmp_path / "s.npy").write_bytes(data)
    with pytest.raises(UsageError):
        Subset.load(tmp_path / "s.npy")


def test_a_pickle_is_never_loaded(tmp_path):
    np.save(tmp_path / "s.npy", np.array([object()], object), allow_pickle=True)
    with pytest.raises(UsageError, match="pickle"):
        Subset.load(tmp_path / "s.npy")


def test_the_empty_subset(tmp_path):
    empty, some = Subset.of(uids([])), Subset.of(uids([text(1)]))
    empty.save(tmp_path / "e.npy")
    assert len(Subset.load(tmp_path / "e.npy")) == 0
    assert (len(empty & some), len(empty | some), len(some - empty), text(1) in empty) == (0, 1, 1, False)
    np.save(tmp_path / "wrong.npy", uids([]))
    assert Subset.load(tmp_path / "wrong.npy") == empty


def test_a_file_in_the_other_byte_order_reads_the_same(tmp_path):
    rows = ordered(uids([text(1), text(2**100)]))
    np.save(tmp_path / "s.npy", rows.astype(np.dtype(">u8,>u8")))
    assert Subset.load(tmp_path / "s.npy") == Subset.of(rows)


# ---------------------------------------------------------------- reshard


@pytest.fixture
def shards(tmp_path):
    corpus = Corpus.create(tmp_path / "corpus")
    corpus.append(crawl(30, 0).records())
    webdataset.write(corpus, tmp_path / "tars", shard_records=7)
    return corpus, tmp_path


def test_a_resharded_set_is_exactly_the_subset(shards):
    corpus, folder = shards
    ids = corpus.ids()
    chosen = Subset.of(uids([uid_of(i) for i in [*ids[::3], ids[0], ids[0]]]), repeats=True)
    done = reshard(folder / "tars", chosen, folder / "out", shard_samples=4)
    assert (done.read, done.kept, done.written, done.missing, done.shards) == (30, 10, 12, 0, 3)
    assert uids_in(folder / "out") == chosen
    back = {r.id: r for r in webdataset.read(folder / "out")}
    assert sorted(back) == sorted(ids[::3])
    assert all(back[r.id] == r for r in corpus.take(ids[::3]))
    reshard(folder / "tars", chosen, folder / "again", shard_samples=4)
    for path in (folder / "out").iterdir():
        assert path.read_bytes() == (folder / "again" / path.name).read_bytes()


def test_a_subset_larger_than_the_pool_says_what_is_missing(shards):
    corpus, folder = shards
    chosen = Subset.of(uids([uid_of(i) for i in corpus.ids()] + [text(n) for n in range(5)]))
    done = reshard(folder / "tars", chosen, folder / "out")
    assert (done.kept, done.missing) == (30, 5)


def test_datacomp_shards_are_matched_by_the_uid_in_their_json(tmp_path):
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "00000000.tar", "w") as tar:
        for n in range(4):
            for part, data in (("json", json.dumps({"uid": text(n), "caption": "x"}).encode()), ("txt", b"x")):
                info = tarfile.TarInfo(f"{n:012d}.{part}")
                info.size = len(data)
                tar.addfile(info, __import__("io").BytesIO(data))
    done = reshard(tmp_path / "in", Subset.of(uids([text(1), text(3)])), tmp_path / "out")
    assert (done.kept, done.missing) == (2, 0)
    with tarfile.open(tmp_path / "out" / "000000.tar") as tar:
        assert tar.getnames() == ["000000000001.json", "000000000001.txt", "000000000003.json", "000000000003.txt"]


def test_a_torn_shard_leaves_nothing_behind(shards):
    _, folder = shards
    first = min((folder / "tars").iterdir())
    first.write_bytes(first.read_bytes()[:5000])
    with pytest.raises(Refused):
        reshard(folder / "tars", Subset.of(uids([text(1)])), folder / "out")
    assert not (folder / "out").exists()
    with pytest.raises(UsageError, match=r"no \.tar"):
        reshard(folder, Subset.of(uids([])), folder / "out")
