"""TIP's phantom and its proof at a tiny size (sheet S86; the rest: tests/models/test_models_table.py)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fabrica.phantom.cohort import CATEGORIES, NAMES, NUMBERS, cohort
from fabrica.proofs import Plan, _icu, _tip, tip
from fabrica.systems import load_system
from fabrica.train import InMemory, fit
from fabrica.train.modality_dropout import ModalityDropout
from fabrica.types import Item, Origin, Record

SMALL = tip.Size(
    seeds=(100, 101), few=(100,), stays=(), tuning=(102,), grid=(1e-3,), unlabelled=64, labels=24, test=60, steps=3,
    fine_steps=2, real_labels=40, real_steps=3, resamples=10,
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
    order = _tip.importance(rows)
    assert sorted(order) == sorted(NAMES)
    changed = [r.updated(labels={"case": float(i % 2)}) for i, r in enumerate(rows)]
    assert _tip.importance(changed) != order


def test_missing_cells_are_as_many_as_said_and_one_is_left() -> None:
    rows = list(cohort(300, 0).records())
    left = _tip.cells_missing(rows, 0.7, 0)
    count = np.array([len(r.first("table").names) for r in left])
    assert count.min() >= 1
    assert count.mean() == pytest.approx(0.3 * len(NAMES), abs=0.3)
    assert _tip.cells_missing(rows, 0.0, 0) == rows


def test_images_are_hidden_in_pre_training_alone_and_only_where_told_to() -> None:
    rows = list(cohort(64, 0).records())
    system = load_system("tip")
    settings = replace(system.settings["cohort"], drop=0.2)
    torch.manual_seed(0)
    bundle = system.build(settings, rows)
    first, second = system.stages(settings, bundle)
    (loss,) = first.objectives.values()
    assert isinstance(loss, ModalityDropout)
    assert (loss.p, loss.fields, loss.unit) == (0.2, ("image",), "role")
    assert not any(isinstance(o, ModalityDropout) for o in second.objectives.values())
    batch = bundle.collate(rows, 0)
    left = [loss.hidden({n: batch.fields[n] for n in ("image", "table")}) for _ in range(20)]
    assert torch.stack([f["image"].valid for f in left]).float().mean() == pytest.approx(0.8, abs=0.05)
    assert all(f["table"].valid.all() for f in left)
    assert loss(bundle.model, batch).count == 64
    (plain,) = system.stages(system.settings["cohort"], bundle)[0].objectives.values()
    assert not isinstance(plain, ModalityDropout)


def test_the_proof_runs_and_says_what_it_found() -> None:
    jobs = [tip.Job(s, SMALL, tip.DEFAULT) for s in SMALL.seeds]
    plan = Plan()
    tuned = [tip.tune(tip.Job(s, SMALL), plan) for s in SMALL.tuning]
    assert set(tuned[0]) == {f"{arm}, lr 0.001" for arm in tip.ARMS}
    parts = [*(tip.part(j, plan) for j in jobs), tip.unrated(tip.Job(100, SMALL, what="others"), plan)]
    proof = tip._proof(SMALL, parts, tip.DEFAULT, tuned, "No real arm here.")
    assert [c.name for c in proof.claims] == [
        "50% missing", "70% missing", "area", "masked cells", "image helps", "matching",
    ]  # fmt: skip
    assert [c.name for c in proof.controls] == ["others' tables"]
    assert set(proof.arms) >= {f"{arm}, {rate:.0%} missing" for arm in tip.ARMS for rate in tip.RATES}
    assert all(len(v) == 2 for k, v in proof.arms.items() if "others" not in k)
    assert set(proof.details["subsets"]) == {f"{arm}, seed 100" for arm in (tip.TIP, tip.JOINT)}
    assert [row[0] for row in proof.details["subsets"]["TIP, seed 100"]] == [
        "image + table", "image", "table", "nothing", "image gone from 80 % of the positives",
        "image gone from 80 % of the negatives", "table gone from 80 % of the positives",
        "table gone from 80 % of the negatives",
    ]  # fmt: skip
    assert set(proof.details["half of the columns gone, most important"]) == {tip.TIP, tip.JOINT}
    assert proof.verdict == "not shown"
    assert "No real arm here" in proof.notes
    assert "real" not in proof.data


def test_reported_people_are_none_that_rates_were_chosen_on() -> None:
    size = tip.Size()
    assert max((*size.seeds, *size.stays)) < 100 <= min(size.tuning)
    assert min(size.grid) < 1e-3
    assert len(size.seeds) >= 3


def stay(i: int) -> Record:
    rng = np.random.default_rng(i)
    names = ("HR.mean", "HR.last", "Na.mean", "Na.last")[: 2 + 2 * int(i % 4 != 0)]
    values = rng.standard_normal(len(names)) + (i % 2) * np.array([1.5, 1.0, 0.0, 0.0])[: len(names)]
    item = Item("table", values.astype(np.float32), Origin("test", f"{i}", "", "CC0-1.0", "synthetic"), names=names)
    return Record(f"s{i}", f"p{i}", items={"table": (item,)}, labels={_icu.DEATH: float(i % 2)})


def test_stays_without_images_are_learned_from_with_few_outcomes(monkeypatch) -> None:
    """Pre-training is never given an outcome; fine-tuning those of `real_labels` stays."""
    rows = [stay(i) for i in range(200)]
    monkeypatch.setattr(_icu, "first_day", lambda folder: rows)
    told = []
    fitted = tip._fit

    def watched(bundle, stages, given, job, plan):
        told.append((stages[0].name, sum(isinstance(r.labels[_icu.DEATH], float) for r in given), len(given)))
        fitted(bundle, stages, given, job, plan)

    monkeypatch.setattr(tip, "_fit", watched)
    found = tip.part(tip.Job(100, SMALL, tip.DEFAULT, "stays", "nowhere"), Plan())
    assert told == [("pretrain", 0, 140), *[("finetune", 40, 40)] * 3]
    assert set(found.arms) == {
        "masked number's error, stays", "stays: logistic, mean fill and what was measured",
        *(f"stays: {arm}" for arm in tip.STAYS),
    }  # fmt: skip
    assert found.arms["stays: logistic, mean fill and what was measured"] > 0.75


@pytest.mark.real_data
def test_a_real_stay_is_one_table_of_its_first_day(shared_data) -> None:
    rows = _icu.first_day(str(shared_data("physionet2012")))
    assert len(rows) > 2000
    assert len({r.subject for r in rows}) == len(rows)
    assert all(set(r.items) <= {"table"} for r in rows)
    assert "summarise 0-24 h" in rows[0].first("table").origin.steps
    assert 0.1 < np.mean([r.labels[_icu.DEATH] for r in rows]) < 0.2
    train, test = _icu.split(rows, 0)
    assert not {r.id for r in train} & {r.id for r in test}


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
