"""RadGraph's knobs: who marks reports, what says present or absent, what is read together."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fabrica.models.span_perceptron import SpanPerceptron
from fabrica.phantom.report_graphs import records, reports
from fabrica.systems import load_system
from fabrica.systems.radgraph import extractor, graphs
from fabrica.text.graph import Relation, Span, TextGraph
from fabrica.text.graph_rules import RuleGraphs

SYSTEM = load_system("radgraph")
TINY = SYSTEM.settings["tiny"]


@pytest.fixture(scope="module")
def denied() -> SpanPerceptron:
    """A model that calls every observation denied."""
    made = []
    for r in reports(40, 960):
        spans = tuple(Span(a, b, label if label == "ANAT-DP" else "OBS-DA") for a, b, label in r.spans)
        made.append(TextGraph(r.text, spans, tuple(Relation(*x) for x in r.relations)))
    return SpanPerceptron.fit(made, epochs=3)


def test_assertions_come_from_the_labels_or_from_the_rules(denied: SpanPerceptron) -> None:
    texts = ["There is a small effusion in the left base. Possible nodule."]
    learned, ruled = (graphs(replace(TINY, assertion=a), denied, texts)[0] for a in ("label", "rules"))
    said = [{g.phrase(i): s.label for i, s in enumerate(g.spans)} for g in (learned, ruled)]
    assert said[0]["effusion"] == said[0]["nodule"] == "OBS-DA"
    assert (said[1]["effusion"], said[1]["small"], said[1]["nodule"]) == ("OBS-DP", "OBS-DP", "OBS-U")
    assert said[0]["left"] == said[1]["left"] == "ANAT-DP"
    assert learned.relations == ruled.relations


def test_a_saved_net_may_mark_reports(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bundle = SYSTEM.build(TINY, records(8, 961))
    folder = bundle.save_pretrained(tmp_path / "net")
    assert isinstance(extractor(TINY), RuleGraphs)
    settings = replace(TINY, extractor=str(folder))
    assert extractor(settings).name == bundle.name
    assert SYSTEM.plan is not None
    step = SYSTEM.plan(settings)[0]
    bare = [r.without("graph/report") for r in records(3, 962)]
    made = list(step(bare, lambda record, why: None))  # type: ignore[operator, arg-type]
    assert [r.items["graph/report"][0].origin.by for r in made] == ["model"] * 3


def test_the_papers_settings_read_whole_reports_and_the_tiny_ones_sentences() -> None:
    paper = SYSTEM.settings["paper"]
    assert (paper.max_width, paper.prune, paper.hidden, paper.width_dim, paper.dropout) == (12, 0.5, 150, 20, 0.4)
    assert (paper.lr, paper.lr * paper.encoder_lr) == (1e-3, 5e-5)
    for settings, rows in ((replace(TINY, window="report"), 2), (TINY, 5)):
        bundle = SYSTEM.build(settings, records(8, 961))
        text = "FINDINGS: No mass. Small effusion. Clear. IMPRESSION: No mass. Normal."
        assert len(bundle.collate.read(text)) == rows
