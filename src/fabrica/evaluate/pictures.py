"""Pictures of items: grey levels or colour in 0..1 for display, and the small ones that baselines look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import Refused
from fabrica.types import Item

SIDE = 64  # pixels of the pictures that baselines see
PICTURED = ("image", "volume", "slide")  # roles that can be shown


def levels(item: Item) -> NDArray[np.float32] | None:
    """An image as (H, W) or (H, W, 3) in 0..1, the middle axial slice of a volume; None for what has no pixels.

    8-bit pictures stay as they are; everything else runs from its 0.5th to its 99.5th percentile, so that CT, MR and
    16-bit X-rays look alike.
    """
    from fabrica.encode.image import plane

    if item.kind not in PICTURED or not isinstance(item.value, np.ndarray):
        return None
    try:
        array = plane(item)
    except Refused:
        return None
    values = np.nan_to_num(array.astype(np.float32))
    if array.dtype == np.uint8:
        return np.asarray(values / 255)
    low, high = np.percentile(values, [0.5, 99.5])
    if not high > low:
        low, high = float(values.min()), float(values.max())
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)


def thumbnail(item: Item, side: int = SIDE) -> NDArray[np.uint8] | None:
    """A grey (side, side) uint8 picture, box-averaged, the aspect not kept; None where there is no picture."""
    values = levels(item)
    if values is None:
        return None
    from PIL import Image

    grey = values if values.ndim == 2 else values.mean(2)
    picture = Image.fromarray((grey * 255).astype(np.uint8))
    return np.asarray(picture.resize((side, side), Image.Resampling.BOX), dtype=np.uint8)
