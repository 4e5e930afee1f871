"""Synthetic images on request: pictures of a prompt that say, in record and file, that no patient was ever so."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError
from fabrica.safe import read_bytes, sha256, write_whole
from fabrica.types import Item, Origin, Record, Rights, record_id

if TYPE_CHECKING:
    from fabrica.evaluate.generation import Memory
    from fabrica.models.latent import Sampler
    from fabrica.models.latent_bundle import LatentBundle

SOURCE = "fabrica-generated"
MARK = "SYNTHETIC IMAGE: made by a model, shows no patient"


def generate(
    bundle: LatentBundle, prompt: str, n: int = 1, *, seed: int = 0, seeds: Sequence[int] | None = None,
    guidance: float = 4.0, steps: int = 50, sampler: Sampler = "ddim", out: str | Path | None = None,
    memory: Memory | None = None,
) -> list[Record]:  # fmt: skip
    """`n` synthetic records of a prompt: an image and the prompt as its caption, both with `Origin.by` "synthetic", the
    origin's key naming weights and seed, its steps the settings; rights are those of the data that the model learned
    from. Image i has seed `seed` + i, or `seeds[i]`. With `out`, each is written there as NAME.png whose text chunks
    say that it is synthetic, and prompt, seed, guidance and the hash of the weights.

    `memory` is what `evaluate.generation.memorisation` found of this model: near copies of training images block it.
    Errors: `UsageError` for fewer seeds than `n`, or an empty prompt with guidance above 1.
    """
    if n < 1:
        raise UsageError(f"{n} images; wanted 1 or more")
    given = list(range(seed, seed + n)) if seeds is None else list(seeds)
    if len(given) < n:
        raise UsageError(f"{n} images and {len(given)} seeds; wanted a seed for each")
    if memory is not None:
        memory.release()
    weights = bundle.fingerprint
    images = bundle.generate([prompt] * n, seeds=given[:n], guidance=guidance, steps=steps, sampler=sampler)
    settings = {"guidance": f"{guidance:g}", "steps": str(steps), "sampler": sampler}
    rights = Rights(**bundle.card.get("rights", {}))
    made = []
    for image, number in zip(images, given, strict=False):
        about = {"Synthetic": "true", "Prompt": prompt, "Seed": str(number), "Weights": weights, **settings}
        data = png(image, about)
        made.append(_record(image, data, about, rights))
        if out is not None:
            Path(out).mkdir(parents=True, exist_ok=True)
            with write_whole(Path(out) / f"{made[-1].id}.png") as file:
                file.write(data)
    return made


def _record(image: NDArray[np.uint8], data: bytes, about: Mapping[str, str], rights: Rights) -> Record:
    told = ",".join(f"{k}={about[k]}" for k in ("guidance", "steps", "sampler"))
    key = f"{about['Weights']}/{about['Seed']}"
    origin = Origin(SOURCE, key, sha256(data), rights.licence, "synthetic", (f"generate:{told}",))
    name = record_id(SOURCE, key, about["Prompt"], told)
    items = {"image": (Item("image", image, origin),), "caption": (Item("text", about["Prompt"], origin),)}
    groups = {"data": "synthetic", "source": SOURCE, "seed": about["Seed"], "weights": about["Weights"]}
    return Record(name, name, groups, items, rights=rights)


def png(image: NDArray[np.uint8], about: Mapping[str, str]) -> bytes:
    """A PNG of (H, W) or (H, W, 3) whose text chunks hold `about`, under a comment that it is synthetic."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_itxt("Comment", MARK)
    for name, value in about.items():
        chunks.add_itxt(name, value)
    held = io.BytesIO()
    Image.fromarray(image).save(held, "png", pnginfo=chunks)
    return held.getvalue()


def marks(path: str | Path) -> dict[str, str]:
    """The text chunks of a PNG file; {} where it has none."""
    from PIL import Image

    with Image.open(io.BytesIO(read_bytes(path))) as picture:
        picture.load()
        told: dict[Any, Any] = getattr(picture, "text", {})
        return {str(k): str(v) for k, v in told.items()}
