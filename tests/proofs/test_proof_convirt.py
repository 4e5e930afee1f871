"""ConVIRT as it is wired (sheet S84, "Not a toy"), and its proof at a tiny size."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fabrica.errors import FabricaError, UsageError
from fabrica.evaluate.probes import label_fraction
from fabrica.phantom.p1 import LABELS, p1
from fabrica.proofs import Plan, convirt
from fabrica.systems import load_system
from fabrica.train import fit
from fabrica.types import Item, Origin, Record

ORIGIN = Origin("synthetic", "x", "", "CC0-1.0", "synthetic")
SENTENCES = ("Heart is large.", "Lungs are clear.", "No effusion.", "Old fracture.", "Line in place.")
SYSTEM = load_system("convirt")


def record(name, text, study="", seed=0):
    pixels = np.random.default_rng(seed).random((64, 64), np.float32)
    items = {"image": (Item("image", pixels, ORIGIN),), "report": (Item("text", text, ORIGIN),)}
    return Record(name, name, {"study": study} if study else {}, items)


RECORDS = [record(f"r{i}", " ".join(SENTENCES[i:] + SENTENCES[:i]), seed=i) for i in range(5)]


def built(records=RECORDS, **changes):
    settings = replace(SYSTEM.settings["tiny"], **changes)
    torch.manual_seed(0)
    bundle = SYSTEM.build(settings, records)
    return bundle, SYSTEM.stages(settings, bundle)[0]


def test_each_visit_reads_another_sentence_of_the_report():
    bundle, _ = built()
    words = bundle.collate.fields["text"].encode
    seen = set()
    for epoch in range(12):
        ids = bundle.collate(RECORDS[:1], epoch).fields["text"]
        seen.add(tuple(ids.values[0, 0][ids.mask[0, 0]].tolist()))
    whole = {tuple(words.ids(s).tolist()) for s in SENTENCES}
    assert 2 <= len(seen) <= 5
    assert seen <= whole


@pytest.mark.parametrize(("share", "one_way"), [(1.0, True), (0.75, False)])
def test_lambda_weighs_image_to_text_alone(share, one_way):
    bundle, stage = built(direction_weight=share)
    batch = bundle.collate(RECORDS, 0)
    loss = stage.objectives["contrast"](bundle.model, batch)
    z, _ = bundle.model.embed(batch.fields)
    scores = z["image"] @ z["text"].T / 0.1
    rows = torch.nn.functional.cross_entropy(scores, torch.arange(5))
    columns = torch.nn.functional.cross_entropy(scores.T, torch.arange(5))
    torch.testing.assert_close(loss.total, share * rows + (1 - share) * columns, atol=1e-6, rtol=0)
    ours = torch.autograd.grad(loss.total, bundle.model.tower("image").head.parameters(), retain_graph=True)
    theirs = torch.autograd.grad(rows, bundle.model.tower("image").head.parameters())
    same = all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))
    assert same is one_way


def test_the_text_tower_takes_the_maximum_and_padding_changes_nothing():
    bundle, _ = built()
    bundle.model.eval()
    short, long = record("s", "Line in place."), record("l", "Heart is large and lungs are clear and the line is old.")
    alone = bundle.embed([short], "text")[1]
    padded = bundle.embed([short, long], "text")[1]
    np.testing.assert_allclose(alone[0], padded[0], atol=1e-6)
    tower = bundle.model.tower("text")
    field = bundle.collate.still()([short, long], 0).fields["text"]
    features = tower(field)
    real = features.tokens[0][features.mask[0]]
    torch.testing.assert_close(features.pooled[0], real.amax(0))


def test_frozen_text_layers_do_not_move_even_by_decay(tmp_path):
    bundle, stage = built(freeze_text_layers=1)
    stage = replace(stage, schedule=replace(stage.schedule, steps=3, batch=4, weight_decay=0.5))
    before = {n: p.detach().clone() for n, p in bundle.model.named_parameters()}
    fit(bundle, (stage,), RECORDS, tmp_path, save_every=0)
    moved = {n: not torch.equal(p, before[n]) for n, p in bundle.model.named_parameters()}
    frozen = [n for n in moved if n.startswith(("towers.text.body.words", "towers.text.body.blocks.0"))]
    assert frozen
    assert not any(moved[n] for n in frozen)
    assert all(dict(bundle.model.named_parameters())[n].grad is None for n in frozen)
    assert moved["towers.text.head.layers.0.weight"]
    assert any(moved[n] for n in moved if n.startswith("towers.image.body"))


def test_two_images_of_one_study_are_no_negatives_of_each_other():
    text = " ".join(SENTENCES)
    apart = [record("a", text, "s1", 1), record("b", text, "s2", 2), record("c", text, "s3", 3)]
    shared = [replace(apart[0]), replace(apart[1], groups={"study": "s1"}), replace(apart[2])]
    bundle, stage = built(apart)
    loss = {
        k: stage.objectives["contrast"](bundle.model, bundle.collate(r, 0)) for k, r in (("a", apart), ("s", shared))
    }
    z, _ = bundle.model.embed(bundle.collate(shared, 0).fields)
    scores = z["image"] @ z["text"].T / 0.1
    masked = scores.masked_fill(torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool), -torch.inf)
    cross = torch.nn.functional.cross_entropy
    wanted = 0.75 * cross(masked, torch.arange(3)) + 0.25 * cross(masked.T, torch.arange(3))
    torch.testing.assert_close(loss["s"].total, wanted, atol=1e-5, rtol=0)
    assert float(loss["a"].total.detach()) > float(loss["s"].total.detach())


def test_one_pair_is_not_a_contrast():
    bundle, stage = built()
    bundle.model.eval()
    with pytest.raises(UsageError, match="at least 2 pairs"):
        stage.objectives["contrast"](bundle.model, bundle.collate(RECORDS[:1], 0))


def test_identical_embeddings_cost_log_n():
    _, stage = built()
    rows = torch.nn.functional.normalize(torch.ones(7, 16), dim=1)
    keys = {"study": torch.arange(7)}
    loss = stage.objectives["contrast"].loss(built()[0].model, {"image": rows, "text": rows}, {}, keys)
    assert float(loss.total.detach()) == pytest.approx(np.log(7), abs=1e-3)


DARK = replace(RECORDS[0], id="dark one", items={"image": (Item("image", np.full((64, 64), np.nan), ORIGIN),)})


@pytest.mark.parametrize(("broken", "said"), [(record("empty one", " \n "), "empty one"), (DARK, "dark one")])
def test_a_bad_sample_is_named(broken, said):
    bundle, _ = built()
    with pytest.raises(FabricaError, match=said):
        bundle.collate([*RECORDS, broken], 0)


def test_wrong_settings_say_so():
    with pytest.raises(UsageError, match="temperature 0"):
        built(tau=0)
    with pytest.raises(UsageError, match="leaves 'disc' without a positive"):
        label_fraction(np.eye(6).repeat(2, 0), 0.1, seed=3, names=LABELS)


def test_shuffling_keeps_images_labels_and_the_set_of_reports():
    records = list(p1(50, 100).records())
    other = convirt.shuffled(records, 0)
    said = [[r.first("report").text() for r in part] for part in (records, other)]
    assert sorted(said[0]) == sorted(said[1])
    assert sum(a == b for a, b in zip(*said, strict=True)) < 10
    assert [r.labels for r in records] == [r.labels for r in other]
    assert all(a.first("image") == b.first("image") for a, b in zip(records, other, strict=True))


def test_the_proof_runs_small():
    size = replace(convirt.Size(), seeds=(100,), train=200, test=60, steps=3, tune_steps=3)
    proof = convirt.prove(size, Plan(workers=1), test_seed=1100)
    assert len(proof.arms) == 6
    assert all(len(v) == 1 and 0 <= min(v) <= max(v) <= 1 for v in proof.arms.values())
    assert proof.verdict in ("shown", "not shown")
    assert all(c.interval[0] <= c.effect <= c.interval[1] for c in (*proof.claims, *proof.controls))
