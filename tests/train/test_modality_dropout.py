"""Modality dropout hides what it says, at the rate it says, keeps what it must, and by `valid` alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import UsageError
from fabrica.train.modality_dropout import ModalityDropout, keep_some
from fabrica.types import Batch, Field, Loss


@dataclass
class Seen:
    """Keeps the batch it was given."""

    reads: tuple[str, ...] = ("a", "b", "y")
    batch: Batch | None = None

    def __call__(self, model, batch):
        self.batch = batch
        return Loss(torch.zeros(()), {}, len(batch))


def batch(n: int = 4000, items: int = 1, cells: int = 3) -> Batch:
    def field(seed: int) -> Field:
        g = torch.Generator().manual_seed(seed)
        values = torch.randn(n, items, 2 * cells, generator=g)
        values[..., cells:] = 1.0
        return Field(values, torch.ones(n, items, dtype=torch.bool), torch.zeros(n, items))

    return Batch(tuple(map(str, range(n))), {"a": field(1), "b": field(2), "other": field(3)})


@given(p=st.floats(0, 1), keep=st.integers(0, 4), share=st.floats(0, 1), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_what_stays_was_there_and_is_enough(p: float, keep: int, share: float, seed: int) -> None:
    torch.manual_seed(seed)
    there, moves = torch.rand(50, 5) < share, torch.rand(50, 5) < 0.7
    kept = keep_some(there, moves, p, keep)
    assert not (kept & ~there).any()
    assert (kept | moves | ~there).all()  # what may not move stays
    assert (kept.sum(1) >= torch.minimum(there.sum(1), torch.tensor(keep))).all()


def test_each_role_goes_at_the_rate_and_never_both() -> None:
    torch.manual_seed(0)
    inner, given_ = Seen(), batch()
    ModalityDropout(inner, 0.4)(None, given_)
    a, b = (inner.batch.fields[n].valid[:, 0] for n in "ab")
    assert (a | b).all()
    # gone alone with p (1 - p) + p^2 / 2: where both would go, one of them is drawn to stay
    for one in (a, b):
        assert 1 - one.float().mean().item() == pytest.approx(0.4 * 0.6 + 0.08, abs=0.03)
    assert inner.batch.fields["other"].valid.all()  # the objective does not read it
    assert given_.fields["a"].valid.all()  # the batch itself is as it was
    assert inner.batch.fields["a"].values is given_.fields["a"].values  # hidden by `valid`, not by a value


def test_a_row_with_one_role_keeps_it_and_a_row_with_none_stays_empty() -> None:
    torch.manual_seed(1)
    inner, held = Seen(), batch(6)
    held.fields["a"].valid[:3] = False
    held.fields["b"].valid[:2] = False
    ModalityDropout(inner, 1.0)(None, held)
    assert not inner.batch.fields["a"].valid[:3].any()
    assert inner.batch.fields["b"].valid[:, 0].tolist()[:3] == [False, False, True]
    assert (inner.batch.fields["a"].valid ^ inner.batch.fields["b"].valid)[3:].all()


def test_only_the_named_fields_are_hidden() -> None:
    torch.manual_seed(0)
    inner = Seen()
    ModalityDropout(inner, 1.0, ("a",))(None, batch(10))
    assert not inner.batch.fields["a"].valid.any()  # b is there: a need not stay
    assert inner.batch.fields["b"].valid.all()


def test_items_in_time_go_one_by_one() -> None:
    torch.manual_seed(0)
    inner = Seen()
    ModalityDropout(inner, 0.5, unit="time")(None, batch(2000, items=4))
    left = inner.batch.fields["a"].valid
    assert left.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert ((left.sum(1) > 0) & (left.sum(1) < 4)).any()


def test_cells_lose_value_and_flag_and_a_table_without_any_is_absent() -> None:
    torch.manual_seed(0)
    inner = Seen(reads=("a",))
    ModalityDropout(inner, 0.7, keep=0, unit="cell")(None, batch(3000))
    field = inner.batch.fields["a"]
    values, flags = field.values[:, 0].chunk(2, 1)
    assert flags.mean().item() == pytest.approx(0.3, abs=0.03)
    assert (values[flags == 0] == 0).all()
    assert torch.equal(field.valid[:, 0], flags.sum(1) > 0)
    with pytest.raises(UsageError, match=r"cells with flags"):
        ModalityDropout(inner, 0.5, unit="cell")(
            None, Batch(("r",), {"a": Field(torch.zeros(1, 1, 3), torch.ones(1, 1) > 0)})
        )


def test_the_same_state_of_the_generator_hides_the_same() -> None:
    seen = []
    for _ in range(2):
        torch.manual_seed(5)
        inner = Seen()
        ModalityDropout(inner, 0.5)(None, batch(40))
        seen.append(inner.batch.fields["a"].valid)
    assert torch.equal(*seen)


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(UsageError, match="did you mean 'role'"):
        ModalityDropout(Seen(), 0.5, unit="rol")
    with pytest.raises(UsageError, match="share from 0 to 1"):
        ModalityDropout(Seen(), 1.5)
    with pytest.raises(UsageError, match="no field that the objective reads 'c'"):
        ModalityDropout(Seen(), 0.5, ("c",))
    from fabrica.objectives.pairs import Contrast

    with pytest.raises(UsageError, match="contrastive"):
        ModalityDropout(Contrast(("a", "b")), 0.5)
