"""Mask regions as targets: a label a voxel, and which voxels are known. What is not known teaches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fabrica.encode import from_json
from fabrica.encode.collate import Collate, Use
from fabrica.encode.grid import GridEncode
from fabrica.errors import Refused, UsageError
from fabrica.types import Batch, Record, Region

Marks = NDArray[np.int64]
Known = NDArray[np.bool_]
DOMAIN = "domain"


@dataclass(frozen=True, slots=True)
class MaskTarget:
    """Which mask regions make a target on the grid of `field`, and what they say of the voxels outside them.

    `classes` in the order of their numbers, background first; a region counts whose label is `prefix` + a class. `kind`
    "full": the record's regions are all there is of these classes, so every voxel of the image is known (give a class
    that is looked for and not there an empty region: a record with no region of these classes is not annotated, and
    nothing in it is known). "strokes": known where a stroke lies and nowhere else; strokes of the background are a
    class as any other. Where strokes of different classes meet (two annotators), `conflict` says: "unknown", or "vote"
    (most strokes; a tie is unknown). Regions of a record without the image are read on their own grid: unpaired masks.
    """

    classes: tuple[str, ...]
    kind: Literal["full", "strokes"] = "full"
    prefix: str = ""
    field: str = "image"
    conflict: Literal["unknown", "vote"] = "unknown"

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise UsageError(f"classes {self.classes}; wanted the background and at least one more, none twice")
        if self.kind not in ("full", "strokes") or self.conflict not in ("unknown", "vote"):
            raise UsageError(f"a mask target of kind {self.kind!r}, conflict {self.conflict!r}")

    def regions(self, record: Record, roles: Sequence[str]) -> list[tuple[int, Region]]:
        """The record's mask regions of these classes on `roles`, with their numbers."""
        numbers = {self.prefix + name: i for i, name in enumerate(self.classes)}
        return [
            (numbers[r.label], r) for r in record.regions
            if r.shape == "mask" and r.label in numbers and r.role.split("/")[0] in {x.split("/")[0] for x in roles}
        ]  # fmt: skip

    def own(self, record: Record, roles: Sequence[str]) -> tuple[Marks, Known] | None:
        """Label and known (*shape) on the regions' own grid; None where the record is not annotated."""
        found = self.regions(record, roles)
        if not found:
            return None
        shape = found[0][1].data.shape
        votes = np.zeros((len(self.classes), *shape), np.int16)
        for number, region in found:
            if region.data.shape != shape:
                raise Refused("mask_shape", f"masks of shapes {shape} and {region.data.shape} on one image")
            votes[number] += region.data.astype(bool)
        if self.kind == "full":  # the class of the highest number wins where regions overlap
            marks = np.zeros(shape, np.int64)
            for number in range(1, len(self.classes)):
                marks[votes[number] > 0] = number
            return marks, np.ones(shape, bool)
        marked = votes > 0
        alone = marked.sum(0) == 1
        if self.conflict == "vote":
            top = np.sort(votes, 0)
            alone = (top[-1] > 0) & (top[-1] > top[-2])
        return np.where(alone, votes.argmax(0), 0).astype(np.int64), alone

    def __call__(self, record: Record, roles: Sequence[str], grid: GridEncode) -> tuple[Marks, Known]:
        """Label and known (*size) on the grid."""
        item = next((i for i in record.all(*roles)), None)
        own = self.own(record, roles)
        if own is None:
            return np.zeros(grid.size, np.int64), np.zeros(grid.size, bool)
        marks, known = own
        there = grid.inside(item, marks.shape)
        return grid.labels(marks, item), grid.labels(known, item) & there


@dataclass(frozen=True, slots=True)
class DomainTarget:
    """Each record in the label space of its own domain: `spaces` by the value of the record's group `by`. Records of
    another domain are not annotated. All spaces lie on one field."""

    spaces: Mapping[str, MaskTarget]
    by: str = "source"

    def __post_init__(self) -> None:
        if not self.spaces or len({s.field for s in self.spaces.values()}) > 1:
            raise UsageError(f"label spaces of {list(self.spaces)}; wanted at least one, all on one field")

    @property
    def field(self) -> str:
        """The field on whose grid all spaces lie."""
        return next(iter(self.spaces.values())).field

    def number(self, record: Record) -> int | None:
        """The number of the record's domain, in the order of `spaces`; None where it is of none."""
        name = record.groups.get(self.by, "")
        return list(self.spaces).index(name) if name in self.spaces else None

    def __call__(self, record: Record, roles: Sequence[str], grid: GridEncode) -> tuple[Marks, Known]:
        """Label, in the numbers of the record's own space, and known (*size)."""
        space = self.spaces.get(record.groups.get(self.by, ""))
        if space is None:
            return np.zeros(grid.size, np.int64), np.zeros(grid.size, bool)
        return space(record, roles, grid)


