"""Med3D as the sheet has it (S81, "Not a toy"): heads apart, a transfer that reports, predictions that repeat."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fabrica.errors import Refused, UsageError
from fabrica.models.dense import Condition
from fabrica.models.load import load
from fabrica.phantom import bodies
from fabrica.systems import load_system
from fabrica.train import fit, optim
from fabrica.types import Item, Region

SYSTEM = load_system("med3d")
SMALL = {"widths": (4, 4, 8, 8), "batch": 8, "steps": 3}


@pytest.fixture(scope="module")
def records():
    return bodies.sets(2, 100)


def built(records, **changes):
    settings = replace(SYSTEM.settings["tiny"], **{**SMALL, **changes})
    torch.manual_seed(0)
    bundle = SYSTEM.build(settings, records)
    return bundle, SYSTEM.stages(settings, bundle)


def test_training_on_one_set_leaves_the_other_decoders_bit_identical(records, tmp_path):
    """Weight decay is on: what has no gradient does not drift."""
    bundle, stages = built(records, weight_decay=0.5)
    before = {n: p.detach().clone() for n, p in bundle.model.named_parameters()}
    fit(bundle, stages, [r for r in records if r.groups["source"] == "set3"], tmp_path, save_every=0)
    moved = {n for n, p in bundle.model.named_parameters() if not torch.equal(p, before[n])}
    heads = {n.split(".")[2] for n in moved if n.startswith("net.heads.")}
    assert heads == {"set3"}
    assert any(n.startswith("net.encoder.") for n in moved)


def test_each_set_has_its_own_label_space_and_merged_labels_conflict(records):
    separate, _ = built(records)
    merged, _ = built(records, decoders="merged")
    one = next(r for r in records if r.groups["source"] == "set1")  # spleen
    batch = separate.collate([one])
    assert batch.targets["mask"].unique().tolist() == [0, 1]
    assert batch.targets["domain"].tolist() == [1]
    batch = merged.collate([one])
    classes = merged.collate.masks["mask"].spaces["set1"].classes
    assert set(batch.targets["mask"].unique().tolist()) == {0, classes.index("spleen")}
    assert batch.known["mask"].all()  # the liver in it counts as background: the conflict
    assert merged.model.net.classes == {"merged": 6}


def test_weights_are_taken_over_with_a_report_or_refused(records, tmp_path):
    bundle, _ = built(records)
    folder = bundle.save_pretrained(tmp_path / "cotrained")
    target = bodies.records(1, 100, organs=(bodies.NEW,), contrast=8, source="target")  # a set with one case
    how = {"sets": {"target": ("background", bodies.NEW)}, "head": "strong", "weights": str(folder), "batch": 1}
    tuned, stages = built(target, **how, backbone_rate=0.01)
    assert "100.0 % of the backbone loaded" in tuned.card["transfer"]
    assert torch.equal(tuned.model.net.encoder.conv1.weight, bundle.model.net.encoder.conv1.weight)
    rates = optim.trained(tuned.model, stages[0].schedule)
    assert rates["net.encoder.conv1.weight"] == 0.01
    assert rates["net.heads.target.0.weight"] == 1.0
    assert np.isfinite(fit(tuned, stages, target, tmp_path / "fit", save_every=0).losses).all()
    with pytest.raises(UsageError, match="% of the backbone loaded"):
        built(target, **how | {"widths": (8, 8, 8, 8)})


def test_the_first_step_has_the_first_rate(records):
    """The public script steps its scheduler before its optimiser: the first rate is never used there."""
    _, (stage,) = built(records)
    assert optim.rate(stage.schedule, 0) == stage.schedule.lr


def test_sets_of_different_sizes_meet_in_one_patch(records, tmp_path):
    other = [r.updated(items={"volume": tuple(replace(i, value=i.array()[:20, :, :17]) for i in r.items["volume"])},
                       regions=tuple(replace(g, data=g.data[:20, :, :17]) for g in r.regions))
             for r in records if r.groups["source"] == "set1"]  # fmt: skip
    mixed = [r for r in records if r.groups["source"] != "set1"] + other
    bundle, stages = built(mixed)
    batch = bundle.collate([mixed[0], other[0]])
    assert batch.fields["image"].values.shape == (2, 1, 1, 24, 24, 24)
    assert batch.known["mask"][1].sum() == 20 * 24 * 17
    assert np.isfinite(fit(bundle, stages, mixed, tmp_path, save_every=0).losses).all()


def test_a_set_that_is_not_named_and_a_label_that_is_not_known(records):
    bundle, _ = built(records)
    strange = records[0].updated(groups={"source": "elsewhere"})
    batch = bundle.collate([strange, records[0]])
    assert batch.known["domain"].tolist() == [False, True]
    assert not batch.known["mask"][0].any()
    odd = records[0].updated(regions=(Region("volume", "mask", records[0].regions[0].data, "gall bladder",
                                             records[0].regions[0].origin),))  # fmt: skip
    assert not bundle.collate([odd]).known["mask"].any()
    wrong = records[0].updated(regions=(replace(records[0].regions[0], data=np.ones((3, 3, 3), bool)),))
    with pytest.raises(Refused, match="mask_shape"):
        bundle.collate([wrong])


def test_predictions_repeat_and_lie_on_the_volumes_own_grid(records, tmp_path):
    """The public pre-processing fills the background with noise, also at test time: two runs differ there."""
    bundle, _ = built(records)
    told = Condition(index=torch.tensor([2]))
    item = records[0].first("volume")
    turned = Item(
        "volume", np.ascontiguousarray(item.array()[::-1, :, :19]), item.origin, affine=np.diag([-1.0, 1, 1, 1])
    )
    record = records[0].updated(items={"volume": (turned,)}, regions=())
    one, two = (bundle.segment(record, condition=told) for _ in range(2))
    assert one.shape == (2, 24, 24, 19)
    assert np.array_equal(one, two)
    again = load(bundle.save_pretrained(tmp_path / "m"))
    np.testing.assert_allclose(again.segment(record, condition=told), one, atol=1e-6)
    plain = records[0].updated(items={"volume": (replace(item, value=item.array()[:, :, :19]),)})
    np.testing.assert_allclose(bundle.segment(plain, condition=told), one[:, ::-1], atol=1e-5)


def test_images_are_resampled_smoothly_and_labels_by_nearest_neighbour():
    """Public code resizes the image by nearest neighbour, too."""
    from fabrica.encode.grid import GridEncode

    ramp = np.arange(8.0)[:, None, None] * np.ones((8, 8, 8))
    item = Item("volume", ramp.astype(np.float32), bodies.records(1, 0, organs=("liver",), contrast=0, source="x")[0]
                .first("volume").origin, affine=np.eye(4))  # fmt: skip
    grid = GridEncode((16, 8, 8), spacing=(0.5, 1.0, 1.0), scale=(0.0, 7.0))
    values = grid.whole(item)[0, :, 0, 0] * 7
    assert len(np.unique(values.round(4))) > 8
    assert set(np.unique(grid.whole_labels(ramp.astype(np.int64), item))) <= set(range(8))
