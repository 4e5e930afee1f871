"""Embedders from trained towers: any text or vision folder of `transformers`, MiniLM and DINOv2 of the catalogue."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fabrica import safe
from fabrica.encode.image import ImageEncode
from fabrica.errors import Refused, UsageError, need
from fabrica.models.transformers_tower import TransformersTower, resolve
from fabrica.types import Item


class TowerEmbedder:
    """Texts or images -> (n, d) unit rows of a `transformers` model: a folder, a catalogue name, a hub id in the cache.

    Texts: the mean over real tokens of the last layer (as Reimers & Gurevych 2019), cut at the model's length. Images:
    the class token where there is one, else the mean over the grid; size, mean and standard deviation from the folder's
    preprocessor_config.json, else ImageNet's at the model's own size. Loaded at the first use.

    embed = TowerEmbedder("minilm")
    embed(items) @ embed(items).T        # cosine
    """

    version = "1"

    def __init__(
        self, source: str | Path, *, batch: int = 32, device: str = "cpu", size: int | None = None,
        allow_network: bool = False,
    ) -> None:  # fmt: skip
        if batch < 1 or (size is not None and size < 1):
            raise UsageError(f"batch={batch}, size={size}; wanted at least 1")
        self.source, self.batch, self.device, self.size = str(source), batch, device, size
        self.allow_network = allow_network
        self._tower: TransformersTower | None = None
        self._tokenizer: Any = None
        self._encode: ImageEncode | None = None
        self._name, self._lock = "", threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_tower", "_tokenizer", "_encode")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock(), _tower=None, _tokenizer=None, _encode=None)

    @property
    def name(self) -> str:
        """The source's last part, the hash of its weights, and the size of images where one was given."""
        with self._lock:
            if not self._name:
                where = resolve(self.source, allow_network=self.allow_network)
                mark = folder_mark(where) if isinstance(where, Path) else str(self._loaded().settings._commit_hash)[:12]
                self._name = f"{Path(self.source).name}:{mark}" + (f":{self.size}" if self.size else "")
            return self._name

    @torch.no_grad()
    def __call__(self, items: Sequence[Item], /) -> NDArray[np.float32]:
        """(n, d) float32."""
        with self._lock:
            tower = self._loaded()
            wanted = ("text",) if tower.reads == "tokens" else ("image", "volume")
            for item in items:
                if item.kind not in wanted or not item.present:
                    state = "present" if item.present else f"absent: {item.value}"
                    raise UsageError(
                        f"{self.source!r} reads {' or '.join(wanted)} items; got one of kind {item.kind!r} ({state})"
                    )
            out = np.zeros((len(items), tower.width), np.float32)
            order = sorted(range(len(items)), key=lambda n: len(items[n].text())) if wanted == ("text",) else range(
                len(items))  # fmt: skip
            for start in range(0, len(items), self.batch):
                rows = list(order)[start : start + self.batch]
                part = [items[n] for n in rows]
                pooled = self._texts(part) if wanted == ("text",) else self._images(part)
                out[rows] = torch.nn.functional.normalize(pooled.float(), dim=1).cpu().numpy()
        return out

    def _loaded(self) -> TransformersTower:
        if self._tower is None:
            tower = TransformersTower.load(self.source, allow_network=self.allow_network)
            where = resolve(self.source, allow_network=self.allow_network)
            if tower.reads == "tokens":
                tf: Any = need("transformers", "train")
                stay = {"local_files_only": isinstance(where, Path) or not self.allow_network}
                self._tokenizer = tf.AutoTokenizer.from_pretrained(where, **stay)
            else:
                self._encode = _transform(where, tower.settings, self.size)
            self._tower = tower.eval().to(self.device)
        return self._tower

    def _texts(self, items: Sequence[Item]) -> torch.Tensor:
        tower = self._loaded()
        told = self._tokenizer(
            [item.text() for item in items], padding=True, truncation=True, max_length=tower.length or 512,
            return_tensors="pt",
        ).to(self.device)  # fmt: skip
        mask = told["attention_mask"].bool()  # (n, L)
        values = tower(told["input_ids"], mask).values  # (n, L, d)
        weights = mask[..., None].to(values.dtype)
        mean: torch.Tensor = (values * weights).sum(1) / weights.sum(1).clamp(min=1)
        return mean

    def _images(self, items: Sequence[Item]) -> torch.Tensor:
        tower, rng = self._loaded(), np.random.default_rng(0)
        assert self._encode is not None
        pixels = torch.from_numpy(np.stack([self._encode(item, rng) for item in items])).to(self.device)
        tokens = tower(pixels)
        has_class = tower.has_class_token and tokens.prefix > 0
        out: torch.Tensor = tokens.values[:, 0] if has_class else tokens.values.mean(1)
        return out


def folder_mark(folder: Path) -> str:
    """Twelve digits of the hash of a model folder's weights, config and tokenizer."""
    files = sorted(folder.glob("*.safetensors"))
    mixed = [safe.sha256(p) for p in (*files, *(folder / n for n in ("config.json", "tokenizer.json"))) if p.is_file()]
    return hashlib.sha256("".join(mixed).encode()).hexdigest()[:12]


def _transform(where: Path | str, settings: Any, size: int | None) -> ImageEncode:
    """What the folder's preprocessor says of size, mean and spread."""
    told: dict[str, Any] = {}
    if isinstance(where, Path) and (where / "preprocessor_config.json").is_file():
        try:
            told = json.loads(safe.read_bytes(where / "preprocessor_config.json"))
        except ValueError as error:
            raise Refused("preprocessor_bad", f"preprocessor_config.json of {str(where)!r} is no JSON") from error
    said = told.get("crop_size") or told.get("size") or getattr(settings, "image_size", None) or 224
    if isinstance(said, dict):
        said = said.get("height") or said.get("shortest_edge") or 224
    said = said[0] if isinstance(said, (list, tuple)) else said
    channels = int(getattr(settings, "num_channels", 3))
    mean, std = told.get("image_mean"), told.get("image_std")
    return ImageEncode(
        size or int(said), channels, None if mean is None else tuple(mean), None if std is None else tuple(std)
    )
