"""The tasks: each a small dataclass that turns parts of a corpus and a model into rows, one a record and arm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError
from fabrica.evaluate import probes, retrieval
from fabrica.evaluate.features import PICTURE, Part, Reader, Strings, Want, unit
from fabrica.evaluate.zero_shot import Prompts, class_probabilities, label_probabilities

TEST, TRAIN = "split = 'test'", "split = 'train'"
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rows:
    """The answers of one task, n rows: who, which arm, whether it worked, and the columns that `metrics` read.

    `status` "ok" or the name of the failure ("absent", "no_truth", "no_relevant", "no_picture"): a row that is not ok
    is counted on the card and enters no metric. The first of `metrics` is the one that groups are compared by.
    """

    task: str
    version: str
    metrics: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]  # id, subject, group, data, arm, status and what the metrics read
    classes: tuple[str, ...] = ()
    prompt_version: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A part of a task that could not be scored, and why; the rest of the task goes on."""

    task: str
    why: str


class Task(Protocol):
    """Something to judge a model by. `where` is the part judged; `fitted_on` the part that probes learn from, or ""."""

    name: str
    version: str
    where: str
    fitted_on: str

    def wants(self) -> Mapping[str, Sequence[Want]]:
        """By `where`: what has to be computed of it."""
        ...

    def rows(self, reader: Reader, /, *, seed: int) -> Iterator[Rows | Skipped]: ...


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """Classes from prompts. `exclusive`: one class a record (softmax, accuracy); else a finding each (AUC).

    `group` splits the card and chooses frames (`Prompts.by_group`). Beside the model: the training prevalence.
    """

    name: str
    labels: Sequence[str]
    prompts: Prompts
    where: str = TEST
    train: str = TRAIN  # for the prevalence alone
    exclusive: bool = True
    group: str = "modality"
    image: str = "image"
    text: str = "text"
    scale: float | None = None  # of the cosines; None = the model's own
    version: str = "zero_shot-1"
    fitted_on: str = field(default="", init=False)

    def wants(self) -> Mapping[str, Sequence[Want]]:
        """Image embeddings of the part judged; labels alone of the training part."""
        return {self.where: [(self.image, "embedding")], self.train: []}

    def rows(self, reader: Reader, /, *, seed: int) -> Iterator[Rows]:
        """One table: the model (and every further arm), prevalence."""
        part = reader.part(self.where, self.wants()[self.where])
        truth = _truth(part, self.labels, self.exclusive, self.name)
        arms = {arm: self._answers(reader, part, arm) for arm in reader.bundles}
        table = _Table(part, part.group(self.group), truth)
        for arm, scores in arms.items():
            table.add(arm, scores, part.present[arm, self.image])
        table.add("prevalence", _prevalence(reader, self.train, self.labels, self.exclusive, len(part)), True)
        metrics = _metrics(self.labels, self.exclusive)
        yield Rows(
            self.name, self.version, metrics, table.columns(), tuple(self.labels), self.prompts.tag,
            _undefined(truth, self.labels),
        )  # fmt: skip

    def _answers(self, reader: Reader, part: Part, arm: str) -> Floats:
        ask = class_probabilities if self.exclusive else label_probabilities
        scale = self.scale if self.scale is not None else logit_scale(reader.bundles[arm])
        groups, vectors = part.group(self.group), part.vectors[arm, (self.image, "embedding")]
        out = np.zeros((len(part), len(self.labels)))
        for group in np.unique(groups):
            here = groups == group
            out[here] = ask(
                vectors[here], lambda texts: reader.texts(texts, self.text, arm), self.prompts, self.labels,
                group=str(group), scale=scale,
            )  # fmt: skip
        return out


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Find the candidate field from the query field, and back (`both`). What counts as found, `relevance`:

    "record" the same record; "text" a text that reads the same; "subject" the same subject; or a label list's class
    (`labels`). `exclude` "record" or "subject" keeps a query from meeting itself or its own patient. `per` ranks
    within one value of a group (say "modality") instead of among all. Beside the model: an order drawn at random.
    """

    name: str
    query: str = "image"
    candidate: str = "text"
    where: str = TEST
    relevance: str = "record"
    labels: Sequence[str] = ()
    exclude: str = ""
    both: bool = True
    per: str = "data"
    group: str = "modality"
    ks: Sequence[int] = (1, 5, 10)
    version: str = "retrieval-1"
    fitted_on: str = field(default="", init=False)

    def wants(self) -> Mapping[str, Sequence[Want]]:
        """Embeddings of both fields."""
        return {self.where: [(self.query, "embedding"), (self.candidate, "embedding")]}

    def rows(self, reader: Reader, /, *, seed: int) -> Iterator[Rows]:
        """One table a direction: the model (and every further arm), chance."""
        part = reader.part(self.where, self.wants()[self.where])
        directions = [(self.query, self.candidate)]
        if self.both and self.query != self.candidate:
            directions.append((self.candidate, self.query))
        for a, b in directions:
            yield self._direction(reader, part, a, b, seed)

    def _direction(self, reader: Reader, part: Part, a: str, b: str, seed: int) -> Rows:
        many = self.relevance not in ("record",)
        hits = tuple(self.ks) if many else ()
        columns: dict[str, list[NDArray[Any]]] = {}
        for number, arm in enumerate((*reader.bundles, "chance")):
            source = arm if arm in reader.bundles else "model"
            found = self._arm(part, source, a, b, hits)
            status = np.where(~part.present[source, a], "absent", np.where(found.rank > 0, "ok", "no_relevant"))
            if arm == "chance":
                found = retrieval.chance(found.relevant, found.candidates, hits=hits, seed=seed + number)
            values = {"rank": found.rank, "relevant": found.relevant, "candidates": found.candidates}
            values |= {f"hits_{k}": column for k, column in found.hits.items()}
            _extend(columns, _who(part, part.group(self.group), arm, status) | values)
        metrics = (f"R@{self.ks[-1]}", *(f"R@{k}" for k in self.ks[:-1]), "MRR", *(f"P@{k}" for k in hits))
        joined = {k: np.concatenate(v) for k, v in columns.items()}
        met = joined["candidates"][joined["status"] == "ok"]
        note = ""
        if len(met):
            many_of = f"{met.min()}" if met.min() == met.max() else f"{met.min()} to {met.max()}"
            typical = int(np.median(joined["relevant"][joined["status"] == "ok"]))
            note = f"among {many_of} candidates, relevant: same {self.relevance} (median {typical})"
        return Rows(f"{self.name}: {a} to {b}", self.version, metrics, joined, note=note)

    def _arm(self, part: Part, arm: str, a: str, b: str, hits: tuple[int, ...]) -> retrieval.Found:
        total = retrieval.Found.nothing(len(part), hits)
        keys, out = self._keys(part), self._keys_of(part, self.exclude) if self.exclude else None
        pools = part.data if self.per == "data" else part.group(self.per)
        for pool in np.unique(pools):
            q = np.flatnonzero((pools == pool) & part.present[arm, a])
            c = np.flatnonzero((pools == pool) & part.present[arm, b])
            if not len(q) or not len(c):
                continue
            found = retrieval.search(
                part.vectors[arm, (a, "embedding")][q], part.vectors[arm, (b, "embedding")][c],
                retrieval.Relevance.by_key(keys[q], keys[c]), hits=hits,
                exclude=None if out is None else retrieval.Relevance.by_key(out[q], out[c]),
            )  # fmt: skip
            for name in ("rank", "relevant", "candidates"):
                getattr(total, name)[q] = getattr(found, name)
            for k in hits:
                total.hits[k][q] = found.hits[k]
        return total

    def _keys(self, part: Part) -> Strings:
        if self.relevance == "text":
            for name in (self.candidate, self.query):
                if part.texts[name].any():
                    return part.texts[name]
            raise UsageError(f"retrieval {self.name!r}: neither {self.candidate!r} nor {self.query!r} holds text")
        if self.relevance == "labels":
            numbers = part.classes(self.labels)
            return np.where(np.isnan(numbers), "", np.nan_to_num(numbers).astype(np.int64).astype(str))
        return self._keys_of(part, self.relevance)

    def _keys_of(self, part: Part, what: str) -> Strings:
        if what in ("record", "subject"):
            return part.ids if what == "record" else part.subjects
        raise UsageError(f"retrieval {self.name!r}: {what!r} is none of record, subject, text, labels")


@dataclass(frozen=True, slots=True)
class KNN:
    """Labels from the k nearest training records by cosine of the embedded `image` field. Beside it: prevalence."""

    name: str
    labels: Sequence[str]
    where: str = TEST
    fitted_on: str = TRAIN
    exclusive: bool = True
    k: int = 20
    group: str = "modality"
    image: str = "image"
    reads: Literal["embedding", "features"] = "embedding"
    version: str = "knn-1"

    def wants(self) -> Mapping[str, Sequence[Want]]:
        """The same rows of both parts."""
        return {where: [(self.image, self.reads)] for where in (self.where, self.fitted_on)}

    def rows(self, reader: Reader, /, *, seed: int) -> Iterator[Rows]:
        """One table: the model (and every further arm), prevalence."""
        part, train = (reader.part(w, self.wants()[w]) for w in (self.where, self.fitted_on))
        truth, known = (_truth(p, self.labels, self.exclusive, self.name) for p in (part, train))
        table = _Table(part, part.group(self.group), truth)
        for arm in reader.bundles:
            use = train.present[arm, self.image] & _labelled(known)
            key = (arm, (self.image, self.reads))
            scores = probes.knn(
                unit(train.vectors[key][use]), known[use], unit(part.vectors[key]), classes=len(self.labels), k=self.k
            )
            table.add(arm, scores, part.present[arm, self.image])
        table.add("prevalence", probes.prevalence(known, len(part), len(self.labels)), True)
        note = f"k = {self.k}, {int(_labelled(known).sum())} training records" + _and(_undefined(truth, self.labels))
        metrics = _metrics(self.labels, self.exclusive)
        yield Rows(self.name, self.version, metrics, table.columns(), tuple(self.labels), note=note)


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A logistic regression on frozen features at fractions of the training labels; every arm sees the same rows.

    Beside the model: prevalence, the same regression on 32 x 32 pixels, on random features, and (`border`) on the
    outermost pixels alone.
    """

    name: str
    labels: Sequence[str]
    where: str = TEST
    fitted_on: str = TRAIN
    fractions: Sequence[float] = (0.01, 0.1, 1.0)
    exclusive: bool = True
    border: bool = True
    group: str = "modality"
    image: str = "image"
    reads: Literal["embedding", "features"] = "features"
    version: str = "linear_probe-1"

    def wants(self) -> Mapping[str, Sequence[Want]]:
        """The same rows of both parts, and pictures for the controls."""
        return {where: [(self.image, self.reads), PICTURE] for where in (self.where, self.fitted_on)}

    def rows(self, reader: Reader, /, *, seed: int) -> Iterator[Rows | Skipped]:
        """One table a fraction; a fraction that leaves a class without a positive is skipped, with the reason."""
        part, train = (reader.part(w, self.wants()[w]) for w in (self.where, self.fitted_on))
        truth, known = (_truth(p, self.labels, self.exclusive, self.name) for p in (part, train))
        key = (self.image, self.reads)
        inputs = {arm: (train.vectors[arm, key], part.vectors[arm, key]) for arm in reader.bundles}
        seen = {arm: (train.present[arm, self.image], part.present[arm, self.image]) for arm in reader.bundles}
        for control, make in probes.CONTROLS.items():
            if self.border or control != "border only":
                inputs[control] = (make(train.pictures), make(part.pictures))
                seen[control] = (train.pictured, part.pictured)
        for fraction in self.fractions:
            name = f"{self.name} at {100 * fraction:g} % of the labels"
            try:
                taken = self._taken(train, known, fraction, seed)
            except UsageError as error:
                yield Skipped(name, str(error))
                continue
            yield self._fraction(name, part, train, truth, known, inputs, seen, taken, seed)

    def _taken(self, train: Part, known: Floats, fraction: float, seed: int) -> NDArray[np.int64]:
        usable = np.flatnonzero(train.present["model", self.image])
        if not len(usable):
            raise UsageError(f"linear probe {self.name!r}: no training record of {self.fitted_on!r} could be embedded")
        return usable[probes.label_fraction(known[usable], fraction, seed=seed, names=self.labels)]

    def _fraction(
        self, name: str, part: Part, train: Part, truth: Floats, known: Floats,
        inputs: Mapping[str, tuple[Any, Any]], seen: Mapping[str, tuple[Any, Any]], taken: NDArray[np.int64], seed: int,
    ) -> Rows:  # fmt: skip
        table = _Table(part, part.group(self.group), truth)
        for arm, (features, asked) in inputs.items():
            fit = taken[seen[arm][0][taken]]
            if not len(fit) or not seen[arm][1].any():
                continue
            scores = probes.linear_probe(
                features[fit], known[fit], asked, classes=len(self.labels), subjects=train.subjects[fit], seed=seed
            )
            table.add(arm, scores, seen[arm][1])
        table.add("prevalence", probes.prevalence(known[taken], len(part), len(self.labels)), True)
        note = f"{len(taken)} training records" + _and(_undefined(truth, self.labels))
        metrics = _metrics(self.labels, self.exclusive)
        return Rows(name, self.version, metrics, table.columns(), tuple(self.labels), note=note)


