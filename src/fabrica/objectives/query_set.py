"""Queries against prompts: who answers whom (Hungarian), masks on uncertain points, and which query a prompt means."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from fabrica.errors import UsageError
from fabrica.objectives.present import of_present
from fabrica.types import Batch, Loss

if TYPE_CHECKING:
    from torch import nn

Draw = Callable[..., Tensor]  # (mask vectors of rows, which rows) -> mask logits


def pair_costs(masks: Tensor, target: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and Dice of each query's mask logits (R, Q, P) and each prompt's target (R, K, P), 0 or 1,
    over known points: two (R, Q, K). Dice has Mask2Former's smoothing of 1."""
    seen = known.to(masks.dtype)
    goal = target.to(masks.dtype) * seen
    points = seen.sum(2).clamp(min=1)[:, None]
    price = torch.einsum("rqp,rkp->rqk", functional.softplus(masks), seen)
    price = price - torch.einsum("rqp,rkp->rqk", masks, goal)
    share = masks.sigmoid()
    both = 2 * torch.einsum("rqp,rkp->rqk", share, goal)
    area = torch.einsum("rqp,rkp->rqk", share, seen) + goal.sum(2)[:, None]
    return price / points, 1 - (both + 1) / (area + 1)


def match(cost: Tensor, asked: Tensor) -> Tensor:
    """The query (R, K) int64 of each prompt that is `asked` (R, K) bool, no query twice in a row, at the least sum of
    cost (R, Q, K); 0 where nothing is asked.

    >>> match(torch.tensor([[[0.0, 1.0], [0.1, 9.0], [5.0, 5.0]]]), torch.ones(1, 2, dtype=torch.bool)).tolist()
    [[1, 0]]
    """
    rows, queries, prompts = cost.shape
    if int(asked.sum(1).max()) > queries:
        raise UsageError(f"{int(asked.sum(1).max())} prompts on one image, {queries} queries: ask for fewer at a time")
    if prompts == 1:
        return cost.argmin(1)
    from scipy.optimize import linear_sum_assignment

    made = torch.zeros(rows, prompts, dtype=torch.long)
    prices, wanted = cost.detach().cpu().double().numpy(), asked.cpu().numpy()
    for row in range(rows):
        which = wanted[row].nonzero()[0]
        if len(which):
            query, column = linear_sum_assignment(prices[row][:, which])
            made[row, which[column]] = torch.from_numpy(query)
    return made.to(cost.device)


def shared(query: Tensor, same: Tensor, asked: Tensor, queries: int) -> Tensor:
    """The target (R, K, Q) over queries: 1 at a prompt's own, in equal parts where prompts name one object.

    >>> shared(torch.tensor([[2, 0]]), torch.tensor([[7, 7]]), torch.ones(1, 2, dtype=torch.bool), 3).tolist()
    [[[0.5, 0.0, 0.5], [0.5, 0.0, 0.5]]]
    """
    own = functional.one_hot(query, queries).float() * asked[..., None]
    alike = ((same[:, :, None] == same[:, None]) & asked[:, None] & asked[:, :, None]).float()
    return alike @ own / alike.sum(2, keepdim=True).clamp(min=1)


def uncertain_points(logits: Tensor, count: int, *, over: int = 3, hard: float = 0.75) -> Tensor:
    """Points (N, P, 2) in 0..1 on masks (N, 1, h, w): of `over` times as many the share `hard` that is least sure, the
    rest anywhere (PointRend, arXiv 1912.08193)."""
    n, many = len(logits), int(hard * count)
    drawn = torch.rand(n, over * count, 2, device=logits.device)
    least = at_points(logits, drawn)[:, 0].abs().topk(many, dim=1, largest=False).indices
    near = drawn.gather(1, least[..., None].expand(-1, -1, 2))
    return torch.cat([near, torch.rand(n, count - many, 2, device=logits.device)], 1)


def at_points(maps: Tensor, points: Tensor, mode: str = "bilinear") -> Tensor:
    """Maps (N, C, h, w) at points (N, P, 2) in 0..1: (N, C, P)."""
    return functional.grid_sample(maps, 2 * points[:, :, None] - 1, mode=mode, align_corners=False)[..., 0]


