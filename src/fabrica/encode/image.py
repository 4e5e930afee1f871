"""Images to (C, size, size) float32: intensity window, grey or colour, aspect kept by padding or not, augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fabrica.encode import Plain
from fabrica.encode.augment import MedicalImageAugment, Views, blur, tone
from fabrica.errors import Refused, UsageError
from fabrica.types import Item

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's and timm's models
GREY_MEAN, GREY_STD = (0.449,), (0.226,)
_SAMPLE = 65_536  # pixels that a percentile window looks at

Window = Literal["auto", "percentile"] | tuple[float, float]


@dataclass(frozen=True, slots=True)
class ImageEncode(Plain):
    """An image (H, W), (H, W, 1|3|4) or the middle axial slice of a volume -> (channels, size, size) float32.

    `window`: (low, high) in the item's own unit is mapped to [0, 1] and clipped; "percentile" takes the 0.5th and
    99.5th percentile of the image; "auto" takes 0..255 for 8-bit images, 0..1 for bool, and percentiles for all others.
    Grey becomes three equal channels when `channels` is 3, colour becomes luma (BT.601) when it is 1. `fit`: "pad"
    keeps the aspect and pads with black, "resize" stretches. Then (x - mean) / std, by default ImageNet's. With
    `augment` each visit differs (see `MedicalImageAugment`).

    Errors: `Refused("image_nonfinite")` for NaN or infinity, `Refused("image_shape")` for what is no image.

    >>> from fabrica.types import Item, Origin
    >>> item = Item("image", np.full((40, 80), 255, np.uint8), Origin("demo", "a", "", ""))
    >>> x = ImageEncode(32, 1, (0.0,), (1.0,))(item, np.random.default_rng(0))
    >>> x.shape, float(x[0, 16, 16]), float(x[0, 0, 0])
    ((1, 32, 32), 1.0, 0.0)
    """

    size: int
    channels: int = 3
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augment: MedicalImageAugment | None = None
    window: Window = "auto"
    fit: Literal["pad", "resize"] = "pad"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or self.size < 1:
            raise UsageError(f"an image has 1 or 3 channels and a size >= 1; got {self.channels} and {self.size}")
        for name, known in (("mean", GREY_MEAN if self.channels == 1 else IMAGENET_MEAN),
                            ("std", GREY_STD if self.channels == 1 else IMAGENET_STD)):  # fmt: skip
            value = getattr(self, name)
            object.__setattr__(self, name, known if value is None else tuple(float(v) for v in value))
            if len(getattr(self, name)) != self.channels:
                raise UsageError(f"{name} has {len(getattr(self, name))} values for {self.channels} channels")
        if not isinstance(self.window, str) and not self.window[0] < self.window[1]:
            raise UsageError(f"window {self.window} needs low < high")

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, size, size)."""
        return (self.channels, self.size, self.size)

    def still(self) -> ImageEncode:
        """Without augmentation."""
        return replace(self, augment=None)

    def place(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Where an image of that size lies on the canvas: x, y, width, height in pixels.

        >>> ImageEncode(32).place(40, 80)
        (0, 8, 32, 16)
        """
        if self.fit == "resize" or height == width:
            return 0, 0, self.size, self.size
        scale = self.size / max(height, width)
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        return (self.size - w) // 2, (self.size - h) // 2, w, h

    def __call__(self, item: Item, rng: np.random.Generator, /) -> NDArray[np.float32]:
        planes = self._planes(item)
        height, width = planes[0].size[1], planes[0].size[0]
        x, y, w, h = self.place(height, width)
        views = self.augment.draw(rng, width, height) if self.augment else None
        out = np.stack([_warp(p, (w, h), views) for p in planes])
        if len(out) == 1 and planes[0].mode == "RGB":
            out = np.moveaxis(out[0], -1, 0)
        if views is not None and self.augment is not None:
            out = blur(tone(out, views), views.sigma * self.size / self.augment.reference)
        if (w, h) != (self.size, self.size):
            canvas = np.zeros((len(out), self.size, self.size), np.float32)
            canvas[:, y : y + h, x : x + w] = out
            out = canvas
        mean = np.asarray(self.mean, np.float32)[:, None, None]
        std = np.asarray(self.std, np.float32)[:, None, None]
        made: NDArray[np.float32] = np.ascontiguousarray((out - mean) / std, np.float32)
        return made

    def _planes(self, item: Item) -> list[Image.Image]:
        """One "L" or "RGB" image (0..255), or one to three "F" images (0..1)."""
        array = plane(item)
        colour = array.ndim == 3
        eight = array.dtype == np.uint8 and self.window == "auto"
        if not eight:
            array = self._windowed(array, item)
        if colour and self.channels == 1:
            luma = array.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
            array, colour, eight = (luma / 255 if eight else luma), False, False
        if eight:
            return [Image.fromarray(np.ascontiguousarray(array))]
        parts = np.moveaxis(array, -1, 0) if colour else array[None]
        return [Image.fromarray(np.ascontiguousarray(p, np.float32)) for p in parts]

    def _windowed(self, array: NDArray[Any], item: Item) -> NDArray[np.float32]:
        real: NDArray[np.float32] = array.astype(np.float32)
        if not np.isfinite(real).all():
            raise Refused("image_nonfinite", f"image {item.origin.key!r} holds NaN or infinite pixels")
        if isinstance(self.window, str):
            if array.dtype == bool:
                return real
            flat = real.reshape(-1)
            low, high = np.percentile(flat[:: max(1, len(flat) // _SAMPLE)], (0.5, 99.5))
        else:
            low, high = self.window
        made: NDArray[np.float32] = np.clip((real - np.float32(low)) / np.float32(max(high - low, 1e-8)), 0, 1)
        return made

    def to_json(self) -> dict[str, Any]:
        """All settings as plain JSON."""
        return {"type": "image", **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ImageEncode:
        """The inverse of `to_json`."""
        rest = {k: v for k, v in data.items() if k != "type"}
        rest["augment"] = MedicalImageAugment.from_json(rest["augment"]) if rest.get("augment") else None
        if isinstance(rest.get("window"), Sequence) and not isinstance(rest["window"], str):
            rest["window"] = tuple(rest["window"])
        return cls(**rest)


def plane(item: Item) -> NDArray[Any]:
    """The item's pixels as (H, W) or (H, W, 3): alpha dropped, one channel squeezed, a volume's middle axial slice."""
    array = item.array()
    if item.kind == "volume":
        array = axial(array, item.affine)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 3 and array.shape[2] == 2:  # grey and alpha
        array = array[..., 0]
    if array.ndim == 3 and array.shape[2] == 4:
        array = array[..., :3]
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] != 3):
        raise Refused(
            "image_shape", f"image {item.origin.key!r} has shape {array.shape}, wanted (H, W) or (H, W, 1..4)"
        )
    return array


def axial(array: NDArray[Any], affine: NDArray[np.float64] | None, at: float = 0.5) -> NDArray[Any]:
    """The axial slice at fraction `at` of a volume, as radiologists hang it: anterior up, patient's right at the left.

    Without an affine the last axis is taken as inferior to superior, the first two as R-L and P-A.
    """
    if array.ndim == 4 and array.shape[3] in (1, 3, 4):
        pass
    elif array.ndim != 3:
        raise Refused("image_shape", f"a volume of shape {array.shape} has no axial slice; wanted (X, Y, Z[, 1|3|4])")
    from fabrica.encode.volume import canonical

    turned, _ = canonical(array, np.eye(4) if affine is None else affine)  # R, A, S
    cut = turned[:, :, min(int(turned.shape[2] * at), turned.shape[2] - 1)]
    return np.flip(np.swapaxes(cut, 0, 1), (0, 1))


def _warp(image: Image.Image, size: tuple[int, int], views: Views | None) -> NDArray[np.float32]:
    """Crop, resize (antialiased), affine; (h, w[, 3]) float32 in 0..1."""
    if views is not None or image.size != size:
        box = views.box if views is not None else None
        image = image.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    if views is not None:
        image = image.transform(size, Image.Transform.AFFINE, views.matrix(*size), Image.Resampling.BILINEAR)
    out = np.asarray(image, np.float32)
    return out if image.mode == "F" else out / np.float32(255)
