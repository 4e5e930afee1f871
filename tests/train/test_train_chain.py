"""A curriculum: what a stage left is what the next one loads; a file or a plan that differs is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fabrica.errors import Refused, UsageError
from fabrica.models.language_bundle import LanguageBundle, language
from fabrica.objectives.language import NextToken
from fabrica.train.chain import Forgotten, Guard, chain
from fabrica.types import Item, Origin, Record, Schedule, Stage

ORIGIN = Origin("made", "a", "", "CC0-1.0", "synthetic")


def texts(prefix, n):
    return [
        Record(f"{prefix}{i}", f"{prefix}{i}", items={"answer": (Item("text", f"{prefix} {i % 7} end", ORIGIN),)})
        for i in range(n)
    ]


@pytest.fixture
def made():
    data = {"first": texts("red", 30), "second": texts("blue", 30)}
    torch.manual_seed(0)
    model, collate = language("small", [r for v in data.values() for r in v], lengths=(4, 8), width=32, depth=1)
    bundle = LanguageBundle(model, collate)
    stages = [Stage(n, collate, {"next": NextToken(2)}, Schedule(6, 8, 1e-2)) for n in data]
    return bundle, stages, data


def fresh(bundle, made):
    torch.manual_seed(0)
    model, collate = language("small", [r for v in made[2].values() for r in v], lengths=(4, 8), width=32, depth=1)
    return LanguageBundle(model, collate)


def test_each_stage_begins_with_the_weights_of_the_one_before(made, tmp_path):
    bundle, stages, data = made
    seen = []
    first, second = chain(bundle, stages, data, tmp_path, each=lambda link: seen.append(link.stage))
    assert seen == ["first", "second"]
    assert second.before == first.after != first.before
    assert first.data != second.data
    assert "lm.model.embed_tokens.weight" in first.trained
    again = chain(fresh(bundle, made), stages, data, tmp_path)
    assert again == (first, second), "done stages are loaded, not run again"


def test_changed_weights_or_another_plan_are_refused(made, tmp_path):
    bundle, stages, data = made
    chain(bundle, stages, data, tmp_path)
    with pytest.raises(Refused, match="other records or schedule"):
        chain(fresh(bundle, made), stages, data | {"first": texts("red", 29)}, tmp_path)
    other = fresh(bundle, made)
    with torch.no_grad():
        next(other.model.parameters()).add_(1e-3)
    with pytest.raises(Refused, match="other weights"):
        chain(other, stages, data, tmp_path)
    file = tmp_path / "1-first" / "model.safetensors"
    held = load_file(file)
    name = sorted(held)[0]
    save_file({**held, name: held[name] + 1e-3}, file)
    with pytest.raises(Refused, match="its link says"):
        chain(fresh(bundle, made), stages, data, tmp_path)
    (tmp_path / "1-first" / "link.json").write_text("{}")
    with pytest.raises(Refused, match="no link of a chain"):
        chain(fresh(bundle, made), stages, data, tmp_path)


def test_a_stage_killed_before_its_link_runs_again_and_gives_the_same(made, tmp_path):
    bundle, stages, data = made
    links = chain(bundle, stages, data, tmp_path)
    (tmp_path / "2-second" / "link.json").unlink()
    again = chain(fresh(bundle, made), stages, data, tmp_path)
    assert [link.after for link in again] == [link.after for link in links]


def test_the_guard_stops_a_stage_that_forgets_or_only_records_it(made, tmp_path):
    bundle, stages, data = made
    old = [r.items["answer"][0].text() for r in data["first"]]
    stages = [stages[0], replace(stages[1], schedule=Schedule(40, 8, 3e-2))]
    guard = Guard(lambda b: b.perplexity(old, skip=1), 0.10, stages=("second",))
    with pytest.raises(Forgotten, match="stage 'second' raised"):
        chain(bundle, stages, data, tmp_path / "a", guard=guard)
    assert json.loads((tmp_path / "a" / "2-second" / "link.json").read_text())["guard"], "what it did is kept"
    links = chain(fresh(bundle, made), stages, data, tmp_path / "b", guard=Guard(guard.loss, stop=False))
    assert links[1].risen > 0.10
    assert np.isfinite(links[0].risen)


def test_stages_need_names_and_data_of_their_own(made, tmp_path):
    bundle, stages, data = made
    with pytest.raises(UsageError, match=r"no data for \['second'\]"):
        chain(bundle, stages, {"first": data["first"]}, tmp_path)
    with pytest.raises(UsageError, match="different names"):
        chain(bundle, [stages[0], stages[0]], data, tmp_path)
