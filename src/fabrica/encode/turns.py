"""Records to batches of conversations: images as a field, turns as token rows, and which tokens are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.encode import from_json
from fabrica.encode.chat import ChatEncode
from fabrica.encode.collate import Use, _named, generator, pad
from fabrica.errors import FabricaError, Refused, UsageError
from fabrica.text.turns import Turn, turns_of
from fabrica.types import Absent, Batch, Blob, Field, Item, Record

TEXT, SAID = "text", "said"
DESCRIBE = (
    "Describe the image.", "What does this image show?", "What is seen in the image?", "Describe what is shown.",
    "Summarise what the image shows.", "Explain what is visible in this image.", "What can you see in the picture?",
    "Write a caption for this image.", "Present the visual content of the image.", "Characterise the image.",
    "Say in short what the image depicts.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChatCollate:
    """`collate(records, epoch) -> Batch` with the fields `picture` (None: blind) and "text", and the target "said":
    (B, L) ids with `known` (B, L) bool, the tokens that are learned.

    The turns of a record are those of the first of `roles` that it has: "conversation" (JSON turns, see `text.turns`),
    "answer" with its "question", or any other text after one of `instructions`, drawn anew each visit. `plain` texts
    stand alone and are learned whole. `shuffle` reorders turns at each visit; `image_last` puts the image after the
    first question in half of the visits. A record without an image is a conversation without one; an image that cannot
    be read is an error that names the record, and no other one takes its place.
    """

    words: ChatEncode
    image: Use | None = None
    picture: str = "image"
    roles: tuple[str, ...] = ("conversation", "answer", "caption", "report")
    instructions: tuple[str, ...] = DESCRIBE
    plain: bool = False
    shuffle: bool = False
    image_last: bool = False
    seed: int = 0

    @property
    def fields(self) -> Mapping[str, Any]:
        """What a stage may need (`Stage.needs`)."""
        return ({self.picture: self.image} if self.image else {}) | {TEXT: _Roles(self.roles)}

    def __call__(self, records: Sequence[Record], epoch: int = 0) -> Batch:
        if not records:
            raise UsageError("no records to make a batch of")
        pictures, rows, texts = [], [], []
        for record in records:
            rng = generator(self.seed, epoch, record.id, TEXT)
            shown = self._images(record, epoch)
            turns = self.turns(record, rng)
            last = self.image_last and bool(rng.random() < 0.5)
            pictures.append(shown)
            texts.append(bool(turns))
            rows.append(self.words.ids(turns, len(shown[1]), image_last=last, name=f"record {record.id!r}"))
        fields = {TEXT: text_field([r[0] for r in rows], self.words.pad, texts)}
        if self.image is not None:
            fields[self.picture] = pad(pictures, self.image.encode)
        said = fields[TEXT].values[:, 0]
        learn = text_field([r[1].astype(np.int64) for r in rows], 0, texts).values[:, 0].bool()
        return Batch(tuple(r.id for r in records), fields, {SAID: said}, {SAID: learn})

    def _images(self, record: Record, epoch: int) -> tuple[list[Item], list[NDArray[Any]]]:
        if self.image is None:
            return [], []
        items = [i for r in self.image.roles for role, found in record.items.items()
                 if role == r or role.startswith(r + "/") for i in found]  # fmt: skip
        broken = [i for i in items if i.value is Absent.UNREADABLE or isinstance(i.value, Blob)]
        if broken:
            raise Refused(
                "image_unreadable", f"record {record.id!r}, field {self.picture!r}: {broken[0].origin.key!r} holds no "
                "pixels; leave the record out or mend the file",
            )  # fmt: skip
        here = [i for i in items if i.present]
        rng = generator(self.seed, epoch, record.id, self.picture)
        try:
            chosen = list(self.image.encode.choose(here, self.image.most, rng)) if here else []
            return chosen, [self.image.encode(item, rng) for item in chosen]
        except (FabricaError, TypeError) as error:
            raise _named(error, record, self.picture) from error

    def turns(self, record: Record, rng: np.random.Generator) -> list[Turn]:
        """The turns of a record; none where it has no text."""
        for role in self.roles:
            found = list(record.all(role))
            if not found:
                continue
            if role == "conversation":
                turns = turns_of(found[0].text(), record.id)
            elif role == "answer":
                asked = list(record.all("question"))
                if len(asked) != len(found):
                    raise UsageError(f"record {record.id!r} has {len(asked)} questions and {len(found)} answers")
                turns = [(q.text(), a.text()) for q, a in zip(asked, found, strict=True)]
            elif self.plain:
                return [("", found[0].text())]
            else:
                return [(self.instructions[int(rng.integers(len(self.instructions)))], found[0].text())]
            return [turns[i] for i in rng.permutation(len(turns))] if self.shuffle else turns
        return []

    def still(self) -> ChatCollate:
        """The same without chance: the first instruction, turns in order, images first, no augmentation."""
        image = self.image and replace(self.image, encode=self.image.encode.still())
        return replace(self, image=image, instructions=self.instructions[:1], shuffle=False, image_last=False)

    def blind(self) -> ChatCollate:
        """The same conversations without any image."""
        return replace(self, image=None)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        u = self.image
        return {
            "version": 1, "words": self.words.to_json(), "picture": self.picture, "roles": list(self.roles),
            "image": u and {"roles": list(u.roles), "most": u.most, "encode": u.encode.to_json()},
            "instructions": list(self.instructions), "plain": self.plain, "shuffle": self.shuffle,
            "image_last": self.image_last, "seed": self.seed,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ChatCollate:
        """The inverse of `to_json`."""
        if data.get("version") != 1 or "words" not in data:
            raise UsageError(f"conversation settings of version {data.get('version')!r}; this library reads version 1")
        u = data["image"]
        image = Use(tuple(u["roles"]), from_json(u["encode"]), u["most"]) if u else None
        rest = {k: data[k] for k in ("picture", "plain", "shuffle", "image_last", "seed")}
        return cls(
            ChatEncode.from_json(data["words"]), image, roles=tuple(data["roles"]),
            instructions=tuple(data["instructions"]), **rest,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Roles:
    roles: tuple[str, ...]


def text_field(rows: Sequence[NDArray[np.int64]], fill: int, here: Sequence[bool]) -> Field:
    """Token rows -> (B, 1, L) padded on the right, with their mask; a row without tokens keeps one place."""
    import torch

    longest = max(1, *(len(r) for r in rows))
    values = np.full((len(rows), 1, longest), fill, np.int64)
    mask = np.zeros(values.shape, bool)
    for i, row in enumerate(rows):
        values[i, 0, : len(row)] = row
        mask[i, 0, : max(1, len(row))] = True
    return Field(torch.from_numpy(values), torch.tensor(list(here))[:, None], None, torch.from_numpy(mask))
