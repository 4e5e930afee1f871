"""Batches by step: which ids (a pure function of seed and step), loaded where the data lies, in workers or here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch.utils.data import DataLoader, Dataset

from fabrica.corpus.sample import Sampler
from fabrica.errors import FabricaError, UsageError, unknown
from fabrica.types import Batch, Record, Stage

DEFAULT_WHERE = "split = 'train'"


def derive(*parts: object) -> int:
    """A seed from parts, the same everywhere: 63 bits of their hash.

    >>> derive(0, "stage", 3) == derive(0, "stage", 3) != derive(0, "stage", 4)
    True
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@runtime_checkable
class Held(Protocol):
    """Data already in memory as tensors (`InMemory`): gives the batch itself."""

    def ids(self, where: str | None = None) -> Sequence[str]: ...

    def batch(self, ids: Sequence[str], epoch: int) -> Batch: ...

    def groups(self, by: str) -> Mapping[str, Sequence[str]]: ...


class Records:
    """A list of records as data to learn from: those whose split is "train" or not assigned."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._by_id = {r.id: r for r in records if r.split in (None, "train")}
        if not self._by_id:
            raise UsageError(f"none of {len(records)} records is in split 'train' or without one")

    def ids(self, where: str | None = None) -> list[str]:
        """All ids, in the order given; other filters than the default want a corpus."""
        only_default(where)
        return list(self._by_id)

    def take(self, ids: Sequence[str]) -> list[Record]:
        """The records of `ids`, in that order."""
        return [self._by_id[i] for i in ids]

    def groups(self, by: str) -> dict[str, list[str]]:
        """Ids by the value of a group."""
        found: dict[str, list[str]] = {}
        for record in self._by_id.values():
            found.setdefault(record.groups.get(by, ""), []).append(record.id)
        return found


def only_default(where: str | None) -> None:
    """Data in memory was chosen by who made it; an SQL filter would be ignored there, so it is refused."""
    if where not in (None, "", DEFAULT_WHERE):
        raise UsageError(f"records in memory take no filter {where!r}: filter them first, or train from a corpus")


def source(data: Any) -> Any:
    """A corpus, tensors in memory, or a list of records made into data with `ids` and `take` or `batch`."""
    if isinstance(data, Sequence) and all(isinstance(r, Record) for r in data):
        return Records(data)
    if not hasattr(data, "ids") or not (hasattr(data, "take") or hasattr(data, "batch")):
        raise UsageError(f"cannot train on {type(data).__name__}: wanted a Corpus, InMemory, or a list of records")
    return data


def sampler(data: Any, stage: Stage, seed: int) -> Sampler:
    """The order of a stage's records."""
    plan, order = stage.schedule, derive(seed, stage.name, "order")
    mix: dict[str, Any] = {"batch": plan.batch, "seed": order, "temperature": stage.mix_temperature}
    if hasattr(data, "groups"):
        only_default(stage.where)
        ids: Any = data.ids() if stage.mix_by is None else data.groups(stage.mix_by)
        return Sampler(ids, **mix)
    where = stage.where + _needs(stage)
    if not data.ids(where):
        raise UsageError(f"stage {stage.name!r}: no records where {where!r}; check the filter and the corpus")
    return Sampler.over(data, where, mix_by=stage.mix_by, **mix)


def _needs(stage: Stage) -> str:
    """SQL for records that have something of every field in `stage.needs`."""
    fields = getattr(stage.collate, "fields", {})
    for name in stage.needs:
        if name not in fields:
            raise unknown(f"field that stage {stage.name!r} needs", name, fields)
    tests = (" OR ".join(f"array_has(roles, '{role}')" for role in fields[name].roles) for name in stage.needs)
    return "".join(f" AND ({test})" for test in tests)


@dataclass(frozen=True, slots=True)
class _Failed:
    """An error that crossed from a worker: its words and codes, without the worker's stack."""

    message: str
    code: str
    exit_code: int


class Steps(Dataset[Any]):
    """step -> the batch of this process. The step is the collate's epoch: every visit draws anew."""

    def __init__(
        self, data: Any, collate: Callable[[Sequence[Record], int], Batch], order: Sampler, rank: int, world: int
    ) -> None:
        self.data, self.collate, self.order, self.rank, self.world = data, collate, order, rank, world

    def load(self, step: int) -> Batch:
        """The batch of a step."""
        ids = self.order.global_batch(step)
        if len(ids) % self.world:
            raise UsageError(
                f"a batch of {len(ids)} records does not divide over {self.world} processes: make the batch a multiple"
            )
        ids = ids[self.rank :: self.world]
        if hasattr(self.data, "batch"):
            batch: Batch = self.data.batch(ids, step)
        else:
            batch = self.collate(self.data.take(ids), step)
        return Batch(batch.ids, dict(batch.fields), dict(batch.targets), dict(batch.known), dict(batch.keys))

    def __getitem__(self, step: int) -> Batch | _Failed:
        try:
            return self.load(step)
        except FabricaError as error:  # to be raised in the parent: its own class may not survive pickling
            return _Failed(str(error), error.code, error.exit_code)


def batches(steps: Steps, start: int, stop: int, workers: int) -> Iterator[Batch]:
    """The batches of steps start ... stop - 1, in order, whatever the number of spawned workers."""
    if hasattr(steps.data, "batch") or isinstance(steps.data, Records):
        workers = 0  # already in this process's memory: sending it to others would cost more than it saves
    loader: Any = DataLoader(
        steps, batch_size=None, sampler=range(start, stop), num_workers=workers, collate_fn=_same,
        multiprocessing_context="spawn" if workers else None, prefetch_factor=2 if workers else None,
    )  # fmt: skip
    for batch in loader:
        if isinstance(batch, _Failed):
            error = FabricaError(batch.message)
            error.code, error.exit_code = batch.code, batch.exit_code
            raise error
        yield batch


def _same(batch: Any) -> Any:
    return batch
