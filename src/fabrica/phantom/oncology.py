"""Synthetic patients with a slide (a bag of patch features), six groups of genes and a time to death; truth is known.

`additive`: what the slide and what the genes say adds up. `interaction`: a gene switch says which type of patch counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fabrica.types import Item, Origin, Record

Floats = NDArray[np.float64]
FEATURES = 16  # of a patch
GROUPS = {"suppressors": 8, "oncogenes": 10, "kinases": 12, "markers": 6, "factors": 14, "cytokines": 9}  # genes each
CENSORED = 0.4
MONTHS = 40.0  # median time of a patient of mean risk


def genes() -> dict[str, tuple[str, ...]]:
    """Group -> its genes."""
    return {group: tuple(f"{group.upper()[:4]}{i}_rnaseq" for i in range(n)) for group, n in GROUPS.items()}


def additive(n: int, seed: int, *, patches: tuple[int, int] = (20, 100), strength: float = 1.2) -> list[Record]:
    """log hazard = strength / sqrt(3) (s + g + c): s told by the slide alone, g by the genes alone, c by both; a fourth
    latent moves patches and genes and no risk. 30 % of the patches are informative."""
    rng = np.random.default_rng([seed, 1])
    weights = _weights()
    s, g, c, noise = rng.standard_normal((4, n))
    bags = []
    for i in range(n):
        count = int(rng.integers(patches[0], patches[1] + 1))
        kind = rng.random(count) < 0.3
        bag = rng.standard_normal((count, FEATURES)) + 1.5 * weights["slide"][0] * np.where(kind, 1, -1)[:, None]
        told = s[i] * weights["slide"][1] + c[i] * weights["slide"][2]
        bags.append(bag + np.outer(kind, told) + noise[i] * weights["slide"][3])
    cells = rng.standard_normal((n, sum(GROUPS.values())))
    cells += np.outer(g, _in(weights["genes"][0], 0, 1)) + np.outer(c, _in(weights["genes"][1], 2))
    cells += np.outer(noise, _in(weights["genes"][2], 3, 4))
    return _records(bags, cells, strength / np.sqrt(3) * (s + g + c), rng, f"additive/{seed}")


def interaction(
    n: int, seed: int, *, patches: tuple[int, int] = (20, 40), strength: float = 1.3, noise: float = 0.5
) -> list[Record]:
    """Patches of types A, B and C in every bag, with random shares; a switch that the genes tell says whether the share
    of A or that of B is the risk. The slide alone tells half of it (where there is much C, there is little of both),
    the genes alone nothing."""
    rng = np.random.default_rng([seed, 2])
    weights = _weights()
    share = rng.dirichlet((1.5, 1.5, 1.5), n)
    switch = rng.integers(0, 2, n)
    bags = []
    for i in range(n):
        count = int(rng.integers(patches[0], patches[1] + 1))
        kind = rng.choice(3, count, p=share[i])
        share[i] = np.bincount(kind, minlength=3) / count
        bags.append(noise * rng.standard_normal((count, FEATURES)) + weights["slide"][kind])
    cells = noise * rng.standard_normal((n, sum(GROUPS.values())))
    cells += np.outer(switch - 0.5, _in(weights["genes"][0], 0, 1))
    told = share[np.arange(n), switch]
    return _records(bags, cells, strength * (told - told.mean()) / told.std(), rng, f"interaction/{seed}")


def _weights() -> dict[str, Floats]:
    """Directions that are the same for every seed: the world does not change between training and test."""
    rng = np.random.default_rng(87)
    slide = np.linalg.qr(rng.standard_normal((FEATURES, 4)))[0].T * 2.0
    return {"slide": slide, "genes": rng.choice([-0.7, 0.7], (4, sum(GROUPS.values())))}


def _in(weight: Floats, *groups: int) -> Floats:
    """The weights of some groups' genes, 0 elsewhere."""
    ends = np.cumsum([0, *GROUPS.values()])
    keep = np.zeros(len(weight), bool)
    for group in groups:
        keep[ends[group] : ends[group + 1]] = True
    return np.where(keep, weight, 0.0)


def _records(
    bags: Sequence[Floats], cells: Floats, log_hazard: Floats, rng: np.random.Generator, name: str
) -> list[Record]:
    """Exponential times, uniform censoring at about `CENSORED`; coordinates on a square; labels `survival` (months,
    negative = censored) and `log_hazard`, the truth."""
    n = len(bags)
    times = rng.exponential(MONTHS / np.log(2) * np.exp(-log_hazard))
    until = rng.random(n)
    limit = _limit(times, until)
    event = times <= limit * until
    observed = np.maximum(np.where(event, times, limit * until), 0.01)
    columns = tuple(c for members in genes().values() for c in members)
    made = []
    for i in range(n):
        origin = Origin("phantom/oncology", f"{name}/{i}", "", "CC0-1.0", "synthetic")
        side = int(np.ceil(np.sqrt(len(bags[i]))))
        at = np.stack([np.arange(len(bags[i])) % side, np.arange(len(bags[i])) // side], 1) * 256.0
        bag = np.concatenate([at, bags[i]], 1).astype(np.float32)
        items = {
            "slide": (Item("slide", bag, origin),),
            "omics": (Item("omics", cells[i].astype(np.float32), origin, names=columns),),
        }
        labels = {"survival": float(observed[i] if event[i] else -observed[i]), "log_hazard": float(log_hazard[i])}
        made.append(Record(f"{name}/{i}", f"{name}/{i}", {"modality": "pathology"}, items, labels=labels))
    return made


def _limit(times: Floats, until: Floats) -> float:
    """The longest follow-up for which a share `CENSORED` of patients has no event."""
    low, high = 1e-3, 1e6
    for _ in range(60):
        middle = np.sqrt(low * high)
        if (times > middle * until).mean() > CENSORED:
            low = middle
        else:
            high = middle
    return float(np.sqrt(low * high))
