"""Simulated absences do what they say, at the rates they say, and touch nothing else; scores a subset and a rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import UsageError
from fabrica.evaluate.metrics import auc
from fabrica.evaluate.missing import (
    Blocks,
    ByClass,
    ByValue,
    Cell,
    Mcar,
    Removal,
    Whole,
    area,
    presence_leak,
    rate_curve,
    remove,
    remove_cells,
    subset_grid,
    subsets,
)
from fabrica.types import Absent, Item, Origin, Record

COLUMNS = ("a", "b", "c", "d")
N = 4000
ORIGIN = Origin("test", "x", "", "CC0-1.0", "synthetic")


def records(n: int = 40) -> list[Record]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        items = {
            role: (Item("table", rng.standard_normal(2) + i % 2, ORIGIN, names=("u", "v")),)
            for role in ("labs", "image/frontal")
        }
        made.append(Record(f"{i}", f"p{i}", items=items, labels={"y": float(i % 2)}))
    return made


def metric(columns, weights):
    return auc(columns["truth"], columns["score"], weights)


# ---------------------------------------------------------------- simulators


@given(st.floats(0.05, 0.95), st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_mcar_removes_its_share_and_leaves_the_other_columns(rate: float, seed: int) -> None:
    made = Mcar(rate, ("b", "c"))(COLUMNS, N, seed)
    for column, found in made.rates.items():
        assert found == pytest.approx(rate if column in "bc" else 0.0, abs=0.04)


def test_a_row_keeps_what_it_must() -> None:
    made = Mcar(1.0, leave=1)(COLUMNS, 200, 0)
    assert (made.keep.sum(1) == 1).all()
    assert (made.keep.sum(0) > 20).all()


def test_the_same_seed_gives_the_same_removal_and_another_one_another() -> None:
    rule = Mcar(0.5)
    np.testing.assert_array_equal(rule(COLUMNS, 50, 1).keep, rule(COLUMNS, 50, 1).keep)
    assert (rule(COLUMNS, 50, 1).keep != rule(COLUMNS, 50, 2).keep).any()


def test_by_value_takes_from_those_above_and_an_unknown_value_counts_as_low() -> None:
    value = np.arange(N, dtype=float)
    value[:100] = np.nan
    made = ByValue(value, ("a",), high=0.9, low=0.1, top=0.25)(COLUMNS, N, 0)
    cut = np.quantile(value[100:], 0.75)
    assert 1 - made.keep[value > cut, 0].mean() == pytest.approx(0.9, abs=0.03)
    assert 1 - made.keep[~(value > cut), 0].mean() == pytest.approx(0.1, abs=0.03)
    assert 1 - made.keep[:100, 0].mean() == pytest.approx(0.1, abs=0.1)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_by_class_has_a_rate_a_class_and_flip_exchanges_them(zero: float, one: float, seed: int) -> None:
    label = np.random.default_rng(seed).integers(0, 2, N)
    rule = ByClass(label, ("b",), {0: zero, 1: one})
    for made, rates in ((rule, (zero, one)), (rule.flip(), (one, zero)), (rule.flip().flip(), (zero, one))):
        keep = made(COLUMNS, N, seed).keep
        for c in (0, 1):
            assert 1 - keep[label == c, 1].mean() == pytest.approx(rates[c], abs=0.05)
        assert keep[:, [0, 2, 3]].all()


def test_several_columns_of_a_class_go_together() -> None:
    made = ByClass(np.ones(200, int), ("a", "c"), {1: 0.5})(COLUMNS, 200, 0)
    np.testing.assert_array_equal(made.keep[:, 0], made.keep[:, 2])
    assert 0 < made.keep[:, 0].sum() < 200


def test_whole_columns_are_the_same_in_every_split_and_follow_an_order() -> None:
    train, test = Whole(0.5)(COLUMNS, 10, 3), Whole(0.5)(COLUMNS, 99, 3)
    np.testing.assert_array_equal(train.keep[0], test.keep[98])
    assert train.keep.sum() == 20
    assert Whole(0.25, ("d", "a", "b", "c"))(COLUMNS, 1, 0).keep.tolist() == [[True, True, True, False]]


def test_blocks_remove_patterns() -> None:
    made = Blocks((("a", "b"), ("d",)), (0.2, 0.5))(COLUMNS, N, 0)
    patterns, counts = np.unique(made.keep, axis=0, return_counts=True)
    shares = {tuple(p): c / N for p, c in zip(patterns.tolist(), counts, strict=True)}
    assert shares[(False, False, True, True)] == pytest.approx(0.2, abs=0.03)
    assert shares[(True, True, True, False)] == pytest.approx(0.5, abs=0.03)
    assert shares[(True, True, True, True)] == pytest.approx(0.3, abs=0.03)


def test_permuted_presence_keeps_the_rates_and_forgets_the_label() -> None:
    label = np.random.default_rng(0).integers(0, 2, N)
    made = ByClass(label, ("b",), {1: 0.8})(COLUMNS, N, 0)
    other = made.permuted(0)
    assert other.rates == pytest.approx(made.rates)
    assert abs(other.keep[label == 1, 1].mean() - other.keep[label == 0, 1].mean()) < 0.05


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Mcar(1.5), "shares from 0 to 1"),
        (Mcar(0.5, ("e",)), "no column 'e'"),
        (ByClass(np.zeros(3, int), ("a",), {1: 0.5}), "label has 3 rows, there are 10"),
        (Whole(0.5, ("a", "z")), "no column 'z'"),
        (Blocks((("a",),), (0.5, 0.6)), "one each"),
    ],
)
def test_wrong_rules_are_errors(rule, said) -> None:
    with pytest.raises(UsageError, match=said):
        rule(COLUMNS, 10, 0)


def test_a_rule_of_other_classes_cannot_be_flipped() -> None:
    with pytest.raises(UsageError, match="classes 0 and 1"):
        ByClass(np.zeros(3, int), ("a",), {2: 0.5}).flip()


# ---------------------------------------------------------------- records


def test_removed_items_are_withheld_and_nothing_else_changes() -> None:
    rows = records(4)
    keep = np.array([[True, True], [False, True], [True, False], [False, False]])
    left = remove(rows, Removal(keep, ("labs", "image")))
    assert left[0] is rows[0]
    for record, (labs, image) in zip(left, keep, strict=True):
        assert (record.first("labs") is not None) == labs
        assert (record.first("image") is not None) == image
        for role in ("labs", "image/frontal"):
            (item,) = record.items[role]
            assert item.present or item.value is Absent.WITHHELD
    assert rows[3].first("labs") is not None


def test_removed_cells_leave_names_and_values_together() -> None:
    rows = records(3)
    left = remove_cells(rows, "labs", Removal(np.array([[True, True], [False, True], [False, False]]), ("u", "v")))
    assert left[0].first("labs").names == ("u", "v")
    assert left[1].first("labs").names == ("v",)
    assert left[1].first("labs").array().tolist() == rows[1].first("labs").array()[1:].tolist()
    assert left[2].first("labs") is None
    assert left[2].items["labs"][0].value is Absent.WITHHELD
    assert left[1].first("image") == rows[1].first("image")


# ---------------------------------------------------------------- scores


def test_subsets_are_all_of_few_and_a_sample_of_many() -> None:
    assert len(subsets("abcdef")) == 64
    many = subsets(tuple("abcdefghij"), sample=40)
    assert many[0] == tuple("abcdefghij")
    assert {("a",), (), tuple("bcdefghij")} <= set(many)
    assert len(set(many)) == len(many) >= 40


def said(rows) -> np.ndarray:
    return np.array([sum(float(i.array().sum()) for i in r.all("labs", "image")) for r in rows])


def test_the_grid_scores_each_subset_on_records_that_hold_it_alone() -> None:
    rows = records(200)
    truth = np.array([r.labels["y"] for r in rows])
    cells = {c.present: c for c in subset_grid(said, rows, ("labs", "image"), metric, truth, count=100)}
    assert cells[()].value == 0.5
    assert cells["labs", "image"].value > cells[("labs",)].value > 0.6
    alone = np.array([float(r.first("labs").array().sum()) for r in rows])
    assert cells[("labs",)].value == pytest.approx(auc(truth, alone))
    assert all(c.low <= c.value <= c.high for c in cells.values())
    assert cells[()].n == 200


def test_a_curve_over_rates_and_its_area() -> None:
    rows = records(300)
    truth = np.array([r.labels["y"] for r in rows])

    def make(rate: float):
        return lambda given: remove_cells(given, "labs", Mcar(rate)(("u", "v"), len(given), 0))

    cells = rate_curve(said, [r.without("image/frontal") for r in rows], make, (0.0, 0.5, 1.0), metric, truth, count=50)
    assert cells[0].value > cells[1].value > cells[2].value == 0.5
    assert area(cells) == pytest.approx((cells[0].value + 2 * cells[1].value + cells[2].value) / 4)
    with pytest.raises(UsageError, match="rising"):
        area([Cell((), 1, 1, 1, 1, 0.5), Cell((), 1, 1, 1, 1, 0.5)])


def test_the_leak_is_what_presence_tells_and_nothing_where_it_tells_nothing() -> None:
    rows = records(400)
    truth = np.array([r.labels["y"] for r in rows])
    rule = ByClass(truth.astype(int), ("labs",), {1: 0.8})(("labs", "image"), 400, 0)

    def reads_absence(given) -> np.ndarray:
        return np.array([r.first("labs") is None for r in given], float)

    leak = presence_leak(reads_absence, rows, rule, metric, truth, count=200)
    assert leak.low > 0.3
    blind = presence_leak(lambda given: np.zeros(len(given)), rows, rule, metric, truth, count=200)
    assert blind.value == 0.0
