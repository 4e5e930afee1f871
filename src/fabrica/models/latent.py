"""Text to image by latent diffusion: a thin holder of diffusers' parts and a text body, with an explicit latent scale.

Parameters are called by their part ("vae.", "denoiser.", "text."), which is how schedules name what they train.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError, need, unknown
from fabrica.models.body import Body

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PARTS = ("vae", "denoiser", "text")
Sampler = Literal["ddim", "pndm", "ddpm"]
_SAMPLERS = {"ddim": "DDIMScheduler", "pndm": "PNDMScheduler", "ddpm": "DDPMScheduler"}
_FORMAT = 1
_PRIVATE = ("_class_name", "_diffusers_version", "_name_or_path", "_use_default_values")
STABLE: Mapping[str, Any] = {  # Stable Diffusion v1's noise: 1000 steps, betas linear in their square root
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
}  # fmt: skip


class PatchPca(nn.Module):
    """Fixed latents: the leading principal components of square patches, each to unit variance. No parameter.

    Speaks as diffusers' `AutoencoderKL` does (`encode(x).latent_dist`, `decode(z).sample`); its posterior is a point.
    """

    mean: Tensor
    basis: Tensor
    spread: Tensor

    def __init__(self, patch: int = 4, channels: int = 6, colours: int = 1) -> None:
        super().__init__()
        self.patch, self.channels, self.colours = patch, channels, colours
        width = colours * patch * patch
        if not 1 <= channels <= width:
            raise UsageError(f"{channels} components of patches of {width} values; wanted 1 to {width}")
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("basis", torch.zeros(channels, width))
        self.register_buffer("spread", torch.ones(channels))

    @classmethod
    def fit(cls, images: Tensor, patch: int = 4, channels: int = 6) -> PatchPca:
        """The components of `images` (n, C, H, W)."""
        made = cls(patch, channels, images.shape[1])
        rows = made._patches(images).permute(0, 2, 3, 1).reshape(-1, made.mean.numel()).double()
        middle = rows.mean(0)
        values, vectors = torch.linalg.eigh((rows - middle).T @ (rows - middle) / len(rows))
        best = vectors[:, -channels:].flip(1).T
        best = best * best.gather(1, best.abs().argmax(1, keepdim=True)).sign()  # a sign that does not depend on LAPACK
        made.mean.copy_(middle)
        made.basis.copy_(best)
        made.spread.copy_(values[-channels:].flip(0).clamp(min=1e-12).sqrt())
        return made

    def encode(self, image: Tensor) -> Any:
        """(B, C, H, W) -> an output whose `latent_dist` is a point at (B, channels, H / patch, W / patch)."""
        need("diffusers", "dense")
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
        from diffusers.models.modeling_outputs import AutoencoderKLOutput

        rows = self._patches(image) - self.mean[:, None, None]
        z = torch.einsum("bphw,cp->bchw", rows, self.basis) / self.spread[:, None, None]
        return AutoencoderKLOutput(DiagonalGaussianDistribution(torch.cat([z, torch.zeros_like(z)], 1), True))

    def decode(self, z: Tensor) -> Any:
        """(B, channels, h, w) -> an output whose `sample` is (B, C, H, W)."""
        need("diffusers", "dense")
        from diffusers.models.autoencoders.vae import DecoderOutput

        rows = torch.einsum("bchw,cp->bphw", z * self.spread[:, None, None], self.basis) + self.mean[:, None, None]
        return DecoderOutput(nn.functional.pixel_shuffle(rows, self.patch))

    def _patches(self, image: Tensor) -> Tensor:
        if image.shape[1] != self.colours or image.shape[2] % self.patch or image.shape[3] % self.patch:
            raise UsageError(
                f"images {tuple(image.shape)}; wanted {self.colours} channels and sides that are multiples of "
                f"{self.patch}"
            )
        return nn.functional.pixel_unshuffle(image, self.patch)

    def to_json(self) -> dict[str, Any]:
        """The arguments that make this part again."""
        return {"kind": "patch_pca", "patch": self.patch, "channels": self.channels, "colours": self.colours}


class Text2Image(nn.Module):
    """`vae` (AutoencoderKL or PatchPca; never trained), `denoiser` (UNet2DConditionModel), `text` (a body that reads
    tokens), `noise` (the arguments of diffusers' DDPMScheduler, with its prediction type).

    `scale` multiplies latents after encoding and divides them before decoding (Stable Diffusion: 0.18215). `empty` are
    the token ids of the empty prompt, `pad` the id that fills. `attend_pads` = the length to which prompts are filled
    with pads that are attended, as Stable Diffusion was trained; None = pads are masked and change nothing.
    """

    def __init__(
        self, vae: nn.Module, denoiser: nn.Module, text: Body, noise: Mapping[str, Any] = STABLE, *,
        scale: float = 1.0, empty: Sequence[int] = (0,), pad: int = 0, attend_pads: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        diffusers = need("diffusers", "dense")
        self.vae, self.denoiser, self.text = vae, denoiser, text
        self.scheduler = diffusers.DDPMScheduler.from_config({**noise, "clip_sample": False})
        self.scale, self.empty, self.pad, self.attend_pads = float(scale), tuple(empty), pad, attend_pads
        settings: Any = denoiser.config
        if not empty or text.reads != "tokens":
            raise UsageError("the text part reads tokens, and the empty prompt has at least one")
        if settings.cross_attention_dim != text.width:
            raise UsageError(f"text states are {text.width} wide, the denoiser reads {settings.cross_attention_dim}")
        vae.requires_grad_(False)

    # ------------------------------------------------------------ latents

    @property
    def prediction(self) -> str:
        """What the denoiser gives: "epsilon" or "v_prediction"."""
        return str(self.scheduler.config.prediction_type)

    @property
    def colours(self) -> int:
        """Channels of the images."""
        vae: Any = self.vae
        return vae.colours if isinstance(vae, PatchPca) else int(vae.config.in_channels)

    def encode(self, image: Tensor, *, sample: bool = False) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] -> `scale` x the posterior's mean, or a draw of it with `sample`.

        Errors: `UsageError` for other channels or another range, which would ruin training in silence.
        """
        if image.ndim != 4 or image.shape[1] != self.colours:
            raise UsageError(f"images are (B, {self.colours}, H, W); got {tuple(image.shape)}")
        if image.numel() and not (float(image.amin()) >= -1.001 and float(image.amax()) <= 1.001):
            low, high = float(image.amin()), float(image.amax())
            raise UsageError(f"images lie in [-1, 1]; got {low:.3g} to {high:.3g}: use mean 0.5 and std 0.5")
        with torch.no_grad():
            found = self.vae.encode(image).latent_dist  # type: ignore[operator]
            z: Tensor = found.sample() if sample else found.mean
        return z * self.scale

    def decode(self, z: Tensor) -> Tensor:
        """Latents -> images in [-1, 1]."""
        with torch.no_grad():
            made: Tensor = self.vae.decode(z / self.scale).sample  # type: ignore[operator]
        return made.clamp(-1, 1)

    def check_scale(self, image: Tensor, low: float = 0.5, high: float = 2.0) -> float:
        """The standard deviation of scaled latents of images; an error where it is far from 1 (noise has 1)."""
        z = self.encode(image)
        spread = float(z.std())
        if not low <= spread <= high:
            raise UsageError(
                f"latents have a standard deviation of {spread:.3g} at scale {self.scale:.4g}; noise has 1. Give the "
                f"scale that the encoder was made with (about {self.scale / max(spread, 1e-12):.4g} here)"
            )
        return spread

    # ------------------------------------------------------------ text and noise

    def read(self, ids: Tensor, mask: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Token ids (n, L), mask (n, L) -> states (n, L', D) and which of them may be attended (None = all).

        Rows where `keep` (n,) is False read the empty prompt, through the text part as it is now.
        """
        if keep is not None and not bool(keep.all()):
            ids, mask = self._filled(ids, mask, len(self.empty))
            nothing, there = self.nothing(1, ids.device)
            nothing, there = self._filled(nothing, there, ids.shape[1])
            ids = torch.where(keep[:, None], ids, nothing)
            mask = torch.where(keep[:, None], mask, there)
        if self.attend_pads is not None:
            ids, _ = self._filled(torch.where(mask, ids, self.pad), mask, self.attend_pads)
            return self.text(ids, None).values, None
        return self.text(ids, mask).values, mask

    def nothing(self, n: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Ids and mask of `n` empty prompts."""
        ids = torch.tensor(self.empty, device=device).expand(n, -1)
        return ids, torch.ones_like(ids, dtype=torch.bool)

    def _filled(self, ids: Tensor, mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
        more = length - ids.shape[1]
        if more <= 0:
            return ids, mask
        return nn.functional.pad(ids, (0, more), value=self.pad), nn.functional.pad(mask, (0, more), value=False)

    def denoise(self, z: Tensor, t: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
        """What the denoiser says of noisy latents at steps `t` under text states."""
        said: Tensor = self.denoiser(z, t, encoder_hidden_states=states, encoder_attention_mask=mask).sample
        return said

    def guided(
        self, z: Tensor, t: Tensor, told: tuple[Tensor, Tensor | None], blank: tuple[Tensor, Tensor | None],
        guidance: float,
    ) -> Tensor:  # fmt: skip
        """u + s (c - u) of two branches (Ho and Salimans, arXiv 2207.12598); s = 1 runs the conditional one alone."""
        if guidance == 1.0:
            return self.denoise(z, t, *told)
        c, u = self.denoise(z, t, *told), self.denoise(z, t, *blank)
        return u + guidance * (c - u)

    def generate(
        self, ids: Tensor, mask: Tensor, *, seeds: Sequence[int], guidance: float = 4.0, steps: int = 50,
        sampler: Sampler = "ddim",
    ) -> Tensor:  # fmt: skip
        """Images (n, C, H, W) in [-1, 1] of prompts (n, L). Each begins from the noise of its own seed, so that neither
        the others of the batch nor the device's generator changes it (ddpm draws later noise from the first seed)."""
        if len(seeds) != len(ids):
            raise UsageError(f"{len(ids)} prompts and {len(seeds)} seeds; wanted one seed an image")
        device, scheduler = ids.device, self.sampler(sampler)
        scheduler.set_timesteps(steps, device=device)
        was = self.training
        self.eval()
        with torch.no_grad():
            told, blank = self.read(ids, mask), self.read(*self.nothing(len(ids), device))
            z = self.start(seeds).to(device) * scheduler.init_noise_sigma
            later = torch.Generator().manual_seed(int(seeds[0])) if sampler == "ddpm" else None
            for t in scheduler.timesteps:
                said = self.guided(scheduler.scale_model_input(z, t), t, told, blank, guidance)
                extra = {"generator": later} if later is not None else {}
                z = scheduler.step(said, t, z, **extra).prev_sample
            made = self.decode(z)
        self.train(was)
        return made

    def sampler(self, name: Sampler) -> Any:
        """diffusers' scheduler of that name over the noise that the model was trained with."""
        if name not in _SAMPLERS:
            raise unknown("sampler", name, _SAMPLERS)
        diffusers = need("diffusers", "dense")
        rest: dict[str, Any] = {"clip_sample": False}
        if name != "ddpm":
            rest |= {"set_alpha_to_one": False, "steps_offset": 1}
        if name == "pndm":
            rest["skip_prk_steps"] = True
        return getattr(diffusers, _SAMPLERS[name]).from_config({**plain(self.scheduler.config), **rest})

    def start(self, seeds: Sequence[int]) -> Tensor:
        """The noise (n, channels, h, w) that images of `seeds` begin from."""
        settings: Any = self.denoiser.config
        side = settings.sample_size
        shape = (settings.in_channels, *((side, side) if isinstance(side, int) else side))
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(int(s))) for s in seeds])

    # ------------------------------------------------------------ disk

    def hashes(self) -> dict[str, str]:
        """Hex sha256 of each part's weights and buffers."""
        from fabrica.models.weights import state_hash

        return {name: state_hash(self.get_submodule(name).state_dict()) for name in PARTS}

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain JSON: what config.json holds."""
        vae = self.vae.to_json() if isinstance(self.vae, PatchPca) else plain(_config(self.vae))
        parts = {"vae": vae, "denoiser": plain(_config(self.denoiser)), "text": self.text.to_json()}
        rest = {"scale": self.scale, "empty": list(self.empty), "pad": self.pad, "attend_pads": self.attend_pads}
        return {
            "format": _FORMAT, "library": "fabrica", "latent": {**parts, "noise": plain(self.scheduler.config), **rest},
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Text2Image:
        """The inverse of `to_json`, with random weights."""
        from fabrica.models.load import body_of

        diffusers = need("diffusers", "dense")
        found = data.get("latent")
        if not isinstance(found, Mapping) or data.get("format") != _FORMAT:
            raise UsageError(f"{CONFIG} describes no latent diffusion of format {_FORMAT}: it is another family's")
        vae = dict(found["vae"])
        held = (
            PatchPca(**{k: v for k, v in vae.items() if k != "kind"}) if vae.get("kind") == "patch_pca"
            else diffusers.AutoencoderKL.from_config(vae)
        )  # fmt: skip
        rest = {k: found[k] for k in ("scale", "empty", "pad", "attend_pads")}
        denoiser = diffusers.UNet2DConditionModel.from_config(dict(found["denoiser"]))
        return cls(held, denoiser, body_of(found["text"]), found["noise"], **rest)


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A diffusers config as plain JSON, without what belongs to a machine or a version."""
    made: dict[str, Any] = json.loads(json.dumps({k: v for k, v in config.items() if k not in _PRIVATE}, default=str))
    return made


def _config(module: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = module.config
    return found


def small_denoiser(
    channels: int, side: int, text: int, widths: Sequence[int] = (32, 32), heads: int = 4
) -> nn.Module:  # fmt: skip
    """A UNet2DConditionModel that trains on a CPU: cross-attention at all but the finest level.

    >>> sum(p.numel() for p in small_denoiser(6, 8, 48).parameters()) < 4e5
    True
    """
    diffusers = need("diffusers", "dense")
    low = len(widths) - 1
    made: nn.Module = diffusers.UNet2DConditionModel(
        sample_size=side, in_channels=channels, out_channels=channels, block_out_channels=tuple(widths),
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * low,
        up_block_types=("CrossAttnUpBlock2D",) * low + ("UpBlock2D",),
        layers_per_block=1, cross_attention_dim=text, attention_head_dim=heads, norm_num_groups=8,
    )  # fmt: skip
    return made


def rates(model: Text2Image, train: Sequence[str], multiply: Mapping[str, float]) -> dict[str, float]:
    """Rate multipliers by part for a schedule: 0 for what `train` does not name, `multiply` for what it does.

    Errors: `UsageError` for a part that is not there, and for "vae": the encoder of images is never trained.
    """
    for name in train:
        if name not in PARTS[1:]:
            raise unknown("part to train ('vae' is always frozen)", name, PARTS[1:])
    found = {n: multiply.get(n, 1.0) if n in train else 0.0 for n in PARTS}
    return {n: rate for n, rate in found.items() if any(True for _ in model.get_submodule(n).parameters())}


def of_pipeline(folder: str | Path) -> tuple[nn.Module, nn.Module, dict[str, Any], float]:
    """Encoder, denoiser, noise and latent scale of a folder that diffusers' StableDiffusionPipeline saved; only
    safetensors are read."""
    diffusers = need("diffusers", "dense")
    stay: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    try:
        vae = diffusers.AutoencoderKL.from_pretrained(folder, subfolder="vae", **stay)
        denoiser = diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **stay)
        noise = diffusers.DDPMScheduler.load_config(folder, subfolder="scheduler", local_files_only=True)
    except OSError as error:
        raise UsageError(f"{str(folder)!r} holds no diffusers pipeline: {str(error).splitlines()[0]}") from error
    known = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    return vae, denoiser, {k: noise[k] for k in known if k in noise}, float(vae.config.scaling_factor)
