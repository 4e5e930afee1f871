"""BIOMEDICA from article files to a trained model: the plan, its counts, copies once, killed and gone on with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fabrica.corpus import Corpus
from fabrica.corpus.ingest import ingest
from fabrica.curate.articles.concepts import MIXED, ClusterLabel, cluster, embedded
from fabrica.curate.engine.run import run
from fabrica.curate.pools.colour_texture import ColourTexture
from fabrica.errors import UsageError
from fabrica.models.average import wise_ft
from fabrica.phantom.articles import PhantomArticle, articles, write_folder
from fabrica.systems import load_system
from fabrica.systems.biomedica import ONCE, Settings, plan
from fabrica.train import fit


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[PhantomArticle], Corpus]:
    folder = tmp_path_factory.mktemp("biomedica")
    drawn = write_folder(articles(30, 11, malformed=0.2, copied=0.15, size=32), folder / "pmc")
    corpus = Corpus.at(folder / "c")
    report = ingest(folder / "pmc", corpus, source="pmc")
    assert sum(report.quarantined.values()) == sum(bool(a.broken) for a in drawn) > 0
    return drawn, Corpus.open(folder / "c")


def test_every_sound_article_and_figure_is_there_once(made: tuple[list[PhantomArticle], Corpus]) -> None:
    drawn, corpus = made
    sound = [a for a in drawn if not a.broken]
    records = list(corpus.scan())
    assert sorted(r.subject for r in records if r.groups["modality"] == "article") == [a.paper.pmcid for a in sound]
    shown = [r for r in records if r.groups["modality"] == "figure"]
    assert len(shown) == sum(len(a.truth) for a in sound)
    assert all(r.first("image") is not None and r.first("caption") is not None for r in shown)
    assert {r.rights.licence for r in shown} <= {a.paper.licence or "other" for a in sound}


def test_the_plan_names_panels_copies_and_splits_by_article(
    made: tuple[list[PhantomArticle], Corpus], tmp_path: Path
) -> None:
    drawn, corpus = made
    report = run(plan(Settings()), corpus, tmp_path / "out")
    assert report.kept == report.read
    out = list(Corpus.open(tmp_path / "out").scan())
    truth = {(a.paper.pmcid, f.label): t for a in drawn for f, t in zip(
        [f for f in a.paper.figures if f.kind == "fig"], a.truth, strict=True)}  # fmt: skip
    figures = [r for r in out if r.groups["modality"] == "figure"]
    multiple = {k: len(t.panels) > 1 for k, t in truth.items()}
    said = [r.groups["panel_type"] == "multiple" for r in figures]
    assert np.mean([s == multiple[r.subject, r.groups["figure"]] for s, r in zip(said, figures, strict=True)]) > 0.9
    pictures = [a.images[t.image] for a in drawn if not a.broken for t in a.truth]
    once = Corpus.open(tmp_path / "out").count(
        "array_has(tags, 'modality:figure') AND NOT array_has(tags, 'copy:again')"
    )
    assert once == len(set(pictures)) < len(pictures)
    by_subject: dict[str, set[str | None]] = {}
    for record in out:
        by_subject.setdefault(record.subject, set()).add(record.split)
        if near := record.groups.get("near_image"):
            by_subject.setdefault(near, set()).add(record.split)
    assert all(len(splits) == 1 for splits in by_subject.values())
    assert Corpus.open(tmp_path / "out").count(ONCE) > 0


def test_concepts_licences_and_caps_are_applied(made: tuple[list[PhantomArticle], Corpus], tmp_path: Path) -> None:
    _, corpus = made
    ids, rows = embedded(corpus.scan("array_has(tags, 'modality:figure')"), ColourTexture())
    clusters = cluster(ids, rows, k=4, dims=8, embedder=ColourTexture().name)
    labels = {n: ClusterLabel(n, ("one", "two", MIXED, "one")[n], "", "", {}, 1.0) for n in range(4)}
    clusters.model.save(tmp_path / "concepts.npz", labels)
    settings = Settings(
        concepts=str(tmp_path / "concepts.npz"), keep=("one", "two"), cap=5, licences=("commercial",), panels=True
    )
    run(plan(settings), corpus, tmp_path / "out")
    out = list(Corpus.open(tmp_path / "out").scan())
    assert {r.groups["concept"] for r in out} == {"one", "two"}
    assert all(sum(r.groups["concept"] == c for r in out) <= 5 for c in ("one", "two"))
    assert {r.groups["licence_group"] for r in out} == {"commercial"}
    assert not [r for r in out if "NC" in r.rights.licence]
    with pytest.raises(UsageError, match="no file of concepts"):
        plan(replace(settings, concepts=str(tmp_path / "nothing.npz")))


def test_two_runs_are_equal_and_the_second_does_nothing(
    made: tuple[list[PhantomArticle], Corpus], tmp_path: Path
) -> None:
    _, corpus = made
    run(plan(Settings()), corpus, tmp_path / "a")
    run(plan(Settings()), corpus, tmp_path / "b")
    a, b = (Corpus.open(tmp_path / n) for n in "ab")
    assert a.split_hash() == b.split_hash()
    assert [(r.id, r.groups, r.split) for r in a.scan()] == [(r.id, r.groups, r.split) for r in b.scan()]
    assert run(plan(Settings()), corpus, tmp_path / "a").resumed


def test_a_model_trains_from_the_corpus_stream_without_copies(
    made: tuple[list[PhantomArticle], Corpus], tmp_path: Path
) -> None:
    _, corpus = made
    run(plan(Settings()), corpus, tmp_path / "out")
    data = Corpus.open(tmp_path / "out")
    system = load_system("biomedica")
    settings = replace(system.settings["tiny"], steps=4, batch=8, once=True)
    torch.manual_seed(0)
    bundle = system.build(settings, data.scan("split = 'train'"))
    before = {k: v.clone() for k, v in bundle.model.state_dict().items()}
    (stage,) = system.stages(settings, bundle)
    assert stage.where == ONCE
    result = fit(bundle, (stage,), data, tmp_path / "run", save_every=0)
    assert np.isfinite(result.losses).all()
    tuned = bundle.model.state_dict()
    half = wise_ft(before, tuned, 0.5)
    name = next(k for k, v in tuned.items() if v.is_floating_point() and not torch.equal(v, before[k]))
    torch.testing.assert_close(half[name], (before[name] + tuned[name]) / 2)
    bundle.model.load_state_dict(half)
    for alpha, whole in ((0.0, before), (1.0, tuned)):
        averaged = wise_ft(before, tuned, alpha)
        assert all(torch.equal(averaged[k], whole[k]) for k, v in whole.items() if v.is_floating_point())


def test_weights_that_are_not_alike_are_refused() -> None:
    one, two = {"w": torch.zeros(2)}, {"w": torch.zeros(3)}
    for bad in (two, {"v": torch.zeros(2)}):
        with pytest.raises(UsageError, match="alike"):
            wise_ft(one, bad, 0.5)
    with pytest.raises(UsageError, match="alpha"):
        wise_ft(one, one, 1.5)
