"""Steps for compound figures: captions split into what they say of each panel, pictures into panels, both joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from fabrica.curate.articles import panels, subcaptions
from fabrica.types import Drop, Item, Link, Record, Region, record_id

STEP = "panel_records"


@dataclass(kw_only=True)
class SubCaptions:
    """Marks in the caption of each figure the words on each panel: span regions on "caption", labelled with the panel's
    letter (a part on several panels has a region for each). The parts tile the caption; a caption that they do not
    tile is left out (`caption_lost`; no caption can, the check is there to be run). Group "panel_type" says "multiple"
    where two letters or more are found, else "single". Records without a caption pass."""

    role: str = "caption"
    name: str = field(default="sub_captions", init=False)
    version: str = field(default="1", init=False)

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records with span regions."""
        for record in records:
            item = next((i for i in record.items.get(self.role, ()) if i.present and i.kind == "text"), None)
            if item is None:
                yield record
                continue
            text = item.text()
            parts = subcaptions.split(text)
            if "".join(text[p.start : p.end] for p in parts) != text:
                drop(record, "caption_lost")
                continue
            origin = replace(item.origin.then(self.name), by="model")
            spans = tuple(
                Region(
                    self.role, "span", np.array([p.start, p.end], np.int64), letter, origin,
                    text=subcaptions.words(p, text),
                )
                for p in parts
                for letter in p.letters
            )  # fmt: skip
            kept = tuple(r for r in record.regions if not (r.role == self.role and r.shape == "span"))
            kind = "multiple" if spans else record.groups.get("panel_type", "single")
            yield replace(record, regions=(*kept, *spans), groups={**record.groups, "panel_type": kind})


@dataclass(kw_only=True)
class PanelSplit:
    """Boxes of the panels of each figure's image. Where the caption has letters (`SubCaptions` before it), so many
    panels are looked for, and the boxes get the letters in reading order; where the numbers differ the boxes are
    labelled "panel" and group "panels" says "unmatched". Without letters, all wide gutters are cut."""

    role: str = "image"
    name: str = field(default="panel_split", init=False)
    version: str = field(default="1", init=False)

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records with box regions."""
        for record in records:
            items = record.items.get(self.role, ())
            if len(items) != 1 or not items[0].present or items[0].kind != "image":
                yield record
                continue
            letters = list(dict.fromkeys(r.label for r in record.regions if r.role == "caption" and r.shape == "span"))
            found = panels.panels(items[0].array(), len(letters) or None)
            if len(found) < 2 and not letters:
                yield replace(record, groups={"panel_type": "single", **record.groups})
                continue
            matched = len(found) == len(letters)
            origin = replace(items[0].origin.then(self.name), by="model")
            boxes = tuple(
                Region(self.role, "box", np.array(box, np.float64), letters[i] if matched else "panel", origin)
                for i, box in enumerate(found)
            )
            groups = {**record.groups, "panel_type": "multiple", "panels": "matched" if matched else "unmatched"}
            yield replace(record, regions=(*record.regions, *boxes), groups=groups)


@dataclass(kw_only=True)
class PanelRecords:
    """One record a panel, of figures whose panels and letters were matched: the box of the image, the words on it; the
    parent's groups, labels and rights, link "derived_from" to it. With `whole` the figure itself goes on as well;
    figures that were not matched always do."""

    whole: bool = False
    name: str = field(default=STEP, init=False)
    version: str = field(default="1", init=False)

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records of panels."""
        for record in records:
            made = list(self._panels(record)) if record.groups.get("panels") == "matched" else []
            if self.whole or not made:
                yield record
            yield from made

    def _panels(self, record: Record) -> Iterator[Record]:
        image, caption = record.items["image"][0], record.items["caption"][0]
        words = {r.label: r for r in record.regions if r.role == "caption" and r.shape == "span"}
        for box in (r for r in record.regions if r.role == "image" and r.shape == "box"):
            x0, y0, x1, y1 = (int(v) for v in box.data)
            said = words[box.label]
            pixels = np.ascontiguousarray(image.array()[y0:y1, x0:x1])
            items = {
                **{k: v for k, v in record.items.items() if k not in ("image", "caption")},
                "image": (Item("image", pixels, image.origin.then(STEP)),),
                "caption": (Item("text", said.text or "", replace(caption.origin.then(STEP), by="source")),),
            }
            yield Record(
                record_id(record.id, "panel", box.label), record.subject,
                groups={**record.groups, "panel": box.label, "panel_type": "single"}, items=items, labels=record.labels,
                links=(*record.links, Link("derived_from", record.id)), rights=record.rights, split=record.split,
            )  # fmt: skip
