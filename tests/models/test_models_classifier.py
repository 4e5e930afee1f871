"""A pretrained tower under a new head of labels: it learns, it is saved and loaded, and its source stays as it was."""

import numpy as np
import pytest
import torch

from fabrica.encode.collate import Collate, Use
from fabrica.encode.table import TableEncode
from fabrica.errors import UsageError
from fabrica.models import Bundle, MultiTower, ProjectionHead, TableTower, Tower, classifier
from fabrica.objectives.labels import Labels
from fabrica.train import fit
from fabrica.types import Absent, Item, Origin, Record, Schedule, Stage

ORIGIN = Origin("synthetic", "x", "", "CC0-1.0", "synthetic")


def record(i):
    value = np.random.default_rng(i).normal(size=2)
    labels = {"first": float(value[0] > 0), "second": Absent.NOT_DONE if i % 3 else float(value[1] > 0)}
    return Record(f"r{i}", f"p{i}", items={"labs": (Item("table", value, ORIGIN, names=("x", "y")),)}, labels=labels)


RECORDS = [record(i) for i in range(300)]


def pretrained():
    torch.manual_seed(0)
    encode = TableEncode(("x", "y"), (0.0, 0.0), (1.0, 1.0))
    towers = {n: Tower(TableTower(4, (16,)), ProjectionHead((16, 8)), pool="attention") for n in ("labs", "other")}
    return Bundle(MultiTower(towers, 8), Collate({n: Use((n,), encode) for n in towers}), {"title": "Pretrained"})


def test_it_learns_labels_of_which_two_thirds_are_unknown(tmp_path):
    source = pretrained()
    before = source.fingerprint
    model = classifier(source, "labs", ("first", "second"))
    stage = Stage("tune", model.collate, {"labels": Labels(("first", "second"), "labs")}, Schedule(150, 32, 1e-2))
    fit(model, (stage,), RECORDS[:200], tmp_path / "run", save_every=0)
    assert source.fingerprint == before
    _, logits, present = model.embed(RECORDS[200:], "labs", unit=False)
    truth = np.array([[float(v > 0) for v in r.first("labs").array()] for r in RECORDS[200:]])
    assert logits.shape == (100, 2)
    assert present.all()
    assert ((logits > 0) == truth).mean(0).min() > 0.9
    again = Bundle.from_pretrained(model.save_pretrained(tmp_path / "model"))
    np.testing.assert_array_equal(again.embed(RECORDS[200:], "labs", unit=False)[1], logits)
    assert again.collate.targets == ("first", "second")
    assert again.card["labels"] == ["first", "second"]


def test_it_starts_from_the_pretrained_weights_and_keeps_what_is_frozen():
    source = pretrained()
    source.model.tower("labs").body.blocks[0].requires_grad_(False)
    model = classifier(source, "labs", ("first",))
    assert model.fields == ("labs",)
    old = source.embed(RECORDS[:5], "labs", what="features", unit=False)[1]
    np.testing.assert_array_equal(model.embed(RECORDS[:5], "labs", what="features", unit=False)[1], old)
    assert not any(p.requires_grad for p in model.model.tower("labs").body.parameters())
    assert all(p.requires_grad for p in model.model.tower("labs").head.parameters())


def test_names_are_checked():
    with pytest.raises(UsageError, match="did you mean 'labs'"):
        classifier(pretrained(), "lab", ("first",))
    with pytest.raises(UsageError, match="none twice"):
        classifier(pretrained(), "labs", ("first", "first"))
