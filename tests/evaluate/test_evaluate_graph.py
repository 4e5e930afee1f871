"""Scores of graphs: exact match, the three rewards by hand, the empty cases, agreement, and who may be a reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.errors import Leak, UsageError
from fabrica.evaluate.graph import (
    Reward,
    agreement,
    counts,
    entity_f1,
    f1_interval,
    graph_reward,
    members,
    references,
    relation_f1,
    rewards,
)  # fmt: skip
from fabrica.evaluate.overlap import longest_common, rouge_l
from fabrica.phantom.report_graphs import records, reports
from fabrica.text.graph import Relation, Span, TextGraph, to_item

TEXT = "Small effusion in the left base."
A = TextGraph(
    TEXT, (Span(0, 5, "OBS-DP"), Span(6, 14, "OBS-DP"), Span(22, 26, "ANAT-DP"), Span(27, 31, "ANAT-DP")),
    (Relation(0, 1, "modify"), Relation(1, 3, "located_at"), Relation(2, 3, "modify")),
)  # fmt: skip
EMPTY = TextGraph(TEXT)


def test_the_three_levels_by_hand() -> None:
    """Delbrouck et al. 2022: partial marks entities with an outgoing relation, complete adds the relation itself."""
    s, e, left, base = ("small", "OBS-DP"), ("effusion", "OBS-DP"), ("left", "ANAT-DP"), ("base", "ANAT-DP")
    assert members(A, "simple") == {s, e, left, base}
    assert members(A, "partial") == {(*s, True), (*e, True), (*left, True), base}
    assert members(A, "complete") == {
        s, e, left, base, (*s, "modify", *e), (*e, "located_at", *base), (*left, "modify", *base),
    }  # fmt: skip
    b = TextGraph(TEXT, A.spans, A.relations[1:])  # "small" modifies nothing
    assert [graph_reward(b, A, level=k).f1 for k in ("simple", "partial")] == [1, 0.75]  # type: ignore[union-attr, arg-type]
    assert graph_reward(b, A, level="complete").f1 == pytest.approx(2 * 6 / (6 + 7))  # type: ignore[union-attr]


def test_precision_and_recall_change_places_and_f1_does_not() -> None:
    b = TextGraph("Effusion.", (Span(0, 8, "OBS-DP"),))
    one, two = graph_reward(b, A, level="simple"), graph_reward(A, b, level="simple")
    assert one == Reward(1.0, 0.25, 0.4)
    assert two == Reward(0.25, 1.0, 0.4)


@pytest.mark.parametrize(("empty", "want"), [("zero", Reward(0, 0, 0)), ("one", Reward(1, 1, 1)), ("skip", None)])
def test_two_empty_graphs_are_what_the_caller_says(empty: str, want: Reward | None) -> None:
    assert graph_reward(EMPTY, EMPTY, empty=empty) == want  # type: ignore[arg-type]
    assert graph_reward(EMPTY, A, empty=empty) == graph_reward(A, EMPTY, empty=empty) == Reward(0, 0, 0)  # type: ignore[arg-type]
    assert rewards([EMPTY], [EMPTY], empty=empty) == [None if want is None else want.f1]


def test_a_repeated_finding_counts_once_and_case_only_when_asked() -> None:
    twice = TextGraph("Mass. mass.", (Span(0, 4, "OBS-DP"), Span(6, 10, "OBS-DP")))
    once = TextGraph("MASS", (Span(0, 4, "OBS-DP"),))
    assert graph_reward(twice, once).f1 == 1  # type: ignore[union-attr]
    assert graph_reward(twice, once, case=True).f1 == 0  # type: ignore[union-attr]
    apart = TextGraph("left  -sided", (Span(0, 12, "ANAT-DP"),))
    assert members(apart, "simple") == {("left - sided", "ANAT-DP")}


@given(st.integers(0, 10_000))
def test_a_report_against_itself_is_one_and_against_another_at_most_one(seed: int) -> None:
    a, b = (
        TextGraph(r.text, tuple(Span(*s) for s in r.spans), tuple(Relation(*x) for x in r.relations))
        for r in reports(2, seed)
    )
    for level in ("simple", "partial", "complete"):
        assert graph_reward(a, a, level=level, empty="one").f1 == 1  # type: ignore[union-attr, arg-type]
        one, two = graph_reward(a, b, level=level), graph_reward(b, a, level=level)  # type: ignore[arg-type]
        assert one is not None
        assert two is not None
        assert one.f1 == two.f1 <= 1
        assert (one.precision, one.recall) == (two.recall, two.precision)


def test_wrong_level_and_empty_are_errors() -> None:
    with pytest.raises(UsageError, match="none of simple"):
        members(A, "most")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="none of zero"):
        graph_reward(A, A, empty="nan")  # type: ignore[arg-type]


def test_micro_f1_by_hand() -> None:
    """Entities need boundaries and label; relations need both boundaries and the type, not the labels."""
    wrong = Span(6, 14, "OBS-DA")
    said = TextGraph(TEXT, (A.spans[0], wrong, *A.spans[2:]), (*A.relations[:2], Relation(3, 2, "modify")))
    assert entity_f1([said], [A]).f1 == 0.75
    assert relation_f1([said], [A]).f1 == pytest.approx(2 / 3)  # direction counts, the label of an end does not
    assert counts([said, A], [A, A], "entity").tolist() == [[3, 4, 4], [4, 4, 4]]
    assert entity_f1([EMPTY], [EMPTY]).f1 == 0
    with pytest.raises(UsageError, match="different texts"):
        counts([A], [TextGraph("No.")], "entity")
    with pytest.raises(UsageError, match="wanted one of each"):
        counts([A], [], "entity")


def test_the_interval_is_of_the_same_number() -> None:
    rows = np.array([[1.0, 2, 2], [3, 3, 4], [0, 1, 1]])
    made = f1_interval(rows, ["a", "b", "c"], count=200)
    assert made.value == pytest.approx(2 * 4 / (6 + 7))
    assert made.low < made.value < made.high


def test_agreement_of_two_annotators() -> None:
    """Cohen's kappa over seven tokens: 6 of 7 agree; labels a: none 3, OBS 2, ANAT 2; b: none 4, OBS 1, ANAT 2."""
    b = TextGraph(TEXT, A.spans[1:], (Relation(0, 2, "located_at"), Relation(1, 2, "modify")))
    made = agreement([A], [b])
    chance = (3 * 4 + 2 * 1 + 2 * 2) / 49
    assert made.kappa == pytest.approx((6 / 7 - chance) / (1 - chance))
    assert made.entity == pytest.approx(2 * 3 / 7)
    assert made.relation == pytest.approx(2 * 2 / 5)
    assert agreement([A], [A]).kappa == 1


def test_a_models_graph_is_never_a_reference() -> None:
    good = records(2, 1)
    assert set(references(good)) == {r.id for r in good}
    item = good[0].items["report"][0]
    from dataclasses import replace

    machine = to_item(TextGraph(item.text()), replace(item.origin, by="model"))
    bad = good[0].updated(items={**good[0].items, "graph/report": (machine,)}, split="test")
    with pytest.raises(Leak, match="made by a model"):
        references([bad])


def test_rouge_l_is_that_of_rouge_score() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    made = reports(12, 3)
    for a in made:
        for b in made:
            assert rouge_l(a.text, b.text) == pytest.approx(scorer.score(b.text, a.text)["rougeL"].fmeasure)
    assert rouge_l("", "mass") == 0


@given(st.lists(st.sampled_from("abc"), max_size=9), st.lists(st.sampled_from("abc"), max_size=9))
def test_the_common_subsequence_is_that_of_the_table(a: list[str], b: list[str]) -> None:
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    assert longest_common(a, b) == table[-1, -1]
