"""A body by name: a small net of this library, or any `transformers` architecture with its tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from fabrica.encode.text import TextEncode, Truncation, View
from fabrica.encode.vocabulary import train_vocabulary
from fabrica.models.adapt import Lora
from fabrica.models.body import Body
from fabrica.models.small import ConvTower
from fabrica.models.text_tower import TextTower
from fabrica.models.transformers_tower import TransformersTower, resolve
from fabrica.types import Record

SMALL = "small"


def image_body(
    source: str, *, channels: int = 3, norm: Literal["group", "batch"] = "group", lora: Lora | None = None,
    allow_network: bool = False,
) -> Body:  # fmt: skip
    """`source` "small" is four convolutions from random weights; else a folder, catalogue name or hub id. `norm` of the
    small one: "batch" learns in fewer steps, "group" works with a gradient cache.

    >>> image_body("small", channels=1).width
    96
    """
    if source == SMALL:
        return ConvTower(channels, norm=norm)
    return TransformersTower.load(source, lora=lora, allow_network=allow_network)


def text_body(
    source: str, records: Iterable[Record], roles: tuple[str, ...], *, length: int, vocabulary: int = 2000,
    view: View = "whole", truncation: Truncation = "tail", width: int = 128, depth: int = 1, lora: Lora | None = None,
    allow_network: bool = False,
) -> tuple[Body, TextEncode]:  # fmt: skip
    """The body and the transform that feeds it. `source` "small" learns a vocabulary of at most `vocabulary` pieces
    from the `roles` of `records` (the training part) under `depth` layers of attention of `width` from random weights;
    else both come from a folder, catalogue name or hub id."""
    if source == SMALL:
        texts = [item.text() for record in records for item in record.all(*roles)]
        encode = TextEncode(train_vocabulary(texts, vocabulary), length, view=view, truncation=truncation)
        return TextTower(encode.size, width, depth, length=length), encode
    body = TransformersTower.load(source, lora=lora, allow_network=allow_network)
    encode = TextEncode(str(resolve(source, allow_network=allow_network)), length, view=view, truncation=truncation)
    return body, encode
