"""Surveys and steps for an archive of articles: the newest version of each, copies once, concepts kept or capped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np

from fabrica.types import Decision, Drop, Record, record_id


@dataclass(kw_only=True)
class LatestVersion:
    """Of an article that is there in several editions keeps the records of one: the highest version, then the latest
    date, then the highest edition hash. Reason: superseded. Records without the groups "article" and "edition" pass."""

    light: bool = field(default=True, init=False)
    name: str = field(default="latest_version", init=False)
    version: str = field(default="1", init=False)

    def note(self, record: Record, /) -> Mapping[str, Any]:
        """Article, edition and what orders editions."""
        g = record.groups
        number = int(re.sub(r"\D", "", g.get("version", "")) or 0)
        order = f"{number:06d}|{g.get('date', '')}|{g.get('edition', '')}"
        return {"id": record.id, "article": g.get("article", ""), "edition": g.get("edition", ""), "order": order}

    def decide(self, rows: Sequence[Mapping[str, Any]], /) -> dict[str, Decision]:
        """Drops of older editions."""
        best: dict[str, str] = {}
        for row in rows:
            if row["article"] and row["edition"]:
                best[row["article"]] = max(best.get(row["article"], ""), row["order"])
        return {
            row["id"]: Decision(drop="superseded")
            for row in rows
            if row["article"] and row["edition"] and row["order"] != best[row["article"]]
        }


@dataclass(kw_only=True)
class FigureCopies:
    """Names pictures that are there more than once, pixel for pixel, in whatever articles: group "near_image" is common
    to them (a split keeps them together) and "copy" is "first" for the lowest id, "again" for the others, so that a
    stage counts each once: `NOT array_has(tags, 'copy:again')`."""

    role: str = "image"
    name: str = field(default="figure_copies", init=False)
    version: str = field(default="1", init=False)

    def note(self, record: Record, /) -> Mapping[str, Any]:
        """A digest of the pixels of all images, "" where there are none."""
        digest = sha256()
        seen = 0
        for item in record.all(self.role):
            if item.kind == "image" and isinstance(item.value, np.ndarray):
                seen += 1
                digest.update(f"{item.value.dtype.str}{item.value.shape}".encode())
                digest.update(np.ascontiguousarray(item.value).tobytes())
        return {"id": record.id, "digest": digest.hexdigest() if seen else ""}

    def decide(self, rows: Sequence[Mapping[str, Any]], /) -> dict[str, Decision]:
        """Groups of copies."""
        by: dict[str, list[str]] = {}
        for row in rows:
            if row["digest"]:
                by.setdefault(row["digest"], []).append(row["id"])
        out: dict[str, Decision] = {}
        for digest, ids in by.items():
            name = record_id("near", digest)[:12]
            for record in ids if len(ids) > 1 else ():
                out[record] = Decision(groups={"near_image": name, "copy": "first" if record == min(ids) else "again"})
        return out


@dataclass(kw_only=True)
class KeepConcepts:
    """Keeps records whose group "concept" is one of `keep`; with `licences`, whose "licence_group" is one of these.
    Reasons: other_concept, no_concept, licence."""

    keep: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    name: str = field(default="keep_concepts", init=False)
    version: str = field(default="1", init=False)

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records of the concepts."""
        for record in records:
            concept = record.groups.get("concept", "")
            if self.licences and record.groups.get("licence_group") not in self.licences:
                drop(record, "licence")
            elif self.keep and concept not in self.keep:
                drop(record, "other_concept" if concept else "no_concept")
            else:
                yield record


@dataclass(kw_only=True)
class CapConcepts:
    """Leaves at most `cap` records of each value of group "concept", drawn by a hash of seed and id (so that a larger
    corpus keeps most of the same). Reason: concept_cap."""

    cap: int
    seed: int = 0
    light: bool = field(default=True, init=False)
    name: str = field(default="cap_concepts", init=False)
    version: str = field(default="1", init=False)

    def note(self, record: Record, /) -> Mapping[str, Any]:
        """Concept and draw."""
        draw = sha256(f"{self.seed}\x1f{record.id}".encode()).hexdigest()
        return {"id": record.id, "concept": record.groups.get("concept", ""), "draw": draw}

    def decide(self, rows: Sequence[Mapping[str, Any]], /) -> dict[str, Decision]:
        """Drops above the cap."""
        by: dict[str, list[tuple[str, str]]] = {}
        for row in rows:
            if row["concept"]:
                by.setdefault(row["concept"], []).append((row["draw"], row["id"]))
        return {name: Decision(drop="concept_cap") for own in by.values() for _, name in sorted(own)[self.cap :]}
