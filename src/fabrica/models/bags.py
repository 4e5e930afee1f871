"""Bodies whose tokens are the parts of one thing: patches of a slide, groups of genes. The first token is for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError
from fabrica.models.body import Body, Tokens
from fabrica.models.nystrom import BagEncoder


class BagBody(Body):
    """Bags (n, most, features + 1), the last column 1 where there is a patch (`encode.bags`), -> CLS and patch tokens.

    CMTA's pathology encoder: Linear-ReLU-dropout, then `BagEncoder` with `position` (arXiv 2309.12855, section 3.3).
    """

    kind: ClassVar[str] = "bag"
    has_class_token = True

    def __init__(
        self, features: int, width: int = 256, heads: int = 8, *, landmarks: int = 128, exact: int = 512,
        kernel: int = 33, position: bool = True, dropout: float = 0.25,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features, self.width, self.heads, self.dropout, self.position = features, width, heads, dropout, position
        self.options = {"landmarks": landmarks, "exact": exact, "kernel": kernel}
        self.embed = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Dropout(dropout))
        self.encoder = BagEncoder(width, heads, position=position, **self.options)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tokens:
        """(n, 1 + L, D), L the longest bag."""
        there = values[..., -1] > 0.5
        longest = max(1, int(there.sum(1).max()))
        if bool(there[:, longest:].any()):
            raise UsageError("the patches of a bag stand first; `encode.bags` makes it so")
        tokens, there = self.embed(values[:, :longest, :-1]), there[:, :longest]
        cls, tokens = self.encoder(tokens, there)
        return Tokens(torch.cat([cls[:, None], tokens], 1), _with_first(there), prefix=1)

    @property
    def layers(self) -> tuple[str, ...]:
        """Embedding, encoder."""
        return ("embed", "encoder")

    def check(self, shape: tuple[int, ...] | None, size: int | None) -> None:
        if shape is None or len(shape) != 2 or shape[1] != self.features + 1:
            raise UsageError(f"this tower reads bags (patches, {self.features} + 1); the field gives {shape}")

    def to_json(self) -> dict[str, Any]:
        """The arguments that make this body again."""
        said = {"features": self.features, "width": self.width, "heads": self.heads, "position": self.position}
        return {"kind": self.kind, **said, "dropout": self.dropout, **self.options}


class GroupsBody(Body):
    """Rows (n, columns) -> CLS and a token a group: `groups` are tuples of columns, which may share some.

    CMTA's genomic encoder: a self-normalising MLP a group (Linear-ELU-alpha dropout, d_g -> hidden -> width; Klambauer
    et al. 2017), then `BagEncoder` without position (arXiv 2309.12855, section 3.3).
    """

    kind: ClassVar[str] = "groups"
    has_class_token = True

    def __init__(
        self, columns: int, groups: Sequence[Sequence[int]], width: int = 256, heads: int = 8, *, hidden: int = 1024,
        dropout: float = 0.25,
    ) -> None:  # fmt: skip
        super().__init__()
        wrong = [i for i, g in enumerate(groups) if not g or min(g) < 0 or max(g) >= columns]
        if not groups or wrong:
            raise UsageError(f"groups {wrong}: wanted one group or more, each of columns from 0 to {columns - 1}")
        self.columns, self.groups = columns, tuple(tuple(g) for g in groups)
        self.width, self.heads, self.hidden, self.dropout = width, heads, hidden, dropout
        self.mlps = nn.ModuleList(_self_normalising((len(g), hidden, width), dropout) for g in self.groups)
        for i, group in enumerate(self.groups):
            self.register_buffer(f"at_{i}", torch.tensor(group), persistent=False)
        kernel = 2 * len(self.groups) + 1
        self.encoder = BagEncoder(
            width, heads, position=False, landmarks=1, exact=max(512, len(groups) + 1), kernel=kernel
        )

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tokens:
        """(n, 1 + groups, D)."""
        parts = [mlp(values[:, getattr(self, f"at_{i}")]) for i, mlp in enumerate(self.mlps)]
        tokens = torch.stack(parts, 1)
        there = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        cls, tokens = self.encoder(tokens, there)
        return Tokens(torch.cat([cls[:, None], tokens], 1), _with_first(there), prefix=1)

    @property
    def layers(self) -> tuple[str, ...]:
        """The groups' MLPs, the encoder."""
        return ("mlps", "encoder")

    def check(self, shape: tuple[int, ...] | None, size: int | None) -> None:
        if shape is None or tuple(shape) != (self.columns,):
            raise UsageError(f"this tower reads rows ({self.columns},); the field gives {shape}")

    def to_json(self) -> dict[str, Any]:
        """The arguments that make this body again."""
        said = {"columns": self.columns, "groups": [list(g) for g in self.groups], "width": self.width}
        return {"kind": self.kind, **said, "heads": self.heads, "hidden": self.hidden, "dropout": self.dropout}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{k: v for k, v in data.items() if k != "kind"})


def _with_first(there: Tensor) -> Tensor:
    return torch.cat([there.new_ones(len(there), 1), there], 1)


def _self_normalising(widths: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        linear = nn.Linear(a, b)
        nn.init.normal_(linear.weight, std=a**-0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ELU(), nn.AlphaDropout(dropout)]
    return nn.Sequential(*layers)
