"""The real arm's parts: questions dealt, lookup, every bar read, and intervals that resample images."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fabrica import systems
from fabrica.errors import UsageError
from fabrica.proofs import Plan
from fabrica.proofs import llava_med_real as proof
from fabrica.types import Item, Origin, Record

HERE = Origin("t", "t", "", "CC0-1.0")


def record(name: str, rows: list[tuple[str, str]]) -> Record:
    items = {
        "image": (Item("image", np.zeros((4, 4), np.uint8), HERE),),
        "question": tuple(Item("text", q, HERE) for q, _ in rows),
        "answer": tuple(Item("text", a, HERE, names=("closed",)) for _, a in rows),
    }
    return Record(name, name, items=items)


def test_questions_are_dealt_whole_and_with_their_answers() -> None:
    one = record("r", [(f"q{i}", f"a{i}") for i in range(9)])
    made = proof.dealt([one], np.random.default_rng(0))
    assert [len(r.items["question"]) for r in made] == [3, 3, 3]
    assert len({r.id for r in made}) == 3
    assert {r.subject for r in made} == {"r"}
    pairs = [
        (q.text()[1:], a.text()[1:]) for r in made for q, a in zip(r.items["question"], r.items["answer"], strict=True)
    ]
    assert sorted(pairs) == [(str(i), str(i)) for i in range(9)]
    assert list(proof.bare([one])[0].items) == ["image"]


def test_the_lookup_goes_from_the_question_to_its_first_word_to_yes() -> None:
    train = [
        record("r", [("Is it normal?", "no"), ("is it normal", "no"), ("Is it large?", "yes"), ("What now?", "ct")])
    ]
    asked = ["Is it normal?", "Is there air?", "What is this?", "Where?"]
    assert proof.lookup(train, asked) == ["no", "no", "ct", "yes"]


def rows(right: list[int], images: list[str] | None = None) -> list[proof.Row]:
    names = images or [f"i{n // 2}" for n in range(len(right))]
    return [
        proof.Row(name, n % 2 == 0, "yes", "yes" if r else "no")
        for n, (r, name) in enumerate(zip(right, names, strict=True))
    ]


def found(model: int, blind: int, permuted: int, lookup: int) -> dict[str, list[proof.Row]]:
    """Arms that answer so many of 40 questions."""
    said = {proof.MODEL: model, proof.BLIND: blind, proof.PERMUTED: permuted, proof.LOOKUP: lookup}
    return {arm: rows([1] * n + [0] * (40 - n)) for arm, n in said.items()}


def test_every_bar_is_read() -> None:
    def verdicts(*right: int) -> dict[str, bool]:
        arms = found(*right)
        return {c.name: c.shown for c in (*proof._claims(arms), *proof._controls(arms))}

    assert all(verdicts(30, 20, 20, 12).values())
    assert verdicts(30, 20, 20, 29) == {"better than trivial": False, "the image helps": True, "permuted images": True}
    assert verdicts(30, 30, 20, 12) == {"better than trivial": True, "the image helps": False, "permuted images": True}
    assert verdicts(30, 20, 24, 12) == {"better than trivial": True, "the image helps": True, "permuted images": False}


def test_the_interval_is_by_image_and_not_by_question() -> None:
    """The same answers with all questions about two images leave far less to be sure of."""
    a, b = [1, 1, 1, 1, 0, 0, 0, 0] * 5, [0] * 40
    many = proof.difference(rows(a, [f"i{n}" for n in range(40)]), rows(b, [f"i{n}" for n in range(40)]))
    few = proof.difference(rows(a, [f"i{n % 8}" for n in range(40)]), rows(b, [f"i{n % 8}" for n in range(40)]))
    assert many.value == few.value == 0.5
    assert (many.subjects, few.subjects) == (40, 8)
    assert few.high - few.low > 1.5 * (many.high - many.low)


def test_the_verdict_is_made_of_all_splits() -> None:
    size = proof.Size(seeds=(100, 101), steps=1, test=40)
    jobs = [proof.Job(what, s, size, "", "") for s in size.seeds for what in (proof.MODEL, proof.BLIND)]
    arms = found(30, 20, 20, 12)
    parts = [
        proof.Found({k: arms[k] for k in ((proof.BLIND,) if j.what == proof.BLIND else
                                          (proof.MODEL, proof.PERMUTED, proof.LOOKUP))}, {f"{j.what}: loss": 1.0})
        for j in jobs
    ]  # fmt: skip
    said = proof._proof(size, parts, {"images": 8, "features an image": 10})
    assert said.verdict == "shown"
    assert said.arms[proof.MODEL] == (0.75, 0.75)
    assert all(len(v) == 2 for v in said.arms.values())


def test_it_runs_whole_with_small_nets_in_place_of_the_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Same code, random weights: the arms differ in images alone, and the tower has seen each image before."""
    rng, asked = np.random.default_rng(0), [("is it large ?", "yes", "CLOSED"), ("which side ?", "left", "OPEN")]
    (tmp_path / "images").mkdir()
    for n in range(10):
        Image.fromarray(rng.integers(0, 255, (32, 32)).astype(np.uint8)).save(tmp_path / "images" / f"{n}.png")
    rows = [{"image": f"{n}.png", "question": q, "answer": a, "answer_type": k} for n in range(10) for q, a, k in asked]
    (tmp_path / "qa.json").write_text(json.dumps(rows))
    system = systems.load_system("llava_med")
    small = replace(system.settings["tiny"], read_steps=0, align_steps=0, lora=2, precision="bf16", pool=2)
    monkeypatch.setattr(systems, "load_system", lambda name: replace(system, settings={"small": small}))
    proof.images.cache_clear()
    said = proof.prove(proof.Size(seeds=(100, 101), steps=2, batch=2, test=4), tmp_path, Plan(workers=1))
    proof.images.cache_clear()
    assert set(said.arms) >= {proof.MODEL, proof.BLIND, proof.PERMUTED, proof.LOOKUP}
    assert said.details["vision"]["images"] == 10
    losses = said.details["training"]
    assert losses[f"{proof.MODEL}: first loss"] != losses[f"{proof.BLIND}: first loss"]
    monkeypatch.setattr(proof, "real", lambda name: None)
    with pytest.raises(UsageError, match="left out"):
        proof.run(Plan())
