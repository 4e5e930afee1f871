"""Synthetic images for yes/no probing: facts alone (some findings unlisted), or small pictures of shapes in places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fabrica.errors import UsageError
from fabrica.phantom.shapes import SHAPES, coverage
from fabrica.types import Absent, Item, Origin, Record, Region, Rights, record_id

MODALITIES = ("X-ray", "CT")
ORGANS = ("chest", "abdomen", "brain", "spine")
CONDITIONS = ("fracture", "mass", "cyst", "effusion", "haemorrhage", "calcification", "abscess", "aneurysm")
PLACES = ("left upper", "left middle", "left lower", "right upper", "right middle", "right lower")
FINDINGS = (0.45, 0.3, 0.15, 0.1)  # the shares of images with 0, 1, 2, 3 findings
DIMS: Mapping[str, Sequence[str]] = {
    "modality": MODALITIES, "organ": ORGANS, "abnormality": (), "condition": CONDITIONS, "position": PLACES,
}  # fmt: skip
PICTURE_DIMS: Mapping[str, Sequence[str]] = {"abnormality": (), "condition": SHAPES, "position": PLACES}
SIDE, MARGIN = 64, 14  # pixels of a picture; no shape comes nearer to its border
_LICENCE = "CC0-1.0"


@dataclass(frozen=True, slots=True)
class Facts:
    """`records` as a reader would give them; `truth` record -> what is really there, the unlisted as well."""

    records: tuple[Record, ...]
    truth: Mapping[str, frozenset[str]]


def facts(n: int, seed: int, *, unlisted: float = 0.0) -> Facts:
    """`n` images of two modalities and four organs, each of 0 to 3 findings in one place. `unlisted` is the chance that
    a finding that is there has no label. The picture is a stand-in of 4 x 4 pixels of no meaning, one of each record.

    >>> made = facts(3, 0)
    >>> sorted(made.records[0].groups), len(made.truth)
    (['data', 'modality', 'organ', 'source'], 3)
    """
    if n < 1 or not 0 <= unlisted <= 1:
        raise UsageError(f"facts: n={n}, unlisted={unlisted}; wanted n >= 1 and a share")
    rng = np.random.default_rng([seed, 80])
    made, truth = [], {}
    for i in range(n):
        key = f"{seed}/{i}"
        id_ = record_id("phantom-facts", key)
        some = rng.permutation(len(CONDITIONS))[: rng.choice(len(FINDINGS), p=FINDINGS)]
        there = [CONDITIONS[j] for j in some]
        places = [PLACES[j] for j in rng.permutation(len(PLACES))[: len(there)]]
        listed = [c for c in there if rng.random() >= unlisted]
        origin = Origin("phantom-facts", id_, "", _LICENCE, "synthetic")
        pixels = np.frombuffer(bytes.fromhex(id_) + bytes(4), np.uint8).reshape(4, 4)
        labels: dict[str, float | Absent] = {c: float(c in listed) for c in CONDITIONS if c in listed or c not in there}
        nowhere = np.zeros(2)
        made.append(
            Record(
                id_, record_id("subject", key)[:16],
                {
                    "modality": MODALITIES[int(rng.integers(len(MODALITIES)))],
                    "organ": ORGANS[int(rng.integers(len(ORGANS)))], "source": "phantom-facts", "data": "phantom",
                },
                {"image": (Item("image", pixels, origin),)},
                tuple(
                    Region("image", "point", nowhere, c, origin, text=f"in the {p} part")
                    for c, p in zip(there, places, strict=True) if c in listed
                ),
                labels, rights=Rights(_LICENCE),
            )
        )  # fmt: skip
        truth[id_] = frozenset(there)
    return Facts(tuple(made), truth)


def pictures(n: int, seed: int, *, noise: float = 0.1) -> tuple[Record, ...]:
    """`n` pictures (64, 64) float32 of 0 to 3 shapes, each of its own kind in its own place (two columns, three rows)
    about the middle, on a flat ground. Labels of all six shapes, points of those there.

    Nothing near a shape tells its place: no anatomy, and the border is MARGIN away, so that a net whose tokens see 15
    pixels or fewer cannot know places once its tokens are pooled.

    >>> made = pictures(2, 0)
    >>> made[0].first("image").array().shape, len(made[0].labels)
    ((64, 64), 6)
    """
    if n < 1 or noise < 0:
        raise UsageError(f"pictures: n={n}, noise={noise}; wanted n >= 1 and noise >= 0")
    rng = np.random.default_rng([seed, 81])
    made = []
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    for i in range(n):
        key = f"{seed}/{i}"
        origin = Origin("phantom-pictures", record_id("phantom-pictures", key), "", _LICENCE, "synthetic")
        image = (noise * rng.standard_normal((SIDE, SIDE))).astype(np.float32)
        kinds, cells, regions = rng.permutation(len(SHAPES)), rng.permutation(len(PLACES)), []
        for kind, cell in zip(kinds[: rng.integers(0, 4)], cells, strict=False):
            x, y = (24.0, 40.0)[cell // 3] + rng.uniform(-1, 1), (20.0, 32.0, 44.0)[cell % 3] + rng.uniform(-1, 1)
            image += coverage(SHAPES[kind], rows - np.float32(y), columns - np.float32(x), np.full(1, 4.5, np.float32))
            regions.append(Region("image", "point", np.array([x, y]), SHAPES[kind], origin))
        there = {r.label for r in regions}
        made.append(
            Record(
                origin.key, record_id("subject", "pictures", key)[:16],
                {"source": "phantom-pictures", "data": "phantom"},
                {"image": (Item("image", image, origin),)}, tuple(regions),
                {s: float(s in there) for s in SHAPES}, rights=Rights(_LICENCE),
            )
        )  # fmt: skip
    return tuple(made)
