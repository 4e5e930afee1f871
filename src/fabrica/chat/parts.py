"""The parts of a message as a hash, as plain text, and as what an OpenAI-compatible endpoint reads."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from fabrica.errors import UsageError
from fabrica.types import Absent, Blob, Item, Message, Region

Part = str | Item | Region


def digest(part: Part) -> list[Any]:
    """What the model sees of a part, as plain JSON: where an item came from does not count, its bytes do."""
    if isinstance(part, str):
        return ["text", part]
    if isinstance(part, Region):
        data = np.ascontiguousarray(part.data)
        return [
            "region", part.role, part.index, part.shape, part.label, part.text, data.dtype.str, list(data.shape),
            hashlib.sha256(data.tobytes()).hexdigest(),
        ]  # fmt: skip
    value = part.value
    if isinstance(value, Absent):
        return ["absent", part.kind, value.value]
    if isinstance(value, str):
        return ["item", part.kind, value]
    if isinstance(value, Blob):
        return ["blob", part.kind, value.sha256]
    bits = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    return ["array", part.kind, value.dtype.str, list(value.shape), bits, part.unit, part.rate, list(part.names)]


def png(item: Item, max_side: int = 1024) -> tuple[bytes, float]:
    """The item's picture (a volume's middle axial slice) as 8-bit PNG, and the scale that it was drawn at.

    8-bit pixels as they are, anything else between its 0.5th and 99.5th percentile; longest side at most `max_side`.
    """
    from PIL import Image

    from fabrica.encode.image import plane

    array = plane(item)
    if array.dtype != np.uint8:
        real = array.astype(np.float32)
        if not np.isfinite(real).all():
            raise UsageError(f"image {item.origin.key!r} holds NaN or infinite pixels")
        low, high = (0.0, 1.0) if array.dtype == bool else np.percentile(real, (0.5, 99.5))
        array = (np.clip((real - low) / max(float(high) - float(low), 1e-8), 0, 1) * 255).round().astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(array))
    scale = min(1.0, max_side / max(picture.size))
    if scale < 1:
        picture = picture.resize([max(1, round(n * scale)) for n in picture.size], Image.Resampling.BILINEAR)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue(), scale


def region_text(region: Region, scale: float = 1.0) -> str:
    """A region in words: shape, coordinates at the scale of the picture before it, label.

    >>> from fabrica.types import Origin
    >>> region_text(Region("image", "box", np.array([4, 8, 20, 40]), "mass", Origin("demo", "a", "", "")), 0.5)
    '[box x0=2 y0=4 x1=10 y1=20: mass]'
    """
    said = region.text or region.label
    if region.shape == "mask":
        marked = np.nonzero(region.data)
        if marked[0].size == 0:
            return f"[empty mask: {said}]"
        y0, x0 = marked[0].min(), marked[1].min()
        box = np.array([x0, y0, marked[1].max() + 1, marked[0].max() + 1])
        return region_text(Region(region.role, "box", box, region.label, region.origin, text=region.text), scale)
    flat = np.asarray(region.data, np.float64).reshape(-1)
    if region.shape in ("time", "span"):
        return f"[{region.shape} {flat[0]:g} to {flat[1]:g}: {said}]"
    names = {"box": ("x0", "y0", "x1", "y1"), "point": ("x", "y", "z")}.get(region.shape, ())
    values = [f"{round(float(v) * scale, 1):g}" for v in flat]
    listed = " ".join(f"{n}={v}" for n, v in zip(names, values, strict=False)) if names else " ".join(values)
    return f"[{region.shape} {listed}: {said}]"


def as_text(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Role and content for a model that reads text alone; `UsageError` where there is an image."""
    out = []
    for message in messages:
        texts = []
        for part in message.parts:
            if isinstance(part, Item) and part.kind != "text":
                raise UsageError(f"this model reads text alone, and the message holds {_an(part.kind)} item")
            texts.append(_text(part))
        out.append({"role": message.role, "content": "\n".join(texts)})
    return out


def as_openai(messages: Sequence[Message], max_side: int = 1024) -> list[dict[str, Any]]:
    """Messages for a chat completion: plain text where a message holds nothing else, images as PNG data URLs."""
    out: list[dict[str, Any]] = []
    for message in messages:
        content: list[dict[str, Any]] = []
        scale = 1.0
        for part in message.parts:
            if isinstance(part, Item) and part.kind in ("image", "volume") and part.present:
                data, scale = png(part, max_side)
                url = "data:image/png;base64," + base64.b64encode(data).decode()
                content.append({"type": "image_url", "image_url": {"url": url}})
            else:
                content.append({"type": "text", "text": _text(part, scale)})
        plain = all(c["type"] == "text" for c in content)
        out.append({"role": message.role, "content": "\n".join(c["text"] for c in content) if plain else content})
    return out


def _text(part: Part, scale: float = 1.0) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Region):
        return region_text(part, scale)
    if part.kind == "text" and part.present:
        return part.text()
    state = "absent " if not part.present else ""
    raise UsageError(f"a chat model cannot be shown {_an(state + part.kind)} item; give text, an image or a volume")


def _an(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
