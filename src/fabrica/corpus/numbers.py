"""What a datasheet says of a corpus, counted from the records on disk in one pass."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fabrica.corpus.codec import source_of
from fabrica.corpus.rights import USES, Answer, Audit, Use, audit, licence_of, may
from fabrica.corpus.store import Corpus
from fabrica.errors import UsageError
from fabrica.types import Absent, Record

LEDGER, CARD = "ledger.parquet", "curate.json"  # what `curate.run` leaves in a corpus


@dataclass(frozen=True, slots=True)
class Numbers:
    """Counts; "" stands for "not said".

    `modality` ... `consent`: records by value (`licence` is the strictest of a record's, see `rights.licence_of`);
    `kinds`: present items by kind; `by`, `texts_by`: present items, and texts among them, by who made them; `absent`:
    absent items by reason; `regions` by shape, `links` by relation; `labels`: label -> {"1", "0", other, reason: n};
    `subjects_by_split`, `subjects_in_two_splits`; `dropped`: step -> reason -> records, from the ledger; `plan`: steps
    with versions and parameters; `quarantined`: files by code; `rights`: use -> audit.
    """

    records: int
    subjects: int
    bytes: int
    version: int
    split_hash: str
    modality: Mapping[str, int]
    source: Mapping[str, int]
    licence: Mapping[str, int]
    split: Mapping[str, int]
    access: Mapping[str, int]
    share: Mapping[str, int]
    consent: Mapping[str, int]
    roles: Mapping[str, int]
    kinds: Mapping[str, int]
    by: Mapping[str, int]
    texts_by: Mapping[str, int]
    absent: Mapping[str, int]
    regions: Mapping[str, int]
    links: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]
    subjects_by_split: Mapping[str, int]
    subjects_in_two_splits: int
    read: int | None
    dropped: Mapping[str, Mapping[str, int]]
    plan: tuple[Mapping[str, Any], ...]
    quarantined: Mapping[str, int]
    erased: int
    rights: Mapping[Use, Audit]

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, for JSON."""
        return asdict(self)


class _Counts:
    """Counters by what they count."""

    def __init__(self) -> None:
        names = "modality source licence split access share consent roles kinds by texts_by absent regions links"
        self.of: dict[str, Counter[str]] = {name: Counter() for name in names.split()}
        self.labels: dict[str, Counter[str]] = {}
        self.splits: dict[str, set[str]] = {}
        self.answers: dict[Use, Counter[Answer]] = {use: Counter() for use in USES}

    def add(self, record: Record) -> None:
        of, rights = self.of, record.rights
        for name, value in (
            ("modality", record.groups.get("modality", "")), ("source", source_of(record)), ("share", rights.share),
            ("licence", licence_of(record)), ("split", record.split or ""), ("access", rights.access),
            ("consent", rights.consent),
        ):  # fmt: skip
            of[name][value] += 1
        for role, items in record.items.items():
            of["roles"][role] += any(i.present for i in items)
            for item in items:
                if isinstance(item.value, Absent):
                    of["absent"][item.value.value] += 1
                    continue
                of["kinds"][item.kind] += 1
                of["by"][item.origin.by] += 1
                if item.kind == "text":
                    of["texts_by"][item.origin.by] += 1
        of["regions"].update(r.shape for r in record.regions)
        of["links"].update(k.rel for k in record.links)
        for label, known in record.labels.items():
            said = known.value if isinstance(known, Absent) else f"{known:g}" if known in (0.0, 1.0) else "other"
            self.labels.setdefault(label, Counter())[said] += 1
        self.splits.setdefault(record.split or "", set()).add(record.subject)
        for use, found in self.answers.items():
            found[may(record, use)] += 1


def numbers(corpus: Corpus) -> Numbers:
    """Count. Everything comes from the records, the ledger and the quarantine of this corpus; nothing is remembered."""
    counts = _Counts()
    for record in corpus.scan():
        counts.add(record)
    subjects = set[str]().union(*counts.splits.values())
    card = curated(corpus.path)
    return Numbers(
        records=len(corpus), subjects=len(subjects), bytes=corpus.stats().bytes, version=corpus.version,
        split_hash=corpus.split_hash(), **{n: dict(sorted(c.items())) for n, c in counts.of.items()},
        labels={k: dict(sorted(v.items())) for k, v in sorted(counts.labels.items())},
        subjects_by_split={k: len(v) for k, v in sorted(counts.splits.items())},
        subjects_in_two_splits=sum(map(len, counts.splits.values())) - len(subjects),
        read=card.get("read"), dropped=dropped(corpus.path), plan=tuple(card.get("plan", ())),
        quarantined=corpus.stats().quarantined, erased=len(corpus.erased()),
        rights={use: audit(found.elements(), use) for use, found in counts.answers.items()},
    )  # fmt: skip


def curated(folder: Path) -> dict[str, Any]:
    """What `curate.run` wrote of the run that made this corpus; empty where it was not curated."""
    path = folder / CARD
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found
    except ValueError as error:
        raise UsageError(f"{path} cannot be read ({error}); it should be what a curation wrote") from error


def ledger(folder: Path) -> dict[str, tuple[str, str]]:
    """id -> (step, reason) of every record that the curation left out."""
    import pyarrow.parquet as pq

    path = folder / LEDGER
    if not path.is_file():
        return {}
    table = pq.read_table(path, columns=["id", "step", "reason"])
    columns = (table[name].to_pylist() for name in ("id", "step", "reason"))
    return {i: (step, reason) for i, step, reason in zip(*columns, strict=True)}


def dropped(folder: Path) -> dict[str, dict[str, int]]:
    """step -> reason -> records, counted from the rows of the ledger."""
    import pyarrow.parquet as pq

    path = folder / LEDGER
    if not path.is_file():
        return {}
    table = pq.read_table(path, columns=["step", "reason"])
    pairs = Counter(zip(table["step"].to_pylist(), table["reason"].to_pylist(), strict=True))
    out: dict[str, dict[str, int]] = {}
    for (step, reason), n in sorted(pairs.items()):
        out.setdefault(step, {})[reason] = n
    return out
