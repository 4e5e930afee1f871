"""Mask regions as (image, text, mask) triples: which objects a visit asks for, in which words, and what is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.curate.ontology import Ontology, phrase, place
from fabrica.encode import from_json
from fabrica.encode.collate import Collate, Use, generator, key_hash
from fabrica.encode.grid import GridEncode
from fabrica.encode.masks import MaskCollate
from fabrica.encode.stretch import StretchEncode
from fabrica.encode.text import TextEncode
from fabrica.errors import Refused, UsageError
from fabrica.types import Batch, Record

PROMPTS, OBJECTS, SAME = "prompts", "objects", "same"


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt of a visit: the object, the words, its mask on the image's own grid."""

    name: str
    text: str
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PromptCollate(MaskCollate):
    """A `Collate` of one picture field with prompts: at a visit at most `most` objects of a record, at most `absent` of
    them not there, each in words drawn from the ontology.

    An object is asked for only if the record has a region of its name: with pixels it is there, without any it was
    looked for and is not there. What has no region is unknown, neither asked for nor a negative.

    Targets: "prompts" (B, K, T) token ids, known where there is a token; "objects" (B, K, *size) 0 or 1, known on the
    pixels of prompts that were asked; "same" (B, K) int64, equal for one object. `words` says how prompts become ids.
    """

    ontology: Ontology = field(default_factory=lambda: Ontology(()))
    words: TextEncode | None = None
    most: int = 10
    absent: int = 1

    def __post_init__(self) -> None:
        MaskCollate.__post_init__(self)
        if len(self.fields) != 1 or self.words is None or self.most < 1 or self.absent < 0:
            raise UsageError(f"prompts want one picture field, a text encoding, most >= 1; got {list(self.fields)}")

    def __call__(self, records: Sequence[Record], epoch: int = 0) -> Batch:
        import torch

        batch = Collate.__call__(self, records, epoch)
        asked = [self.asked(r, epoch) for r in records]
        ids = [[self.ids(a.text) for a in row] for row in asked]
        count = max(1, *map(len, asked))
        longest = max((len(i) for row in ids for i in row), default=1)
        words = np.zeros((len(records), count, longest), np.int64)
        said, masks = np.zeros(words.shape, bool), np.zeros((len(records), count, *self.grid.size), np.uint8)
        known, same = np.zeros(masks.shape, bool), np.zeros(words.shape[:2], np.int64)
        for i, (record, row) in enumerate(zip(records, asked, strict=True)):
            item = record.first(*self.use.roles)
            for j, one in enumerate(row):
                words[i, j, : len(ids[i][j])], said[i, j, : len(ids[i][j])] = ids[i][j], True
                masks[i, j], known[i, j] = self.grid.labels(one.mask, item), True
                same[i, j] = key_hash("object", one.name)
        targets = {PROMPTS: words, OBJECTS: masks, SAME: same}
        marks = {PROMPTS: said, OBJECTS: known, SAME: said.any(2)}
        return replace(
            batch, targets={k: torch.from_numpy(v) for k, v in targets.items()},
            known={k: torch.from_numpy(v) for k, v in marks.items()},
        )  # fmt: skip

    @property
    def use(self) -> Use:
        """The picture field."""
        return next(iter(self.fields.values()))

    @property
    def grid(self) -> GridEncode:
        """How its picture becomes pixels."""
        assert isinstance(self.use.encode, GridEncode)
        return self.use.encode

    def asked(self, record: Record, epoch: int) -> list[Asked]:
        """What a visit asks for; nothing where the picture is absent."""
        if record.first(*self.use.roles) is None:
            return []
        rng = generator(self.seed, epoch, record.id, PROMPTS)
        found = self.labelled(record)
        there = [n for n, m in found.items() if m.any()]
        gone = [n for n, m in found.items() if not m.any()]
        pick = [there[i] for i in rng.permutation(len(there))[: self.most]]
        pick += [gone[i] for i in rng.permutation(len(gone))[: min(self.absent, self.most - len(pick))]]
        made = []
        for name in pick:
            ways = self.ontology.prompts(name, *place(record))
            made.append(Asked(name, ways[int(rng.integers(len(ways)))], found[name]))
        return made

    def labelled(self, record: Record) -> dict[str, NDArray[np.bool_]]:
        """Object -> mask (H, W) of what the record says of the ontology's objects; several regions of one are one."""
        names, made = set(self.ontology.names), dict[str, NDArray[np.bool_]]()
        roots = {r.split("/")[0] for r in self.use.roles}
        for region in record.regions:
            if region.shape == "mask" and region.label in names and region.role.split("/")[0] in roots:
                mask = plain(region.data, record.id)
                before = made.get(region.label)
                made[region.label] = mask if before is None else before | mask
        return made

    def ids(self, text: str) -> NDArray[np.int64]:
        """Token ids of a prompt; one that is empty or too long is refused, never cut.

        Errors: `Refused("prompt_empty" | "prompt_length")`.
        """
        assert self.words is not None
        if not text.strip():
            raise Refused("prompt_empty", "a prompt without words")
        ids = np.asarray(self.words.tokenizer.encode(text).ids, np.int64)
        if len(ids) > self.words.length:
            raise Refused("prompt_length", f"a prompt of {len(ids)} tokens, the model reads {self.words.length}: "
                          f"{text[:60]!r}")  # fmt: skip
        return ids

    def only(self, *names: str) -> PromptCollate:
        """Itself: there is one field, and prompts cost nothing where no region is."""
        if set(names) - set(self.fields):
            raise UsageError(f"no field {names[0]!r}; there are {', '.join(self.fields)}")
        return self

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        assert self.words is not None
        return {
            **Collate.to_json(self), "ontology": self.ontology.to_json(), "words": self.words.to_json(),
            "most": self.most, "absent": self.absent,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PromptCollate:
        """The inverse of `to_json`."""
        if data.get("version") != 1:
            raise UsageError(f"collate settings are of version {data.get('version')!r}; this library reads version 1")
        fields = {n: Use(tuple(u["roles"]), _encode(u["encode"]), u["most"]) for n, u in data["fields"].items()}
        return cls(
            fields, tuple(data["targets"]), tuple(data["keys"]), data["seed"],
            ontology=Ontology.from_json(data["ontology"]), words=TextEncode.from_json(data["words"]),
            most=data["most"], absent=data["absent"],
        )  # fmt: skip


def _encode(data: Mapping[str, Any]) -> Any:
    kinds = {"grid": GridEncode, "stretch": StretchEncode}
    return kinds[data["type"]].from_json(data) if data.get("type") in kinds else from_json(data)


def plain(mask: NDArray[Any], where: str) -> NDArray[np.bool_]:
    """A mask as bool: of 0 and one other value, 1 or 255. Others are a label map or a grey border, and refused."""
    if mask.dtype == bool:
        return mask
    odd = sorted({float(v) for v in np.unique(mask)} - {0.0, 1.0, 255.0})
    values = set(np.unique(mask).tolist())
    if odd or len(values - {0}) > 1:
        raise Refused("mask_values", f"record {where!r}: a mask holds {sorted(values)[:5]}; wanted 0 and 1, or 0 and "
                      "255: threshold it, or split its labels, when it is read")  # fmt: skip
    return np.asarray(mask != 0)


__all__ = ["OBJECTS", "PROMPTS", "SAME", "Asked", "PromptCollate", "phrase", "plain"]
