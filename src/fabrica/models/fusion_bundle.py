"""A fusion with its transform and card: records in, probabilities of every task out, after each reading."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fabrica import safe
from fabrica.encode.collate import Collate
from fabrica.errors import UsageError, unknown
from fabrica.models.bundle import CARD, COLLATE, Bundle, Progress, _chunks, evaluating, to_device
from fabrica.models.fusion import FusionNet, probabilities
from fabrica.models.load import collate_of, fusion_class
from fabrica.models.multi import CONFIG, WEIGHTS
from fabrica.objectives.check import NonFinite
from fabrica.types import Field, Record


@dataclass(frozen=True, slots=True)
class Answers:
    """What a fusion says of n records.

    `ids` [n]; `tasks` name -> probabilities (n, C). With `steps`: `readings` name -> (n, K, C), `ran` (n, K) bool,
    `step` (n, K): which of `names` was read; K is the most that a record had, later readings repeat the last one.
    """

    ids: tuple[str, ...]
    tasks: Mapping[str, NDArray[np.float32]]
    readings: Mapping[str, NDArray[np.float32]]
    ran: NDArray[np.bool_]
    step: NDArray[np.int64]
    names: tuple[str, ...]


class FusionBundle(Bundle):
    """A `Bundle` whose model also answers tasks. `embed` gives a field's own encoding."""

    model: FusionNet

    def __init__(self, model: FusionNet, collate: Collate, card: Mapping[str, Any] | None = None) -> None:
        super().__init__(model, collate, card)
        lost = [t for t in collate.targets if t not in model.tasks]
        if lost:
            raise unknown("head for the target", lost[0], model.tasks)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: str = "cpu", allow_network: bool = False) -> FusionBundle:
        """From a folder that `save_pretrained` wrote."""
        folder = Path(source)
        for name in (CONFIG, WEIGHTS, COLLATE):
            if not (folder / name).is_file():
                raise UsageError(f"{str(source)!r} has no {name}; wanted a folder that `save_pretrained` wrote")
        found = fusion_class(json.loads(safe.read_bytes(folder / CONFIG)))
        model = found.of_files(folder / CONFIG, folder / WEIGHTS, device)
        collate = collate_of(json.loads(safe.read_bytes(folder / COLLATE)))
        card = json.loads(safe.read_bytes(folder / CARD)) if (folder / CARD).is_file() else {}
        return cls(model, collate, card)

    def answer(
        self,
        records: Iterable[Record],
        *,
        batch: int = 256,
        without: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> Answers:
        """Probabilities of every task, with every reading; fields in `without` are taken as absent."""
        for name in without:
            if name not in self.fields:
                raise unknown("field", name, self.fields)
        still = self.collate.still().only(*self.fields)
        total = len(records) if isinstance(records, Sequence) else None
        ids: list[str] = []
        parts = []
        with evaluating(self.model):
            for chunk in _chunks(records, batch):
                fields = still(chunk, 0).fields
                parts.append(self._answer([r.id for r in chunk], fields, without))
                ids += [r.id for r in chunk]
                if progress is not None:
                    progress(len(ids), total, "answer")
        if not parts:
            raise UsageError("no records to answer")
        return joined(tuple(ids), parts)

    def answer_fields(self, fields: Mapping[str, Field], *, without: Sequence[str] = ()) -> Answers:
        """The same of fields in memory: rows are named by their number."""
        rows = [str(i) for i in range(len(next(iter(fields.values())).valid))]
        with evaluating(self.model):
            return joined(tuple(rows), [self._answer(rows, fields, without)])

    def _answer(self, ids: Sequence[str], fields: Mapping[str, Field], without: Sequence[str]) -> _Part:
        device = next(self.model.parameters()).device
        given = {n: to_device(_gone(f) if n in without else f, device) for n, f in fields.items()}
        try:
            reading = self.model.read(given)
            final = self.model.final(reading)
        except NonFinite as error:
            raise NonFinite(f"{error}; records {', '.join(ids[r] for r in error.rows[:8])}", error.rows) from error
        said = {t: v.cpu().numpy() for t, v in probabilities(reading.logits).items()}
        last = {t: v.cpu().numpy() for t, v in probabilities(final).items()}
        return _Part(last, said, reading.ran.cpu().numpy(), reading.step.cpu().numpy(), reading.names)


@dataclass(frozen=True, slots=True)
class _Part:
    tasks: Mapping[str, NDArray[np.float32]]
    readings: Mapping[str, NDArray[np.float32]]
    ran: NDArray[np.bool_]
    step: NDArray[np.int64]
    names: tuple[str, ...]


def joined(ids: tuple[str, ...], parts: Sequence[_Part]) -> Answers:
    """Batches as one, readings padded to the longest with their last one."""
    most = max(p.ran.shape[1] for p in parts)
    names = parts[0].names

    def longer(values: NDArray[Any], fill: Any = None) -> NDArray[Any]:
        more = most - values.shape[1]
        last = values[:, -1:] if fill is None else np.full_like(values[:, -1:], fill)
        return np.concatenate([values, *([last] * more)], 1)

    return Answers(
        ids,
        {t: np.concatenate([p.tasks[t] for p in parts]) for t in parts[0].tasks},
        {t: np.concatenate([longer(p.readings[t]) for p in parts]) for t in parts[0].tasks},
        np.concatenate([longer(p.ran, False) for p in parts]),
        np.concatenate([longer(p.step) for p in parts]),
        names,
    )


def _gone(field: Field) -> Field:
    return Field(field.values, torch.zeros_like(field.valid), field.hours, field.mask)
