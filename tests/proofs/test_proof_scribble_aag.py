"""The proof of S08 at a tiny size: its data, its arms, and that its bars are read."""

from dataclasses import replace

import numpy as np
import pytest

from fabrica.proofs import Plan
from fabrica.proofs import scribble_aag as proof

SMALL = proof.Size(seeds=(100,), few={}, tuning=(101,), images=6, masks=6, test=4, steps=3, real_steps=3)


def test_an_arm_learns_from_what_it_may_see():
    size = replace(SMALL, images=4, masks=5)
    aag, pce, full, wrong, gates = (
        proof.learned(a, size, 100) for a in (proof.AAG, proof.PCE, proof.FULL, proof.WRONG, proof.GATES)
    )
    assert [len(x) for x in (aag, pce, full, wrong, gates)] == [9, 4, 4, 9, 4]
    assert {r.subject for r in aag[:4]} == {r.subject for r in pce} == {r.subject for r in full}
    assert not {r.subject for r in aag[4:]} & {r.subject for r in pce}
    assert all(r.first("image") is None for r in aag[4:])
    assert all(a.label != b.label for x, y in zip(aag[4:], wrong[4:], strict=True)
               for a, b in zip(x.regions, y.regions, strict=True))  # fmt: skip


@pytest.mark.parametrize("arm", list(proof.ARMS))
def test_every_arm_runs_and_repeats(arm):
    job = proof.Job(arm, 100, SMALL, 1e-2)
    found = proof.part(job, Plan())
    assert 0 <= found["dice"] <= 1
    assert 0 <= found["blobs"] <= 1
    assert set(found["by class"]) == {"rv", "myo", "lv"}
    assert ("gap" in found) == (arm not in proof.ALONE)
    if arm == proof.AAG:
        assert proof.part(job, Plan()) == found


def test_each_arm_takes_the_best_of_one_grid_on_the_tuning_seeds(monkeypatch):
    sign = {proof.AAG: 1, proof.PCE: -1, proof.FULL: 1}
    monkeypatch.setattr(proof, "part", lambda job, plan: {"dice": sign[job.arm] * job.rate})
    monkeypatch.setattr(proof, "spread", lambda f, jobs, plan, what: [proof.part(j, plan) for j in jobs])
    best, tried = proof.tuned(SMALL, Plan())
    assert best == {proof.AAG: max(proof.RATES), proof.PCE: min(proof.RATES), proof.FULL: max(proof.RATES)}
    assert len(tried) == len(proof.RATES) * len(proof.MAIN)
    assert proof.tuned(replace(SMALL, tuning=()), Plan()) == (dict.fromkeys(proof.MAIN, proof.UNTUNED), {})


def test_without_its_pull_the_critic_still_scales_the_strokes_gradient_and_adds_none_of_its_own():
    from fabrica.systems import load_system

    system = load_system("scribble_aag")
    settings = replace(system.settings["tiny"], **proof.ARMS[proof.BALANCED])
    records = proof.learned(proof.BALANCED, SMALL, 100)
    bundle = system.build(settings, records)
    turn = system.stages(settings, bundle)[0].objectives["net/scribble"]
    loss = turn(bundle.model, bundle.collate(records, 0))
    assert loss.terms["a0"] != 1.0
    loss.total.backward()
    mine = bundle.model.net.last.weight.grad / loss.terms["a0"]
    bundle.model.zero_grad()
    plain = replace(turn, adversarial=0.0)(bundle.model, bundle.collate(records, 0))
    plain.total.backward()
    assert np.allclose(mine, bundle.model.net.last.weight.grad, rtol=1e-4, atol=1e-7)


def verdict(aag=(0.92, 0.93, 0.91), pce=(0.80, 0.82, 0.80), full=(0.97, 0.97, 0.98), ours=0.02, theirs=0.1, wrong=0.78):
    found = []
    jobs = []
    size = proof.Size(seeds=(0, 1, 2), few={}, folds=())
    for arm, values in ((proof.AAG, aag), (proof.PCE, pce), (proof.FULL, full), (proof.WRONG, (wrong,) * 3)):
        for seed, value in enumerate(values):
            jobs.append(proof.Job(arm, seed, size, 1e-2))
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
    found = proof.part(proof.Job(proof.PCE, 0, SMALL, 1e-2, str(folder)), Plan())
    assert 0 < found["atlas"]["mean"]["dice"] < 1
    assert found["scores"]["mean"]["n"] == 3 * 6  # three patients, two frames, three structures
