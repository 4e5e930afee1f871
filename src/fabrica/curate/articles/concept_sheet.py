"""The annotation sheet: a picture of members a cluster and a CSV to fill in; what annotators wrote, back as votes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fabrica.curate.articles.concepts import MIXED, Clusters, Vote
from fabrica.curate.pools.colour_texture import picture, resized
from fabrica.errors import UsageError, unknown
from fabrica.safe import folder_whole, read_bytes, write_whole
from fabrica.types import Item

COLUMNS = ("cluster", "size", "shown", "picture", "annotator", "concept", "local", "panel_type", "fits")
_TILE, _ACROSS = 96, 6
Taxonomy = Mapping[str, Sequence[str]]  # concept -> finer words


def write_sheet(
    clusters: Clusters, look: Callable[[Sequence[str]], Sequence[Item]], folder: str | Path, taxonomy: Taxonomy,
    *, show: int = 30, seed: int = 0,
) -> int:  # fmt: skip
    """Write `pictures/cluster-0000.png` ..., `sheet.csv` and `taxonomy.json` into a new folder, whole or not at all.

    `look` gives the image items of ids. Each annotator fills a copy of the CSV: `annotator` a name, `concept` one of
    the taxonomy or "mixed", `fits` how many of the `shown` members it fits. The number of clusters is returned.
    """
    with folder_whole(folder) as temp:
        (temp / "pictures").mkdir()
        text = io.StringIO()
        out = csv.writer(text, lineterminator="\n")
        out.writerow(COLUMNS)
        written = 0
        for number in range(len(clusters.model)):
            members = clusters.members(number, show, seed)
            if not members:
                continue
            name = f"pictures/cluster-{number:04d}.png"
            (temp / name).write_bytes(_png(contact_sheet(look(members))))
            size = int((clusters.cluster == number).sum())
            out.writerow([number, size, len(members), name, "", "", "", "", ""])
            written += 1
        (temp / "sheet.csv").write_text(text.getvalue(), "utf-8")
        (temp / "taxonomy.json").write_text(json.dumps({k: list(v) for k, v in taxonomy.items()}, indent=1), "utf-8")
    return written


def contact_sheet(items: Sequence[Item]) -> NDArray[np.uint8]:
    """(H, W, 3) of the pictures as tiles of 96 pixels, six across."""
    rows = -(-len(items) // _ACROSS)
    sheet = np.full((rows * (_TILE + 4) + 4, _ACROSS * (_TILE + 4) + 4, 3), 255, np.uint8)
    for i, item in enumerate(items):
        y, x = 4 + i // _ACROSS * (_TILE + 4), 4 + i % _ACROSS * (_TILE + 4)
        tile = resized(picture(item), _TILE)
        sheet[y : y + _TILE, x : x + _TILE] = (np.clip(tile, 0, 1) * 255).round()
    return sheet


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def write_votes(votes: Iterable[Vote], path: str | Path) -> None:
    """Votes as a filled sheet, which `read_votes` reads."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    for v in votes:
        out.writerow([v.cluster, "", v.shown, "", v.annotator, v.concept, v.local, v.panel_type, v.fits])
    with write_whole(path) as file:
        file.write(text.getvalue().encode())


def read_votes(path: str | Path, taxonomy: Taxonomy) -> list[Vote]:
    """The votes of a filled sheet; rows without a concept are not yet annotated and give none.

    `UsageError`, naming the row, for a missing column, an unknown concept or finer word, or numbers that are none.
    """
    rows = csv.DictReader(io.StringIO(read_bytes(path).decode("utf-8-sig")))
    if missing := {"cluster", "annotator", "concept", "shown", "fits"} - set(rows.fieldnames or ()):
        raise UsageError(f"{path} has no column {', '.join(sorted(missing))}; it should have {', '.join(COLUMNS)}")
    return [_vote(row, f"{path}, row {n}", taxonomy) for n, row in enumerate(rows, 2) if (row["concept"] or "").strip()]


def _vote(row: Mapping[str, str | None], where: str, taxonomy: Taxonomy) -> Vote:
    said = {k: (row.get(k) or "").strip() for k in COLUMNS}
    if said["concept"] != MIXED and said["concept"] not in taxonomy:
        raise unknown(f"concept ({where})", said["concept"], taxonomy)
    if said["local"] and said["local"] not in taxonomy.get(said["concept"], ()):
        raise unknown(f"finer word of {said['concept']!r} ({where})", said["local"], taxonomy.get(said["concept"], ()))
    if not said["annotator"]:
        raise UsageError(f"{where} has no annotator; write a name or number in that column")
    try:
        number, shown, fits = (int(said[k]) for k in ("cluster", "shown", "fits"))
    except ValueError:
        raise UsageError(f"{where}: cluster, shown and fits must be whole numbers") from None
    return Vote(number, said["annotator"], said["concept"], shown, fits, said["local"], said["panel_type"])


def read_taxonomy(path: str | Path) -> dict[str, tuple[str, ...]]:
    """A JSON object concept -> list of finer words (as BIOMEDICA's `taxonomy_collapsed_and_filtered.json`)."""
    try:
        found = json.loads(read_bytes(path))
        return {str(k): tuple(str(w) for w in v) for k, v in found.items() if isinstance(v, list)}
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{path} is no taxonomy; wanted a JSON object of concept -> list of words") from error
