"""Public segmentation sets from their own folders -> a record a picture, each object a mask region, empty if not there.

DRIVE (retina, vessels), ISBI 2012 (electron microscopy, membranes), ACDC slices (heart MR), MSD hippocampus (brain MR).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.safe import read_bytes
from fabrica.types import Item, Origin, Record, Region


def picture(set_: str, key: str, subject: str, where: tuple[str, str], image: Any, masks: Mapping[str, Any]) -> Record:
    """A record of one picture; groups "modality", "anatomy", "set"; `masks` by name, all that was looked for."""
    origin = Origin(set_, key, "", "see the data set")
    regions = tuple(Region("image", "mask", np.asarray(m, bool), n, origin) for n, m in masks.items())
    groups = {"modality": where[0], "anatomy": where[1], "set": set_}
    return Record(f"{set_}/{key}", f"{set_}/{subject}", groups, {"image": (Item("image", image, origin),)}, regions)


def _decoded(path: Path) -> NDArray[Any]:
    from fabrica.sources.image import decode

    return decode(read_bytes(path))[0]


def tiles(set_: str, key: str, where: tuple[str, str], image: Any, name: str, mask: Any) -> list[Record]:
    """A picture of fine structure cut into 4 x 4 tiles, all of one subject: they are stretched less."""
    made = []
    h, w = (n // 4 for n in mask.shape)
    for n in range(16):
        at = (slice(n // 4 * h, (n // 4 + 1) * h), slice(n % 4 * w, (n % 4 + 1) * w))
        made.append(picture(set_, f"{key}/{n}", key, where, np.ascontiguousarray(image[at]), {name: mask[at]}))
    return made


def _drive(folder: Path) -> list[Record]:
    made: list[Record] = []
    for path in sorted((folder / "DRIVE" / "training" / "images").glob("*.tif")):
        mask = _decoded(folder / "DRIVE" / "training" / "1st_manual" / f"{path.name[:2]}_manual1.gif")
        made += tiles("drive_fundus", path.name[:2], ("fundus", "retina"), _decoded(path), "retinal vessel", mask > 127)
    return made


def _isbi(folder: Path) -> list[Record]:
    made: list[Record] = []
    root = folder / "data" / "membrane" / "train"
    for path in sorted((root / "image").glob("*.png")):
        image, mask = (a if a.ndim == 2 else a[..., 0] for a in (_decoded(path), _decoded(root / "label" / path.name)))
        where = ("electron microscopy", "neuron")
        made += tiles("isbi_em_membrane", path.stem, where, image, "cell membrane", mask < 128)
    return made


def _acdc(folder: Path) -> list[Record]:
    from fabrica.sources import Ref
    from fabrica.sources.npz import load

    made = []
    names = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
    for path in sorted(folder.glob("*.npz")):
        arrays = load(Ref(path, path.name, "acdc"))
        masks = {n: arrays["label"] == v for v, n in names.items()}
        image = arrays["image"].astype(np.float32)
        made.append(picture("acdc_scribble_slices", path.stem, path.name[:10], ("mr", "heart"), image, masks))
    return made


def _hippocampus(folder: Path, volumes: int = 60, every: int = 4) -> list[Record]:
    from fabrica.sources.nifti import load

    made = []
    for path in sorted((folder / "images").glob("*.nii.gz"))[:volumes]:
        image, labels = load(path).array, load(folder / "labels" / path.name).array
        for x in range(2, image.shape[0], every):
            masks = {"anterior hippocampus": labels[x] == 1, "posterior hippocampus": labels[x] == 2}
            key = path.name.split(".")[0]
            values = np.asarray(image[x], np.float32)
            made.append(picture("msd_hippocampus", f"{key}/{x}", key, ("mr", "brain"), values, masks))
    return made


SETS: Mapping[str, Callable[[Path], list[Record]]] = MappingProxyType(
    {"drive_fundus": _drive, "isbi_em_membrane": _isbi, "acdc_scribble_slices": _acdc, "msd_hippocampus": _hippocampus}
)
