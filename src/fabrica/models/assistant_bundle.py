"""An assistant with its template, tokenizer and card: records and questions in, answers out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fabrica import safe
from fabrica.encode.collate import pad
from fabrica.encode.turns import TEXT, ChatCollate, text_field
from fabrica.errors import UsageError, unknown
from fabrica.models.bridge import Assistant
from fabrica.models.bundle import CARD, COLLATE, Bundle, Progress, Rows, _chunks, _readme, evaluating, to_device
from fabrica.models.cache import FeatureCache, fingerprint
from fabrica.models.multi import CONFIG, WEIGHTS
from fabrica.models.weights import fill, save_weights
from fabrica.text.turns import Turn
from fabrica.types import Batch, Field, Item, Record


class AssistantBundle(Bundle):
    """`model` reads what `collate` makes of records; `say` answers questions about their images."""

    model: Assistant  # type: ignore[assignment]
    collate: ChatCollate  # type: ignore[assignment]

    def __init__(self, model: Assistant, collate: ChatCollate, card: Mapping[str, Any] | None = None) -> None:
        self.model, self.collate, self.card = model, collate, dict(card or {})
        self._vision_key: str | None = None
        words, room = collate.words, getattr(model.net.config.text_config, "max_position_embeddings", None)
        if words.size > model.vocabulary or words.image_id != model.image_id:
            raise UsageError(
                f"the vocabulary has {words.size} tokens and image token {words.image_id}; the language model "
                f"{model.vocabulary} and {model.image_id}"
            )
        if room is not None and words.length > room:
            raise UsageError(f"conversations have up to {words.length} tokens; the language model reads {room}")
        if collate.image is None or collate.picture != model.picture:
            raise UsageError(f"the collate makes no field {model.picture!r}, which the assistant looks at")

    @property
    def fields(self) -> tuple[str, ...]:
        """What can be embedded: the image (mean of its tokens) and the text (mean of its states)."""
        return (self.model.picture, TEXT)

    # ------------------------------------------------------------ disk

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> Path:
        """config.json, model.safetensors, collate.json, card.json, README.md: whole or not at all."""
        folder = Path(folder)
        with safe.folder_whole(folder, replace=replace) as temp:
            save_weights(self.model.state_dict(), temp / WEIGHTS, {})
            for name, data in ((CONFIG, self.model.to_json()), (COLLATE, self.collate.to_json()), (CARD, self.card)):
                (temp / name).write_text(json.dumps(data, indent=1) + "\n", "utf-8")
            (temp / "README.md").write_text(_readme(self.card), "utf-8")
        return folder

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, device: str = "cpu", allow_network: bool = False
    ) -> AssistantBundle:
        """From a folder that `save_pretrained` wrote."""
        folder = Path(source)
        for name in (CONFIG, WEIGHTS, COLLATE):
            if not (folder / name).is_file():
                raise UsageError(f"{str(source)!r} has no {name}; wanted a folder that `save_pretrained` wrote")
        model = Assistant.from_json(json.loads(safe.read_bytes(folder / CONFIG)))
        fill(model.state_dict(), safe.weights(folder / WEIGHTS), folder / WEIGHTS)
        collate = ChatCollate.from_json(json.loads(safe.read_bytes(folder / COLLATE)))
        card = json.loads(safe.read_bytes(folder / CARD)) if (folder / CARD).is_file() else {}
        model.to(device).eval()
        return cls(model, collate, card)

    # ------------------------------------------------------------ answers

    def say(
        self, records: Sequence[Record], questions: Sequence[str], *, most: int = 64, batch: int = 32,
        temperature: float = 0.0, seed: int = 0, images: Sequence[Record] | None = None, cached: bool = True,
        features: FeatureCache | None = None, progress: Progress | None = None,
    ) -> list[str]:  # fmt: skip
        """The answer to one question about each record. `images` are records whose images are shown instead (a
        permutation: what is left of the score is the language prior). `features` keeps what the vision tower saw."""
        shown = list(records if images is None else images)
        if not len(records) == len(questions) == len(shown):
            raise UsageError(f"{len(records)} records, {len(questions)} questions, {len(shown)} images; wanted as many")
        out: list[str] = []
        still = self.collate.still()
        for start in range(0, len(records), batch):
            rows = range(start, min(start + batch, len(records)))
            pictures = [still._images(shown[i], 0) for i in rows]
            image = pad(pictures, still.image.encode) if still.image is not None else None
            if image is not None and features is not None:
                image = self.seen(Batch((), {self.model.picture: image}), cache=features).fields[self.model.picture]
            turns = [[(questions[i], "")] for i in rows]
            out += self.reply(turns, image, most=most, temperature=temperature, seed=seed + len(out), cached=cached)
            if progress is not None:
                progress(len(out), len(records), "answer")
        return out

    def reply(
        self, turns: Sequence[Sequence[Turn]], image: Field | None, *, most: int = 64, temperature: float = 0.0,
        seed: int = 0, cached: bool = True,
    ) -> list[str]:  # fmt: skip
        """The answer that ends each conversation, whose last turn has a question alone, about the images of its row
        (pixels, or features of `Assistant.see`)."""
        words = self.collate.words
        counts = [0] * len(turns) if image is None else image.valid.sum(1).tolist()
        rows = [words.ids(t, c, ask=True)[0] for t, c in zip(turns, counts, strict=True)]
        fields = {TEXT: text_field(rows, words.pad, [True] * len(rows))}
        if image is not None:
            fields[self.model.picture] = image
        device = next(self.model.parameters()).device
        with evaluating(self.model):
            made = self.model.generate(
                {n: to_device(f, device) for n, f in fields.items()}, most=most, stop=words.stop,
                temperature=temperature, seed=seed, cached=cached,
            )  # fmt: skip
        return [words.decode(row) for row in made.tolist()]

    def seen(self, batch: Batch, *, chunk: int = 64, cache: FeatureCache | None = None) -> Batch:
        """The same batch with the vision tower's features in place of pixels: for a tower that stays frozen. With a
        `cache` an image is looked at once, whichever record shows it: rows stand under the hash of its pixels."""
        image = batch.fields[self.model.picture]
        flat = image.values.flatten(0, 1)
        features = self._looked(flat, chunk) if cache is None else self._recalled(flat, chunk, cache)
        values = features.view(*image.values.shape[:2], *features.shape[1:])
        fields = {**batch.fields, self.model.picture: Field(values, image.valid, image.hours)}
        return Batch(batch.ids, fields, batch.targets, batch.known, batch.keys)

    def _looked(self, pixels: torch.Tensor, chunk: int) -> torch.Tensor:
        """(n, C, H, W) -> (n, T, D) where the pixels are; the tower runs where it is."""
        tower: Any = self.model.net.model.vision_tower
        place = next(tower.parameters()).device
        with evaluating(self.model):
            parts = [self.model.see(pixels[i : i + chunk].to(place)).to(pixels.device)
                     for i in range(0, len(pixels), chunk)]  # fmt: skip
        return torch.cat(parts)

    def _recalled(self, pixels: torch.Tensor, chunk: int, cache: FeatureCache) -> torch.Tensor:
        key = self.vision_key()
        names = [sha256(one.contiguous().numpy().tobytes()).hexdigest() for one in pixels.cpu()]
        have = cache.get(key, names)
        new = {name: i for i, name in enumerate(names) if name not in have}
        if new:
            made = self._looked(pixels[list(new.values())], chunk).float().cpu().numpy()
            cache.put(key, list(new), made, np.ones(len(new), bool))
            have |= {name: (made[i], True) for i, name in enumerate(new)}
        return torch.from_numpy(np.stack([have[n][0] for n in names])).to(pixels.device)

    def vision_key(self) -> str:
        """Fingerprint of the vision tower and of the layer that is read; asked once, for the tower stays frozen."""
        if self._vision_key is None:
            self._vision_key = fingerprint(self.model.net.model.vision_tower, {"layer": self.model.layer})
        return self._vision_key

    # ------------------------------------------------------------ embeddings

    def embed(
        self, records: Iterable[Record], field: str, *, batch: int = 64, progress: Progress | None = None,
        unit: bool = True, **options: Any,
    ) -> Rows:  # fmt: skip
        """ids [n], rows (n, W) float32, present (n,) of the image's tokens or of the text's states."""
        if field not in self.fields:
            raise unknown("field", field, self.fields)
        still = self.collate.still()
        still = still.blind() if field == TEXT else still
        device = next(self.model.parameters()).device
        ids: list[str] = []
        rows: list[NDArray[np.float32]] = []
        here: list[NDArray[np.bool_]] = []
        with evaluating(self.model):
            for chunk in _chunks(records, batch):
                given = {n: to_device(f, device) for n, f in still(chunk, 0).fields.items()}
                rows.append(self._mean(given, field).float().cpu().numpy())
                here.append(given[field].valid.any(1).cpu().numpy())
                ids += [r.id for r in chunk]
                if progress is not None:
                    progress(len(ids), None, f"embed {field}")
        found = np.concatenate(rows) if rows else np.zeros((0, self.model.dim), np.float32)
        if unit:
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return ids, found.astype(np.float32), np.concatenate(here) if here else np.zeros(0, bool)

    def _mean(self, given: Mapping[str, Field], field: str) -> torch.Tensor:
        one = given[field]
        if field == TEXT:
            assert one.mask is not None
            share = (one.mask[:, 0] & one.valid).float()[..., None]
            return (self.model.hidden(given) * share).sum(1) / share.sum(1).clamp(min=1)
        rows = one.values.new_zeros(len(one.valid), self.model.dim)
        if not bool(one.valid.any()):
            return rows
        owner = one.valid.nonzero()[:, 0]
        means = self.model.image_tokens(one).mean(1)
        count = one.valid.sum(1).clamp(min=1)[:, None]
        return rows.index_add(0, owner, means) / count

    def embed_items(self, items: Sequence[Item], field: str, **options: Any) -> NDArray[np.float32]:
        """Unit rows of bare items: images by the image's role, texts as captions."""
        image = self.collate.image
        role = self.collate.roles[-1] if field == TEXT or image is None else image.roles[0]
        records = [Record(f"item {i}", "item", items={role: (item,)}) for i, item in enumerate(items)]
        return self.embed(records, field, **options)[1]


@dataclass(frozen=True, slots=True)
class Watched:
    """A stage's `collate` with the frozen vision tower's features in place of pixels, each image looked at once."""

    bundle: AssistantBundle
    inner: ChatCollate
    cache: FeatureCache

    @property
    def fields(self) -> Mapping[str, Any]:
        """Those of `inner` (`Stage.needs`)."""
        return self.inner.fields

    def __call__(self, records: Sequence[Record], epoch: int = 0) -> Batch:
        """The batch with features (B, N, T, D)."""
        return self.bundle.seen(self.inner(records, epoch), cache=self.cache)
