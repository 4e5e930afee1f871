"""Which records make up a step: a pure function of (seed, step), the same for any number of ranks and workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fabrica.corpus.codec import SQL_COLUMNS
from fabrica.errors import UsageError
from fabrica.types import Record

if TYPE_CHECKING:
    from fabrica.corpus.store import Corpus


class Sampler:
    """Seeded batches of ids, from one list or from sources that are mixed.

    Mixing: source s of n_s records gets the share w_s ~ n_s^(1/temperature) (1: by size; larger: more even), or
    `weights`. An epoch is as long as it takes to see the largest source once at its share; smaller sources repeat,
    each in a new order every time round. Within an epoch every source is spread evenly (systematic sampling: the j-th
    of m draws falls at a random place of the j-th of m equal parts), so that each batch holds the shares within
    about one draw. Order inside a source is a uniform permutation.

    There is no state but the step: `global_batch(step)` is the same whenever, wherever it is called; rank r of w takes
    `[r::w]` of it, so a run may go on from any step with another number of ranks or workers. `drop_last` leaves out
    an epoch's last short batch.

    >>> sampler = Sampler(["a", "b", "c", "d"], batch=2, seed=1)
    >>> sampler.steps_per_epoch, sorted(sampler.global_batch(0) + sampler.global_batch(1))
    (2, ['a', 'b', 'c', 'd'])
    """

    def __init__(
        self,
        ids: Sequence[str] | Mapping[str, Sequence[str]],
        *,
        batch: int,
        seed: int = 0,
        temperature: float = 1.0,
        weights: Mapping[str, float] | None = None,
        drop_last: bool = True,
    ) -> None:
        groups = ids if isinstance(ids, Mapping) else {"": ids}
        self.sources = {name: list(of) for name, of in sorted(groups.items()) if len(of)}
        if not self.sources:
            raise UsageError("there are no records to sample; check the filter and the corpus")
        if batch < 1 or not temperature > 0:
            raise UsageError(f"batch = {batch}, temperature = {temperature}; wanted at least 1 and more than 0")
        self.batch, self.seed = batch, seed
        self.shares = _shares(self.sources, temperature, weights)
        self._counts = _counts(self.sources, self.shares)
        self.epoch_length = sum(self._counts.values())
        whole, rest = divmod(self.epoch_length, batch)
        self.steps_per_epoch = max(1, whole + (0 if drop_last else rest > 0))
        self._cached: tuple[int, list[str]] = (-1, [])

    @classmethod
    def over(
        cls, corpus: Corpus, where: str | None = None, *, batch: int, seed: int = 0, mix_by: str | None = None,
        temperature: float = 1.0, weights: Mapping[str, float] | None = None, drop_last: bool = True,
    ) -> Sampler:  # fmt: skip
        """A sampler of the records that `where` takes, mixed by a group ("source", "modality", "site" ...)."""
        ids: Sequence[str] | Mapping[str, Sequence[str]]
        ids = corpus.ids(where) if mix_by is None else _grouped(corpus, where, mix_by)
        return cls(ids, batch=batch, seed=seed, temperature=temperature, weights=weights, drop_last=drop_last)

    def epoch(self, step: int) -> int:
        """Which epoch a step belongs to."""
        return step // self.steps_per_epoch

    def global_batch(self, step: int) -> list[str]:
        """The ids of a step over all ranks, in order."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if self._cached[0] != epoch:
            self._cached = (epoch, self._order(epoch))
        return self._cached[1][within * self.batch : (within + 1) * self.batch]

    def rank_batch(self, step: int, rank: int, world: int) -> list[str]:
        """What rank `rank` of `world` reads at a step."""
        if not 0 <= rank < world:
            raise UsageError(f"rank {rank} of {world}; wanted 0 to {world - 1}")
        return self.global_batch(step)[rank::world]

    def _order(self, epoch: int) -> list[str]:
        keys: list[NDArray[np.float64]] = []
        drawn: list[str] = []
        for index, (name, ids) in enumerate(self.sources.items()):
            m = self._counts[name]
            drawn.extend(ids[i] for i in self._draws(index, len(ids), epoch * m, m))
            jitter = self._random(index, epoch, 1).random(m)
            keys.append((np.arange(m) + jitter) / max(m, 1))
        return [drawn[i] for i in np.argsort(np.concatenate(keys), kind="stable")]

    def _draws(self, source: int, n: int, start: int, count: int) -> list[int]:
        """Draws start .. start + count of a source's endless stream of permutations of 0 .. n - 1."""
        out: list[int] = []
        while len(out) < count:
            turn, at = divmod(start + len(out), n)
            order = self._random(source, turn, 0).permutation(n)
            out.extend(order[at : at + count - len(out)].tolist())
        return out

    def _random(self, source: int, turn: int, use: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.seed, source, turn, use))))


def _shares(
    sources: Mapping[str, Sequence[str]], temperature: float, weights: Mapping[str, float] | None
) -> dict[str, float]:
    if weights is None:
        raw = {name: len(ids) ** (1.0 / temperature) for name, ids in sources.items()}
    else:
        raw = {name: float(weights.get(name, 0.0)) for name in sources}
        if any(not w >= 0 for w in raw.values()) or not any(raw.values()):
            raise UsageError(f"weights {dict(weights)} give nothing to sample; the sources are {', '.join(sources)}")
    total = sum(raw.values())
    return {name: w / total for name, w in raw.items()}


def _counts(sources: Mapping[str, Sequence[str]], shares: Mapping[str, float]) -> dict[str, int]:
    """Draws of each source in an epoch: the largest source once, the others by their share (at least 1)."""
    largest = max((name for name in sources if shares[name] > 0), key=lambda name: len(sources[name]))
    length = len(sources[largest]) / shares[largest]
    return {name: max(1, round(length * share)) if share > 0 else 0 for name, share in shares.items()}


def _grouped(corpus: Corpus, where: str | None, by: str) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    if by in SQL_COLUMNS and by in ("modality", "source", "split", "licence"):
        table = corpus.rows(["id", by], where)
        values = [v or "" for v in table.column(by).to_pylist()]
    else:
        table = corpus.rows(["id", "tags"], where)
        head = by + ":"
        values = [
            next((t[len(head) :] for t in tags if t.startswith(head)), "") for tags in table.column("tags").to_pylist()
        ]
    for name, value in sorted(zip(table.column("id").to_pylist(), values, strict=True)):
        groups.setdefault(value, []).append(name)
    return groups


def stream(
    corpus: Corpus, sampler: Sampler, *, start: int = 0, stop: int | None = None, rank: int = 0, world: int = 1,
    roles: Sequence[str] | None = None, ahead: int = 2,
) -> Iterator[tuple[int, list[Record]]]:  # fmt: skip
    """(step, records) of a rank from step `start` to before `stop`; disk reads are asked for `ahead` steps ahead."""
    step = start
    while stop is None or step < stop:
        soon = step + ahead
        if ahead and (stop is None or soon < stop):
            corpus.prefetch(sampler.rank_batch(soon, rank, world))
        yield step, corpus.take(sampler.rank_batch(step, rank, world), roles=roles)
        step += 1
