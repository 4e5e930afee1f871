"""BiomedParse's proof at a tiny size, its baselines, and that its bars are read."""

from dataclasses import replace

import numpy as np
import pytest

from fabrica.phantom.objects import records
from fabrica.proofs import Plan, biomedparse
from fabrica.proofs import _biomedparse_arms as arms
from fabrica.proofs import _biomedparse_real as five
from fabrica.proofs.real import real
from fabrica.systems import load_system

SMALL = biomedparse.Size(
    seeds=(100,), train=72, held=12, test=12, steps=6, batch=6, real_steps=0, resamples=50,
    text={"widths": (4, 8), "bottleneck": 8, "masks": 8, "width": 16, "feedforward": 16, "text_width": 16,
          "queries": 4},
)  # fmt: skip


@pytest.fixture(scope="module")
def parts():
    jobs = [biomedparse.Job(w, 100, SMALL) for w in ("text", "xray", "mr", "pathology")]
    return jobs, [biomedparse.part(j, Plan(workers=1)) for j in jobs]


def test_the_proof_runs_small_and_says_not_shown(parts):
    """Six steps learn nothing: a proof that said `shown` here would not be reading its bars."""
    proof = biomedparse._proof(SMALL, *parts, [])
    assert proof.verdict == "not shown"
    assert [c.name for c in proof.claims] == [
        "one model", "irregular objects", "unheard synonym", "invalid prompts", "recognition",
    ]  # fmt: skip
    assert {c.name: c.shown for c in proof.controls}["exact p"]
    assert not {c.name: c.shown for c in proof.controls}["both arms learned"]
    assert set(proof.arms) == {arms.TEXT, arms.NETS, arms.BOX, arms.NEW, arms.BOUND}
    assert proof.arms[biomedparse.BOX][0] > 0.5  # the true box and the best threshold need no training
    assert 9 < len(proof.details["Dice by object"]) <= 12


def test_the_bars_are_read(parts):
    _, found = parts
    rows = {k: np.asarray(v) for k, v in found[0]["rows"].items()}
    rows[biomedparse.NETS] = rows[biomedparse.BOX]
    p = {k: np.asarray(v) for k, v in found[0]["p"].items()}
    n = len(rows["subject"])
    good = rows | {
        biomedparse.TEXT: np.full(n, 0.9), biomedparse.NEW: np.full(n, 0.88), biomedparse.NETS: np.full(n, 0.9),
        biomedparse.BOX: 0.4 + 0.5 * rows["ratio"],
    }  # fmt: skip
    fine = p | {"raw": (p["kind"] == "there") * 0.5}
    text = [{"recognition": {"hits": 9, "false": 1, "missed": 1}}]

    def shown(rows=good, p=fine, text=text):
        return {c.name: c.shown for c in biomedparse._claims(rows, p, text, SMALL)}

    assert all(shown().values())
    for name, change in (
        ("one model", {"rows": good | {biomedparse.NETS: np.full(n, 0.94)}}),
        ("irregular objects", {"rows": good | {biomedparse.BOX: 0.9 - 0.5 * rows["ratio"]}}),
        ("unheard synonym", {"rows": good | {biomedparse.NEW: np.full(n, 0.84)}}),
        ("invalid prompts", {"p": p | {"raw": np.random.default_rng(0).random(len(p["kind"]))}}),
        ("recognition", {"text": [{"recognition": {"hits": 7, "false": 3, "missed": 3}}]}),
    ):
        assert {n for n, ok in shown(**change).items() if not ok} == {name}


def test_empty_answers_show_nothing(parts):
    """Of two arms that say nothing every difference is 0: bars of the form "no worse than" would be met."""
    _, found = parts
    n = len(found[0]["rows"]["subject"])
    rows = {k: np.asarray(v) for k, v in found[0]["rows"].items()} | {a: np.zeros(n) for a in (
        biomedparse.TEXT, biomedparse.NEW, biomedparse.NETS)}  # fmt: skip
    p = {k: np.asarray(v) for k, v in found[0]["p"].items()}
    bare = biomedparse._claims(rows, p, [found[0]], SMALL)
    assert {"one model", "unheard synonym"} <= {c.name for c in bare if c.shown}
    made = biomedparse._counted((*bare, *biomedparse._controls(rows, p)), rows)
    assert [c.name for c in made if c.shown] == ["exact p"]
    assert all("counts for nothing" in c.why for c in made if not c.shown)
    fine = rows | {a: np.full(n, 0.8) for a in (biomedparse.TEXT, biomedparse.NETS)}
    assert biomedparse._counted(bare, fine) == bare


