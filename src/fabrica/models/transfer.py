"""Weights from one model into another, with a report of what went where, and a refusal where little did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError

Inputs = Literal["error", "repeat", "mean", "first"]


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a transfer did, by parameter name: `loaded` as they were, `reshaped` to other input channels, `skipped` as
    asked, `left` of the source that the model lacks or that has another shape, `missing` in the model (they keep their
    first values). `share` of the backbone's numbers that came from the source."""

    loaded: tuple[str, ...]
    reshaped: tuple[str, ...]
    skipped: tuple[str, ...]
    left: tuple[str, ...]
    missing: tuple[str, ...]
    share: float

    def __str__(self) -> str:
        return (
            f"{100 * self.share:.1f} % of the backbone loaded: {len(self.loaded)} tensors, {len(self.reshaped)} "
            f"reshaped, {len(self.skipped)} skipped, {len(self.left)} left over, {len(self.missing)} missing"
        )


def transfer(
    model: nn.Module, state: Mapping[str, Tensor], *, backbone: str = "", rename: Mapping[str, str] | None = None,
    skip: tuple[str, ...] = (), inputs: Inputs = "error", least: float = 0.95,
) -> Transfer:  # fmt: skip
    """Load `state` into `model` in place where name and shape fit.

    `rename` replaces the first prefix of a source name that fits ({"module.": "net.encoder."}); `skip` are prefixes of
    the model that keep their own values (heads). A convolution whose source has another number of input channels is
    made to fit as `inputs` says: "repeat" (1 -> n, divided by n), "mean" (n -> 1, summed), "first" (the first ones).
    `UsageError` where less than `least` of the numbers under the prefix `backbone` came from the source: a prefix that
    does not fit would otherwise load nothing and say nothing.
    """
    own = {n: t for n, t in model.state_dict().items() if n.startswith(backbone) and not n.startswith(skip or ("\0",))}
    if not own:
        raise UsageError(f"the model has nothing under {backbone!r}; its parts: {_heads(model.state_dict())}")
    source = {_renamed(n, rename or {}): t for n, t in state.items()}
    fits: dict[str, Tensor] = {}
    reshaped = []
    for name, mine in own.items():
        theirs = source.get(name)
        if theirs is None:
            continue
        if theirs.shape == mine.shape:
            fits[name] = theirs
        elif (made := _inputs(theirs, mine, inputs)) is not None:
            fits[name] = made
            reshaped.append(name)
    total = sum(t.numel() for t in own.values())
    report = Transfer(
        tuple(n for n in fits if n not in reshaped), tuple(reshaped),
        tuple(n for n in model.state_dict() if skip and n.startswith(skip)),
        tuple(n for n in source if n not in fits), tuple(n for n in own if n not in fits),
        sum(own[n].numel() for n in fits) / total,
    )  # fmt: skip
    if report.share < least:
        raise UsageError(
            f"{report}; wanted at least {100 * least:g} %. The model lacks {_some(report.missing)}; the source has "
            f"{_some(report.left)} left: a prefix (rename=), other shortcuts or widths, other input channels (inputs=)?"
        )
    with torch.no_grad():
        wanted = model.state_dict()
        for name, tensor in fits.items():
            wanted[name].copy_(tensor)
    return report


def _renamed(name: str, rename: Mapping[str, str]) -> str:
    for old, new in rename.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def _inputs(theirs: Tensor, mine: Tensor, how: Inputs) -> Tensor | None:
    """A convolution's weight (out, in, *k) with another number of input channels."""
    if how == "error" or theirs.ndim != mine.ndim or theirs.ndim < 3:
        return None
    if theirs.shape[:1] + theirs.shape[2:] != mine.shape[:1] + mine.shape[2:]:
        return None
    a, b = theirs.shape[1], mine.shape[1]
    if how == "repeat" and a == 1:
        return theirs.expand(-1, b, *theirs.shape[2:]) / b
    if how == "mean" and b == 1:
        return theirs.sum(1, keepdim=True)
    if how == "first" and a > b:
        return theirs[:, :b]
    return None


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "nothing"


def _heads(names: Mapping[str, Tensor]) -> str:
    return ", ".join(dict.fromkeys(n.split(".")[0] for n in names))
