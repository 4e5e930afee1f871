"""From a pretrained bundle to one that answers labels: the tower of one field under a new linear head."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from fabrica.errors import UsageError
from fabrica.models.bundle import Bundle
from fabrica.models.heads import ProjectionHead
from fabrica.models.multi import MultiTower
from fabrica.objectives.scale import LogitScale


def classifier(bundle: Bundle, field: str, labels: Sequence[str]) -> Bundle:
    """A bundle whose embedding of `field` is one logit a label: a copy of the field's tower, with a new linear head in
    place of the projection; train it with `objectives.labels.Labels`.

    Its collate reads the field as `bundle` did, with `labels` as targets. What was frozen stays frozen. `bundle` is
    left as it is. Answers: `embed(records, field, unit=False)`, rows (n, labels), a logit each.
    """
    if not labels or len(set(labels)) < len(labels):
        raise UsageError(f"labels to answer: wanted at least one and none twice, got {tuple(labels)}")
    tower = copy.deepcopy(bundle.model.tower(field))
    tower.head = ProjectionHead((tower.body.width, len(labels)), normalise=None)
    model = MultiTower({field: tower}, len(labels), scale=LogitScale(learnable=False))
    collate = replace(bundle.collate.only(field), targets=tuple(labels))
    return Bundle(model, collate, {**bundle.card, "labels": list(labels)})
