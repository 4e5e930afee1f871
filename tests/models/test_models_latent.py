"""Latent diffusion as the sheet has it (S26, "Not a toy"): scale, range, guidance, seeds, sides, overflow, disk."""

import diffusers
import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.encode.augment import MedicalImageAugment
from fabrica.encode.collate import Collate, Use
from fabrica.encode.image import ImageEncode
from fabrica.encode.text import TextEncode
from fabrica.encode.vocabulary import train_vocabulary
from fabrica.encode.whole_text import WholeText
from fabrica.errors import Refused, UsageError
from fabrica.models.latent import STABLE, PatchPca, Text2Image, rates, small_denoiser
from fabrica.models.latent_bundle import LatentBundle, based, held_rights
from fabrica.models.load import load
from fabrica.models.text_tower import TextTower
from fabrica.models.transformers_tower import TransformersTower
from fabrica.types import Item, Origin, Record, Rights

ORIGIN = Origin("made", "a", "", "CC0-1.0", "synthetic")
TEXTS = ["small left nodule", "large right effusion", "no finding"]
HALF = (0.5,)


def words(length=8):
    return train_vocabulary(TEXTS * 3, 60), length


def bundle(**changes):
    torch.manual_seed(0)
    vocabulary, length = words()
    encode = WholeText(vocabulary, length)
    vae = PatchPca.fit(torch.rand(32, 1, 16, 16) * 2 - 1, 4, 8)
    text = TextTower(encode.size, 16, 2, 2, length=length)
    model = Text2Image(
        vae, small_denoiser(8, 4, 16, (8, 8), 2), text, empty=encode.tokenizer.encode("").ids, pad=encode.pad
    )
    for p in model.parameters():  # away from diffusers' start, where the last layers say little
        p.data += 0.05 * torch.randn_like(p)
    image = changes.get("image", ImageEncode(16, 1, HALF, HALF))
    collate = Collate({"image": Use(("image",), image), "text": Use(("impression",), encode)})
    return LatentBundle(model.eval(), collate, {"system": "roentgen"})


def record(text="small left nodule", name="r"):
    pixels = np.random.default_rng(len(text)).integers(0, 256, (16, 16), dtype=np.uint8)
    items = {"image": (Item("image", pixels, ORIGIN),), "impression": (Item("text", text, ORIGIN),)}
    return Record(name, name, items=items)


# ---------------------------------------------------------------- latents


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 3]), st.sampled_from([2, 4]))
def test_all_components_give_the_image_back_and_latents_have_unit_variance(seed, colours, patch):
    torch.manual_seed(seed)
    images = torch.rand(24, colours, 8, 8) * 2 - 1
    pca = PatchPca.fit(images, patch, colours * patch * patch)
    z = pca.encode(images).latent_dist.mean
    assert z.shape == (24, colours * patch * patch, 8 // patch, 8 // patch)
    torch.testing.assert_close(pca.decode(z).sample, images, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(z.pow(2).mean((0, 2, 3)), torch.ones(z.shape[1]), atol=1e-2, rtol=1e-2)
    assert torch.equal(pca.encode(images).latent_dist.sample(), z)  # its posterior is a point


def test_few_components_are_the_best_in_the_least_squares_sense():
    torch.manual_seed(1)
    images = torch.rand(24, 1, 8, 8) * 2 - 1
    rows = images.unfold(2, 4, 4).unfold(3, 4, 4).reshape(-1, 16)
    left, values, right = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    best = rows.mean(0) + (left[:, :3] * values[:3]) @ right[:3]
    pca = PatchPca.fit(images, 4, 3)
    back = pca.decode(pca.encode(images).latent_dist.mean).sample.unfold(2, 4, 4).unfold(3, 4, 4).reshape(-1, 16)
    torch.testing.assert_close(back, best, atol=1e-4, rtol=1e-3)


def small_vae(scale=0.5):
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=4, latent_channels=8,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=scale,
    )  # fmt: skip


def test_scale_multiplies_latents_and_divides_them_before_decoding():
    held, images = bundle().model, torch.rand(2, 1, 16, 16) * 2 - 1
    one = held.encode(images)
    held.scale = 0.25
    torch.testing.assert_close(held.encode(images), one * 0.25)
    torch.testing.assert_close(held.decode(one * 0.25), held.vae.decode(one).sample.clamp(-1, 1))


def test_a_forgotten_scale_is_refused_and_the_right_one_named():
    held, images = bundle().model, torch.rand(32, 1, 16, 16) * 2 - 1
    assert 0.5 < held.check_scale(images) < 2
    held.scale = 1 / 0.18
    with pytest.raises(UsageError, match=r"standard deviation of .* at scale 5\.556"):
        held.check_scale(images)


def test_mean_and_draw_of_the_posterior_are_asked_for_by_name():
    model = Text2Image(small_vae(), small_denoiser(8, 8, 16, (8, 8), 2), TextTower(20, 16, 1, 2), empty=(2,), scale=0.5)
    images = torch.rand(2, 1, 16, 16) * 2 - 1
    mean = model.encode(images)
    assert torch.equal(mean, model.encode(images))
    torch.testing.assert_close(mean, model.vae.encode(images).latent_dist.mean * 0.5)
    assert not torch.equal(model.encode(images, sample=True), model.encode(images, sample=True))
    assert not any(p.requires_grad for p in model.vae.parameters())


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (torch.zeros(1, 3, 16, 16), r"images are \(B, 1, H, W\)"),
        (torch.full((1, 1, 16, 16), 255.0), r"images lie in \[-1, 1\]; got 255"),
        (torch.full((1, 1, 16, 16), float("nan")), r"images lie in \[-1, 1\]"),
        (torch.zeros(1, 1, 18, 16), "multiples of 4"),
    ],
)
def test_images_of_another_shape_or_range_are_refused(image, said):
    with pytest.raises(UsageError, match=said):
        bundle().model.encode(image)


