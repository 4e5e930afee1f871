"""Synthetic articles: what is written is what a reader reads, every time the same; figures are where truth says."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.phantom.articles import DAMAGED, PhantomArticle, articles, write_folder
from fabrica.phantom.concepts import CONCEPTS, PICTURED, draw
from fabrica.phantom.figure_stream import figures, sights
from fabrica.phantom.jats import TRAPS, Paper, PaperFigure, PaperSection, plain, write
from fabrica.sources.image import decode
from fabrica.sources.jats import parse


@pytest.fixture(scope="module")
def made() -> list[PhantomArticle]:
    return list(articles(40, 3, malformed=0.0))


def test_the_same_arguments_give_the_same_bytes(made: list[PhantomArticle]) -> None:
    again = list(articles(8, 3, malformed=0.0))
    assert [(a.xml, a.images) for a in again] == [(a.xml, a.images) for a in made[:8]]
    assert next(articles(1, 4, malformed=0.0)).xml != made[0].xml


def test_every_caption_context_reference_and_licence_is_read_back(made: list[PhantomArticle]) -> None:
    for article in made:
        found = parse(article.xml)
        shown = [f for f in found.figures if f.kind == "figure"]
        wanted = [f for f in article.paper.figures if f.kind == "fig"]
        assert [(f.id, f.label, f.text) for f in shown] == [(f.id, f.label, f.text) for f in wanted]
        assert [tuple(p.text for p in found.context(f)) for f in shown] == [article.paper.context(f.id) for f in wanted]
        assert [(p.path, p.text) for p in found.paragraphs] == [(s, plain(p)) for s, p in article.paper.paragraphs]
        assert [(r.id, r.pmid) for r in found.references] == [(r.id, r.pmid) for r in article.paper.references]
        assert (found.licence, found.id, found.date) == (article.paper.licence, article.paper.pmcid, article.paper.date)


def test_the_figures_are_drawn_where_the_truth_says(made: list[PhantomArticle]) -> None:
    for article in made:
        for figure in article.truth:
            pixels, _ = decode(article.images[figure.image])
            outside = np.ones(pixels.shape[:2], bool)
            for panel in figure.panels:
                x0, y0, x1, y1 = panel.box
                assert pixels[y0:y1, x0:x1].std() > 5
                outside[y0:y1, x0:x1] = False
            assert (pixels[outside] == 255).all()
            assert [p.letter for p in figure.panels] == (
                [chr(ord(figure.panels[0].letter) + i) for i in range(len(figure.panels))] if figure.style else [""]
            )


def test_damage_and_copies_come_at_their_shares() -> None:
    many = list(articles(300, 5, size=16, malformed=0.2, copied=0.2))
    broken = [a for a in many if a.broken]
    assert 35 < len(broken) < 85
    assert {a.broken for a in broken} == set(DAMAGED)
    pictures = [data for a in many for data in a.images.values()]
    assert len(pictures) - len(set(pictures)) > 60


def test_a_folder_holds_a_package_an_article(made: list[PhantomArticle], tmp_path: Path) -> None:
    write_folder(made[:3], tmp_path)
    for article in made[:3]:
        names = {p.name for p in (tmp_path / article.paper.pmcid).iterdir()}
        assert names == {f"{article.paper.pmcid}.nxml", *article.images}


texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=20
)
words = st.lists(texts.filter(lambda t: "[[" not in t and "]]" not in t), min_size=1, max_size=4).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(title=words, paragraph=words, caption=words, traps=st.sets(st.sampled_from(TRAPS)))
def test_any_words_survive_any_way_of_writing(title: str, paragraph: str, caption: str, traps: set[str]) -> None:
    figure = PaperFigure("F1", "Figure 1", title, (caption,), graphics=("g.png",))
    body = PaperSection(title, (paragraph, "See [[fig:F1|Figure 1]]."), figures=(figure,))
    paper = Paper("PMC1", title=title, sections=(body,), traps=frozenset(traps))
    found = parse(write(paper))
    assert (found.title, found.figures[0].text) == (title, figure.text)
    assert [p.text for p in found.paragraphs] == [paragraph, "See Figure 1."]
    assert found.figures[0].graphics == ("g.png",)


def test_an_unknown_trap_and_concept_are_errors() -> None:
    with pytest.raises(ValueError, match="cdata"):
        write(Paper(traps=frozenset({"cdatta"})))
    with pytest.raises(ValueError, match="ultrasound"):
        draw("sonogram", np.random.default_rng(0))


def test_the_stream_has_its_share_of_plots_and_names_what_is_seen() -> None:
    made = list(figures(400, 2))
    shown = [r.groups["truth"] in PICTURED for r in made]
    assert 0.3 < np.mean(shown) < 0.5
    assert {r.groups["sight"] for r in made if "sight" in r.groups} == set(sights())
    assert len({r.subject for r in made}) == 200
    assert all(r.first("image").origin.by == "synthetic" for r in made)


def test_a_concept_is_told_from_the_others_by_its_picture() -> None:
    """A nearest-mean rule on the cheap features: the phantom is no noise, and no one-pixel give-away."""
    from fabrica.curate.pools.colour_texture import ColourTexture
    from fabrica.types import Item, Origin

    def rows(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        made = [draw(c, rng) for c in CONCEPTS for _ in range(10)]
        return ColourTexture()([Item("image", p, Origin("", "", "", "")) for p in made])

    means = rows(1).reshape(len(CONCEPTS), 10, -1).mean(1)
    said = (rows(2) @ means.T).argmax(1).reshape(len(CONCEPTS), 10)
    assert (said == np.arange(len(CONCEPTS))[:, None]).mean() > 0.8
