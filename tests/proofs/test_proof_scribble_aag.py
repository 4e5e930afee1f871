"""The proof of S08 at a tiny size: its data, its arms, and that its bars are read."""

from dataclasses import replace

import numpy as np
import pytest

from fabrica.proofs import Plan
from fabrica.proofs import scribble_aag as proof

SMALL = proof.Size(seeds=(100,), few=(100,), tuning=(101,), images=6, masks=6, test=4, steps=3, real_steps=3)


def test_an_arm_learns_from_what_it_may_see():
    size = replace(SMALL, images=4, masks=5)
    aag, pce, full, wrong = (proof.learned(a, size, 100) for a in (proof.AAG, proof.PCE, proof.FULL, proof.WRONG))
    assert [len(x) for x in (aag, pce, full, wrong)] == [9, 4, 4, 9]
    assert {r.subject for r in aag[:4]} == {r.subject for r in pce} == {r.subject for r in full}
    assert not {r.subject for r in aag[4:]} & {r.subject for r in pce}
    assert all(r.first("image") is None for r in aag[4:])
    assert all(a.label != b.label for x, y in zip(aag[4:], wrong[4:], strict=True)
               for a, b in zip(x.regions, y.regions, strict=True))  # fmt: skip


@pytest.mark.parametrize("arm", list(proof.ARMS))
def test_every_arm_runs_and_repeats(arm):
    job = proof.Job(arm, 100, SMALL, (1e-2, 1.0))
    found = proof.part(job, Plan())
    assert 0 <= found["dice"] <= 1
    assert 0 <= found["blobs"] <= 1
    assert set(found["by class"]) == {"rv", "myo", "lv"}
    assert ("gap" in found) == (arm not in (proof.PCE, proof.FULL))
    if arm == proof.AAG:
        assert proof.part(job, Plan()) == found


def test_each_arm_takes_the_best_of_its_own_grid_on_the_tuning_seeds(monkeypatch):
    monkeypatch.setattr(
        proof, "part", lambda job, plan: {"dice": job.choice[0] * job.choice[1] + 0.1 * (job.seed > 99)}
    )
    monkeypatch.setattr(proof, "spread", lambda f, jobs, plan, what: [proof.part(j, plan) for j in jobs])
    best, tried = proof.tuned(SMALL, Plan())
    assert best == {proof.AAG: (1.2e-2, 1.0), proof.PCE: (1.2e-2, 1.0), proof.FULL: proof.UNTUNED[proof.FULL]}
    assert len(tried) == 6
    assert proof.tuned(replace(SMALL, tuning=()), Plan()) == (dict(proof.UNTUNED), {})


def verdict(aag=(0.92, 0.93, 0.91), pce=(0.80, 0.82, 0.80), full=(0.97, 0.97, 0.98), ours=0.02, theirs=0.1, wrong=0.78):
    found = []
    jobs = []
    size = proof.Size(seeds=(0, 1, 2), few=(0, 1, 2), folds=())
    for arm, values in ((proof.AAG, aag), (proof.PCE, pce), (proof.FULL, full), (proof.WRONG, (wrong,) * 3)):
        for seed, value in enumerate(values):
            jobs.append(proof.Job(arm, seed, size, (1e-2, 1.0)))
            found.append({"dice": value, "blobs": ours if arm == proof.AAG else theirs, "by class": {}})
    return proof._proof(size, jobs, found, False, {})


def test_the_bars_are_read():
    assert verdict().verdict == "shown"
    assert "left out" in verdict().notes
    for name, changes in {
        "scribbles": {"aag": (0.86, 0.87, 0.86)}, "distractors": {"ours": 0.06}, "gap": {"pce": (0.5, 0.5, 0.5),
        "aag": (0.6, 0.61, 0.6)}, "wrong-class masks": {"wrong": 0.9},
    }.items():  # fmt: skip
        made = verdict(**changes)
        assert made.verdict == "not shown", name
        assert not {c.name: c.shown for c in (*made.claims, *made.controls)}[name]


def test_the_image_free_shape_is_the_most_frequent_label():
    one, two = np.zeros((4, 4), int), np.ones((4, 4), int)
    assert (proof.mean_shape([one, two, two]) == 1).all()


@pytest.mark.real_data
def test_real_patients_are_in_one_part_alone_and_the_arm_runs(shared_data):
    folder = shared_data("acdc_scribble_slices")
    records = proof.acdc(folder)
    for fold in range(3):
        parts = proof.folds(records, fold)
        people = [{r.subject for r in p} for p in parts]
        assert [len(p) for p in people] == [4, 3, 3]
        assert not people[0] & people[1]
        assert not people[1] & people[2]
        assert not people[0] & people[2]
        assert sum(map(len, parts)) == len(records)
    found = proof.part(proof.Job(proof.PCE, 0, SMALL, (1e-2, 0.5), str(folder)), Plan())
    assert 0 < found["atlas"]["mean"]["dice"] < 1
    assert found["scores"]["mean"]["n"] == 3 * 6  # three patients, two frames, three structures
