"""De-identification as a step of a plan: texts, tables, regions, keys, groups, links of records; pictures checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fabrica.curate.deid.cells import kind_of
from fabrica.curate.deid.dicom_table import EDITION
from fabrica.curate.deid.key import Key
from fabrica.curate.deid.pixels import TextReader, find_text, to_grey
from fabrica.text.identifiers import VERSION, Known, Scrubbed, scrub
from fabrica.types import Absent, Blob, Drop, Item, Link, Origin, Record, Region

STEP = "deidentify"


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


GROUPS = frozenset(  # words of a vocabulary; any other group keeps its distinctions under a pseudonym
    [
        "modality",
        "view",
        "body",
        "sex",
        "scanner",
        "maker",
        "laterality",
        "slice_mm",
        "image_type",
        "source",
        "instance",
        "language",
        "kind",
        "mpp",
        "objective",
        "width",
        "height",
        "journal",
        "licence",
        "sequence",
        "plane",
        "phase",
        "rate",
    ]
)
_FAILS_CLOSED = frozenset(("ultrasound", "other", ""))
_OLDEST = 90.0


@dataclass(kw_only=True)
class Deidentify:
    """Gives records without identifiers, under the same key always the same.

    Texts are scrubbed and their dates moved by the subject's days (spans of regions follow); names of columns, region
    texts and labels are scrubbed; ages over 89 become 90; id, subject, links, groups outside `groups` and the origin's
    key and checksum become pseudonyms; blobs (slides, videos: files with labels of their own) are withheld.

    Pictures are looked at: text found in one is masked with `mask`, else the record is dropped (burned_in). Ultrasound,
    and pictures of no known modality, are dropped (unknown_picture) unless `mask` and a `reader` (OCR) are given.
    """

    key: Key
    known: Known | None = None
    groups: frozenset[str] = GROUPS
    mask: bool = False
    reader: TextReader | None = None
    name: str = field(default=STEP, init=False)
    version: str = field(default=f"{VERSION}+{EDITION}", init=False)

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records without identifiers."""
        for record in records:
            why = self._picture_reason(record)
            if why:
                drop(record, why)
            else:
                yield self.clean(record)

    def clean(self, record: Record) -> Record:
        """One record."""
        days = self.key.days(record.subject)
        scrubbed: dict[tuple[str, int], Scrubbed] = {}
        items: dict[str, tuple[Item, ...]] = {}
        for role, found in record.items.items():
            out = []
            for index, item in enumerate(found):
                if item.kind == "text" and isinstance(item.value, str) and item.present:
                    scrubbed[role, index] = self._scrub(item.value, days)
                out.append(self._item(item, scrubbed.get((role, index)), days))
            items[role] = tuple(out)
        return record.updated(
            id=self.key.pseudonym("record", record.id, 24),
            subject=self.key.pseudonym("subject", record.subject),
            groups={name: self._group(name, value) for name, value in record.groups.items()},
            items=items,
            regions=tuple(self._region(r, scrubbed.get((r.role, r.index)), days) for r in record.regions),
            labels={name: _young(name, value) for name, value in record.labels.items()},
            links=tuple(self._link(link) for link in record.links),
        )

    def _scrub(self, text: str, days: int) -> Scrubbed:
        return scrub(text, days=days, uid=self.key.uid, known=self.known)

    def _item(self, item: Item, scrubbed: Scrubbed | None, days: int) -> Item:
        value: Any = item.value
        if isinstance(value, Blob):
            value = Absent.WITHHELD
        elif scrubbed is not None:
            value = scrubbed.text
        elif item.kind == "image" and isinstance(value, np.ndarray):
            value = self._masked(value)
        elif item.kind in ("table", "series") and isinstance(value, np.ndarray):
            value = _young_columns(value, item.names)
        names = tuple(self._scrub(name, days).text for name in item.names)
        return replace(item, value=value, names=names, origin=self._origin(item.origin))

    def _origin(self, origin: Origin) -> Origin:
        key = self.key.pseudonym("file", origin.key)
        digest = self.key.mac("sha256", origin.sha256).hex() if origin.sha256 else ""
        return replace(origin, key=key, sha256=digest).then(STEP)

    def _group(self, name: str, value: str) -> str:
        return value if name in self.groups else self.key.pseudonym(name, value)

    def _link(self, link: Link) -> Link:
        """Links to the outside ("pmid:1234") stay: an article is no patient."""
        return link if ":" in link.to else replace(link, to=self.key.pseudonym("record", link.to, 24))

    def _region(self, region: Region, scrubbed: Scrubbed | None, days: int) -> Region:
        data, text = region.data, region.text
        if region.shape == "span" and scrubbed is not None:
            data = np.array([scrubbed.moved(int(at)) for at in data], dtype=data.dtype)
        text = None if text is None else self._scrub(text, days).text
        label = self._scrub(region.label, days).text
        return replace(region, data=data, text=text, label=label, origin=self._origin(region.origin))

    # ------------------------------------------------------------ pictures

    def _picture_reason(self, record: Record) -> str | None:
        pictures = [i for items in record.items.values() for i in items if i.kind == "image" and i.present]
        moving = [i for items in record.items.values() for i in items if i.kind == "video" and i.present]
        if not pictures and not moving:
            return None
        seen = self.mask and self.reader is not None
        if record.groups.get("modality", "") in _FAILS_CLOSED and not seen:
            return "unknown_picture"
        if moving and any(isinstance(i.value, np.ndarray) for i in moving):
            return "video_not_checked"
        if not self.mask and any(self._boxes(i.value) for i in pictures if isinstance(i.value, np.ndarray)):
            return "burned_in"
        return None

    def _boxes(self, value: np.ndarray) -> list[tuple[int, int, int, int]]:
        grey = to_grey(value)
        return [*find_text(grey), *(self.reader(grey) if self.reader is not None else [])]

    def _masked(self, value: np.ndarray) -> np.ndarray:
        boxes = self._boxes(value) if self.mask else []
        if not boxes:
            return value
        out = value.copy()
        for x0, y0, x1, y1 in boxes:
            out[y0:y1, x0:x1] = out.min()
        return out


def _young(name: str, value: float | Absent) -> float | Absent:
    return value if isinstance(value, Absent) or kind_of(name) != "age" else min(value, _OLDEST)


def _young_columns(value: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Columns of ages with those over 89 as 90."""
    ages = [n for n, name in enumerate(names) if kind_of(name) == "age"]
    if not ages or value.ndim != 1 or len(value) != len(names):
        return value
    out = value.copy()
    out[ages] = np.minimum(out[ages], _OLDEST)
    return out


def known_of(rows: Iterable[Mapping[str, Any]]) -> Known:
    """Names and numbers of a table's identifying columns, for texts that are linked to it."""
    return Known(
        str(value)
        for row in rows
        for column, value in row.items()
        if value and kind_of(column) in ("name", "subject", "id")
    )
