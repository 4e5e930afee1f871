"""A prompted model with its grid, words and ontology: texts in, masks on the picture's own grid out; and all parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fabrica import safe
from fabrica.curate.ontology import place
from fabrica.encode.prompts import PromptCollate
from fabrica.errors import UsageError
from fabrica.models.bundle import CARD, COLLATE, evaluating
from fabrica.models.dense import CONFIG, WEIGHTS, Condition, DenseModel, Part, part_from_json
from fabrica.models.dense_bundle import DenseBundle
from fabrica.models.merge_masks import merge
from fabrica.models.query_decoder import PromptNet, PromptText
from fabrica.types import Item, Record, Region

F32 = NDArray[np.float32]
Check = Callable[[tuple[str, str], F32, F32], float]  # (modality, object), share (h, w), image (C, h, w) -> p


@dataclass(frozen=True, slots=True)
class Said:
    """An answer to K prompts on the model's grid: `shares` (K, h, w) in 0..1, `scores` (K,) similarity of the query
    that answered, `image` (C, h, w) as the model saw it."""

    texts: tuple[str, ...]
    shares: F32
    scores: F32
    image: F32


@dataclass(frozen=True, slots=True)
class Found:
    """An object in an image: its mask (H, W) on the image's own grid and its p-value."""

    mask: NDArray[np.bool_]
    p: float


class PromptModel(DenseModel):
    """A dense model of the parts "net" (PromptNet) and "text" (PromptText); config.json says "prompted"."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        super().__init__(parts)
        if not isinstance(self.net_, PromptNet) or not isinstance(parts.get("text"), PromptText):
            raise UsageError("a prompted model has the parts 'net' (PromptNet) and 'text' (PromptText)")

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain JSON, marked as prompted."""
        return {**super().to_json(), "prompted": True}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PromptModel:
        """The inverse of `to_json`, with random weights."""
        if not data.get("prompted"):
            raise UsageError(f"{CONFIG} describes no prompted model: it is another family's")
        return cls({n: part_from_json(part) for n, part in data["dense"].items()})


class PromptBundle(DenseBundle):
    """`ask` answers texts, `masks` puts the answer on the image's own grid, `parse` names all that is there.

    As a `Segmenter` it answers regions by their `text`: one mask region each that has a pixel.
    """

    model: PromptModel
    collate: PromptCollate

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: str = "cpu", allow_network: bool = False) -> PromptBundle:
        """From a folder that `save_pretrained` wrote."""
        folder = Path(source)
        for name in (CONFIG, WEIGHTS, COLLATE):
            if not (folder / name).is_file():
                raise UsageError(f"{str(source)!r} has no {name}; wanted a folder that `save_pretrained` wrote")
        model = PromptModel.of_files(folder / CONFIG, folder / WEIGHTS, device)
        collate = PromptCollate.from_json(json.loads(safe.read_bytes(folder / COLLATE)))
        card = json.loads(safe.read_bytes(folder / CARD)) if (folder / CARD).is_file() else {}
        return cls(model, collate, card)

    def ask(self, item: Item, texts: Sequence[str], *, chunk: int = 32) -> Said:
        """Masks of any number of prompts; the encoder runs once, and no prompt changes the answer to another.

        Errors: `Refused` for a prompt that is empty or too long, or a picture without a window (see `StretchEncode`).
        """
        device = next(self.model.parameters()).device
        picture = self.grid(item, np.random.default_rng(0))
        net = self.model.net_
        assert isinstance(net, PromptNet)
        shares, scores = [np.zeros((0, *self.grid.size), np.float32)], [np.zeros(0, np.float32)]
        told = [self.collate.ids(t) for t in texts]
        with evaluating(self.model):
            seen = net.look(torch.from_numpy(picture)[None].to(device)) if texts else None
            for start in range(0, len(texts), chunk):
                assert seen is not None
                maps = net.answer(seen, self.condition(told[start : start + chunk]))
                shares.append(_sized(maps.logits, self.grid.size).sigmoid()[0].float().cpu().numpy())
                scores.append(maps.extra["score"][0].float().cpu().numpy())
        return Said(tuple(texts), np.concatenate(shares), np.concatenate(scores), picture)

    def condition(self, told: Sequence[NDArray[np.int64]]) -> Condition:
        """Token ids of prompts on one image as the net reads them."""
        ids = torch.zeros(1, len(told), max(map(len, told)), dtype=torch.long)
        for i, one in enumerate(told):
            ids[0, i, : len(one)] = torch.from_numpy(one)
        mask = torch.arange(ids.shape[2]) < torch.tensor([len(t) for t in told])[None, :, None]
        device = next(self.model.parameters()).device
        made = self.model.get_submodule("text")(ids.to(device), mask.to(device))
        assert isinstance(made, Condition)
        return made

    def masks(self, said: Said, item: Item) -> NDArray[np.bool_]:
        """(K, H, W) on the item's own grid: where the share is above 0.5."""
        return np.asarray(self.grid.restore(said.shares, item) > 0.5)

    def parse(
        self, record: Record, check: Check, *, alpha: float = 0.05, names: Sequence[str] | None = None
    ) -> dict[str, Found]:
        """All objects of the ontology that can be in such an image and are: disjoint, named, the likeliest first.

        `check` gives the p-value of an answer (`evaluate.absence.Absence`); below `alpha` an object is not there.
        `names` is the list to look for, instead of the ontology's for the record's modality and anatomy.
        """
        item = record.first(*self.collate.use.roles)
        if item is None:
            return {}
        where = place(record)
        names = tuple(self.collate.ontology.candidates(*where) if names is None else names)
        said = self.ask(item, [self.collate.ontology.prompts(n, *where)[0] for n in names])
        p = [check((where[0], n), s, said.image) for n, s in zip(names, said.shares, strict=True)]
        parts = merge(self.grid.restore(said.shares, item), p, names, alpha=alpha)
        return {n: Found(mask, p[names.index(n)]) for n, mask in parts.items()}

    @property
    def name(self) -> str:
        """System and the hash of its weights."""
        return f"{self.card.get('system', 'prompted')}:{self.fingerprint[:12]}"

    def __call__(self, item: Item, prompts: Sequence[Region], /) -> tuple[Region, ...]:
        """A mask region for each region with a `text` that has an answer; others have none."""
        asked = [p for p in prompts if p.text]
        said = self.ask(item, [p.text or "" for p in asked])
        origin = replace(item.origin, by="model").then(f"segment:{self.name}")
        return tuple(
            Region(p.role, "mask", m, p.label, origin, p.index, p.text, float(s[s > 0.5].mean()))
            for p, m, s in zip(asked, self.masks(said, item), said.shares, strict=True) if m.any() and (s > 0.5).any()
        )  # fmt: skip


def _sized(logits: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
