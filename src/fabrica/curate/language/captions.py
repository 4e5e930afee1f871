"""Labels to captions (UniMed-CLIP, Khattak et al. 2024): a bank of true sentences for records that have only labels."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from fabrica.curate.language.grammar import Bank, LabelSchema, TemplateBank, read_back
from fabrica.errors import UsageError
from fabrica.types import Absent, Drop, Item, Origin, Record

__all__ = ["LabelCaptions", "LabelSchema", "TemplateBank", "read_back"]
STEP = "label_captions"  # in `Origin.steps` of every caption made here
_TEXT_ROLES = ("report", "caption", "text")


@dataclass(kw_only=True)
class LabelCaptions:
    """Gives records that have labels and no text `per_record` captions in role "caption", one item each; `encode` draws
    one a visit.

    The record's schema is the first whose modality (and source) fit; records that none fits pass unchanged. All
    labels of 1 are named ("join") or one of them ("sample"); 0.5 and more is 1. Where all labels of the schema are
    0, or its `normal` label is 1, the caption says that nothing was found (a schema without a `normal` label: that
    none of its findings is there); where a label is unknown and none is 1, nothing can be said and the record
    passes unchanged. `denials` labels known to be 0 are denied in a second sentence.

    Every caption is read back by the inverse grammar: one that says anything else than the labels is thrown away, which
    the template bank's never are. Captions are `Origin.by = "model"` with the step's name in `Origin.steps`: a machine
    wrote them of what a human labelled, on a real picture ("synthetic" would say that the patient was invented).
    Drops: contradictory_labels (normal and a finding), unfaithful_captions (a bank wrote nothing true).
    Warns once where a bank has fewer than 2 captions for a label.
    """

    schemas: Sequence[LabelSchema]
    bank: Bank = field(default_factory=TemplateBank)
    per_record: int = 8
    multi: Literal["join", "sample"] = "join"
    denials: int = 0
    always: bool = False  # also where the record has a text
    seed: int = 0
    name: str = field(default=STEP, init=False)
    version: str = field(default="2", init=False)

    def __post_init__(self) -> None:
        if self.per_record < 1 or self.denials < 0:
            raise UsageError(f"per_record={self.per_record}, denials={self.denials}: wanted at least 1 and 0")
        for schema in self.schemas:
            for label in [k for k in schema.labels if k != schema.normal]:
                if (size := self.bank.size(schema, [label])) < 2:
                    warnings.warn(
                        f"the bank has {size} caption for {schema.modality} label {label!r}: every record of it will "
                        "say the same; add synonyms or frames",
                        stacklevel=3,
                    )

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records with captions."""
        for record in records:
            schema = self._schema(record)
            if schema is None or (not self.always and record.first(*_TEXT_ROLES) is not None):
                yield record
                continue
            present, absent, known = _sides(record, schema)
            if present and schema.normal is not None and _said(record, schema.normal):
                drop(record, "contradictory_labels")
            elif not present and not known:
                yield record
            elif captions := self._captions(record, schema, present, absent):
                yield _with_captions(record, captions)
            else:
                drop(record, "unfaithful_captions")

    def _schema(self, record: Record) -> LabelSchema | None:
        for schema in self.schemas:
            if schema.modality == record.groups.get("modality") and schema.source in ("", _source(record)):
                return schema
        return None

    def _captions(
        self, record: Record, schema: LabelSchema, present: Sequence[str], absent: Sequence[str]
    ) -> list[str]:
        rng = random.Random(f"{self.seed}\x1f{record.id}")
        out: dict[str, None] = {}
        rounds = 1 if self.multi == "join" or len(present) < 2 else self.per_record
        for _ in range(rounds):
            named = list(present) if rounds == 1 else [rng.choice(list(present))]
            every = not named and schema.normal is None
            denied = list(absent) if every else rng.sample(list(absent), min(self.denials, len(absent)))
            for caption in self.bank.write(schema, named, denied, -(-self.per_record // rounds), rng):
                if faithful(caption, schema, named, denied):
                    out.setdefault(caption)
        return list(out)[: self.per_record]


def _source(record: Record) -> str:
    """As the corpus' column: the record's "source" group, else where its first item came from."""
    items = (item for of_role in record.items.values() for item in of_role)
    return record.groups.get("source") or next((item.origin.source for item in items), "")


def _said(record: Record, label: str) -> bool:
    value = record.labels.get(label)
    return value is not None and not isinstance(value, Absent) and value >= 0.5


def _sides(record: Record, schema: LabelSchema) -> tuple[list[str], list[str], bool]:
    """Findings that are there, findings that are not, and whether it is known that none is there."""
    stray = sorted(set(record.labels) - set(schema.labels) - set(schema.ignore) - {schema.normal})
    if stray:
        raise UsageError(
            f"record {record.id} has labels {stray} that the {schema.modality} schema does not know; add them to "
            f"`labels` with their names, or to `ignore`. Known: {', '.join(schema.labels)}"
        )
    findings = [label for label in schema.labels if label != schema.normal]
    present = [label for label in findings if _said(record, label)]
    values = {label: record.labels.get(label) for label in findings}
    absent = [k for k, v in values.items() if v is not None and not isinstance(v, Absent) and k not in present]
    normal = schema.normal is not None and _said(record, schema.normal)
    return present, absent, normal or (len(absent) == len(findings) > 0)


def faithful(caption: str, schema: LabelSchema, present: Sequence[str], absent: Sequence[str]) -> bool:
    """Whether a caption says exactly that `present` is there and `absent` is not."""
    wanted = dict.fromkeys(present, True) | dict.fromkeys(absent, False)
    if not present and schema.normal is not None:
        wanted[schema.normal] = True
    return read_back(caption, schema) == wanted


def _with_captions(record: Record, captions: Sequence[str]) -> Record:
    made_of = next((i.origin for items in record.items.values() for i in items if i.present), None)
    if made_of is None:
        made_of = Origin(_source(record), record.id, "", record.rights.licence)
    origin = replace(made_of, by="model").then(STEP)
    items = tuple(Item("text", caption, origin) for caption in captions)
    return replace(record, items={**record.items, "caption": (*record.items.get("caption", ()), *items)})
