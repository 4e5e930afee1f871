"""Small readers of pictures as instruments: one gives the features of a distance, another judges what is to be seen."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import Leak, UsageError

if TYPE_CHECKING:
    from fabrica.models.picture_reader import PictureReader

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reader:
    """A trained reader with its `name`, the `labels` it answers, and the `subjects` that it learned from."""

    name: str
    labels: tuple[str, ...]
    subjects: frozenset[str]
    model: PictureReader

    def scores(self, images: NDArray[Any]) -> F32:
        """(n, labels) probabilities of pictures (n, H, W)."""
        return self._run(images, "forward")

    def features(self, images: NDArray[Any]) -> F32:
        """(n, width) of pictures (n, H, W)."""
        return self._run(images, "features")

    def _run(self, images: NDArray[Any], what: str) -> F32:
        from fabrica.models.bundle import evaluating
        from fabrica.models.picture_reader import pixels

        made = []
        with evaluating(self.model):
            for start in range(0, len(images), 256):
                x = pixels(np.ascontiguousarray(images[start : start + 256]))
                found = self.model(x).sigmoid() if what == "forward" else self.model.features(x)
                made.append(found.numpy())
        return np.concatenate(made) if made else np.zeros((0, 0), np.float32)


def learn(
    images: NDArray[Any], truth: NDArray[np.float32], *, labels: Sequence[str], subjects: Sequence[str] = (),
    name: str = "reader", steps: int = 300, batch: int = 32, lr: float = 2e-3, seed: int = 0, device: str = "cpu",
) -> Reader:  # fmt: skip
    """A reader of pictures (n, H, W) uint8 or 0..1 and truths (n, labels), NaN = unknown, trained from nothing for
    `steps`, so that sets of different sizes get equal steps."""
    import torch

    from fabrica.models.picture_reader import PictureReader, pixels
    from fabrica.objectives.labels import Labels
    from fabrica.train import InMemory, fit
    from fabrica.types import Batch, Field, Schedule, Stage

    if truth.shape != (len(images), len(labels)):
        raise UsageError(f"truth {truth.shape} for {len(images)} pictures and {len(labels)} labels")
    torch.manual_seed(seed)
    values = pixels(images)
    model = PictureReader(len(labels), values.shape[2], values.shape[1])
    known = torch.from_numpy(~np.isnan(truth))
    told = torch.from_numpy(np.nan_to_num(truth))
    whole = Batch(
        tuple(map(str, range(len(images)))), {"image": Field(values[:, None], torch.ones(len(values), 1).bool())},
        {n: told[:, j] for j, n in enumerate(labels)}, {n: known[:, j] for j, n in enumerate(labels)},
    )  # fmt: skip
    plan = Schedule(steps, min(batch, len(images)), lr, warmup=min(20, steps // 4), weight_decay=0.01, final=0.05)
    stage = Stage("read", lambda records, epoch: whole, {"labels": Labels(tuple(labels))}, plan)
    with tempfile.TemporaryDirectory() as out:
        fit(model, [stage], InMemory(whole), out, seed=seed, device=device, save_every=0)
    return Reader(name, tuple(labels), frozenset(subjects), model.to("cpu").eval())


def apart(**groups: Sequence[str] | frozenset[str]) -> None:
    """An error where two of the named groups of subjects share one: who judges must not have learned from what it
    judges, nor the generator from the test.

    >>> apart(generator=["a"], judge=["b"], test=["c"])
    """
    names = list(groups)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            both = set(groups[one]) & set(groups[other])
            if both:
                raise Leak(f"{one} and {other} share {len(both)} subjects ({', '.join(sorted(both)[:3])})")
