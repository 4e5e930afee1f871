"""Spans and relations by an averaged perceptron on hashed features: the CPU backend of the span graph net.

The same two steps and the same interface: every span of at most `width` words is one of the labels or none; every
ordered pair of spans is one of the relations or none. Collins 2002 (averaging); Weinberger et al. 2009 (hashing).
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.encode.spans import Window, gold, windows
from fabrica.errors import Refused, UsageError
from fabrica.models.span_decode import Entity, decoded, join, pairs_allowed
from fabrica.text.graph import RADGRAPH, Schema, TextGraph, lower

I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]
_LEFT, _RIGHT, _BETWEEN, _EDGE = 8, 6, 8, 8  # words looked at; empty places on each side of a sentence
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Perceptron:
    """`weights` (2^bits, classes) of hashed features; class 0 is none."""

    weights: F32

    def scores(self, features: I64) -> F32:
        """(n, F) feature numbers -> (n, classes)."""
        found: F32 = self.weights[features].sum(1)
        return found


class SpanPerceptron:
    """`fit` on graphs, then texts -> graphs; `save` and `load` one safetensors file.

    >>> from fabrica.text.graph import Span
    >>> text = "No effusion. Small mass."
    >>> graph = TextGraph(text, (Span(3, 11, "OBS-DA"), Span(19, 23, "OBS-DP")))
    >>> made = SpanPerceptron.fit([graph], epochs=20)([text])[0]
    >>> [(made.phrase(i), s.label) for i, s in enumerate(made.spans)]
    [('effusion', 'OBS-DA'), ('mass', 'OBS-DP')]
    """

    version = str(_FORMAT)

    def __init__(self, spans: Perceptron, pairs: Perceptron, *, schema: Schema = RADGRAPH, width: int = 5) -> None:
        wanted = len(schema.labels) + 1, len(schema.names) + 1
        if (spans.weights.shape[1], pairs.weights.shape[1]) != wanted:
            raise UsageError(f"weights for {spans.weights.shape[1]} and {pairs.weights.shape[1]} classes; not {wanted}")
        self.spans, self.pairs, self.schema, self.width = spans, pairs, schema, width
        mark = hashlib.sha256(spans.weights.tobytes() + pairs.weights.tobytes()).hexdigest()
        self.name = f"span-perceptron:{mark[:12]}"

    @classmethod
    def fit(
        cls, graphs: Sequence[TextGraph], *, schema: Schema = RADGRAPH, width: int = 5, epochs: int = 8, bits: int = 18,
        seed: int = 0,
    ) -> SpanPerceptron:  # fmt: skip
        """Learned from all windows of the graphs' texts. A gold span of more than `width` words is not learned."""
        if not graphs:
            raise UsageError("no graph to learn from")
        label = {n: i + 1 for i, n in enumerate(schema.labels)}
        kind = {n: i + 1 for i, n in enumerate(schema.names)}
        spans, pairs = [], []
        for graph in graphs:
            schema.check(graph)
            for window in windows(graph.text):
                known = gold(graph, window)
                view = _Words.of(graph.text, window)
                first, last = _enumerated(len(window.words), width)
                truth = {(p, q): label[n] for p, q, n in known.spans}
                want = np.array([truth.get(s, 0) for s in zip(first.tolist(), last.tolist(), strict=True)])
                spans.append((view.span_features(first, last, bits), want))
                entities = [Entity(p, q, label[n]) for p, q, n in known.spans]
                if len(entities) > 1:
                    heads, tails = _couples(len(entities))
                    said = {(h, t): kind[n] for h, t, n in known.relations}
                    want = np.array([said.get(s, 0) for s in zip(heads.tolist(), tails.tolist(), strict=True)])
                    pairs.append((view.pair_features(entities, heads, tails, bits), want))
        return cls(
            Perceptron(_learned(spans, len(schema.labels) + 1, epochs, bits, seed)),
            Perceptron(_learned(pairs, len(schema.names) + 1, epochs, bits, seed + 1)), schema=schema, width=width,
        )  # fmt: skip

    def __call__(self, texts: Sequence[str], /) -> list[TextGraph]:
        """The graph of each text, in order."""
        return [join(text, [self._window(text, w) for w in windows(text)], self.schema) for text in texts]

    def _window(self, text: str, window: Window) -> tuple[Window, list[Entity], list[tuple[int, int, int]]]:
        view, bits = _Words.of(text, window), self.bits
        first, last = _enumerated(len(window.words), self.width)
        entities = decoded(first, last, self.spans.scores(view.span_features(first, last, bits)))
        if len(entities) < 2:
            return window, entities, []
        heads, tails = _couples(len(entities))
        scores = self.pairs.scores(view.pair_features(entities, heads, tails, bits))
        return window, entities, pairs_allowed(entities, heads, tails, scores, self.schema)

    @property
    def bits(self) -> int:
        """log2 of the number of features."""
        return int(self.spans.weights.shape[0]).bit_length() - 1

    def save(self, path: str | Path) -> None:
        """Weights, schema and width into one safetensors file."""
        from safetensors.numpy import save

        from fabrica.safe import write_whole

        told = {"format": str(_FORMAT), "schema": json.dumps(self.schema.to_json()), "width": str(self.width)}
        with write_whole(Path(path)) as out:
            out.write(save({"spans": self.spans.weights, "pairs": self.pairs.weights}, metadata=told))

    @classmethod
    def load(cls, path: str | Path) -> SpanPerceptron:
        """What `save` wrote."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "numpy") as file:
                told = file.metadata() or {}
                spans, pairs = Perceptron(file.get_tensor("spans")), Perceptron(file.get_tensor("pairs"))
                schema, width = Schema.from_json(json.loads(told["schema"])), int(told["width"])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise Refused("extractor_bad", f"{Path(path).name!r} is no saved extractor: {str(error)[:200]}") from error
        return cls(spans, pairs, schema=schema, width=width)


def _enumerated(count: int, width: int) -> tuple[I64, I64]:
    """First and last word of every span of at most `width` of `count` words."""
    first, size = np.divmod(np.arange(count * width, dtype=np.int64), width)
    keep = first + size < count
    return first[keep], (first + size)[keep]


def _couples(count: int) -> tuple[I64, I64]:
    """All ordered pairs of different numbers below `count`: both directions."""
    heads, tails = np.divmod(np.arange(count * count, dtype=np.int64), count)
    return heads[heads != tails], tails[heads != tails]


def _learned(rows: Sequence[tuple[I64, I64]], classes: int, epochs: int, bits: int, seed: int) -> F32:
    """Averaged weights (2^bits, classes): each window is judged whole, then put right where it was wrong."""
    weights = np.zeros((1 << bits, classes), np.float32)
    late = np.zeros_like(weights)  # each change times the steps before it
    rng, step = np.random.default_rng(seed), 1
    for _ in range(epochs):
        for i in rng.permutation(len(rows)):
            features, want = rows[i]
            said = weights[features].sum(1).argmax(1)
            wrong = np.flatnonzero(said != want)
            if len(wrong):
                at, n = features[wrong], features.shape[1]
                for classes_of, sign in ((want[wrong], 1.0), (said[wrong], -1.0)):
                    where = at.ravel(), np.repeat(classes_of, n)
                    np.add.at(weights, where, sign)
                    np.add.at(late, where, sign * step)
            step += 1
    return np.asarray(weights - late / step, np.float32)


# ---------------------------------------------------------------- features


def _mix(*parts: Any) -> Any:
    """One 64-bit code of several (SplitMix64's finaliser between them); arrays broadcast."""
    x: Any = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        for part in parts:
            x = (x ^ np.asarray(part, np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(32))
    return x


class _Words:
    """The words of a window as numbers: whole, their ends, their shapes, with empty places on both sides."""

    def __init__(self, words: Sequence[str], shapes: Sequence[str]) -> None:
        self.count = len(words)
        self.whole, self.ends, self.shapes = (
            _padded(part) for part in (words, [w[-3:] for w in words], shapes)
        )  # fmt: skip
        marks = np.array([0, *(w in _ENDS for w in words)])
        self.clause = np.concatenate([np.zeros(_EDGE, np.int64), marks.cumsum()[:-1], np.full(_EDGE, marks.sum())])

    @classmethod
    def of(cls, text: str, window: Window) -> _Words:
        said = [text[a:b] for a, b in window.words]
        return cls([lower(w) for w in said], [_shape(w) for w in said])

    def span_features(self, first: I64, last: I64, bits: int) -> I64:
        """(n, F): the span's words, those before and after it, near ones by place and far ones as a bag."""
        a, b = first + _EDGE, last + _EDGE
        w, size = self.whole, last - first
        head, before, after = w[b], w[a - 1], w[b + 1]
        phrase = _mix(w[a], np.where(size > 0, w[a + 1], 0), head, size)
        made = [
            _mix(1, size), _mix(2, phrase), _mix(3, w[a], size), _mix(4, head, size), _mix(5, self.ends[b], size),
            _mix(6, self.shapes[a], size), _mix(7, before, size), _mix(8, after, size), _mix(9, before, after, size),
            _mix(10, w[a - 2], before, size), _mix(11, after, w[np.minimum(b + 2, len(w) - 1)], size),
            _mix(12, before, head), _mix(13, head, after), _mix(14, w[_EDGE], size),
        ]  # fmt: skip
        for k in range(1, _LEFT + 1):
            at = np.maximum(a - k, 0)
            same = self.clause[at] == self.clause[a]
            made += [_mix(20, w[at], same, size > 0), _mix(21, w[at], w[np.maximum(at - 1, 0)], same)]
        for k in range(1, _RIGHT + 1):
            at = np.minimum(b + k, len(w) - 1)
            same = self.clause[at] == self.clause[b]
            made += [_mix(22, w[at], same, size > 0), _mix(23, w[at], w[np.minimum(at + 1, len(w) - 1)], same)]
        return _numbers(made, bits)

    def pair_features(self, entities: Sequence[Entity], heads: I64, tails: I64, bits: int) -> I64:
        """(n, F): labels and order, words between and around, entities between, whether head or tail has others."""
        start = np.array([e.first for e in entities]) + _EDGE
        stop = np.array([e.last for e in entities]) + _EDGE
        label = np.array([e.label for e in entities])
        h, t, w = heads, tails, self.whole
        forward = start[h] < start[t]
        left, right = np.where(forward, h, t), np.where(forward, t, h)
        kind = _mix(label[h], label[t], forward)
        gap = start[right] - stop[left] - 1
        inside = right - left - 1  # entities stand in order
        same = self.clause[start[left]] == self.clause[start[right]]
        far, bucket = np.minimum(gap, 10), np.minimum(inside, 4)
        made = [
            _mix(1, kind), _mix(2, kind, far), _mix(3, kind, bucket, same), _mix(4, kind, w[stop[h]]),
            _mix(5, kind, w[stop[t]]), _mix(6, w[stop[h]], w[stop[t]], forward), _mix(7, kind, self._last(label, left)),
            _mix(8, kind, w[stop[left] + 1], bucket), _mix(9, kind, w[start[right] - 1], bucket),
            _mix(10, kind, w[start[left] - 1]), _mix(11, kind, w[np.minimum(stop[right] + 1, len(w) - 1)]),
            _mix(12, kind, self._chain(label, left, right)), _mix(13, kind, self._chain(label, left, right), gap == 0),
            _mix(14, kind, self._joints(start, stop, left, right)), _mix(15, self.ends[stop[h]], kind, bucket),
            _mix(16, kind, self._next(label, right), bucket),
        ]  # fmt: skip
        for k in range(_BETWEEN):
            at = np.minimum(stop[left] + 1 + k, len(w) - 1)
            made.append(np.where(k < gap, _mix(20, kind, w[at]), _mix(21, 0)))
        return _numbers(made, bits)

    def _last(self, label: I64, at: I64) -> I64:
        """The label of the entity before each, 0 at the beginning."""
        return np.asarray(np.concatenate([[0], label])[at])

    def _next(self, label: I64, at: I64) -> I64:
        """The label of the entity after each, 0 at the end."""
        return np.asarray(np.concatenate([label, [0]])[at + 1])

    def _chain(self, label: I64, left: I64, right: I64) -> U64:
        """The labels of the entities between two, in order."""
        n = len(label)
        code = np.zeros((n, n), np.uint64)
        for i in range(n):
            x = np.uint64(1)
            for j in range(i + 1, n):
                code[i, j] = x
                x = _mix(x, label[j])
        return np.asarray(code[left, right])

    def _joints(self, start: I64, stop: I64, left: I64, right: I64) -> U64:
        """The words between two, those of entities left out: "in the" whatever stands there."""
        n = len(start)
        code = np.zeros((n, n), np.uint64)
        for i in range(n):
            x = np.uint64(1)
            for j in range(i + 1, n):
                for k in range(stop[j - 1] + 1, start[j]):
                    x = _mix(x, self.whole[k])
                code[i, j] = x
                x = _mix(x, 3)
        return np.asarray(code[left, right])


_ENDS = frozenset((";", ":", "but", "however", "although", "though"))


def _padded(words: Sequence[str]) -> U64:
    codes = [zlib.crc32(w.encode("utf-8", "surrogatepass")) for w in words]
    return np.array([*range(1, _EDGE + 1), *codes, *range(11, 11 + _EDGE)], np.uint64)


def _shape(word: str) -> str:
    return ("A" if word[:1].isupper() else "a" if word[:1].islower() else "0" if word[:1].isdigit() else word[:1]) + (
        "x" if len(word) > 1 else ""
    )


def _numbers(made: Sequence[Any], bits: int) -> I64:
    """(n, F) numbers below 2^bits."""
    return np.asarray(np.stack([np.asarray(m, np.uint64) for m in made], 1) >> np.uint64(64 - bits), np.int64)
