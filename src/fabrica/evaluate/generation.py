"""What generated images are worth: near real ones, true to the prompt, varied, not copied, of use to a classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import Refused, UsageError, need
from fabrica.evaluate.bootstrap import Interval, interval
from fabrica.evaluate.metrics import Value, Weights, auc, macro_auc

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
ENOUGH = 2048  # images: below, FID is biased upward and is called so (Heusel et al. 2017; Binkowski et al. 2018)


@dataclass(frozen=True, slots=True)
class Distance:
    """`fid` and `kid` of `n` images a side in the features (`width`) of `extractor`; `label` is "low n" where n is
    below 2,048 or not above the width: then `kid` (unbiased) is the one to compare. `note` says what else holds."""

    fid: float
    kid: float
    n: int
    width: int
    extractor: str
    label: Literal["", "low n"] = ""
    note: str = ""

    def __str__(self) -> str:
        tail = f", {self.label}" * bool(self.label) + f"; {self.note}" * bool(self.note)
        return f"FID {self.fid:.3g}, KID {self.kid:.3g} (n = {self.n} a side, {self.extractor}{tail})"


def fid(
    real: F32, made: F32, *, extractor: str, judge: str = "", ids: tuple[Sequence[str], Sequence[str]] | None = None
) -> Distance:
    """Frechet distance of two sets of features (n, d), and KID beside it. Order counts for nothing.

    `judge` is the name of what judges correctness: where it is the extractor, the note says so. `ids` are those of both
    sides when they must be matched. Errors: `UsageError` for different n (nothing is cut to the smaller set) or ids.
    """
    need("monai", "dense")
    import torch
    from monai.metrics.fid import FIDMetric

    if real.ndim != 2 or made.shape != real.shape:
        raise UsageError(f"features {real.shape} and {made.shape}; wanted (n, d) with the same n on both sides")
    if ids is not None and sorted(ids[0]) != sorted(ids[1]):
        odd = sorted(set(ids[0]) ^ set(ids[1]))
        raise UsageError(f"matched sets have other ids: {len(odd)} are on one side alone ({', '.join(odd[:3])})")
    n, width = real.shape
    if n < 2:
        raise UsageError(f"{n} images a side; a covariance needs at least 2")
    a, b = (torch.from_numpy(x[np.lexsort(x.T)].astype(np.float64)) for x in (real, made))
    value = float(FIDMetric()(b, a))
    label: Literal["", "low n"] = "low n" if n < ENOUGH or n <= width else ""
    note = "the extractor is also the judge of correctness" if extractor == judge else ""
    return Distance(max(0.0, value), kid(real, made), n, width, extractor, label, note)


def kid(real: F32, made: F32) -> float:
    """Unbiased squared MMD under the kernel (x . y / d + 1)^3 (Binkowski et al., arXiv 1801.01401); may be below 0.

    >>> same = np.eye(4, dtype=np.float32)
    >>> kid(same, same) < 0
    True
    """
    x, y = real.astype(np.float64), made.astype(np.float64)
    n, d = x.shape

    def kernel(a: F64, b: F64) -> F64:
        return np.asarray((a @ b.T / d + 1) ** 3)

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (n * (n - 1))
    return float(within - 2 * xy.mean())


# ---------------------------------------------------------------- variety


def ms_ssim_within_prompt(
    images: NDArray[Any], prompts: Sequence[str], *, scales: int = 0, pairs: int = 64, seed: int = 0
) -> float:
    """Mean MS-SSIM (MONAI) of pairs of images (n, H, W) of the SAME prompt, the mean over prompts: 1 = all alike.

    At most `pairs` pairs a prompt. `scales` 0 takes as many of the five as a kernel of 7 pixels lets the image have.
    Errors: `UsageError` where no prompt has two images.
    """
    need("monai", "dense")
    import torch
    from monai.metrics.regression import MultiScaleSSIMMetric

    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
    side = min(images.shape[1:3])
    scales = scales or max(k for k in range(1, 6) if side // max(1, k - 1) ** 2 > 6)
    weights = weights[:scales] / weights[:scales].sum()
    measure = MultiScaleSSIMMetric(2, kernel_size=7, weights=tuple(weights.tolist()))
    held = images.astype(np.float32) / (255 if images.dtype == np.uint8 else 1)
    held = held.mean(-1) if held.ndim == 4 else held
    found, rng = [], np.random.default_rng(seed)
    names = np.asarray(prompts)
    for name in sorted(set(prompts)):
        at = np.flatnonzero(names == name)
        all_pairs = [(i, j) for k, i in enumerate(at) for j in at[k + 1 :]]
        if not all_pairs:
            continue
        keep = rng.permutation(len(all_pairs))[:pairs]
        one, two = (
            torch.from_numpy(np.stack([held[all_pairs[k][s]] for k in keep])[:, None]) for s in (0, 1)
        )  # fmt: skip
        found.append(float(torch.as_tensor(measure(one, two)).mean()))
    if not found:
        raise UsageError("no prompt has two images; variety is of images of one prompt")
    return float(np.mean(found))


# ---------------------------------------------------------------- truth to the prompt


@dataclass(frozen=True, slots=True)
class Prompted:
    """How well a judge reads the prompts' findings from the images: macro AUROC with its interval, and by finding."""

    auroc: Interval
    by_label: Mapping[str, float]


