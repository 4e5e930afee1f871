"""Yes/no questions from an image's facts, each with a twin about a value that is false (ProbMed, arXiv 2405.20421).

Five dimensions from general to special: modality, organ, abnormality (any?), condition, position. A true value gives a
question whose answer is yes and a twin of the same wording whose answer is no; an answerer sees something only if it
tells the two apart. Facts come from a record: groups "modality" and "organ", labels of conditions, regions of places.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fabrica.errors import UsageError, unknown
from fabrica.text.lexicon import FINDINGS, Names
from fabrica.types import Absent, Drop, Item, Link, Origin, Record, Region, record_id

DIMENSIONS = ("modality", "organ", "abnormality", "condition", "position")
WORDING: Mapping[str, str] = {
    "modality": "Is this image taken by {value}?",
    "organ": "Does this image show the {value}?",
    "abnormality": "Is there any abnormality in this image?",
    "condition": "Is there {value} in this image?",
    "position": "Is the {about} located in the {value}?",
}
VERSION = "probing-1"  # of wording and construction
OPTIONS = ("yes", "no")
Dims = Mapping[str, Sequence[str]]  # dimension -> the values that twins are drawn from
Unlisted = Literal["unknown", "absent"]
_OWN = ("dimension", "probe", "pair", "of", "value", "about", "record")  # groups of a question's record


@dataclass(frozen=True, slots=True)
class Probe:
    """One question. `gold` True is yes. Questions of one `pair` (of a record and dimension) belong together, `of` says
    how many there are: a fact and its twins, or 1 where there is no twin. `groups` are the record's."""

    id: str
    record: str
    subject: str
    dimension: str
    kind: Literal["fact", "twin"]
    pair: str
    of: int
    text: str
    gold: bool
    value: str
    about: str = ""  # of a place: the condition
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def cell(self) -> str:
        """Modality and organ, as the tables are split."""
        return " x ".join(v for v in (self.groups.get("modality", ""), self.groups.get("organ", "")) if v)


