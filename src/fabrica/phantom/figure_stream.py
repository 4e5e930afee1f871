"""Single figures with captions as an archive streams them: a share of clinical and microscopy pictures among plots."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from fabrica.phantom.articles import sentence
from fabrica.phantom.concepts import PICTURED, PLACES, PLOTTED, SIGHTS, draw
from fabrica.types import Item, Origin, Record, Rights, record_id

PER_ARTICLE = 2


def figures(n: int, seed: int, *, plots: float = 0.6, size: int = 32) -> Iterator[Record]:
    """`n` figure records (item "image" (size, size, 3), "caption"), two an article; the share `plots` are plots, charts
    and tables. Groups say what is true: "truth" the concept, "sight" of a picture the concept and place that it shows.

    >>> a, b = figures(2, 1, plots=0.0)
    >>> a.subject == b.subject, a.groups["sight"].split("/")[0] == a.groups["truth"]
    (True, True)
    """
    for i in range(n):
        rng, noise = random.Random(f"figures-{seed}-{i}"), np.random.default_rng([seed, i, 41])
        concept = rng.choice(PLOTTED if rng.random() < plots else PICTURED)
        place = rng.randrange(4)
        origin = Origin("phantom-figures", f"{seed}/{i}", "", "CC0-1.0", by="synthetic")
        items = {
            "image": (Item("image", draw(concept, noise, size, place), origin),),
            "caption": (Item("text", sentence(concept, place, rng) + ".", origin),),
        }
        groups = {"modality": "figure", "data": "phantom", "truth": concept, "licence_group": "commercial"}
        if concept in PICTURED:
            groups["sight"] = f"{concept}/{PLACES[place]}"
        article = f"article-{seed}-{i // PER_ARTICLE}"
        yield Record(
            record_id("phantom-figures", str(seed), str(i)), article, groups={**groups, "article": article},
            items=items, rights=Rights("CC0-1.0"), split="train",
        )  # fmt: skip


def sights() -> dict[str, tuple[str, ...]]:
    """Class -> words of the 24 things to be told apart: what is seen on which kind of picture, and where.

    >>> sights()["ultrasound/lower left"]
    ('a hypoechoic mass in the lower left on ultrasound',)
    """
    return {f"{c}/{p}": (f"{SIGHTS[c]} in the {p} on {c}",) for c in PICTURED for p in PLACES}
