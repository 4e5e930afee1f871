"""Projection heads: from an encoder's width to the shared space. Encoders never normalise; heads do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from fabrica.errors import UsageError

Norm = Literal["bn", "ln"] | None
Normalise = Literal["l2", "layernorm"] | None
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


def normalise(values: Tensor, how: Normalise) -> Tensor:
    """Rows (..., d) of length 1 ("l2"), of mean 0 and variance 1 ("layernorm"), or unchanged; in float32.

    >>> import torch
    >>> normalise(torch.tensor([3.0, 4.0]), "l2").tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    if how == "l2":
        return functional.normalize(values.float(), dim=-1)
    if how == "layernorm":
        return functional.layer_norm(values.float(), values.shape[-1:])
    return values.float()


class ProjectionHead(nn.Module):
    """(..., dims[0]) -> (..., dims[-1]) float32: linear layers with `activation` between them, then `normalise`.

    `norm` after each hidden layer and `last_norm` after the last: "bn", "ln" or None. One number in `dims` is no layer,
    only the normalisation. On tokens (B, L, D) it is a 1x1 convolution. Without bias where a norm follows.

    ConVIRT: `(2048, 512, 512)`, relu; BiomedCLIP: image `(768, 512)`, text `(768, 640, 512)` gelu; MGCA: both norms
    "bn", 128; Symile's clinical towers: `(D, d)`, `last_norm="ln"`, `normalise=None`.
    """

    def __init__(
        self, dims: Sequence[int], *, norm: Norm = None, last_norm: Norm = None,
        activation: Literal["relu", "gelu"] = "relu", normalise: Normalise = "l2", bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if not dims or min(dims) < 1:
            raise UsageError(f"a head needs one width or more, all above 0; got {list(dims)}")
        if activation not in _ACTIVATIONS:
            raise UsageError(f"activation {activation!r} is none of {', '.join(_ACTIVATIONS)}")
        if normalise not in ("l2", "layernorm", None):
            raise UsageError(f"normalise {normalise!r} is none of l2, layernorm, None")
        self.dims, self.norm, self.last_norm, self.bias = tuple(dims), norm, last_norm, bias
        self.activation, self.normalise = activation, normalise
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(dims)):
            last = i == len(dims) - 2
            after = last_norm if last else norm
            layers.append(nn.Linear(a, b, bias=bias and after is None))
            layers += [_norm(after, b)] if after else []
            layers += [] if last else [_ACTIVATIONS[activation]()]
        self.layers = nn.ModuleList(layers)

    @property
    def width(self) -> int:
        """The number of values it gives a row."""
        return self.dims[-1]

    def forward(self, values: Tensor) -> Tensor:
        """(..., D) -> (..., d)."""
        rows = values.reshape(-1, values.shape[-1])
        for layer in self.layers:
            rows = layer(rows)
        return self.finish(rows.reshape(*values.shape[:-1], rows.shape[-1]))

    def finish(self, values: Tensor) -> Tensor:
        """The last operation alone, for vectors that already lie in the shared space."""
        return normalise(values, self.normalise)

    def to_json(self) -> dict[str, Any]:
        """The arguments that make this head again."""
        return {
            "dims": list(self.dims), "norm": self.norm, "last_norm": self.last_norm, "activation": self.activation,
            "normalise": self.normalise, "bias": self.bias,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ProjectionHead:
        """The inverse of `to_json`."""
        return cls(data["dims"], **{k: v for k, v in data.items() if k != "dims"})


def _norm(kind: str, width: int) -> nn.Module:
    if kind not in ("bn", "ln"):
        raise UsageError(f"norm {kind!r} is none of bn, ln, None")
    return nn.BatchNorm1d(width) if kind == "bn" else nn.LayerNorm(width)
