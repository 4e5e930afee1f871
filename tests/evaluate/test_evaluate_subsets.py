"""Any-subset tables: every declared subset with its interval, and what absence that knows the truth does to a score."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from fabrica.errors import UsageError
from fabrica.evaluate import run
from fabrica.evaluate.any_subset import AnySubset, with_subsets
from fabrica.evaluate.bootstrap import interval
from fabrica.evaluate.metrics import auc
from fabrica.evaluate.missing import subsets
from fabrica.evaluate.subsets import Line, Shift, plain, shifts, subset_table
from fabrica.evaluate.survival import c_index, c_index_within
from fabrica.job.spec import TaskSpec
from fabrica.job.tasks import tasks_of
from fabrica.phantom.oncology import additive
from fabrica.phantom.views import views
from fabrica.proofs import multimodn, table
from fabrica.systems import load_system
from fabrica.types import Absent, Item, Origin, Record

ORIGIN = Origin("test", "x", "", "CC0-1.0", "synthetic")
ROLES = ("image", "labs")


def records(n: int = 200) -> list[Record]:
    """`labs` tells the label well, `image` a little."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        y = i % 2
        items = {
            role: (Item("table", np.array([y + s * rng.standard_normal()]), ORIGIN, names=("u",)),)
            for role, s in (("labs", 0.8), ("image", 1.2))
        }
        made.append(Record(f"{i}", f"p{i // 2 if i > 20 else i}", items=items, labels={"y": float(y)}))
    return made


def metric(columns, weights):
    return auc(columns["truth"], columns["score"], weights)


def truth(rows) -> np.ndarray:
    return np.array([r.labels["y"] for r in rows], float)


def summed(rows) -> np.ndarray:
    """Adds what is there, centred: absence says nothing."""
    made = []
    for r in rows:
        held = [item.array()[0] - 0.5 for role in ROLES if (item := r.first(role)) is not None]
        made.append(sum(held))
    return np.array(made)


def by_absence(rows) -> np.ndarray:
    """A model that has learned that the sick have no labs."""
    return np.array([float(r.first("labs") is None) for r in rows])


def test_a_table_has_every_subset_and_both_directions_of_each_role() -> None:
    rows = records()
    found = subset_table(summed, rows, ROLES, metric, truth(rows), rate=0.5, count=100)
    assert [line.present for line in found] == [
        "image + labs", "image", "labs", "nothing", "image gone from 50 % of the positives",
        "image gone from 50 % of the negatives", "labs gone from 50 % of the positives",
        "labs gone from 50 % of the negatives",
    ]  # fmt: skip
    by = {line.present: line for line in found}
    assert by["nothing"].value == 0.5
    assert by["image + labs"].value > by["labs"].value > by["image"].value > 0.55
    assert all(line.low <= line.value <= line.high for line in found)
    whole = interval(metric, {"truth": truth(rows), "score": summed(rows)}, [r.subject for r in rows], count=100)
    assert (by["image + labs"].value, by["image + labs"].low) == (whole.value, whole.low)


def test_a_model_that_reads_absence_wins_one_way_and_loses_the_other() -> None:
    rows = records()
    by = {line.present: line.value for line in subset_table(by_absence, rows, ROLES, metric, truth(rows), count=20)}
    assert by["image + labs"] == 0.5
    assert by["labs gone from 80 % of the positives"] == pytest.approx(0.9, abs=0.05)
    assert by["labs gone from 80 % of the negatives"] == pytest.approx(0.1, abs=0.05)


def test_absence_shifts_with_another_number_and_unknown_rows_keep_all() -> None:
    value = np.array([1.0, 2.0, 3.0, 4.0, np.nan])
    high, low = (Shift("labs", 1.0, upper).removal(value, ROLES, 0).keep[:, 1].tolist() for upper in (True, False))
    assert (high, low) == ([True, True, False, False, True], [False, False, True, True, True])
    known = Shift("labs", 1.0).removal(np.array([1.0, np.nan, 0.0]), ROLES, 0)
    assert known.keep.tolist() == [[True, False], [True, True], [True, True]]
    assert len(shifts(ROLES)) == 4


def test_the_order_of_rows_and_a_row_of_unknown_truth_change_no_score() -> None:
    rows = records()
    want = {x.present: x.value for x in subset_table(summed, rows, ROLES, metric, truth(rows), count=20)}
    order = np.random.default_rng(1).permutation(len(rows))
    mixed = [rows[i] for i in order] + [rows[0].updated(id="odd", labels={})]
    column = np.append(truth([rows[i] for i in order]), np.nan)
    got = subset_table(summed, mixed, ROLES, metric, column, count=20)
    assert {x.present: x.value for x in got[:4]} == pytest.approx({k: want[k] for k in list(want)[:4]})
    assert got[0].n == len(rows)
    with pytest.raises(UsageError, match="at least one role"):
        subset_table(summed, rows, (), metric, truth(rows))


def test_c_within_folds_never_compares_two_models() -> None:
    rng = np.random.default_rng(0)
    y = rng.exponential(size=60) * rng.choice([1, -1], 60)
    score, fold = rng.standard_normal(60), np.arange(60) % 3
    columns = {"truth": y, "score": score + 100 * fold, "fold": fold}
    want = np.mean([c_index(y[fold == f], score[fold == f]) for f in range(3)])
    assert c_index_within(columns) == pytest.approx(want)
    weights = rng.integers(0, 3, (5, 60)).astype(float)
    each = [
        np.mean([c_index(y[fold == f], score[fold == f], w[None, fold == f])[0] for f in range(3)]) for w in weights
    ]
    np.testing.assert_allclose(c_index_within(columns, weights), each)
    assert np.isnan(c_index_within({"truth": -np.ones(4), "score": np.arange(4.0), "fold": np.zeros(4)}))


