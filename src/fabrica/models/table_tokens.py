"""Tables as tokens, a cell each, and the transformer over them; a missing cell is a token that nobody attends to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fabrica.encode.cells import TableSchema
from fabrica.errors import UsageError, unknown
from fabrica.models.attend import Block
from fabrica.models.body import Body, Tokens


class TableTokens(nn.Module):
    """Cells (n, 2 C), values then flags as `encode.cells` makes them, -> tokens (n, 1 + C, width), CLS first.

    A category takes its row of one table shared by all columns; a number v takes v w + b, one (w, b) for all columns
    (`shared` False: one a column); a missing cell one learned token; all with an embedding of their column, then
    a norm. The value that stands under a missing cell changes nothing. From TIP's tabular encoder (arXiv 2407.07582,
    section 3.1).
    """

    category: Tensor
    offset: Tensor
    size: Tensor

    def __init__(self, schema: TableSchema, width: int, *, shared: bool = True) -> None:
        super().__init__()
        self.schema, self.width, self.shared = schema, width, shared
        kinds = [c.kind == "category" for c in schema.columns]
        sizes = [len(c.categories) for c in schema.columns]
        offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        self.register_buffer("category", torch.tensor(kinds), persistent=False)
        self.register_buffer("offset", torch.tensor(offsets), persistent=False)
        self.register_buffer("size", torch.tensor(sizes), persistent=False)
        self.rows = nn.Embedding(max(1, sum(sizes)), width)
        self.weight = nn.Parameter(torch.randn(1 if shared else len(kinds), width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(1 if shared else len(kinds), width))
        self.missing = nn.Parameter(torch.randn(width) * 0.02)
        self.cls = nn.Parameter(torch.randn(width) * 0.02)
        self.columns = nn.Embedding(1 + len(kinds), width)
        self.norm = nn.LayerNorm(width)
        for table in (self.rows, self.columns):
            nn.init.normal_(table.weight, std=0.02 if table is self.columns else width**-0.5)

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (n, 1 + C, width) and which cells are there (n, C) bool."""
        values, flags = cells.chunk(2, -1)
        there = flags > 0.5
        values = torch.where(there, values, 0.0)  # whatever stood there, NaN included
        number = values[..., None] * self.weight + self.bias
        codes = (values.round().long() + self.offset).clamp(0, self.rows.num_embeddings - 1)
        tokens = torch.where(self.category[:, None], self.rows(codes), number)
        tokens = torch.where(there[..., None], tokens, self.missing)
        tokens = torch.cat([self.cls.expand(len(cells), 1, -1), tokens], 1) + self.columns.weight
        return self.norm(tokens), there

    def check(self, cells: Tensor) -> None:
        """An error that names a column whose category is out of range."""
        values, flags = cells.chunk(2, -1)
        wrong = (flags > 0.5) & self.category & ((values < 0) | (values >= self.size) | (values != values.round()))
        if wrong.any():
            row, column = wrong.nonzero()[0].tolist()
            raise UsageError(
                f"column {self.schema.names[column]!r} holds category {values[row, column].item():g} in row {row}; "
                f"wanted a whole number from 0 to {int(self.size[column]) - 1}"
            )


