"""Clusters, votes, propagation: what is pure gets its label, what is not is "mixed"; sheets go out and come back."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fabrica.curate.articles.archive import CapConcepts, FigureCopies, KeepConcepts, LatestVersion
from fabrica.curate.articles.concept_sheet import read_taxonomy, read_votes, write_sheet, write_votes
from fabrica.curate.articles.concepts import (
    MIXED,
    ClusterModel,
    Clusters,
    Propagate,
    Vote,
    ask,
    cluster,
    embedded,
    pca,
    tally,
)  # fmt: skip
from fabrica.curate.engine.plan import signature
from fabrica.curate.pools.colour_texture import ColourTexture, resized
from fabrica.errors import UsageError
from fabrica.phantom.concepts import draw
from fabrica.types import Absent, Item, Origin, Record

KINDS = ("chest radiograph", "histology", "table")
HERE = Origin("demo", "a", "", "CC-BY-4.0")


def drawn(n: int, seed: int = 0) -> list[Record]:
    rng = np.random.default_rng(seed)
    return [
        Record(
            f"r{i:03d}", f"p{i}", groups={"truth": KINDS[i % 3]},
            items={"image": (Item("image", draw(KINDS[i % 3], rng), HERE),)},
        )
        for i in range(n)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return drawn(90)


@pytest.fixture(scope="module")
def clusters(records: list[Record]) -> Clusters:
    ids, rows = embedded(records, ColourTexture(), batch=16)
    return cluster(ids, rows, k=9, dims=10, embedder=ColourTexture().name)


def honest(records: Sequence[Record], name: str) -> Callable[[int, Sequence[str]], Vote]:
    truth = {r.id: r.groups["truth"] for r in records}

    class Person:
        def __call__(self, number: int, members: Sequence[str], /) -> Vote:
            seen = Counter(truth[m] for m in members)
            best = seen.most_common(1)[0][0]
            return Vote(number, name, best, len(members), seen[best], panel_type="single")

    person = Person()
    person.name = name  # type: ignore[attr-defined]
    return person


def stop(record: Record, reason: str) -> None:
    raise AssertionError(reason)


def test_embedding_ignores_size_depth_and_is_unit() -> None:
    rng = np.random.default_rng(1)
    small = draw("table", rng)
    large = np.repeat(np.repeat(small, 2, 0), 2, 1)
    deep = small.astype(np.uint16) * 257
    rows = ColourTexture()([Item("image", x, HERE) for x in (small, large, deep, small[..., 0])])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)
    assert rows[0] @ rows[2] > 0.98
    with pytest.raises(UsageError, match="no picture"):
        ColourTexture()([Item("text", "x", HERE)])


def test_resizing_keeps_the_mean_and_a_constant() -> None:
    image = np.random.default_rng(0).random((60, 31, 3)).astype(np.float32)
    assert resized(image, 12).mean() == pytest.approx(image.mean(), abs=1e-3)
    np.testing.assert_allclose(resized(np.full((5, 7, 1), 0.5, np.float32), 48), 0.5, atol=1e-6)


def test_pca_is_that_of_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    rows = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32) * [5, 3, 2, 1, 0.5, 0.1]
    mean, axes = pca(rows.astype(np.float32), 3)
    theirs = PCA(3).fit(rows)
    np.testing.assert_allclose(mean, theirs.mean_, atol=1e-5)
    np.testing.assert_allclose(np.abs(np.einsum("dp,pd->p", axes, theirs.components_)), 1, atol=1e-4)


def test_order_of_records_changes_nothing(records: list[Record], clusters: Clusters) -> None:
    ids, rows = embedded(records[::-1], ColourTexture(), batch=7)
    again = cluster(ids, rows, k=9, dims=10, embedder=ColourTexture().name)
    assert again.ids == clusters.ids
    np.testing.assert_array_equal(again.cluster, clusters.cluster)
    numbers, far = clusters.model.assign(rows)
    np.testing.assert_array_equal(numbers, clusters.cluster)
    np.testing.assert_allclose(far, clusters.distance, atol=1e-6)
    assert clusters.distance.min() > -1e-5


def test_members_are_of_the_cluster_and_reach_its_edge(clusters: Clusters) -> None:
    number = int(np.bincount(clusters.cluster).argmax())
    own = {i for i, c in zip(clusters.ids, clusters.cluster, strict=True) if c == number}
    shown = clusters.members(number, 4, seed=3)
    assert set(shown) <= own
    assert len(set(shown)) == 4
    assert shown == clusters.members(number, 4, seed=3)
    assert set(clusters.members(number, 999)) == own


def test_labels_reach_every_picture_with_votes_and_distance(records: list[Record], clusters: Clusters) -> None:
    labels = tally(ask(clusters, [honest(records, "a"), honest(records, "b")]))
    made = list(Propagate(model=clusters.model, labels=labels, embed=ColourTexture(), batch=32)(records, stop))
    assert [r.id for r in made] == [r.id for r in records]
    said = [(r.groups["concept"], r.groups["truth"]) for r in made]
    assert np.mean([a == b for a, b in said]) > 0.9
    assert all(
        a in (b, MIXED) or labels[int(r.groups["cluster"])].purity < 1 for r, (a, b) in zip(made, said, strict=True)
    )
    assert all(0 <= r.labels["cluster_distance"] + 1e-5 <= 2 for r in made)
    assert all(sum(v.votes.values()) == 2 for v in labels.values())
    new = drawn(30, seed=9)
    fresh = list(Propagate(model=clusters.model, labels=labels, embed=ColourTexture())(new, stop))
    assert np.mean([r.groups["concept"] == r.groups["truth"] for r in fresh]) > 0.8


def test_what_has_no_picture_passes_and_what_nobody_labelled_says_so(clusters: Clusters) -> None:
    bare = Record("x", "p", items={"image": (Item("image", Absent.NOT_LINKED, HERE),)})
    step = Propagate(model=clusters.model, labels={}, embed=ColourTexture())
    assert list(step([bare], stop)) == [bare]
    assert next(iter(step(drawn(1), stop))).groups["concept"] == "unlabelled"
    assert "unlabelled" not in json.dumps(signature(step))
    other = ColourTexture(name="other")
    with pytest.raises(UsageError, match="embedder"):
        Propagate(model=clusters.model, labels={}, embed=other)


@pytest.mark.parametrize(
    ("votes", "wanted"),
    [
        ([("a", "ct", 30)], "ct"),
        ([("a", "ct", 17)], MIXED),  # 17 of 30 fit: below 0.6
        ([("a", "ct", 18)], "ct"),
        ([("a", "ct", 30), ("b", "mr", 30)], MIXED),  # no majority
        ([("a", "ct", 30), ("b", "mr", 30), ("c", "ct", 28)], "ct"),
        ([("a", "ct", 30), ("b", "mr", 30), ("c", "us", 30)], MIXED),
        ([("a", MIXED, 30), ("b", MIXED, 30)], MIXED),
    ],
)
def test_majority_and_purity(votes: list[tuple[str, str, int]], wanted: str) -> None:
    found = tally(Vote(5, who, concept, 30, fits) for who, concept, fits in votes)
    assert found[5].concept == wanted
    assert sum(found[5].votes.values()) == len(votes)


def test_votes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="31 of 30"):
        tally([Vote(0, "a", "ct", 30, 31)])
    with pytest.raises(UsageError, match="two votes"):
        tally([Vote(0, "a", "ct", 3, 3), Vote(0, "a", "mr", 3, 3)])


def test_a_third_is_asked_only_where_two_differ(clusters: Clusters, records: list[Record]) -> None:
    asked: list[int] = []

    class Third:
        name = "c"

        def __call__(self, number: int, members: Sequence[str], /) -> Vote:
            asked.append(number)
            return Vote(number, "c", "table", len(members), len(members))

    def contrary(number: int, members: Sequence[str], /) -> Vote:
        vote = honest(records, "b")(number, members)
        return Vote(number, "b", "table" if number == 2 else vote.concept, vote.shown, vote.fits)

    contrary.name = "b"  # type: ignore[attr-defined]
    first = honest(records, "a")
    votes = ask(clusters, [first, contrary, Third()])
    differ = {2} if first(2, clusters.members(2, 30)).concept != "table" else set()
    assert set(asked) == differ
    assert len(votes) == 18 + len(differ)


# ---------------------------------------------------------------- sheets and files

TAXONOMY = dict.fromkeys(KINDS, ("plain", "inverted"))


def test_a_sheet_goes_out_and_its_votes_come_back(clusters: Clusters, records: list[Record], tmp_path: Path) -> None:
    by = {r.id: r for r in records}
    look = lambda ids: [by[i].items["image"][0] for i in ids]  # noqa: E731
    assert write_sheet(clusters, look, tmp_path / "sheet", TAXONOMY, show=7) == 9
    with (tmp_path / "sheet" / "sheet.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(r["cluster"]) for r in rows] == list(range(9))
    assert sum(int(r["size"]) for r in rows) == 90
    for row in rows:
        with Image.open(tmp_path / "sheet" / row["picture"]) as picture:
            assert picture.size == (604, 4 + 100 * -(-int(row["shown"]) // 6))
    assert read_votes(tmp_path / "sheet" / "sheet.csv", TAXONOMY) == []  # nothing is filled in yet
    assert read_taxonomy(tmp_path / "sheet" / "taxonomy.json") == TAXONOMY
    votes = ask(clusters, [honest(records, "a"), honest(records, "b")])
    write_votes(votes, tmp_path / "votes.csv")
    assert read_votes(tmp_path / "votes.csv", TAXONOMY) == votes


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0,9,7,,ann,histolgy,,,7", "did you mean 'histology'"),
        ("0,9,7,,ann,histology,purple,,7", "purple"),
        ("0,9,7,,,histology,,,7", "annotator"),
        ("0,9,7,,ann,histology,,,many", "whole numbers"),
    ],
)
def test_a_badly_filled_sheet_names_its_row(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(f"cluster,size,shown,picture,annotator,concept,local,panel_type,fits\n{line}\n")
    with pytest.raises(UsageError, match=f"row 2.*{said}|{said}.*row 2|{said}"):
        read_votes(path, TAXONOMY)
    path.write_text("cluster,concept\n0,x\n")
    with pytest.raises(UsageError, match="annotator, fits, shown"):
        read_votes(path, TAXONOMY)


def test_concepts_are_saved_without_pickle_and_read_back(
    clusters: Clusters, records: list[Record], tmp_path: Path
) -> None:
    labels = tally(ask(clusters, [honest(records, "a")]))
    clusters.model.save(tmp_path / "c.npz", labels)
    model, again = ClusterModel.load(tmp_path / "c.npz")
    assert again == labels
    np.testing.assert_array_equal(model.centroids, clusters.model.centroids)
    np.savez(tmp_path / "bad.npz", mean=np.array([{"a": 1}], object))
    for name in ("bad.npz", "none.npz"):
        with pytest.raises(UsageError, match="no file of concepts"):
            ClusterModel.load(tmp_path / name)


# ---------------------------------------------------------------- versions, copies, concepts kept


def of(name: str, **groups: str) -> Record:
    return Record(name, groups.get("article", name), groups=groups)


def test_the_latest_version_of_an_article_stays() -> None:
    step = LatestVersion()
    made = [
        of("a1", article="PMC1", edition="x", version="1", date="2020-01-01"),
        of("a2", article="PMC1", edition="y", version="2", date="2020-01-01"),
        of("b2", article="PMC1", edition="y", version="2", date="2020-01-01"),
        of("c1", article="PMC2", edition="x", date="2019"),
        of("d1", article="PMC3", edition="p", date="2019-02"),
        of("d2", article="PMC3", edition="q", date="2020-01"),
        of("none"),
    ]
    assert {k: v.drop for k, v in step.decide([step.note(r) for r in made]).items()} == {
        "a1": "superseded", "d1": "superseded",
    }  # fmt: skip


def test_copies_over_articles_are_linked_and_one_is_first() -> None:
    rng = np.random.default_rng(0)
    one, two = draw("table", rng), draw("table", rng)
    pictures = {"b": one, "a": one.copy(), "c": two, "d": one.astype(np.uint16)}
    made = [Record(k, k, items={"image": (Item("image", v, HERE),)}) for k, v in pictures.items()]
    step = FigureCopies()
    found = step.decide([step.note(r) for r in [*made, Record("e", "e")]])
    assert {k: v.groups["copy"] for k, v in found.items()} == {"a": "first", "b": "again"}
    assert found["a"].groups["near_image"] == found["b"].groups["near_image"]


def test_concepts_are_kept_and_capped() -> None:
    made = [
        of(f"r{i}", concept=("ct", "table")[i % 2], licence_group="commercial" if i < 6 else "other") for i in range(10)
    ]
    dropped: Counter[str] = Counter()
    kept = list(KeepConcepts(keep=("ct",), licences=("commercial",))([*made, of("x", licence_group="commercial")],
                                                                     lambda r, why: dropped.update([why])))  # fmt: skip
    assert [r.id for r in kept] == ["r0", "r2", "r4"]
    assert dropped == {"other_concept": 3, "licence": 4, "no_concept": 1}
    cap = CapConcepts(cap=2)
    gone = cap.decide([cap.note(r) for r in made])
    assert len(gone) == 6
    more = cap.decide([cap.note(r) for r in (*made, of("extra", concept="ct"))])
    assert len(set(gone) - set(more)) <= 1  # a new record displaces at most one of its concept


@pytest.mark.real_data
def test_the_official_taxonomy_and_cluster_labels(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    """BIOMEDICA's own 2,000 cluster labels go through the sheet's form and the tally."""
    folder = shared_data("official_repos") / "S23_biomedica" / "annotations"
    taxonomy = read_taxonomy(folder / "taxonomy_collapsed_and_filtered.json")
    assert (len(taxonomy), sum(map(len, taxonomy.values()))) == (16, 119)
    official = json.loads((folder / "cluster_labels.json").read_text())
    votes = []
    for number, label in official.items():
        (concept, *others), local = label["global_class"], label["local_class"]
        fine = next((w for w in local if w in taxonomy[concept]), "")
        votes.append(Vote(int(number), "experts", MIXED if others else concept, 30, 30, "" if others else fine,
                          label["panel_type"]))  # fmt: skip
    write_votes(votes, tmp_path / "v.csv")
    labels = tally(read_votes(tmp_path / "v.csv", taxonomy))
    assert len(labels) == 2000
    assert sum(label.concept == "Clinical Imaging" for label in labels.values()) > 50
    assert {label.panel_type for label in labels.values()} == {"single", "multiple"}