@dataclass(slots=True)
class QuerySet:
    """The sets of `PromptNet` against the masks of prompts, at the start and after every layer, all equal.

    Matching cost: `match_word` x -softmax over queries + `match_mask` x (BCE + Dice). Loss: BCE of the matched query +
    its Dice where the object is there (see `of_present`) + `word` x cross-entropy over QUERIES for each prompt.
    `points`: on as many random points masks are matched, on as many uncertain ones they are learned: over all pixels
    the few where two objects are told apart weigh nothing. `joint`: all prompts of an image are read together by one
    set of queries (as published); else each has its own, as when it is asked alone.
    Errors: `UsageError` for fewer points than one.
    """

    field: str = "image"
    points: int = 12_544
    word: float = 0.8  # 0.4 x lambda = 2 for text
    match_word: float = 2.0
    match_mask: float = 5.0
    joint: bool = False
    reads: tuple[str, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.reads = (self.field, "prompts", "objects", "same")
        if self.points < 1:
            raise UsageError(f"points={self.points}; wanted 1 or more, a mask is learned on them alone")

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch; `count` prompts contributed."""
        given = batch.fields[self.field]
        asked = batch.known["same"] & given.valid[:, :1]
        at = asked.any(1).nonzero().squeeze(1)
        if not len(at):
            return Loss(torch.zeros((), device=given.values.device), {}, 0)
        net, say = model.get_submodule("net"), model.get_submodule("text")
        told = say(batch.targets["prompts"][at], batch.known["prompts"][at])
        seen = net.look(given.values[at, 0])  # type: ignore[operator]
        target, known, asked = (t[at] for t in (batch.targets["objects"], batch.known["objects"], asked))
        same, tokens, valid, vector = batch.targets["same"][at], told.tokens, told.valid, told.vector
        if self.joint:
            of = torch.arange(len(at), device=asked.device)
            tokens, valid = tokens.flatten(1, 2), valid.flatten(1, 2)
        else:  # a row a prompt
            of = asked.nonzero()[:, 0]
            tokens, valid = tokens[asked], valid[asked]
            target, known, vector, same = (t[asked][:, None] for t in (target, known, vector, same))
            asked = asked[asked][:, None]
        sets = net.decode(seen, tokens, valid, of, not self.joint)  # type: ignore[operator]
        terms: dict[str, list[Tensor]] = {"bce": [], "dice": [], "word": []}

        def draw(vectors: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
            made: Tensor = net.draw(vectors, seen.logits, of[rows])  # type: ignore[operator]
            return made

        target, known = _on(target, seen.logits), _on(known, seen.logits)
        for masks, words in sets:
            likeness = net.similar(words, vector)  # type: ignore[operator]
            for name, value in self._one(masks, likeness, draw, target, known, asked, same).items():
                terms[name].append(value)
        mean = {n: torch.stack(v).sum() for n, v in terms.items()}
        total = mean["bce"] + mean["dice"] + self.word * mean["word"]
        return Loss(total, {n: float(v.detach()) for n, v in mean.items()}, int(asked.sum()))

    def _one(
        self, vectors: Tensor, likeness: Tensor, draw: Draw, target: Tensor, known: Tensor, asked: Tensor, same: Tensor
    ) -> dict[str, Tensor]:
        """Terms of one set of mask `vectors` (R, Q, C + 1)."""
        with torch.no_grad():
            query = match(self._cost(vectors, likeness, draw, target, known), asked)
        share = shared(query, same, asked, vectors.shape[1])
        word = -(share * likeness.transpose(1, 2).log_softmax(2)).sum(2)[asked].mean()
        rows, columns = asked.nonzero(as_tuple=True)
        mine = draw(vectors[rows, query[rows, columns]][:, None], rows)
        goal, seen = target[rows, columns][:, None], known[rows, columns][:, None]
        there = (goal * seen).flatten(1)
        where = uncertain_points(mine.detach(), self.points)
        goal, seen = at_points(goal.float(), where, "nearest"), at_points(seen.float(), where, "nearest") > 0.5
        bce, dice = pair_costs(at_points(mine, where), goal, seen)
        return {"bce": bce.mean(), "dice": of_present(dice.flatten(), there), "word": word}

    def _cost(self, vectors: Tensor, likeness: Tensor, draw: Draw, target: Tensor, known: Tensor) -> Tensor:
        masks = draw(vectors)
        where = torch.rand(len(masks), self.points, 2, device=masks.device)
        target, known = (at_points(t.float(), where, "nearest") for t in (target, known))
        bce, dice = pair_costs(at_points(masks, where), target, known > 0.5)
        return self.match_word * -likeness.softmax(1) + self.match_mask * (bce + dice)


def _on(labels: Tensor, masks: Tensor) -> Tensor:
    """Labels (R, K, *S) on the grid of masks (R, Q, h, w), by nearest neighbour."""
    if labels.shape[2:] == masks.shape[2:]:
        return labels
    return functional.interpolate(labels.float(), size=masks.shape[2:], mode="nearest-exact").to(labels.dtype)
