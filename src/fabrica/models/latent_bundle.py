"""A latent diffusion model with what feeds it and its card: prompts in, pictures out, saved as one folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fabrica import safe
from fabrica.encode.collate import Collate
from fabrica.encode.text import Cut, TextEncode
from fabrica.errors import Refused, UsageError, unknown
from fabrica.models.bundle import CARD, COLLATE, Bundle, Progress, Rows, _chunks, evaluating, to_device
from fabrica.models.cache import fingerprint
from fabrica.models.latent import CONFIG, WEIGHTS, Sampler, Text2Image
from fabrica.types import Record


class LatentBundle(Bundle):
    """`model`, `collate` (fields "image" and "text"), `card`. `generate` makes pictures of prompts; `embed` gives an
    image's latents or the mean of a text's states.

    Errors: `UsageError` where the images would be mirrored (a mirrored chest has its heart, and every side that the
    text names, on the wrong side), are not brought to [-1, 1], or have other channels than the model.
    """

    model: Text2Image  # type: ignore[assignment]
    collate: Collate

    def __init__(self, model: Text2Image, collate: Collate, card: Mapping[str, Any] | None = None) -> None:
        self.model, self.collate, self.card = model, collate, dict(card or {})
        if set(collate.fields) != {"image", "text"}:
            raise UsageError(f"a text-to-image model reads image and text; the collate has {', '.join(collate.fields)}")
        image: Any = collate.fields["image"].encode
        augment = getattr(image, "augment", None)
        if augment is not None and augment.flip > 0:
            raise UsageError("laterality: a mirrored image with its own text teaches the wrong side; set flip=0")
        if image.shape is None or image.shape[0] != model.colours or {*image.mean, *image.std} != {0.5}:
            raise UsageError(f"images are ({model.colours}, H, W) in [-1, 1]: {model.colours} channels, mean, std 0.5")
        self.words.ids("")  # an error where not even the empty prompt fits
        model.text.check(None, self.words.size)

    @property
    def words(self) -> TextEncode:
        """How a text becomes tokens."""
        encode = self.collate.fields["text"].encode
        if not isinstance(encode, TextEncode):
            raise UsageError(f"the field 'text' is read by a TextEncode, not {type(encode).__name__}")
        return encode

    @property
    def fields(self) -> tuple[str, ...]:
        """ "image" and "text"."""
        return ("image", "text")

    @property
    def fingerprint(self) -> str:
        """24 hex digits of architecture and weights."""
        return fingerprint(self.model, self.model.to_json())

    def overflow(self, records: Iterable[Record]) -> Cut:
        """How many texts of the records are longer than the text part reads, and are therefore not learned from."""
        roles = self.collate.fields["text"].roles
        return self.words.survey([item.text() for record in records for item in record.all(*roles)])

    # ------------------------------------------------------------ answers

    def generate(
        self, prompts: Sequence[str], *, seeds: Sequence[int], guidance: float = 4.0, steps: int = 50,
        sampler: Sampler = "ddim", batch: int = 64, progress: Progress | None = None,
    ) -> NDArray[np.uint8]:  # fmt: skip
        """Pictures (n, H, W) or (n, H, W, C) uint8, one a prompt and seed.

        Errors: `UsageError` for fewer seeds than prompts, or an empty prompt with guidance above 1 (both branches would
        be the same); `Refused("text_too_long")` for a prompt that would be cut.
        """
        if len(seeds) != len(prompts):
            raise UsageError(f"{len(prompts)} prompts and {len(seeds)} seeds; wanted one seed an image")
        blank = [i for i, p in enumerate(prompts) if not p.strip()]
        if blank and guidance > 1:
            raise UsageError(f"prompt {blank[0]} is empty: guidance {guidance} has nothing to guide to; use guidance 1")
        device = next(self.model.parameters()).device
        told = [self.words.ids(p.strip()) for p in prompts]
        made: list[NDArray[np.uint8]] = []
        for start in range(0, len(told), batch):
            some = told[start : start + batch]
            length = max(map(len, some))
            ids = torch.full((len(some), length), self.model.pad, dtype=torch.long)
            mask = torch.zeros(len(some), length, dtype=torch.bool)
            for i, one in enumerate(some):
                ids[i, : len(one)], mask[i, : len(one)] = torch.tensor(one), True
            images = self.model.generate(
                ids.to(device), mask.to(device), seeds=seeds[start : start + batch], guidance=guidance, steps=steps,
                sampler=sampler,
            )  # fmt: skip
            whole = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
            made.append(whole[..., 0] if whole.shape[-1] == 1 else whole)
            if progress is not None:
                progress(min(start + batch, len(told)), len(told), "generate")
        return np.concatenate(made) if made else np.zeros((0, 0, 0), np.uint8)

    def embed(
        self, records: Iterable[Record], field: str, *, batch: int = 64, progress: Progress | None = None,
        unit: bool = True, **options: Any,
    ) -> Rows:  # fmt: skip
        """ids [n], rows (n, D) float32 (zero where the field is absent), present (n,): latents of the image, or the
        mean of the text part's states over real tokens."""
        if field not in self.fields:
            raise unknown("field", field, self.fields)
        still, device = self.collate.still().only(field), next(self.model.parameters()).device
        ids: list[str] = []
        parts: list[NDArray[np.float32]] = []
        here: list[NDArray[np.bool_]] = []
        with evaluating(self.model):
            for chunk in _chunks(records, batch):
                given = to_device(still(chunk, 0).fields[field], device)
                at = given.valid[:, 0]
                parts.append(self._vectors(given, at, field))
                here.append(at.cpu().numpy())
                ids += [r.id for r in chunk]
                if progress is not None:
                    progress(len(ids), None, f"embed {field}")
        found = np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
        if unit:
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return ids, found.astype(np.float32), np.concatenate(here) if here else np.zeros(0, bool)

    def _vectors(self, given: Any, at: torch.Tensor, field: str) -> NDArray[np.float32]:
        if field == "image":
            z = self.model.encode(given.values[:, 0]).flatten(1)
            return (z * at[:, None]).float().cpu().numpy()
        ids, mask = self.model.nothing(1, at.device)
        out = torch.zeros(len(at), self.model.text.width, device=at.device)
        if at.any():
            ids, mask = given.values[at, 0], given.mask[at, 0]
            states = self.model.text(ids, mask).values
            out[at] = (states * mask[..., None]).sum(1).float() / mask.sum(1, keepdim=True)
        return out.cpu().numpy()

    # ------------------------------------------------------------ disk

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> Path:
        """config.json, model.safetensors, collate.json, card.json: whole or not at all."""
        from fabrica.models.weights import save_weights

        folder = Path(folder)
        with safe.folder_whole(folder, replace=replace) as temp:
            save_weights(self.model.state_dict(), temp / WEIGHTS, {"system": str(self.card.get("system", ""))})
            for name, data in (
                (CONFIG, self.model.to_json()), (COLLATE, self.collate.to_json()), (CARD, self.card),
            ):  # fmt: skip
                (temp / name).write_text(json.dumps(data, indent=1, sort_keys=name == CARD) + "\n", "utf-8")
        return folder

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: str = "cpu", allow_network: bool = False) -> LatentBundle:
        """From a folder that `save_pretrained` wrote."""
        from fabrica.models.load import collate_of
        from fabrica.models.weights import fill

        folder = Path(source)
        for name in (CONFIG, WEIGHTS, COLLATE):
            if not (folder / name).is_file():
                raise UsageError(f"{str(source)!r} has no {name}; wanted a folder that `save_pretrained` wrote")
        model = Text2Image.from_json(json.loads(safe.read_bytes(folder / CONFIG)))
        fill(model.state_dict(), safe.weights(folder / WEIGHTS), folder / WEIGHTS)
        collate = collate_of(json.loads(safe.read_bytes(folder / COLLATE)))
        card = json.loads(safe.read_bytes(folder / CARD)) if (folder / CARD).is_file() else {}
        return cls(model.to(device).eval(), collate, card)


