"""Checkpoints: safetensors for weights and optimiser, JSON for the rest; whole or absent; the last two are kept.

Weights that no stage trains are not written again: they come with the bundle, and a fingerprint says whether they are
the same. There is no generator state to keep: every step's draws follow from (seed, stage, step, process).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fabrica import safe
from fabrica.errors import Refused, UsageError

KEPT = 2
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class At:
    """Where a run stands: `step` over all stages, `stage` number and `within` it (steps done), `skipped` so far."""

    step: int
    stage: int
    within: int
    skipped: int


def save(
    folder: Path, at: At, model: nn.Module, optimiser: torch.optim.Optimizer | None, plan: Mapping[str, Any],
    frozen: Sequence[str],
) -> Path:  # fmt: skip
    """Write `folder/step-NNNNNNNN`, then remove all but the last two."""
    from safetensors.torch import save_file

    path = folder / f"step-{at.step:08d}"
    with safe.folder_whole(path, replace=True) as temp:
        save_file(_unshared(model, frozen), temp / "model.safetensors")
        save_file(_optimiser_tensors(model, optimiser), temp / "optimizer.safetensors")
        state = {"format": _FORMAT, "at": {n: getattr(at, n) for n in At.__slots__}, "plan": dict(plan)}
        (temp / "state.json").write_text(json.dumps(state, indent=1) + "\n", "utf-8")
    for old in found(folder)[:-KEPT]:
        shutil.rmtree(old)
    return path


def found(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first."""
    return sorted(p for p in folder.glob("step-" + "[0-9]" * 8) if (p / "state.json").is_file())


def read(path: Path, plan: Mapping[str, Any]) -> At:
    """Where a checkpoint stands; an error where it was made by another plan, naming what differs."""
    try:
        state = json.loads(safe.read_bytes(path / "state.json"))
        at = At(**{n: int(state["at"][n]) for n in At.__slots__})
        theirs = state["plan"] if state["format"] == _FORMAT else None
    except (ValueError, KeyError, TypeError) as error:
        raise Refused("checkpoint_bad", f"{path} is no checkpoint of this library: {error}") from error
    if theirs is None:
        raise Refused("checkpoint_bad", f"{path} has format {state['format']!r}; this version reads {_FORMAT}")
    differing = _difference(theirs, json.loads(json.dumps(dict(plan))))
    if differing:
        raise UsageError(
            f"{path.parent} holds checkpoints of another run ({'; '.join(differing[:3])}): give another folder, or"
            " resume=False to start over there"
        )
    return at


def load(path: Path, model: nn.Module, frozen: Sequence[str]) -> None:
    """Weights of a checkpoint into the model, in place."""
    given = safe.weights(path / "model.safetensors")
    wanted = {n: t for n, t in model.state_dict().items() if n not in set(frozen)}
    lost = [n for n in _unshared(model, frozen) if n not in given] + [n for n in given if n not in wanted]
    wrong = [n for n, t in given.items() if n in wanted and wanted[n].shape != t.shape]
    if lost or wrong:
        raise UsageError(f"{path} does not fit this model: {', '.join((lost + wrong)[:3])}; was it built another way?")
    with torch.no_grad():
        for name, tensor in given.items():
            wanted[name].copy_(tensor)


def load_optimiser(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """The optimiser's tensors of a checkpoint, parameter by name."""
    given = safe.weights(path / "optimizer.safetensors")
    parameters = dict(model.named_parameters())
    for key, tensor in given.items():
        name, _, slot = key.rpartition("/")
        if name not in parameters:
            raise UsageError(f"{path}: the optimiser has a state for {name!r}, which the model lacks")
        p = parameters[name]
        optimiser.state[p][slot] = tensor.to(p.device)


def frozen_fingerprint(model: nn.Module, frozen: Sequence[str]) -> str:
    """A hash of the weights that no stage trains."""
    digest, state = hashlib.sha256(), model.state_dict()
    for name in sorted(frozen):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:24]


def _unshared(model: nn.Module, frozen: Sequence[str]) -> dict[str, Tensor]:
    """The state without frozen weights, tied ones once (their first name)."""
    out, seen, skip = {}, set(), set(frozen)
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if name in skip or (tensor.numel() and place in seen):
            continue
        seen.add(place)
        out[name] = tensor.detach().cpu().contiguous()
    return out


def _optimiser_tensors(model: nn.Module, optimiser: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    if optimiser is None:
        return {}
    return {
        f"{name}/{slot}": tensor.detach().cpu().contiguous()
        for name, p in model.named_parameters() if p in optimiser.state
        for slot, tensor in optimiser.state[p].items()
    }  # fmt: skip


def _difference(theirs: Any, ours: Any, where: str = "") -> list[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = [*theirs, *(k for k in ours if k not in theirs)]
        return [d for k in keys for d in _difference(theirs.get(k), ours.get(k), f"{where}.{k}".lstrip("."))]
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        return [
            d for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) for d in _difference(a, b, f"{where}[{i}]")
        ]
    return [] if theirs == ours else [f"{where}: {theirs} there, {ours} here"]