def test_proofs_print_tables_of_the_same_kinds_side_by_side() -> None:
    one = plain([Line("image", 0.71239, 0.65, 0.77, 40), Line("nothing", 0.5, 0.5, 0.5, 40)])
    lines = table.subsets({"net": one, "real": [["labs", 0.9, 0.8, 1.0]], "base": [["image", 0.6, 0.5, 0.7], one[1]]})
    assert lines == [
        "| there at the test | net | base |", "|---|---|---|",
        "| image | 0.712 [0.650, 0.770] | 0.600 [0.500, 0.700] |",
        "| nothing | 0.500 [0.500, 0.500] | 0.500 [0.500, 0.500] |", "",
        "| there at the test | real |", "|---|---|", "| labs | 0.900 [0.800, 1.000] |",
    ]  # fmt: skip


# ---------------------------------------------------------------- as a task of `fabrica evaluate`

SCHEMA = pa.schema(
    [("id", pa.string()), ("subject", pa.string()), ("tags", pa.list_(pa.string())), ("bytes", pa.int64())]
)


class Held:
    """A corpus in memory."""

    def __init__(self, rows):
        self.held = rows

    def scan(self, where=None, *, roles=None):
        for r in self.held:
            yield r if roles is None else r.updated(items={k: v for k, v in r.items.items() if k in roles})

    def split_hash(self, where=None):
        return hashlib.sha256(b"held").hexdigest()

    def rows(self, columns, where=None):
        columns = {
            "id": [r.id for r in self.held], "subject": [r.subject for r in self.held],
            "tags": [[] for _ in self.held], "bytes": [0] * len(self.held),
        }  # fmt: skip
        return pa.table(columns, schema=SCHEMA)


@pytest.fixture(scope="module")
def fusion():
    rows = multimodn.records(views(90, 3))
    rows[0] = rows[0].updated(labels={"y": Absent.NOT_DONE})
    torch.manual_seed(0)
    system = load_system("multimodn")
    return system.build(system.settings["views"], rows), rows


def test_a_fusion_is_judged_from_every_subset_on_its_card(fusion, tmp_path) -> None:
    bundle, rows = fusion
    scores = run(bundle, Held(rows), tmp_path, tasks=[AnySubset()], allow_leak=True)
    first = {s.arm: s for s in scores if s.metric == "AUC"}
    assert list(first) == [
        "model", "only one", "only two", "nothing", "one gone from 80 % of the positives",
        "one gone from 80 % of the negatives", "two gone from 80 % of the positives",
        "two gone from 80 % of the negatives",
    ]  # fmt: skip
    answered = bundle.answer(rows[1:], without=["one"]).tasks["y"][:, 1]
    assert first["only two"].value == pytest.approx(auc(np.array([r.labels["y"] for r in rows[1:]]), answered))
    assert first["nothing"].value == 0.5
    assert {(s.n, s.data) for s in first.values()} == {(89, "phantom")}
    assert "there: one 100%, two 100%; 1 without a known label" in first["model"].note
    gaps = [s for s in scores if s.metric == "AUC difference"]
    assert {s.arm for s in gaps} == {f"model minus {arm}" for arm in first if arm != "model"}


def test_a_task_that_no_record_knows_or_the_model_lacks_is_named(fusion, tmp_path) -> None:
    bundle, rows = fusion
    unknown = Held([r.updated(labels={}) for r in rows])
    with pytest.raises(UsageError, match="known label 'y'"):
        run(bundle, unknown, tmp_path, tasks=[AnySubset()], allow_leak=True)
    with pytest.raises(UsageError, match="no task of the model"):
        run(bundle, Held(rows), tmp_path, tasks=[AnySubset(labels=("yy",))], allow_leak=True)
    plain_model = SimpleNamespace(model=None, fields=("image", "text"))
    with pytest.raises(UsageError, match="wanted a fusion"):
        run(plain_model, Held(rows), tmp_path, tasks=[AnySubset()], allow_leak=True)


def test_every_fusion_gets_the_table_once(fusion) -> None:
    bundle, _ = fusion
    assert [type(t) for t in with_subsets([], bundle)] == [AnySubset]
    mine = AnySubset(rate=0.3)
    assert with_subsets([mine], bundle) == [mine]
    assert with_subsets([], SimpleNamespace(model=None, fields=("image", "text"))) == []
    (made,) = tasks_of([TaskSpec("any_subset", "what is there", labels=("y",))])
    assert (made.name, made.labels) == ("what is there", ("y",))


def test_times_are_judged_by_a_c_index(tmp_path) -> None:
    rows = additive(60, 5, patches=(4, 8))
    system = load_system("cmta")
    torch.manual_seed(0)
    bundle = system.build(replace(system.settings["tiny"], patches=8), rows)
    scores = run(bundle, Held(rows), tmp_path, tasks=[AnySubset()], allow_leak=True)
    main = {s.arm: s.value for s in scores if s.metric == "C-index"}
    assert list(main)[:4] == ["model", "only slide", "only genes", "nothing"]
    assert main["nothing"] == 0.5
    assert "genes gone from 80 % of the high half" in main
    assert set(subsets(("slide", "genes"))) == {("slide", "genes"), ("slide",), ("genes",), ()}
