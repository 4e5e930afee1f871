"""RULE from end to end at a tiny size: a trained retriever, a store, a certificate, prompts, answers, receipts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fabrica.chat import Scripted
from fabrica.errors import Refused
from fabrica.phantom.crawl import TARGETS, crawl
from fabrica.retrieve.certify import apart
from fabrica.retrieve.choose import Certified, FixedK, Hit, hits
from fabrica.systems import load_system
from fabrica.systems.rule import answer, calibrator, queries, reader, stages, store
from fabrica.train import InMemory, fit

SYSTEM = load_system("rule")
TINY = replace(
    SYSTEM.settings["tiny"], image_size=16, lr=3e-3, batch=64, steps=150, candidates=(0, 1, 3)
)  # fmt: skip


def made(n: int, seed: int):
    """Small pictures of 20 classes with a text that names the class, as image and report."""
    batch = crawl(n, seed)
    return [
        r.updated(items={"image": r.items["image"], "report": r.items["caption"]}, labels={"class": float(k)})
        for r, k in zip(batch.records(), batch.shows, strict=True)
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A retriever trained on 256 synthetic pairs, the store of their reports, and 80 patients who ask."""
    train, ask = made(400, 21), made(80, 22)
    torch.manual_seed(0)
    bundle = SYSTEM.build(TINY, train)
    held = InMemory.of(train, bundle.collate)
    fit(bundle, SYSTEM.stages(TINY, bundle), held, tmp_path_factory.mktemp("fit"), save_every=0)
    bundle.model.eval()
    return bundle, train, ask


def truth(record) -> float:
    return record.labels["class"]


def test_images_find_reports_of_like_patients(trained) -> None:
    bundle, train, ask = trained
    reports = store(bundle, train)
    apart(store=list(reports.subjects.values()), asking=[r.subject for r in ask])
    run = reports.search(queries(TINY, bundle, ask, {}), 10)
    of = {r.id: truth(r) for r in train}
    like = [of[h.id] == truth(r) for r in ask for h in hits(run, r.id)]
    assert np.mean(like) > 1.6 / TARGETS  # by chance 1 / TARGETS
    own = queries(TINY, bundle, train[:5], {})
    found = reports.search(own, 5)
    assert all(q.id not in [h.id for h in hits(found, q.id)] for q in own)


def test_hybrid_queries_carry_words(trained) -> None:
    bundle, train, ask = trained
    asked = {r.id: "Is there a lesion?" for r in ask}
    (plain, *_), (hybrid, *_) = (queries(replace(TINY, hybrid=h), bundle, ask[:2], asked) for h in (False, True))
    assert (plain.text, hybrid.text) == ("", "Is there a lesion?")
    assert len(store(bundle, train).search([hybrid], 4).found(hybrid.id)) == 4


def test_an_answer_shows_what_was_chosen_and_without_contexts_no_word_of_them(trained) -> None:
    _, _, ask = trained
    image, texts, found = ask[0].first("image"), {"a": "A ring.", "b": "A disc."}, (Hit("a", 0.9, 1), Hit("b", 0.5, 2))
    model = Scripted(["Yes.", "No.", "Hard to say.", "yes or no"])
    with_two = answer(model, image, "Is there a ring?", found, texts, FixedK(5))
    without = answer(model, image, "Is there a ring?", found, texts, FixedK(0))
    unread = [answer(model, image, "Is there a ring?", found, texts, FixedK(1)) for _ in range(2)]
    assert (with_two.value, [h.id for h in with_two.shown]) == (True, ["a", "b"])
    assert (without.value, without.shown) == (False, ())
    assert [u.value for u in unread] == [None, None]
    said = [r.messages[-1].text for r in model.requests]
    assert "2 reports" in said[0]
    assert "1. A ring." in said[0]
    assert "no basis" in said[0]
    assert "report" not in said[1]
    assert "1 report " in said[2]
    assert with_two.prompt != without.prompt


def test_calibrate_then_answer_with_as_many_as_certified(trained) -> None:
    bundle, train, ask = trained
    reports = store(bundle, train)
    run = reports.search(queries(TINY, bundle, ask, {}), 3)
    of = {r.id: truth(r) for r in train}
    rng = np.random.default_rng(0)
    own = rng.random(len(ask)) < 0.8  # a reader that is right alone in 8 of 10, and follows the majority of three
    losses = np.array(
        [[not o, not o, sum(of[h.id] == truth(r) for h in hits(run, r.id)) < 2] for r, o in zip(ask, own, strict=True)],
        float,
    )
    bound = {"model": bundle.fingerprint, "prompt": "closed_with_reports@1", "store": reports.sha256}
    made = calibrator(replace(TINY, alpha=0.35)).fit(losses, [r.subject for r in ask], bound=bound)
    assert set(made.valid) >= {0, 1}
    assert len(Certified(made)(hits(run, ask[0].id))) == made.pick()
    smaller = store(bundle, train[:-1])
    with pytest.raises(Refused, match="another store"):
        made.check({**bound, "store": smaller.sha256})


def test_the_reader_has_its_own_stage() -> None:
    policy = reader(TINY)
    (stage,) = stages(TINY, policy)
    assert stage.name == "kbpt"
    assert stage.objectives["prefer"].beta == TINY.beta
    assert SYSTEM.settings["paper"].beta == 0.1


def test_what_was_shown_has_receipts_that_the_corpus_bears_out(trained, tmp_path) -> None:
    """The store is of a corpus; a hit's receipt names record, place and hash, and fails once the text is another."""
    from fabrica.corpus import Corpus
    from fabrica.serve.evidence import receipts, verify

    bundle, train, ask = trained
    corpus = Corpus.create(tmp_path / "corpus")
    corpus.append(train[:40])
    reports = store(bundle, list(corpus.scan()))
    (query,) = queries(TINY, bundle, ask[:1], {})
    found = [(h.id, h.score) for h in hits(reports.search([query], 3), query.id)]
    made = receipts(corpus, found, "Is there a lesion?")
    assert [r.record for r in made] == [id_ for id_, _ in found]
    assert all(verify(corpus, r) for r in made)
    assert not verify(corpus, replace(made[0], text="something else"))
    assert receipts(corpus, [], "") == []
