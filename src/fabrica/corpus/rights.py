"""What may be done with a record, answered with the reason; the rights of what is made of several.

    may(record, "train_commercial")   -> Answer(allowed=False, reason="non_commercial", ...)
    join(scan.rights, report.rights)  -> the strictest of both

`Rights.consent` is read as NAME[:SCOPE[,SCOPE]]: "v2", "v2:research", "broad:research,commercial,share"; "withdrawn"
(or "withdrawn 2024-05-01") ends every use. Without scopes a consent limits nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

from fabrica.corpus.terms import alternatives, canonical, family, strictest, terms_of
from fabrica.errors import unknown
from fabrica.types import Origin, Record, Rights

if TYPE_CHECKING:
    from fabrica.corpus.store import Corpus

Use = Literal["train_commercial", "train_research", "redistribute", "share_ids"]
USES: tuple[Use, ...] = get_args(Use)
_SCOPE: Mapping[str, str] = {"train_commercial": "commercial", "train_research": "research", "redistribute": "share"}
_ACCESS = ("open", "credentialed", "restricted")
_SHARE = ("full", "ids_only", "none")
_READING = frozenset({"fetched", "frames", "first_frame", "first_page", "exif_upright", "tifffile", "imagecodecs"})
OK = "ok"
REASONS: Mapping[str, str] = {
    OK: "permitted by the licence, the consent and the source's terms",
    "consent_withdrawn": "consent was withdrawn: no use is left",
    "consent_scope": "the consent names its purposes, and this is none of them",
    "share_none": "the source forbids passing on anything, ids included",
    "share_ids_only": "the source lets ids be passed on, not content",
    "access": "access is credentialed or restricted: who wants it asks the source",
    "licence_unknown": "no licence is stated",
    "licence_not_listed": "the licence's name is not in the table of known terms",
    "non_commercial": "the licence excludes commercial use",
    "no_derivatives": "the licence excludes derived works",
    "no_training": "the terms do not permit training models",
    "no_redistribution": "the terms do not permit passing it on",
    "share_alike_conflict": "two of its licences ask for terms that exclude each other",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """Yes or no, the reason code (`REASONS` says it in words) and the licence that decided it."""

    allowed: bool
    reason: str
    licence: str

    @property
    def why(self) -> str:
        """The reason in words."""
        return REASONS[self.reason]


# ---------------------------------------------------------------- one record


def licence_of(record: Record) -> str:
    """The strictest of the record's own licence and those of everything in it; "" where something has none.

    An item without a licence of its own has the record's.
    """
    said = {canonical(o.licence) for o in _origins(record)}
    own = canonical(record.rights.licence)
    if own or not said:
        said = (said - {""}) | {own}
    return strictest(sorted(said))


def may(record: Record, use: Use) -> Answer:
    """Whether a record may be used so. Whatever is not known is a no.

    >>> o = Origin("demo", "a", "", "CC-BY-NC-4.0")
    >>> r = Record("r", "p", rights=Rights("CC-BY-NC-4.0"))
    >>> may(r, "train_research").allowed, may(r, "train_commercial").reason
    (True, 'non_commercial')
    """
    if use not in USES:
        raise unknown("use", use, USES)
    rights, licence = record.rights, licence_of(record)
    withdrawn, scopes = consent(rights.consent)[1:]
    if withdrawn:
        return Answer(False, "consent_withdrawn", licence)
    if use in _SCOPE and scopes is not None and _SCOPE[use] not in scopes:
        return Answer(False, "consent_scope", licence)
    if rights.share == "none" and use in ("share_ids", "redistribute"):
        return Answer(False, "share_none", licence)
    if use == "share_ids":
        return Answer(True, OK, licence)
    if use == "redistribute" and rights.share != "full":
        return Answer(False, "share_ids_only", licence)
    if use == "redistribute" and rights.access != "open":
        return Answer(False, "access", licence)
    return _of_licence(licence, use, use == "redistribute" and derived(record))


@lru_cache(maxsize=4096)
def _of_licence(licence: str, use: Use, changed: bool) -> Answer:
    reasons = [_forbids(one, use, changed) for one in alternatives(licence)]
    best = OK if None in reasons else str(reasons[0])
    return Answer(best == OK, best, licence)


def _forbids(names: tuple[str, ...], use: Use, changed: bool) -> str | None:
    """Why licences that hold together forbid a use; None where they do not."""
    found = {name: terms_of(name) for name in names}
    every = next(iter(found.values()))
    for one in found.values():
        every = every & one
    if not every.known:
        return "licence_not_listed" if all(names) else "licence_unknown"
    if use in ("train_commercial", "train_research"):
        if not every.training:
            return "no_training"
        if use == "train_commercial" and not every.commercial:
            return "non_commercial"
        return "no_derivatives" if use == "train_commercial" and not every.derivatives else None
    if not every.redistribution:
        return "no_redistribution"
    if every.credentialed:
        return "access"
    if not every.derivatives and changed:
        return "no_derivatives"
    alike = {family(n) for n, t in found.items() if t.share_alike}
    clash = len(alike) > 1 or (alike and any(
        family(n) not in alike and not (t.commercial and t.derivatives)
        for n, t in found.items()
    ))  # fmt: skip
    return "share_alike_conflict" if clash else None


def derived(record: Record) -> bool:
    """Whether anything in the record was changed or made since it was read; decoding a file is no change."""
    if any(link.rel == "derived_from" for link in record.links):
        return True
    return any(o.by == "model" or set(o.steps) - _READING for o in _origins(record))


def _origins(record: Record) -> Iterator[Origin]:
    for items in record.items.values():
        yield from (item.origin for item in items)
    yield from (region.origin for region in record.regions)


@lru_cache(maxsize=4096)
def consent(text: str) -> tuple[tuple[str, ...], bool, frozenset[str] | None]:
    """(names, whether withdrawn, scopes or None) of `Rights.consent`.

    >>> consent("v2:research"), consent("withdrawn 2024-05-01")[1], consent("")
    ((('v2',), False, frozenset({'research'})), True, ((), False, None))
    """
    name, colon, scopes = text.partition(":")
    names = tuple(sorted({n.strip() for n in name.split("+") if n.strip()}))
    withdrawn = any(n.lower().split()[0] == "withdrawn" for n in names)
    return names, withdrawn, frozenset(s.strip() for s in scopes.split(",") if s.strip()) if colon else None


# ---------------------------------------------------------------- several


def join(*rights: Rights) -> Rights:
    """The rights of what is made of records with these: the strictest licence, access and sharing, the scopes that all
    consents have in common, every attribution. Order and repetition change nothing; of nothing: `Rights()`.

    >>> join(Rights("CC-BY-4.0", share="full"), Rights("CC-BY-NC-4.0", share="ids_only")).licence
    'CC-BY-NC-4.0'
    """
    if not rights:
        return Rights()
    said = [consent(r.consent) for r in rights]
    names = sorted({n for one, _, _ in said for n in one})
    limits = [scopes for _, _, scopes in said if scopes is not None]
    scope = f":{','.join(sorted(frozenset.intersection(*limits)))}" if limits else ""
    return Rights(
        strictest([r.licence for r in rights]),
        max((r.access for r in rights), key=_ACCESS.index),
        max((r.share for r in rights), key=_SHARE.index),
        "withdrawn" if any(gone for _, gone, _ in said) else "+".join(names) + scope,
        "; ".join(sorted({a.strip() for r in rights for a in r.attribution.split(";") if a.strip()})),
    )


@dataclass(frozen=True, slots=True)
class Audit:
    """Answers of a corpus for one use: `yes`, and `no` by reason; both by licence and reason in `by_licence`."""

    use: Use
    records: int
    yes: int
    no: Mapping[str, int]
    by_licence: Mapping[str, Mapping[str, int]]


def answers(corpus: Corpus, use: Use, where: str | None = None) -> Iterator[tuple[Record, Answer]]:
    """Every record that `where` takes, with its answer."""
    for record in corpus.scan(where):
        yield record, may(record, use)


def audit(found: Iterable[Answer], use: Use) -> Audit:
    """Answers counted."""
    counts: Counter[tuple[str, str]] = Counter((a.licence, a.reason) for a in found)
    no: Counter[str] = Counter()
    by: dict[str, dict[str, int]] = {}
    for (licence, reason), n in sorted(counts.items()):
        by.setdefault(licence, {})[reason] = n
        if reason != OK:
            no[reason] += n
    total = sum(counts.values())
    return Audit(use, total, total - sum(no.values()), dict(sorted(no.items())), by)
