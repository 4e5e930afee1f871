"""What may be asked for by name: objects, their synonyms, and in which images (modality, anatomy) they can be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fabrica.errors import UsageError, unknown
from fabrica.types import Record

ANATOMY = "anatomy"  # group of a record: which part of the body the image shows
_SAID: Mapping[str, str] = {"mr": "MR", "ct": "CT", "xray": "X-ray", "oct": "OCT"}  # others as they are


@dataclass(frozen=True, slots=True)
class Thing:
    """An object: its `name`, `synonyms` in any number, and the `places` (modality, anatomy) where it can be."""

    name: str
    places: tuple[tuple[str, str], ...]
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ontology:
    """Objects under one set of names; a name is never taken apart, so it may hold any sign.

    >>> o = Ontology((Thing("retinal vessel", (("fundus", "retina"),), ("blood vessel",)),))
    >>> o.candidates("fundus", "retina"), o.prompts("retinal vessel", "fundus", "retina")[1]
    (('retinal vessel',), 'blood vessel in retina fundus')
    """

    things: tuple[Thing, ...]

    def __post_init__(self) -> None:
        said = [n.casefold() for t in self.things for n in (t.name, *t.synonyms)]
        twice = sorted({n for n in said if said.count(n) > 1})
        if twice or not self.things or not all(n.strip() for n in said):
            raise UsageError(f"an ontology names each object once and none by ''; twice: {', '.join(twice) or 'none'}")

    @property
    def names(self) -> tuple[str, ...]:
        """The objects, in order."""
        return tuple(t.name for t in self.things)

    def thing(self, said: str) -> Thing:
        """The object of a name or synonym, whatever its case."""
        for thing in self.things:
            if said.casefold() in (n.casefold() for n in (thing.name, *thing.synonyms)):
                return thing
        raise unknown("object", said, (n for t in self.things for n in (t.name, *t.synonyms)))

    def candidates(self, modality: str, anatomy: str) -> tuple[str, ...]:
        """What can be in such an image; an error where nothing is known of it."""
        found = tuple(t.name for t in self.things if (modality, anatomy) in t.places)
        if not found:
            places = sorted({f"{m}/{a}" for t in self.things for m, a in t.places})
            raise unknown("modality/anatomy", f"{modality}/{anatomy}", places)
        return found

    def prompts(self, name: str, modality: str, anatomy: str) -> tuple[str, ...]:
        """All ways to ask for an object, its name first."""
        thing = self.thing(name)
        return tuple(phrase(n, modality, anatomy) for n in (thing.name, *thing.synonyms))

    def texts(self) -> list[str]:
        """Every prompt there is: what a vocabulary is made of."""
        return [p for t in self.things for place in t.places or (("", ""),) for p in self.prompts(t.name, *place)]

    @classmethod
    def of(cls, records: Iterable[Record]) -> Ontology:
        """The mask labels of records as objects without synonyms, and where they were."""
        found: dict[str, set[tuple[str, str]]] = {}
        for record in records:
            for region in record.regions:
                if region.shape == "mask":
                    found.setdefault(region.label, set()).add(place(record))
        return cls(tuple(Thing(n, tuple(sorted(p))) for n, p in sorted(found.items())))

    def to_json(self) -> list[dict[str, Any]]:
        """All of it as plain JSON."""
        return [{"name": t.name, "places": list(map(list, t.places)), "synonyms": list(t.synonyms)}
                for t in self.things]  # fmt: skip

    @classmethod
    def from_json(cls, data: Sequence[Mapping[str, Any]]) -> Ontology:
        """The inverse of `to_json`."""
        return cls(
            tuple(Thing(t["name"], tuple((m, a) for m, a in t["places"]), tuple(t["synonyms"])) for t in data)
        )  # fmt: skip


def place(record: Record) -> tuple[str, str]:
    """A record's (modality, anatomy); "" where it does not say."""
    return record.groups.get("modality", ""), record.groups.get(ANATOMY, "")


def phrase(said: str, modality: str, anatomy: str) -> str:
    """The prompt as BiomedParse writes it: "left kidney in abdominal CT".

    >>> phrase("left kidney", "ct", "abdominal"), phrase("nodule", "", "")
    ('left kidney in abdominal CT', 'nodule')
    """
    where = " ".join(w for w in (anatomy, _SAID.get(modality, modality)) if w)
    return f"{said} in {where}" if where else said


MEDICAL = Ontology(
    (
        Thing("retinal vessel", (("fundus", "retina"),), ("blood vessel", "vessel tree")),
        Thing("cell membrane", (("electron microscopy", "neuron"),), ("membrane", "cell border")),
        Thing("right ventricle", (("mr", "heart"),), ("right heart ventricle", "RV cavity")),
        Thing("myocardium", (("mr", "heart"),), ("left ventricular wall", "heart muscle")),
        Thing("left ventricle", (("mr", "heart"),), ("left heart ventricle", "LV cavity")),
        Thing("anterior hippocampus", (("mr", "brain"),), ("head of the hippocampus",)),
        Thing("posterior hippocampus", (("mr", "brain"),), ("body and tail of the hippocampus",)),
        Thing("lungs", (("xray", "chest"),), ("lung fields", "both lungs")),
    )
)