def test_what_ignores_the_prompt_does_not_count_as_learned():
    """Marking all that is there, whatever is asked for, stays below the guard on any seed."""
    from fabrica.evaluate.metrics import dice

    found = []
    for record in records(150, 100):
        masks = [np.asarray(r.data) for r in record.regions if r.data.any()]
        found += [dice(np.any(masks, axis=0), m) for m in masks]
    assert 0.6 < np.mean(found) < 0.68 < biomedparse.LEAST


def test_specialists_are_together_as_large_as_the_one_model(parts):
    system = load_system("biomedparse")
    settings = replace(system.settings["tiny"], ontology=biomedparse.ontology())
    one = sum(p.numel() for p in system.build(settings, []).model.net_.parameters())
    all_ = sum(f["parameters"] for f in parts[1][1:])
    assert 0.9 < all_ / one < 1.15


def test_the_box_arm_reads_box_and_picture_alone():
    image, mask = np.zeros((20, 20)), np.zeros((20, 20), bool)
    mask[5:9, 5:12] = True
    mask[5, 5] = False
    image[mask] = 1
    assert arms.boxed(image, mask, True) == arms.boxed(-image, mask, False) == 1.0
    assert arms.boxed(image, mask, False) < 0.1
    assert arms.bound(image, mask) == arms.bound(-image, mask) == 1.0
    assert arms.ratio(mask) == 27 / 28
    noisy = image + np.random.default_rng(0).normal(0, 0.4, image.shape)
    assert arms.bound(noisy, mask) >= arms.boxed(noisy, mask, True) - 0.02  # 33 cuts, so not every one


def test_otsus_cut_is_the_best_of_all():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, 40), rng.normal(3, 1, 25)])
    spread = [np.var(x[x <= c]) * (x <= c).sum() + np.var(x[x > c]) * (x > c).sum() for c in np.sort(x)[:-1]]
    assert arms.otsu(x) == np.sort(x)[int(np.argmin(spread))]
    assert arms.otsu(np.ones(3)) == 1.0


def test_which_side_is_lighter_comes_from_training_images():
    assert arms.lighter(records(30, 100)) == {"xray": True, "mr": False, "pathology": False}


def test_modalities_ask_for_what_they_do_not_have():
    kinds = {}
    for record in records(6, 0):
        for thing in biomedparse.ontology().things:
            here = {r.label for r in record.regions}
            kinds.setdefault(thing.name in here, 0)
            kinds[thing.name in here] += 1
    assert kinds == {True: 24, False: 48}


@pytest.mark.real_data
def test_the_real_arm_runs_small(shared_data):
    for name in ("drive_fundus", "acdc_scribble_slices"):
        shared_data(name)
    size = replace(SMALL, real_steps=2)
    found = biomedparse.part(biomedparse.Job("real", 100, size), Plan(workers=1))
    table = five.real_table(found["real"], size.resamples)
    assert "retinal vessel" in table
    assert all(0 <= v <= 1 for row in table.values() for arm in five.ARMS for v in row[arm])
    assert f"Against {five.SET}, the one model is better for" in five.real_note(table)
    one, nets = found["weights"]
    assert 0.95 < nets / one < 1.05


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["drive_fundus", "isbi_em_membrane", "acdc_scribble_slices", "msd_hippocampus"])
def test_real_sets_are_read_with_subjects_and_masks(shared_data, name):
    from fabrica.curate.ontology import MEDICAL
    from fabrica.sources.segmentations import SETS

    assert shared_data(name) == real(name)
    rows = SETS[name](shared_data(name))
    assert len({r.id for r in rows}) == len(rows)
    for record in rows:
        where = (record.groups["modality"], record.groups["anatomy"])
        assert {r.label for r in record.regions} <= set(MEDICAL.candidates(*where))
        assert all(r.data.shape == record.first("image").array().shape[:2] for r in record.regions)
    share = np.mean([r.data.mean() for row in rows for r in row.regions])
    assert 0.003 < share < 0.4
    train, test = five.split({name: rows}, 0)
    assert not {r.subject for r in train} & {r.subject for r in test}
    assert len(train) + len(test) == len(rows)
