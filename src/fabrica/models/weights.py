"""Weights by name: their hash, to safetensors and back into tensors that stand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fabrica.errors import Refused, UsageError


def state_hash(state: Mapping[str, Tensor]) -> str:
    """Hex sha256 of tensors by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_weights(state: Mapping[str, Tensor], file: Path, about: Mapping[str, str]) -> None:
    """Tensors to safetensors, tied ones once."""
    from safetensors.torch import save_file

    seen: set[tuple[int, tuple[int, ...]]] = set()
    kept = {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tuple(tensor.shape))
        if place not in seen:
            seen.add(place)
            kept[name] = tensor.detach().cpu().contiguous()
    save_file(kept, file, {"format": "pt", **about})


def metadata(file: Path) -> dict[str, str]:
    """The text metadata of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            return dict(opened.metadata() or {})
    except SafetensorError as error:
        raise Refused("checkpoint_format", f"{file.name} is not in the safetensors format") from error


def fill(into: Mapping[str, Tensor], given: Mapping[str, Tensor], file: Path) -> None:
    """Weights into tensors, in place; tied ones may be named once."""
    places = {t.data_ptr() for n, t in into.items() if n in given}
    lost = [n for n, t in into.items() if n not in given and t.data_ptr() not in places]
    extra = [n for n in given if n not in into]
    wrong = [n for n, t in given.items() if n in into and into[n].shape != t.shape]
    if lost or extra or wrong:
        raise UsageError(f"{file.name} does not fit this model: {', '.join((lost + extra + wrong)[:3])}")
    with torch.no_grad():
        for name, tensor in given.items():
            into[name].copy_(tensor)
