"""Who is like whom, by citations: similar patients, relevant articles, grades (PMC-Patients, Zhao et al. 2023)."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fabrica.corpus.rights import join
from fabrica.errors import UsageError, unknown
from fabrica.safe import LIMITS, Limits
from fabrica.types import Drop, Item, Link, Record, record_id

SIMILAR, RELEVANT = "similar", "relevant"  # `Link.rel`: note -> note, note -> article
Grades = Mapping[str, Mapping[str, int]]  # id of a note -> id -> grade


@dataclass(frozen=True, slots=True)
class Citations:
    """An undirected graph: articles a and b are linked if either cites the other. `loops` self-citations were left out.

    >>> graph = Citations.of([("1", "2"), ("2", "1"), ("3", "3"), ("2", "4")])
    >>> sorted(graph.linked("2")), graph.linked("3"), graph.loops, len(graph)
    (['1', '4'], frozenset(), 1, 2)
    """

    neighbours: Mapping[str, frozenset[str]]
    loops: int = 0

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]], *, touching: Collection[str] | None = None) -> Citations:
        """From (citing, cited) pairs; with `touching`, only pairs of which one side at least is in it."""
        found: dict[str, set[str]] = defaultdict(set)
        loops = 0
        for a, b in pairs:
            if touching is not None and a not in touching and b not in touching:
                continue
            if a == b:
                loops += 1
                continue
            found[a].add(b)
            found[b].add(a)
        return cls({k: frozenset(v) for k, v in sorted(found.items())}, loops)

    @classmethod
    def read(
        cls, path: str | Path, *, citing: str = "citing", cited: str = "cited",
        touching: Collection[str] | None = None, limits: Limits = LIMITS,
    ) -> Citations:  # fmt: skip
        """From a CSV, TSV, JSON lines or Parquet file with one citation a row, ids in the columns `citing` and `cited`.

        A missing column is a `UsageError` that names the file and the near column; rows without either id are a
        `UsageError` with the row's number. Ids are as in `article_key`.
        """
        return cls.of(_pairs(Path(path), citing, cited, limits), touching=touching)

    @classmethod
    def of_records(cls, records: Iterable[Record]) -> Citations:
        """From the links "cites" of article records ("pmid:123", or another article's key)."""
        cites = ((article_key(r), plain_id(link.to)) for r in records for link in r.links if link.rel == "cites")
        return cls.of(cites)

    def __or__(self, other: Citations) -> Citations:
        """The union of two graphs."""
        ids = sorted({*self.neighbours, *other.neighbours})
        return Citations({i: self.linked(i) | other.linked(i) for i in ids}, self.loops + other.loops)

    def __len__(self) -> int:
        return sum(len(v) for v in self.neighbours.values()) // 2

    def linked(self, article: str) -> frozenset[str]:
        """The articles that cite it or that it cites."""
        return self.neighbours.get(article, frozenset())

    def edges(self) -> Iterator[tuple[str, str]]:
        """Each link once, the lower id first, sorted."""
        return ((a, b) for a, of in self.neighbours.items() for b in sorted(of) if a < b)


def _pairs(path: Path, citing: str, cited: str, limits: Limits) -> Iterator[tuple[str, str]]:
    from fabrica.sources.rows import BadRow, read_rows

    header, rows = read_rows(path, limits)
    for name in (citing, cited):
        if name not in header:
            raise UsageError(
                f"{path.name}: {unknown('column', name, header)}; name the two columns in `citing`, `cited`"
            )
    for number, row in enumerate(rows, 2):
        a, b = plain_id(row.get(citing)), plain_id(row.get(cited))
        if isinstance(row, BadRow) or not a or not b:
            why = row.why if isinstance(row, BadRow) else f"{citing}={row.get(citing)!r}, {cited}={row.get(cited)!r}"
            raise UsageError(f"{path.name}, row {number}: {why}; wanted the ids of two articles")
        yield a, b


def plain_id(value: object) -> str:
    """An article's id without "pmid:" and without a float's ".0"; "" for nothing.

    >>> plain_id("PMID: 123"), plain_id(123.0), plain_id("pmc:PMC7"), plain_id(None)
    ('123', '123', 'PMC7', '')
    """
    if value is None or value != value:
        return ""
    return re.sub(r"\.0$", "", re.sub(r"^(?:pmid|pmc|doi):\s*", "", str(value).strip(), flags=re.IGNORECASE))


def article_key(record: Record) -> str:
    """What citations call the article of an article or note record: its PMID, else its own id."""
    return plain_id(record.groups.get("pmid") or record.groups.get("article") or record.subject)


# ---------------------------------------------------------------- relations


@dataclass(frozen=True, slots=True)
class Relations:
    """`similar` note id -> note id -> grade, symmetric; `relevant` note id -> article record id -> grade."""

    similar: Grades
    relevant: Grades


def relate(records: Iterable[Record], citations: Citations, *, same_article: int = 2, linked: int = 1) -> Relations:
    """The relations among note and article records (groups["modality"] "note", "article"; others are ignored).

    Similar: notes of one article (`same_article`), or of linked articles (`linked`). Relevant: the note's own article
    and the linked ones, with grade `same_article` where an article is itself the source of a note, else `linked`; only
    articles with title and abstract count. Several files of one PMID are one article: its lowest record id stands.
    """
    notes: dict[str, list[str]] = defaultdict(list)  # article key -> ids of its notes
    articles: dict[str, str] = {}
    for record in records:
        key, kind = article_key(record), record.groups.get("modality")
        if kind == "note":
            notes[key].append(record.id)
        elif kind == "article" and record.first("title") is not None and record.first("abstract") is not None:
            articles[key] = min(articles.get(key, record.id), record.id)
    similar: dict[str, dict[str, int]] = {}
    relevant: dict[str, dict[str, int]] = {}
    for key, ids in sorted(notes.items()):
        near = citations.linked(key)
        far = {other: linked for k in sorted(near) for other in notes.get(k, ())}
        found = {articles[k]: same_article if k in notes else linked for k in sorted({key, *near}) if k in articles}
        for id_ in ids:
            similar[id_] = {other: same_article for other in ids if other != id_} | far
            relevant[id_] = found
    return Relations(similar, relevant)


class Related:
    """A step that writes `Relations` on the notes, as links "similar" and "relevant" with their grades.

    Links of these kinds that a note had before are replaced. Records that no relation names pass unchanged.
    """

    name = "related"
    version = "1"

    def __init__(self, relations: Relations) -> None:
        self.relations = relations

    def params(self) -> dict[str, str]:
        """A hash of all relations: they may be millions."""
        text = json.dumps([_plain(self.relations.similar), _plain(self.relations.relevant)], sort_keys=True)
        return {"relations": hashlib.sha256(text.encode()).hexdigest()}

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Notes with links."""
        for record in records:
            if record.id not in self.relations.similar:
                yield record
                continue
            rest = tuple(link for link in record.links if link.rel not in (SIMILAR, RELEVANT))
            yield replace(record, links=rest + tuple(self._links(record.id)))

    def _links(self, id_: str) -> Iterator[Link]:
        for rel, grades in ((SIMILAR, self.relations.similar), (RELEVANT, self.relations.relevant)):
            yield from (Link(rel, to, float(grade)) for to, grade in sorted(grades.get(id_, {}).items()))


def _plain(grades: Grades) -> dict[str, Any]:
    return {k: dict(v) for k, v in grades.items()}


def grades(record: Record, rel: str) -> dict[str, int]:
    """The grades that `Related` wrote on a note: id -> grade."""
    return {link.to: int(link.grade or 0) for link in record.links if link.rel == rel}


def pairs(
    records: Iterable[Record], rel: str = SIMILAR, *, split: str = "train", most: int = 8, seed: int = 0
) -> Iterator[Record]:
    """Training pairs: a note of `split` as item "query" and what it is linked with as item "document", another note
    of that split or (`rel` "relevant") an article's title and abstract. At most `most` a note, drawn by `seed`.

    The subject is the query's article, so that a batch can leave other pairs of it out of the negatives.
    """
    held = {r.id: r for r in records if r.groups.get("modality") in ("note", "article")}
    for id_, record in sorted(held.items()):
        if record.split != split or record.groups["modality"] != "note":
            continue
        told = [i for i in sorted(grades(record, rel)) if i in held and (rel == RELEVANT or held[i].split == split)]
        for other in random.Random(f"{seed}\x1f{id_}").sample(told, min(most, len(told))):
            texts = {"query": record, "document": held[other]}
            items = {role: (_text(of),) for role, of in texts.items()}
            yield Record(
                record_id("pair", id_, other), record.subject, {"modality": "pair"}, items,
                links=(Link("derived_from", id_), Link("derived_from", other)), split=split,
                rights=join(record.rights, held[other].rights),
            )  # fmt: skip


def _text(record: Record) -> Item:
    items = list(record.all("note")) or [*record.all("title"), *record.all("abstract")]
    return replace(items[0], value="\n".join(i.text() for i in items), names=())
