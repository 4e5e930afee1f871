"""Records to a Batch. The only place that pads; draws depend on (seed, epoch, record id) and on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.encode import Encode, from_json
from fabrica.errors import FabricaError, Refused, UsageError
from fabrica.types import Absent, Batch, Field, Item, Record


@dataclass(frozen=True, slots=True)
class Use:
    """One field of the batch: the items of `roles`, at most `most` a record, through `encode`."""

    roles: tuple[str, ...]
    encode: Encode
    most: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.roles, str) or not self.roles or self.most < 1:
            raise UsageError(f"a field needs a tuple of roles and most >= 1; got {self.roles!r} and {self.most}")


@dataclass(frozen=True, slots=True)
class Collate:
    """`collate(records, epoch) -> Batch`.

    `fields` by name; `targets` are label names; `keys` say which rows are the same thing: "subject", "text" (what the
    first text field reads at this visit), "label" (all known labels, or those of `targets`), "id", or a group's name
    ("study", "modality"); "a+b" joins two. A record without the thing has a key of its own. A record that lacks a
    field's items has `valid` False and zeros there. Each (seed, epoch, record id, field) has its own generator, so
    neither the batch's other records nor the number of workers changes a draw.
    """

    fields: Mapping[str, Use]
    targets: tuple[str, ...] = ()
    keys: tuple[str, ...] = ("subject",)
    seed: int = 0
    version: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        if not self.fields:
            raise UsageError("a collate needs at least one field")

    def __call__(self, records: Sequence[Record], epoch: int = 0) -> Batch:
        import torch

        if not records:
            raise UsageError("no records to make a batch of")
        texts: list[str | None] = [None] * len(records)
        fields = {}
        first_text = self._first_text()
        for name, use in self.fields.items():
            rows = []
            for i, record in enumerate(records):
                try:
                    items, arrays, said = self._encoded(name, use, record, epoch, name == first_text)
                except (FabricaError, TypeError) as error:
                    raise _named(error, record, name) from error
                rows.append((items, arrays))
                if said is not None:
                    texts[i] = said
            fields[name] = pad(rows, use.encode)
        known = {t: torch.tensor([_label(r, t) is not None for r in records]) for t in self.targets}
        targets = {t: torch.tensor([_label(r, t) or 0.0 for r in records]) for t in self.targets}
        keys = {k: torch.tensor([self._key(k, r, t) for r, t in zip(records, texts, strict=True)]) for k in self.keys}
        return Batch(tuple(r.id for r in records), fields, targets, known, keys)

    def _encoded(
        self, name: str, use: Use, record: Record, epoch: int, spoken: bool
    ) -> tuple[list[Item], list[NDArray[Any]], str | None]:
        """Chosen items, their arrays and, of the field that keys read (`spoken`), what this visit read of the first."""
        items = list(record.all(*use.roles))
        if not items:
            return [], [], None
        rng = generator(self.seed, epoch, record.id, name)
        chosen = list(use.encode.choose(items, use.most, rng))
        if not spoken:
            return chosen, [use.encode(item, rng) for item in chosen], None
        read: list[str] = [use.encode.read(item, rng) for item in chosen]  # type: ignore[attr-defined]
        arrays = [use.encode.ids(text) for text in read]  # type: ignore[attr-defined]
        return chosen, arrays, " ".join(read[0].lower().split()) if read else None

    def _first_text(self) -> str | None:
        if not any("text" in k.split("+") for k in self.keys):
            return None
        name = next((n for n, use in self.fields.items() if hasattr(use.encode, "read")), None)
        if name is None:
            raise UsageError(f"keys {self.keys} name 'text', but no field reads text")
        return name

    def _key(self, name: str, record: Record, text: str | None) -> int:
        parts = [self._part(p, record, text) for p in name.split("+")]
        if any(p is None for p in parts):
            return key_hash("alone", name, record.id)
        return key_hash(name, *(p for p in parts if p is not None))

    def _part(self, name: str, record: Record, text: str | None) -> str | None:
        if name == "id":
            return record.id
        if name == "subject":
            return record.subject
        if name == "text":
            return text
        if name == "label":
            names = self.targets or tuple(sorted(record.labels))
            known = {n: _label(record, n) for n in names}
            found = [f"{n}={v:g}" for n, v in known.items() if v is not None]
            return ";".join(found) or None
        return record.groups.get(name)

    def still(self) -> Collate:
        """The same without chance: no augmentation, whole texts, the first of a bank."""
        return replace(self, fields={n: replace(u, encode=u.encode.still()) for n, u in self.fields.items()})

    def only(self, *names: str) -> Collate:
        """The same with some of its fields, without targets and keys."""
        missing = [n for n in names if n not in self.fields]
        if missing:
            raise UsageError(f"no field {missing[0]!r}; there are {', '.join(self.fields)}")
        return replace(self, fields={n: self.fields[n] for n in names}, targets=(), keys=())

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON: fields by name, targets, keys, seed, version."""
        fields = {
            n: {"roles": list(u.roles), "most": u.most, "encode": u.encode.to_json()} for n, u in self.fields.items()
        }
        return {
            "version": self.version, "fields": fields, "targets": list(self.targets), "keys": list(self.keys),
            "seed": self.seed,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Collate:
        """The inverse of `to_json`."""
        if data.get("version") != 1:
            raise UsageError(f"collate settings are of version {data.get('version')!r}; this library reads version 1")
        fields = {n: Use(tuple(u["roles"]), from_json(u["encode"]), u["most"]) for n, u in data["fields"].items()}
        return cls(fields, tuple(data["targets"]), tuple(data["keys"]), data["seed"])


def generator(seed: int, epoch: int, record: str, name: str) -> np.random.Generator:
    """The generator of one record's field at one visit."""
    said = hashlib.blake2b(f"{seed}\x1f{epoch}\x1f{record}\x1f{name}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(said, "big")))


def key_hash(*parts: str) -> int:
    """A stable signed 64-bit hash; the same on every machine.

    >>> key_hash("subject", "p1") == key_hash("subject", "p1") != key_hash("subject", "p2")
    True
    """
    said = hashlib.blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(said, "big", signed=True)


def pad(rows: Sequence[tuple[Sequence[Item], Sequence[NDArray[Any]]]], encode: Encode) -> Field:
    """Encoded items by record -> a field: N the most items of a record, tokens padded to the longest text."""
    import torch

    count = max(1, *(len(arrays) for _, arrays in rows)) if rows else 1
    valid = np.zeros((len(rows), count), bool)
    hours = np.full((len(rows), count), np.nan, np.float32)  # NaN = unknown
    timed = False
    tokens = encode.shape is None
    if tokens:
        longest = max((len(a) for _, arrays in rows for a in arrays), default=1)
        values = np.full((len(rows), count, longest), encode.pad, np.int64)
        mask = np.zeros(values.shape, bool)
    else:
        values = np.zeros((len(rows), count, *(encode.shape or ())), np.float32)
    for i, (items, arrays) in enumerate(rows):
        for j, (item, array) in enumerate(zip(items, arrays, strict=True)):
            valid[i, j] = True
            if tokens:
                values[i, j, : len(array)] = array
                mask[i, j, : len(array)] = True
            else:
                values[i, j] = array
            if item.hours is not None:
                hours[i, j], timed = item.hours, True
    return Field(
        torch.from_numpy(values), torch.from_numpy(valid), torch.from_numpy(hours) if timed else None,
        torch.from_numpy(mask) if tokens else None,
    )  # fmt: skip


def _label(record: Record, name: str) -> float | None:
    value = record.labels.get(name)
    if value is None or isinstance(value, Absent) or not np.isfinite(value):
        return None
    return float(value)


def _named(error: Exception, record: Record, name: str) -> FabricaError:
    """The same refusal with the record and the field that met it."""
    where = f"record {record.id!r}, field {name!r}: "
    if isinstance(error, Refused):
        return Refused(error.code, where + str(error).removesuffix(f" [{error.code}]"))
    return UsageError(where + str(error))
