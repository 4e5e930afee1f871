"""CMTA's fusion: each of two sides is told by its own encoding and by what the other side says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError, unknown
from fabrica.models.attend import Attend
from fabrica.models.fusion import FusionNet, Reading
from fabrica.models.hazards import Hazards
from fabrica.models.load import tower_of
from fabrica.models.nystrom import BagEncoder, packed
from fabrica.models.towers import Tower
from fabrica.types import Field

Join = Literal["concat", "bilinear"]


@dataclass(frozen=True, slots=True)
class TranslatedReading(Reading):
    """A `Reading` with `pairs` by side: (translated (B, D), own (B, D), both there (B,) bool)."""

    pairs: Mapping[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)


class Translate(FusionNet):
    """Two towers with a first token (p, g) and parts; one reading (Zhou and Chen, ICCV 2023, arXiv 2309.12855).

    The parts of a look at the parts of b (attention of one head), a decoder like a's encoder reads what they saw and
    its first token is a^, a as told by b; b^ likewise. Each side is the mean of what there is of own and translated
    encoding. A side that a record lacks is asked for by `queries` learned tokens instead of parts (not in the paper),
    so that its translation stands in; with nothing there, a learned vector a side is the prior.

    `translate` False leaves all of that away: late fusion of the same encoders, an absent side a learned vector.
    """

    kind: ClassVar[str] = "translate"

    def __init__(
        self, towers: Mapping[str, Tower], dim: int, heads: Hazards, *, join: Join = "concat", translate: bool = True,
        queries: int = 8, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(towers, dim, heads)
        if len(towers) != 2:
            raise UsageError(f"translation goes between two sides; got {list(towers)}")
        if join not in get_args(Join):
            raise unknown("join", join, get_args(Join))
        bad = [n for n, t in towers.items() if not t.body.has_class_token or t.pool.how != "cls" or t.body.width != dim]
        if bad:
            raise UsageError(f"tower {bad[0]!r}: wanted a body of width {dim} with a first token, pooled by 'cls'")
        self.join, self.translate, self.count, self.dropout = join, translate, queries, dropout
        self.prior = nn.ParameterDict({n: nn.Parameter(torch.zeros(dim)) for n in towers})
        if translate:
            self.look = nn.ModuleDict({n: Attend(dim, 1) for n in towers})
            self.queries = nn.ParameterDict({n: nn.Parameter(torch.randn(queries, dim) * dim**-0.5) for n in towers})
            self.decoders = nn.ModuleDict({n: _decoder(t) for n, t in towers.items()})
        self.fuse = _Bilinear(dim) if join == "bilinear" else _mlp(dim, dropout)

    def read(self, fields: Mapping[str, Field]) -> TranslatedReading:
        """K = 1. A side that is not given is absent everywhere."""
        fields = self.given(fields)
        rows = len(next(iter(fields.values())).valid)
        sides = {name: self._side(name, fields.get(name), rows) for name in self.towers}
        a, b = self.towers
        told = {a: self._told(a, sides[a], sides[b]), b: self._told(b, sides[b], sides[a])} if self.translate else {}
        joined, pairs = [], {}
        for name, other in ((a, b), (b, a)):
            own, here, also = sides[name].own, sides[name].here, sides[other].here
            if self.translate:
                pairs[name] = (told[name], own, here & also)
                share = torch.stack([here, also], 1).to(own.dtype)
                mixed = (own * share[:, :1] + told[name] * share[:, 1:]) / share.sum(1, keepdim=True).clamp(min=1)
                joined.append(torch.where((here | also)[:, None], mixed, self.prior[name]))
            else:
                joined.append(torch.where(here[:, None], own, self.prior[name]))
        state = self.fuse(torch.cat(joined, 1))[:, None]
        ran = torch.ones(rows, 1, dtype=torch.bool, device=state.device)
        return TranslatedReading(
            self.heads(state), ran, torch.zeros_like(ran, dtype=torch.long), ("all",), state, pairs
        )

    def attention(self, fields: Mapping[str, Field]) -> Tensor:
        """(B, parts of the second side, parts of the first): how the second's look at the first's; 0 where absent."""
        if not self.translate:
            raise UsageError("a fusion without translation attends to nothing")
        fields = self.given(fields)
        rows = len(next(iter(fields.values())).valid)
        a, b = (self._side(name, fields.get(name), rows) for name in self.towers)
        look = self.look[list(self.towers)[1]]
        assert isinstance(look, Attend)
        q, k = look.q(b.parts), look.kv(a.parts).chunk(2, -1)[0]
        seen = a.mask & a.here[:, None]
        weights = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~seen[:, None], float("-inf")).softmax(-1)
        weights = weights.nan_to_num(0.0)
        made: Tensor = weights * (b.mask & b.here[:, None])[..., None]
        return made

    def _side(self, name: str, one: Field | None, rows: int) -> _Side:
        """A field's own encoding and its parts; where it is absent, zeros and the learned queries."""
        device = self.prior[name].device
        ask = self.queries[name] if self.translate else self.prior[name][None]
        if one is None or not bool(one.valid.any()):
            nobody = torch.zeros(rows, dtype=torch.bool, device=device)
            parts = ask.expand(rows, -1, -1)
            return _Side(ask.new_zeros(rows, self.dim), nobody, parts, nobody[:, None].expand(parts.shape[:2]) | True)
        features = self.tower(name)(one)
        here = one.valid.any(1)
        own = self.project(name, features.pooled, here)
        assert features.tokens is not None
        assert features.mask is not None
        parts = features.tokens.unflatten(1, (one.valid.shape[1], -1))[:, :, 1:].flatten(1, 2)  # without first tokens
        mask = features.mask.unflatten(1, (one.valid.shape[1], -1))[:, :, 1:].flatten(1)
        if one.valid.shape[1] > 1:
            parts, mask = packed(parts, mask)
        if bool(here.all()) or not self.translate:
            return _Side(own, here, parts, mask)
        short = max(0, len(ask) - parts.shape[1])
        parts = torch.nn.functional.pad(parts, (0, 0, 0, short))
        mask = torch.nn.functional.pad(mask, (0, short))
        stand = torch.nn.functional.pad(ask, (0, 0, 0, parts.shape[1] - len(ask)))
        among = torch.arange(parts.shape[1], device=device) < len(ask)
        parts = torch.where(here[:, None, None], parts, stand)
        return _Side(own, here, parts, torch.where(here[:, None], mask, among))

    def _told(self, name: str, side: _Side, other: _Side) -> Tensor:
        """(B, D): this side as the other tells it; rows in which the other is absent mean nothing."""
        seen = self.look[name](side.parts, other.parts, other.mask & other.here[:, None])
        made: Tensor = self.decoders[name](seen, side.mask)[0]
        return made

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain JSON."""
        said = {"join": self.join, "translate": self.translate, "queries": self.count, "dropout": self.dropout}
        return {**super().to_json(), **said}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Translate:
        """The inverse of `to_json`, with random weights."""
        towers = {name: tower_of(tower) for name, tower in data["towers"].items()}
        return cls(
            towers, data["dim"], Hazards.from_json(data["heads"]), join=data["join"], translate=data["translate"],
            queries=data["queries"], dropout=data["dropout"],
        )  # fmt: skip


def start(model: nn.Module) -> None:
    """New weights for every linear layer: Xavier's normal ones, no bias (the public code of arXiv 2309.12855).

    Torch's own have a third of that variance: less of what differs between records reaches the fusion at the start.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of a batch: own encoding (B, D), present (B,), parts (B, L, D) with their mask (B, L)."""

    own: Tensor
    here: Tensor
    parts: Tensor
    mask: Tensor


