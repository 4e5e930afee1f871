"""A scorer that is a logistic regression on an embedder's features: fitted here, saved as safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import Refused, UsageError
from fabrica.safe import write_whole
from fabrica.types import Absent, Embedder, Item, Record

Floats = NDArray[np.float64]


class LogisticScorer:
    """Record -> {label: probability} from the features of its first item in `roles`; {} where it has none.

    scorer = LogisticScorer.fit(records, ["histology"], embed=ColourTexture())
    scorer(record)      # {"histology": 0.93}
    """

    version = "1"

    def __init__(
        self, labels: Sequence[str], weights: Floats, *, embed: Embedder, roles: Sequence[str] = ("image",)
    ) -> None:  # fmt: skip
        """`weights` (labels, features + 1) float64, the last column the intercept."""
        if weights.ndim != 2 or len(weights) != len(labels) or not np.isfinite(weights).all():
            raise UsageError(
                f"weights of shape {weights.shape} for {len(labels)} labels; wanted (labels, features + 1)"
            )
        self.labels, self.weights, self.embed, self.roles = tuple(labels), weights, embed, tuple(roles)
        mark = hashlib.sha256(json.dumps([self.labels, self.roles]).encode() + weights.tobytes()).hexdigest()
        self.name = f"logistic:{embed.name}:{mark[:12]}"

    def __call__(self, record: Record, /) -> Mapping[str, float]:
        """Probabilities by label."""
        item = record.first(*self.roles)
        return {} if item is None else self.many([item])[0]

    def many(self, items: Sequence[Item]) -> list[dict[str, float]]:
        """The scores of many items with one call of the embedder."""
        features = self.embed(items).astype(np.float64)
        if features.shape[1] + 1 != self.weights.shape[1]:
            raise UsageError(
                f"{self.embed.name} gives {features.shape[1]} features; wanted {self.weights.shape[1] - 1}"
            )
        logits = features @ self.weights[:, :-1].T + self.weights[:, -1]
        chances = 0.5 * (1 + np.tanh(logits / 2))
        return [dict(zip(self.labels, row.tolist(), strict=True)) for row in chances]

    @classmethod
    def fit(
        cls, records: Iterable[Record], labels: Sequence[str], *, embed: Embedder, roles: Sequence[str] = ("image",),
        l2: float = 1.0,
    ) -> LogisticScorer:  # fmt: skip
        """Minimises the log loss summed over records plus l2 / 2 of the squared weights, one label at a time.

        A record without an item, or whose label is unknown, teaches nothing. `UsageError` where a label has one class.
        """
        items: list[Item] = []
        known: list[list[float]] = []
        for record in records:
            item = record.first(*roles)
            if item is not None:
                items.append(item)
                known.append([_known(record, label) for label in labels])
        if not items:
            raise UsageError(f"no record has an item in {', '.join(roles)}; nothing to fit")
        features = embed(items).astype(np.float64)  # (n, d)
        truth = np.array(known)  # (n, labels), NaN = unknown
        rows = [_fit_one(features, truth[:, n], l2, label) for n, label in enumerate(labels)]
        return cls(labels, np.stack(rows), embed=embed, roles=roles)

    def save(self, path: str | Path) -> None:
        """Weights and labels into one safetensors file."""
        from safetensors.numpy import save

        told = {"labels": json.dumps(self.labels), "roles": json.dumps(self.roles), "embed": self.embed.name}
        with write_whole(path) as out:
            out.write(save({"weights": self.weights}, metadata=told))

    @classmethod
    def load(cls, path: str | Path, *, embed: Embedder) -> LogisticScorer:
        """What `save` wrote; `Refused` where another embedder made its features."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "numpy") as file:
                told, weights = file.metadata() or {}, file.get_tensor("weights")
                labels, roles = json.loads(told["labels"]), json.loads(told["roles"])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise Refused("scorer_bad", f"{Path(path).name!r} is no saved scorer: {str(error)[:200]}") from error
        if told.get("embed") != embed.name:
            raise Refused("scorer_embedder", f"fitted on features of {told.get('embed')!r}, not of {embed.name!r}")
        return cls(labels, weights, embed=embed, roles=roles)


def _known(record: Record, label: str) -> float:
    value = record.labels.get(label)
    return float("nan") if value is None or isinstance(value, Absent) else float(value >= 0.5)


def _fit_one(features: Floats, truth: Floats, l2: float, label: str) -> Floats:
    from scipy.optimize import minimize

    rows = ~np.isnan(truth)
    x, signs = features[rows], np.where(truth[rows] > 0, 1.0, -1.0)
    if len(set(signs.tolist())) < 2:
        raise UsageError(f"label {label!r} has {int(rows.sum())} known values of one class; wanted both classes")

    def loss(w: Floats) -> tuple[float, Floats]:
        margin = signs * (x @ w[:-1] + w[-1])
        slope = -signs * 0.5 * (1 - np.tanh(margin / 2))
        grad: Any = np.append(x.T @ slope + l2 * w[:-1], slope.sum())
        return float(np.logaddexp(0, -margin).sum() + l2 / 2 * w[:-1] @ w[:-1]), grad

    found: Floats = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return found
