"""The sampler: pure in (seed, step), whole epochs, exact resume at another world size, shares of sources."""

import pickle
from collections import Counter
from pathlib import Path

import pytest
from corpus_cases import note
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.corpus import Corpus, Sampler, stream
from fabrica.errors import UsageError

sizes = st.integers(1, 60)


def names(n: int, prefix: str = "") -> list[str]:
    return [f"{prefix}{i}" for i in range(n)]


@settings(deadline=None)
@given(sizes, st.integers(1, 20), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_sees_each_record_once(n: int, batch: int, seed: int, epoch: int) -> None:
    sampler = Sampler(names(n), batch=batch, seed=seed, drop_last=False)
    steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
    assert sorted(i for s in steps for i in sampler.global_batch(s)) == sorted(names(n))


@settings(deadline=None)
@given(sizes, st.integers(1, 20), st.integers(0, 3))
def test_dropping_the_last_makes_every_batch_whole(n: int, batch: int, seed: int) -> None:
    sampler = Sampler(names(n), batch=batch, seed=seed)
    seen = [sampler.global_batch(s) for s in range(sampler.steps_per_epoch)]
    assert all(len(b) == min(batch, n) == len(set(b)) for b in seen)


@settings(deadline=None)
@given(sizes, st.integers(1, 20), st.integers(0, 100), st.integers(1, 5))
def test_ranks_part_the_batch(n: int, batch: int, step: int, world: int) -> None:
    sampler = Sampler(names(n), batch=batch, seed=1)
    parts = [sampler.rank_batch(step, r, world) for r in range(world)]
    assert sorted(i for p in parts for i in p) == sorted(sampler.global_batch(step))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_resume_at_another_world_size_is_exact() -> None:
    ids = names(103)
    straight = [Sampler(ids, batch=8, seed=5).global_batch(s) for s in range(40)]
    before = [Sampler(ids, batch=8, seed=5).rank_batch(s, r, 2) for s in range(17) for r in range(2)]
    fresh = pickle.loads(pickle.dumps(Sampler(ids, batch=8, seed=5)))
    after = [fresh.rank_batch(s, r, 4) for s in range(17, 40) for r in range(4)]
    assert sorted(i for b in before + after for i in b) == sorted(i for b in straight for i in b)
    for s in range(17, 40):
        joined = [after[(s - 17) * 4 + r] for r in range(4)]
        assert [joined[k % 4][k // 4] for k in range(8)] == straight[s]


def test_steps_may_be_asked_in_any_order() -> None:
    sampler = Sampler({"a": names(30, "a"), "b": names(7, "b")}, batch=4, seed=2, temperature=3)
    forward = {s: sampler.global_batch(s) for s in range(50)}
    assert {s: sampler.global_batch(s) for s in reversed(range(50))} == forward


def test_seeds_and_epochs_differ() -> None:
    a, b = Sampler(names(500), batch=500, seed=0), Sampler(names(500), batch=500, seed=1)
    assert a.global_batch(0) != b.global_batch(0)
    assert a.global_batch(0) != a.global_batch(1)
    at = [s for e in range(200) for s, i in enumerate(Sampler(names(10), batch=10, seed=0).global_batch(e)) if i == "3"]
    spread = Counter(at)
    assert all(5 <= spread[k] <= 40 for k in range(10)), f"record 3 should fall anywhere (mean 20): {spread}"


# ---------------------------------------------------------------- mixing (S01: w_s ~ n_s^(1/temperature))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0, 1e9])
@pytest.mark.parametrize("start", [0, 3_333])
def test_shares_within_one_per_cent(temperature: float, start: int) -> None:
    counts = {"web": 40_000, "xray": 9_000, "fundus": 400, "eeg": 60}
    sampler = Sampler({k: names(n, k) for k, n in counts.items()}, batch=10, seed=3, temperature=temperature)
    drawn = Counter(i.rstrip("0123456789") for s in range(start, start + 1000) for i in sampler.global_batch(s))
    weights = {k: n ** (1 / temperature) for k, n in counts.items()}
    for k in counts:
        target = weights[k] / sum(weights.values())
        assert abs(drawn[k] / 10_000 - target) < 0.01 * max(target, 0.02) + 2e-4, (k, drawn[k], target)


def test_small_sources_repeat_and_the_largest_is_seen_once() -> None:
    sampler = Sampler(
        {"big": names(100, "b"), "small": names(7, "s")}, batch=10, seed=0, temperature=1e9, drop_last=False
    )
    seen = Counter(i for s in range(sampler.steps_per_epoch) for i in sampler.global_batch(s))
    assert sampler.epoch_length == 200
    assert all(seen[f"b{i}"] == 1 for i in range(100))
    assert {seen[f"s{i}"] for i in range(7)} == {14, 15}, "100 draws of 7: each 14 or 15 times"


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.sampled_from("abcde"), sizes, min_size=1), st.floats(0.5, 50), st.integers(1, 30))
def test_every_batch_holds_the_shares(sizes_: dict[str, int], temperature: float, batch: int) -> None:
    sampler = Sampler({k: names(n, k) for k, n in sizes_.items()}, batch=batch, temperature=temperature)
    for step in range(min(20, sampler.steps_per_epoch)):
        of = Counter(i[0] for i in sampler.global_batch(step))
        for k in sizes_:
            share = sampler._counts[k] / sampler.epoch_length
            assert abs(of[k] - share * sum(of.values())) <= 2.0


def test_weights_are_taken_as_given() -> None:
    sampler = Sampler(
        {"a": names(50, "a"), "b": names(50, "b"), "c": names(5, "c")}, batch=10, weights={"a": 3, "b": 1}
    )
    seen = Counter(i[0] for s in range(60) for i in sampler.global_batch(s))
    assert seen["c"] == 0
    assert abs(seen["a"] / 600 - 0.75) < 0.01


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sampler([], batch=1),
        lambda: Sampler({"a": []}, batch=1),
        lambda: Sampler(["a"], batch=0),
        lambda: Sampler(["a"], batch=1, temperature=0),
        lambda: Sampler({"a": ["x"]}, batch=1, weights={"b": 1}),
        lambda: Sampler({"a": ["x"]}, batch=1, weights={"a": -1}),
        lambda: Sampler(["a"], batch=1).rank_batch(0, 2, 2),
    ],
)
def test_bad_use_is_refused(make: object) -> None:
    with pytest.raises(UsageError):
        make()  # type: ignore[operator]


