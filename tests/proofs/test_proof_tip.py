"""TIP's phantom and its proof at a tiny size (sheet S86; the rest: tests/models/test_models_table.py)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fabrica.phantom.cohort import CATEGORIES, NAMES, NUMBERS, cohort
from fabrica.proofs import Plan, tip
from fabrica.systems import load_system
from fabrica.train import InMemory, fit

SMALL = tip.Size(
    seeds=(100, 101), few=(100,), tuning=(102,), grid=(1e-3,), unlabelled=64, labels=24, test=60, steps=3, fine_steps=2,
    resamples=10,
)  # fmt: skip


def test_the_cohort_is_one_person_in_image_and_table() -> None:
    data = cohort(600, 0)
    explained = [
        np.linalg.lstsq(data.traits, data.numbers[:, j], rcond=None)[0] @ data.traits.T for j in range(NUMBERS)
    ]
    share = [np.corrcoef(e, data.numbers[:, j])[0, 1] ** 2 for j, e in enumerate(explained)]
    assert np.mean(share) == pytest.approx(0.64, abs=0.06)
    rank = [np.corrcoef(data.categories[:, j], data.traits[:, j % 3])[0, 1] for j in range(CATEGORIES)]
    assert min(rank) > 0.6
    assert 0.35 < data.label.mean() < 0.6
    wide = np.array([im[:, 24].sum() - im[24].sum() for im in data.images])  # a taller figure has less of trait 0
    assert np.corrcoef(wide, data.traits[:, 0])[0, 1] < -0.5
    again = cohort(600, 0)
    assert (again.images == data.images).all()
    assert (cohort(5, 1).traits != data.traits[:5]).all()


def test_records_hide_the_label_where_they_are_told_to() -> None:
    data = cohort(3, 0)
    assert [r.labels for r in data.records(labelled=False)] == [{}] * 3
    (record, *_) = data.records(prefix="p")
    assert (record.id, record.first("table").names) == ("p0", NAMES)
    assert record.first("table").origin.by == "synthetic"


def test_frozen_fine_tuning_moves_the_classifiers_alone(tmp_path) -> None:
    system = load_system("tip")
    settings = replace(system.settings["cohort"], frozen=True, pretrain=False, fine_steps=3)
    rows = list(cohort(40, 0).records())
    torch.manual_seed(0)
    bundle = system.build(settings, rows)
    before = {n: p.detach().clone() for n, p in bundle.model.named_parameters()}
    stages = system.stages(settings, bundle)
    assert [s.name for s in stages] == ["finetune"]
    fit(bundle, stages, InMemory.of(rows, bundle.collate), tmp_path, save_every=0)
    moved = {n.split(".")[0] for n, p in bundle.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"heads"}


def test_importance_is_that_of_the_labelled_part() -> None:
    rows = list(cohort(80, 0).records())
    order = tip._importance(rows)
    assert sorted(order) == sorted(NAMES)
    changed = [r.updated(labels={"case": float(i % 2)}) for i, r in enumerate(rows)]
    assert tip._importance(changed) != order


def test_missing_cells_are_as_many_as_said_and_one_is_left() -> None:
    rows = list(cohort(300, 0).records())
    left = tip.cells_missing(rows, 0.7, 0)
    count = np.array([len(r.first("table").names) for r in left])
    assert count.min() >= 1
    assert count.mean() == pytest.approx(0.3 * len(NAMES), abs=0.3)
    assert tip.cells_missing(rows, 0.0, 0) == rows


def test_the_proof_runs_and_says_what_it_found() -> None:
    jobs = [tip.Job(s, SMALL, tip.DEFAULT) for s in SMALL.seeds] + [tip.Job(100, SMALL, tip.DEFAULT, True)]
    plan = Plan()
    tuned = [tip.tune(tip.Job(s, SMALL), plan) for s in SMALL.tuning]
    assert set(tuned[0]) == {f"{arm}, lr 0.001" for arm in tip.ARMS}
    proof = tip._proof(SMALL, jobs, [tip.part(j, plan) for j in jobs], tip.DEFAULT, tuned)
    assert [c.name for c in proof.claims] == [
        "50% missing", "70% missing", "area", "masked cells", "image helps", "matching",
    ]  # fmt: skip
    assert [c.name for c in proof.controls] == ["others' tables"]
    assert set(proof.arms) >= {f"{arm}, {rate:.0%} missing" for arm in tip.ARMS for rate in tip.RATES}
    assert all(len(v) == 2 for k, v in proof.arms.items() if "others" not in k)
    assert {row[0] for row in proof.details["subsets, TIP"]} == {"image+table", "image", "table", "nothing"}
    assert set(proof.details["images gone from 80 % of labelled cases, TIP"]) == {"complete", "same", "flipped"}
    assert proof.verdict == "not shown"


def test_a_bar_is_met_against_every_baseline_or_not_at_all() -> None:
    """Ahead of two baselines and not of the third is not shown."""
    arms = {f"{arm}, {rate:.0%} missing": [0.7, 0.71, 0.72] for arm in tip.BASES for rate in tip.RATES}
    arms |= {f"{tip.TIP}, {rate:.0%} missing": [0.8, 0.81, 0.82] for rate in tip.RATES}
    arms |= {"masked number's error with the image": [0.45] * 3, "masked number's error without the image": [0.55] * 3,
             "matching, balanced accuracy": [0.8] * 3}  # fmt: skip
    arms["masked number's error without the image"] = [0.55, 0.56, 0.57]
    assert all(c.shown for c in tip._claims(arms))
    arms[f"{tip.JOINT}, 50% missing"] = [0.8, 0.8, 0.8]
    shown = {c.name: c.shown for c in tip._claims(arms)}
    assert (shown["50% missing"], shown["70% missing"]) == (False, True)
