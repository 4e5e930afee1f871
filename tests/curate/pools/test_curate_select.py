"""Selectors over pools: ranks, ties, quotas, clusters, the algebra, files on disk, and selection inside a plan."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica import curate
from fabrica.corpus import Corpus
from fabrica.curate.engine.plan import signature
from fabrica.curate.pools.by_score import ranked, sortable
from fabrica.curate.pools.cluster_match import kmeans
from fabrica.curate.pools.score import Features, Score
from fabrica.curate.pools.select import (
    And,
    Basic,
    ClusterMatch,
    InSet,
    Pool,
    Quota,
    Random,
    Selected,
    Subset,
    Target,
    TextMatch,
    Threshold,
    TopFraction,
    by_score,
    choose,
)
from fabrica.curate.pools.subset import UID, hexes, uid_of, uids
from fabrica.errors import Leak, UsageError
from fabrica.phantom.crawl import crawl
from fabrica.types import Item, Origin, Record

FLOATS = st.lists(st.floats(allow_nan=True, width=32), max_size=40)


def text(number):
    return f"{number:032x}"


def pool_of(**columns):
    n = len(next(iter(columns.values())))
    return Pool.of({"uid": [text(i) for i in range(n)], **columns})


def kept(selector, pool):
    return [int(u, 16) for u in hexes(selector.select(pool).uids)]


# ---------------------------------------------------------------- by score


@given(FLOATS, st.floats(0, 1))
def test_the_top_fraction_is_datacomps_rank(scores, fraction):
    """threshold = np.sort(scores)[::-1][int(len(scores) * fraction)], keep >= it; over known scores, ties in."""
    known = np.array([s for s in scores if s == s], np.float64)
    made = choose(TopFraction("s", fraction), pool_of(s=scores)) if scores else None
    if made is None:
        return
    rank = int(len(known) * fraction)
    if fraction == 0 or not len(known):
        want = []
    elif rank >= len(known):
        want = [i for i, s in enumerate(scores) if s == s]
    else:
        threshold = np.sort(known)[::-1][rank]
        want = [i for i, s in enumerate(scores) if s >= threshold]
    assert [int(u, 16) for u in hexes(made.subset.uids)] == want
    assert made.left_out.get("no_score", 0) == len(scores) - len(known) == made.found["s: unknown"]


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=40))
def test_a_rank_by_counting_is_the_rank_by_sorting(values):
    keys = sortable(np.array(values))
    for rank in (0, len(values) // 2, len(values) - 1):
        assert ranked(lambda: [keys[:3], keys[3:]], rank) == np.sort(keys)[::-1][rank]


def test_the_rank_is_global_not_per_shard(tmp_path):
    for name, scores in (("a", [0.9, 0.8, 0.7, 0.6]), ("b", [0.1, 0.2, 0.3, 0.4])):
        start = 0 if name == "a" else 4
        table = pa.table({"uid": [text(start + i) for i in range(4)], "clip": np.array(scores, np.float32)})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    assert kept(TopFraction("clip", 0.3), Pool.open(tmp_path)) == [0, 1, 2]


def test_equal_scores_are_all_in():
    assert kept(TopFraction("s", 0.1), pool_of(s=[0.5] * 7)) == list(range(7))


def test_fractions_zero_and_one():
    pool = pool_of(s=[1.0, np.nan, -np.inf, np.inf])
    assert kept(TopFraction("s", 0.0), pool) == []
    assert kept(TopFraction("s", 1.0), pool) == [0, 2, 3]
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="not within"):
            TopFraction("s", wrong)


def test_both_or_neither_of_fraction_and_threshold():
    assert by_score("s", fraction=0.3) == TopFraction("s", 0.3)
    assert by_score("s", threshold=0.0) == Threshold("s", 0.0)
    for both in ({"fraction": 0.3, "threshold": 0.2}, {}):
        with pytest.raises(UsageError, match="exactly one"):
            by_score("s", **both)


def test_random_is_of_the_size_asked_for_and_does_not_move_when_rows_come():
    small, large = pool_of(s=[0.0] * 1000), pool_of(s=[0.0] * 3000)
    assert len(kept(Random(count=137), small)) == 137
    assert kept(Random(count=5000), small) == list(range(1000))
    assert kept(Random(count=0), small) == []
    few, many = set(kept(Random(fraction=0.3, seed=4), small)), set(kept(Random(fraction=0.3, seed=4), large))
    assert few == {i for i in many if i < 1000}
    assert 240 < len(few) < 360
    assert few != set(kept(Random(fraction=0.3, seed=5), small))
    with pytest.raises(UsageError, match="exactly one"):
        Random()


@given(st.lists(st.tuples(st.sampled_from(["a", "b", ""]), st.integers(0, 3)), min_size=1, max_size=40),
       st.integers(1, 5))  # fmt: skip
def test_a_quota_is_exact_and_takes_the_best(rows, most):
    pool = pool_of(concept=[c for c, _ in rows], s=[float(v) for _, v in rows])
    got = kept(Quota("concept", most, score="s"), pool)
    for concept in "ab":
        mine = sorted((v for c, v in rows if c == concept), reverse=True)
        assert sorted((rows[i][1] for i in got if rows[i][0] == concept), reverse=True) == mine[:most]
    assert not any(rows[i][0] == "" for i in got)
    blocks = choose(Quota("concept", most, score="s"), pool, rows=3)
    assert [int(u, 16) for u in hexes(blocks.subset.uids)] == got


# ---------------------------------------------------------------- algebra


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.lists(st.booleans(), min_size=30, max_size=30))
def test_the_algebra_is_boolean(a, b):
    pool = pool_of(a=[float(v) for v in a], b=[float(v) for v in b[: len(a)]])
    left, right = Threshold("a", 0.5), Threshold("b", 0.5)
    rows = list(zip(a, b, strict=False))
    assert kept(left & right, pool) == [i for i, (x, y) in enumerate(rows) if x and y]
    assert kept(left | right, pool) == [i for i, (x, y) in enumerate(rows) if x or y]
    assert kept(~left, pool) == [i for i, (x, _) in enumerate(rows) if not x]
    assert kept(~(left & right), pool) == kept(~left | ~right, pool)
    assert (left & right).select(pool) == left.select(pool) & right.select(pool)


def test_every_row_is_kept_or_has_a_reason():
    pool = pool_of(s=[0.1, np.nan, 0.9, 0.5], text=["a cat", "", "big cat", "dog"])
    made = choose(Threshold("s", 0.4) & TextMatch(frozenset({"cat"})), pool)
    assert kept(InSet(made.subset), pool) == [2]
    assert dict(made.left_out) == {"below_threshold": 1, "no_score": 1, "no_entity": 1}
    assert made.rows == len(made.subset) + sum(made.left_out.values())


def test_a_uid_twice_in_a_pool_is_kept_once_and_counted():
    pool = Pool.of({"uid": [text(1), text(1), text(2)], "s": [1.0, 1.0, 1.0]})
    made = choose(Threshold("s", 0.5), pool)
    assert (len(made.subset), made.repeated) == (2, 1)


def test_into_a_file_is_the_same_as_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    pool = Pool.of({"uid": [uid_of(str(i)) for i in range(5000)], "s": rng.random(5000)})
    selector = TopFraction("s", 0.5) & ~Random(fraction=0.2)
    made = choose(selector, pool, tmp_path / "deep" / "s.npy", rows=64)
    assert made.subset == selector.select(pool)
    assert isinstance(made.subset.uids, np.memmap)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["s.npy"]


class Drawn:
    """A shard of any length whose columns are drawn as they are read."""

    names = ("uid", "s")

    def __init__(self, rows):
        self.rows = rows

    def read(self, columns, size):
        for lo in range(0, self.rows, size):
            rng, n = np.random.default_rng(lo), min(size, self.rows - lo)
            drawn = {"uid": rng.integers(0, 2**64, (n, 2), dtype=np.uint64).view(UID).ravel(), "s": rng.random(n)}
            yield {c: drawn[c] for c in columns}


def test_ten_times_the_rows_take_as_much_memory(tmp_path):
    def peak(n):
        pool = Pool([Drawn(n)])
        tracemalloc.start()
        made = choose(TopFraction("s", 0.5) & ~Random(fraction=0.1), pool, tmp_path / f"{n}.npy", rows=1024)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert 0.4 * n < len(made.subset) < 0.5 * n
        return most

    peak(100_000)
    assert peak(1_000_000) < 1.5 * peak(100_000)


def test_no_rows_and_no_parts():
    empty = Pool.of({"uid": [], "s": []})
    assert len(choose(TopFraction("s", 0.5) & Random(count=3), empty).subset) == 0
    with pytest.raises(UsageError, match="at least one"):
        And(()).select(empty)


# ---------------------------------------------------------------- by content


def test_basic_is_datacomps_filter_with_a_reason_each():
    pool = pool_of(
        language=["en", "de", "en", "en", "en", "en", "en"],
        text=["a good caption", "ein guter Satz hier", "two words", "a b c", "a good caption", "a good caption",
              "a good caption"],
        original_width=[300.0, 300, 300, 300, 150, 700, np.nan], original_height=[200.0] * 7,
    )  # fmt: skip
    made = choose(Basic(), pool)
    assert kept(Basic(), pool) == [0]
    assert dict(made.left_out) == {
        "language": 1, "few_words": 1, "few_characters": 1, "too_small": 1, "too_narrow": 1, "no_size": 1
    }  # fmt: skip
    assert Basic(language=None, side=None, aspect=None).columns == ("text",)


def test_entities_are_whole_words_and_phrases():
    pool = pool_of(text=["Pleural  EFFUSION seen", "effusions", "pleural", "a mass.", "", "massive"])
    assert kept(TextMatch(frozenset({"pleural effusion", "mass"})), pool) == [0, 3]
    with pytest.raises(UsageError, match="at least one word"):
        TextMatch(frozenset())


def clusters(seed=0, n=300):
    rng = np.random.default_rng(seed)
    centres = np.eye(4, 8)
    which = rng.integers(0, 4, n)
    return which, (centres[which] + 0.05 * rng.normal(size=(n, 8))).astype(np.float32)


def test_cluster_match_keeps_the_targets_clusters():
    which, rows = clusters()
    rows[5] = np.nan
    target = Target(np.eye(4, 8, dtype=np.float32)[[1, 3]] * 7, "train")
    made = choose(ClusterMatch("img", target, clusters=4), pool_of(img=rows))
    want = [i for i in range(300) if which[i] in (1, 3) and i != 5]
    assert [int(u, 16) for u in hexes(made.subset.uids)] == want
    assert made.left_out["no_feature"] == 1


@pytest.mark.parametrize("split", ["test", "val", "hidden", ""])
def test_target_images_of_another_split_are_refused(split):
    with pytest.raises(Leak, match="only training images"):
        Target(np.ones((2, 3), np.float32), split)


def test_a_target_file_round_trips_and_one_of_test_images_is_refused(tmp_path):
    made = Target(np.eye(3, dtype=np.float32), "train", "näme")
    back = Target.load(made.save(tmp_path / "t.npz"))
    np.testing.assert_array_equal(back.rows, made.rows)
    assert (back.split, back.name) == ("train", "näme")
    text = np.frombuffer(b"test", np.uint8)
    np.savez(tmp_path / "test.npz", rows=made.rows, split=text, name=text)
    with pytest.raises(Leak):
        Target.load(tmp_path / "test.npz")
    np.savez(tmp_path / "other.npz", rows=made.rows)
    with pytest.raises(UsageError, match="lacks name, split"):
        Target.load(tmp_path / "other.npz")


def test_one_test_record_among_the_targets_is_refused():
    records = [r.updated(split="train") for r in crawl(3, 0).records()]
    target = Target.of(records, Flat())
    assert target.rows.shape == (3, 256)
    for split in ("test", None):
        with pytest.raises(Leak, match=records[1].id):
            Target.of([records[0], records[1].updated(split=split)], Flat())


def test_features_that_are_missing_or_of_another_model_are_named():
    target = Target(np.ones((2, 3), np.float32), "train")
    with pytest.raises(UsageError, match=r"img.*embeddings"):
        ClusterMatch("img", target).select(pool_of(s=[1.0]))
    with pytest.raises(UsageError, match="8 dimensions, the target 3"):
        ClusterMatch("img", target).select(pool_of(img=clusters()[1]))
    with pytest.raises(UsageError, match="no features"):
        ClusterMatch("s", target).select(pool_of(s=[1.0]))
    with pytest.raises(UsageError, match="wanted numbers"):
        Threshold("text", 0.1).select(pool_of(text=["a"]))


def test_kmeans_is_deterministic_and_fills_every_cluster():
    _, rows = clusters(3)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    a, b = kmeans(rows, 12, seed=1), kmeans(rows, 12, seed=1)
    np.testing.assert_array_equal(a, b)
    assert len(np.unique((rows @ a.T).argmax(1))) == 12
    assert len(kmeans(np.repeat(rows[:2], 5, 0), 4)) == 2


# ---------------------------------------------------------------- pools on disk


def test_datacomps_layout_reads_features_beside_each_shard(tmp_path):
    which, rows = clusters(n=40)
    for k in range(2):
        part = slice(20 * k, 20 * k + 20)
        table = pa.table({"uid": [text(i) for i in range(40)[part]], "clip_l14_similarity_score": np.arange(40.0)[part],
                          "text": [f"t{i}" for i in range(40)[part]]})  # fmt: skip
        pq.write_table(table, tmp_path / f"{k:08d}.parquet", row_group_size=7)
        np.savez(tmp_path / f"{k:08d}.npz", l14_img=rows[part].astype(np.float16), b32_img=rows[part])
    pool = Pool.open(tmp_path)
    assert (len(pool), set(pool.names)) == (40, {"uid", "clip_l14_similarity_score", "text", "l14_img", "b32_img"})
    blocks = list(pool.blocks(["uid", "l14_img", "clip_l14_similarity_score"], rows=6))
    np.testing.assert_array_equal(np.concatenate([b["l14_img"] for b in blocks]), rows.astype(np.float16))
    both = ClusterMatch("l14_img", Target(np.eye(4, 8, dtype=np.float32)[:1], "train"), 4) & Threshold(
        "clip_l14_similarity_score", 20
    )
    assert kept(both, pool) == [i for i in range(20, 40) if which[i] == 0]
    (tmp_path / "00000001.npz").unlink()
    with pytest.raises(UsageError, match=r"l14_img.*missing from 1 of its 2 shards.*npz"):
        both.select(Pool.open(tmp_path))
    np.savez(tmp_path / "00000001.npz", l14_img=rows[:3], b32_img=rows[:3])
    with pytest.raises(UsageError, match="has 3 rows"):
        both.select(Pool.open(tmp_path))


def test_arrow_files_and_null_cells(tmp_path):
    table = pa.table({"id": ["a", "b", "c"], "s": pa.array([1.0, None, 3.0]), "text": pa.array(["x", None, "z"])})
    with pa.OSFile(str(tmp_path / "p.arrow"), "wb") as out, pa.ipc.new_file(out, table.schema) as file:
        file.write_table(table)
    pool = Pool.open(tmp_path / "p.arrow")
    made = choose(Threshold("s", 0.5), pool)
    assert sorted(hexes(made.subset.uids)) == sorted([uid_of("a"), uid_of("c")])
    assert dict(made.left_out) == {"no_score": 1}


def test_what_is_no_pool_is_named(tmp_path):
    with pytest.raises(UsageError, match="no pool at"):
        Pool.open(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(UsageError, match=r"a\.parquet cannot be read"):
        Pool.open(tmp_path)
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="no column uid or id"):
        Pool.open(tmp_path)
    with pytest.raises(UsageError, match="did you mean 'score'"):
        Threshold("scor", 1).select(pool_of(score=[1.0]))
    with pytest.raises(UsageError, match="different lengths"):
        Pool.of({"uid": [text(0)], "s": [1.0, 2.0]})
    with pytest.raises(UsageError, match="33 characters"):
        Pool.of({"uid": [text(0), text(1) + "0"]})


# ---------------------------------------------------------------- corpora and plans


class Flat:
    """An embedder of raw pixels."""

    name = "flat-1"

    def __call__(self, items):
        rows = np.stack([i.array().astype(np.float32).ravel() for i in items])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Length:
    """A scorer: words of the caption; none for the word "buy"."""

    name = "length-1"

    def __call__(self, record):
        words = record.first("caption").text().split()
        return {"length": float("nan") if "buy" in words else float(len(set(words[0])))}


@pytest.fixture
def corpus(tmp_path):
    made = Corpus.create(tmp_path / "pool")
    made.append(crawl(120, 0).records())
    return made


def test_scores_and_features_become_columns_of_a_corpus(corpus, tmp_path):
    report = curate.run([Score(Length()), Features(Flat())], corpus, tmp_path / "scored")
    assert (report.read, report.kept) == (120, 120)
    scored = Corpus.open(tmp_path / "scored")
    pool = Pool.of_corpus(scored)
    assert {"score:length", "features/flat-1", "text", "class", "original_width"} <= set(pool.names)
    made = choose(Threshold("score:length", 5), pool)
    want = {r.id for r in scored.scan() if r.labels.get("score:length", 0) >= 5}
    assert set(hexes(made.subset.uids)) == {uid_of(i) for i in want}
    assert made.left_out["no_score"] == sum("buy" in r.first("caption").text().split() for r in scored.scan()) > 0


@pytest.mark.parametrize(
    "selector",
    [TopFraction("score:length", 0.4), Quota("class", 2), Random(count=17), TextMatch(frozenset({"photo"})),
     Basic(language=None, side=10, aspect=3) & ~Random(fraction=0.5), InSet(Subset.of(uids([uid_of("nobody")])))],
)  # fmt: skip
def test_a_plan_keeps_what_the_pool_keeps(corpus, tmp_path, selector):
    curate.run([Score(Length())], corpus, tmp_path / "scored")
    scored = Corpus.open(tmp_path / "scored")
    made = choose(selector, Pool.of_corpus(scored))
    report = curate.run([Score(Length()), Selected(selector)], corpus, tmp_path / "out")
    ids = Corpus.open(tmp_path / "out").ids()
    assert {uid_of(i) for i in ids} == set(hexes(made.subset.uids))
    assert dict(report.dropped.get("selected", {})) == {k: v for k, v in made.left_out.items() if v}


def test_a_plan_with_clusters_reads_the_stored_features(corpus, tmp_path):
    target = Target.of([r.updated(split="train") for r in crawl(5, 9).records()], Flat())
    chosen = ClusterMatch("features/flat-1", target, clusters=10)
    report = curate.run([Features(Flat()), Selected(chosen)], corpus, tmp_path / "out")
    assert report.dropped["selected"]["off_target"] + report.kept == 120
    assert 0 < report.kept < 120


def test_the_signature_of_a_plan_tells_selectors_apart():
    a, b = Threshold("s", 0.3), Threshold("t", 0.3)
    made = [Selected(s) for s in (a, TopFraction("s", 0.3), ~a, a & b, a | b, b & a)]
    assert len({str(signature(s)) for s in made}) == len(made)
    assert signature(Score(Length()))["params"] == {"scorers": ["length-1"]}


def test_a_scorer_that_writes_another_ones_name_is_an_error():
    with pytest.raises(UsageError, match="two scorers write score:length"):
        list(Score(Length(), Length())(crawl(40, 0).records(), lambda r, why: None))


def test_a_record_without_an_image_or_text_passes_features_and_is_left_out_by_selectors():
    bare = Record("r", "s", items={"report": (Item("text", "x", Origin("d", "k", "", "")),)})
    assert list(Features(Flat())([bare], lambda r, why: None)) == [bare]
    sized = bare.updated(labels={"original_width": 300.0, "original_height": 300.0})
    assert kept(Basic(language=None), Pool.of_records([sized])) == []
