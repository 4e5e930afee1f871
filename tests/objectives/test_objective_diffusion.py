"""The loss of latent diffusion against diffusers' own numbers; who gets a gradient; what a dropped text means."""

import diffusers
import pytest
import torch
from diffusers.training_utils import compute_snr

from fabrica.errors import UsageError
from fabrica.models.latent import STABLE, PatchPca, Text2Image, small_denoiser
from fabrica.models.text_tower import TextTower
from fabrica.objectives.diffusion import NoiseMse
from fabrica.types import Batch, Field


def model(prediction="epsilon"):
    torch.manual_seed(0)
    vae = PatchPca.fit(torch.rand(16, 1, 16, 16) * 2 - 1, 4, 3)
    text = TextTower(20, 16, 2, 2, length=8)
    noise = {**STABLE, "prediction_type": prediction}
    return Text2Image(vae, small_denoiser(3, 4, 16, (8, 8), 2), text, noise, empty=(2, 3))


def batch(n=4, image=None, text=None):
    torch.manual_seed(1)
    words = torch.randint(4, 20, (n, 1, 6))
    return Batch(
        tuple(map(str, range(n))),
        {
            "image": Field(torch.rand(n, 1, 1, 16, 16) * 2 - 1, torch.ones(n, 1).bool() if image is None else image),
            "text": Field(words, torch.ones(n, 1).bool() if text is None else text, mask=torch.ones(n, 1, 6).bool()),
        },
    )


def drawn(held, given):
    """What the objective draws from the generator, in its order."""
    z = held.encode(given.fields["image"].values[:, 0])
    noise, t = torch.randn(z.shape), torch.randint(0, 1000, (len(z),))
    return z, noise, t


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_is_the_mean_square_of_the_schedulers_target(prediction):
    held, given = model(prediction), batch()
    torch.manual_seed(3)
    found = NoiseMse(prediction, drop_text=0.0)(held, given)
    torch.manual_seed(3)
    z, noise, t = drawn(held, given)
    ddpm = diffusers.DDPMScheduler(**STABLE, prediction_type=prediction)
    abar = ddpm.alphas_cumprod[t][:, None, None, None]
    noisy = abar.sqrt() * z + (1 - abar).sqrt() * noise
    target = noise if prediction == "epsilon" else abar.sqrt() * noise - (1 - abar).sqrt() * z
    states = held.text(given.fields["text"].values[:, 0], torch.ones(4, 6).bool()).values
    said = held.denoiser(noisy, t, encoder_hidden_states=states).sample
    assert found.count == 4
    torch.testing.assert_close(found.total, ((said - target) ** 2).mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_those_of_the_paper(prediction):
    ddpm = diffusers.DDPMScheduler(**STABLE)
    t = torch.tensor([0, 100, 500, 999])
    snr = compute_snr(ddpm, t)
    wanted = torch.minimum(snr, torch.tensor(5.0)) / (snr if prediction == "epsilon" else snr + 1)
    found = NoiseMse(prediction, snr_gamma=5.0).weights(ddpm.alphas_cumprod[t])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_dropped_or_absent_text_is_the_empty_prompt_whatever_it_said():
    held = model()
    other = batch()
    other.fields["text"].values.fill_(9)

    def loss(objective, given):
        torch.manual_seed(3)
        return float(objective(held, given).total.detach())

    always, never = NoiseMse(drop_text=1.0), NoiseMse(drop_text=0.0)
    assert loss(always, batch()) == loss(always, other)
    assert loss(never, batch()) != loss(never, other)
    none = torch.zeros(4, 1).bool()
    assert loss(never, batch(text=none)) == pytest.approx(loss(always, batch()), rel=1e-6)


def test_the_share_of_dropped_texts_is_about_what_was_asked():
    held = model()
    share = [NoiseMse(drop_text=0.25)(held, batch_of(i)).terms["with_text"] for i in range(20)]
    assert 0.65 < sum(share) / 20 < 0.85


def batch_of(i):
    given = batch(16)
    torch.manual_seed(100 + i)
    return given


def test_rows_without_an_image_do_not_count():
    held, some = model(), torch.tensor([[True], [False], [True], [False]])
    assert NoiseMse()(held, batch(image=some)).count == 2
    nothing = NoiseMse()(held, batch(image=torch.zeros(4, 1).bool()))
    assert nothing.count == 0
    assert float(nothing.total) == 0.0


def test_gradients_reach_the_first_layer_of_the_text_part_and_never_the_encoder_of_images():
    held = model()
    NoiseMse(drop_text=0.0)(held, batch()).total.backward()
    assert float(held.text.blocks[0].qkv.weight.grad.norm()) > 0
    assert float(held.text.words.weight.grad.norm()) > 0
    assert all(p.grad is None for p in held.vae.parameters())


def test_a_scheduler_made_for_another_prediction_is_refused():
    with pytest.raises(UsageError, match="made for 'epsilon', the objective asks for 'v_prediction'"):
        NoiseMse("v_prediction")(model(), batch())
    with pytest.raises(UsageError, match="drop_text"):
        NoiseMse(drop_text=1.5)
