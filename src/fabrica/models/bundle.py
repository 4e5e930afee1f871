"""A model with the transform that feeds it and the card that says what it is: saved and loaded as one folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fabrica import safe
from fabrica.encode.collate import Collate
from fabrica.errors import UsageError, unknown
from fabrica.models.cache import FeatureCache, fingerprint
from fabrica.models.multi import CONFIG, WEIGHTS, MultiTower
from fabrica.types import Item, Origin, Record, record_id

COLLATE, CARD = "collate.json", "card.json"
Progress = Callable[[int, int | None, str], None]  # done, total, what
Rows = tuple[list[str], NDArray[np.float32], NDArray[np.bool_]]


class Bundle:
    """`model`, `collate` (how records become its input) and `card` (plain JSON: system, title, settings, data, licence,
    whatever a reader should know; keys are kept as given).

    A field of the collate that has a tower must fit it; this is checked here, before any record is read.
    """

    def __init__(self, model: MultiTower, collate: Collate, card: Mapping[str, Any] | None = None) -> None:
        self.model, self.collate, self.card = model, collate, dict(card or {})
        missing = [n for n in model.towers if n not in collate.fields]
        if missing:
            raise UsageError(f"tower {missing[0]!r} has no field in the collate; fields: {', '.join(collate.fields)}")
        for name, use in collate.fields.items():
            if name in model.towers:
                body = model.tower(name).body
                body.check(use.encode.shape, getattr(use.encode, "size", None))
                length, most = getattr(use.encode, "length", None), getattr(body, "length", None)
                if length is not None and most is not None and length > most:
                    raise UsageError(f"field {name!r} gives up to {length} tokens, its tower has {most} positions")

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that can be embedded."""
        return tuple(self.model.towers)

    @property
    def fingerprint(self) -> str:
        """24 hex digits of architecture and weights."""
        return fingerprint(self.model, self.model.to_json())

    # ------------------------------------------------------------ disk

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> Path:
        """config.json, model.safetensors, collate.json, card.json, README.md: whole or not at all."""
        folder = Path(folder)
        with safe.folder_whole(folder, replace=replace) as temp:
            self.model._save_pretrained(temp)
            for name, data in ((COLLATE, self.collate.to_json()), (CARD, self.card)):
                (temp / name).write_text(json.dumps(data, indent=1, sort_keys=name == CARD) + "\n", "utf-8")
            (temp / "README.md").write_text(_readme(self.card), "utf-8")
        return folder

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: str = "cpu", allow_network: bool = False) -> Bundle:
        """From a folder that `save_pretrained` wrote, or a hub id (from the local hub cache unless `allow_network`)."""
        folder = Path(source)
        if not folder.is_dir():
            folder = _of_hub(str(source), allow_network)
        for name in (CONFIG, WEIGHTS, COLLATE):
            if not (folder / name).is_file():
                raise UsageError(f"{str(source)!r} has no {name}; wanted a folder that `save_pretrained` wrote")
        model = MultiTower.of_files(folder / CONFIG, folder / WEIGHTS, device)
        collate = Collate.from_json(json.loads(safe.read_bytes(folder / COLLATE)))
        card = json.loads(safe.read_bytes(folder / CARD)) if (folder / CARD).is_file() else {}
        return cls(model, collate, card)

    # ------------------------------------------------------------ embeddings

    def embed(
        self, records: Iterable[Record], field: str, *, batch: int = 64, progress: Progress | None = None,
        what: Literal["embedding", "features"] = "embedding", unit: bool = True, cache: FeatureCache | None = None,
        precision: Literal["no", "bf16"] | None = None,
    ) -> Rows:  # fmt: skip
        """ids [n], rows (n, d) float32, present (n,) bool of one field; no augmentation, evaluation mode, no graph.

        `what`: "embedding" in the shared space, or "features" of the encoder before the head (for probes). `unit`
        brings rows to length 1 (absent ones under policy "exclude" stay zero). `precision` None is the card's: a model
        trained in bf16 embeds in bf16. With a `cache`, only
        records it lacks run.
        """
        if field not in self.model.towers:
            raise unknown("field", field, self.fields)
        precision = precision or self.card.get("precision", "no")
        still = self.collate.still().only(field)
        key = None
        if cache is not None:
            about = {"what": what, "precision": precision, "collate": still.to_json(), "model": self.model.to_json()}
            key = fingerprint(self.model, about)
        total = len(records) if isinstance(records, Sequence) else None
        ids: list[str] = []
        parts: list[tuple[NDArray[np.float32], NDArray[np.bool_]]] = []
        with evaluating(self.model):
            for chunk in _chunks(records, batch):
                parts.append(self._rows(chunk, field, still, what, precision, cache, key))
                ids.extend(r.id for r in chunk)
                if progress is not None:
                    progress(len(ids), total, f"embed {field}")
        width = self.model.dim if what == "embedding" else self.model.tower(field).body.width
        rows = np.concatenate([p[0] for p in parts]) if parts else np.zeros((0, width), np.float32)
        present = np.concatenate([p[1] for p in parts]) if parts else np.zeros(0, bool)
        if unit:
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return ids, rows.astype(np.float32), present

    def _rows(
        self, chunk: Sequence[Record], field: str, collate: Collate, what: str, precision: str | None,
        cache: FeatureCache | None, key: str | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:  # fmt: skip
        found = cache.get(key, [r.id for r in chunk]) if cache is not None and key is not None else {}
        todo = [r for r in chunk if r.id not in found]
        if todo:
            rows, present = self._run(todo, field, collate, what, precision)
            if cache is not None and key is not None:
                cache.put(key, [r.id for r in todo], rows, present)
            found = {**found, **{r.id: (rows[i], bool(present[i])) for i, r in enumerate(todo)}}
        return np.stack([found[r.id][0] for r in chunk]), np.asarray([found[r.id][1] for r in chunk])

    def _run(
        self, records: Sequence[Record], field: str, collate: Collate, what: str, precision: str | None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        device = next(self.model.parameters()).device
        one = to_device(collate(records, 0).fields[field], device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            pooled = self.model.tower(field)(one, tokens=False).pooled
            present = one.valid.any(1)
            rows = self.model.project(field, pooled, present) if what == "embedding" else pooled
        return rows.float().cpu().numpy(), present.cpu().numpy()

    def embed_items(self, items: Sequence[Item], field: str, **options: Any) -> NDArray[np.float32]:
        """Unit rows (n, d) of bare items, in order (for prompts and queries); options as for `embed`."""
        role = self.collate.fields[field].roles[0] if field in self.collate.fields else field
        records = [Record(record_id("item", str(i)), "item", items={role: (item,)}) for i, item in enumerate(items)]
        return self.embed(records, field, **{k: v for k, v in options.items() if k != "cache"})[1]

    def embed_texts(self, texts: Sequence[str], field: str = "text", **options: Any) -> NDArray[np.float32]:
        """Unit rows (n, d) of texts through a text field, in order."""
        origin = Origin("prompt", "prompt", "", "", "human")
        return self.embed_items([Item("text", t, origin) for t in texts], field, **options)


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode and no graph inside; the mode from before after."""
    before = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(before)


def to_device(field: Any, device: torch.device) -> Any:
    """A field with all its tensors on `device`."""
    if device.type == "cpu":
        return field
    parts = (field.values, field.valid, field.hours, field.mask)
    return type(field)(*(None if t is None else t.to(device, non_blocking=True) for t in parts))


def _chunks(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    if size < 1:
        raise UsageError(f"batch is {size}, wanted 1 or more")
    it = iter(records)
    while chunk := list(islice(it, size)):
        yield chunk


def _of_hub(name: str, allow_network: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [CONFIG, WEIGHTS, COLLATE, CARD]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=not allow_network))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise UsageError(
            f"no folder {name!r}, and no such model in the hub cache; allow_network=True may fetch it"
        ) from error


def _readme(card: Mapping[str, Any]) -> str:
    """A model card for the hub; its facts are the card's own."""
    title = str(card.get("title", "A fabrica model"))
    front = {"library_name": "fabrica", "license": card.get("licence", "other"), "tags": ["medical", "multimodal"]}
    lines = "\n".join(f"{k}: {json.dumps(v)}" for k, v in front.items())
    facts = "\n".join(f"- **{k}**: {v}" for k, v in card.items() if isinstance(v, (str, int, float)) and k != "title")
    return f"---\n{lines}\n---\n# {title}\n\n{facts}\n\nLoad it with `fabrica.models.Bundle.from_pretrained(folder)`.\n"