def _decoder(tower: Tower) -> BagEncoder:
    """An encoder of the same architecture as the body's own."""
    body = tower.body
    heads, options = getattr(body, "heads", 1), getattr(body, "options", {"kernel": 0})
    return BagEncoder(body.width, heads, position=getattr(body, "position", False), **options)


def _mlp(dim: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2 * dim, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout)
    )


class _Bilinear(nn.Module):
    """Gated outer product: each side narrowed to `rank`, gated by both, (a, 1) x (b, 1) -> a linear layer (Chen et al.
    2020, arXiv 1912.08937)."""

    def __init__(self, dim: int, rank: int = 16) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(nn.Linear(dim, rank) for _ in range(2))
        self.gate = nn.ModuleList(nn.Linear(2 * dim, rank) for _ in range(2))
        self.out = nn.Sequential(nn.Linear((rank + 1) ** 2, dim), nn.ReLU())

    def forward(self, both: Tensor) -> Tensor:
        """(B, 2 dim) -> (B, dim)."""
        one = both.new_ones(len(both), 1)
        sides = [
            torch.cat([narrow(half).relu() * gate(both).sigmoid(), one], 1)
            for narrow, gate, half in zip(self.narrow, self.gate, both.chunk(2, 1), strict=True)
        ]
        made: Tensor = self.out(torch.einsum("bi,bj->bij", *sides).flatten(1))
        return made
