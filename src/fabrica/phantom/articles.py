"""Seeded synthetic articles with real picture files and their truth: compound figures, contexts, licences, damage."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fabrica.phantom.concepts import CONCEPTS, PICTURED, PLACES, SIGHTS, draw
from fabrica.phantom.files import png
from fabrica.phantom.jats import TRAPS, Paper, PaperFigure, PaperReference, PaperSection, write

LICENCES = ("CC-BY-4.0", "CC-BY-4.0", "CC0-1.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-ND-4.0", "other", "")
DAMAGED = ("truncated", "empty", "other_content", "entity_bomb")
LAYOUTS = ((1, 1), (1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (2, 3))  # rows, columns
STYLES = ("(A) ", "(a) ", "A, ", "A: ", "trailing", "groups")


@dataclass(frozen=True, slots=True)
class PanelTruth:
    """`letter` "" in a single figure; `box` (x0, y0, x1, y1) pixels; `caption` its own words without the letter."""

    letter: str
    concept: str
    place: int
    box: tuple[int, int, int, int]
    caption: str


@dataclass(frozen=True, slots=True)
class FigureTruth:
    """What a figure shows. `image` the file beside the XML ("" where it is missing on purpose)."""

    id: str
    image: str
    panels: tuple[PanelTruth, ...]
    style: str


@dataclass(frozen=True, slots=True)
class PhantomArticle:
    """An article with its files by name. `broken` says how its XML was damaged ("" = it was not)."""

    paper: Paper
    xml: bytes
    images: dict[str, bytes]
    truth: tuple[FigureTruth, ...]
    broken: str = ""


def articles(
    n: int, seed: int, *, malformed: float = 0.05, size: int = 48, copied: float = 0.03, first: int = 0
) -> Iterator[PhantomArticle]:
    """`n` articles numbered from `first`. The share `malformed` has damaged XML, `copied` of the figures repeat the
    picture of the article before. The same arguments give the same bytes.

    >>> a, b = articles(2, 7, malformed=0.0)
    >>> a.paper.pmcid, len(a.images) >= 1, a.xml == next(articles(1, 7, malformed=0.0)).xml
    ('PMC7000000', True, True)
    """
    before: tuple[bytes, tuple[PanelTruth, ...]] | None = None
    for number in range(first, first + n):
        made = _article(number, seed, size, copied, before)
        rng = random.Random(f"damage-{seed}-{number}")
        before = next(((made.images[t.image], t.panels) for t in made.truth if t.image and len(t.panels) == 1), before)
        yield _damage(made, rng) if rng.random() < malformed else made


def write_folder(made: Iterator[PhantomArticle] | Sequence[PhantomArticle], folder: Path) -> list[PhantomArticle]:
    """Write each article as a package folder `PMC.../PMC....nxml` with its pictures; the articles, in order."""
    out = []
    for article in made:
        place = folder / article.paper.pmcid
        place.mkdir(parents=True)
        (place / f"{article.paper.pmcid}.nxml").write_bytes(article.xml)
        for name, data in article.images.items():
            (place / name).write_bytes(data)
        out.append(article)
    return out


# ---------------------------------------------------------------- one article


def _article(
    number: int, seed: int, size: int, copied: float, before: tuple[bytes, tuple[PanelTruth, ...]] | None
) -> PhantomArticle:
    rng = random.Random(f"article-{seed}-{number}")
    noise = np.random.default_rng([seed, number, 23])
    pmcid = f"PMC{7_000_000 + number}"
    figures: list[PaperFigure] = []
    truth: list[FigureTruth] = []
    images: dict[str, bytes] = {}
    for k in range(1, rng.randint(1, 6) + 1):
        name = f"{pmcid.lower()}-g{k:03d}"
        rows, columns = rng.choice(LAYOUTS)
        if before is not None and rng.random() < copied:
            data, panels = before
        else:
            pixels, panels = compound(rows, columns, rng, noise, size)
            data = png(pixels)
        style = rng.choice(STYLES) if len(panels) > 1 else ""
        lettered = tuple(replace(p, letter=_letter(style, i)) for i, p in enumerate(panels)) if style else panels
        images[f"{name}.png"] = data
        truth.append(FigureTruth(f"F{k}", f"{name}.png", lettered, style))
        figures.append(
            PaperFigure(
                f"F{k}", f"Figure {k}", _title(rng, panels), tuple(_caption(rng, style, lettered)),
                tuple((p.letter, p.caption) for p in lettered) if style else (),
                (name if rng.random() < 0.7 else f"{name}.jpg",),
            )
        )  # fmt: skip
    paper = _paper(rng, pmcid, number, figures)
    return PhantomArticle(paper, write(paper), images, tuple(truth))


def _letter(style: str, i: int) -> str:
    return chr(ord("a" if style == "(a) " else "A") + i)


def compound(
    rows: int, columns: int, rng: random.Random, noise: np.random.Generator, size: int
) -> tuple[NDArray[np.uint8], tuple[PanelTruth, ...]]:
    """A figure of rows x columns panels on white with gutters and margins: (H, W, 3) uint8 and what is where."""
    gap, margin = rng.randint(6, 12), rng.randint(0, 8)
    high = rows * size + (rows - 1) * gap + 2 * margin
    wide = columns * size + (columns - 1) * gap + 2 * margin
    image = np.full((high, wide, 3), 255, np.uint8)
    theme = rng.choice(CONCEPTS) if rng.random() < 0.5 else ""
    panels = []
    for i in range(rows * columns):
        concept = theme or rng.choice(CONCEPTS)
        place = rng.randrange(4)
        y, x = margin + (i // columns) * (size + gap), margin + (i % columns) * (size + gap)
        image[y : y + size, x : x + size] = draw(concept, noise, size, place)
        panels.append(PanelTruth("", concept, place, (x, y, x + size, y + size), sentence(concept, place, rng)))
    return image, tuple(panels)


_HOW = ("{c} shows {s} in the {p}", "{c} with {s}, {p}", "{s} is seen in the {p} on {c}", "representative {c}: {s} {p}")
_PLAIN = ("{c} of the {n} group", "{c} for {n} samples", "{c}, {n} conditions", "summary {c} of {n} values")
_NAMED = ("control", "treated", "older", "paired", "pooled", "adjusted")


def sentence(concept: str, place: int, rng: random.Random) -> str:
    """What a caption says of a picture: of the clinical and microscopy ones what is seen and where.

    >>> sentence("table", 0, random.Random(2))
    'Table of the control group'
    """
    if concept in PICTURED:
        text = rng.choice(_HOW).format(c=concept, s=SIGHTS[concept], p=PLACES[place])
    else:
        text = rng.choice(_PLAIN).format(c=concept, n=rng.choice(_NAMED))
    return text[0].upper() + text[1:]


_TAILS = ("Scale bars are 50 μm.", "Data are means ± SD.", "Error bars show the 95% interval; n = 12.")


def _title(rng: random.Random, panels: Sequence[PanelTruth]) -> str:
    if rng.random() < 0.3:
        return ""
    return f"Findings by {panels[0].concept} in cohort {rng.randint(1, 9)}."


def _caption(rng: random.Random, style: str, panels: Sequence[PanelTruth]) -> Iterator[str]:
    """The caption's paragraphs: panel parts in a journal's way, sometimes with a common sentence behind them."""
    tail = f" {rng.choice(_TAILS)}" if rng.random() < 0.4 else ""
    if not style:
        yield f"{panels[0].caption}.{tail}"
    elif style == "trailing":
        lowered = [f"{p.caption} ({p.letter})" for p in panels]
        yield ", ".join(lowered[:-1]) + f" and {lowered[-1]}." + tail
    elif style == "groups" and len(panels) > 2:
        a, b, *rest = panels
        yield f"({a.letter}, {b.letter}) {a.caption}. " + " ".join(f"({p.letter}) {p.caption}." for p in rest) + tail
    else:
        form = "(A) " if style == "groups" else style
        sep = "; " if rng.random() < 0.3 else ". "
        yield sep.join(form.replace("A", p.letter).replace("a", p.letter) + p.caption for p in panels) + "." + tail


_FILLER = (
    "The cohort was followed for two years.", "Values were compared with a rank test (p = 0.03).",
    "No adverse event occurred at 10 mg of β blockers.", "These data agree with earlier work [[cite:{r}|{n}]].",
)  # fmt: skip


def _paper(rng: random.Random, pmcid: str, number: int, figures: list[PaperFigure]) -> Paper:
    refs = tuple(
        PaperReference(f"R{i}", f"Synthetic study {rng.randint(100, 999)} of cells", f"{1_000_000 + number * 40 + i}")
        for i in range(1, rng.randint(3, 9))
    )
    cite = [f.format(r=refs[i].id, n=i + 1) for i in range(len(refs)) for f in _FILLER]
    parts = [PaperSection("Introduction", tuple(rng.sample(cite, 2)))]
    shown = []
    for k, figure in enumerate(figures):
        said = f"[[fig:{figure.id}|Figure {k + 1}{_panel(rng, figure)}]]"
        shown.append(f"As {said} shows, the change was clear. {rng.choice(cite)}")
        if k + 2 < len(figures) and rng.random() < 0.4:
            ids = ",".join(f.id for f in figures[k : k + 3])
            shown.append(f"All of them agree ([[fig:{ids}|Figs {k + 1}–{k + 3}]]).")
        if rng.random() < 0.4:
            shown.append(rng.choice(cite))
    formula = PaperFigure("e1", kind="formula", graphics=(f"{pmcid.lower()}-e001",))
    equations = (formula,) if rng.random() < 0.5 else ()
    parts.append(PaperSection("Results", tuple(shown), figures=(*figures, *equations)))
    parts.append(PaperSection("Discussion", tuple(rng.sample(cite, 2))))
    return Paper(
        pmcid, str(3_000_000 + number), f"10.5555/synthetic.{number}", f"Synthetic article {number} on imaging",
        ("A synthetic abstract of the phantom.",), date=f"20{10 + number % 15}-0{1 + number % 9}-1{number % 9}",
        keywords=("synthetic", "phantom"), licence=rng.choice(LICENCES), sections=tuple(parts), references=refs,
        traps=frozenset(t for t in TRAPS if rng.random() < 0.3),
    )  # fmt: skip


def _panel(rng: random.Random, figure: PaperFigure) -> str:
    return rng.choice(figure.panels)[0] if figure.panels and rng.random() < 0.5 else ""


def _damage(made: PhantomArticle, rng: random.Random) -> PhantomArticle:
    how = rng.choice(DAMAGED)
    if how == "entity_bomb":
        bomb = b'<!DOCTYPE article [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>\n<article'
        head, _, rest = made.xml.partition(b"<article" if b"<article" in made.xml else b"<j:article")
        xml = head[: head.find(b"<!DOCTYPE")] + bomb + rest if b"<!DOCTYPE" in head else head + bomb + rest
    else:
        xml = {
            "truncated": made.xml[: len(made.xml) * 3 // 5],
            "empty": b"",
            "other_content": b"<html><p>Gone</p></html>",
        }[how]
    return replace(made, xml=xml, broken=how)
