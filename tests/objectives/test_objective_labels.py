"""Masked cross-entropy of labels: torch's own where all is known, the definition, and the unknown has no say."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from fabrica.errors import UsageError
from fabrica.models import LinearTower, MultiTower, ProjectionHead, Tower
from fabrica.objectives.check import NonFinite
from fabrica.objectives.labels import Labels, masked_bce
from fabrica.train.step import Terms, gradients
from fabrica.types import Batch, Contrastive, Field, Objective


def model(labels=2):
    torch.manual_seed(0)
    return MultiTower({"image": Tower(LinearTower(3, 8), ProjectionHead((8, labels), normalise=None))}, labels)


def batch(n=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    values = torch.randn(n, 1, 3, generator=g)
    targets = {k: torch.randint(0, 2, (n,), generator=g).float() for k in "ab"}
    known = {k: torch.rand(n, generator=g) < 0.6 for k in "ab"}
    ids = tuple(map(str, range(n)))
    return Batch(ids, {"image": Field(values, torch.ones(n, 1, dtype=torch.bool))}, targets, known)


def test_where_all_is_known_it_is_torchs_own():
    logits, targets = torch.randn(5, 3), torch.rand(5, 3)
    loss, rows = masked_bce(logits, targets, torch.ones(5, 3, dtype=torch.bool))
    assert rows == 5
    torch.testing.assert_close(loss, functional.binary_cross_entropy_with_logits(logits, targets))


@given(st.integers(0, 10_000))
def test_equals_the_definition_and_unknown_cells_have_no_say(seed):
    g = torch.Generator().manual_seed(seed)
    logits, targets = torch.randn(4, 3, generator=g, requires_grad=True), torch.rand(4, 3, generator=g)
    known = torch.rand(4, 3, generator=g) < 0.5
    loss, rows = masked_bce(logits, targets, known)
    p = logits.detach().sigmoid()
    cells = -(targets * p.log() + (1 - targets) * (1 - p).log())
    wanted = [float(c[k].mean()) for c, k in zip(cells, known, strict=True) if k.any()]
    assert rows == len(wanted)
    assert float(loss.detach()) == pytest.approx(sum(wanted) / len(wanted) if wanted else 0.0, abs=1e-5)
    loss.backward()
    assert (logits.grad[~known] == 0).all()
    assert (logits.grad[known] != 0).all()
    other, _ = masked_bce(logits.detach(), torch.where(known, targets, torch.nan), known)
    assert float(other) == float(loss.detach())


def test_it_is_a_plain_objective_and_names_what_it_reads():
    objective = Labels(("a", "b"))
    assert isinstance(objective, Objective)
    assert not isinstance(objective, Contrastive)
    assert objective.reads == ("image", "a", "b")


def test_a_record_without_the_image_equals_a_batch_without_it():
    full, net = batch(), model()
    here = torch.tensor([True, True, True, True, False, False])
    field = Field(full.fields["image"].values, here[:, None])
    some = Labels(("a", "b"))(net, Batch(full.ids, {"image": field}, full.targets, full.known))
    part = Labels(("a", "b"))(
        net,
        Batch(
            full.ids[:4], {"image": Field(full.fields["image"].values[:4], here[:4, None])},
            {k: v[:4] for k, v in full.targets.items()}, {k: v[:4] for k, v in full.known.items()},
        ),
    )  # fmt: skip
    assert some.count == part.count
    torch.testing.assert_close(some.total, part.total)


def test_chunks_give_the_gradient_of_the_whole_batch():
    terms, whole = Terms.of({"labels": Labels(("a", "b"))}, {}), batch(9)
    grads = []
    for chunk in (0, 2):
        net = model()
        outcome = gradients(net, whole, terms, seed=0, chunk=chunk)
        grads.append((outcome.total, outcome.count, torch.cat([p.grad.flatten() for p in net.towers.parameters()])))
    assert grads[0][1] == grads[1][1] == int(torch.stack([*whole.known.values()]).any(0).sum())
    assert grads[0][0] == pytest.approx(grads[1][0], abs=1e-6)
    torch.testing.assert_close(grads[0][2], grads[1][2], atol=1e-6, rtol=1e-5)


def test_nothing_known_counts_nothing():
    one = batch()
    loss = Labels(("a", "b"))(
        model(), Batch(one.ids, one.fields, one.targets, {k: ~(v | True) for k, v in one.known.items()})
    )
    assert loss.count == 0
    assert float(loss.total.detach()) == 0.0


def test_what_does_not_fit_says_so():
    one = batch()
    with pytest.raises(UsageError, match="2 values for 'image', there are 1 labels"):
        Labels(("a",))(model(), one)
    with pytest.raises(UsageError, match="none twice"):
        Labels(("a", "a"))
    with pytest.raises(UsageError, match="at least one"):
        Labels(())
    with pytest.raises(UsageError, match="a label is 2; wanted numbers from 0 to 1"):
        masked_bce(torch.zeros(1, 1), torch.full((1, 1), 2.0), torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(UsageError, match="three times"):
        masked_bce(torch.zeros(2, 1), torch.zeros(2, 2), torch.ones(2, 1, dtype=torch.bool))
    broken = model()
    with torch.no_grad():
        broken.tower("image").head.layers[0].bias[0] = torch.nan
    with pytest.raises(NonFinite, match="rows 0, 1, 2, 3, 4, 5"):
        Labels(("a", "b"))(broken, one)
