"""BiomedCLIP as it is wired (sheet S31, "Not a toy"), and its proof at a tiny size."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fabrica.errors import FabricaError, UsageError
from fabrica.evaluate import leak
from fabrica.phantom.captions import COMPOUNDS
from fabrica.proofs import Plan, biomedclip
from fabrica.proofs.biomedclip import A, B, C, Scores, Size
from fabrica.systems import load_system
from fabrica.train.step import Terms, gradients
from fabrica.types import Item

SYSTEM = load_system("biomedclip")
SMALL = Size(seeds=(100, 101), train=96, test=40, epochs=1, curve=(32, 64), permuted=32)


@pytest.fixture(scope="module")
def split():
    return biomedclip.figures(SMALL, 100)


def built(records, **changes):
    settings = replace(SYSTEM.settings["tiny"], **changes)
    torch.manual_seed(0)
    bundle = SYSTEM.build(settings, records)
    return bundle, SYSTEM.stages(settings, bundle)[0]


def test_no_article_is_on_both_sides_and_near_duplicates_are_reported(split):
    train, test = split
    assert not {r.groups["article"] for r in train} & {r.groups["article"] for r in test}
    assert max(sum(r.subject == s for r in train) for s in {r.subject for r in train}) == biomedclip.FIGURES
    assert leak.check(train, test).leaked == 0
    copied = [*test, test[0].updated(id="again", items=train[0].items)]
    assert leak.check(train, copied).counts["pixels"] == 1
    other_half = replace(test[0], id="half", subject=train[0].subject)
    assert leak.check(train, [*test, other_half]).counts["subject"] == 1


def test_a_split_through_an_article_stops_the_proof():
    with pytest.raises(AssertionError, match="1 articles are on both sides"):
        biomedclip.figures(replace(SMALL, train=95, test=41), 100)


def test_the_systems_step_in_chunks_of_32_is_the_whole_batchs(split):
    train, _ = split
    bundle, stage = built(train, chunk=32)  # a gradient cache: the image tower then has no batch norm
    batch, terms = bundle.collate(train, 0), Terms.of(stage.objectives, {})

    def grads(chunk):
        bundle.model.zero_grad()
        found = gradients(bundle.model, batch, terms, seed=0, chunk=chunk)
        return found.total, {n: p.grad.clone() for n, p in bundle.model.named_parameters()}

    (whole, ours), (cached, theirs) = grads(0), grads(32)
    assert cached == pytest.approx(whole, rel=1e-5)
    for name, grad in ours.items():
        assert (theirs[name] - grad).norm() <= 1e-5 * max(float(grad.norm()), 1e-4), name


def test_the_loss_is_clip_with_both_directions_and_a_capped_scale(split):
    train, _ = split
    bundle, stage = built(train)
    batch = bundle.collate(train[:16], 0)
    loss = stage.objectives["contrast"](bundle.model, batch)
    z, _ = bundle.model.embed(batch.fields)
    scores = bundle.model.logit_scale() * z["image"] @ z["text"].T
    cross, own = torch.nn.functional.cross_entropy, torch.arange(16)
    torch.testing.assert_close(loss.total, 0.5 * cross(scores, own) + 0.5 * cross(scores.T, own), atol=1e-5, rtol=0)
    assert bundle.model.logit_scale().item() == pytest.approx(1 / 0.07)
    torch.nn.init.constant_(bundle.model.logit_scale.log_scale, 9.0)
    assert bundle.model.logit_scale.clamp_()().item() == pytest.approx(100.0)


def test_the_text_tower_reads_the_class_token_and_padding_changes_nothing(split):
    train, _ = split
    bundle, _ = built(train)
    bundle.model.eval()
    short = max(train, key=lambda r: -len(r.first("caption").text()))
    long = max(train, key=lambda r: len(r.first("caption").text()))
    alone, padded = bundle.embed([short], "text")[1], bundle.embed([short, long], "text")[1]
    np.testing.assert_allclose(alone[0], padded[0], atol=1e-6)
    features = bundle.model.encode("text", bundle.collate([short, long], 0).fields["text"])
    torch.testing.assert_close(features.pooled, features.tokens[:, 0])


def test_a_context_above_the_towers_positions_is_an_error(split):
    train, _ = split
    short, _ = built(train, length=32)
    long, _ = built(train, length=160)
    with pytest.raises(UsageError, match="32 positions"):
        short.model.embed(long.collate(train, 0).fields)


@pytest.mark.parametrize("broken", ["caption", "image"])
def test_a_caption_that_is_empty_or_an_image_that_is_no_number_is_named(split, broken):
    train, _ = split
    bundle, _ = built(train)
    origin = replace(train[0].first("image").origin, key="the broken one")
    item = Item("text", " \n ", origin) if broken == "caption" else Item("image", np.full((64, 64), np.nan), origin)
    bad = train[0].updated(items={**train[0].items, broken: (item,)})
    with pytest.raises(FabricaError, match="the broken one"):
        bundle.collate([*train[1:4], bad], 0)


def test_vocabularies_and_contexts_differ_as_the_arms_say(split):
    train, _ = split
    generic, domain = built(biomedclip.english(), length=32)[0], built(train, length=160)[0]
    word = COMPOUNDS["ring"][0]
    pieces = [len(b.collate.fields["text"].encode.tokenizer.encode(word).tokens) for b in (generic, domain)]
    assert pieces[0] >= 2 * pieces[1]
    texts = [r.first("caption").text() for r in train]
    kept = {n: biomedclip.survival(b.collate.fields["text"].encode, texts) for n, b in ((32, generic), (160, domain))}
    assert kept[160] == {"whole": 1.0, "any": 1.0}
    assert kept[32]["whole"] < 0.1
    assert kept[32]["whole"] <= kept[32]["any"] < 0.5


def test_permuted_pairs_hold_the_same_figures_and_captions(split):
    train, _ = split
    wrong = biomedclip.permuted(train, 0)
    assert [r.id for r in wrong] == [r.id for r in train]
    assert sorted(r.first("caption").text() for r in wrong) == sorted(r.first("caption").text() for r in train)
    assert sum(a.items["caption"] is b.items["caption"] for a, b in zip(wrong, train, strict=True)) < 8


def test_the_proof_runs_small_and_says_not_shown():
    """One epoch on 96 pairs teaches nothing: a proof that said `shown` here would not be reading its bars."""
    proof = biomedclip.prove(SMALL, Plan(workers=1))
    assert proof.verdict == "not shown"
    assert {A, B, C, biomedclip.PERMUTED, "C on 32 pairs", "C on 64 pairs"} <= set(proof.arms)
    assert all(0 <= v <= 1 for values in proof.arms.values() for v in values)
    assert {c.name: c.shown for c in proof.controls}["what is read"] is True
    assert "C 1.00 (1.00)" in proof.notes


def test_the_bars_are_read():
    seen = {arm: {"whole": 1.0 if arm == C else 0.1, "any": 1.0} for arm in (A, B, C)}
    details = {"survives": {arm: [kept, kept] for arm, kept in seen.items()}, "near_duplicates": [{}, {}]}
    size = replace(SMALL, test=500)

    def verdict(**recalls):
        values = {"a": (0.03, 0.04), "b": (0.04, 0.045), "c": (0.4, 0.41), "few": (0.1, 0.1), "more": (0.2, 0.2),
                  "wrong": (0.02, 0.021)} | recalls  # fmt: skip
        names = {"a": A, "b": B, "c": C, "few": "C on 32 pairs", "more": "C on 64 pairs", "wrong": biomedclip.PERMUTED}
        found = {names[k]: [Scores(v, 0.5) for v in pair] for k, pair in values.items()}
        return biomedclip._proof(size, found, details).verdict

    assert verdict() == "shown"
    for wrong in ({"c": (0.13, 0.13)}, {"b": (0.01, 0.02)}, {"more": (0.09, 0.09)}, {"wrong": (0.05, 0.05)},
                  {"c": (0.1, 0.7)}, {"a": (0.04, 0.05), "c": (0.16, 0.16)}):  # fmt: skip
        assert verdict(**wrong) == "not shown", wrong
