"""Judging masks: Dice, HD95 and surface Dice in mm by class (MONAI), then by subject; empties have their own words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.encode.masks import MaskTarget
from fabrica.errors import UsageError
from fabrica.evaluate.metrics import Columns, Value, Weights
from fabrica.types import Record

Labels = NDArray[np.integer[Any]]
Answer = Callable[[Record], Labels | None]


@dataclass(frozen=True, slots=True)
class Scores:
    """One class of one volume. `status`: "ok", "both_empty" (Dice 1, distance 0), "one_empty" (Dice 0, distance
    infinite: a rate to report, never dropped), "absent" (no answer: a failed sample, not a score; NaN)."""

    dice: float
    hd95: float  # mm
    surface: float  # share of both surfaces within the tolerance
    status: str


def judged(
    answer: Labels | None, truth: Labels, classes: int, *, mm: Sequence[float] | None = None, tolerance: float = 2.0
) -> list[Scores]:
    """Scores of classes 1 .. `classes` - 1 of label maps (*S); `mm` a voxel, `tolerance` of surface Dice in mm.

    Dice (Dice 1945), 95th percentile of both directed surface distances, surface Dice (Nikolov et al. 2018).

    >>> truth = np.zeros((8, 8), int); truth[2:6, 2:6] = 1
    >>> [(s.dice, s.hd95, s.status) for s in judged(truth, truth, 3)]
    [(1.0, 0.0, 'ok'), (1.0, 0.0, 'both_empty')]
    """
    spacing = tuple(mm or (1.0,) * truth.ndim)
    if len(spacing) != truth.ndim or (answer is not None and answer.shape != truth.shape):
        shape = None if answer is None else answer.shape
        raise UsageError(f"an answer {shape} for a truth {truth.shape} with spacing {spacing}; wanted one grid")
    if answer is None:
        return [Scores(float("nan"), float("nan"), float("nan"), "absent")] * (classes - 1)
    return [_one(answer == c, truth == c, spacing, tolerance) for c in range(1, classes)]


def _one(found: NDArray[np.bool_], real: NDArray[np.bool_], mm: Sequence[float], tolerance: float) -> Scores:
    if not found.any() and not real.any():
        return Scores(1.0, 0.0, 1.0, "both_empty")
    if not found.any() or not real.any():
        return Scores(0.0, float("inf"), 0.0, "one_empty")
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.meandice import compute_dice
    from monai.metrics.surface_dice import compute_surface_dice

    a, b = (torch.from_numpy(m[None, None].astype(np.float32)) for m in _cropped(found, real))
    far: dict[str, Any] = {"include_background": True, "spacing": list(mm)}
    dice = float(compute_dice(a, b, include_background=True))
    hd = float(compute_hausdorff_distance(a, b, percentile=95, **far))
    near = float(compute_surface_dice(a, b, class_thresholds=[tolerance], **far))
    return Scores(dice, hd, near, "ok")


def _cropped(*masks: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The masks within their joint box, one voxel wider: distances stay the same, and take less time."""
    where = np.argwhere(np.logical_or.reduce(masks))
    low, high = where.min(0), where.max(0) + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return [np.pad(m[box], 1) for m in masks]


def table(
    records: Iterable[Record], answer: Answer, target: MaskTarget, *, roles: Sequence[str] = ("image",),
    volume: str = "", order: str = "", mm: Callable[[Record], Sequence[float]] | None = None, tolerance: float = 2.0,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """One row a volume and class: "id", "subject", "class", "dice", "hd95", "surface", "status".

    `answer` gives a record's label map on its own grid. Records that share the group `volume` are slices of one volume,
    stacked in the order of the number in group `order`, and judged as one. Records without a known mask are left out.
    `mm` gives the voxel's sides (of the volume: slice distance last). For intervals: `evaluate.bootstrap` by "subject".
    """
    stacks: dict[str, list[Record]] = {}
    for record in records:
        stacks.setdefault(record.groups.get(volume, record.id) if volume else record.id, []).append(record)
    rows: dict[str, list[Any]] = {k: [] for k in ("id", "subject", "class", "dice", "hd95", "surface", "status")}
    for name, stack in stacks.items():
        stack = sorted(stack, key=lambda r: float(r.groups.get(order, 0))) if order else stack
        truths = [target.own(r, roles) for r in stack]
        if any(t is None for t in truths):
            continue
        found = [answer(r) for r in stack]
        real = [t[0] for t in truths if t is not None]
        whole = real[0] if not volume else np.stack(real, -1)
        told = None if any(f is None for f in found) else [f for f in found if f is not None]
        said = None if told is None else told[0] if not volume else np.stack(told, -1)
        scores = judged(said, whole, len(target.classes), mm=mm(stack[0]) if mm else None, tolerance=tolerance)
        for label, score in zip(target.classes[1:], scores, strict=True):
            rows["id"].append(name)
            rows["subject"].append(stack[0].subject)
            rows["class"].append(label)
            for key in ("dice", "hd95", "surface", "status"):
                rows[key].append(getattr(score, key))
    return {k: np.asarray(v) for k, v in rows.items()}


def summary(rows: Mapping[str, NDArray[Any]], *, seed: int = 0) -> dict[str, dict[str, float]]:
    """By class and "mean": Dice with its 95 % interval by subject, median HD95 of what is finite, surface Dice, the
    share of volumes with one side empty, the number of empty pairs, rows that had no answer."""
    from fabrica.evaluate.bootstrap import interval

    made = {}
    for name in (*dict.fromkeys(rows["class"].tolist()), "mean"):
        here = rows["class"] == name if name != "mean" else np.ones(len(rows["class"]), bool)
        there = here & (rows["status"] != "absent")
        columns = {"x": rows["dice"][there].astype(np.float64)}
        if not there.any():
            continue
        found = interval(_mean, columns, rows["subject"][there], seed=seed)
        far = rows["hd95"][there][np.isfinite(rows["hd95"][there])]
        made[name] = {
            "dice": found.value, "low": found.low, "high": found.high, "n": int(there.sum()),
            "subjects": found.subjects, "hd95_mm": float(np.median(far)) if len(far) else float("inf"),
            "surface_dice": float(rows["surface"][there].mean()),
            "one_empty": float((rows["status"][there] == "one_empty").mean()),
            "both_empty": int((rows["status"][there] == "both_empty").sum()),
            "absent": int((here & ~there).sum()),
        }  # fmt: skip
    return made


def _mean(columns: Columns, weights: Weights) -> Value:
    x = columns["x"]
    return float(x.mean()) if weights is None else np.asarray(weights @ x / weights.sum(1), np.float64)


def steps_to(steps: Sequence[int], scores: Sequence[float], target: float, *, smooth: int = 3) -> float:
    """The first step from which the running median of `smooth` scores stays at or above `target`; infinite if never.

    >>> steps_to([10, 20, 30, 40, 50], [0.1, 0.8, 0.3, 0.8, 0.9], 0.75)
    30.0
    """
    if len(steps) != len(scores) or smooth < 1:
        raise UsageError(f"{len(steps)} steps and {len(scores)} scores, smooth {smooth}")
    half = smooth // 2
    calm = [float(np.median(scores[max(0, i - half) : i + half + 1])) for i in range(len(scores))]
    first = float("inf")
    for step, score in zip(reversed(steps), reversed(calm), strict=True):
        if score < target:
            break
        first = float(step)
    return first