# ---------------------------------------------------------------- guidance and seeds


def told(made, prompts):
    ids = [made.words.ids(p) for p in prompts]
    length = max(map(len, ids))
    table = torch.zeros(len(ids), length, dtype=torch.long)
    mask = torch.zeros(len(ids), length, dtype=torch.bool)
    for i, one in enumerate(ids):
        table[i, : len(one)], mask[i, : len(one)] = torch.tensor(one), True
    return table, mask


def test_guidance_is_the_formula_and_one_is_the_conditional_model():
    made = bundle()
    model, z, t = made.model, torch.randn(2, 8, 4, 4), torch.tensor([10, 500])
    with torch.no_grad():
        c, u = model.read(*told(made, TEXTS[:2])), model.read(*model.nothing(2))
        one, two = model.denoise(z, t, *c), model.denoise(z, t, *u)
        assert torch.equal(model.guided(z, t, c, u, 1.0), one)
        torch.testing.assert_close(model.guided(z, t, c, u, 4.0), two + 4 * (one - two))
        torch.testing.assert_close(model.guided(z, t, c, u, 0.0), two)
        assert not torch.allclose(one, two)


def test_the_unconditional_branch_reads_the_empty_prompt_through_the_text_part_of_now():
    made = bundle()
    model, z, t = made.model, torch.randn(1, 8, 4, 4), torch.tensor([500])
    asked: list[torch.Tensor] = []
    read = model.read
    model.read = lambda ids, mask, keep=None: asked.append(ids) or read(ids, mask, keep)
    with torch.no_grad():
        made.generate(["no finding"], seeds=[0], guidance=4.0, steps=1)
        assert asked[1].tolist() == [[2, 3]]  # the empty prompt, read anew at every call
        before = model.denoise(z, t, *read(*model.nothing(1)))
        model.text.words.weight[2:4] += torch.randn(2, 16)  # all that the empty prompt has
        assert not torch.allclose(model.denoise(z, t, *read(*model.nothing(1))), before)
    assert list(made.model.empty) == made.words.tokenizer.encode("").ids == [2, 3]


def test_pads_change_nothing():
    made = bundle()
    ids, mask = told(made, ["no finding"])
    longer = torch.nn.functional.pad(ids, (0, 3), value=7), torch.nn.functional.pad(mask, (0, 3))
    z, t = torch.randn(1, 8, 4, 4), torch.tensor([100])
    with torch.no_grad():
        one, two = (made.model.denoise(z, t, *made.model.read(*x)) for x in ((ids, mask), longer))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sampler", ["ddim", "pndm"])
def test_an_image_depends_on_its_prompt_and_seed_alone(sampler):
    made = bundle()
    three = made.generate(TEXTS, seeds=[5, 6, 7], guidance=2.0, steps=4, sampler=sampler)
    alone = made.generate(TEXTS[1:2], seeds=[6], guidance=2.0, steps=4, sampler=sampler)
    assert three.shape == (3, 16, 16)
    assert np.abs(three[1].astype(int) - alone[0]).max() <= 1
    assert (made.generate(TEXTS[1:2], seeds=[8], guidance=2.0, steps=4, sampler=sampler) != alone).any()


def test_prompts_and_seeds_that_cannot_be_answered_are_refused():
    made = bundle()
    with pytest.raises(UsageError, match="3 prompts and 2 seeds"):
        made.generate(TEXTS, seeds=[0, 1])
    with pytest.raises(UsageError, match="prompt 1 is empty: guidance 4"):
        made.generate(["no finding", " "], seeds=[0, 1], guidance=4.0)
    assert made.generate([""], seeds=[0], guidance=1.0, steps=2).shape == (1, 16, 16)
    with pytest.raises(Refused, match="text_too_long"):
        made.generate(["small left nodule " * 4], seeds=[0])
    with pytest.raises(UsageError, match="did you mean 'ddim'"):
        made.generate(["no finding"], seeds=[0], sampler="ddi")


# ---------------------------------------------------------------- sides, texts, rights


def test_a_mirror_is_refused():
    mirrored = ImageEncode(16, 1, HALF, HALF, augment=MedicalImageAugment(flip=0.5))
    with pytest.raises(UsageError, match="laterality"):
        bundle(image=mirrored)
    bundle(image=ImageEncode(16, 1, HALF, HALF, augment=MedicalImageAugment(flip=0.0)))


