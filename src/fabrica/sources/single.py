"""The record of a file that holds one thing: what its bytes say, with what the column map adds."""

from __future__ import annotations

from collections.abc import Mapping

from fabrica.errors import Refused
from fabrica.sources import Ref, rights_of
from fabrica.sources.columns import modality as usual
from fabrica.sources.columns import number, split_of
from fabrica.types import Item, Origin, Record, Region, record_id


def hashed(what: str, source: str, value: str) -> str:
    """An identifier as 16 hex digits, never raw: `hashed("subject", source, PatientID)`."""
    return record_id(what, source, value)[:16]


def origin(ref: Ref, sha256: str, *steps: str, part: str = "") -> Origin:
    """Where this file's value came from; `part` names the place inside it."""
    return Origin(ref.source, f"{ref.key}#{part}" if part else ref.key, sha256, ref.licence, steps=steps)


def record(
    ref: Ref, sha256: str, items: Mapping[str, tuple[Item, ...]], *, modality: str = "", subject: str | None = None,
    groups: Mapping[str, str] | None = None, labels: Mapping[str, float] | None = None,
    regions: tuple[Region, ...] = (),
) -> Record:  # fmt: skip
    """One record of a file. `subject` is the raw identifier found inside (hashed here), else the file is its own.

    Fields of `ref.columns` (a literal, or `re:PATTERN` on the key) win: `subject`, `study`, `modality`, `split`,
    `group:NAME`, `label:NAME`.
    """
    said = ref.get("subject") or subject or f"file:{ref.key}"
    all_groups = {"modality": usual(ref.get("modality") or modality), **(groups or {})}
    all_labels = dict(labels or {})
    if study := ref.get("study"):
        all_groups["study"] = hashed("study", ref.source, study)
    for field in ref.columns:
        kind, _, name = field.partition(":")
        value = ref.get(field) if name else None
        if value is None:
            continue
        if kind == "group":
            all_groups[name] = usual(value) if name == "modality" else value
        elif kind == "label":
            if (got := number(value)) is None:
                raise Refused("label_not_number", f"{field!r} gives {value[:40]!r}, which is no number")
            all_labels[name] = got
    return Record(
        record_id(ref.source, ref.key, sha256),
        hashed("subject", ref.source, said),
        groups={k: v for k, v in all_groups.items() if v},
        items=items,
        regions=regions,
        labels=all_labels,
        rights=rights_of(ref),
        split=split_of(ref.get("split")),
    )
