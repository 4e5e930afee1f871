"""What TIP's proof measures: AUC, matching, masked cells; cells taken away; which columns count most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.types import Record

if TYPE_CHECKING:
    from fabrica.models.fusion_bundle import FusionBundle

TABLE, IMAGE, TASK = "table", "image", "case"


def cells_missing(rows: Sequence[Record], rate: float, seed: int) -> list[Record]:
    """The rows with a share of the table's cells removed at random, one left at least."""
    from fabrica.evaluate.missing import Mcar, remove_cells
    from fabrica.phantom.cohort import NAMES

    return remove_cells(rows, TABLE, Mcar(rate, leave=1)(NAMES, len(rows), seed)) if rate else list(rows)


def said(bundle: FusionBundle, rows: Sequence[Record], task: str = TASK) -> NDArray[np.float32]:
    """(n,) probability of a case."""
    probability: NDArray[np.float32] = bundle.answer(rows, batch=500).tasks[task][:, 1]
    return probability


def matched(bundle: FusionBundle, rows: Sequence[Record], seed: int) -> float:
    """Balanced accuracy of telling people's own tables from other people's, at the prior of training (1 in 3)."""
    import torch

    def score(given: Sequence[Record]) -> NDArray[np.float64]:
        model: Any = bundle.model
        with torch.no_grad():
            fields = bundle.collate.still()(given).fields
            image, seen = model.encode_image(fields[IMAGE])
            tokens, there = model.encode_table(model.cells(fields[TABLE]))
            logits = model.match(model.fuse(tokens, there, image.tokens, seen))
        made: NDArray[np.float64] = (logits[:, 1] - logits[:, 0] + np.log(2)).numpy()
        return made

    shift = 1 + int(np.random.default_rng(seed).integers(len(rows) - 1))
    others = [
        r.updated(items={**r.items, TABLE: rows[(i + shift) % len(rows)].items[TABLE]}) for i, r in enumerate(rows)
    ]
    return float(((score(rows) > 0).mean() + (score(others) <= 0).mean()) / 2)


def masked_error(bundle: FusionBundle, rows: Sequence[Record], seed: int, image: bool) -> float:
    """Mean squared error of hidden numbers in units of the column's variance, half of the columns hidden."""
    import torch

    from fabrica.objectives.masked_table import hidden

    model: Any = bundle.model
    torch.manual_seed(seed)
    with torch.no_grad():
        fields = bundle.collate.still()(rows).fields
        shown, seen = model.encode_image(fields[IMAGE])
        cells = model.cells(fields[TABLE])
        left, asked = hidden(cells, 0.5)
        fused = model.fuse(*model.encode_table(left), shown.tokens, seen if image else torch.zeros_like(seen))
        numbers, _ = model.reconstruct(fused)
        at = asked & (model.table.tokens.size == 0)
        return float((numbers[at] - cells.chunk(2, 1)[0][at]).pow(2).mean())


def importance(rows: Sequence[Record]) -> tuple[str, ...]:
    """Columns by a random forest's importance on the labelled training rows, the most important first."""
    from fabrica.errors import need
    from fabrica.phantom.cohort import NAMES

    need("sklearn", "evaluate")
    from sklearn.ensemble import RandomForestClassifier

    x = np.stack([r.items[TABLE][0].array() for r in rows])
    forest = RandomForestClassifier(100, random_state=0, n_jobs=1).fit(x, [r.labels[TASK] for r in rows])
    return tuple(NAMES[i] for i in np.argsort(-forest.feature_importances_))


def auc_of(truth: NDArray[Any], score: NDArray[Any]) -> float:
    from fabrica.evaluate.metrics import auc

    return float(auc(truth, score))


def weighted(columns: Mapping[str, NDArray[Any]], weights: Any) -> Any:
    from fabrica.evaluate.metrics import auc

    return auc(columns["truth"], columns["score"], weights)
