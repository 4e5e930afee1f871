"""Med-PaLM as it is wired (sheet S38, "Not a toy"), and its proof at a tiny size."""

from dataclasses import replace

import numpy as np
import pytest

from fabrica.chat import Scripted
from fabrica.chat.question import Question
from fabrica.errors import UsageError
from fabrica.evaluate.choices import selective
from fabrica.proofs import Plan, _choices, med_palm
from fabrica.systems import load_system

SYSTEM = load_system("med_palm")
ASK = Question("q", "Which?", ("x", "y"), "A")


def test_refinement_and_its_baseline_cost_the_same():
    calls = {}
    for name, strategy in med_palm.strategies().items():
        made = strategy(Scripted(lambda r: f"Thought {r.seed}. Answer: {'AB'[r.seed % 2]}"), ASK)
        calls[name] = made.calls
    assert calls == {med_palm.SINGLE: 1, med_palm.VOTED: 11, med_palm.EQUAL: 44, med_palm.REFINE: 44}


def test_an_unknown_strategy_gives_the_near_one():
    with pytest.raises(UsageError, match="did you mean 'self_consistency'"):
        SYSTEM.answer(replace(SYSTEM.settings["paper"], strategy="self_consistancy"))
    for name in ("direct", "chain_of_thought"):
        run = SYSTEM.answer(replace(SYSTEM.settings["paper"], strategy=name))
        assert run(Scripted(["Answer: B"]), ASK).choice == "B"


def test_only_the_soft_prompt_is_trained_and_counted():
    size = med_palm.Size((100,), (100,), 30, 2, 12, 6, 0)
    assert set(med_palm.RATES) == {med_palm.SOFT, med_palm.BARE, med_palm.LORA}
    assert set(med_palm.RATES.values()) <= set(med_palm.GRID), "every arm's rate comes from one grid"
    found = med_palm.prompt(med_palm.Job("prompt", 100, size), Plan())
    assert found.details["instruction prompt tuning: trained"] == 20 * 128
    for arm in (med_palm.SOFT, med_palm.BARE, med_palm.LORA):
        assert found.values[f"{arm}: base as it was"] == 1.0
    assert 0 <= found.values[f"{med_palm.HARD}: facts"] <= 1


def test_a_model_with_a_base_of_its_own_has_one_stage_and_a_small_one_two():
    from fabrica.phantom.consumer import Consumer

    settings = replace(SYSTEM.settings["tiny"], width=32, depth=1, steps=4)
    bundle = SYSTEM.build(settings, Consumer(2, 0).pretraining(20))
    names = [s.name for s in SYSTEM.stages(settings, bundle)]
    assert names == ["pretrain", "prompt"]
    (only,) = SYSTEM.stages(replace(settings, base="some/model"), bundle)
    assert only.name == "prompt"
    moved = [n for n, f in only.schedule.lr_scale.items() if f]
    assert moved == ["prompt.embedding.weight"]


def test_the_worlds_behave_as_planted():
    size = med_palm.Size((100,), (), 250)
    found = med_palm.world(med_palm.Job("world", 100, size), Plan())
    right = {name: np.mean(rows) for name, rows in found.right.items()}
    assert right[med_palm.VOTED] > right[med_palm.SINGLE] + 0.06
    assert right[med_palm.REFINE] > right[med_palm.EQUAL]
    assert right["refinement that recognises nothing"] == pytest.approx(right[med_palm.VOTED], abs=0.02)
    misled = np.array(found.misled)
    one, voted = (np.array(found.right[med_palm.ONE_SIDED + n])[misled] for n in (med_palm.SINGLE, med_palm.VOTED))
    assert voted.mean() < one.mean(), "voting makes systematic mistakes worse"
    curve = np.array(found.details["deferral"])
    assert curve[-1] > curve[0] + 0.08
    mute = found.details["a model that does not sample"]
    assert (mute["warned"], mute["duplicates"]) == (40, 1.0)


def test_deferral_keeps_ties_fair():
    assert selective([1, 1, 1, 1], [1, 1, 0, 0], [0.5])[0] == 0.5, "the order of equal confidences must not matter"


def test_the_proof_is_assembled_and_names_what_it_leaves_out():
    size = med_palm.Size((100, 101), (100, 101), 20, 2, 6, 3, 0)
    jobs = [med_palm.Job(what, s, size) for what in ("prompt", "world") for s in size.seeds]
    proof = med_palm._proof(size, jobs, [med_palm.part(j, Plan()) for j in jobs])
    assert len(proof.claims) == 10
    assert {c.name for c in proof.controls} == {
        "the model stays", "shuffled confidence", "refinement of no power", "no sampling",
    }  # fmt: skip
    assert "real arm" in proof.notes.lower()
    assert "phantom" in proof.data


@pytest.mark.real_data
@pytest.mark.parametrize(("number", "least"), [(0, 200), (1, 200), (2, 124), (3, 20)])
def test_the_real_arm_reads_the_real_questions(shared_data, monkeypatch, number, least):
    """The arm itself on every set, with a scripted model that likes the letter D in place of the weights."""
    folder = shared_data("medqa_suite")
    monkeypatch.setattr(med_palm, "real", lambda name: folder)

    class Likely(Scripted):
        def score(self, messages, answers):
            return [-1.0 if "(D)" in a else -2.0 for a in answers]

    monkeypatch.setattr(_choices, "local", lambda name, device: Likely([]))
    title = med_palm.SETS[number][0]
    found = med_palm.really(med_palm.Job("real", number, med_palm.Size(real=200)), Plan())
    assert found.details["questions, left out"][0] == least
    letter, constant = (found.values[f"real {title}: {n}"] for n in ("likeliest letter", "best constant letter"))
    assert letter <= constant, "no constant is better than the best constant"
    places = found.details["places chosen, and right"]["likeliest letter"]
    assert places["D"][0] > 0.85, "a letter that is liked shows as a place (not every question has a D)"
    assert "not shown better than" in found.told[0] or "worse than" in found.told[0]


def test_a_letter_that_is_liked_shows_as_a_place_whatever_the_order(tmp_path, monkeypatch):
    import json

    class Likely(Scripted):
        def score(self, messages, answers):
            return [-1.0 if "(D)" in a else -2.0 for a in answers]

    monkeypatch.setattr(_choices, "local", lambda name, device: Likely([]))
    rows = [
        {"question": f"Which {i}?", "options": [f"{i} {a}" for a in "wxyz"], "answer_idx": i % 4} for i in range(12)
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = _choices.benched(tmp_path / "q.jsonl", "t", 12, by=("letter",), turned=True)
    places = found.details["places chosen, and right"]
    assert places["likeliest letter, another order"]["D"][0] == places["likeliest letter"]["D"][0] == 1.0
    assert found.values["real t: likeliest letter"] == 0.25