@dataclass(frozen=True, slots=True)
class MaskCollate(Collate):
    """A `Collate` with mask targets by name: `targets[name]` (B, *size) int64 and `known[name]` (B, *size) bool.

    A `DomainTarget` gives a second target, "domain" (B,) int64: the number of the record's label space, known where it
    has one. A target's field reads by a `GridEncode`, which draws nothing, so that a mask always lies on its image.
    """

    masks: Mapping[str, MaskTarget | DomainTarget] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Collate.__post_init__(self)
        for name, mask in self.masks.items():
            use = self.fields.get(mask.field)
            if use is None or not isinstance(use.encode, GridEncode):
                raise UsageError(f"mask {name!r} lies on field {mask.field!r}, which must be there and read by a "
                                 f"GridEncode; fields: {', '.join(self.fields)}")  # fmt: skip
            if name in self.targets:
                raise UsageError(f"{name!r} is a label and a mask")

    def __call__(self, records: Sequence[Record], epoch: int = 0) -> Batch:
        import torch

        batch = Collate.__call__(self, records, epoch)
        targets, known = dict(batch.targets), dict(batch.known)
        for name in self.masks:
            made = [self.target(name, r) for r in records]
            targets[name] = torch.from_numpy(np.stack([m[0] for m in made]))
            known[name] = torch.from_numpy(np.stack([m[1] for m in made]))
            mask = self.masks[name]
            if isinstance(mask, DomainTarget):
                numbers = [mask.number(r) for r in records]
                targets[DOMAIN] = torch.tensor([n or 0 for n in numbers])
                known[DOMAIN] = torch.tensor([n is not None for n in numbers])
        return replace(batch, targets=targets, known=known)

    def target(self, name: str, record: Record) -> tuple[Marks, Known]:
        """One record's label and known (*size)."""
        mask = self.masks[name]
        use = self.fields[mask.field]
        assert isinstance(use.encode, GridEncode)
        try:
            return mask(record, use.roles, use.encode)
        except Refused as error:
            said = str(error).removesuffix(f" [{error.code}]")
            raise Refused(error.code, f"record {record.id!r}, mask {name!r}: {said}") from error

    def only(self, *names: str) -> MaskCollate:
        """Some of the fields, without targets, masks and keys."""
        missing = [n for n in names if n not in self.fields]
        if missing:
            raise UsageError(f"no field {missing[0]!r}; there are {', '.join(self.fields)}")
        return replace(self, fields={n: self.fields[n] for n in names}, targets=(), keys=(), masks={})

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        return {**Collate.to_json(self), "masks": {n: asdict(m) for n, m in self.masks.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MaskCollate:
        """The inverse of `to_json`."""
        if data.get("version") != 1:
            raise UsageError(f"collate settings are of version {data.get('version')!r}; this library reads version 1")
        fields = {n: Use(tuple(u["roles"]), _encode(u["encode"]), u["most"]) for n, u in data["fields"].items()}
        masks = {n: _target(m) for n, m in data.get("masks", {}).items()}
        return cls(fields, tuple(data["targets"]), tuple(data["keys"]), data["seed"], masks=masks)


def _target(data: Mapping[str, Any]) -> MaskTarget | DomainTarget:
    if "spaces" in data:
        return DomainTarget({n: _plain(s) for n, s in data["spaces"].items()}, data["by"])
    return _plain(data)


def _plain(data: Mapping[str, Any]) -> MaskTarget:
    return MaskTarget(**{**data, "classes": tuple(data["classes"])})


def _encode(data: Mapping[str, Any]) -> Any:
    return GridEncode.from_json(data) if data.get("type") == "grid" else from_json(data)


def apart(supervised: Sequence[Record], unpaired: Sequence[Record]) -> None:
    """An error where a subject is in both: real masks for a critic come from other patients than the scribbled images.

    >>> apart([Record("a", "p1")], [Record("b", "p2")])
    """
    both = {r.subject for r in supervised} & {r.subject for r in unpaired}
    if both:
        from fabrica.errors import Leak

        raise Leak(
            f"{len(both)} subjects ({', '.join(sorted(both)[:3])}) have scribbled images and unpaired masks: the masks "
            "must be of other patients"
        )