# ---------------------------------------------------------------- over a corpus


def test_stream_reads_what_the_sampler_says(tmp_path: Path) -> None:
    corpus = Corpus.at(tmp_path / "c")
    corpus.append([note(f"{i:02d}", groups={"source": "ab"[i % 3 == 0], "site": f"s{i % 2}"}) for i in range(30)])
    sampler = Sampler.over(corpus, mix_by="source", temperature=2.0, batch=4, seed=1)
    assert {k: len(v) for k, v in sampler.sources.items()} == {"a": 20, "b": 10}
    assert set(Sampler.over(corpus, mix_by="site", batch=4).sources) == {"s0", "s1"}
    straight = [(s, [r.id for r in rs]) for s, rs in stream(corpus, sampler, start=3, stop=9)]
    assert straight == [(s, sampler.global_batch(s)) for s in range(3, 9)]
    parts = [list(stream(corpus, sampler, start=3, stop=9, rank=r, world=3)) for r in range(3)]
    assert sorted(r.id for p in parts for _, rs in p for r in rs) == sorted(i for _, b in straight for i in b)


def test_order_is_of_the_ids_not_of_insertion(tmp_path: Path) -> None:
    made = []
    for k, order in enumerate([1, -1]):
        corpus = Corpus.at(tmp_path / str(k))
        corpus.append([note(n) for n in names(20)[::order]])
        made.append(Sampler.over(corpus, batch=20).global_batch(0))
    assert made[0] == made[1]