def test_images_that_are_not_brought_to_the_models_range_or_channels_are_refused():
    for image in (ImageEncode(16, 1), ImageEncode(16, 3, HALF * 3, HALF * 3)):
        with pytest.raises(UsageError, match=r"1 channels, mean, std 0.5"):
            bundle(image=image)


def test_a_text_that_does_not_fit_is_left_out_counted_and_never_cut():
    made, long = bundle(), "large right effusion " * 3
    batch = made.collate([record(), record(long, "s")], 0)
    assert batch.fields["text"].valid.tolist() == [[True], [False]]
    assert not batch.fields["text"].mask[1].any()
    found = made.overflow([record(), record(long, "s")])
    assert (found.texts, found.truncated) == (2, 1)
    cut = TextEncode(made.words.tokenizer, 8)
    assert len(cut.ids(long)) == 8  # what would happen with "truncate"
    again = WholeText.from_json(made.words.to_json())
    assert again == made.words
    assert isinstance(again, WholeText)


def test_credentialed_records_want_their_reader_to_say_so():
    rows = [record().updated(rights=Rights("other", "credentialed"))]
    with pytest.raises(Refused, match=r"records are credentialed.*\[access\]"):
        held_rights(rows, ("open",))
    held_rights(rows, ("open", "credentialed"))


def test_the_encoder_of_images_is_never_trained():
    model = bundle().model
    with pytest.raises(UsageError, match="always frozen"):
        rates(model, ("vae",), {})
    assert rates(model, ("denoiser",), {"text": 0.5}) == {"denoiser": 1.0, "text": 0.0}
    assert rates(model, ("denoiser", "text"), {"text": 0.5}) == {"denoiser": 1.0, "text": 0.5}


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="16 wide, the denoiser reads 24"):
        Text2Image(PatchPca(4, 8), small_denoiser(8, 4, 24, (8, 8), 2), TextTower(20, 16, 1, 2))


# ---------------------------------------------------------------- disk


def test_saved_and_loaded_it_draws_the_same(tmp_path):
    made = bundle()
    again = load(made.save_pretrained(tmp_path / "m"))
    assert isinstance(again, LatentBundle)
    assert again.fingerprint == made.fingerprint
    assert again.model.hashes() == made.model.hashes()
    for field in made.fields:
        np.testing.assert_array_equal(again.embed([record()], field)[1], made.embed([record()], field)[1])
    one, two = (x.generate(TEXTS, seeds=[1, 2, 3], steps=2) for x in (made, again))
    np.testing.assert_array_equal(one, two)
    with pytest.raises(UsageError, match=r"no config\.json"):
        LatentBundle.from_pretrained(tmp_path)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A very small Stable Diffusion, saved as diffusers saves it."""
    folder = tmp_path_factory.mktemp("sd")
    vocabulary, _ = words()
    torch.manual_seed(0)
    config = tf.CLIPTextConfig(
        vocab_size=vocabulary.get_vocab_size(), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=8, bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    fast = tf.PreTrainedTokenizerFast(
        tokenizer_object=vocabulary, pad_token="[PAD]", unk_token="[UNK]", model_max_length=8
    )
    vae = small_vae(0.7)
    made = diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=tf.CLIPTextModel(config).eval(), tokenizer=fast,
        unet=small_denoiser(8, 8, 16, (8, 8), 2), scheduler=diffusers.DDIMScheduler(
            **STABLE, clip_sample=False, set_alpha_to_one=False, steps_offset=1
        ), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    made.save_pretrained(folder, safe_serialization=True)
    return folder, made


def test_a_diffusers_pipeline_is_taken_over_and_draws_what_diffusers_draws(pipeline):
    folder, theirs = pipeline
    model, encode = based(str(folder), length=8)
    assert (model.scale, model.attend_pads) == (0.7, 8)
    assert isinstance(model.text, TransformersTower)
    whole = {"image": Use(("image",), ImageEncode(16, 1, HALF, HALF)), "text": Use(("impression",), encode)}
    ours = LatentBundle(model.eval(), Collate(whole))
    prompt = ["small left nodule", "no finding"]
    theirs.set_progress_bar_config(disable=True)
    wanted = theirs(
        prompt, latents=model.start([3, 4]), guidance_scale=4.0, num_inference_steps=5, output_type="pt",
        negative_prompt=["", ""],
    ).images  # fmt: skip
    found = ours.generate(prompt, seeds=[3, 4], guidance=4.0, steps=5)
    np.testing.assert_allclose(found, (wanted[:, 0] * 255).round().numpy(), atol=1)
    assert found.std() > 1


def test_a_folder_that_is_none_is_named(tmp_path, pipeline):
    with pytest.raises(UsageError, match="no diffusers pipeline"):
        based(str(tmp_path))
    with pytest.raises(UsageError, match="no such pipeline in the hub cache"):
        based("no-such/pipeline")
    made = bundle().save_pretrained(tmp_path / "own")
    with pytest.raises(UsageError, match="has its own"):
        based(str(made), text=str(pipeline[0] / "text_encoder"))