# ---------------------------------------------------------------- what the tasks share


class _Table:
    """Classification rows of several arms over one part."""

    def __init__(self, part: Part, group: Strings, truth: Floats) -> None:
        self.part, self.group, self.truth = part, group, truth
        self._columns: dict[str, list[NDArray[Any]]] = {}

    def add(self, arm: str, scores: Floats, present: NDArray[np.bool_] | bool) -> None:
        """The arm's (n, L) probabilities; rows that were not present or have no truth are named as such."""
        here = np.broadcast_to(np.asarray(present), (len(self.part),))
        status = np.where(~here, "absent", np.where(_labelled(self.truth), "ok", "no_truth"))
        columns = _who(self.part, self.group, arm, status) | {"truth": self.truth, "scores": scores}
        if self.truth.ndim == 1:
            columns["answer"] = scores.argmax(1).astype(np.float64)
        _extend(self._columns, columns)

    def columns(self) -> dict[str, NDArray[Any]]:
        return {name: np.concatenate(parts) for name, parts in self._columns.items()}


def _who(part: Part, group: Strings, arm: str, status: NDArray[Any]) -> dict[str, NDArray[Any]]:
    arms = np.full(len(part), arm)
    return {"id": part.ids, "subject": part.subjects, "group": group, "data": part.data, "arm": arms, "status": status}