# ---------------------------------------------------------------- to begin with


def based(
    source: str, *, text: str = "", length: int = 77, allow_network: bool = False
) -> tuple[Text2Image, TextEncode]:
    """Model and words of a folder that this library or diffusers' StableDiffusionPipeline saved, or of a hub id (from
    the local hub cache unless `allow_network`). `text` names another text encoder in its place."""
    from fabrica.models.latent import of_pipeline
    from fabrica.models.transformers_tower import TransformersTower

    folder = Path(source) if Path(source).is_dir() else _snapshot(source, allow_network)
    if (folder / COLLATE).is_file():
        found = LatentBundle.from_pretrained(folder)
        if text:
            raise UsageError("another text encoder goes into a diffusers pipeline; this folder has its own")
        return found.model, TextEncode(found.words.tokenizer, min(length, found.words.length))
    vae, denoiser, noise, scale = of_pipeline(folder)
    body = TransformersTower.load(text or folder / "text_encoder", allow_network=allow_network)
    words = TextEncode(text or folder / "tokenizer", length)
    model = Text2Image(
        vae, denoiser, body, noise, scale=scale, empty=words.tokenizer.encode("").ids, pad=words.pad,
        attend_pads=None if text else length,
    )  # fmt: skip
    return model, words


def _snapshot(name: str, allow_network: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*/*.json", "*/*.safetensors", "*/merges.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=not allow_network))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise UsageError(
            f"no folder {name!r}, and no such pipeline in the hub cache; allow_network=True may fetch it"
        ) from error


def held_rights(records: Iterable[Record], access: Sequence[str]) -> None:
    """An error where a record's access is none of those that the user says to hold."""
    lacking = {r.rights.access for r in records} - set(access)
    if lacking:
        raise Refused(
            "access", f"the records are {', '.join(sorted(lacking))}; say access={tuple(sorted({*access, *lacking}))} "
            "only if you hold these rights",
        )  # fmt: skip
