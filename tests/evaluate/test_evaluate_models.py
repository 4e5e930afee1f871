"""With a real corpus and a real (untrained, tiny) bundle: one pass of the encoder, cards, report."""

import numpy as np
import pytest

from fabrica.corpus import Corpus
from fabrica.evaluate import KNN, LinearProbe, Prompts, Retrieval, ZeroShot, cards, report, run
from fabrica.evaluate.features import embed, feature_cache, roles_of
from fabrica.phantom import hospital


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A corpus of 60 ultrasound pictures split by hand, and UniMed-CLIP's tiny preset without training."""
    from fabrica.systems import load_system

    corpus = Corpus.at(tmp_path_factory.mktemp("models") / "corpus")
    people = list(hospital.records(60, "ultrasound", 0, size=48))
    corpus.append(r.updated(split="test" if i % 3 == 0 else "train") for i, r in enumerate(people))
    system = load_system("unimed_clip")
    bundle = system.build(system.settings["tiny"], corpus.scan("split = 'train'"))
    return corpus, bundle, sorted({k for r in people for k in r.labels})


def test_one_pass_gives_what_two_would(held, tmp_path):
    corpus, bundle, _ = held
    for name in ("image", "text"):
        ids, made = embed(bundle, corpus.scan(), name, ["features", "embedding"], feature_cache(bundle, tmp_path))
        want_ids, want, here = bundle.embed(corpus.scan(), name)
        assert ids == want_ids
        assert (made["embedding"][1] == here).all()
        assert np.abs(made["embedding"][0] - want).max() < 1e-5
        assert made["features"][0].shape[0] == len(ids)
    assert "report" in roles_of(bundle, "text")


def test_the_whole_way(held, tmp_path):
    corpus, bundle, labels = held
    prompts = Prompts("1", {k: (k.replace("_", " "),) for k in labels}, ("ultrasound with {}",))
    tasks = (
        ZeroShot("words", labels, prompts, exclusive=False),
        Retrieval("reports"),
        KNN("near", labels, exclusive=False),
        LinearProbe("probe", labels, exclusive=False, fractions=(1.0,)),
    )
    scores = run(bundle, corpus, tmp_path / "eval", tasks=tasks, trained_on=corpus)
    assert {s.data for s in scores} == {"phantom"}
    assert all("LEAK" not in s.note and "not checked" not in s.note for s in scores)
    again = run(bundle, corpus, tmp_path / "eval", tasks=tasks, trained_on=corpus)
    assert all(cards.same(a, b) for a, b in zip(scores, again, strict=True))
    path = report.write(tmp_path / "r.html", corpus=corpus, raw=corpus, scores=tmp_path / "eval", bundle=bundle)
    body = path.read_text("utf-8")
    assert "all of them synthetic" in body
    assert body.count("Nearest pictures") >= 2
    assert "cosine" in body  # similarity maps of a tower with a grid