@dataclass(frozen=True, slots=True)
class Related:
    """Says why a false value may not stand for a true one: "" if it may, else "same" (synonyms by `names`, by default
    `text.lexicon.FINDINGS`; spelling), "broader" or "narrower" (by `parents`: value -> the values above it, over any
    number of levels).

    >>> related = Related(parents={"pneumonia": ("infection",), "infection": ("disease",)})
    >>> related("collapsed lung", "pneumothorax"), related("pneumonia", "disease"), related("mass", "fracture")
    ('same', 'broader', '')
    """

    names: Names | None = None
    parents: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __call__(self, true: str, false: str) -> str:
        a, b = self.canonical(true), self.canonical(false)
        if a == b:
            return "same"
        return "broader" if b in self._above(a) else "narrower" if a in self._above(b) else ""

    def canonical(self, value: str) -> str:
        """The label that a value is a name of, else the value in plain words."""
        plain = " ".join(value.lower().replace("_", " ").split())
        names = FINDINGS if self.names is None else self.names
        return next((k for k, said in names.items() if plain in said or plain == k.replace("_", " ")), plain)

    def _above(self, value: str) -> set[str]:
        up = {self.canonical(k): [self.canonical(v) for v in of] for k, of in self.parents.items()}
        seen: set[str] = set()
        todo = list(up.get(value, ()))
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                todo += up.get(one, ())
        return seen


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one image. `true`: (dimension, value, about), `about` the condition that a place is of; `false`
    (dimension, about) -> values known not to be; `normal` None = not known."""

    true: tuple[tuple[str, str, str], ...]
    false: Mapping[tuple[str, str], tuple[str, ...]]
    normal: bool | None


def facts_of(record: Record, dims: Dims, *, unlisted: Unlisted = "unknown") -> Facts:
    """The facts of a record within `dims`. A condition without a label is neither true nor false, unless `unlisted`
    says "absent" (as where a list of findings is taken for complete). Modality and organ exclude each other's values.

    Places are read from the text of a region that bears a condition's label, else from where it lies in its image
    (side and third of the image as it is seen).
    """
    true: list[tuple[str, str, str]] = []
    false: dict[tuple[str, str], tuple[str, ...]] = {}
    for name in ("modality", "organ"):
        own = record.groups.get(name, "")
        if own in dims.get(name, ()):
            true.append((name, own, ""))
            false[name, ""] = tuple(v for v in dims[name] if v != own)
    said = {v: _label(record, v, unlisted) for v in dims.get("condition", ())}
    there = [v for v, there in said.items() if there]
    true += [("condition", v, "") for v in there]
    false["condition", ""] = tuple(v for v, there in said.items() if there is False)
    for about in there:
        places = _places(record, about, dims.get("position", ()))
        true += [("position", place, about) for place in places]
        if places:
            false["position", about] = tuple(v for v in dims["position"] if v not in places)
    whole = bool(said) and all(v is not None for v in said.values())
    return Facts(tuple(true), false, False if there else True if whole else None)


def _label(record: Record, name: str, unlisted: Unlisted) -> bool | None:
    value = record.labels.get(name)
    if value is None:
        return False if unlisted == "absent" else None
    return None if isinstance(value, Absent) else value >= 0.5


def _places(record: Record, about: str, known: Sequence[str]) -> list[str]:
    if not known:
        return []
    found = (place_of(r, record, known) for r in record.regions if r.label == about)
    return list(dict.fromkeys(place for place in found if place))


def place_of(region: Region, record: Record, known: Sequence[str]) -> str:
    """Which of `known` places a region is in: named by its text (the longest name), else "left upper" ... "right lower"
    from its centre; "" where neither is known."""
    if region.text:
        low = region.text.lower()
        named = [v for v in known if v.lower() in low]
        if named:
            return max(named, key=len)
    items = record.items.get(region.role, ())
    if region.index >= len(items) or not isinstance(items[region.index].value, np.ndarray):
        return ""
    height, width = items[region.index].array().shape[:2]
    x, y = _centre(region)
    place = f"{'left' if x < width / 2 else 'right'} {('upper', 'middle', 'lower')[min(2, int(3 * y / height))]}"
    return place if place in known else ""


def _centre(region: Region) -> tuple[float, float]:
    """(x, y) in pixels."""
    data = np.asarray(region.data)
    if region.shape == "box":
        return float(data[0] + data[2]) / 2, float(data[1] + data[3]) / 2
    if region.shape == "mask":
        rows, columns = np.nonzero(data)[:2]
        return (float(columns.mean()), float(rows.mean())) if len(rows) else (0.0, 0.0)
    points = data.reshape(-1, data.shape[-1])[:, :2].mean(0)
    return float(points[0]), float(points[1])


def statements(record: Record, dims: Dims, *, unlisted: Unlisted = "unknown") -> dict[str, float]:
    """Every statement that a question may make of a record, true 1.0 or false 0.0, by `statement` name: what a
    classifier learns that is to be asked. Unknown ones are left out; a condition that is absent is in no place.

    >>> made = Record("r", "p", labels={"mass": 1.0, "fracture": 0.0})
    >>> statements(made, {"condition": ("mass", "fracture"), "abnormality": ()})
    {'abnormality': 1.0, 'condition/mass': 1.0, 'condition/fracture': 0.0}
    """
    facts = facts_of(record, dims, unlisted=unlisted)
    made: dict[str, float] = {}
    if "abnormality" in dims and facts.normal is not None:
        made["abnormality"] = float(not facts.normal)
    made |= {statement(*fact): 1.0 for fact in facts.true}
    for (name, about), values in facts.false.items():
        made |= {statement(name, v, about): 0.0 for v in values}
    for about in facts.false.get(("condition", ""), ()):
        made |= {statement("position", v, about): 0.0 for v in dims.get("position", ())}
    return made


def statement(dimension: str, value: str, about: str = "") -> str:
    """The name of a statement, as labels are called.

    >>> statement("position", "left upper", "mass"), statement("abnormality", "")
    ('position/mass/left upper', 'abnormality')
    """
    return "/".join(part for part in (dimension, about, value) if part)


# ---------------------------------------------------------------- questions


def twins(
    records: Iterable[Record], dims: Dims, *, per_fact: int = 1, seed: int = 0, related: Related | None = None,
    unlisted: Unlisted = "unknown", rejected: Counter[str] | None = None,
) -> Iterator[Probe]:  # fmt: skip
    """The questions of each record, in the order of DIMENSIONS; `dims` names the dimensions to ask about and the values
    that `per_fact` twins a fact are drawn from. Draws depend on `seed` and the record alone.

    Abnormality has one question; a normal image one about a condition (that it lacks) and none about places. `related`
    rejects false values that are another word for a true one, or above or below it; `rejected` counts those by reason,
    and facts left out because no false value remained ("no_twin"). A record that nothing is known of is an error.

    >>> made = Record("r", "p", {"modality": "CT", "organ": "brain"}, labels={"mass": 1.0, "fracture": 0.0})
    >>> dims = {"modality": ("CT", "MRI"), "condition": ("mass", "fracture")}
    >>> [(p.text, p.gold) for p in twins([made], dims)][1:3]
    [('Is this image taken by MRI?', False), ('Is there mass in this image?', True)]
    """
    check(dims, per_fact)
    related, rejected, seen = related or Related(), Counter() if rejected is None else rejected, set[str]()
    for record in records:
        known = facts_of(record, dims, unlisted=unlisted)
        made = _Maker(record, per_fact, random.Random(f"{seed}/{record.id}"), related, rejected)
        probes = list(made.all(known, dims))
        if not probes:
            raise UsageError(f"record {record.id!r}: nothing is known of {', '.join(dims)}; no question can be asked")
        if record.id in seen:
            raise UsageError(f"record {record.id!r} stands twice: its questions would have one id")
        seen.add(record.id)
        yield from probes


def check(dims: Dims, per_fact: int) -> None:
    """That `dims` names dimensions, each with values enough for a twin."""
    for name, values in dims.items():
        if name not in DIMENSIONS:
            raise unknown("dimension", name, DIMENSIONS)
        if name != "abnormality" and len(set(values)) < 2:
            raise UsageError(f"dimension {name!r} has the values {list(values)}: no twin is possible with fewer than 2")
    if per_fact < 1 or not dims:
        raise UsageError(f"per_fact={per_fact}, dimensions {list(dims)}: wanted 1 or more of both")


@dataclass(slots=True)
class _Maker:
    """Makes the questions of one record."""

    record: Record
    per_fact: int
    rng: random.Random
    related: Related
    rejected: Counter[str]

    def all(self, facts: Facts, dims: Dims) -> Iterator[Probe]:
        for name in DIMENSIONS:
            if name not in dims:
                continue
            if name == "abnormality":
                if facts.normal is not None:
                    yield self._one(name, "fact", "0", 1, not facts.normal, "")
                continue
            if name == "condition" and facts.normal:
                wrong = self.rng.choice(facts.false[name, ""])
                yield self._one(name, "twin", "0", 1, False, wrong)
                continue
            yield from self._pairs(name, facts)

    def _pairs(self, name: str, facts: Facts) -> Iterator[Probe]:
        mine = [(value, about) for dimension, value, about in facts.true if dimension == name]
        used: set[tuple[str, str]] = set()
        for n, (value, about) in enumerate(mine):
            others = [v for v, of in mine if of == about]
            pool = [v for v in facts.false.get((name, about), ()) if self._may(others, v)]
            fresh = [v for v in pool if (v, about) not in used]
            wrong = self.rng.sample(fresh if len(fresh) >= self.per_fact else pool, min(self.per_fact, len(pool)))
            if not wrong:
                self.rejected["no_twin"] += 1
                continue
            used |= {(v, about) for v in wrong}
            yield self._one(name, "fact", str(n), 1 + len(wrong), True, value, about)
            for k, v in enumerate(wrong):
                pair = str(n)
                yield self._one(name, "twin", pair, 1 + len(wrong), False, v, about, f"{n}.{k}" if k else pair)

    def _may(self, true: Sequence[str], false: str) -> bool:
        why = next((w for t in true if (w := self.related(t, false))), "")
        if why:
            self.rejected[why] += 1
        return not why

    def _one(
        self, name: str, kind: Literal["fact", "twin"], pair: str, of: int, gold: bool, value: str, about: str = "",
        number: str = "",
    ) -> Probe:  # fmt: skip
        said = WORDING[name].format(value=value.replace("_", " "), about=about.replace("_", " "))
        return Probe(
            f"{self.record.id}/{name}/{kind}/{number or pair}", self.record.id, self.record.subject, name, kind, pair,
            of, said, gold, value, about, dict(self.record.groups),
        )  # fmt: skip


# ---------------------------------------------------------------- as records


@dataclass(kw_only=True)
class Twins:
    """A step: image records become records of questions (`as_record`), for a corpus that any VQA model reads.

    Settings as in `twins`. Left out: "no_facts".
    """

    dims: Dims
    per_fact: int = 1
    seed: int = 0
    related: Related = field(default_factory=Related)
    unlisted: Unlisted = "unknown"
    name: str = field(default="twins", init=False)
    version: str = field(default=VERSION, init=False)

    def __post_init__(self) -> None:
        check(self.dims, self.per_fact)

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """One record a question."""
        for record in records:
            made = _Maker(record, self.per_fact, random.Random(f"{self.seed}/{record.id}"), self.related, Counter())
            probes = list(made.all(facts_of(record, self.dims, unlisted=self.unlisted), self.dims))
            if not probes:
                drop(record, "no_facts")
            yield from (as_record(probe, record) for probe in probes)


def as_record(probe: Probe, record: Record) -> Record:
    """A question in the layout of `sources.questions` (items question, option; label `answer` = place of the option),
    with the image and what `Probe` holds as groups."""
    about = Origin("probing", probe.id, "", "", by="synthetic", steps=(VERSION,))
    items = {role: of for role, of in record.items.items() if any(i.kind == "image" for i in of)}
    items |= {
        "question": (Item("text", probe.text, about),),
        "option": tuple(Item("text", option, about) for option in OPTIONS),
    }
    groups = {
        **record.groups, "dimension": probe.dimension, "probe": probe.kind, "pair": probe.pair, "of": str(probe.of),
        "value": probe.value, "about": probe.about, "record": record.id,
    }  # fmt: skip
    return Record(
        record_id("probing", probe.id), record.subject, groups, items, labels={"answer": 0.0 if probe.gold else 1.0},
        links=(Link("derived_from", record.id),), rights=record.rights, split=record.split,
    )  # fmt: skip


def of_record(record: Record) -> Probe:
    """The inverse of `as_record`, but for the id, which is the record's. `UsageError` where the answer is not one of
    yes and no."""
    said, answer, g = record.first("question"), record.labels.get("answer"), record.groups
    lost = [k for k in _OWN if k not in g]
    if said is None or lost:
        raise UsageError(f"record {record.id!r} is no probing question: it lacks {', '.join(lost) or 'a question'}")
    if isinstance(answer, Absent) or answer not in (0.0, 1.0):
        raise UsageError(f"record {record.id!r}: the answer is {answer!r}; wanted 0 (yes) or 1 (no)")
    kind: Literal["fact", "twin"] = "twin" if g["probe"] == "twin" else "fact"
    rest = {k: v for k, v in g.items() if k not in _OWN}
    return Probe(
        record.id, g["record"], record.subject, g["dimension"], kind, g["pair"], int(g["of"]), said.text(),
        answer == 0.0, g["value"], g["about"], rest,
    )  # fmt: skip
