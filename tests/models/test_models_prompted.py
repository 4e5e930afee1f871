"""Masks by text: one encoding an image, prompts that do not meet, masked attention, recognition, saving."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.curate.ontology import Ontology
from fabrica.errors import Refused, UsageError
from fabrica.models.bundle import Bundle
from fabrica.models.load import load
from fabrica.models.merge_masks import merge
from fabrica.models.prompt_bundle import PromptModel
from fabrica.models.query_decoder import Patched, PromptNet, PromptText, allowed, drawn, on_pixels
from fabrica.objectives.query_set import QuerySet
from fabrica.phantom.objects import records
from fabrica.systems import load_system
from fabrica.types import Item, Origin, Region, Segmenter

SYSTEM = load_system("biomedparse")
TEXTS = ["round nodule in chest X-ray", "coiled wire in chest X-ray", "hollow cavity in chest X-ray"]


def small(rows, **changes):
    told = {"widths": (4, 8), "bottleneck": 8, "masks": 8, "width": 16, "feedforward": 16, "text_width": 16,
            "queries": 5, "scale": (0.0, 1.0), "ontology": Ontology.of(rows), **changes}  # fmt: skip
    torch.manual_seed(0)
    return SYSTEM.build(replace(SYSTEM.settings["tiny"], **told), rows)


@pytest.fixture(scope="module")
def rows():
    return records(6, 0)


@pytest.fixture(scope="module")
def bundle(rows):
    return small(rows)


def test_the_encoder_runs_once_for_any_number_of_prompts(bundle, rows):
    calls = []
    handle = bundle.model.net_.body.register_forward_hook(lambda *_: calls.append(1))
    said = bundle.ask(rows[0].first("image"), TEXTS * 30, chunk=7)
    handle.remove()
    assert len(calls) == 1
    assert said.shares.shape == (90, 48, 48)


def test_a_mask_does_not_depend_on_the_other_prompts(bundle, rows):
    item = rows[0].first("image")
    together = bundle.ask(item, TEXTS)
    back = bundle.ask(item, TEXTS[::-1])
    for i, text in enumerate(TEXTS):
        alone = bundle.ask(item, [text])
        np.testing.assert_allclose(alone.shares[0], together.shares[i], atol=1e-5)
        np.testing.assert_allclose(back.shares[2 - i], together.shares[i], atol=1e-5)
        np.testing.assert_allclose(alone.scores[0], together.scores[i], atol=1e-4)
    assert np.abs(together.shares[0] - together.shares[1]).max() > 1e-4  # and it does depend on its own


def test_padding_of_prompts_has_no_influence(bundle):
    ids = torch.from_numpy(bundle.collate.ids(TEXTS[0]))[None, None]
    mask = torch.ones_like(ids, dtype=torch.bool)
    more = torch.cat([ids, torch.full((1, 1, 5), 7)], 2)
    told = bundle.model.text(ids, mask)
    padded = bundle.model.text(more, torch.cat([mask, torch.zeros(1, 1, 5, dtype=torch.bool)], 2))
    torch.testing.assert_close(told.vector, padded.vector)
    image = torch.rand(1, 3, 48, 48)
    net = bundle.model.net_.eval()
    torch.testing.assert_close(net(image, told).logits, net(image, padded).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("of", [[0, 0, 0, 2], [1], [0, 1, 1, 2, 2, 2], [2, 2]])
def test_masks_of_rows_are_those_of_their_image(of):
    torch.manual_seed(0)
    of = torch.tensor(of)
    queries, pixels = torch.randn(len(of), 4, 5, requires_grad=True), torch.randn(3, 5, 6, 7, requires_grad=True)
    made, plain = on_pixels(queries, pixels, of), torch.einsum("rqc,rchw->rqhw", queries, pixels[of])
    torch.testing.assert_close(made, plain)
    weight = torch.randn_like(plain)
    for a, b in zip(torch.autograd.grad((made * weight).sum(), (queries, pixels)),
                    torch.autograd.grad((plain * weight).sum(), (queries, pixels)), strict=True):  # fmt: skip
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_masks_on_a_coarser_grid_are_those_of_coarser_features():
    torch.manual_seed(0)
    of, vectors, pixels = torch.tensor([0, 1, 1]), torch.randn(3, 4, 6), torch.randn(2, 5, 8, 8)
    whole = drawn(vectors, pixels, of)
    torch.testing.assert_close(whole, on_pixels(vectors[..., :5], pixels, of) + vectors[:, :, 5, None, None])

    def small(maps):
        return torch.nn.functional.interpolate(maps, (3, 2), mode="bilinear", align_corners=False)

    torch.testing.assert_close(drawn(vectors, small(pixels), of), small(whole))


def test_patches_of_pixels_come_back_at_full_size():
    torch.manual_seed(0)
    net = Patched(3, 5, (4, 8), 8, patch=2).eval()
    image = torch.rand(2, 3, 24, 16)
    maps = net(image)
    assert maps.logits.shape == (2, 5, 24, 16)
    assert [tuple(f.shape[1:]) for f in maps.features] == [(4, 12, 8), (8, 6, 4), (8, 3, 2)]
    assert net.multiple == 8
    again = Patched.from_json(net.to_json()).eval()
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again(image).logits, maps.logits)


def test_masked_attention_never_blocks_everything_and_has_no_gradient():
    masks = torch.full((2, 3, 8, 8), -5.0, requires_grad=True)
    assert allowed(masks, (4, 4)).all()
    some = masks.detach().clone()
    some[0, 1, :4] = 5.0
    seen = allowed(some.requires_grad_(), (4, 4))
    assert seen[0, 1].reshape(4, 4).tolist() == [[True] * 4] * 2 + [[False] * 4] * 2
    assert seen[0, 0].all()
    assert not seen.requires_grad


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_recognised_parts_are_disjoint_named_and_need_no_order(count, seed):
    rng = np.random.default_rng(seed)
    shares, p = rng.random((count, 7, 9)) ** rng.uniform(0.3, 3), rng.random(count).round(1)
    names = [f"object {i}" for i in range(count)]
    made = merge(shares, p, names, alpha=0.2)
    assert sum(m.sum() for m in made.values()) <= 63
    assert sum(m.astype(int) for m in made.values()).max() <= 1 if made else True
    assert all(p[names.index(n)] >= 0.2 and (shares[names.index(n)][m] > 0.5).all() for n, m in made.items())
    order = rng.permutation(count)
    again = merge(shares[order], p[order], [names[i] for i in order], alpha=0.2)
    assert {n: m.tolist() for n, m in again.items()} == {n: m.tolist() for n, m in made.items()}


def test_recognition_as_written():
    """The less likely of two that cover each other gives way; nothing is named twice or below alpha."""
    a = np.zeros((4, 4))
    a[:2] = 0.9
    b, c, d = a * 0.8, np.roll(a, 1, 0), np.roll(a, 2, 0)
    made = merge(np.stack([a, b, c, d]), [0.5, 0.9, 0.4, 0.01], ["a", "b", "c", "d"])
    assert list(made) == ["b", "c"]  # a lies under b; c shares half of its area with b and keeps it by probability
    assert made["c"].sum() == 8
    assert merge(np.stack([a]), [0.01], ["a"]) == {}


def test_parse_names_what_can_be_there(bundle, rows):
    found = bundle.parse(rows[0], lambda pair, share, image: 0.5, alpha=0.05)
    assert set(found) <= set(bundle.collate.ontology.candidates("xray", "chest"))
    assert all(f.mask.shape == (48, 48) and f.mask.any() for f in found.values())
    assert bundle.parse(rows[0], lambda pair, share, image: 0.01) == {}
    assert bundle.parse(rows[0].without("image"), lambda *_: 1.0) == {}
    with pytest.raises(UsageError, match="modality/anatomy"):
        bundle.parse(rows[0].updated(groups={"modality": "ct"}), lambda *_: 1.0)


def test_answers_lie_on_the_pictures_own_grid(bundle):
    item = Item("image", np.random.default_rng(0).random((30, 70)).astype(np.float32), Origin("demo", "a", "", ""))
    said = bundle.ask(item, TEXTS)
    assert bundle.masks(said, item).shape == (3, 30, 70)


def test_no_prompts_no_masks_and_hostile_ones_are_refused(bundle, rows):
    item = rows[0].first("image")
    assert bundle.masks(bundle.ask(item, []), item).shape == (0, 48, 48)
    with pytest.raises(Refused, match="without words"):
        bundle.ask(item, [""])
    with pytest.raises(Refused, match="tokens, the model reads 32"):
        bundle.ask(item, ["nodule " * 80])


def test_it_is_a_segmenter_for_regions_with_text(bundle, rows):
    item, origin = rows[0].first("image"), Origin("demo", "a", "", "")
    assert isinstance(bundle, Segmenter)
    box = np.array([0, 0, 9, 9])
    prompts = [Region("image", "box", box, "x", origin, text=t) for t in (TEXTS[0], None)]
    made = bundle(item, prompts)
    assert all(r.shape == "mask" and r.text == TEXTS[0] and r.origin.by == "model" for r in made)
    assert len(made) <= 1


def test_a_saved_folder_is_loaded_as_what_it_is(bundle, rows, tmp_path):
    folder = bundle.save_pretrained(tmp_path / "model")
    again = load(folder)
    assert type(again) is type(bundle)
    assert isinstance(again, Bundle)
    item = rows[0].first("image")
    np.testing.assert_allclose(again.ask(item, TEXTS).shares, bundle.ask(item, TEXTS).shares, atol=1e-6)
    assert again.fingerprint == bundle.fingerprint


def test_the_parts_of_a_prompted_model_are_named():
    with pytest.raises(UsageError, match="the parts 'net'"):
        PromptModel({"net": PromptNet(3, 16, (4,), 4, 8, 16, 3, 1, 4, 8)})
    with pytest.raises(UsageError, match="multiple of 3 heads"):
        PromptNet(3, 16, (4,), 4, 8, 16, 3, 1, 3, 8)
    model = PromptModel({"net": PromptNet(3, 16, (4,), 4, 8, 16, 3, 1, 4, 8), "text": PromptText(30, 16, 1, 4, 9)})
    assert model.to_json()["prompted"] is True


@pytest.mark.parametrize("joint", [False, True])
def test_the_loss_is_finite_and_reaches_text_decoder_and_encoder(joint):
    rows = records(3, 0)
    bundle = small(rows)
    batch = bundle.collate(rows, 0)
    loss = QuerySet(points=64, joint=joint)(bundle.model, batch)
    loss.total.backward()
    assert loss.count == int(batch.known["same"].sum())
    assert set(loss.terms) == {"bce", "dice", "word"}
    parts = ["net.body.body.down.0", *(f"net.decoder.{n}" for n in ("layers.0.cross", "read", "word")), "text.tower"]
    for name in parts:
        grads = [p.grad for p in bundle.model.get_submodule(name).parameters()]
        assert any(g is not None and g.abs().sum() > 0 for g in grads), name


def test_a_mask_is_learned_on_points_and_there_must_be_some():
    with pytest.raises(UsageError, match="points=0; wanted 1 or more"):
        QuerySet(points=0)
    rows = records(3, 0)
    bundle = small(rows)
    assert torch.isfinite(QuerySet(points=1)(bundle.model, bundle.collate(rows, 0)).total)


def test_a_batch_without_any_prompt_is_skipped():
    rows = records(2, 0)
    bundle = small(rows)
    batch = bundle.collate([r.updated(regions=()) for r in rows], 0)
    loss = QuerySet(points=64)(bundle.model, batch)
    assert (loss.count, loss.total.item()) == (0, 0.0)


def test_a_trained_model_answers_the_prompt_and_not_the_image(tmp_path):
    """What is there under its name is found, what is not there is not: on the images that it learned from."""
    from fabrica.train import fit

    rows = [r for r in records(24, 100) if r.groups["modality"] == "pathology"]
    bundle = small(rows, widths=(8, 16, 32), bottleneck=32, masks=16, width=32, feedforward=64, text_width=32, absent=4,
                   steps=200, batch=8)  # fmt: skip
    settings = replace(SYSTEM.settings["tiny"], lr=3e-3, steps=200, batch=8)
    fit(bundle, SYSTEM.stages(settings, bundle), rows, tmp_path, save_every=0)
    there, gone, other = [], [], []
    for record in rows:
        truth = bundle.collate.labelled(record)
        said = bundle.ask(record.first("image"), [f"{n} in colon pathology" for n in truth])
        masks = dict(zip(truth, said.shares > 0.5, strict=True))
        whole = np.any(list(truth.values()), 0)
        for name, mask in truth.items():
            if mask.any():
                there.append(2 * (masks[name] & mask).sum() / (masks[name].sum() + mask.sum()))
                other.append(2 * (masks[name] & whole).sum() / (masks[name].sum() + whole.sum()))
            else:
                gone.append(masks[name].mean())
    assert np.mean(there) > 0.6
    assert np.mean(gone) < 0.01
