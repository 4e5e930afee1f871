"""Reports to graphs: an extractor marks what has no graph yet, and the mark says that a model made it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from fabrica.errors import UsageError
from fabrica.text.graph import RADGRAPH, ROLE, Extractor, Schema, to_item
from fabrica.text.radgraph import english, read_radgraph
from fabrica.types import Drop, Item, Origin, Record, record_id


@dataclass(kw_only=False)
class ReportGraphs:
    """Gives every record with a text in `source` and no graph one in role "graph/<source>", `Origin.by` "model".

    A graph that is there stays, whoever made it. Every new one is held against `schema` before it is kept. A report
    that does not look English passes without a graph, and the step warns once (`anyway` marks it all the same).
    """

    extract: Extractor
    schema: Schema = RADGRAPH
    source: str = "report"
    anyway: bool = False
    batch: int = 64
    name: str = field(default="report_graphs", init=False)
    version: str = field(default="1", init=False)

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"batch is {self.batch}, wanted 1 or more")
        self._warned = False

    @property
    def role(self) -> str:
        """Where graphs stand."""
        return f"{ROLE}/{self.source}"

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records with graphs, in order."""
        it = iter(records)
        while chunk := list(islice(it, self.batch)):
            todo = {r.id: item for r in chunk if (item := self._unmarked(r)) is not None}
            made = dict(zip(todo, self.extract([i.text() for i in todo.values()]), strict=True))
            for record in chunk:
                if record.id not in made:
                    yield record
                    continue
                graph = self.schema.check(made[record.id], record.id)
                origin = replace(todo[record.id].origin, by="model").then(f"{self.name}:{self.extract.name}")
                yield record.updated(items={**record.items, self.role: (to_item(graph, origin),)})

    def _unmarked(self, record: Record) -> Item | None:
        """The text to mark; None where there is none, or where there is a graph."""
        item = record.first(self.source)
        if item is None or not item.text().strip() or record.first(self.role) is not None:
            return None
        if not self.anyway and not english(item.text()):
            if not self._warned:
                self._warned = True
                warnings.warn(f"record {record.id!r} does not look English and gets no graph", stacklevel=3)
            return None
        return item


def of_radgraph(
    data: Mapping[str, Any], *, source: str, licence: str = "", patients: Mapping[str, str] | None = None,
    schema: Schema = RADGRAPH, rename: Mapping[str, str] | None = None,
) -> list[Record]:  # fmt: skip
    """The records of a RadGraph JSON file that people marked: items "report" and "graph/report" (two annotators: two
    items, in order of their names). `patients`: report -> patient; else the file name's patient folder ("p10/p100/s1"
    is patient "p100"), else the report itself. Errors as `text.radgraph.from_radgraph_json`."""
    out = []
    options: dict[str, Any] = {"schema": schema, "rename": rename or {}}
    for name, graphs in read_radgraph(data, **options).items():
        origin = Origin(source, name, "", licence, "human")
        first = next(iter(graphs.values()))
        marks: Sequence[Item] = [to_item(g, origin.then(f"annotator:{k}") if k else origin) for k, g in graphs.items()]
        items = {"report": (Item("text", first.text, origin),), f"{ROLE}/report": tuple(marks)}
        subject = (patients or {}).get(name) or _patient(name)
        out.append(Record(record_id(source, name), subject, {"modality": "xray", "study": name}, items))
    return out


def _patient(name: str) -> str:
    parts = [p for p in name.split("/") if p[:1] in "pP" and p[1:].isdigit()]
    return parts[-1] if parts else name
