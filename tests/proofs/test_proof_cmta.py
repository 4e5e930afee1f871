"""CMTA's proof at a very small size: every part runs, arms meet the same patients, bars make the verdict."""

from pathlib import Path

import numpy as np
import pytest

from fabrica.errors import Refused
from fabrica.proofs import Plan
from fabrica.proofs import cmta as proof
from fabrica.sources import Ref
from fabrica.sources.survival_table import read
from fabrica.types import Record

SIZE = proof.Size((0, 1), (0,), (60, 60), (60, 60), (4, 4), (16, 16), longest=24, real_steps=3, resamples=50)


def test_every_part_runs_and_the_verdict_is_made_of_the_bars() -> None:
    jobs = [proof.Job(what, seed, SIZE) for what in ("interaction", "additive") for seed in SIZE.seeds]
    jobs.append(proof.Job("missing", 0, SIZE))
    found = proof._proof(SIZE, jobs, [proof.part(j, Plan()) for j in jobs], has_real=False)
    assert {c.name for c in found.claims} == {"both", "no cost", "interaction"}
    assert all(len(v) == 2 for v in found.arms.values())
    assert "left out" in found.notes
    assert {"omics", "slide", "slide + omics", "nothing"} <= set(found.details["present at the test, CMTA, seed 0"])
    assert found.verdict == ("shown" if all(c.shown for c in (*found.claims, *found.controls)) else "not shown")


def test_exchanged_genes_keep_slides_and_times() -> None:
    rows = proof._data(proof.Job("additive", 0, SIZE))[0]
    mixed = proof._exchanged(rows, 1)
    assert [r.labels for r in mixed] == [r.labels for r in rows]
    assert all(a.items["slide"] is b.items["slide"] for a, b in zip(rows, mixed, strict=True))
    pairs = [[r.items["omics"][0].array() for r in two] for two in zip(rows, mixed, strict=True)]
    moved = [not np.array_equal(a, b) for a, b in pairs]
    assert np.mean(moved) > 0.9


def test_training_and_test_patients_differ() -> None:
    train, test = proof._data(proof.Job("additive", 0, SIZE))
    assert not {r.subject for r in train} & {r.subject for r in test}


@pytest.mark.real_data
def test_a_tcga_cohort_is_one_record_a_patient_with_six_groups(shared_data) -> None:
    folder = shared_data("mcat_tcga_survival")
    rows, groups = proof.cohort(Path(folder), "UCEC")
    assert len(rows) == len({r.subject for r in rows}) == 480  # of 539 slides
    assert len(groups["genes"]) == 6
    assert all(isinstance(r, Record) and r.labels["survival"] != 0 for r in rows)
    assert np.mean([r.labels["survival"] > 0 for r in rows]) < 0.3  # censorship 1 = censored: most lived
    found = proof.part(proof.Job("UCEC", 0, SIZE, str(folder)), Plan())
    assert len(found.arms["TCGA-UCEC: CMTA, by fold"]) == 5
    assert np.mean(found.arms["TCGA-UCEC: penalised Cox, by fold"]) > 0.53


@pytest.mark.real_data
def test_an_archive_that_names_a_member_outside_of_it_is_refused(shared_data) -> None:
    path = Path(shared_data("mcat_tcga_survival")) / "datasets_csv_sig" / "tcga_blca_all_clean.csv.zip"
    with pytest.raises(Refused, match="archive_path"):
        list(read(Ref(path, path.name, "TCGA-BLCA")))
