"""Questions about images: one record an image, its questions in order, hostile rows set aside by themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fabrica.sources import Quarantined, Ref, read, sniff
from fabrica.types import Record


def folder(tmp_path: Path, rows) -> Ref:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((6, 5), 9, np.uint8)).save(tmp_path / "images" / name)
    (tmp_path / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nxxxx")
    (tmp_path / "qa.json").write_text(json.dumps(rows))
    return Ref(tmp_path / "qa.json", "qa.json", "demo", "CC0-1.0")


def row(image, question="Which side?", answer="left", **more):
    return {"image": image, "question": question, "answer": answer, **more}


def test_an_image_is_a_record_with_its_questions(tmp_path: Path) -> None:
    ref = folder(
        tmp_path, [row("a.png", answer_type="OPEN"), row("b.png"), row("a.png", "Normal?", "no", answer_type="CLOSED")]
    )
    assert sniff(ref.path) == "vqa"
    a, b = (r for r in read(ref) if isinstance(r, Record))
    assert [q.text() for q in a.items["question"]] == ["Which side?", "Normal?"]
    assert [(x.text(), x.names[0]) for x in a.items["answer"]] == [("left", "open"), ("no", "closed")]
    assert a.subject != b.subject
    assert a.first("image").array().shape == (6, 5)
    assert a.rights.licence == "CC0-1.0"


def test_bad_rows_are_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    rows = [row("../../etc/passwd"), row("none.png"), row("broken.png"), row("a.png", ""), 7, row("a.png")]
    found = list(read(folder(tmp_path, rows)))
    assert sum(isinstance(r, Record) for r in found) == 1
    codes = sorted(q.code for q in found if isinstance(q, Quarantined))
    assert codes[:2] == ["image_broken", "missing_file"]
    assert codes.count("no_question") == 2
    assert "path_outside" in codes


@pytest.mark.real_data
def test_vqa_rad_is_split_by_image_and_the_lookup_scores_as_known(shared_data) -> None:
    """Of `lookup` alone: 0.31 of all and 0.55 of the closed questions are known for a question-only lookup."""
    from fabrica.proofs import llava_med_real as proof

    where = str(shared_data("vqa_rad"))
    assert len(proof.images(where)) == 206
    assert sum(len(r.items["question"]) for r in proof.images(where)) == 1484
    scores = []
    for seed in range(100, 105):
        train, test = proof.split(where, seed, 10_000)
        assert not {r.subject for r in train} & {r.subject for r in test.records}
        assert all(a.id != b.id for a, b in zip(test.records, test.other, strict=True))
        scores.append(proof.scores(proof._rows(proof.lookup(train, test.questions), test)))
    assert 0.25 < np.mean([s["exact"] for s in scores]) < 0.37
    assert 0.48 < np.mean([s["closed"] for s in scores]) < 0.62
