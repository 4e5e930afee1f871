"""Rows of a leaderboard are comparable, or refused with the reason; the table is computed from the file."""

import json
from dataclasses import replace

import pytest

from fabrica.errors import Refused, UsageError
from fabrica.evaluate.leaderboard import Entry, Leaderboard, Rules
from fabrica.systems.datacomp import RECIPES, SHARED, of_scale

TASKS = ("zero_shot", "retrieval")
RULES = Rules(SHARED, {k: r.samples_seen for k, r in RECIPES.items()}, TASKS)
GOOD = Entry("a", "micro", "filtering", SHARED["micro"], 200_000, "pool", 60_000, {"zero_shot": 0.5, "retrieval": 0.3})


@pytest.fixture
def board(tmp_path):
    return Leaderboard(tmp_path / "board.jsonl", RULES)


def test_the_table_is_the_mean_over_tasks_best_first(board):
    board.submit(GOOD)
    board.submit(replace(GOOD, name="b", scores={"zero_shot": 0.7, "retrieval": 0.3, "extra": 1.0}))
    board.submit(replace(GOOD, name="c", scores={"zero_shot": 0.7, "retrieval": 0.3}))
    board.submit(replace(GOOD, name="own", track="byod", removed=12))
    rows = board.table("micro", "filtering")
    assert [(rank, entry.name) for rank, _, entry in rows] == [(1, "b"), (1, "c"), (3, "a")]
    assert [round(score, 9) for _, score, _ in rows] == [0.5, 0.5, 0.4]
    assert "| 1 | b | 60,000 |  | 0.500 | 0.700 | 0.300 |" in board.markdown("micro", "filtering")
    assert "| 1 | own | 60,000 | 12 |" in board.markdown("micro", "byod")
    assert board.table("nano", "filtering") == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"recipe": "0" * 16}, "recipe_changed"),
        ({"recipe": replace(RECIPES["micro"], lr=2e-3).digest}, "recipe_changed"),
        ({"samples_seen": 400_000}, "samples_seen"),
        ({"scores": {"zero_shot": 0.5}}, "tasks_missing"),
        ({"scores": {"zero_shot": 0.5, "retrieval": float("nan")}}, "score_range"),
        ({"scores": {"zero_shot": 0.5, "retrieval": 51.0}}, "score_range"),
        ({"track": "byod"}, "not_decontaminated"),
    ],
)
def test_what_is_not_comparable_is_refused(board, changes, code):
    board.submit(replace(GOOD, name="first"))
    with pytest.raises(Refused) as refused:
        board.submit(replace(GOOD, **changes))
    assert refused.value.code == code
    assert len(board.entries()) == 1


def test_a_row_edited_in_the_file_is_refused_as_well(board):
    board.submit(GOOD)
    data = json.loads(board.path.read_text())
    board.path.write_text(json.dumps(data | {"recipe": "f" * 16}) + "\n")
    with pytest.raises(Refused, match="not the frozen one"):
        board.table("micro", "filtering")
    for line in ("{}", "not json", json.dumps(data | {"surprise": 1})):
        board.path.write_text(line + "\n")
        with pytest.raises(UsageError, match="line 1"):
            board.entries()


def test_names_are_once_a_scale_and_track(board):
    board.submit(GOOD)
    with pytest.raises(Refused, match="name it anew"):
        board.submit(GOOD)
    with pytest.raises(UsageError, match="scale 'micor'"):
        board.submit(replace(GOOD, scale="micor"))
    with pytest.raises(UsageError, match="track"):
        board.submit(replace(GOOD, track="filter"))


def test_the_recipes_hash_changes_with_every_frozen_value():
    recipe = RECIPES["small"]
    for name, value in (("lr", 1e-3), ("samples_seen", 1), ("batch", 2), ("warmup", 3), ("patch", 16), ("beta2", 0.9)):
        assert replace(recipe, **{name: value}).digest != recipe.digest, name
    assert len(set(SHARED.values())) == len(SHARED)
    settings = of_scale("micro")
    assert settings.digest == SHARED["micro"]
    assert replace(settings, filter="none", fraction=0.9, seed=7).digest == SHARED["micro"]
    assert replace(settings, steps=settings.steps * 2).digest != SHARED["micro"]
    assert replace(settings, batch=128, steps=settings.steps * 2).digest != SHARED["micro"]
