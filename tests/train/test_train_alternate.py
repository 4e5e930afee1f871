"""Turns: each part moves in its own turn and nothing else does; the same as several optimisers; kill and resume."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from fabrica.errors import UsageError
from fabrica.train import InMemory, alternate, fit, loop
from fabrica.train.alternate import Turns
from fabrica.train.log import read
from fabrica.types import Batch, Field, Loss, Schedule, Stage


class Two(nn.Module):
    """A net and a critic of its output."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Linear(4, 1))
        self.critic = nn.Linear(1, 1)


@dataclasses.dataclass
class Judge:
    reads: tuple[str, ...] = ("x",)

    def __call__(self, model, batch):
        with torch.no_grad():
            fake = model.net(batch.fields["x"].values[:, 0])
        return Loss((model.critic(fake) + 1).square().mean(), {"score": 0.0}, len(batch))


@dataclasses.dataclass
class Please:
    reads: tuple[str, ...] = ("x",)
    skip: bool = False

    def __call__(self, model, batch):
        loss = (model.critic(model.net(batch.fields["x"].values[:, 0])) - 1).square().mean()
        return Loss(loss, {}, 0 if self.skip else len(batch))


def data(n=16):
    g = torch.Generator().manual_seed(0)
    values = torch.randn(n, 1, 3, generator=g)
    return InMemory(Batch(tuple(f"{i}" for i in range(n)), {"x": Field(values, torch.ones(n, 1).bool())}))


def stage(steps=6, **objectives):
    held = data()
    objectives = objectives or {"critic": Judge(), "net/please": Please()}
    plan = Schedule(steps, 4, 1e-2, weight_decay=0.1, clip=None, lr_scale={"critic": 0.5})
    return held, Turns("turns", lambda r, e: None, objectives, plan)


def made():
    torch.manual_seed(3)
    return Two()


def test_a_turn_moves_its_part_and_leaves_every_other_bit(tmp_path, monkeypatch):
    """Parameters AND running statistics; weight decay is no way in either."""
    seen = []
    whole = alternate._InTurn._turn

    def watched(self, stage, name, at, batch, optimiser):
        before = copy.deepcopy(self.model.state_dict())
        line = whole(self, stage, name, at, batch, optimiser)
        after = self.model.state_dict()
        seen.append((name, {k.partition(".")[0] for k in after if not torch.equal(before[k], after[k])}))
        return line

    monkeypatch.setattr(alternate._InTurn, "_turn", watched)
    held, turns = stage()
    fit(made(), (turns,), held, tmp_path, save_every=0)
    assert seen == [("critic", {"critic"}), ("net/please", {"net"})] * 6


def test_one_adamw_with_turns_is_an_optimiser_for_each_part(tmp_path):
    held, turns = stage()
    model = made()
    model.net[2].p = 0.0
    twin = copy.deepcopy(model)
    fit(model, (turns,), held, tmp_path, save_every=0)
    plan = turns.schedule
    order = loop.sampler(held, turns, 0)
    optimisers = {}
    for name, rate in (("critic", 0.5), ("net", 1.0)):
        part = twin.get_submodule(name)
        groups = [
            {"params": [p for p in part.parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in part.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ]
        optimisers[name] = (torch.optim.AdamW(groups, lr=plan.lr), rate)
    for step in range(plan.steps):
        batch = held.batch(order.global_batch(step), step)
        for name, objective in (("critic", Judge()), ("net", Please())):
            twin.train()
            twin.get_submodule("net" if name == "critic" else "critic").eval()
            optimiser, factor = optimisers[name]
            twin.zero_grad()
            objective(twin, batch).total.backward()
            for group in optimiser.param_groups:
                group["lr"] = factor * loop.optim.rate(plan, step)
            optimiser.step()
    for (name, a), b in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


def test_killed_and_resumed_is_the_same_run(tmp_path):
    held, turns = stage(steps=8)
    whole = made()
    losses = fit(whole, (turns,), held, tmp_path / "whole", save_every=3).losses
    calls = []

    def kill(done, total, what):
        calls.append(done)
        if done == 5:
            raise KeyboardInterrupt

    model = made()
    with pytest.raises(KeyboardInterrupt):
        fit(model, (turns,), held, tmp_path / "part", save_every=3, progress=kill)
    again = made()
    result = fit(again, (turns,), held, tmp_path / "part", save_every=3)
    assert result.resumed_from == 3
    assert result.losses == losses
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_other_turns_is_refused(tmp_path):
    held, turns = stage()
    fit(made(), (turns,), held, tmp_path, save_every=0)
    plain = Stage("turns", turns.collate, turns.objectives, turns.schedule)
    with pytest.raises(UsageError, match="another run"):
        fit(made(), (plain, dataclasses.replace(turns, name="more")), held, tmp_path, save_every=0)


def test_turns_without_rows_are_left_out_and_a_step_without_any_is_skipped(tmp_path):
    held, turns = stage(critic=Judge(), net=Please(skip=True))
    model = made()
    before = copy.deepcopy(model.net.state_dict())
    result = fit(model, (turns,), held, tmp_path / "a", save_every=0)
    assert result.skipped == 0
    assert all("critic" in line and "net" not in line for line in read(tmp_path / "a" / "train.jsonl"))
    assert all(
        torch.equal(v, before[k])
        for k, v in model.net.state_dict().items()
        if "running" not in k and "tracked" not in k
    )
    held, turns = stage(net=Please(skip=True))
    assert fit(made(), (turns,), held, tmp_path / "b", save_every=0).skipped == 6


def test_a_plain_stage_beside_turns_runs_as_in_the_loop(tmp_path):
    held, turns = stage()
    plain = Stage("plain", turns.collate, {"please": Please()}, dataclasses.replace(turns.schedule, lr_scale={}))
    a, b = made(), made()
    alone = loop.fit(a, (plain,), held, tmp_path / "a", save_every=0)
    both = alternate.fit(b, (plain,), held, tmp_path / "b", save_every=0)
    assert alone.losses == both.losses
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert fit(made(), (plain, turns), held, tmp_path / "c", save_every=0).steps == 12


def test_a_part_that_is_not_there_is_named_and_the_coefficient_weighs_its_turn(tmp_path):
    held, turns = stage(critc=Judge())
    with pytest.raises(UsageError, match="did you mean 'critic'"):
        fit(made(), (turns,), held, tmp_path / "a", save_every=0)
    held, turns = stage()
    weighed = dataclasses.replace(turns, coefficients={"critic": 0.0})
    model = made()
    before = model.critic.weight.detach().clone()
    plain = dataclasses.replace(weighed, schedule=dataclasses.replace(turns.schedule, weight_decay=0.0))
    fit(model, (plain,), held, tmp_path / "b", save_every=0)
    assert torch.equal(model.critic.weight, before)
