"""The data engines that the shared tests run: how each makes its source and what its plan is.

A system with a `plan` must stand in `SYSTEMS`; what it needs beside its plan (settings, synthetic source) is said here.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.types import Item, Origin, Record, Step, Survey, record_id

Plan = Sequence[Step | Survey]
COPY = "copy-of-"  # before the subject of what was copied


@dataclass(frozen=True)
class Engine:
    """`make(n, seed)` gives about n records; `plan()` the steps under test."""

    make: Callable[[int, int], list[Record]]
    plan: Callable[[], Plan]
    memory: int = 4 << 20  # bytes: so small that the plan runs in many units
    files: Callable[[Path, int, int], None] | None = None  # (folder, n, seed): articles as files, if its source is some
    judged: tuple[str, ...] = ("image", "report", "caption")  # roles of the source whose copies must be found
    asks: bool = False  # makes many records of one image: duplicates are looked for before it, not among what it makes


def reports(n: int, seed: int) -> list[Record]:
    """Synthetic radiographs with reports, and as many notes of text alone."""
    from fabrica.phantom import p1

    vocabulary = [f"term{i}" for i in range(3000)]
    made = list(p1(max(n // 2, 1), seed).records())
    origin = Origin("phantom-notes", "", "", "CC0-1.0", by="synthetic")
    for i in range(n - len(made)):
        words = random.Random(f"{seed}/{i}").choices(vocabulary, k=60)
        item = Item("text", " ".join(words), replace(origin, key=f"{seed}/{i}"))
        groups = {"modality": "note", "source": "phantom-notes", "data": "phantom"}
        made.append(Record(record_id("note", str(seed), str(i)), f"n{seed}-{i // 2}", groups, {"report": (item,)}))
    return made


def usual() -> Plan:
    """What any recipe ends with: too small, duplicates, a split."""
    from fabrica.curate.duplicates.dedup import ImageDuplicates, TextDuplicates
    from fabrica.curate.quality import MinimumSize, MissingText
    from fabrica.curate.split import BySubject

    return [MissingText(), MinimumSize(), ImageDuplicates(), TextDuplicates(), BySubject(salt="engines")]


def pool(n: int, seed: int) -> list[Record]:
    """A synthetic pool of pictures with texts and a score."""
    from fabrica.phantom.crawl import crawl

    def large(record: Record) -> Record:
        [item] = record.items["image"]
        pixels = np.kron(item.array(), np.ones((4, 4), np.uint8))  # (64, 64): large enough to be judged
        return replace(record, items={**record.items, "image": (replace(item, value=pixels),)})

    scores = np.random.default_rng([seed, 3]).random(n)
    made = list(crawl(n, seed).records())
    return [replace(large(record), labels={"score": float(s)}) for record, s in zip(made, scores, strict=True)]


def of_datacomp() -> Plan:
    from fabrica.systems.datacomp import SYSTEM

    assert SYSTEM.plan is not None
    settings = replace(SYSTEM.settings["tiny"], filter="score", score="score", fraction=0.5)
    return SYSTEM.plan(settings)


def from_files(write: Callable[[Path], object]) -> list[Record]:
    """What the readers make of a folder that `write` fills."""
    from fabrica.sources import Quarantined, read, walk

    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp) / "files"
        folder.mkdir()
        write(folder)
        return [
            found for ref in walk(folder, source="made") for found in read(ref) if not isinstance(found, Quarantined)
        ]


def case_reports(n: int, seed: int) -> list[Record]:
    """Synthetic case reports, read from JATS."""
    return from_files(lambda folder: case_files(folder, n, seed))


def case_files(folder: Path, n: int, seed: int) -> None:
    from fabrica.phantom.case_reports import case_reports as library
    from fabrica.phantom.jats import write

    for report in library(n, seed, kinds=12).reports:
        (folder / f"{report.paper.pmcid}.nxml").write_bytes(write(report.paper))


def figures(n: int, seed: int) -> list[Record]:
    """Synthetic articles with figures, read from JATS packages; about three records an article."""
    return from_files(lambda folder: figure_files(folder, -(-n // 3), seed))


def figure_files(folder: Path, n: int, seed: int) -> None:
    from fabrica.phantom.articles import articles, write_folder

    write_folder(articles(n, seed, malformed=0.0), folder)


def of_system(name: str, preset: str = "tiny") -> Plan:
    from fabrica.systems import load_system

    system = load_system(name)
    assert system.plan is not None
    return system.plan(system.settings[preset])


def stays(n: int, seed: int) -> list[Record]:
    """Synthetic radiographs with timed measurements beside them."""
    from fabrica.phantom import p1
    from fabrica.systems.multimodn import ICU

    rng, codes = np.random.default_rng([seed, 27]), [code for of in ICU.values() for code in of]
    out = []
    for record in p1(n, seed).records():
        origin = record.items["image"][0].origin
        events = tuple(
            Item("series", rng.normal(size=1), origin, hours=float(rng.uniform(0, 60)), names=(str(rng.choice(codes)),))
            for _ in range(12)
        )
        out.append(replace(record, items={**record.items, "events": events}))
    return out


def known_facts(n: int, seed: int) -> list[Record]:
    """Synthetic images of known facts: a texture of its own each, and a line of text beside it."""
    from fabrica.phantom.facts import facts

    out = []
    for k, record in enumerate(facts(n, seed).records):
        rng, [image] = np.random.default_rng([seed, k, 80]), record.items["image"]
        texture = np.kron(rng.integers(0, 256, (16, 16), np.uint8), np.ones((4, 4), np.uint8))
        text = Item("text", " ".join(f"term{i}" for i in rng.integers(0, 3000, 60)), image.origin)
        out.append(replace(record, items={"image": (replace(image, value=texture),), "report": (text,)}))
    return out


def of_probmed() -> Plan:
    from fabrica.phantom.facts import DIMS
    from fabrica.systems.probmed import SYSTEM

    assert SYSTEM.plan is not None
    return SYSTEM.plan(replace(SYSTEM.settings["tiny"], values=DIMS))


SYSTEMS: dict[str, Engine] = {
    "datacomp": Engine(pool, of_datacomp, 1 << 20),
    "pmc_patients": Engine(case_reports, partial(of_system, "pmc_patients"), 1 << 20, case_files, ("paragraph",)),
    "biomedica": Engine(figures, partial(of_system, "biomedica"), 4 << 20, figure_files, ("image",)),
    "multimodn": Engine(stays, partial(of_system, "multimodn", "icu")),
    "probmed": Engine(known_facts, of_probmed, 1 << 20, judged=("image",), asks=True),
    "radgraph": Engine(reports, partial(of_system, "radgraph")),
    "llava_med": Engine(figures, partial(of_system, "llava_med"), 4 << 20, figure_files, ("image",), asks=True),
}
ENGINES: dict[str, Engine] = {"usual": Engine(reports, usual), **SYSTEMS}


def deduplicated(engine: Engine) -> Plan:
    """The plan with what it lacks of duplicates before its split: a system may leave them to the recipe around it."""
    from fabrica.curate.duplicates.dedup import ImageDuplicates, TextDuplicates
    from fabrica.curate.split import BySubject

    plan = engine.plan()
    names = {part.name for part in plan}
    lacking: list[Any] = [p for p in (ImageDuplicates(), TextDuplicates(act="group")) if p.name not in names]
    splits = [part for part in plan if isinstance(part, BySubject)] or [BySubject(salt="engines")]
    rest = [part for part in plan if not isinstance(part, BySubject)]
    return [*lacking, *splits, *rest] if engine.asks else [*rest, *lacking, *splits]


def with_copies(records: Sequence[Record], judged: Sequence[str], every: int = 5) -> list[Record]:
    """The records, and an edited copy of each `every`-th under another subject: one word in 60 and more changed, grey
    values by 1 of 255 at most. Of those alone that have something of `judged` to edit. Its id is the higher one: of
    two that are equal in all else the copy goes."""
    return [*records, *_copies([r for r in records if any(_edits(i) for i in r.all(*judged))][::every], judged)]


def _copies(records: Sequence[Record], judged: Sequence[str]) -> Iterator[Record]:
    for record in records:
        items = {
            role: tuple(
                _edited(i, f"{record.id}{role}{k}") if role in judged and _edits(i) else i for k, i in enumerate(of)
            )
            for role, of in record.items.items()
        }
        groups = {k: v for k, v in record.groups.items() if k in ("modality", "source", "data", "pmid")}
        article = {k: f"{COPY}{v}" for k, v in record.groups.items() if k == "article"}
        yield replace(
            record, id=f"z{record_id(record.id)}", subject=f"{COPY}{record.subject}", items=items, links=(),
            groups=groups | article,
        )  # fmt: skip


def _edits(item: Item) -> bool:
    """Whether a copy of it is near by definition: a picture of some size, a text whose shingles mostly stay."""
    if item.kind == "image":
        return isinstance(item.value, np.ndarray) and min(item.value.shape[:2]) >= 24
    return item.kind == "text" and item.present and len(item.text().split()) >= 60


def _edited(item: Item, key: str) -> Item:
    rng = np.random.default_rng(list(key.encode()))
    if item.kind == "image":
        pixels = item.array()
        noise = rng.uniform(-1, 1, pixels.shape) * (float(pixels.max() - pixels.min()) or 1.0) / 255
        edited = pixels + noise if pixels.dtype.kind == "f" else np.clip(pixels + np.rint(noise), 0, 255)
        return replace(item, value=edited.astype(pixels.dtype))
    words = item.text().split(" ")
    words[int(rng.integers(len(words)))] = "another"
    return replace(item, value=" ".join(words))