def prompt_auroc(scores: F32, truth: NDArray[Any], labels: Sequence[str], *, count: int = 500) -> Prompted:
    """`scores` (n, L) of a frozen judge on generated images, `truth` (n, L) what their prompts say (NaN = nothing)."""
    if scores.shape != truth.shape or scores.shape[1] != len(labels):
        raise UsageError(f"scores {scores.shape}, truth {truth.shape}, {len(labels)} labels; wanted them alike")
    columns = {"truth": truth.astype(np.float64), "score": scores.astype(np.float64)}
    whole = interval(_macro, columns, np.arange(len(scores)).astype(str), count=count)
    each = {}
    for j, name in enumerate(labels):
        known = ~np.isnan(columns["truth"][:, j])
        each[name] = float(auc(columns["truth"][known, j], columns["score"][known, j]))
    return Prompted(whole, each)


def _macro(columns: Mapping[str, NDArray[Any]], weights: Weights) -> Value:
    return macro_auc(columns["truth"], columns["score"], weights)


# ---------------------------------------------------------------- use

Fit = Callable[[NDArray[Any], NDArray[np.float32], int], Callable[[NDArray[Any]], F32]]
Set = tuple[NDArray[Any], NDArray[np.float32]]


def utility(fit: Fit, real: Set, made: Set, test: Set, *, seeds: Sequence[int] = (0, 1, 2)) -> dict[str, float]:
    """Macro AUROC on real test images of a classifier of `real`, of `real + synthetic`, of `synthetic` alone: mean of
    `seeds`, with the same `fit(images, truth, seed)` (and so the same steps) for each."""
    both = tuple(np.concatenate([a, b]) for a, b in zip(real, made, strict=True))
    arms = {"real": real, "real + synthetic": both, "synthetic": made}
    truth = test[1].astype(np.float64)
    found = {}
    for name, (images, told) in arms.items():
        scores = [fit(images, told, seed)(test[0]).astype(np.float64) for seed in seeds]
        found[name] = float(np.mean([float(macro_auc(truth, s)) for s in scores]))
    return found


# ---------------------------------------------------------------- memory


@dataclass(frozen=True, slots=True)
class Memory:
    """Nearest training image in features: `ratio` of the median distance of generated images to that of held-out real
    ones, with its 95 % interval; below 1 the generator is nearer to its training set than new patients are.
    `duplicates`: generated images nearer than `threshold`."""

    ratio: float
    low: float
    high: float
    duplicates: int
    threshold: float
    n: int
    held: int

    def release(self) -> None:
        """`Refused("memorised")` where any generated image is a near copy of a training image."""
        if self.duplicates:
            raise Refused(
                "memorised", f"{self.duplicates} of {self.n} generated images are nearer than {self.threshold:.3g} to "
                "a training image; do not release them or the model",
            )  # fmt: skip


def memorisation(made: F32, train: F32, held: F32, *, share: float = 0.1, count: int = 1000, seed: int = 0) -> Memory:
    """Distances in features (n, d) to the nearest training image. A duplicate is nearer than `share` of the median
    distance of held-out real images."""
    near, far = nearest(made, train), nearest(held, train)
    middle = float(np.median(far))
    if middle <= 0:
        raise UsageError("half of the held-out images are in the training set: nothing can be compared with them")
    rng = np.random.default_rng(seed)
    drawn = [
        np.median(rng.choice(near, len(near))) / max(float(np.median(rng.choice(far, len(far)))), 1e-12)
        for _ in range(count)
    ]  # fmt: skip
    low, high = np.quantile(drawn, [0.025, 0.975])
    close = share * middle
    return Memory(
        float(np.median(near)) / middle, float(low), float(high), int((near < close).sum()), close, len(near), len(far)
    )


def nearest(rows: F32, others: F32) -> F64:
    """Euclidean distance (n,) of each row to the nearest of `others` (m, d)."""
    a, b = rows.astype(np.float64), others.astype(np.float64)
    square = (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)
    return np.asarray(np.sqrt(np.maximum(square, 0).min(1)))
