"""What every fusion block obeys (missing fields, batches, order, gradients, saving), and MultiModN's own rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.encode.collate import Collate, Use
from fabrica.encode.table import TableEncode
from fabrica.errors import UsageError
from fabrica.evaluate.contributions import contributions, importance
from fabrica.models import LinearTower, ProjectionHead, TableTower, Tower
from fabrica.models.fusion import FusionNet
from fabrica.models.fusion_bundle import FusionBundle
from fabrica.models.load import load
from fabrica.models.parallel import Parallel
from fabrica.models.sequential import Sequential
from fabrica.models.task_heads import Heads
from fabrica.objectives.check import NonFinite
from fabrica.objectives.multitask import Tasks, multitask_ce
from fabrica.types import Absent, Batch, Field, Item, Origin, Record

DIM, STATE = 8, 6
INPUTS = {"a": 3, "b": 5, "c": 4}
TASKS = {"t": 2, "u": 3}


def towers() -> dict[str, Tower]:
    return {n: Tower(TableTower(i, (16, DIM)), ProjectionHead((DIM,), normalise=None)) for n, i in INPUTS.items()}


def heads() -> Heads:
    return Heads(TASKS, STATE, (8,))


def sequential(order: str = "fixed", **options: str) -> FusionNet:
    return Sequential(towers(), DIM, heads(), order=order, **options)


FUSIONS: Mapping[str, Callable[[], FusionNet]] = {
    "fixed": sequential,
    "shuffle": lambda: sequential("shuffle"),
    "hours": lambda: sequential("hours"),
    "zero": lambda: sequential(init="zero"),
    "parallel": lambda: Parallel(towers(), DIM, heads()),
    "parallel_flags": lambda: Parallel(towers(), DIM, heads(), flags=True),
}
NO_PRIOR = ("parallel", "parallel_flags")  # they answer a record without anything by what a net makes of constants


@pytest.fixture(params=FUSIONS)
def model(request: pytest.FixtureRequest) -> FusionNet:
    torch.manual_seed(0)
    made = FUSIONS[request.param]()
    return made.eval()


def batch_of(rows: int, seed: int = 0, items: int = 1, missing: float = 0.3) -> dict[str, Field]:
    g = torch.Generator().manual_seed(seed)
    made = {}
    for name, n in INPUTS.items():
        valid = torch.rand(rows, items, generator=g) >= missing
        values = torch.randn(rows, items, n, generator=g)
        hours = torch.rand(rows, items, generator=g) * 48
        made[name] = Field(values * valid[..., None], valid, hours)
    return made


def answers(model: FusionNet, fields: Mapping[str, Field]) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat(list(model.answer(fields).values()), 1)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


# ---------------------------------------------------------------- every fusion


def test_a_dropped_a_masked_and_a_nan_filled_field_are_one(model: FusionNet) -> None:
    fields = batch_of(7)
    gone = torch.zeros_like(fields["b"].valid)
    masked = {**fields, "b": dataclasses.replace(fields["b"], valid=gone)}
    nans = {**fields, "b": Field(torch.full_like(fields["b"].values, torch.nan), gone, fields["b"].hours)}
    dropped = {n: f for n, f in fields.items() if n != "b"}
    close(answers(model, masked), answers(model, dropped))
    close(answers(model, nans), answers(model, dropped))


def test_a_row_does_not_depend_on_its_batch(model: FusionNet) -> None:
    """A batch of 1 and a batch of 64 agree, whatever the others lack."""
    fields = batch_of(64)
    whole = answers(model, fields)
    for i in (0, 17, 63):
        one = {n: Field(f.values[i : i + 1], f.valid[i : i + 1], f.hours[i : i + 1]) for n, f in fields.items()}
        close(answers(model, one), whole[i : i + 1])


def test_a_row_that_lacks_a_field_leaves_the_others_untouched(model: FusionNet) -> None:
    fields = batch_of(16, missing=0.0)
    before = answers(model, fields)
    valid = fields["b"].valid.clone()
    valid[5] = False
    after = answers(model, {**fields, "b": dataclasses.replace(fields["b"], valid=valid)})
    rest = [i for i in range(16) if i != 5]
    close(after[rest], before[rest])
    assert (after[5] - before[5]).abs().max() > 1e-4


def test_the_order_of_the_given_mapping_does_not_matter(model: FusionNet) -> None:
    fields = batch_of(9)
    close(answers(model, dict(reversed(fields.items()))), answers(model, fields))


def test_more_room_for_absent_items_changes_nothing(model: FusionNet) -> None:
    fields = batch_of(9)
    wide = {
        n: Field(
            torch.cat([f.values, torch.full_like(f.values, torch.nan)], 1),
            torch.cat([f.valid, torch.zeros_like(f.valid)], 1),
            torch.cat([f.hours, torch.full_like(f.hours, torch.nan)], 1),
        )
        for n, f in fields.items()
    }
    close(answers(model, wide), answers(model, fields))


def test_a_record_with_nothing_has_the_same_finite_answer_as_any_other(model: FusionNet) -> None:
    fields = batch_of(4, missing=1.0)
    made = answers(model, fields)
    assert torch.isfinite(made).all()
    close(made, made[:1].expand_as(made))


def test_an_encoder_has_no_gradient_from_rows_without_it(model: FusionNet, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["model"] in NO_PRIOR:
        pytest.skip("parallel fusion reads a constant through the encoder: that is the baseline")
    fields = batch_of(6, missing=0.0)
    fields["b"] = dataclasses.replace(fields["b"], valid=torch.zeros_like(fields["b"].valid))
    model.zero_grad()
    model.answer(fields)["t"].sum().backward()
    grads = [p.grad for p in model.tower("b").parameters()]
    assert all(g is None or g.abs().max() == 0 for g in grads)
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.tower("a").parameters())


@pytest.mark.parametrize("present", [("a",), ("b",), ("a", "c"), ("a", "b", "c"), ()])
def test_the_loss_is_finite_and_falls_for_every_pattern(model: FusionNet, present: tuple[str, ...]) -> None:
    fields = batch_of(32, seed=1, missing=0.0)
    fields = {
        n: f if n in present else dataclasses.replace(f, valid=torch.zeros_like(f.valid)) for n, f in fields.items()
    }
    target = {"t": (fields["a"].values[:, 0, 0] > 0.7).float(), "u": torch.arange(32.0) % 2}
    batch = Batch(tuple(map(str, range(32))), fields, target, {n: torch.ones(32).bool() for n in target})
    loss = Tasks(("t", "u"), tuple(INPUTS))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    model.train()
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        found = loss(model, batch)
        assert found.count == 32
        found.total.backward()
        optimiser.step()
        losses.append(float(found.total.detach()))
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.97 * losses[0]


def bundle_of(model: FusionNet) -> FusionBundle:
    def encode(n: int) -> TableEncode:
        return TableEncode(tuple(f"x{i}" for i in range(n)), (0.0,) * n, (1.0,) * n, flags=False)

    uses = {name: Use((name,), encode(n), most=2) for name, n in INPUTS.items()}
    return FusionBundle(model, Collate(uses, targets=tuple(TASKS)), {"title": "test"})


def records(n: int = 12, seed: int = 0) -> list[Record]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        items = {}
        for name, size in INPUTS.items():
            names = tuple(f"x{j}" for j in range(size))
            origin = Origin("test", f"{i}", "", "CC0-1.0", "synthetic")
            value = rng.standard_normal(size) if rng.random() > 0.3 else Absent.NOT_DONE
            items[name] = (Item("table", value, origin, float(rng.random() * 48), names=names),)
        made.append(Record(f"{i}", f"{i}", items=items, labels={"t": float(i % 2), "u": float(i % 3)}))
    return made


def test_saved_and_loaded_answers_agree(model: FusionNet, tmp_path: Path) -> None:
    bundle = bundle_of(model)
    before = bundle.answer(records())
    again = load(bundle.save_pretrained(tmp_path / "model"))
    assert isinstance(again, FusionBundle)
    assert type(again.model) is type(model)
    assert again.model.to_json() == model.to_json()
    after = again.answer(records())
    for task in TASKS:
        np.testing.assert_allclose(after.readings[task], before.readings[task], atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="half precision is tried on a GPU alone")
def test_half_precision_on_a_gpu(model: FusionNet) -> None:
    fields = batch_of(16)
    want = answers(model, fields)
    on = {n: Field(f.values.cuda(), f.valid.cuda(), f.hours.cuda()) for n, f in fields.items()}
    with torch.autocast("cuda", torch.float16):
        got = answers(model.cuda(), on).float().cpu()
    assert (got - want).abs().max() < 1e-2


# ---------------------------------------------------------------- errors


def test_errors_name_what_is_wrong(model: FusionNet) -> None:
    fields = batch_of(4, missing=0.0)
    with pytest.raises(UsageError, match="no tower for the field 'bb'; did you mean"):
        model.answer({**fields, "bb": fields["b"]})
    with pytest.raises(UsageError, match="at least one field"):
        model.answer({})
    bad = fields["b"].values.clone()
    bad[2, 0, 1] = torch.nan
    with pytest.raises(NonFinite, match="field 'b' holds NaN") as error:
        model.answer({**fields, "b": dataclasses.replace(fields["b"], values=bad)})
    assert error.value.rows == (2,)


def test_a_nan_inside_a_valid_row_names_record_and_field() -> None:
    bundle = bundle_of(FUSIONS["fixed"]())
    fields = batch_of(3, missing=0.0)
    fields["c"].values[1, 0, 0] = torch.inf
    with pytest.raises(NonFinite, match=r"field 'c'.*records 1$"):
        bundle.answer_fields(fields)


def test_an_encoder_of_another_width_is_refused() -> None:
    with pytest.raises(UsageError, match="tower 'a' gives 5 values, the shared space has 8"):
        Sequential({"a": Tower(LinearTower(3, 5), ProjectionHead((5,), normalise=None))}, DIM, heads())


def test_a_target_without_a_head_is_refused() -> None:
    bundle = bundle_of(FUSIONS["fixed"]())
    with pytest.raises(UsageError, match="no head for the target 'death'"):
        FusionBundle(bundle.model, dataclasses.replace(bundle.collate, targets=("death",)))
    batch = Batch(("0",), batch_of(1), {"v": torch.zeros(1)}, {"v": torch.ones(1).bool()})
    with pytest.raises(UsageError, match="no head for the task 'v'"):
        Tasks(("v",), ("a",))(bundle.model, batch)


def test_an_order_must_name_the_given_fields() -> None:
    model = FUSIONS["fixed"]()
    assert isinstance(model, Sequential)
    fields = batch_of(2)
    with pytest.raises(UsageError, match="no field in `order`, of those given, 'd'"):
        model.read(fields, order=("a", "b", "d"))
    with pytest.raises(UsageError, match="wanted each of"):
        model.read(fields, order=("a", "b"))
    with pytest.raises(UsageError, match="did you mean 'shuffle'"):
        Sequential(towers(), DIM, heads(), order="shufle")  # type: ignore[arg-type]


# ---------------------------------------------------------------- MultiModN


def test_steps_follow_the_paper_s_update() -> None:
    """s_i = W_m [h_i ; s_{i-1}] + b_m by hand."""
    torch.manual_seed(1)
    model = sequential().eval()
    assert isinstance(model, Sequential)
    fields = batch_of(3, missing=0.0)
    state = model.start.expand(3, -1)
    for name in INPUTS:
        h = model.tower(name)(fields[name]).pooled
        state = torch.cat([h, state], 1) @ model.update[name].weight.T + model.update[name].bias
    reading = model.read(fields)
    close(reading.states[:, -1], state)
    assert reading.states.shape == (3, 4, STATE)
    assert reading.logits["u"].shape == (3, 4, 3)


def test_nothing_at_all_is_the_prior_s_answer() -> None:
    model = sequential().eval()
    assert isinstance(model, Sequential)
    close(
        answers(model, batch_of(2, missing=1.0)),
        torch.cat(list(model.heads(model.start[None]).values()), 1).expand(2, -1),
    )


def test_the_same_field_twice_is_two_steps() -> None:
    model = sequential().eval()
    one = batch_of(5, missing=0.0)
    two = {n: Field(torch.cat([f.values] * 2, 1), torch.cat([f.valid] * 2, 1)) for n, f in one.items()}
    reading = model.read(two)
    assert reading.ran.shape == (5, 7)
    assert reading.step[0].tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert (answers(model, two) - answers(model, one)).abs().max() > 1e-4


def test_each_record_s_own_order_goes_by_its_hours() -> None:
    model = FUSIONS["hours"]().eval()
    fields = batch_of(8, missing=0.0)
    reading = model.read(fields)
    clock = torch.cat([f.hours for f in fields.values()], 1)
    assert reading.step[:, 1:].tolist() == (clock.argsort(1) + 1).tolist()
    for i in range(8):
        one = {n: Field(f.values[i : i + 1], f.valid[i : i + 1]) for n, f in fields.items()}
        names = [list(INPUTS)[j] for j in clock[i].argsort().tolist()]
        close(model.read(one, order=names).states[:, -1], reading.states[i : i + 1, -1])
    unknown = {n: dataclasses.replace(f, hours=None) for n, f in fields.items()}
    assert model.read(unknown).step[0].tolist() == [0, 1, 2, 3]


def test_shuffling_happens_in_training_alone_and_each_batch_anew() -> None:
    model = FUSIONS["shuffle"]()
    fields = batch_of(2)
    model.train()
    torch.manual_seed(0)
    seen = {model.read(fields).names for _ in range(30)}
    assert len(seen) == 6
    model.eval()
    assert {model.read(fields).names for _ in range(5)} == {("start", *INPUTS)}


def test_contributions_add_up_and_skipped_steps_give_none() -> None:
    bundle = bundle_of(sequential())
    found = bundle.answer(records(30), batch=7)
    for task in TASKS:
        p = found.readings[task].astype(np.float64)
        parts = contributions(found.readings[task], found.ran)
        np.testing.assert_allclose(parts.sum(1), p[:, -1] - p[:, 0], atol=1e-12)
        assert (parts[~found.ran[:, 1:]] == 0).all()
        np.testing.assert_allclose(found.tasks[task], found.readings[task][:, -1])
    assert (~found.ran).any()
    told = importance(found.readings["t"], found.ran, found.step, found.names)
    assert set(told) == set(INPUTS)
    assert all(v >= 0 for v in told.values())


def test_fields_left_out_of_an_answer_are_absent() -> None:
    bundle = bundle_of(sequential())
    rows = records()
    gone = [r.without("b") for r in rows]
    np.testing.assert_allclose(
        bundle.answer(rows, without=("b",)).tasks["t"], bundle.answer(gone).tasks["t"], atol=1e-6
    )
    with pytest.raises(UsageError, match="no field 'bb'"):
        bundle.answer(rows, without=("bb",))


# ---------------------------------------------------------------- the loss


def test_a_row_with_little_weighs_as_much_as_one_with_all() -> None:
    """Two rows with the same error at every reading that ran: `ran` counts them alike, `all` does not."""
    logits = {"t": torch.tensor([[[2.0, 0.0]] * 4, [[2.0, 0.0]] * 4], requires_grad=True)}
    ran = torch.tensor([[True] * 4, [True, True, False, False]])
    known = {"t": torch.ones(2, dtype=torch.bool)}
    weights = {}
    for divisor in ("ran", "all"):
        loss, _, _ = multitask_ce(logits, {"t": torch.ones(2)}, known, ran, divisor=divisor)  # type: ignore[arg-type]
        (grad,) = torch.autograd.grad(loss, logits["t"])
        weights[divisor] = grad.abs().sum((1, 2))
    assert torch.isclose(weights["ran"][0], weights["ran"][1])
    assert torch.isclose(weights["all"][0], 2 * weights["all"][1])
    assert (grad[1, 2:] == 0).all()


def test_unknown_labels_have_no_gradient_and_a_batch_without_any_counts_for_nothing() -> None:
    logits = {"t": torch.randn(3, 2, 2, requires_grad=True), "u": torch.randn(3, 2, 3, requires_grad=True)}
    targets = {"t": torch.tensor([1.0, 0.0, 1.0]), "u": torch.tensor([2.0, 0.0, 0.0])}
    known = {"t": torch.tensor([True, False, False]), "u": torch.tensor([True, True, False])}
    ran = torch.ones(3, 2).bool()
    loss, rows, terms = multitask_ce(logits, targets, known, ran)
    loss.backward()
    assert rows == 2
    assert set(terms) == {"t", "u"}
    assert (logits["t"].grad[1:] == 0).all()
    assert (logits["u"].grad[2] == 0).all()
    by_hand = [
        torch.nn.functional.cross_entropy(logits[n][i], torch.full((2,), int(targets[n][i])))
        for n, i in (("t", 0), ("u", 0), ("u", 1))
    ]
    assert torch.isclose(loss, ((by_hand[0] + by_hand[1]) / 2 + by_hand[2]) / 2)
    none = {n: torch.zeros(3, dtype=torch.bool) for n in known}
    loss, rows, terms = multitask_ce(logits, targets, none, ran)
    assert (float(loss), rows, terms) == (0.0, 0, {})


@given(st.integers(0, 10_000), st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_balanced_classes_weigh_alike_at_every_reading(seed: int, readings: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logits = {"t": torch.zeros(12, readings, 2, requires_grad=True)}
    target = torch.cat([torch.zeros(9), torch.ones(3)])
    ran = torch.rand(12, readings, generator=g) < 0.7
    ran[:, 0] = True
    known = {"t": torch.ones(12, dtype=torch.bool)}
    loss, _, _ = multitask_ce(logits, {"t": target}, known, ran, divisor="all", balance=True)
    (grad,) = torch.autograd.grad(loss, logits["t"])
    size = grad[..., 0].abs()  # (12, K)
    for k in range(readings):
        classes = [size[(target == c), k].sum() for c in (0, 1)]
        if all(c > 0 for c in classes):
            assert torch.isclose(classes[0], classes[1], rtol=1e-4)


def test_a_class_that_no_head_has_is_refused() -> None:
    with pytest.raises(UsageError, match="task 't': a target is 2; wanted a class from 0 to 1"):
        multitask_ce({"t": torch.zeros(1, 1, 2)}, {"t": torch.tensor([2.0])}, {"t": torch.ones(1).bool()},
                     torch.ones(1, 1).bool())  # fmt: skip


def test_the_change_of_state_is_counted_over_steps_that_ran() -> None:
    model = sequential().eval()
    fields = batch_of(5, seed=3)
    batch = Batch(tuple("01234"), fields, {"t": torch.zeros(5)}, {"t": torch.ones(5).bool()})
    reading = model.read(fields)
    plain, moved = (float(Tasks(("t",), tuple(INPUTS), state_change=w)(model, batch).total) for w in (0.0, 2.0))
    by_hand = []
    for i in range(5):
        steps = [k for k in range(1, 4) if reading.ran[i, k]]
        change = [float((reading.states[i, k] - reading.states[i, k - 1]).pow(2).mean()) for k in steps]
        by_hand.append(np.mean(change) if change else 0.0)
    assert moved - plain == pytest.approx(0.01 * 2.0 * np.mean(by_hand), rel=1e-4)
