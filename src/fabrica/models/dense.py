"""The net contract of dense prediction: an image (and a condition) in, maps out; named parts saved as one model."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from fabrica.errors import Refused, UsageError
from fabrica.types import Field

CONFIG, WEIGHTS = "config.json", "model.safetensors"
NET = "net"  # the part that answers; all others serve training
_FORMAT = 1
_KIND = re.compile(r"[a-z][a-z0-9_]*:[A-Z][A-Za-z0-9]*")
_NONE: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Condition:
    """What a net is told beside the image: `tokens` (B, T, D) with `valid` (B, T) bool, a `vector` (B, D) or one a
    class (B, K, D), the `index` (B,) int64 of each sample's domain (data set, modality)."""

    tokens: Tensor | None = None
    valid: Tensor | None = None
    vector: Tensor | None = None
    index: Tensor | None = None

    def rows(self, at: Tensor) -> Condition:
        """Some samples of it."""
        return Condition(*(None if t is None else t[at] for t in (self.tokens, self.valid, self.vector, self.index)))


@dataclass(frozen=True, slots=True)
class Maps:
    """What a net gives for (B, C, *S): `logits` (B, K, *S); `levels`, coarser logits (B, K, *ceil(S / 2^d)) for
    d = 1, 2, ...; `features`, the encoder's maps, finest first; `extra`, tensors that the net's class names."""

    logits: Tensor
    levels: tuple[Tensor, ...] = ()
    features: tuple[Tensor, ...] = ()
    extra: Mapping[str, Tensor] = field(default_factory=lambda: _NONE)


class Part(nn.Module):
    """A module that config.json can name: `kind` "file:Class" of this folder, and the arguments that make it again."""

    kind: ClassVar[str]

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments as plain JSON."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """`kind` and arguments."""
        return {"kind": self.kind, **self.arguments()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`, with random weights."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "kind"})


class Net(Part):
    """A part that maps images. It reads sides that are multiples of `multiple` and pads nothing: `fit_size` does."""

    dims: int  # spatial axes, 2 or 3
    channels: int  # of the image
    width: int  # channels of the last map in `features`
    multiple: int = 1

    def forward(self, image: Tensor, condition: Condition | None = None) -> Maps:
        raise NotImplementedError

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """The encoder's maps of (B, C, *S), finest first; a net whose head needs a condition says how without one."""
        maps: Maps = self(image)
        return maps.features