class TableEncoder(Body):
    """The table encoder: `TableTokens` under `layers` pre-norm blocks; token 0 is CLS.

    `missing` "token+mask": a missing cell attends to itself and to what is there, and nothing else attends to it
    (arXiv 2407.07582, section 3.1); "token": its token takes part like any other. `with_columns` adds columns for
    fine-tuning, with fresh embeddings.
    """

    kind: ClassVar[str] = "cells"
    has_class_token = True

    def __init__(
        self, schema: TableSchema, width: int = 512, layers: int = 4, heads: int = 8, *,
        missing: Literal["token+mask", "token"] = "token+mask", shared: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if missing not in ("token+mask", "token"):
            raise unknown("treatment of missing cells", missing, ("token+mask", "token"))
        self.schema, self.width, self.heads, self.missing, self.shared = schema, width, heads, missing, shared
        self.tokens = TableTokens(schema, width, shared=shared)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))

    @property
    def inputs(self) -> int:
        """Numbers a row: cells and flags."""
        return 2 * len(self.schema.columns)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tokens:
        """(n, 2 C) -> `Tokens` (n, 1 + C, width), mask True everywhere but at missing cells, CLS the prefix."""
        self.tokens.check(values)
        tokens, there = self.tokens(values)
        allowed = attention(there) if self.missing == "token+mask" else None
        for block in self.blocks:
            tokens = block(tokens, allowed)
        real = torch.cat([torch.ones_like(there[:, :1]), there], 1)
        return Tokens(tokens, real, prefix=1)

    @property
    def layers(self) -> tuple[str, ...]:
        """The attention blocks."""
        return tuple(f"blocks.{i}" for i in range(len(self.blocks)))

    def check(self, shape: tuple[int, ...] | None, size: int | None) -> None:
        if shape != (self.inputs,):
            raise UsageError(
                f"this tower reads {len(self.schema.columns)} cells and as many flags, ({self.inputs},); "
                f"the field gives {shape}"
            )

    def with_columns(self, schema: TableSchema) -> TableEncoder:
        """An encoder of `schema`, which has further columns (or categories, or another order), with the learned weights
        of what both have and fresh ones for the rest. A column that changes its kind is an error."""
        made = TableEncoder(schema, self.width, len(self.blocks), self.heads, missing=self.missing, shared=self.shared)
        own = {c.name: (i, c) for i, c in enumerate(self.schema.columns)}
        with torch.no_grad():
            for name, tensor in self.state_dict().items():
                if not name.startswith(("tokens.rows", "tokens.columns")) and (self.shared or name != "tokens.weight"):
                    target = made.state_dict()[name]
                    if target.shape == tensor.shape:
                        target.copy_(tensor)
            made.tokens.columns.weight[0] = self.tokens.columns.weight[0]
            for i, column in enumerate(schema.columns):
                if column.name not in own:
                    continue
                j, known = own[column.name]
                if known.kind != column.kind:
                    raise UsageError(f"column {column.name!r} was a {known.kind} and is now a {column.kind}")
                made.tokens.columns.weight[i + 1] = self.tokens.columns.weight[j + 1]
                if not self.shared:
                    made.tokens.weight[i], made.tokens.bias[i] = self.tokens.weight[j], self.tokens.bias[j]
                for a, code in enumerate(column.categories):
                    if code in known.categories:
                        b = int(self.tokens.offset[j]) + known.categories.index(code)
                        made.tokens.rows.weight[int(made.tokens.offset[i]) + a] = self.tokens.rows.weight[b]
        return made

    def to_json(self) -> dict[str, Any]:
        """The arguments that make this body again."""
        return {
            "kind": self.kind, "schema": self.schema.to_json(), "width": self.width, "layers": len(self.blocks),
            "heads": self.heads, "missing": self.missing, "shared": self.shared,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TableEncoder:
        """The inverse of `to_json`."""
        rest = {k: v for k, v in data.items() if k not in ("kind", "schema")}
        return cls(TableSchema.from_json(data["schema"]), **rest)


def attention(there: Tensor) -> Tensor:
    """Who may attend to whom (n, 1 + C, 1 + C) bool, CLS first: everybody to CLS and to cells that are `there` (n, C);
    a missing cell also to itself.

    >>> attention(torch.tensor([[True, False]]))[0].int().tolist()
    [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    """
    real = torch.cat([torch.ones_like(there[:, :1]), there], 1)
    return real[:, None, :] | torch.eye(real.shape[1], dtype=torch.bool, device=there.device)


class GeneGroups(nn.Module):
    """One self-normalising MLP a group of columns: values (n, C) -> tokens (n, groups, width), and which have a value.

    `groups` says the columns (places) of each token, which may overlap; `flags` (n, C) says what was measured: a
    missing value counts as 0, the mean of standardised columns, and a group without any is not there. SELU with alpha
    dropout (Klambauer et al. 2017), as the genomic encoders of MCAT and CMTA.
    """

    def __init__(
        self, groups: Sequence[Sequence[int]], width: int = 256, layers: int = 2, dropout: float = 0.25
    ) -> None:
        super().__init__()
        if not groups or not all(len(g) for g in groups):
            raise UsageError("gene groups: wanted at least one, each with at least one column")
        self.groups = [list(g) for g in groups]
        self.nets = nn.ModuleList(
            nn.Sequential(*(
                layer for i in range(layers)
                for layer in (nn.Linear(len(g) if i == 0 else width, width), nn.SELU(), nn.AlphaDropout(dropout))
            )) for g in self.groups
        )  # fmt: skip

    def forward(self, values: Tensor, flags: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(n, groups, width), (n, groups) bool."""
        there = torch.ones_like(values, dtype=torch.bool) if flags is None else flags > 0.5
        values = torch.where(there, values, 0.0)
        made = [net(values[:, g]) for net, g in zip(self.nets, self.groups, strict=True)]
        return torch.stack(made, 1), torch.stack([there[:, g].any(1) for g in self.groups], 1)
