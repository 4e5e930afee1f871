"""MultiModN as it is wired and its proof (sheet S27; the block: tests/models/test_models_fusion.py)."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from fabrica.errors import UsageError
from fabrica.phantom.views import views
from fabrica.proofs import Plan, _icu, multimodn
from fabrica.systems import load_system
from fabrica.types import Absent

SYSTEM = load_system("multimodn")
SMALL = multimodn.Size(
    seeds=(100, 101), few=(100, 101), tuning=(102,), train=96, test=80, steps=4, real_steps=4, rates=(1e-2,),
    resamples=10,
)  # fmt: skip


def rows(n: int = 40) -> list:
    return multimodn.records(views(n, 100))


def test_the_batch_is_no_matter_to_a_row_s_state() -> None:
    """A batch of 1 and one of 64 give the same readings through the whole system; the public code does not."""
    given = rows(64)
    given[3] = given[3].without("two")
    torch.manual_seed(0)
    bundle = SYSTEM.build(SYSTEM.settings["views"], given)
    whole = bundle.answer(given, batch=64)
    for i in (0, 3, 63):
        one = bundle.answer([given[i]])
        np.testing.assert_allclose(one.readings["y"][0], whole.readings["y"][i], atol=1e-6)
        assert one.ran[0].tolist() == whole.ran[i].tolist()
    assert whole.ran[3].tolist() == [True, True, False]


def test_tasks_are_the_labels_that_are_yes_or_no_unless_they_are_named() -> None:
    given = [r.updated(labels={**r.labels, "score": 3.5, "stage": float(i % 3)}) for i, r in enumerate(rows())]
    bundle = SYSTEM.build(replace(SYSTEM.settings["views"], tasks={}), given)
    assert dict(bundle.model.tasks) == {"y": 2}
    bundle = SYSTEM.build(replace(SYSTEM.settings["views"], tasks={"y": 2, "stage": 3}), given)
    assert bundle.answer(given[:3]).tasks["stage"].shape == (3, 3)
    with pytest.raises(UsageError, match="no label 'stag'; did you mean 'stage'"):
        SYSTEM.build(replace(SYSTEM.settings["views"], tasks={"stag": 3}), given)
    with pytest.raises(UsageError, match=r"label 'score' is 3.5"):
        SYSTEM.build(replace(SYSTEM.settings["views"], tasks={"score": 5}), given)
    with pytest.raises(UsageError, match=r"no kind of field 'tabel'"):
        SYSTEM.build(replace(SYSTEM.settings["views"], fields={"one": "tabel"}), given)


def test_a_record_without_a_label_teaches_its_other_tasks() -> None:
    given = rows()
    given[0] = given[0].updated(labels={"y": Absent.NOT_DONE})
    bundle = SYSTEM.build(SYSTEM.settings["views"], given)
    (stage,) = SYSTEM.stages(SYSTEM.settings["views"], bundle)
    loss = stage.objectives["tasks"](bundle.model, bundle.collate(given, 0))
    assert loss.count == len(given) - 1


def test_planted_absence_takes_from_the_positives_and_the_flipped_test_from_the_others() -> None:
    data = views(2000, 100)
    given, y = multimodn.records(data), data.labels[:, 0]
    left = multimodn._planted(given, y, "two", multimodn.ROLES[:2], 0)
    gone = np.array([r.first("two") is None for r in left])
    assert gone[y == 1].mean() == pytest.approx(multimodn.RATE, abs=0.04)
    assert not gone[y == 0].any()
    patterns = multimodn._patterns(y, given, "two", multimodn.ROLES[:2], 0)
    flipped = np.array([r.first("two") is None for r in patterns["flipped"][0]])
    assert flipped[y == 0].mean() == pytest.approx(multimodn.RATE, abs=0.04)
    assert not flipped[y == 1].any()
    assert all(r.first("one") is not None for r in left)


def test_the_proof_runs_without_real_data_and_says_so() -> None:
    jobs = [multimodn.Job(what, s, SMALL) for what in ("views", "tasks") for s in SMALL.seeds]
    jobs += [multimodn.Job("rates", 102, SMALL)]
    proof = multimodn._proof(SMALL, jobs, [multimodn.part(j, Plan()) for j in jobs], has_real=False)
    assert [c.name for c in proof.claims] == [
        "flipped", "complete", "nothing missing", "parallel reads absence", "three tasks",
    ]  # fmt: skip
    assert [c.name for c in proof.controls] == ["missing at random, sequential", "missing at random, parallel"]
    assert "real arm is left out" in proof.notes
    assert "real" not in proof.data
    assert [row[0] for row in proof.details["subsets"]["sequential"]] == [
        "one + two", "one", "two", "nothing", "one gone from 80 % of the positives",
        "one gone from 80 % of the negatives", "two gone from 80 % of the positives",
        "two gone from 80 % of the negatives",
    ]  # fmt: skip
    assert len(proof.details["presence leak, parallel"]) == 3
    assert set(proof.details["tuning seed 102"]) == {"sequential, lr 0.01", "parallel, lr 0.01"}


def test_bars_are_compared_as_they_read() -> None:
    names = {f"{arm}, {p}" for arm in multimodn.BOTH for p in multimodn.PATTERNS}
    names |= {f"{arm}, nothing missing in training or test" for arm in multimodn.BOTH}
    names |= {f"task {t} {how}" for t in (1, 2, 3) for how in ("of three together", "alone")}
    arms = {name: [0.9, 0.91, 0.92] for name in names} | {"best that ignores what is missing, same": [0.85, 0.86, 0.87]}
    arms["parallel, flipped"] = [0.7, 0.72, 0.71]
    shown = {c.name: c.shown for c in multimodn._claims(arms, False)}
    assert all(shown.values())
    arms["parallel, flipped"] = [0.85, 0.8, 0.81]
    arms["task 2 of three together"] = [0.88, 0.89, 0.9]
    shown = {c.name: c.shown for c in multimodn._claims(arms, False)}
    assert (shown["flipped"], shown["three tasks"], shown["complete"]) == (False, False, True)


@pytest.mark.real_data
def test_the_real_arm_is_the_same_code_by_config(shared_data, tmp_path) -> None:
    folder = shared_data("physionet2012")
    (tmp_path / "set-a").mkdir()
    shutil.copy(folder / "Outcomes-a.txt", tmp_path)
    for path in sorted((folder / "set-a").glob("*.txt"))[:500]:
        shutil.copy(path, tmp_path / "set-a")
    assert len(_icu.stays(str(tmp_path))) == 500
    found = multimodn.part(multimodn.Job("real", 100, SMALL, str(tmp_path)), Plan())
    assert found.arms[multimodn.TRIVIAL] > 0.6
    assert {"real: sequential, flipped", "real: parallel, flipped", multimodn.FLAGGED} <= set(found.arms)
    assert len(found.subsets["real: sequential"]) == 32 + 2 * 5
