"""RoentGen: a general text-to-image diffusion model brought to chest X-rays that follow radiology text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from fabrica.types import Record, Schedule, Stage, System

if TYPE_CHECKING:
    from fabrica.models.latent_bundle import LatentBundle

READS = {"image": ("image",), "text": ("impression", "findings", "report", "caption")}


@dataclass(frozen=True, slots=True)
class Settings:
    """`base`: a folder or hub id of a diffusers pipeline, a folder of this system, or "" = a small model from random
    weights over fixed PCA latents. `train` names the arm: ("denoiser",), ("denoiser", "text"), or () = untouched.
    `text` names another text encoder in the base's place. `section` is read first; `overflow` "drop" leaves out texts
    longer than `length` tokens (counted on the card), "truncate" cuts their end. `sample` draws latents in place of
    their mean. `access`: which of the records' access terms the user holds."""

    base: str = "CompVis/stable-diffusion-v1-4"
    train: tuple[str, ...] = ("denoiser", "text")
    text: str = ""
    section: Literal["impression", "findings"] = "impression"
    overflow: Literal["drop", "truncate"] = "drop"
    access: tuple[str, ...] = ("open", "credentialed")
    size: int = 512
    channels: int = 3
    length: int = 77
    vocabulary: int = 2000
    width: int = 48
    depth: int = 2
    widths: tuple[int, ...] = (32, 32)
    patch: int = 4
    latents: int = 6
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    snr_gamma: float | None = None
    drop_text: float = 0.1
    sample: bool = True
    lr: float = 5e-5
    text_rate: float = 1.0
    warmup: int = 0
    final: float = 1.0
    weight_decay: float = 0.01
    batch: int = 256
    steps: int = 12_500
    precision: Literal["no", "bf16"] = "bf16"
    allow_network: bool = False


def build(settings: Settings, records: Iterable[Record]) -> LatentBundle:
    """The parts of the base, its scale checked on the records' images, and a collate without any mirror."""
    from fabrica.corpus.rights import join
    from fabrica.encode.collate import Collate, Use
    from fabrica.encode.image import ImageEncode
    from fabrica.models.latent_bundle import LatentBundle, based, held_rights

    s, known = settings, list(records)
    held_rights(known, s.access)
    half = (0.5,) * s.channels
    roles = (s.section, *(r for r in READS["text"] if r != s.section))
    image = Use(READS["image"], ImageEncode(s.size, s.channels, half, half))
    shown = [r for r in known if r.first(*READS["image"])]
    pictures = Collate({"image": image})(shown[:: max(1, len(shown) // 512)]).fields["image"]  # of all sources
    if s.base:
        model, words = based(s.base, text=s.text, length=s.length, allow_network=s.allow_network)
    else:
        model, words = _small(s, known, roles, pictures.values[:, 0])
    collate = Collate({"image": image, "text": Use(roles, _whole(words) if s.overflow == "drop" else words)})
    spread = model.check_scale(pictures.values[:, 0][:: max(1, len(pictures.values) // 64)])
    bundle = LatentBundle(model, collate, {"system": "roentgen", "title": SYSTEM.title})
    cut = bundle.overflow(known)
    rights = asdict(join(*dict.fromkeys(r.rights for r in known)))
    too_long = {"texts": cut.texts, "too_long": cut.truncated, "longest": cut.longest, "policy": s.overflow}
    bundle.card |= {"text": too_long, "latent_std": round(spread, 4), "rights": rights, "scale": model.scale}
    return bundle


def _small(s: Settings, known: Sequence[Record], roles: tuple[str, ...], pictures: Any) -> Any:
    from fabrica.models.choose import text_body
    from fabrica.models.latent import STABLE, PatchPca, Text2Image, small_denoiser

    body, words = text_body(
        s.text or "small", known, roles, length=s.length, vocabulary=s.vocabulary, width=s.width, depth=s.depth,
        allow_network=s.allow_network,
    )  # fmt: skip
    vae = PatchPca.fit(pictures, s.patch, s.latents)
    denoiser = small_denoiser(s.latents, s.size // s.patch, body.width, s.widths)
    noise = {**STABLE, "prediction_type": s.prediction}
    empty = words.tokenizer.encode("").ids
    return Text2Image(vae, denoiser, body, noise, empty=empty, pad=words.pad), words


def _whole(words: Any) -> Any:
    from fabrica.encode.whole_text import WholeText

    return WholeText(words.tokenizer, words.length)


def stages(settings: Settings, bundle: LatentBundle) -> tuple[Stage, ...]:
    """One stage: predict the noise in the images' latents; what `train` does not name, and always the encoder of
    images, stands still."""
    from fabrica.models.latent import rates
    from fabrica.objectives.diffusion import NoiseMse

    s = settings
    loss = NoiseMse(s.prediction, s.snr_gamma, s.drop_text, s.sample)
    plan = Schedule(
        s.steps, s.batch, s.lr, warmup=s.warmup, weight_decay=s.weight_decay, final=s.final, precision=s.precision,
        lr_scale=rates(bundle.model, s.train, {"text": s.text_rate}),
    )  # fmt: skip
    return (Stage("adapt", bundle.collate, {"noise": loss}, plan, needs=("image",)),) if s.train else ()


SYSTEM = System(
    seed="S26",
    title="RoentGen: vision-language foundation model for chest X-ray generation",
    paper="Chambon, Bluethgen et al., arXiv 2211.12737; Nature Biomedical Engineering 2024",
    claim="Fine-tuning denoiser and text encoder brings a general generator to chest X-rays that follow the text and "
    "help a classifier.",
    departs="No average of weights (EMA), no adapters; the text encoder of arm (d) may be trained, too; texts that do "
    "not fit are left out and counted, their images then learn without a text. The tiny preset learns everything from "
    "nothing over fixed PCA latents.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": Settings(
            base="", access=("open",), size=32, channels=1, length=48, vocabulary=400, sample=False, lr=2e-3,
            warmup=20, final=0.05, weight_decay=0.0, batch=32, steps=900, precision="no",
        ),
    },
    build=build,
    stages=stages,
)  # fmt: skip
