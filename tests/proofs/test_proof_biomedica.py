"""BIOMEDICA's proof at a tiny size: its parts measure what they say, and would notice a fault."""

import numpy as np
import pytest

from fabrica.phantom.concepts import PICTURED
from fabrica.phantom.figure_stream import figures
from fabrica.proofs import Plan, biomedica
from fabrica.proofs.biomedica import FILTERED, PLAIN, RANDOM, Part, Simulated, Size
from fabrica.types import Proof

SMALL = Size(seeds=(101, 104), articles=30, images=240, k=24, digits_k=40, dims=20, train=120, test=48, steps=6,
             stream_k=16, settings={"batch": 16})  # fmt: skip


@pytest.fixture(scope="module")
def records():
    return list(figures(SMALL.train, 100))


def test_articles_are_read_without_loss_and_a_lost_caption_would_show(monkeypatch):
    found = biomedica.read_articles(Part("articles", SMALL, 100))
    assert (found["caption"], found["context"], found["licence"]) == (1.0, 1.0, 1.0)
    assert found["figures"] > 40
    import fabrica.sources.jats_parts as parts

    real = parts._caption
    monkeypatch.setattr(parts, "_caption", lambda *a: ("", *real(*a)[1:]))  # titles lost
    assert biomedica.read_articles(Part("articles", SMALL, 100))["caption"] < 0.9


def test_two_builds_are_the_same_bytes_and_the_commercial_stream_is_audited():
    found = biomedica.built_twice(Part("twice", SMALL, 100))
    assert (found["same"], found["wrong"]) == (1.0, 0.0)
    assert found["commercial"] > 0


def test_an_annotator_errs_as_often_as_said():
    truth = {str(i): str(i % 4) for i in range(40)}
    person = Simulated("a", truth, np.random.default_rng(0))
    wrong = np.mean([person.one("1") != "1" for _ in range(20_000)])
    assert wrong == pytest.approx(biomedica.ERROR * 3 / 4, abs=0.005)
    vote = person(3, ["0", "4", "8", "1"])
    assert (vote.concept, vote.shown, vote.fits) == ("0", 4, 3)


def test_both_arms_of_the_labels_get_as_many_labels(monkeypatch):
    asked = []
    real = biomedica._probe
    monkeypatch.setattr(
        biomedica, "_probe", lambda rows, pick, words, truth: asked.append(len(pick)) or real(rows, pick, words, truth)
    )
    found = biomedica.concepts(Part("concepts", SMALL, 100))
    assert asked == [round(found["share"] * SMALL.images)]
    assert found["clusters"] > 0.7
    rows = np.random.default_rng(0).normal(size=(240, 8)).astype(np.float32)
    noise = biomedica.labelled(rows, [str(i % 6) for i in range(240)], 24, 8, 100)
    assert noise["clusters"] < 0.3  # nothing to cluster: low purity is "mixed", not a lucky majority


def test_arms_hold_what_they_say(records):
    kept = biomedica.arm_of(records, FILTERED, SMALL, 100)
    assert np.mean([r.groups["truth"] in PICTURED for r in kept]) > 0.9
    drawn = biomedica.arm_of(records, RANDOM, SMALL, 100)
    assert len(drawn) == len(kept)
    assert np.mean([r.groups["truth"] in PICTURED for r in drawn]) < 0.65
    assert biomedica.arm_of(records, PLAIN, SMALL, 100) is records


def test_no_test_figure_is_of_a_training_article(records):
    test = list(figures(SMALL.test, 100 + 1_000_000, plots=0.0))
    assert not {r.subject for r in records} & {r.subject for r in test}
    assert not {r.first("image").array().tobytes() for r in records} & {
        r.first("image").array().tobytes() for r in test
    }


def test_the_proof_says_all_claims_and_their_verdicts():
    proof = biomedica.prove(SMALL, Plan(workers=1))
    assert isinstance(proof, Proof)
    assert [c.name for c in proof.claims] == [
        "filtered streaming", "captions", "contexts", "malformed", "two builds", "cluster labels, phantom",
        "over a probe, phantom", "cluster labels, real digits", "over a probe, real digits",
    ]  # fmt: skip
    assert all(c.shown for c in proof.claims[1:5])
    assert set(map(len, proof.arms.values())) == {2}
    assert proof.verdict in ("shown", "not shown")
