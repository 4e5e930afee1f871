"""LiteMedSAM as a segmenter: a mask for each box."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.encode.image import plane
from fabrica.errors import UsageError
from fabrica.models.litemedsam import LiteMedSAM
from fabrica.types import Item, Region


class MedSam:
    """One mask for each box prompt on an image, of what LiteMedSAM sees in it.

    `source` is a catalogue name or a folder with model.safetensors; loaded at the first use. It knows boxes alone:
    other prompts have no region in the answer, as have boxes in which it finds nothing.
    """

    version = "1"

    def __init__(self, source: str | Path = "litemedsam") -> None:
        self.source = str(source)
        self._model: LiteMedSAM | None = None
        self._name, self._lock = "", threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "_name": self._name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _model=None, _lock=threading.RLock())

    @property
    def name(self) -> str:
        """The source's last part and the hash of its weights."""
        from fabrica.models.embed import folder_mark

        with self._lock:
            self._name = self._name or f"{Path(self.source).name}:{folder_mark(self._folder())}"
            return self._name

    def __call__(self, item: Item, prompts: Sequence[Region], /) -> tuple[Region, ...]:
        """Masks (H, W) bool."""
        if item.kind != "image" or not item.present:
            raise UsageError(f"{self.source} reads images; got an item of kind {item.kind!r}")
        image, out = plane(item), []
        origin = replace(item.origin, by="model").then(f"segment:{self.name}")
        for prompt in prompts:
            if prompt.shape != "box" or prompt.data.size != 4:
                continue
            x0, y0, x1, y1 = (float(v) for v in np.asarray(prompt.data, np.float64).ravel())
            if not (x0 < x1 and y0 < y1):
                continue
            with self._lock:
                mask = self._loaded().segment(image, (x0, y0, x1, y1))
            if mask.any():
                out.append(Region(prompt.role, "mask", mask, prompt.label, origin, prompt.index, prompt.text))
        return tuple(out)

    def _folder(self) -> Path:
        from fabrica import catalogue

        folder = Path(self.source)
        return folder if (folder / "model.safetensors").is_file() else catalogue.weights(self.source)

    def _loaded(self) -> LiteMedSAM:
        if self._model is None:
            self._model = LiteMedSAM.from_pretrained(self._folder())
        return self._model
