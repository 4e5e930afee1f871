"""The medical images and signals that installed packages carry for their own tests (pydicom, nibabel ...)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fabrica.catalogue.entry import Entry
from fabrica.sources import Quarantined, Ref, read, walk
from fabrica.types import Record

ENTRY = Entry(
    name="package-images",
    title="Medical images inside installed packages: DICOM, NIfTI, pathology, fundus (nothing is downloaded)",
    kind="data",
    package="(installed packages)",
    version="0",
    url_kind="installed",
    licence="each package's own",
    reader="fabrica.catalogue.entries.package_images:records",
    note="Files that a package keeps to test its errors are quarantined with their reason.",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Files of one installed package: a folder inside it, and patterns with the modality of what they match."""

    package: str
    folder: str
    licence: str
    modality: tuple[tuple[str, str], ...]


PLACES = (
    Place("pydicom", "data/test_files", "MIT", (("*.dcm", ""),)),
    Place("nibabel", "tests/data", "MIT", (("*.nii*", "mr"), ("*.dcm", ""))),
    Place("nibabel", "nicom/tests/data", "MIT", (("*.dcm*", ""),)),
    Place(
        "skimage", "data", "BSD-3-Clause",
        (("ihc.png", "pathology"), ("cell.png", "microscopy"), ("retina.jpg", "fundus"),
         ("microaneurysms.png", "fundus")),
    ),
    Place("openslide", "tests/fixtures", "LGPL-2.1-only", (("*.svs", "pathology"),)),
)  # fmt: skip


def records(folder: Path) -> Iterator[Record | Quarantined]:
    """What the readers say of each file of each installed package; packages that are absent give nothing."""
    for place in PLACES:
        root = _root(place.package)
        if root is None or not (root / place.folder).is_dir():
            continue
        for ref in walk(root / place.folder, source=f"{ENTRY.name}/{place.package}", licence=place.licence):
            for pattern, modality in place.modality:
                if ref.path.match(pattern) and ref.path.suffix not in (".py", ".pyc", ".txt", ".rst"):
                    columns = {"modality": modality} if modality else {}
                    key = f"{place.package}/{place.folder}/{ref.key}"
                    yield from read(Ref(ref.path, key, ref.source, place.licence, columns))
                    break


def _root(package: str) -> Path | None:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin else None
