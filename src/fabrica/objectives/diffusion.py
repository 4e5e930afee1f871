"""The loss of latent diffusion: the noise (or velocity) that was mixed into an image's latents, by squared error."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from fabrica.errors import UsageError
from fabrica.types import Batch, Loss

if TYPE_CHECKING:
    from torch import nn

Prediction = Literal["epsilon", "v_prediction"]


@dataclass(slots=True)
class NoiseMse:
    """E || target - said(z_t, t, text) ||^2, mean over a latent, with z_t = sqrt(abar_t) z + sqrt(1 - abar_t) eps and t
    uniform (Ho et al., arXiv 2006.11239; in latents: Rombach et al., arXiv 2112.10752).

    `prediction`: the target is eps, or v = sqrt(abar_t) eps - sqrt(1 - abar_t) z (arXiv 2202.00512); it must be what
    the model's scheduler says. `snr_gamma` weighs by min(SNR, gamma) / SNR, for v / (SNR + 1) (arXiv 2303.09556).
    `drop_text` of the texts are replaced by the empty prompt; a record without a text always has it. `sample` draws
    latents from the encoder's posterior in place of its mean. A record without an image does not count.

    >>> NoiseMse().reads
    ('image', 'text')
    """

    prediction: Prediction = "epsilon"
    snr_gamma: float | None = None
    drop_text: float = 0.1
    sample: bool = False
    image: str = "image"
    text: str = "text"
    reads: tuple[str, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.reads = (self.image, self.text)
        if self.prediction not in ("epsilon", "v_prediction"):
            raise UsageError(f"prediction {self.prediction!r} is none of epsilon, v_prediction")
        if not 0 <= self.drop_text <= 1 or (self.snr_gamma is not None and self.snr_gamma <= 0):
            raise UsageError(f"drop_text {self.drop_text} lies in 0..1, snr_gamma {self.snr_gamma} is above 0 or None")

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch. Every draw is of torch's generator, which the loop seeds at each step."""
        held: Any = model
        if held.prediction != self.prediction:
            raise UsageError(
                f"the model's scheduler is made for {held.prediction!r}, the objective asks for {self.prediction!r}"
            )
        picture, words = batch.fields[self.image], batch.fields[self.text]
        rows = picture.valid[:, 0].nonzero().squeeze(1)
        if not len(rows):
            return Loss(picture.values.new_zeros(()), {}, 0)
        z = held.encode(picture.values[rows, 0], sample=self.sample)
        device = z.device
        noise = torch.randn(z.shape, device=device)
        t = torch.randint(0, held.scheduler.config.num_train_timesteps, (len(rows),), device=device)
        keep = words.valid[rows, 0] & (torch.rand(len(rows), device=device) >= self.drop_text)
        assert words.mask is not None
        told = held.read(words.values[rows, 0], words.mask[rows, 0], keep)
        said = held.denoise(held.scheduler.add_noise(z, noise, t), t, *told)
        target = noise if self.prediction == "epsilon" else held.scheduler.get_velocity(z, noise, t)
        each = (said.float() - target.float()).square().flatten(1).mean(1)
        plain = float(each.detach().mean())
        if self.snr_gamma is not None:
            each = each * self.weights(held.scheduler.alphas_cumprod.to(device)[t])
        return Loss(each.mean(), {"mse": plain, "with_text": float(keep.float().mean())}, len(rows))

    def weights(self, abar: Tensor) -> Tensor:
        """The weight of each row, from the share of signal abar_t (B,)."""
        assert self.snr_gamma is not None
        snr = abar / (1 - abar)
        return snr.clamp(max=self.snr_gamma) / (snr if self.prediction == "epsilon" else snr + 1)
