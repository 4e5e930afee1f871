"""The proof of S81 at a tiny size: arms, equal budgets, and that its bars are read."""

from dataclasses import replace

import numpy as np
import pytest

from fabrica.models.dense_bundle import DenseBundle
from fabrica.proofs import Plan
from fabrica.proofs import med3d as proof

SMALL = proof.Size(
    seeds=(100,), tuning=(101,), real_seeds=(100,), cases=2, cotrain=3, target=2, test=2, steps=4, look=2, batch=2,
    real_steps=2, real_test=2,
)  # fmt: skip
RATES = dict.fromkeys(proof.ARMS, 5e-3)


@pytest.fixture(scope="module")
def found():
    return proof.part(proof.Job("phantom", 100, SMALL, RATES), Plan())


def test_every_arm_has_the_same_steps_and_looks(found):
    assert set(found["curves"]) == set(proof.ARMS)
    assert all(len(c) == 2 and all(0 <= x <= 1 for x in c) for c in found["curves"].values())


def test_gradients_are_routed_and_would_be_caught_if_not(found):
    assert found["routing"]["encoder"] > 0
    assert found["routing"]["foreign decoder"] == 0.0


def test_shuffled_weights_hold_the_same_numbers_in_another_order(tmp_path):
    eight = DenseBundle.from_pretrained(proof.pretrained(proof.EIGHT, SMALL, 100, Plan(), tmp_path)).model
    mixed = DenseBundle.from_pretrained(proof.pretrained(proof.SHUFFLED, SMALL, 100, Plan(), tmp_path)).model
    a, b = eight.net.encoder.layer2[0].conv1.weight, mixed.net.encoder.layer2[0].conv1.weight
    assert not np.array_equal(a.detach(), b.detach())
    assert np.array_equal(np.sort(a.detach().flatten()), np.sort(b.detach().flatten()))


def test_one_set_and_merged_labels_are_what_they_say(tmp_path):
    one = DenseBundle.from_pretrained(proof.pretrained(proof.ONE, SMALL, 100, Plan(), tmp_path))
    merged = DenseBundle.from_pretrained(proof.pretrained(proof.MERGED, SMALL, 100, Plan(), tmp_path))
    assert len(one.model.net.classes) == 8
    assert merged.model.net.classes == {"merged": 6}


def test_rates_are_the_best_on_the_tuning_seeds(monkeypatch):
    said = {f"{a}, rate {r:g}": (r if a == proof.SCRATCH else -r) for a in (proof.SCRATCH, proof.EIGHT)
            for r in proof.RATES}  # fmt: skip
    monkeypatch.setattr(proof, "spread", lambda f, jobs, plan, what: [said for _ in jobs])
    best, tried = proof.tuned(SMALL, Plan())
    assert best[proof.SCRATCH] == max(proof.RATES)
    assert {best[a] for a in proof.ARMS if a != proof.SCRATCH} == {min(proof.RATES)}
    assert len(tried) == 6
    assert set(proof.tuned(replace(SMALL, tuning=()), Plan())[0].values()) == {proof.UNTUNED}


def verdict(eight=(0.8, 0.8, 0.8), slow=(0.1, 0.2, 0.8), mixed=(0.1, 0.2, 0.8), foreign=0.0):
    size = replace(SMALL, seeds=(0, 1), steps=6)
    curves = {proof.SCRATCH: slow, proof.EIGHT: eight, proof.ONE: eight, proof.MERGED: eight, proof.SHUFFLED: mixed}
    one = {"curves": {k: [*v, v[-1], v[-1]] for k, v in curves.items()},
           "routing": {"encoder": 1.0, "foreign decoder": foreign}}  # fmt: skip
    jobs = [proof.Job("phantom", s, size, RATES) for s in (0, 1)]
    return proof._proof(size, jobs, [one, one], False, {}, RATES)


def test_the_bars_are_read():
    assert verdict().verdict == "shown"
    for name, changes in {
        "faster": {"eight": (0.1, 0.2, 0.8)}, "as high": {"eight": (0.8, 0.8, 0.7)},
        "shuffled weights": {"mixed": (0.8, 0.8, 0.8)}, "routing": {"foreign": 1e-9},
    }.items():  # fmt: skip
        made = verdict(**changes)
        assert not {c.name: c.shown for c in (*made.claims, *made.controls)}[name], name
    assert "left out" in verdict().notes


@pytest.mark.real_data
def test_real_volumes_run_and_an_image_free_shape_stands_beside(shared_data):
    """127 pairs; the mean shape of all others scores what the data's README says, 0.74 / 0.69, centre on centre."""
    folder = shared_data("msd_hippocampus")
    records = proof.hippocampi(folder)
    assert len(records) == 127
    assert {r.label for x in records for r in x.regions} == {"anterior", "posterior"}
    found = proof.part(proof.Job("real", 100, replace(SMALL, real_test=12), RATES, str(folder)), Plan())
    assert set(found) == {
        proof.SCRATCH, proof.EIGHT, "mean shape of the 8, no image", "mean shape of all others, no image",
    }  # fmt: skip
    shape = found["mean shape of all others, no image"]
    assert 0.55 < shape["anterior"]["dice"] < 0.85
    assert shape["anterior"]["n"] == 12
