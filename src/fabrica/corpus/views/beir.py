"""BEIR: a retrieval benchmark as queries.jsonl, corpus.jsonl and qrels/SPLIT.tsv (Thakur et al., arXiv 2104.08663).

`patients` makes one of notes and articles that carry graded links (PMC-Patients, Zhao et al. 2023): which patient is
like this one (PPR), which article helps (PAR).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fabrica.corpus.rights import Use, may
from fabrica.errors import Leak, Refused, UsageError, unknown
from fabrica.safe import LIMITS, Limits, folder_whole, open_file
from fabrica.types import Link, Record

FILES = {"train": "train", "val": "dev", "test": "test", "hidden": "hidden"}  # split -> its file in qrels/
HEADER = ("query-id", "corpus-id", "score")
Qrels = Mapping[str, Mapping[str, int]]  # query -> document -> grade


@dataclass(frozen=True, slots=True)
class Text:
    """A query or a document. `owner` is what must not stand on both sides of a split: its article."""

    text: str
    title: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """`queries` and `documents` by id, `qrels` by split. `dropped` queries of a split had no relevant document."""

    queries: Mapping[str, Text]
    documents: Mapping[str, Text]
    qrels: Mapping[str, Qrels]
    dropped: Mapping[str, int] = field(default_factory=dict, compare=False)

    def of(self, split: str) -> dict[str, str]:
        """The queries of a split: id -> text."""
        if split not in self.qrels:
            raise unknown("split with qrels", split, self.qrels)
        return {q: self.queries[q].text for q in self.qrels[split]}

    def texts(self) -> dict[str, str]:
        """The documents, title before text: what an index reads."""
        return {d: f"{doc.title}\n{doc.text}".strip() for d, doc in self.documents.items()}


def check(benchmark: Benchmark, *, apart: bool = False) -> None:
    """Raise where a benchmark would flatter: `Leak` where a query is its own answer, or, with `apart`, where a document
    belongs to an article that also has queries outside train; `UsageError` where qrels name what is not there, or
    where there is no document."""
    if not benchmark.documents:
        raise UsageError("the benchmark has no document; are there training records that may be passed on?")
    for split, qrels in benchmark.qrels.items():
        for query, row in qrels.items():
            if query not in benchmark.queries:
                raise UsageError(f"qrels of {split!r} name the query {query!r}, which queries.jsonl lacks")
            lost = next((d for d in row if d not in benchmark.documents), None)
            if lost is not None:
                raise UsageError(f"qrels of {split!r} name the document {lost!r}, which corpus.jsonl lacks")
            if query in row:
                raise Leak(f"query {query!r} of {split!r} is its own answer")
    if apart:
        held = {benchmark.queries[q].owner for s, qrels in benchmark.qrels.items() if s != "train" for q in qrels}
        _apart(benchmark.documents, held)


def _apart(documents: Mapping[str, Text], held: set[str]) -> None:
    wrong = sorted(d for d, doc in documents.items() if doc.owner and doc.owner in held)
    if wrong:
        raise Leak(f"{len(wrong)} documents are of articles with queries outside train, {wrong[0]!r} among them")


# ---------------------------------------------------------------- from records


def patients(records: Iterable[Record], task: Literal["ppr", "par"], *, use: Use = "redistribute") -> Benchmark:
    """The benchmark that note records with links "similar" and "relevant" make (`curate.relate.Related`).

    "ppr": the documents are the training notes alone, so that none is of a validation or test article. "par": the
    documents are the articles that have title and abstract. Queries are notes with a split; those without a relevant
    document are left out and counted. Only records whose rights allow `use` take part (`corpus.rights.may`). Ids are
    the patient's (ARTICLE-k) and the article's own where these are unique, else record ids.
    """
    if task not in ("ppr", "par"):
        raise unknown("task", task, ("ppr", "par"))
    told = (r for r in records if r.groups.get("modality") in ("note", "article"))
    kept = [_Row.of(r) for r in told if may(r, use).allowed]
    name = _names(kept)
    notes = [row for row in kept if row.note]
    pool = [r for r in notes if r.split == "train"] if task == "ppr" else _once(kept)
    documents = {name[row.id]: row.text for row in pool}
    qrels: dict[str, dict[str, dict[str, int]]] = {}
    dropped: dict[str, int] = {}
    for row in (r for r in notes if r.split):
        links = row.similar if task == "ppr" else row.relevant
        grades = {name[i]: g for i, g in sorted(links.items()) if name.get(i) in documents and i != row.id}
        if grades:
            qrels.setdefault(row.split, {})[name[row.id]] = grades
        else:
            dropped[row.split] = dropped.get(row.split, 0) + 1
    if task == "ppr":
        _apart(documents, {row.text.owner for row in notes if row.split not in ("", "train")})
    made = {name[row.id]: row.text for row in notes if name[row.id] in qrels.get(row.split, {})}
    benchmark = Benchmark(made, documents, qrels, dropped)
    check(benchmark)
    return benchmark


@dataclass(frozen=True, slots=True)
class _Row:
    """What of a record the benchmark needs."""

    id: str
    own: str  # the patient's or the article's own id
    note: bool
    whole: bool  # has title and abstract
    split: str
    text: Text
    similar: Mapping[str, int]
    relevant: Mapping[str, int]

    @classmethod
    def of(cls, record: Record) -> _Row:
        note = record.groups["modality"] == "note"
        title, body = record.first("title"), list(record.all("note" if note else "abstract"))
        owner = record.groups.get("article") or record.subject
        text = Text("\n".join(item.text() for item in body), title.text() if title and not note else "", owner)
        own = record.groups.get("patient", "") if note else owner
        return cls(
            record.id, own or record.id, note, title is not None and bool(body), record.split or "", text,
            _grades(record.links, "similar"), _grades(record.links, "relevant"),
        )  # fmt: skip


def _once(rows: Iterable[_Row]) -> list[_Row]:
    """Articles with title and abstract; of several files of one article the one with the lowest record id, which is
    what the relations name."""
    best: dict[str, _Row] = {}
    for row in (r for r in rows if not r.note and r.whole):
        if row.own not in best or row.id < best[row.own].id:
            best[row.own] = row
    return list(best.values())


def _grades(links: Iterable[Link], rel: str) -> dict[str, int]:
    return {link.to: int(link.grade or 0) for link in links if link.rel == rel}


def _names(rows: Iterable[_Row]) -> dict[str, str]:
    """Record id -> id in the benchmark."""
    taken: dict[str, int] = {}
    rows = list(rows)
    for row in rows:
        taken[row.own] = taken.get(row.own, 0) + 1
    return {row.id: row.own if taken[row.own] == 1 else row.id for row in rows}


# ---------------------------------------------------------------- files


def write(benchmark: Benchmark, folder: str | Path) -> None:
    """Write the three kinds of file into a new folder, whole or not at all; the same benchmark gives the same bytes."""
    check(benchmark)
    for ids in (benchmark.queries, benchmark.documents):
        wrong = next((i for i in ids if not i or any(c in i for c in "\t\r\n") or i != i.strip()), None)
        if wrong is not None:
            raise UsageError(f"the id {wrong!r} cannot stand in a .tsv file: it is empty or holds tabs, breaks or ends")
    with folder_whole(folder) as temp:
        for name, texts in (("queries.jsonl", benchmark.queries), ("corpus.jsonl", benchmark.documents)):
            with (temp / name).open("w", encoding="utf-8", newline="\n") as out:
                for id_, text in sorted(texts.items()):
                    out.write(json.dumps(_line(id_, text, title=name == "corpus.jsonl")) + "\n")
        (temp / "qrels").mkdir()
        for split, qrels in benchmark.qrels.items():
            rows = [(q, d, str(g)) for q in sorted(qrels) for d, g in sorted(qrels[q].items())]
            table = "".join("\t".join(row) + "\n" for row in [HEADER, *rows])
            (temp / "qrels" / f"{FILES.get(split, split)}.tsv").write_text(table, "utf-8", newline="\n")


def _line(id_: str, text: Text, *, title: bool) -> dict[str, Any]:
    line: dict[str, Any] = (
        {"_id": id_, "title": text.title, "text": text.text} if title else {"_id": id_, "text": text.text}
    )
    return line | {"metadata": {"article": text.owner} if text.owner else {}}


def read(folder: str | Path, limits: Limits = LIMITS) -> Benchmark:
    """A benchmark in BEIR's layout, ours or another's; grades of 0 (judged irrelevant) are left out.

    Refused: `view_bad` with file and line; `UsageError` where a file is missing or an id is unknown.
    """
    folder = Path(folder)
    for name in ("queries.jsonl", "corpus.jsonl", "qrels"):
        if not (folder / name).exists():
            raise UsageError(f"{folder} has no {name}; wanted queries.jsonl, corpus.jsonl and qrels/SPLIT.tsv")
    queries, documents = (dict(_texts(folder / name, limits)) for name in ("queries.jsonl", "corpus.jsonl"))
    splits = {file: split for split, file in FILES.items()}
    qrels = {splits.get(p.stem, p.stem): _qrels(p, limits) for p in sorted((folder / "qrels").glob("*.tsv"))}
    benchmark = Benchmark(queries, documents, qrels)
    check(benchmark)
    return benchmark


def _texts(path: Path, limits: Limits) -> Iterator[tuple[str, Text]]:
    for number, line in _lines(path, limits):
        try:
            row = json.loads(line)
            id_, text, title = str(row["_id"]), row["text"], row.get("title") or ""
            owner = (row.get("metadata") or {}).get("article") or ""
            if not all(isinstance(v, str) for v in (text, title, owner)):
                raise TypeError("text, title and article are text")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = f"{type(error).__name__} {error}"[:120]
            raise Refused("view_bad", f"{path.name}, line {number}: not a query or document ({why})") from error
        yield id_, Text(text, title, owner)


def _qrels(path: Path, limits: Limits) -> dict[str, dict[str, int]]:
    out: dict[str, dict[str, int]] = {}
    for number, line in _lines(path, limits):
        cells = line.split("\t")
        if number == 1 and not cells[-1].lstrip("-").isdigit():
            continue  # the header
        if len(cells) != 3 or not cells[2].lstrip("-").isdigit():
            raise Refused("view_bad", f"{path.name}, line {number}: wanted {', '.join(HEADER)} with tabs between")
        if int(cells[2]) > 0:
            out.setdefault(cells[0], {})[cells[1]] = int(cells[2])
    return out


def _lines(path: Path, limits: Limits) -> Iterator[tuple[int, str]]:
    """Numbered lines, each within `limits.array_bytes`."""
    with open_file(path, limits) as handle:
        number = 0
        while raw := handle.readline(limits.array_bytes + 1):
            number += 1
            if len(raw) > limits.array_bytes:
                raise Refused("array_too_large", f"{path.name}, line {number} is above {limits.array_bytes} bytes")
            try:
                line = raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise Refused("view_bad", f"{path.name}, line {number} is not UTF-8") from error
            if line:
                yield number, line
