"""Evaluation data is found in a training set: equal and near pictures, texts, embeddings; what is like it stays."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fabrica import curate
from fabrica.corpus import Corpus
from fabrica.curate.duplicates.decontaminate import Decontaminate, Evaluation
from fabrica.curate.engine.plan import signature
from fabrica.errors import UsageError
from fabrica.phantom import hospital
from fabrica.types import Item, Origin, Record

WORDS = "the patient was seen in clinic with a long history that nobody had written down in such detail before today ok"


def as_jpeg(image):
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=95)
    return np.asarray(Image.open(out))


@pytest.fixture(scope="module")
def films():
    """Forty synthetic radiographs: the first ten are the evaluation set."""
    made = list(hospital.records(40, "xray", 3, size=96))
    return [r.updated(regions=(), items={"image": r.items["image"]}) for r in made]


def copy(record, change, name):
    item = record.first("image")
    return record.updated(id=name, subject=name, items={"image": (replace(item, value=change(item.array())),)})


def test_copies_are_removed_and_the_number_reported(films, tmp_path):
    test, train = films[:10], films[10:]
    planted = [copy(test[0], lambda a: a.copy(), "equal"), copy(test[1], as_jpeg, "jpeg"),
               copy(test[2], lambda a: np.clip(a.astype(int) + 6, 0, 255).astype(np.uint8), "brighter")]  # fmt: skip
    corpus = Corpus.create(tmp_path / "byod")
    corpus.append([*train, *planted])
    step = Decontaminate(Evaluation().add("films", test))
    report = curate.run([step], corpus, tmp_path / "clean")
    removed = sum(report.dropped["decontaminate"].values())
    assert report.kept == 30
    assert removed == 3
    assert report.dropped["decontaminate"]["evaluation_same_pixels"] == 1
    assert {"equal", "jpeg", "brighter"}.isdisjoint(Corpus.open(tmp_path / "clean").ids())


def told(text, by="human", name="t"):
    return Record(name, name, items={"report": (Item("text", text, Origin("d", name, "", "", by)),)})


def test_texts_of_people_are_compared_and_short_or_machine_ones_are_not():
    held = Evaluation().add("notes", [told(WORDS)])
    others = [told(WORDS.upper()), told(WORDS + " then"), told("no acute findings"), told(WORDS, "model")]
    assert held.found(others) == ["text", "text", "", ""]


class Mean:
    """An embedder that is blind to all but quadrant means."""

    name = "mean"

    def __call__(self, items):
        rows = []
        for item in items:
            a = item.array().astype(np.float32)
            h, w = a.shape[0] // 2, a.shape[1] // 2
            rows.append([a[:h, :w].mean(), a[:h, w:].mean(), a[h:, :w].mean(), a[h:, w:].mean()])
        rows = np.asarray(rows, np.float32)
        rows -= rows.mean(1, keepdims=True)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_an_embedding_finds_what_hashes_miss(films):
    turned = copy(films[0], lambda a: np.clip(a.astype(int) + np.random.default_rng(0).normal(0, 60, a.shape), 0, 255)
                  .astype(np.uint8), "noisy")  # fmt: skip
    assert Evaluation().add("films", films[:1]).found([turned]) == [""]
    assert Evaluation(embed=Mean(), cosine=0.99).add("films", films[:1]).found([turned]) == ["embedding"]


def test_what_was_registered_is_part_of_the_plan(films):
    one, two = (Decontaminate(Evaluation().add("films", films[:n])) for n in (3, 4))
    assert signature(one) != signature(two)
    with pytest.raises(UsageError, match="no evaluation set"):
        Decontaminate(Evaluation())
    with pytest.raises(UsageError, match="cosine"):
        Evaluation(cosine=0.0)


def test_records_without_pictures_or_texts_pass(films):
    assert Evaluation().add("films", films[:2]).found([Record("r", "s")]) == [""]
    assert Evaluation().add("none", [Record("r", "s")]).found(films[:2]) == ["", ""]
