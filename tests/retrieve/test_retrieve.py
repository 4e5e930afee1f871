"""Search: BM25 against its formula, LSA, any embedder, ties, exclusion, fusion and propagation."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import UsageError
from fabrica.retrieve import Retriever, Run, best
from fabrica.retrieve.bm25 import BM25
from fabrica.retrieve.dense import Dense
from fabrica.retrieve.fuse import propagate, rrf
from fabrica.retrieve.lsa import LSA
from fabrica.retrieve.words import words
from fabrica.types import Embedder, Item

DOCS = {
    "a": "fever and cough in a young man",
    "b": "fever, fever and rash",
    "c": "a broken leg after a fall",
    "d": "cough with blood",
}


def bm25(query: str, text: str, k1: float = 1.5, b: float = 0.75) -> float:
    """The formula, from the paper."""
    said = {name: words(doc) for name, doc in DOCS.items()}
    mean = sum(map(len, said.values())) / len(said)
    mine, total = words(text), 0.0
    for word in words(query):
        n = sum(word in doc for doc in said.values())
        idf = math.log(1 + (len(said) - n + 0.5) / (n + 0.5))
        tf = mine.count(word)
        total += idf * tf / (tf + k1 * (1 - b + b * len(mine) / mean))
    return total


def test_bm25_is_its_formula() -> None:
    for query in ("fever cough", "fever fever", "a young man fell"):
        for name, score in BM25(DOCS).search({"q": query}).found("q"):
            assert score == pytest.approx(bm25(query, DOCS[name]), rel=1e-5)


def test_bm25_finds_only_what_shares_a_word() -> None:
    run = BM25(DOCS).search({"q": "coughs and fevers", "none": "zzz", "empty": ""}, 10)
    assert [d for d, _ in run.found("q")] == ["a", "b", "d"]
    assert run.found("none") == run.found("empty") == []
    assert run.numbers.shape == (3, 4)


def test_documents_without_words_find_nothing() -> None:
    assert BM25({"a": "", "b": "the"}).search({"q": "fever"}).found("q") == []


def test_no_document_and_wrong_settings_are_said() -> None:
    with pytest.raises(UsageError, match="no document"):
        BM25({})
    with pytest.raises(UsageError, match="k1"):
        BM25(DOCS, b=2)
    with pytest.raises(UsageError, match="k=0"):
        BM25(DOCS).search({"q": "fever"}, 0)


@pytest.mark.parametrize("index", [BM25(DOCS), Dense(DOCS, LSA.fit(list(DOCS.values()), dim=2, min_documents=1))])
def test_what_is_excluded_is_not_found(index: Retriever) -> None:
    assert isinstance(index, Retriever)
    queries = {"a": DOCS["a"], "b": DOCS["b"]}
    run = index.search(queries, 3, exclude={"a": ["a", "unknown"], "b": ("b", "d")})
    assert "a" not in [d for d, _ in run.found("a")]
    assert not {"b", "d"} & {d for d, _ in run.found("b")}
    assert "a" in [d for d, _ in run.found("b")]


def test_words() -> None:
    assert words("Masses, biopsies and diseases of the pancreas; IL-6 of 2.5.") == [
        "mass", "biopsy", "disease", "pancrea", "il-6", "2.5",
    ]  # fmt: skip
    assert words("Übelkeit") == ["belkeit"]  # English alone


# ---------------------------------------------------------------- vectors


def test_lsa_brings_words_together_that_occur_together() -> None:
    texts = ["myocardial infarction chest pain", "heart attack chest pain", "heart attack sweating chest"] * 3
    texts += ["broken femur surgery", "fractured femur surgery", "broken leg surgery"] * 3
    lsa = LSA.fit(texts, dim=2)
    assert isinstance(lsa, Embedder)
    run = Dense(dict(enumerate(texts)), lsa).search({"q": "myocardial infarction"}, 6)  # type: ignore[arg-type]
    assert {int(n) for n in run.numbers[0]} <= set(range(9)), "the heart attacks, though they share no word"
    assert not BM25({"x": "heart attack"}).search({"q": "myocardial infarction"}).found("q")


def test_lsa_is_the_same_every_time_and_of_unit_length() -> None:
    texts = list(DOCS.values()) * 3
    items = [Item("text", t, None) for t in [*texts, "zzz"]]  # type: ignore[arg-type]
    a, b = LSA.fit(texts, dim=3)(items), LSA.fit(texts, dim=3)(items)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(np.linalg.norm(a[:-1], axis=1), 1, atol=1e-6)
    assert not a[-1].any()


def test_lsa_of_next_to_nothing() -> None:
    assert LSA.fit(["fever", "fever"])([Item("text", "fever", None)]).tolist() == [[1.0]]  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no word"):
        LSA.fit(["the", ""])


class Letters:
    """A tiny embedder: counts of a and b."""

    name = "letters"

    def __init__(self, wide: int = 2) -> None:
        self.wide = wide

    def __call__(self, items: Sequence[Item]) -> np.ndarray:
        rows = np.array([[i.text().count("a"), i.text().count("b")] + [0] * (self.wide - 2) for i in items], np.float32)
        return rows.reshape(len(items), self.wide) / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)


def test_dense_takes_any_embedder_and_two_towers() -> None:
    docs = {"x": "aaa", "y": "ab", "z": "b"}
    run = Dense(docs, Letters()).search({"q": "a"})
    assert [d for d, _ in run.found("q")] == ["x", "y", "z"]
    assert run.found("q")[1][1] == pytest.approx(0.5**0.5)
    with pytest.raises(UsageError, match="not one space"):
        Dense(docs, Letters(), queries=Letters(3)).search({"q": "a"})
    assert Dense(docs, Letters()).search({}).queries == ()


def test_a_broken_embedder_is_named() -> None:
    class Broken(Letters):
        def __call__(self, items: Sequence[Item]) -> np.ndarray:
            return np.full((len(items), 2), np.nan, np.float32)

    with pytest.raises(UsageError, match="letters"):
        Dense({"x": "a"}, Broken())


# ---------------------------------------------------------------- order


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20), st.integers(1, 25), st.sets(st.integers(0, 19)))
def test_best_is_a_stable_sort(values: list[int], k: int, out: set[int]) -> None:
    gone = [i for i in out if i < len(values)]
    numbers, scores = best(np.array(values, float), k, out=gone, above=-2)
    want = sorted((i for i in range(len(values)) if i not in gone and values[i] > -2), key=lambda i: (-values[i], i))
    assert numbers.tolist() == want[:k]
    assert scores.tolist() == [values[i] for i in want[:k]]


def run_of(rows: list[list[int]], documents: str = "wxyz") -> Run:
    numbers = np.array(rows)
    return Run(tuple(f"q{i}" for i in range(len(rows))), tuple(documents), numbers, np.ones(numbers.shape, np.float32))


def test_rrf_golden() -> None:
    """1/(60+1) + 1/(60+3), 1/(60+2) + 1/(60+1), 1/(60+3), and a document that one run alone found."""
    made = rrf([run_of([[0, 1, 2]]), run_of([[1, 3, 0]])])
    assert dict(made.found("q0")) == pytest.approx(
        {"w": 1 / 61 + 1 / 63, "x": 1 / 62 + 1 / 61, "y": 1 / 63, "z": 1 / 62}
    )
    assert [d for d, _ in made.found("q0")] == ["x", "w", "z", "y"]


def test_rrf_of_one_run_is_that_run_and_of_none_an_error() -> None:
    one = run_of([[2, 0, -1], [1, -1, -1]])
    assert [d for d, _ in rrf([one]).found("q0")] == ["y", "w"]
    assert [d for d, _ in rrf([one], 1).found("q0")] == ["y"]
    for wrong in ([], [one, run_of([[0]])], [one, run_of([[0], [0]], "abcd")]):
        with pytest.raises(UsageError):
            rrf(wrong)


@settings(max_examples=30)
@given(st.permutations(range(4)), st.permutations(range(4)), st.permutations(range(4)))
def test_rrf_does_not_care_about_the_order_of_runs(a: list[int], b: list[int], c: list[int]) -> None:
    runs = [run_of([list(p)]) for p in (a, b, c)]
    one, other = dict(rrf(runs).found("q0")), dict(rrf(runs[::-1]).found("q0"))
    assert one == pytest.approx(other)


def test_propagation_sums_over_the_nearest() -> None:
    run = run_of([[0, 1, 2]])
    run.scores[0] = [0.5, 0.4, 0.3]
    links = {"w": ["A", "B"], "x": ["B", "unknown"], "y": ["C"]}
    made = propagate(run, links, ["A", "B", "C"], near=2)
    assert dict(made.found("q0")) == pytest.approx({"B": 0.9, "A": 0.5})


def test_an_unknown_query_is_said() -> None:
    with pytest.raises(UsageError, match="did you mean 'q0'"):
        run_of([[0]]).found("q00")
