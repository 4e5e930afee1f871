"""On real files: a probe against pixels on PneumoniaMNIST, the border shortcut of the COVID collection."""

import csv

import numpy as np
import pytest
from PIL import Image

from fabrica.evaluate import bootstrap, probes
from fabrica.evaluate.metrics import auc
from fabrica.evaluate.pictures import thumbnail
from fabrica.types import Item, Origin

pytestmark = pytest.mark.real_data
ORIGIN = Origin("test", "x", "", "")


def pictures(arrays):
    return np.stack([thumbnail(Item("image", a, ORIGIN)) for a in arrays])


def test_controls_on_pneumoniamnist(shared_data):
    with np.load(shared_data("pneumoniamnist") / "pneumoniamnist_train_val.npz") as held:
        images, labels = held["train_images"][:1200], held["train_labels"][:1200].ravel().astype(float)
        test, truth = held["val_images"], held["val_labels"].ravel().astype(float)
    train = pictures(images)
    subjects = np.arange(len(train))
    found = {}
    for name in ("pixels", "border only", "random features"):
        make = probes.CONTROLS[name]
        found[name] = probes.linear_probe(
            make(train), labels, make(pictures(test)), classes=2, subjects=subjects, seed=0
        )[:, 1]
    floor = probes.prevalence(labels, len(test), 2)[:, 1]
    assert auc(truth, floor) == 0.5
    assert auc(truth, found["pixels"]) > 0.97  # the floor a learned encoder has to clear
    assert auc(truth, found["border only"]) < auc(truth, found["pixels"])
    columns = [{"t": truth, "s": found[n]} for n in ("pixels", "border only")]
    gap = bootstrap.paired(lambda c, w: auc(c["t"], c["s"], w), *columns, np.arange(len(truth)))
    assert gap.low > 0
    near = probes.knn(
        *(probes.pixels(train) / np.linalg.norm(probes.pixels(train), axis=1, keepdims=True), labels),
        probes.pixels(pictures(test)) / np.linalg.norm(probes.pixels(pictures(test)), axis=1, keepdims=True), classes=2,
    )  # fmt: skip
    assert auc(truth, near[:, 1]) > 0.9


def test_the_border_of_covid_cxr_notes_tells_cases_from_controls(shared_data):
    """A shortcut: pixels at the edge alone separate the two sources, by patient, so the disease need not be seen."""
    folder = shared_data("covid_cxr_notes")
    rows = []
    with (folder / "metadata.csv").open(encoding="utf-8") as handle:
        rows += [(r["file"], f"case{r['Patientid']}", 1.0) for r in csv.DictReader(handle) if r["modality"] == "X-ray"]
    with (folder / "controls.csv").open(encoding="utf-8") as handle:
        rows += [(r["file"], r["file"], 0.0) for r in csv.DictReader(handle)]
    rows = [r for r in rows if (folder / "images" / r[0]).exists()]
    shown = pictures([np.asarray(Image.open(folder / "images" / name).convert("L")) for name, _, _ in rows])
    subjects, truth = np.array([s for _, s, _ in rows]), np.array([t for _, _, t in rows])
    assert min(truth.sum(), (truth == 0).sum()) > 20
    people = np.unique(subjects)
    fold = np.random.default_rng(0).permutation(len(people)) % 5
    where = fold[np.searchsorted(people, subjects)]
    edges, score = probes.border(shown), np.zeros(len(rows))
    for k in range(5):
        fit, held = where != k, where == k
        score[held] = probes.linear_probe(
            edges[fit], truth[fit], edges[held], classes=2, subjects=subjects[fit], seed=0
        )[:, 1]  # fmt: skip
    found = bootstrap.interval(lambda c, w: auc(c["t"], c["s"], w), {"t": truth, "s": score}, subjects)
    assert found.low > 0.7
    assert found.value > 0.85
