"""Similarity maps: which part of an image a text is close to."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from fabrica.encode.image import ImageEncode, plane
from fabrica.errors import UsageError
from fabrica.models.bundle import Bundle, evaluating, to_device
from fabrica.types import Record


def heatmap(
    bundle: Bundle, record: Record, text: str, *, image: str = "image", text_field: str = "text"
) -> NDArray[np.float32]:
    """(H, W) cosine of the text with each place of the record's image, at that image's own size.

    Image tokens go through the image head one by one; the grid of cosines is interpolated (bilinear) and the encoder's
    padding undone (Boecking et al., arXiv 2204.09817: projected local embeddings against the global text).
    """
    use = bundle.collate.fields.get(image)
    if use is None or not isinstance(use.encode, ImageEncode):
        raise UsageError(f"field {image!r} of this bundle does not read images")
    item = record.first(*use.roles)
    if item is None:
        raise UsageError(f"record {record.id!r} has no image in roles {', '.join(use.roles)}")
    device = next(bundle.model.parameters()).device
    one = record.updated(items={use.roles[0]: (item,)})
    field = to_device(bundle.collate.still().only(image)([one], 0).fields[image], device)
    words = torch.from_numpy(bundle.embed_texts([text], text_field))
    with evaluating(bundle.model):
        found = bundle.model.encode(image, field)
        if found.grid is None or found.tokens is None:
            raise UsageError(f"the tower of {image!r} has no grid of tokens to map")
        local = bundle.model.tower(image).head(found.tokens[0, found.prefix :])
        cosines = functional.normalize(local, dim=-1).cpu() @ words[0]
        size = use.encode.size
        canvas = functional.interpolate(cosines.view(1, 1, *found.grid), (size, size), mode="bilinear")
        height, width = plane(item).shape[:2]
        x, y, w, h = use.encode.place(height, width)
        back = functional.interpolate(canvas[:, :, y : y + h, x : x + w], (height, width), mode="bilinear")
    made: NDArray[np.float32] = back[0, 0].numpy().astype(np.float32)
    return made
