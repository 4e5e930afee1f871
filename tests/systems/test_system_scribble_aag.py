"""Scribbles as the sheet has it (S08, "Not a toy"): who learns when, what is refused, what a segmentation is."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fabrica.errors import Leak
from fabrica.models.dense_bundle import DenseBundle
from fabrica.models.load import load
from fabrica.phantom import hearts
from fabrica.systems import load_system
from fabrica.train import InMemory, alternate, fit, optim
from fabrica.train.log import read

SYSTEM = load_system("scribble_aag")
SMALL = {"widths": (4, 4, 8), "bottleneck": 8, "critic_widths": (4, 8, 8), "batch": 9, "steps": 4}


@pytest.fixture(scope="module")
def records():
    return (
        hearts.records(6, 100, what="scribble") + hearts.records(6, 100, what="image", start=50)
        + hearts.records(6, 100, what="mask", start=90)
    )  # fmt: skip


def built(records, **changes):
    settings = replace(SYSTEM.settings["tiny"], **{**SMALL, **changes})
    torch.manual_seed(0)
    bundle = SYSTEM.build(settings, records)
    return bundle, SYSTEM.stages(settings, bundle)


def test_each_turn_moves_its_own_weights_and_no_others(records, tmp_path, monkeypatch):
    """Critic, segmentor on unmarked images, segmentor on scribbles: snapshots before and after each."""
    seen = []
    turn = alternate._InTurn._turn

    def watched(self, stage, name, at, batch, optimiser):
        before = copy.deepcopy(self.model.state_dict())
        line = turn(self, stage, name, at, batch, optimiser)
        changed = {k.split(".")[0] for k, v in self.model.state_dict().items() if not torch.equal(v, before[k])}
        seen.append((name, changed))
        return line

    monkeypatch.setattr(alternate._InTurn, "_turn", watched)
    bundle, stages = built(records, norm="batch")  # running statistics count, too
    fit(bundle, stages, InMemory.of(records, bundle.collate, mix_by="part"), tmp_path, save_every=0)
    assert seen == [("critic", {"critic"}), ("net/unmarked", {"net"}), ("net/scribble", {"net"})] * 4
    last = read(tmp_path / "train.jsonl")[-1]
    assert {"critic/gap", "critic/area_spread", "net/unmarked", "net/scribble/a0", "net/scribble/pce"} <= set(last)


def test_masks_of_the_scribbled_patients_are_refused(records):
    same = hearts.records(2, 100, what="mask", start=0)
    with pytest.raises(Leak, match="2 subjects"):
        built([*records, *same])


def test_the_lower_bound_of_the_rate_is_not_0():
    """The public code's cycle goes down to `lr // 10`, which is 0 for every rate below 10."""
    _, (stage,) = built(hearts.records(2, 100, what="scribble"))
    plan = replace(stage.schedule, steps=1000)
    assert 0.1 * plan.lr <= optim.rate(plan, 999) < 0.11 * plan.lr


@pytest.mark.parametrize(
    ("changes", "parts"),
    [({"levels": 0, "gates": "none"}, ("net",)), ({"supervision": "full"}, ("net",)),
     ({"levels": 1}, ("net", "critic")), ({"gates": "additive", "levels": 1}, ("net", "critic"))],
)  # fmt: skip
def test_arms_are_settings(records, tmp_path, changes, parts):
    full = hearts.records(9, 100, what="full")
    bundle, stages = built(full if "supervision" in changes else records, **changes)
    assert bundle.model.names == parts
    given = full if "supervision" in changes else records
    assert all(np.isfinite(fit(bundle, stages, given, tmp_path, save_every=0).losses))


def test_a_batch_of_unmarked_images_alone_still_teaches_by_the_critic(records, tmp_path):
    only = [r for r in records if r.groups["part"] != "scribble"]
    bundle, stages = built(only)
    fit(bundle, stages, only, tmp_path, save_every=0)
    assert all("net/unmarked" in x and "net/scribble" not in x for x in read(tmp_path / "train.jsonl"))


def test_any_image_comes_back_on_its_own_grid_and_the_same_after_saving(records, tmp_path):
    """Sides no multiple of 8 and larger than the grid: windows; the critic is saved, and dropped in answering."""
    bundle, _ = built(records)
    wide = hearts.records(1, 100, size=60)[0]
    shares = bundle.segment(wide)
    assert shares.shape == (4, 60, 60)
    np.testing.assert_allclose(shares.sum(0), 1.0, atol=1e-4)
    small = hearts.records(1, 100, size=37)[0]
    assert bundle.segment(small).shape == (4, 37, 37)
    assert bundle.segment(records[-1]) is None  # a mask alone
    centre = bundle.segment(wide, overlap=None)
    assert (centre[0, 0] == 1).all()
    assert centre[:, 30, 30].max() < 1
    folder = bundle.save_pretrained(tmp_path / "model")
    for again in (DenseBundle.from_pretrained(folder), load(folder)):
        assert again.model.names == ("net", "critic")
        np.testing.assert_allclose(again.segment(wide), shares, atol=1e-6)
        assert again.fingerprint == bundle.fingerprint
