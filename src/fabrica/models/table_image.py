"""TIP's fusion: table tokens read image tokens; image, table and both answer, and what is missing is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError
from fabrica.models.attend import CrossAttend
from fabrica.models.fusion import FusionNet, Reading
from fabrica.models.load import tower_of
from fabrica.models.table_tokens import TableEncoder, attention
from fabrica.models.task_heads import Heads
from fabrica.models.towers import Tower
from fabrica.objectives.scale import LogitScale
from fabrica.types import Features, Field

IMAGE, TABLE, BOTH = "image", "table", "image+table"


class PartHeads(nn.Module):
    """A linear classifier a part: the pooled image, the table's CLS, the interaction's CLS."""

    def __init__(self, tasks: Mapping[str, int], widths: Mapping[str, int]) -> None:
        super().__init__()
        self.tasks, self.widths = dict(tasks), dict(widths)
        self.parts = nn.ModuleList(Heads(tasks, width) for width in widths.values())

    def forward(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Part -> (B, D) to task -> (B, parts, C), in the order of `widths`."""
        each = [head(parts[name]) for name, head in zip(self.widths, self.parts, strict=True)]
        return {task: torch.stack([one[task] for one in each], 1) for task in self.tasks}

    def to_json(self) -> dict[str, Any]:
        """The tasks; widths follow from the towers."""
        return {"tasks": self.tasks}


class TableImage(FusionNet):
    """Towers "image" and "table" (a `TableEncoder`) under `layers` blocks in which table tokens attend to each other
    and to image tokens (Du et al. 2024, arXiv 2407.07582, section 3). A record is answered by the mean of the logits of
    its parts: the image, the table's CLS, the interaction's CLS, each where it has what it reads; a record with
    neither by the table's CLS over missing cells, the prior.

    `mask_fusion` keeps missing cells out of attention in the interaction too (the paper does not). The parts that
    pre-training needs: `encode_table`, `fuse`, `match`, `reconstruct`.
    """

    kind: ClassVar[str] = "table_image"

    def __init__(
        self, towers: Mapping[str, Tower], dim: int, tasks: Mapping[str, int], *, layers: int = 4, heads: int = 8,
        mask_fusion: bool = False, scale: LogitScale | None = None,
    ) -> None:  # fmt: skip
        body = towers[TABLE].body if set(towers) == {IMAGE, TABLE} else None
        if not isinstance(body, TableEncoder):
            raise UsageError(f"wanted towers 'image' and 'table', the latter of cells; got {sorted(towers)}")
        widths = {IMAGE: towers[IMAGE].body.width, TABLE: body.width, BOTH: body.width}
        scale = LogitScale.of_temperature(0.1, learnable=False) if scale is None else scale
        super().__init__(towers, dim, PartHeads(tasks, widths), scale=scale)
        self.depth, self.heads_each, self.mask_fusion = layers, heads, mask_fusion
        self.interact = CrossAttend(body.width, widths[IMAGE], layers, heads)
        self.match_head = nn.Linear(body.width, 2)
        self.number_head = nn.Linear(body.width, 1)
        self.category_head = nn.Linear(body.width, body.tokens.rows.num_embeddings)

    @property
    def table(self) -> TableEncoder:
        """The table encoder."""
        body = self.tower(TABLE).body
        assert isinstance(body, TableEncoder)
        return body

    def cells(self, field: Field) -> Tensor:
        """(B, 2 C): values and flags of each row's table; a row without one has all its flags 0."""
        if field.valid.shape[1] != 1:
            raise UsageError(f"one table a record wanted; the batch has room for {field.valid.shape[1]}")
        return torch.where(field.valid[:, 0, None], field.values[:, 0], 0.0)

    def encode_table(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, 1 + C, D), CLS first, and which cells are there (B, C)."""
        tokens = self.table(cells)
        assert tokens.mask is not None
        return tokens.values, tokens.mask[:, 1:]

    def encode_image(self, field: Field) -> tuple[Features, Tensor]:
        """The image tower's features and which of its tokens are real (B, L); none where a row has no image."""
        found = self.tower(IMAGE)(field)
        if found.tokens is None:  # no row has an image
            nothing = found.pooled.new_zeros(len(field.valid), 1, self.tower(IMAGE).body.width)
            return replace(found, tokens=nothing), torch.zeros_like(nothing[..., 0], dtype=torch.bool)
        real = found.mask if found.mask is not None else torch.ones_like(found.tokens[..., 0], dtype=torch.bool)
        return found, real

    def fuse(self, tokens: Tensor, there: Tensor, image: Tensor, seen: Tensor) -> Tensor:
        """Table tokens (B, 1 + C, D) that have read image tokens (B, L, D') where `seen` (B, L)."""
        made: Tensor = self.interact(tokens, attention(there) if self.mask_fusion else None, image, seen)
        return made

    def match(self, fused: Tensor) -> Tensor:
        """(B, 2) logits of "another's" and "one person's" from fused tokens."""
        made: Tensor = self.match_head(fused[:, 0])
        return made

    def reconstruct(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """Of each column: standardised numbers (B, C), and logits (B, C, R) over all rows of the category table."""
        return self.number_head(fused[:, 1:]).squeeze(-1), self.category_head(fused[:, 1:])

    def read(self, fields: Mapping[str, Field]) -> Reading:
        """K = 3 readings: image, table, both."""
        fields = self.given(fields)
        rows = len(next(iter(fields.values())).valid)
        device = self.match_head.weight.device
        empty = torch.zeros(rows, 1, dtype=torch.bool, device=device)
        if TABLE in fields:
            cells = self.cells(fields[TABLE])
        else:
            cells = torch.zeros(rows, self.table.inputs, device=device)
        tokens, there = self.encode_table(cells)
        if IMAGE in fields:
            image, seen = self.encode_image(fields[IMAGE])
            shown = fields[IMAGE].valid.any(1)
        else:
            width = self.tower(IMAGE).body.width
            image = Features(tokens.new_zeros(rows, width), tokens.new_zeros(rows, 1, width))
            seen, shown = empty, empty[:, 0]
        assert image.tokens is not None
        told = there.any(1)
        fused = self.fuse(tokens, there, image.tokens, seen)
        logits = self.heads({IMAGE: image.pooled, TABLE: tokens[:, 0], BOTH: fused[:, 0]})
        ran = torch.stack([shown, told | ~shown, told & shown], 1)  # a record with nothing: the table's prior
        step = torch.arange(3, device=device).expand(rows, -1)
        return Reading(logits, ran, step, (IMAGE, TABLE, BOTH))

    def final(self, reading: Reading) -> dict[str, Tensor]:
        """Logits (B, C) by task: the mean over the parts that ran."""
        weight = reading.ran / reading.ran.sum(1, keepdim=True)  # (B, 3); one of them always ran
        return {task: (weight[..., None] * logits).sum(1) for task, logits in reading.logits.items()}

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain JSON."""
        return {
            **super().to_json(),
            "layers": self.depth,
            "attention": self.heads_each,
            "mask_fusion": self.mask_fusion,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TableImage:
        """The inverse of `to_json`, with random weights."""
        towers = {name: tower_of(tower) for name, tower in data["towers"].items()}
        return cls(
            towers, data["dim"], data["heads"]["tasks"], layers=data["layers"], heads=data["attention"],
            mask_fusion=data["mask_fusion"], scale=LogitScale(**data["scale"]),
        )  # fmt: skip