def _extend(columns: dict[str, list[NDArray[Any]]], more: Mapping[str, NDArray[Any]]) -> None:
    for name, values in more.items():
        columns.setdefault(name, []).append(values)


def _labelled(truth: Floats) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = ~np.isnan(truth)
    return known if truth.ndim == 1 else np.asarray(known.any(1))


def _truth(part: Part, labels: Sequence[str], exclusive: bool, task: str) -> Floats:
    if len(set(labels)) != len(labels) or not labels:
        raise UsageError(f"task {task!r}: labels {list(labels)}; wanted at least one, each once")
    truth = part.classes(labels) if exclusive else part.truth(labels)
    if not _labelled(truth).any():
        raise UsageError(
            f"task {task!r}: no record of {part.where!r} has a known label of {list(labels)}; "
            f"the labels there are {sorted(part.labels) or 'none'}"
        )
    return truth


def _prevalence(reader: Reader, where: str, labels: Sequence[str], exclusive: bool, rows: int) -> Floats:
    try:
        train = reader.part(where, ())
    except UsageError:  # nothing to learn a prevalence from: all classes alike
        return np.full((rows, len(labels)), 1 / len(labels))
    truth = train.classes(labels) if exclusive else train.truth(labels)
    return probes.prevalence(truth, rows, len(labels))


def _metrics(labels: Sequence[str], exclusive: bool) -> tuple[str, ...]:
    if exclusive and len(labels) == 2:  # the usual number of binary sets
        return ("macro AUC", "accuracy", "balanced accuracy", "ECE", "Brier")
    if exclusive:
        return ("accuracy", "balanced accuracy", "macro AUC", "ECE", "Brier")
    return ("AUC" if len(labels) == 1 else "macro AUC", "ECE", "Brier")


def _undefined(truth: Floats, labels: Sequence[str]) -> str:
    from fabrica.evaluate.metrics import undefined_labels

    out = [labels[j] for j in undefined_labels(truth, len(labels))]
    return f"no AUC for {', '.join(out)}: one side has no record" if out else ""


def _and(text: str) -> str:
    return f"; {text}" if text else ""


def logit_scale(bundle: object) -> float:
    """The model's own scale of cosines; 100 (CLIP's cap) where it has none."""
    scale = getattr(getattr(bundle, "model", None), "logit_scale", None)
    return float(scale().detach()) if callable(scale) else 100.0
