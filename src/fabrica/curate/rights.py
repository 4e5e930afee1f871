"""Consent that was withdrawn and content that was taken down, as surveys: a new corpus without it, and a ledger.

    curate.run([Remove.from_file("withdrawn.tsv", reason="consent_withdrawn")], corpus, "corpus-2")
    fabrica rights corpus --remove withdrawn.tsv --into corpus-2

What is made of a removed record (links "derived_from", "part_of") goes with it. The old corpus keeps its bytes until
`Corpus.erase`, or until it is removed. The lattice itself (`may`, `join`) stands in `corpus.rights`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fabrica.corpus.rights import USES, Answer, Audit, Use, answers, audit, derived, join, licence_of, may
from fabrica.errors import UsageError
from fabrica.safe import read_bytes
from fabrica.sources.single import hashed
from fabrica.types import Decision, Drop, Record

__all__ = [
    "USES", "Answer", "Audit", "OnlyPermitted", "Remove", "Use", "answers", "audit", "derived", "join", "licence_of",
    "may", "withdrawn",
]  # fmt: skip

KINDS = ("subject", "patient", "id", "key", "sha256")
_MADE_OF = ("derived_from", "part_of")


class Remove:
    """A survey that leaves out listed records and what is made of them.

    `listed`: lines "KIND<tab>VALUE": `subject` (as stored), `patient` ("SOURCE<tab>raw id", hashed as readers do),
    `id` of a record, `key` of an origin (file, URL, DOI), `sha256` of read bytes. Drops have `reason`, what is made of
    them "made_of_REASON". The card of a run names the list by its hash and length, never by its lines.
    """

    name = "remove"
    version = "1"

    def __init__(self, listed: Iterable[str], *, reason: Literal["consent_withdrawn", "taken_down"]) -> None:
        self.reason = reason
        self._listed: dict[str, set[str]] = {kind: set() for kind in KINDS}
        for number, line in enumerate(listed, 1):
            if line.strip() and not line.startswith("#"):
                self._add(number, line.rstrip("\r\n"))

    @classmethod
    def from_file(cls, path: str | Path, *, reason: Literal["consent_withdrawn", "taken_down"]) -> Remove:
        """The list of a UTF-8 file, one entry a line, `#` for remarks."""
        return cls(read_bytes(path).decode("utf-8-sig", "replace").splitlines(), reason=reason)

    def _add(self, number: int, line: str) -> None:
        kind, tab, value = line.partition("\t")
        if kind not in KINDS or not tab or not value.strip():
            raise UsageError(f"line {number} of the list is not KIND<tab>VALUE with KIND one of {', '.join(KINDS)}")
        if kind == "patient":
            source, tab, raw = value.partition("\t")
            if not tab or not raw.strip():
                raise UsageError(f"line {number} of the list: a patient is patient<tab>SOURCE<tab>ID")
            kind, value = "subject", hashed("subject", source.strip(), raw.strip())
        self._listed[kind].add(value.strip())

    def __len__(self) -> int:
        return sum(map(len, self._listed.values()))

    def params(self) -> Mapping[str, Any]:
        """What identifies the list without telling who is on it."""
        text = "\n".join(f"{k}\t{v}" for k in KINDS for v in sorted(self._listed[k]))
        return {"list": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(), "entries": len(self)}

    def note(self, record: Record, /) -> Mapping[str, Any]:
        """Whether the record is listed, and what it is made of."""
        made_of = [link.to for link in record.links if link.rel in _MADE_OF]
        return {"id": record.id, "listed": self._hit(record), "made_of": "\n".join(made_of)}

    def _hit(self, record: Record) -> bool:
        listed = self._listed
        if record.id in listed["id"] or record.subject in listed["subject"]:
            return True
        if not listed["key"] and not listed["sha256"]:
            return False
        found = [i.origin for items in record.items.values() for i in items] + [r.origin for r in record.regions]
        keys = {k for o in found for k in (o.key, o.key.partition("#")[0])}
        return bool(keys & listed["key"]) or bool({o.sha256 for o in found if o.sha256} & listed["sha256"])

    def decide(self, rows: Sequence[Mapping[str, Any]], /) -> Mapping[str, Decision]:
        """Drops of what is listed, then of what is made of it, however far."""
        out: dict[str, Decision] = {}
        children: dict[str, list[str]] = {}
        for row in rows:
            if row["listed"]:
                out[row["id"]] = Decision(drop=self.reason)
            for parent in filter(None, row["made_of"].split("\n")):
                children.setdefault(parent, []).append(row["id"])
        todo = list(out)
        while todo:
            for child in children.get(todo.pop(), ()):
                if child not in out:
                    out[child] = Decision(drop=f"made_of_{self.reason}")
                    todo.append(child)
        return out


@dataclass(kw_only=True)
class OnlyPermitted:
    """Leaves out records whose rights do not permit a use; the drop's reason is the answer's ("non_commercial" ...)."""

    use: Use
    name: str = field(default="only_permitted", init=False)
    version: str = field(default="1", init=False)

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records that may be used so."""
        for record in records:
            answer = may(record, self.use)
            if answer.allowed:
                yield record
            else:
                drop(record, answer.reason)


def withdrawn(record: Record) -> Record:
    """The record with its consent marked as withdrawn: it stays for the books and no use of it is left."""
    return record.updated(rights=replace(record.rights, consent="withdrawn"))
