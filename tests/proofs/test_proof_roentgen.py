"""RoentGen's proof at a very small size: every part runs, bars make the verdict, controls and readers are apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fabrica.phantom.radiographs import records
from fabrica.proofs import Plan
from fabrica.proofs import roentgen as proof
from fabrica.proofs._roentgen import BOTH, SHUFFLED, UNET, UNTOUCHED, Job, Size, verdict

SIZE = Size(
    (0,), train=150, test=20, tools=40, few=10, base_steps=2, steps=2, tool_steps=2, use_steps=2, variety=(2, 2),
    sampling=2, real_seeds=(0,), real_train=60, real_few=20, net={"widths": (8, 8), "width": 16, "depth": 1},
)  # fmt: skip


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The base and the two readers."""
    base = proof.part(Job("base", 7, SIZE, str(tmp_path_factory.mktemp("base"))), Plan())
    return base, tuple(proof.part(Job(name, 7, SIZE), Plan()) for name in ("extractor", "judge"))


def test_every_part_runs_and_the_verdict_is_made_of_the_bars(begun):
    jobs = [Job(arm, 0, SIZE, begun[0], begun[1]) for arm in (BOTH, UNET, SHUFFLED, UNTOUCHED)]
    found = verdict(SIZE, jobs, [proof.part(j, Plan()) for j in jobs], has_real=False)
    assert [c.name for c in found.claims] == ["domain", "text", "side", "variety", "use", "knowledge"]
    assert [c.name for c in found.controls] == ["shuffled sentences"]
    assert found.verdict == ("shown" if all(c.shown for c in (*found.claims, *found.controls)) else "not shown")
    assert "left out" in found.notes
    assert all("n = 20 a side, extractor, low n" in text for text in found.details["distance"][BOTH])
    assert {"ratio", "low", "high", "duplicates", "threshold", "n", "held"} == set(found.details["memorisation"][0])
    assert set(found.arms) >= {"classifier of real", "classifier of real + synthetic", "classifier of synthetic"}


def bars(**changes):
    """The claims that numbers of two seeds make."""
    good = {
        "fid": 1.0, "kid": 0.0, "side": 0.9, "auroc": [0.9, 0.8, 1.0], "probe": {"pneumothorax": 0.8}, "ms_ssim": 0.5,
        "use": {"real": 0.7, "real + synthetic": 0.8, "synthetic": 0.8}, "floor": 0.1, "ceiling": 1.0,
        "by finding": {}, "distance": "", "memory": {},
    }  # fmt: skip
    arms = {
        BOTH: good, UNET: good, SHUFFLED: {**good, "auroc": [0.5, 0.4, 0.6]},
        UNTOUCHED: {**good, "fid": 10.0, "probe": {"pneumothorax": 0.5}},
    }  # fmt: skip
    for arm, change in changes.items():
        key = {"both": BOTH, "shuffled": SHUFFLED, "untouched": UNTOUCHED}[arm]
        arms[key] = {**arms[key], **change}
    size = replace(SIZE, seeds=(0, 1))
    jobs = [Job(arm, seed, size) for arm in arms for seed in (0, 1)]
    found = verdict(size, jobs, [arms[j.what] for j in jobs], has_real=True)
    return {c.name: c.shown for c in (*found.claims, *found.controls)}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("domain", {"both": {"fid": 4.1}}), ("text", {"both": {"auroc": [0.84, 0.8, 0.9]}}),
        ("side", {"both": {"side": 0.84}}), ("variety", {"both": {"ms_ssim": 0.9}}),
        ("use", {"both": {"use": {"real": 0.7, "real + synthetic": 0.72, "synthetic": 0.8}}}),
        ("knowledge", {"untouched": {"probe": {"pneumothorax": 0.76}}}),
        ("shuffled sentences", {"shuffled": {"auroc": [0.62, 0.5, 0.7]}}),
    ],
)  # fmt: skip
def test_each_bar_falls_alone(name, change):
    assert all(bars().values())
    assert {k for k, shown in bars(**change).items() if not shown} == {name}


def test_shuffling_exchanges_sentences_and_nothing_else():
    rows = records(60, 0)
    mixed = proof._shuffled(rows, 0)
    assert [r.items["image"] for r in mixed] == [r.items["image"] for r in rows]
    said = [[r.items["impression"][0].text() for r in some] for some in (rows, mixed)]
    assert sorted(said[0]) == sorted(said[1])
    assert np.mean([a != b for a, b in zip(*said, strict=True)]) > 0.8


def test_readers_generator_and_test_have_patients_of_their_own(begun):
    extractor, judge = begun[1]
    train = {r.subject for r in records(SIZE.train, 0)}
    assert not extractor.subjects & judge.subjects
    assert not train & (extractor.subjects | judge.subjects)
    assert len(judge.subjects) == SIZE.tools
    assert max(SIZE.train, Size().train, Size().few) < 100_000  # where test patients begin


def test_the_probe_meets_a_name_that_it_has_not_seen(begun):
    from fabrica.models.latent_bundle import LatentBundle

    found = proof.synonyms(LatentBundle.from_pretrained(begun[0]))
    assert set(found) == {"effusion", "nodule", "pneumothorax"}
    assert all(0 <= v <= 1 for v in found.values())
    assert np.mean(list(found.values())) < 0.85  # a text part that has seen no chest cannot know


@pytest.mark.real_data
def test_real_x_rays_are_read_without_those_that_stand_twice(shared_data):
    train, test = proof.pneumonia(Path(shared_data("pneumoniamnist")))
    assert (len(train), len(test)) == (4708, 516)  # 8 of 524 stand in training, too
    seen = {r.items["image"][0].array().tobytes() for r in train}
    assert not any(r.items["image"][0].array().tobytes() in seen for r in test)
    assert {r.items["impression"][0].text() for r in test} == {"pneumonia", "no pneumonia"}
    assert {(r.items["impression"][0].text() == "pneumonia") == (r.labels["pneumonia"] == 1) for r in test} == {True}
    images, truth = proof._table(test[:20])
    assert images.shape == (20, 32, 32)
    assert truth.shape == (20, 1)


@pytest.mark.real_data
def test_the_real_arm_runs_on_the_same_code(begun, shared_data):
    data = str(shared_data("pneumoniamnist"))
    readers = proof.part(Job("real readers", 0, SIZE, data=data), Plan())
    found = proof.part(Job("real", 0, SIZE, begun[0], readers, data), Plan())
    assert {UNTOUCHED, BOTH, "use", "memory", "judge on real"} <= set(found)
    assert found[BOTH]["distance"].startswith("FID")
