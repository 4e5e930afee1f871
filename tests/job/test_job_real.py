"""Two real data sets through the main job by a job file alone: no code is written for either."""

from pathlib import Path

import numpy as np
import pytest

from fabrica import job as jobs
from fabrica.corpus import Corpus
from fabrica.evaluate import cards
from fabrica.types import Score

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
pytestmark = pytest.mark.real_data


def score(scores: list[Score], task: str, arm: str = "model") -> Score:
    """The leading metric of a task's arm over all records."""
    return next(s for s in scores if s.task.startswith(task) and s.arm == arm and not s.group)


def split_by_subject(corpus: Corpus) -> dict[str, str]:
    where: dict[str, str] = {}
    for row in corpus.rows(["subject", "split"]).to_pylist():
        assert where.setdefault(row["subject"], row["split"]) == row["split"], "a subject stands in two splits"
    return where


def shortened(name: str, to: Path, **swaps: str) -> Path:
    """The example's own file with fewer steps, so that the test is quick."""
    text = (EXAMPLES / name).read_text()
    for old, new in swaps.items():
        old = old.replace("_", " = ")
        assert old in text
        text = text.replace(old, new)
    path = to / name
    path.write_text(text)
    return path


def test_covid_cxr_notes(shared_data, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """62 images with notes and 77 controls of another collection: the borders alone tell them apart."""
    root = shared_data("covid_cxr_notes").parent
    path = shortened("covid_cxr_notes.toml", tmp_path, steps_40="steps = 12")
    outcome = jobs.run(jobs.load(path), tmp_path / "out", base=root, from_scratch=True, say=lambda text: None)
    assert outcome.unscored == []
    assert {s.data for s in outcome.scores} == {"real"}

    zero = score(outcome.scores, "findings, zero-shot")
    assert (zero.metric, zero.n > 40) == ("accuracy", True)
    probe = score(outcome.scores, "COVID-19, linear probe")
    border = score(outcome.scores, "COVID-19, linear probe", "border only")
    assert border.value > 0.85, "the shortcut: the outermost pixels know the source"
    assert probe.low <= probe.value <= probe.high
    card = cards.read(tmp_path / "out" / "eval")
    assert {"model", "pixels", "border only", "random features", "prevalence"} <= {s.arm for s in card.scores}
    assert "border only" in outcome.report.read_text()

    corpus = Corpus.open(tmp_path / "out" / "corpus")
    assert len(corpus) == 139
    splits = split_by_subject(corpus)
    assert len(splits) < 139, "patients have several images"
    assert set(splits.values()) == {"train", "test"}
    labels = corpus.stats("modality = 'xray'").labels
    assert labels["covid"]["1"] == 47
    assert labels["other_pneumonia"]["1"] == 8 + 38
    assert labels["normal"]["1"] == 1 + 39
    for record in corpus.scan("array_has(roles, 'caption')"):
        said = " ".join(i.text() for i in record.items["caption"]).lower()
        normal = any(w in said for w in ("normal", "unremarkable", "no acute", "no abnormal", "healthy"))
        assert normal == (record.labels["normal"] == 1), "another pneumonia is not a normal film"


def test_pneumoniamnist(shared_data, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The set's own split is kept; its eight val images that stand in train as well are dropped, not leaked."""
    root = shared_data("pneumoniamnist").parent
    job = jobs.load(EXAMPLES / "pneumoniamnist.toml")
    outcome = jobs.run(job, tmp_path / "out", base=root, say=lambda text: None)
    assert outcome.unscored == []
    zero = score(outcome.scores, "pneumonia, zero-shot")
    assert zero.value > 0.8
    probe = score(outcome.scores, "pneumonia, linear probe at 100 %")
    pixels = score(outcome.scores, "pneumonia, linear probe at 100 %", "pixels")
    assert (probe.metric, pixels.metric) == ("AUC", "AUC")
    assert probe.value > pixels.value, (probe, pixels)

    corpus = Corpus.open(tmp_path / "out" / "corpus")
    split_by_subject(corpus)
    arrays = {"train": set[bytes](), "val": set[bytes]()}
    for record in corpus.scan():
        image = record.first("image")
        assert image is not None
        arrays[str(record.split)].add(np.ascontiguousarray(image.array()).tobytes())
    assert not arrays["train"] & arrays["val"]
    assert 500 < len(arrays["val"]) < 524