def fit_size(net: Net, image: Tensor, condition: Condition | None = None) -> Maps:
    """The net's maps of an image (B, C, *S) of any sides: zeros are added at the far ends up to the net's multiple, and
    the maps are cut back, levels to ceil(S / 2^d). Features stay on the padded grid.

    Errors: `UsageError` for another number of axes or channels than the net reads.
    """
    if image.ndim != net.dims + 2 or image.shape[1] != net.channels:
        axes = "XYZ"[: net.dims]
        raise UsageError(f"the net reads (B, {net.channels}, {', '.join(axes)}); got an image {tuple(image.shape)}")
    sides = image.shape[2:]
    image = padded(image, net.multiple)
    maps: Maps = net(image, condition)
    if image.shape[2:] == sides:
        return maps
    levels = tuple(_cut(level, [-(-n // 2 ** (d + 1)) for n in sides]) for d, level in enumerate(maps.levels))
    extra = {k: _cut(v, sides) if v.shape[2:] == image.shape[2:] else v for k, v in maps.extra.items()}
    return replace(maps, logits=_cut(maps.logits, sides), levels=levels, extra=extra)


def padded(image: Tensor, multiple: int) -> Tensor:
    """Zeros at the far ends, up to sides that are multiples."""
    more = [-n % multiple for n in image.shape[2:]]
    return functional.pad(image, [p for m in reversed(more) for p in (0, m)]) if any(more) else image


def _cut(maps: Tensor, sides: Sequence[int]) -> Tensor:
    return maps[(slice(None), slice(None), *(slice(0, n) for n in sides))]


class DenseModel(nn.Module):
    """A net and what is trained beside it (critics), by name: "net" answers, the others serve training.

    Parameters are called by their part ("net.", "critic."), which is how schedules and turns name them.
    """

    def __init__(self, parts: Mapping[str, Part]) -> None:
        super().__init__()
        if NET not in parts or not isinstance(parts[NET], Net):
            raise UsageError(f"a dense model needs a part 'net' that is a Net; got {', '.join(parts) or 'nothing'}")
        for name, part in parts.items():
            if not name.isidentifier() or hasattr(nn.Module, name):
                raise UsageError(f"a part cannot be called {name!r}")
            self.add_module(name, part)
        self.names = tuple(parts)

    @property
    def net_(self) -> Net:
        """The part that answers."""
        found = self.get_submodule(NET)
        assert isinstance(found, Net)
        return found

    def see(
        self, given: Field, condition: Condition | None = None, rows: Tensor | None = None, *,
        index: Tensor | None = None,
    ) -> tuple[Maps, Tensor]:  # fmt: skip
        """Maps of the records that have the image, and which rows of the batch these are (n,) int64: what is absent
        never runs. `rows` (B,) bool leaves out more; `index` (B,) int64 is a condition of the domain alone."""
        if index is not None:
            condition = Condition(index=index)
        here = given.valid[:, 0] if rows is None else given.valid[:, 0] & rows
        at = here.nonzero().squeeze(1)
        if not len(at):
            raise UsageError("no record of the batch has the image; ask `given.valid` first")
        told = None if condition is None else condition.rows(at)
        return fit_size(self.net_, given.values[at, 0], told), at

    def forward(self, given: Field, condition: Condition | None = None) -> Maps:
        """Maps of the records that have the image."""
        return self.see(given, condition)[0]

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain JSON: what config.json holds."""
        parts = {n: self.get_submodule(n).to_json() for n in self.names}  # type: ignore[operator]
        return {"format": _FORMAT, "library": "fabrica", "dense": parts}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DenseModel:
        """The inverse of `to_json`, with random weights."""
        if data.get("library") != "fabrica" or data.get("format") != _FORMAT or "dense" not in data:
            raise UsageError(f"{CONFIG} is of library {data.get('library')!r}, format {data.get('format')!r}, no dense "
                             f"model; wanted 'fabrica', {_FORMAT}")  # fmt: skip
        return cls({name: part_from_json(part) for name, part in data["dense"].items()})

    def _save_pretrained(self, folder: Path) -> None:
        """config.json and model.safetensors."""
        from safetensors.torch import save_model

        save_model(self, str(folder / WEIGHTS))
        (folder / CONFIG).write_text(json.dumps(self.to_json(), indent=1) + "\n", "utf-8")

    @classmethod
    def of_files(cls, config: Path, weights: Path, device: str = "cpu") -> DenseModel:
        """The model of a config.json and a model.safetensors, in evaluation mode."""
        from fabrica import safe

        model = cls.from_json(json.loads(safe.read_bytes(config)))
        state = safe.weights(weights)
        wanted = model.state_dict()
        odd = sorted(wanted.keys() ^ state.keys())
        odd += [n for n, t in state.items() if n in wanted and wanted[n].shape != t.shape]
        if odd:
            raise UsageError(f"{weights.name} does not fit {config.name}: {len(odd)} differ ({', '.join(odd[:3])})")
        model.load_state_dict(dict(state))
        return model.to(device).eval()


def part_from_json(data: Mapping[str, Any]) -> Part:
    """The part (random weights) that `Part.to_json` described. Only parts of this folder are ever imported."""
    kind = str(data.get("kind"))
    if not _KIND.fullmatch(kind):
        raise Refused("part_kind", f"{kind[:80]!r} names no part; wanted 'file:Class'")
    file, _, name = kind.partition(":")
    if not (Path(__file__).parent / f"{file}.py").is_file():
        raise Refused("part_kind", f"no part {kind!r}: there is no models/{file}.py in this version")
    found = getattr(importlib.import_module(f"fabrica.models.{file}"), name, None)
    if not isinstance(found, type) or not issubclass(found, Part):
        raise Refused("part_kind", f"models/{file}.py has no part {name!r}")
    made: Part = found.from_json(data)
    return made


def no_rows(given: Field) -> Tensor:
    """A loss of 0 without a graph, on the field's device: for `Loss(no_rows(field), {}, 0)`."""
    return torch.zeros((), device=given.values.device)
