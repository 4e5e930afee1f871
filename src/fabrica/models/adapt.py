"""What of a net trains: freezing by name and by layer, and low-rank adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from fabrica.errors import UsageError, need


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters (Hu et al., arXiv 2106.09685) on every linear layer of the last `layers` layers.

    W becomes W + (alpha / rank) B A with A (rank, in), B (out, rank), B = 0 at the start, so that nothing changes
    before the first step. All of the net itself is frozen.
    """

    rank: int = 8
    alpha: float = 16.0
    layers: int = 4
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class Freeze:
    """Parameters that do not train: those whose name matches a pattern (`"embeddings.*"`), and the first `layers`
    layers with everything before them (embeddings, stem). `layers` -1 is the whole body."""

    names: tuple[str, ...] = ()
    layers: int = 0


def add_lora(model: nn.Module, layers: Sequence[str], lora: Lora) -> None:
    """Put adapters into `model` in place and freeze the rest of it."""
    if not 0 < lora.layers <= len(layers):
        raise UsageError(f"LoRA on the last {lora.layers} layers; this net has {len(layers)}")
    last = tuple(f"{name}." for name in layers[-lora.layers :])
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.startswith(last)]
    if not linear:
        raise UsageError("LoRA needs linear layers; the last layers of this net have none")
    peft = need("peft", "train")
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=linear)
    peft.inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def apply_freeze(body: nn.Module, layers: Sequence[str], freeze: Freeze) -> None:
    """Take `requires_grad` from what `freeze` names; an error where a pattern names nothing."""
    names = [n for n, _ in body.named_parameters()]
    frozen: set[str] = set()
    for pattern in freeze.names:
        hit = {n for n in names if fnmatchcase(n, pattern)}
        if not hit:
            raise UsageError(f"freeze pattern {pattern!r} names no parameter; the first are {', '.join(names[:4])}")
        frozen |= hit
    if freeze.layers < 0:
        frozen = set(names)
    elif freeze.layers:
        if freeze.layers > len(layers):
            raise UsageError(f"freeze the first {freeze.layers} layers; this net has {len(layers)}")
        first = tuple(f"{name}." for name in layers[: freeze.layers])
        any_layer = tuple(f"{name}." for name in layers)
        start = next(i for i, n in enumerate(names) if n.startswith(any_layer))
        frozen |= set(names[:start]) | {n for n in names if n.startswith(first)}
    for name, parameter in body.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)


def rest_frozen(module: nn.Module) -> None:
    """Put every part whose parameters are all frozen into evaluation mode: no dropout, no running statistics."""
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        module.eval()
        return
    for child in module.children():
        rest_frozen(child)
