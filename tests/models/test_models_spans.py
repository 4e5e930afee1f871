"""Span models: pairs in both directions, a decoder that keeps the schema, and two backends with one interface."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.encode.spans import windows
from fabrica.errors import Refused, UsageError
from fabrica.evaluate.graph import entity_f1, relation_f1
from fabrica.models.load import load
from fabrica.models.small import ConvTower
from fabrica.models.span_bundle import SpanBundle
from fabrica.models.span_decode import Entity, decoded, join, pairs_allowed
from fabrica.models.span_perceptron import SpanPerceptron
from fabrica.models.spans import SpanGraphNet
from fabrica.models.text_tower import TextTower
from fabrica.phantom.report_graphs import records, reports
from fabrica.systems import load_system
from fabrica.text.graph import RADGRAPH, Extractor, Relation, Schema, Span, TextGraph

SYSTEM = load_system("radgraph")


def graphs(count: int, seed: int, style: int = 1) -> list[TextGraph]:
    return [
        TextGraph(r.text, tuple(Span(*s) for s in r.spans), tuple(Relation(*x) for x in r.relations))
        for r in reports(count, seed, style)
    ]


@pytest.fixture(scope="module")
def perceptron() -> SpanPerceptron:
    return SpanPerceptron.fit(graphs(80, 901), epochs=4)


@pytest.fixture(scope="module")
def bundle() -> SpanBundle:
    torch.manual_seed(0)
    made = SYSTEM.build(SYSTEM.settings["tiny"], records(12, 902))
    made.model.eval()
    assert isinstance(made, SpanBundle)
    return made


# ---------------------------------------------------------------- the net


def test_every_span_up_to_the_width_is_scored(bundle: SpanBundle) -> None:
    batch = bundle.collate(records(2, 903))
    made = bundle.model(batch.fields)
    known = batch.known["spans"].flatten(0, 1).nonzero().tolist()
    assert made.spans.tolist() == known
    assert made.labels.shape == (len(known), len(RADGRAPH.labels) + 1)


def test_pairs_stand_in_both_orders_and_the_order_changes_the_score(bundle: SpanBundle) -> None:
    made = bundle.model(bundle.collate(records(2, 903)).fields)
    at = {tuple(p): i for i, p in enumerate(made.pairs.tolist())}
    assert at
    assert all((t, h) in at and h != t for h, t in at)
    back = torch.tensor([at[t, h] for h, t in at])
    assert (made.relations[:, 1:] - made.relations[back, 1:]).abs().amax(1).min() > 1e-6
    assert (made.relations[:, 0] == 0).all()


def test_the_share_that_is_kept_is_the_likeliest(bundle: SpanBundle) -> None:
    made = bundle.model(bundle.collate(records(1, 904)).fields)
    sizes = made.there.sum(1).tolist()
    for row, size in enumerate(sizes):
        mine = (made.spans[:, 0] == row).nonzero().squeeze(1)
        kept = {i for p in made.pairs.tolist() for i in p if made.spans[i, 0] == row}
        if not kept:
            continue
        assert len(kept) == min(len(mine), -(-size * bundle.model.keep // 1))
        mention = made.mention.detach()
        rest = [float(mention[i]) for i in mine.tolist() if i not in kept]
        assert min(float(mention[i]) for i in kept) >= max(rest, default=-1e9)


def test_no_window_changes_another(bundle: SpanBundle) -> None:
    """A report alone is read as it is beside longer ones."""
    some = records(4, 905)
    alone = bundle([some[0].items["report"][0].text()])
    together = bundle([r.items["report"][0].text() for r in some])
    assert alone[0] == together[0]
    a, b = bundle.embed(some[:1], "report")[1], bundle.embed(some, "report")[1]
    np.testing.assert_allclose(a[0], b[0], atol=1e-5)


def test_a_word_is_the_mean_of_its_pieces() -> None:
    net = SpanGraphNet(TextTower(20, 8, heads=2, length=6), hidden=4, width=2, width_dim=2).eval()
    ids, word = torch.tensor([[2, 7, 8, 9, 3, 0]]), torch.tensor([[-1, 0, 0, 1, -1, -1]])
    mask = torch.tensor([[True] * 5 + [False]])
    states, there = net.words(ids, mask, word, torch.tensor([True]))
    out = net.encoder(ids, mask).values[0]
    torch.testing.assert_close(states[0, 0], out[1:3].mean(0))
    torch.testing.assert_close(states[0, 1], out[3])
    assert there.tolist() == [[True, True]]


def test_wrong_settings_are_refused(bundle: SpanBundle) -> None:
    with pytest.raises(UsageError, match="reads text"):
        SpanGraphNet(ConvTower())
    with pytest.raises(UsageError, match="keep 0"):
        SpanGraphNet(TextTower(20), keep=0.0)
    with pytest.raises(UsageError, match="different schemas"):
        SpanBundle(bundle.model, replace(bundle.collate, width=7))
    with pytest.raises(UsageError, match="another family"):
        SpanGraphNet.from_json({"dense": {}})


def test_a_saved_net_answers_the_same_and_is_found_by_its_config(bundle: SpanBundle, tmp_path: Path) -> None:
    again = load(bundle.save_pretrained(tmp_path / "net"))
    assert isinstance(again, SpanBundle)
    texts = [r.text for r in reports(3, 906)]
    assert again(texts) == bundle(texts)
    assert again.name == bundle.name


def test_any_text_tower_of_transformers_is_an_encoder(tmp_path: Path) -> None:
    """A tiny BERT with its tokenizer, saved and loaded through the same call."""
    transformers = pytest.importorskip("transformers")
    from fabrica.encode.vocabulary import train_vocabulary

    words = train_vocabulary([r.text for r in reports(20, 907)], 200)
    config = transformers.BertConfig(
        vocab_size=words.get_vocab_size(), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(tmp_path)
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]").save_pretrained(tmp_path)
    settings_ = replace(SYSTEM.settings["paper"], text=str(tmp_path), length=64)
    made = SYSTEM.build(settings_, [])
    assert made.model.encoder.kind == "transformers"
    text = "No effusion or pneumothorax in the left chest."
    assert RADGRAPH.check(made([text])[0]).text == text


# ---------------------------------------------------------------- the decoder


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 7))
def test_invalid_pairs_and_overlaps_never_leave_the_decoder(seed: int, count: int) -> None:
    """Random scores of random spans: whatever they say, the graph keeps the schema."""
    rng = np.random.default_rng(seed)
    text = " ".join(f"w{i}" for i in range(count))
    [window] = windows(text)
    first, size = np.divmod(np.arange(count * 3), 3)
    inside = first + size < count
    first, last = first[inside], (first + size)[inside]
    entities = decoded(first, last, rng.normal(size=(len(first), 5)))
    heads, tails = np.divmod(np.arange(len(entities) ** 2), max(len(entities), 1))
    apart = heads != tails
    told = pairs_allowed(entities, heads[apart], tails[apart], rng.normal(3, 1, (int(apart.sum()), 4)), RADGRAPH)
    graph = join(text, [(window, entities, told)], RADGRAPH)
    assert RADGRAPH.check(graph) is graph
    assert len({frozenset((r.head, r.tail)) for r in graph.relations}) == len(graph.relations)


def test_an_invalid_relation_gives_way_to_the_best_allowed_or_none() -> None:
    entities = [Entity(0, 0, 1), Entity(1, 1, 2)]  # ANAT-DP, OBS-DP
    heads, tails = np.array([0, 1]), np.array([1, 0])
    order = list(RADGRAPH.names)
    scores = np.zeros((2, 4))
    scores[0, 1 + order.index("located_at")] = 9  # anatomy located at an observation: not allowed
    assert pairs_allowed(entities, heads, tails, scores, RADGRAPH) == []
    scores[1, 1 + order.index("located_at")] = 1
    assert pairs_allowed(entities, heads, tails, scores, RADGRAPH) == [(1, 0, 1 + order.index("located_at"))]


def test_of_spans_that_overlap_the_surer_stays() -> None:
    scores = np.array([[0, 2.0], [0, 3.0], [0, 1.0], [0, 1.0]])
    made = decoded(np.array([0, 0, 1, 3]), np.array([0, 1, 1, 3]), scores)
    assert made == [Entity(0, 1, 1), Entity(3, 3, 1)]
    assert decoded(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 2))) == []


# ---------------------------------------------------------------- the perceptron


def test_both_backends_have_one_interface(bundle: SpanBundle, perceptron: SpanPerceptron) -> None:
    assert isinstance(bundle, Extractor)
    assert isinstance(perceptron, Extractor)
    for model in (bundle, perceptron):
        assert model([]) == []
        assert model([""])[0] == TextGraph("")
        assert model.name != model.version


def test_the_perceptron_learns_entities_and_relations(perceptron: SpanPerceptron) -> None:
    true = graphs(20, 910)
    said = perceptron([g.text for g in true])
    assert entity_f1(said, true).f1 > 0.9
    assert relation_f1(said, true).f1 > 0.85


def test_both_findings_of_a_coordination_are_at_the_place(perceptron: SpanPerceptron) -> None:
    graph = perceptron(["No effusion or pneumothorax in the left chest."])[0]
    said = {(graph.phrase(r.head), r.label, graph.phrase(r.tail)) for r in graph.relations}
    assert {("effusion", "located_at", "chest"), ("pneumothorax", "located_at", "chest")} <= said
    assert [s.label for s in graph.spans][:2] == ["OBS-DA", "OBS-DA"]


def test_relations_have_a_direction(perceptron: SpanPerceptron) -> None:
    true = graphs(20, 911)
    said = perceptron([g.text for g in true])
    turned = [replace(g, relations=tuple(Relation(r.tail, r.head, r.label) for r in g.relations)) for g in said]
    assert relation_f1(turned, true).f1 == 0


def test_a_saved_perceptron_is_the_same_and_bad_files_are_refused(perceptron: SpanPerceptron, tmp_path: Path) -> None:
    perceptron.save(tmp_path / "p.safetensors")
    again = SpanPerceptron.load(tmp_path / "p.safetensors")
    texts = [r.text for r in reports(3, 912, 2)]
    assert again(texts) == perceptron(texts)
    assert again.name == perceptron.name
    (tmp_path / "bad").write_bytes(b"no weights")
    with pytest.raises(Refused, match="extractor_bad"):
        SpanPerceptron.load(tmp_path / "bad")


def test_learning_is_seeded_and_wants_graphs() -> None:
    some = graphs(4, 913)
    assert SpanPerceptron.fit(some, epochs=2).name == SpanPerceptron.fit(some, epochs=2).name
    assert SpanPerceptron.fit(some, epochs=2).name != SpanPerceptron.fit(some, epochs=2, seed=1).name
    with pytest.raises(UsageError, match="no graph"):
        SpanPerceptron.fit([])


def test_another_schema_and_answers_as_spans() -> None:
    """The same perceptron with labels of another kind and no relations."""
    schema = Schema(("DRUG",))
    text = "Aspirin was given. Then warfarin."
    graph = TextGraph(text, (Span(0, 7, "DRUG"), Span(24, 32, "DRUG")))
    made = SpanPerceptron.fit([graph] * 4, schema=schema, epochs=10, bits=12)([text])[0]
    assert [made.phrase(i) for i in range(len(made.spans))] == ["Aspirin", "warfarin"]
