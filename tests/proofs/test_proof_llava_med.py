"""LLaVA-Med's proof at a tiny size: it runs, reads its bars, and its arms differ in what they say they differ in."""

import random

import numpy as np
import pytest

from fabrica.phantom.figure_talk import FACTS, figures, small_talk, talk, written
from fabrica.proofs import Plan
from fabrica.proofs import llava_med as proof
from fabrica.text.turns import read_turns

TINY = proof.Size(
    seeds=(100, 101), pairs=16, talks=16, test=3, align=2, instruct=2, batch=4, eye_figures=70, eye_steps=2,
    read_steps=2, chat_steps=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = str(tmp_path_factory.mktemp("llava"))
    eye, reader = (proof.taught((n, TINY, folder), Plan()) for n in ("eye", "reader"))
    return [proof.Job(what, 100, TINY, eye, reader) for what in ("shared", "others")]


def test_the_proof_runs_small_and_says_not_shown(made) -> None:
    """Two steps teach nothing: a proof that said `shown` here would not be reading its bars."""
    found = [proof.part(job, Plan()) for job in made]
    said = proof._proof(TINY, found * 2)
    assert said.verdict == "not shown"
    assert {proof.BOTH, proof.ONE, proof.TWO, proof.SHUFFLED} <= set(said.arms)
    assert all(len(v) == 2 for v in said.arms.values())
    ledger = {line["stage"]: line["moved"] for line in said.details["ledger"]}
    assert ledger == {"align": ["connector"], "instruct": ["connector", "language"]}


def good() -> dict[str, list[float]]:
    return {
        proof.BOTH: [0.8, 0.82], proof.TWO: [0.7, 0.71], proof.ONE: [0.4, 0.41], proof.SHUFFLED: [0.3, 0.3],
        f"{proof.BOTH}: images permuted": [0.3, 0.31], "best constant answers": [0.35, 0.35],
        f"{proof.BOTH}: size": [0.9, 0.92], f"{proof.BARE}: size": [0.1, 0.1],
        "filters: planted leaks dropped or cut clean": [0.99, 0.99],
        "filters: clean turns dropped or changed": [0.0, 0.0],
        f"{proof.RAW}: mentions a source": [0.2, 0.2], f"{proof.BOTH}: mentions a source": [0.0, 0.0],
    }  # fmt: skip


def verdicts(arms: dict[str, list[float]]) -> dict[str, bool]:
    return {c.name: c.shown for c in (*proof._claims(arms), *proof._controls(arms))}


def test_every_bar_is_read() -> None:
    assert all(verdicts(good()).values())
    for arm, value, name in (
        (proof.TWO, [0.78, 0.79], "curriculum"), (proof.ONE, [0.65, 0.66], "conversations"),
        (f"{proof.BARE}: size", [0.89, 0.91], "mentions"), (proof.SHUFFLED, [0.5, 0.5], "shuffled in training"),
        (f"{proof.BOTH}: images permuted", [0.5, 0.5], "permuted in the test"),
        ("filters: planted leaks dropped or cut clean", [0.97, 0.97], "filters catch"),
        ("filters: clean turns dropped or changed", [0.03, 0.03], "filters spare"),
        (f"{proof.RAW}: mentions a source", [0.05, 0.05], "unfiltered leaks"),
        (f"{proof.BOTH}: mentions a source", [0.02, 0.02], "filtered is tight"),
    ):  # fmt: skip
        said = verdicts(good() | {arm: value})
        assert [n for n, shown in said.items() if not shown] == [name]


def test_the_writer_never_gets_pixels_and_only_mentions_name_the_size() -> None:
    some = figures(20, 100)
    bare = proof.conversations(some, 0, mentions=False)
    whole = proof.conversations(some, 0)
    sizes = set(FACTS["size"])

    def named(records) -> int:
        return sum(bool(sizes & set(r.first("conversation").text().replace('"', " ").split())) for r in records)

    assert named(bare) == 0
    assert named(whole) > 5


def test_what_the_filter_lets_through_holds_no_planted_leak() -> None:
    told = proof.filters(figures(200, 100), 100)
    assert told["caught"] >= 0.98
    assert told["false"] <= 0.02
    rows = [t for i, f in enumerate(figures(50, 101)) for t in talk(f.caption, f.context, random.Random(i), leaks=1.0)]
    assert all(t.leak for t in rows)
    assert read_turns(written(rows)) == [(t.question, t.answer) for t in rows]


def test_shuffled_pairs_keep_no_image_and_every_text() -> None:
    records = proof._records(figures(9, 100))
    mixed = proof._shuffled(records, np.random.default_rng(0))
    for before, after in zip(records, mixed, strict=True):
        assert after.items["caption"] == before.items["caption"]
        assert not np.array_equal(after.first("image").array(), before.first("image").array())


def test_the_reader_holds_to_notes_and_answers_questions_without_any() -> None:
    """Two thirds are notes: their captions name noted values alone. What is asked has no notes and any value."""
    values = {v for of in FACTS.values() for v in of}
    noted = [(q, a) for q, a in small_talk(300, 75, ("describe .",)) if "describe" in q]
    asked = [(q, a) for q, a in small_talk(300, 75, ("describe .",)) if "describe" not in q]
    assert (len(noted), len(asked)) == (200, 100)
    assert all(len(values & set(a.split())) == 2 and values & set(a.split()) <= set(q.split()) for q, a in noted)
    assert {q.startswith("describe") for q, _ in noted} == {True, False}  # notes stand on either side, as images do
    assert all(len(values & set(a.split())) == 1 for _, a in asked)
    told = [(values & set(q.split())) - {"left", "right", "small", "large"} for q, _ in asked]
    assert not any(told)  # a question names no value but those it offers


def test_right_counts_values_and_not_captions() -> None:
    truth = {"organ": "liver", "side": "left", "finding": "scar", "stain": "pink"}
    assert proof.right(["section of liver, a nodule is present.", "pink stain"], [truth, truth]) == 2 / 3
    assert proof.right(["nothing"], [truth]) == 0.0


def test_a_small_language_model_begins_with_attention_that_can_be_learned() -> None:
    """With the 0.02 of wide models a narrow one's attention is flat at the start, and a short training never gets to
    copy from what stands before: stage 1 then has nothing to steer."""
    from fabrica.encode.chat import ChatEncode, chat_vocabulary
    from fabrica.models.bridge import small_language, small_vision

    model = small_language(ChatEncode(chat_vocabulary(["a left nodule"] * 9, 60), 90), width=64, depth=2)
    assert model.model.layers[0].self_attn.q_proj.weight.std().item() == pytest.approx(1 / 8, rel=0.1)
    places = small_vision(48, 8, 64).get_parameter("embeddings.position_embedding.weight")
    assert places.std().item() == pytest.approx(0.3, rel=0.1)
