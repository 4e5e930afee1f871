"""Symile as it is wired (sheet S37, "Not a toy"), and its proof at a tiny size."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fabrica.errors import UsageError
from fabrica.proofs import Plan, symile
from fabrica.systems import load_system
from fabrica.train import InMemory, fit
from fabrica.types import Absent

SYSTEM = load_system("symile")
SMALL = symile.Size(seeds=(100, 101), few=(100,), train=512, test=128, steps=12, missing_steps=12, bound_steps=110)


def built(records, **changes):
    settings = replace(SYSTEM.settings["xor"], **{"batch": 32, "steps": 8, **changes})
    torch.manual_seed(0)
    bundle = SYSTEM.build(settings, records)
    return bundle, SYSTEM.stages(settings, bundle)


def tuples(n, fields, seed=0):
    """Records of as many tables of five bits as there are fields; the last is the parity of the others."""
    rng = np.random.default_rng(seed)
    first = symile.records(n, seed, 1.0)
    made = []
    for record in first:
        bits = {f: rng.integers(0, 2, 5).astype(np.float32) for f in fields[:-1]}
        bits[fields[-1]] = (sum(bits.values()) % 2).astype(np.float32)
        item = record.first("a")
        made.append(record.updated(items={f: (replace(item, value=v),) for f, v in bits.items()}))
    return made


@pytest.mark.parametrize(("most", "above"), [(20.0, False), (None, True)])
def test_the_cap_of_the_scale_is_a_setting_and_is_logged(tmp_path, most, above):
    """Products of five unit rows shrink like d^(-3/2): under CLIP's cap of 100 they would hardly train."""
    fields = tuple("abcde")
    records = tuples(64, fields)
    bundle, stages = built(
        records, fields=dict.fromkeys(fields, "linear"), scale=19.9, scale_max=most, lr=0.5, steps=30, batch=64,
    )  # fmt: skip
    fit(bundle, stages, InMemory.of(records, bundle.collate), tmp_path, save_every=0)
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    scales = [line["logit_scale"] for line in lines]
    assert (max(scales) > 20.001) is above
    assert all("multilinear/total_correlation_bound" in line for line in lines)


def test_a_tuple_that_lacks_something_trains_by_a_learned_vector_or_not_at_all():
    records = symile.records(32, 100, 1.0, drop=0.5)
    incomplete = [r for r in records if any(not r.items[f][0].present for f in symile.FIELDS)]
    assert 8 < len(incomplete) < 32
    bundle, (stage,) = built(records, absent="token")
    loss = stage.objectives["multilinear"](bundle.model, bundle.collate(incomplete, 0))
    loss.total.backward()
    assert loss.count == len(incomplete)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in bundle.model.missing.values())
    bundle, (stage,) = built(records, absent="exclude")
    with pytest.raises(UsageError, match="at least 2 pairs; 0 of"):
        stage.objectives["multilinear"](bundle.model, bundle.collate(incomplete, 0))


def test_the_statistics_of_tables_come_from_the_records_given():
    """Missing laboratory values are the training mean with a flag."""
    records = symile.records(200, 100, 1.0, drop=0.3)
    bundle, _ = built(records)
    encode = bundle.collate.fields["a"].encode
    values = np.stack([r.first("a").array() for r in records if r.first("a") is not None])
    np.testing.assert_allclose(encode.mean, values.mean(0), atol=1e-6)


def test_an_unknown_kind_of_tower_is_named():
    with pytest.raises(UsageError, match="kind of tower 'liner'"):
        built(symile.records(8, 100, 1.0), fields={"a": "liner", "b": "linear", "c": "linear"})


def test_the_task_is_xor_and_what_is_dropped_is_absent():
    records = symile.records(300, 100, 1.0, drop=0.5)
    present = np.array([[r.items[f][0].present for f in symile.FIELDS] for r in records])
    assert present.any(1).all()
    assert 0.05 < present.all(1).mean() < 0.25
    assert {i[0].value for r in records for i in r.items.values() if not i[0].present} == {Absent.NOT_DONE}
    for r, whole in zip(records, present.all(1), strict=True):
        if whole:
            a, b, c = (r.first(f).array() for f in symile.FIELDS)
            np.testing.assert_array_equal(np.abs(a - b), c)
    assert [symile.pattern(r.first("b")) for r in symile.every_pattern()] == list(range(32))


def test_symile_learns_xor_clip_stays_at_chance_and_a_seed_repeats():
    arms = symile.accuracies(1.0, 100, replace(SMALL, steps=300, train=4000), Plan(), symile.LOSSES)
    assert arms["Symile"] > 0.9
    assert arms["CLIP"] < 0.1
    again = symile.accuracies(1.0, 100, SMALL, Plan(), symile.LOSSES)
    assert again == symile.accuracies(1.0, 100, SMALL, Plan(), symile.LOSSES)


def test_the_proof_runs_small_and_says_not_shown():
    """Twelve steps cannot learn XOR: a proof that said `shown` here would not be reading its bars."""
    arms, bounds = symile.arms(SMALL, Plan(workers=1))
    assert len(arms) == 9
    assert all(0 <= v <= 1 for values in arms.values() for v in values)
    proof = symile._proof(SMALL, arms, bounds)
    assert proof.verdict == "not shown"
    assert {c.name for c in proof.claims} == {"p = 1", "p = 0.5", "missing"}
    assert {c.name: c.shown for c in proof.controls} == {"p = 0": True, "bound": True}


def test_the_bars_are_read():
    good = {
        "Symile p=1": [1.0, 0.99], "CLIP p=1": [0.03, 0.03], "Symile p=0.5": [0.5, 0.52], "CLIP p=0.5": [0.03, 0.04],
        "Symile p=0": [0.03, 0.03], "CLIP p=0": [0.03, 0.03], "Symile, incomplete tuples used (missing 0.5)": [1.0],
        "CLIP, incomplete tuples used (missing 0.5)": [0.03], "Symile, complete tuples only (missing 0.5)": [0.9],
    }  # fmt: skip
    bounds = [(1.38, 1.386)]
    assert symile._proof(SMALL, good, bounds).verdict == "shown"
    for arm, value in (
        ("Symile p=1", [1.0, 0.97]), ("CLIP p=1", [0.03, 0.07]), ("Symile p=0.5", [0.3, 0.32]),
        ("CLIP p=0", [0.03, 0.06]), ("Symile, incomplete tuples used (missing 0.5)", [0.94]),
    ):  # fmt: skip
        assert symile._proof(SMALL, good | {arm: value}, bounds).verdict == "not shown", arm
    assert symile._proof(SMALL, good, [(1.45, 1.386)]).verdict == "not shown"
