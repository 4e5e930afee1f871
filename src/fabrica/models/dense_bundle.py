"""A dense model with its grid and card: records in, label maps on their own voxels out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fabrica import safe
from fabrica.encode.grid import GridEncode, centred
from fabrica.encode.masks import MaskCollate
from fabrica.errors import UsageError, unknown
from fabrica.models.bundle import CARD, COLLATE, Bundle, Progress, Rows, _chunks, evaluating, to_device
from fabrica.models.dense import CONFIG, WEIGHTS, Condition, DenseModel, Net, fit_size, padded
from fabrica.types import Item, Record


class DenseBundle(Bundle):
    """`model` (net and critics), `collate` (grid and mask targets), `card`; the net reads the collate's first field.

    `segment` answers a record on its own grid; `embed` gives the mean of the encoder's last map (B, D).
    """

    model: DenseModel  # type: ignore[assignment]
    collate: MaskCollate

    def __init__(self, model: DenseModel, collate: MaskCollate, card: Mapping[str, Any] | None = None) -> None:
        self.model, self.collate, self.card = model, collate, dict(card or {})
        self.field = next(iter(collate.fields))
        grid, net = self.grid, model.net_
        if len(grid.size) != net.dims or grid.channels != net.channels:
            raise UsageError(
                f"the net reads {net.channels} channels of {net.dims} axes, field {self.field!r} gives {grid.shape}"
            )

    @property
    def fields(self) -> tuple[str, ...]:
        """The field that the net reads."""
        return (self.field,)

    @property
    def grid(self) -> GridEncode:
        """How a record's image becomes voxels."""
        encode = self.collate.fields[self.field].encode
        if not isinstance(encode, GridEncode):
            raise UsageError(f"field {self.field!r} of a dense model is read by a GridEncode, not {type(encode)}")
        return encode

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: str = "cpu", allow_network: bool = False) -> DenseBundle:
        """From a folder that `save_pretrained` wrote."""
        folder = Path(source)
        for name in (CONFIG, WEIGHTS, COLLATE):
            if not (folder / name).is_file():
                raise UsageError(f"{str(source)!r} has no {name}; wanted a folder that `save_pretrained` wrote")
        model = DenseModel.of_files(folder / CONFIG, folder / WEIGHTS, device)
        collate = MaskCollate.from_json(json.loads(safe.read_bytes(folder / COLLATE)))
        card = json.loads(safe.read_bytes(folder / CARD)) if (folder / CARD).is_file() else {}
        return cls(model, collate, card)

    def embed(
        self, records: Iterable[Record], field: str, *, batch: int = 64, progress: Progress | None = None,
        unit: bool = True, **options: Any,
    ) -> Rows:  # fmt: skip
        """ids [n], the mean of the encoder's last map (n, D) float32 (zero where the image is absent), present (n,)."""
        if field not in self.fields:
            raise unknown("field", field, self.fields)
        still, device = self.collate.still().only(field), next(self.model.parameters()).device
        net = self.model.net_
        ids: list[str] = []
        parts: list[NDArray[np.float32]] = []
        here: list[NDArray[np.bool_]] = []
        with evaluating(self.model):
            for chunk in _chunks(records, batch):
                given = to_device(still(chunk, 0).fields[field], device)
                rows = np.zeros((len(chunk), net.width), np.float32)
                at = given.valid[:, 0]
                if at.any():
                    last = net.encode(padded(given.values[at, 0], net.multiple))[-1]
                    rows[at.cpu().numpy()] = last.flatten(2).mean(2).float().cpu().numpy()
                ids += [r.id for r in chunk]
                parts.append(rows)
                here.append(given.valid.any(1).cpu().numpy())
                if progress is not None:
                    progress(len(ids), None, f"embed {field}")
        found = np.concatenate(parts) if parts else np.zeros((0, net.width), np.float32)
        if unit:
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return ids, found.astype(np.float32), np.concatenate(here) if here else np.zeros(0, bool)

    def segment(
        self, record: Record, *, overlap: float | None = 0.5, head: str | None = None,
        condition: Condition | None = None,
    ) -> NDArray[np.float32] | None:  # fmt: skip
        """Class shares (K, *shape) on the image's own grid; None where the record has no image.

        Windows of the grid's size with Gaussian weights (MONAI) over logits, softmax after, then back to the item's
        voxels, so argmax is the label map. `overlap` None looks at the centre alone, as training does; all around it is
        background. `head` names one of several label spaces (`extra` of the maps).
        """
        item = record.first(*self.collate.fields[self.field].roles)
        return None if item is None else self.segment_item(item, overlap=overlap, head=head, condition=condition)

    def segment_item(
        self, item: Item, *, overlap: float | None = 0.5, head: str | None = None,
        condition: Condition | None = None,
    ) -> NDArray[np.float32]:  # fmt: skip
        """The same of a bare item."""
        device = next(self.model.parameters()).device
        values = self.grid.whole(item)
        image = torch.from_numpy(values if overlap is not None else centred(values, self.grid.size))[None].to(device)
        with evaluating(self.model):
            logits = windows(self.model.net_, image, self.grid.size, overlap or 0.0, head, condition)
            shares = logits.softmax(1)[0].float().cpu().numpy()
        if overlap is None:
            shares = centred(shares, values.shape[1:])
            shares[0] += 1 - shares.sum(0)  # around the centre: background
        return self.grid.restore(shares, item)


def windows(
    net: Net, image: torch.Tensor, size: Sequence[int], overlap: float = 0.5, head: str | None = None,
    condition: Condition | None = None,
) -> torch.Tensor:  # fmt: skip
    """Logits (1, K, *S) of an image (1, C, *S) of any sides, in windows of `size`."""
    from monai.inferers.utils import sliding_window_inference

    def answer(part: torch.Tensor) -> torch.Tensor:
        told = condition
        if condition is not None and len(part) > 1:
            told = condition.rows(torch.zeros(len(part), dtype=torch.long, device=part.device))
        maps = fit_size(net, part, told)
        return maps.logits if head is None else maps.extra[head]

    made = sliding_window_inference(image, tuple(size), 4, answer, overlap=overlap, mode="gaussian")
    assert isinstance(made, torch.Tensor)
    return made
