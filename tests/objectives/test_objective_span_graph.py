"""The span graph loss: its value by hand, what does not count, and the relations that pruning loses."""

import math
from dataclasses import replace

import pytest
import torch

from fabrica.errors import UsageError
from fabrica.objectives.span_graph import SpanGraph, span_graph
from fabrica.phantom.report_graphs import records
from fabrica.systems import load_system
from fabrica.types import Batch

SYSTEM = load_system("radgraph")
TINY = replace(SYSTEM.settings["tiny"], dropout=0.0)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return SYSTEM.build(TINY, records(12, 920))


def test_the_value_by_hand() -> None:
    """Uniform logits: log 5 a span and log 4 a pair, weighted."""
    total, e, r = span_graph(
        torch.zeros(3, 5), torch.tensor([0, 1, 4]), torch.zeros(2, 4), torch.tensor([0, 3]), entity=2.0, relation=0.5
    )
    assert e.item() == pytest.approx(3 * math.log(5))
    assert r.item() == pytest.approx(2 * math.log(4))
    assert total.item() == pytest.approx(6 * math.log(5) + math.log(4))
    with pytest.raises(UsageError, match="wanted"):
        span_graph(torch.zeros(3, 5), torch.zeros(2).long(), torch.zeros(0, 4), torch.zeros(0).long())


def test_it_is_what_the_model_scores_of_what_is_known(model) -> None:
    """The same sums from the model's scores and the records' graphs, pair by pair."""
    some = records(3, 921)
    batch = model.collate(some)
    loss = SpanGraph()(model.model.eval(), batch)
    made = model.model(batch.fields)
    width, windows = model.model.width, batch.targets["spans"].shape[1]
    gold = {}
    for b, n, p in batch.known["relations"].nonzero().tolist():
        h, t, label = batch.targets["relations"][b, n, p].tolist()
        gold[b * windows + n, h, t] = label
    total, hit = 0.0, 0
    for (row, first, size), logits in zip(made.spans.tolist(), made.labels.detach().log_softmax(1), strict=True):
        total -= float(logits[batch.targets["spans"][row // windows, row % windows, first, size]])
    cell = [(r, f * width + s) for r, f, s in made.spans.tolist()]
    for (h, t), logits in zip(made.pairs.tolist(), made.relations.detach().log_softmax(1), strict=True):
        label = gold.get((cell[h][0], cell[h][1], cell[t][1]), 0)
        hit += label > 0
        total -= float(logits[label])
    assert float(loss.total.detach()) == pytest.approx(total / 3, rel=1e-4)
    assert loss.count == 3
    assert loss.terms["missed"] == pytest.approx(1 - hit / len(gold))


def test_records_without_a_graph_do_not_count(model) -> None:
    some = records(2, 922)
    bare = [r.without("graph/report") for r in records(2, 923)]
    one, both = (SpanGraph()(model.model.eval(), model.collate(x)) for x in (some, [*some, *bare]))
    assert (one.count, both.count) == (2, 2)
    assert float(both.total.detach()) == pytest.approx(float(one.total.detach()), rel=1e-4)
    none = SpanGraph()(model.model, model.collate(bare))
    assert (none.count, float(none.total.detach())) == (0, 0.0)
    none.total.backward()


def test_what_is_not_kept_is_missed() -> None:
    """With spans of one word, all of them kept, no relation is missed; one kept span a window makes no pair."""
    missed = {}
    for keep in (1.0, 0.4, 0.01):
        torch.manual_seed(0)
        made = SYSTEM.build(replace(TINY, max_width=1, prune=keep), records(6, 924))
        batch: Batch = made.collate(records(6, 924))
        missed[keep] = SpanGraph()(made.model.eval(), batch).terms["missed"]
    assert missed[1.0] == 0
    assert 0 < missed[0.4] < 1
    assert missed[0.01] == 1
    assert SpanGraph().reads == ("report", "pieces", "spans", "relations")
