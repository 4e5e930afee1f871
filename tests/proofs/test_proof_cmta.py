"""CMTA's proof at a very small size: every part runs, arms meet the same patients, bars make the verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fabrica.errors import Refused
from fabrica.evaluate.survival import c_index, ridge_cox
from fabrica.proofs import Plan, _tcga
from fabrica.proofs import cmta as proof
from fabrica.sources import Ref
from fabrica.sources.survival_table import read
from fabrica.systems import load_system
from fabrica.train.modality_dropout import ModalityDropout
from fabrica.types import Item, Origin, Record

SIZE = proof.Size(
    (100, 101), (100,), (102,), (1e-3, 3e-3), (60, 60), (60, 60), (4, 4), (16, 16), longest=24, cohorts=(), resamples=50
)  # fmt: skip


def test_every_part_runs_and_the_verdict_is_made_of_the_bars() -> None:
    tuned = [proof.tune(proof.Job(world, 102, SIZE), Plan()) for world in proof.ARMS]
    assert [len(t) for t in tuned] == [8, 4]  # every arm of a world at both rates
    rates = proof.chosen(tuned, SIZE.grid)
    assert set(rates) == {
        f"{world}: {arm}" for world, arms in proof.ARMS.items() for arm in arms if arm not in proof.FEW
    }
    told = replace(proof.Job("interaction", 0, SIZE), rates={"interaction: CMTA": 0.5})
    assert told.rate("interaction", "CMTA, alpha 0") == 0.5
    jobs = [proof.Job(what, seed, SIZE, rates) for what in ("interaction", "additive") for seed in SIZE.seeds]
    jobs.append(proof.Job("missing", 100, SIZE, rates))
    found = proof._proof(SIZE, [proof.part(j, Plan()) for j in jobs], tuned, "The real arm is left out.")
    assert {c.name for c in found.claims} == {"both", "no cost", "interaction"}
    assert {k: len(v) for k, v in found.arms.items() if len(v) != 2} == {f"interaction: {arm}": 1 for arm in proof.FEW}
    assert "left out" in found.notes
    tables = found.details["subsets"]
    assert set(tables) == {f"{arm}, a fifth hidden in training, seed 100" for arm in ("CMTA", "late fusion")}
    assert [row[0] for row in next(iter(tables.values()))] == [
        "slide + omics", "slide", "omics", "nothing", "slide gone from 80 % of the high half",
        "slide gone from 80 % of the low half", "omics gone from 80 % of the high half",
        "omics gone from 80 % of the low half",
    ]  # fmt: skip
    assert found.verdict == ("shown" if all(c.shown for c in (*found.claims, *found.controls)) else "not shown")


def test_the_rate_is_the_best_of_the_mean_over_tuning_seeds() -> None:
    one, two = {"w: a, lr 0.1": 0.9, "w: a, lr 1": 0.6}, {"w: a, lr 0.1": 0.5, "w: a, lr 1": 0.7}
    assert proof.chosen([one], (0.1, 1.0)) == {"w: a": 0.1}
    assert proof.chosen([one, two], (0.1, 1.0)) == {"w: a": 0.1}
    assert proof.chosen([one, two, two], (0.1, 1.0)) == {"w: a": 1.0}


def test_exchanged_genes_keep_slides_and_times() -> None:
    rows = proof._train(proof.Job("additive", 0, SIZE))
    mixed = proof._exchanged(rows, 1)
    assert [r.labels for r in mixed] == [r.labels for r in rows]
    assert all(a.items["slide"] is b.items["slide"] for a, b in zip(rows, mixed, strict=True))
    pairs = [[r.items["omics"][0].array() for r in two] for two in zip(rows, mixed, strict=True)]
    moved = [not np.array_equal(a, b) for a, b in pairs]
    assert np.mean(moved) > 0.9


def test_patients_to_learn_from_to_tune_on_and_to_report_differ() -> None:
    job = proof.Job("additive", 0, SIZE)
    parts = [proof._train(job), proof._test("additive", SIZE), proof._test("additive", SIZE, proof.TUNED_ON)]
    subjects = [{r.subject for r in part} for part in parts]
    assert len(set.union(*subjects)) == sum(map(len, subjects))
    assert min(proof.Size().seeds) < 100 <= min(proof.Size().tuning)


def test_a_share_of_sides_is_hidden_in_training_where_the_system_is_told_to() -> None:
    rows = proof._train(proof.Job("additive", 0, SIZE))
    system = load_system("cmta")
    settings = replace(system.settings["phantom"], drop=0.3)
    torch.manual_seed(0)
    bundle = system.build(settings, rows)
    (stage,) = system.stages(settings, bundle)
    (loss,) = stage.objectives.values()
    assert isinstance(loss, ModalityDropout)
    assert (loss.p, loss.keep, loss.fields) == (0.3, 1, ("slide", "genes"))
    assert loss(bundle.model, bundle.collate(rows, 0)).count == len(rows)
    (plain,) = system.stages(replace(settings, drop=0.0), bundle)[0].objectives.values()
    assert not isinstance(plain, ModalityDropout)


# ---------------------------------------------------------------- TCGA


def made_cohort(n: int = 60) -> _tcga.Cohort:
    """Synthetic: one gene tells the time, age a little; no slide."""
    rng = np.random.default_rng(0)
    origin = Origin("test", "x", "", "CC0-1.0", "synthetic")
    rows = []
    for i in range(n):
        genes, age = rng.standard_normal(4), float(rng.integers(40, 80))
        months = float(np.exp(-1.5 * genes[0] - 0.01 * age) * rng.exponential()) + 0.01
        item = Item("omics", genes, origin, names=("A_rnaseq", "B_rnaseq", "A_cnv", "C_cnv"))
        clinical = Item("table", np.array([age, 1.0]), origin, names=("age", "is_female"))
        profile = Item("omics", genes[:2], origin, names=item.names[:2])
        copies = Item("omics", np.append(genes[2:], age), origin, names=(*item.names[2:], "age"))
        items = {"omics": (item,), "clinical": (clinical,), "profile": (profile,), "copies": (copies,)}
        rows.append(Record(f"{i}", f"p{i}", items=items, labels={"survival": months if i % 3 else -months}))
    groups = {"genes": {"one": ("A",), "two": ("B", "C")}, "profile": {"one": ("A",), "two": ("B",)}}
    return _tcga.Cohort("MADE", rows, {**groups, "copies": {"one": ("A", "C"), "clinical": ("age",)}})


def test_folds_are_shared_settings_are_chosen_inside_and_every_patient_is_told_once(monkeypatch) -> None:
    data = made_cohort()
    two = ({"steps": 2, "alpha": 0.0}, {"steps": 3, "alpha": 1.0})
    monkeypatch.setattr(_tcga, "NETS", {_tcga.GENES: ({"steps": 2}, {"steps": 12}), _tcga.SIDES: two})
    made = _tcga.told(data, 0, Plan(), tuple(_tcga.NETS))
    assert np.bincount(made.fold).tolist() == [12] * 5
    assert all(np.isfinite(risks).all() for risks in made.risks.values())
    beside = {_tcga.COX_GENES, _tcga.COX_ALL, _tcga.COX_CLINICAL, _tcga.AGE, _tcga.CHANCE}
    nets = {_tcga.GENES, _tcga.SIDES, f"{_tcga.SIDES}, without profile", f"{_tcga.SIDES}, without copies"}
    assert set(made.risks) == beside | nets
    assert [len(v) for v in made.chosen.values()] == [5] * 5
    arms, tables = _tcga.summary(data, made, 50)
    assert len(arms[f"TCGA-MADE: {_tcga.GENES}, by fold"]) == 5
    value, low, high = tables["C within folds"][_tcga.COX_GENES]
    assert value == pytest.approx(np.mean(arms[f"TCGA-MADE: {_tcga.COX_GENES}, by fold"]), abs=1e-4)
    assert 0.5 < low < value < high
    assert (tables["patients"], tables["deaths"]) == (60, 40)
    assert "age alone" in _tcga.said({"MADE": tables})


def test_a_fold_is_filled_and_scaled_by_its_training_rows_alone() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((40, 3)), rng.exponential(size=40) + 0.1
    train, test = np.arange(25), np.arange(25, 40)
    before = _tcga._cox(x, y, train, test[:1], 0.3)
    x[30:] = 1e6  # other people of the fold to report
    np.testing.assert_allclose(_tcga._cox(x, y, train, test[:1], 0.3), before)
    x[25, 1] = np.nan
    assert np.isfinite(_tcga._cox(x, y, train, test[:1], 0.3)).all()


@pytest.mark.real_data
def test_both_tcga_cohorts_are_one_record_a_patient_with_six_groups(shared_data) -> None:
    folder = Path(shared_data(_tcga.REAL))
    for name, patients, deaths, first in (("UCEC", 480, 75, "mutation"), ("BLCA", 373, 169, "rnaseq")):
        data = _tcga.cohort(folder, name)
        y = data.labels
        assert len(data.rows) == len({r.subject for r in data.rows}) == patients  # of 539 and 437 slides
        assert ((y > 0).sum(), (y == 0).sum()) == (deaths, 0)  # censorship 1 = censored
        assert {g: len(m) for g, m in data.groups.items()} == {"genes": 6, "profile": 6, "copies": 7}
        columns = data.rows[0].first("profile").names
        assert any(c.endswith("_rnaseq") for c in columns) == (first == "rnaseq")
        values = np.concatenate([r.first("profile").array() for r in data.rows[:50]])
        assert (set(np.unique(values)) == {0.0, 1.0}) == (first == "mutation")
        assert all(r.first("slide") is None for r in data.rows)


@pytest.mark.real_data
def test_cox_on_a_cohort_is_that_of_scikit_survival(shared_data) -> None:
    linear, metrics = pytest.importorskip("sksurv.linear_model"), pytest.importorskip("sksurv.metrics")
    data = _tcga.cohort(Path(shared_data(_tcga.REAL)), "BLCA")
    y, x = data.labels, _tcga.matrix(data.rows, ("omics",))[:, :40]
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9)
    outcome = np.array(list(zip(y > 0, np.abs(y), strict=True)), dtype=[("event", bool), ("time", float)])
    ours = x @ ridge_cox(x, y, 0.3)
    theirs = x @ linear.CoxPHSurvivalAnalysis(alpha=0.3 * (y > 0).sum(), ties="breslow").fit(x, outcome).coef_
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999
    assert c_index(y, ours) == pytest.approx(metrics.concordance_index_censored(y > 0, np.abs(y), ours)[0], abs=0.002)


@pytest.mark.real_data
def test_an_archive_that_names_a_member_outside_of_it_is_refused_unless_the_member_is_named(shared_data) -> None:
    place, member = _tcga.COHORTS["BLCA"]
    path = Path(shared_data(_tcga.REAL)) / place
    with pytest.raises(Refused, match="archive_path"):
        list(read(Ref(path, path.name, "TCGA-BLCA")))
    first = next(iter(read(Ref(path, path.name, "TCGA-BLCA", columns={"member": member}))))
    assert isinstance(first, Record)
    assert not list(path.parent.glob("*.csv.zip.*"))
