"""Graded retrieval metrics: golden values by hand, scikit-learn's nDCG, and what must always hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from fabrica.errors import UsageError
from fabrica.evaluate.bootstrap import paired
from fabrica.evaluate.metrics import mean
from fabrica.evaluate.ranking import per_query, ranking_scores
from fabrica.retrieve import Run

DOCS = tuple("abcdefgh")


def run_of(*rows: str) -> Run:
    """One query a row of letters; a dot is nothing found."""
    numbers = np.array([[DOCS.index(c) if c != "." else -1 for c in row] for row in rows])
    return Run(tuple(f"q{i}" for i in range(len(rows))), DOCS, numbers, np.ones(numbers.shape, np.float32))


def test_golden_by_hand() -> None:
    """Relevant: b (2), d (1), g (1, never found). Found: a b c d. DCG = 2/log2 3 + 1/log2 5; ideal = 2 + 1/log2 3 +
    1/log2 4."""
    run, qrels = run_of("abcd"), {"q0": {"b": 2, "d": 1, "g": 1, "a": 0}}
    got = ranking_scores(run, qrels, ["MRR", "MAP", "P@2", "P@10", "R@2", "R@10", "nDCG@10", "nDCG@1"])
    dcg = 2 / np.log2(3) + 1 / np.log2(5)
    assert got == pytest.approx(
        {"MRR": 0.5, "MAP": (1 / 2 + 2 / 4) / 3, "P@2": 0.5, "P@10": 0.2, "R@2": 1 / 3, "R@10": 2 / 3,
         "nDCG@10": dcg / (2 + 1 / np.log2(3) + 0.5), "nDCG@1": 0.0}
    )  # fmt: skip


def test_nothing_found_is_zero_and_counts() -> None:
    run, qrels = run_of("..", "ab"), {"q0": {"a": 1}, "q1": {"a": 1}}
    assert ranking_scores(run, qrels, ["MRR", "MAP", "R@2", "nDCG@2"]) == dict.fromkeys(
        ["MRR", "MAP", "R@2", "nDCG@2"], 0.5
    )


def test_what_has_no_answer_is_an_error() -> None:
    for qrels in ({}, {"q0": {}}, {"q0": {"a": 0}}):
        with pytest.raises(UsageError, match="q0"):
            ranking_scores(run_of("ab"), qrels)
    with pytest.raises(UsageError, match="no query"):
        ranking_scores(Run((), DOCS, np.zeros((0, 1), int), np.zeros((0, 1))), {})
    for name in ("MRP", "P@", "R@0", "F@3", "nDCG"):
        with pytest.raises(UsageError, match="ranking metric"):
            ranking_scores(run_of("ab"), {"q0": {"a": 1}}, [name])


def test_two_runs_are_compared_by_the_shared_bootstrap() -> None:
    qrels = {f"q{i}": {"a": 1} for i in range(6)}
    good, bad = (per_query(run_of(*rows), qrels, ["MRR"]) for rows in (["ab"] * 6, ["ba"] * 6))
    found = paired(lambda c, w: mean(c["MRR"], w), good, bad, [f"p{i}" for i in range(6)])
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


GRADES = st.dictionaries(st.sampled_from(DOCS), st.integers(1, 3), min_size=1)
ORDER = st.permutations(DOCS)


@given(GRADES, ORDER)
def test_as_scikit_learn(grades: dict[str, int], order: list[str]) -> None:
    got = ranking_scores(run_of("".join(order)), {"q0": grades}, ["nDCG@3", "nDCG@8", "MAP"])
    truth = np.array([[grades.get(d, 0) for d in order]])
    score = np.arange(8, 0, -1)[None]
    assert got["nDCG@3"] == pytest.approx(ndcg_score(truth, score, k=3))
    assert got["nDCG@8"] == pytest.approx(ndcg_score(truth, score))
    assert got["MAP"] == pytest.approx(average_precision_score(truth[0] > 0, score[0]))


@given(GRADES, ORDER)
def test_all_lie_in_0_to_1_and_the_best_order_has_1(grades: dict[str, int], order: list[str]) -> None:
    names = ["MRR", "MAP", "P@1", "nDCG@5", "R@8"]
    got = ranking_scores(run_of("".join(order)), {"q0": grades}, names)
    assert all(0 <= v <= 1 + 1e-12 for v in got.values())
    assert got["R@8"] == 1
    ideal = sorted(order, key=lambda d: -grades.get(d, 0))
    assert ranking_scores(run_of("".join(ideal)), {"q0": grades}, names) == pytest.approx(dict.fromkeys(names, 1.0))
