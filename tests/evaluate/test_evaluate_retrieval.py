"""Chunked retrieval against the dense definition; ties, duplicates, exclusion, memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import UsageError
from fabrica.evaluate import retrieval
from fabrica.evaluate.features import unit
from fabrica.evaluate.retrieval import Relevance, search


def dense(q, c, sets, k):
    """Rank and hits by the definition: the whole matrix in float64, irrelevant before relevant where they tie."""
    scores = q.astype(np.float64) @ c.astype(np.float64).T
    ranks, hits = [], []
    for row, relevant in zip(scores, sets, strict=True):
        is_relevant = np.isin(np.arange(len(c)), list(relevant))
        tied = np.round(row / 1e-5)  # values that differ by rounding alone are one
        order = sorted(range(len(c)), key=lambda j: (-tied[j], is_relevant[j]))
        places = [i + 1 for i, j in enumerate(order) if is_relevant[j]]
        ranks.append(min(places, default=0))
        hits.append(sum(p <= k for p in places))
    return np.array(ranks), np.array(hits)


def vectors(rng, n, d=8, levels=3):
    """Few levels and short vectors: many exact duplicates and ties."""
    rows = rng.integers(-levels, levels + 1, (n, d)).astype(np.float32)
    rows[(rows == 0).all(1), 0] = 1
    return unit(rows)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_equal_to_the_dense_result_with_ties(seed, block):
    rng = np.random.default_rng(seed)
    q, c = vectors(rng, 17, d=3, levels=1), vectors(rng, 50, d=3, levels=1)
    sets = [rng.choice(50, rng.integers(0, 5), replace=False).tolist() for _ in range(17)]
    found = search(q, c, Relevance.by_sets(sets), hits=(1, 5), block_bytes=block * 4 * 50)
    rank, hits = dense(q, c, sets, 5)
    assert found.rank.tolist() == rank.tolist()
    assert found.hits[5].tolist() == hits.tolist()
    assert found.relevant.tolist() == [len(s) for s in sets]


def test_two_thousand_items_in_any_blocks():
    rng = np.random.default_rng(0)
    c = vectors(rng, 2000, d=6, levels=2)
    q = c[rng.permutation(2000)]
    sets = [[int(i)] for i in rng.permutation(2000)]
    want, _ = dense(q, c, sets, 1)
    for block in (1 << 14, 1 << 20, 1 << 26):
        assert (search(q, c, Relevance.by_sets(sets), block_bytes=block).rank == want).all()


def test_a_duplicate_counts_only_where_the_relevance_says_so():
    text = unit(np.array([[1.0, 0], [1, 0], [0, 1]], dtype=np.float32))
    image = text.copy()
    by_record = search(image, text, Relevance.by_key(["a", "b", "c"], ["a", "b", "c"]))
    assert by_record.rank.tolist() == [2, 2, 1]  # the twin caption ties and stands before
    by_text = search(image, text, Relevance.by_key(["t", "t", "u"], ["t", "t", "u"]))
    assert by_text.rank.tolist() == [1, 1, 1]


def test_a_model_that_gives_one_vector_for_all_is_last():
    same = unit(np.ones((10, 4), dtype=np.float32))
    found = search(same, same, Relevance.by_key(range(10), range(10)), hits=(5,))
    assert found.rank.tolist() == [10] * 10
    assert found.hits[5].tolist() == [0] * 10


def test_excluded_candidates_are_not_met():
    c = unit(np.array([[1.0, 0], [0.9, 0.1], [0, 1]], dtype=np.float32))
    keys = Relevance.by_key(["x", "x", "y"], ["x", "x", "y"])
    own = Relevance.by_key([0, 1, 2], [0, 1, 2])
    found = search(c, c, keys, exclude=own, hits=(1,))
    assert found.rank.tolist() == [1, 1, 0]  # the third has no other of its kind
    assert found.candidates.tolist() == [2, 2, 2]
    assert found.relevant.tolist() == [1, 1, 0]


def test_chance_is_what_the_hypergeometric_says():
    found = retrieval.chance(np.full(4000, 3), np.full(4000, 50), hits=(10,), seed=1)
    miss = np.prod([(50 - 10 - i) / (50 - i) for i in range(3)])
    assert (found.rank <= 10).mean() == pytest.approx(1 - miss, abs=0.03)
    assert found.hits[10].mean() == pytest.approx(10 * 3 / 50, abs=0.05)


def test_a_hundred_thousand_candidates_without_the_matrix():
    rng = np.random.default_rng(0)
    c = unit(rng.standard_normal((100_000, 16)).astype(np.float32))
    q = unit(c[:200] + 0.05 * rng.standard_normal((200, 16)).astype(np.float32))
    tracemalloc.start()
    found = search(q, c, Relevance.by_key(np.arange(200), np.arange(100_000)), block_bytes=8 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20  # the matrix would be 76 MiB; keys and one block remain
    assert np.median(found.rank) <= 2


def test_nearest_is_the_sorted_matrix():
    rng = np.random.default_rng(2)
    q, c = vectors(rng, 9), vectors(rng, 40)
    numbers, cosines = retrieval.nearest(q, c, 7, block_bytes=1000)
    want = np.sort(q @ c.T, axis=1)[:, ::-1][:, :7]
    assert np.allclose(cosines, want, atol=1e-6)
    assert np.allclose(np.take_along_axis(q @ c.T, numbers, 1), cosines, atol=1e-6)


@pytest.mark.parametrize(
    ("q", "c", "match"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), "wanted"),
        (np.ones((2, 3)), np.ones((0, 3)), "no candidate"),
        (np.full((2, 3), np.nan), np.ones((2, 3)), "not finite"),
        (np.ones((3, 3)), np.ones((2, 3)), "speaks of 2 queries"),
    ],
)
def test_wrong_input_is_named(q, c, match):
    with pytest.raises(UsageError, match=match):
        search(q, c, Relevance.by_key([0, 1], list(range(len(c)))))
