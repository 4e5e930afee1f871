"""The real stays of PhysioNet 2012 as proofs use them: tables of events, splits by stay, the trivial baseline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fabrica.types import Record

REAL = "physionet2012"
DEATH = "in_hospital_death"


@lru_cache(maxsize=1)
def stays(folder: str) -> list[Record]:
    """Stays with a known outcome, as the tables that MultiModN's own plan makes of their events: one a field."""
    from fabrica.systems import load_system

    system = load_system("multimodn")
    (step,) = system.plan(system.settings["icu"]) if system.plan else ()
    return list(step(_known(folder), lambda record, reason: None))  # type: ignore[operator]


@lru_cache(maxsize=1)
def first_day(folder: str) -> list[Record]:
    """Stays with a known outcome, each as one table: mean and last value of every code in the first 24 hours."""
    from fabrica.curate.summarise import Summarise
    from fabrica.systems import load_system

    fields = load_system("multimodn").settings["icu"].summarise
    codes = tuple(code for members in fields.values() for code in members)
    step = Summarise(fields={"table": codes}, stop=24.0, keep=False)
    return list(step(_known(folder), lambda record, reason: None))


def _known(folder: str) -> list[Record]:
    from fabrica.sources import read, walk

    found = (r for ref in walk(Path(folder), source=REAL, licence="ODC-By-1.0") for r in read(ref))
    return [r for r in found if isinstance(r, Record) and DEATH in r.labels]


def split(rows: Sequence[Record], seed: int, share: float = 0.7) -> tuple[list[Record], list[Record]]:
    """A share of the stays to learn from, and the others; a stay is a subject."""
    order = np.random.default_rng([seed, 12]).permutation(len(rows))
    cut = int(share * len(rows))
    return [rows[i] for i in order[:cut]], [rows[i] for i in order[cut:]]


def logistic(train: Sequence[Record], test: Sequence[Record], fields: Sequence[str]) -> NDArray[np.float64]:
    """The trivial baseline of the data set: logistic regression on standardised values (the training mean for what is
    missing) and flags of what was measured; its strength is chosen within the training part. (n,) scores of `test`."""
    from fabrica.encode.table import TableEncode
    from fabrica.errors import need

    need("sklearn", "evaluate")
    from sklearn.linear_model import LogisticRegressionCV

    rng = np.random.default_rng(0)
    encodes = {f: TableEncode.fit(train, (f,)) for f in fields}

    def rows(part: Sequence[Record]) -> NDArray[np.float64]:
        cells = ([e(i, rng) if (i := r.first(f)) else np.zeros(e.shape) for f, e in encodes.items()] for r in part)
        return np.stack([np.concatenate(c) for c in cells])

    model = LogisticRegressionCV(
        Cs=[0.01, 0.03, 0.1, 0.3], cv=3, scoring="roc_auc", max_iter=500, l1_ratios=(0,), use_legacy_attributes=False
    )
    model.fit(rows(train), [r.labels[DEATH] for r in train])
    score: NDArray[np.float64] = model.decision_function(rows(test))
    return score
