"""Licences as a lattice: what each permits, read from SPDX ids, expressions and the names that sources give.

Not legal advice: a table of what the licences' own words permit, with every doubt taken as "no".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Terms:
    """What a licence permits (`commercial` use, `derivatives`, `redistribution`, `training` of models) and asks for
    (`attribution`, `share_alike` under the same terms, `credentialed` access). All "no" where it is not known."""

    commercial: bool = False
    derivatives: bool = False
    redistribution: bool = False
    training: bool = False
    share_alike: bool = False
    attribution: bool = True
    credentialed: bool = False
    known: bool = False

    def __and__(self, other: Terms) -> Terms:
        """The terms of what is made of both: every permission of both, every duty of either."""
        return Terms(
            commercial=self.commercial and other.commercial,
            derivatives=self.derivatives and other.derivatives,
            redistribution=self.redistribution and other.redistribution,
            training=self.training and other.training,
            share_alike=self.share_alike or other.share_alike,
            attribution=self.attribution or other.attribution,
            credentialed=self.credentialed or other.credentialed,
            known=self.known and other.known,
        )

    def __le__(self, other: Terms) -> bool:
        """Whether these are at least as strict as `other` in everything."""
        return (self & other) == self


UNKNOWN = Terms()
_FREE = Terms(True, True, True, True, attribution=False, known=True)
_BY = replace(_FREE, attribution=True)
_SA = replace(_BY, share_alike=True)
_RESEARCH = Terms(derivatives=True, training=True, known=True)  # not passed on, not for profit
_AGREEMENT = replace(_RESEARCH, credentialed=True)

NAMED: Mapping[str, Terms] = {
    **dict.fromkeys(
        ("CC0-1.0", "CC-PDM-1.0", "CC-PDDC", "PDDL-1.0", "Unlicense", "0BSD", "public domain"), _FREE,
    ),
    **dict.fromkeys(
        ("MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC", "Zlib", "ODC-By-1.0",
         "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "OGL-UK-3.0", "Etalab-2.0",
         "NIH-CXR14 (free use with attribution)"), _BY,
    ),
    **dict.fromkeys(
        ("ODbL-1.0", "CDLA-Sharing-1.0", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later",
         "AGPL-3.0-only", "AGPL-3.0-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later", "MPL-2.0"), _SA,
    ),
    **dict.fromkeys(
        ("in-house", "NLM PubMed terms", "UCR archive (citation asked; no licence given)", "research only",
         "VinBigData competition terms (non-commercial)", "RSNA pneumonia challenge terms (non-commercial)",
         "SIIM-ACR challenge terms (non-commercial)"), _RESEARCH,
    ),
    **dict.fromkeys(
        ("PhysioNet Credentialed Health Data License 1.5.0", "PhysioNet Restricted Health Data License 1.5.0",
         "PhysioNet Contributor Review Health Data License 1.5.0", "CheXpert research use agreement",
         "SNOMED CT affiliate licence", "UMLS Metathesaurus licence", "data use agreement"), _AGREEMENT,
    ),
    "all rights reserved": Terms(known=True),
}  # fmt: skip
_BY_LOW = {name.lower(): name for name in NAMED}
_ALIASES: Mapping[str, str] = {
    "cc0": "CC0-1.0", "odbl": "ODbL-1.0", "odc-by": "ODC-By-1.0", "odc by 1.0": "ODC-By-1.0", "mit license": "MIT",
    "apache 2.0": "Apache-2.0", "apache license 2.0": "Apache-2.0", "bsd": "BSD-3-Clause", "bsd-3": "BSD-3-Clause",
    "gpl-3.0": "GPL-3.0-only", "gpl-2.0": "GPL-2.0-only", "publicdomain": "public domain",
    "proprietary": "all rights reserved",
}  # fmt: skip
_CC = re.compile(r"cc[ -]by((?:[ -](?:nc|sa|nd))*)(?:[ -]v?(\d(?:\.\d)?))?(?:[ -][a-z]{2,5})?", re.I)
_CC_URL = re.compile(r"https?://creativecommons\.org/(licenses/(by[a-z-]*)|publicdomain/(zero|mark))/(\d\.\d).*", re.I)


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """A licence's usual name: SPDX where it is known, else the words as they are, white space folded.

    >>> canonical("cc by-nc 4.0"), canonical("https://creativecommons.org/licenses/by-sa/3.0/")
    ('CC-BY-NC-4.0', 'CC-BY-SA-3.0')
    """
    said = " ".join(name.split())
    if found := _CC_URL.fullmatch(said):
        family = {"zero": "CC0", "mark": "CC-PDM"}.get((found[3] or "").lower()) or f"CC-{found[2].upper()}"
        return f"{family}-{found[4]}"
    if found := _CC.fullmatch(said):
        parts = sorted({p.upper() for p in re.split("[ -]", found[1]) if p}, key=("NC", "SA", "ND").index)
        return "-".join(["CC-BY", *parts, *([found[2]] if found[2] else [])])
    low = said.lower()
    return _BY_LOW.get(low) or _ALIASES.get(low) or said


@lru_cache(maxsize=4096)
def family(name: str) -> str:
    """The licence without its version: versions of one share-alike licence may be mixed.

    >>> family("CC-BY-SA-4.0"), family("ODbL-1.0")
    ('CC-BY-SA', 'ODbL')
    """
    return re.sub(r"-\d[\d.]*(-only|-or-later)?$", "", canonical(name))


@lru_cache(maxsize=4096)
def terms_of(name: str) -> Terms:
    """The terms of one licence, not of an expression; `UNKNOWN` for "" and for names that are not known."""
    known = canonical(name)
    if known in NAMED:
        return NAMED[known]
    if found := _CC.fullmatch(known):
        parts = set(re.split("[ -]", found[1].upper()))
        return replace(
            _BY, commercial="NC" not in parts, derivatives="ND" not in parts, share_alike="SA" in parts,
        )  # fmt: skip
    return UNKNOWN


# ---------------------------------------------------------------- expressions


@lru_cache(maxsize=4096)
def alternatives(expression: str) -> tuple[tuple[str, ...], ...]:
    """An SPDX expression as the sets of licences of which one may be chosen; all of a set hold together.

    >>> alternatives("CC-BY-4.0 AND (MIT OR Apache-2.0)")
    (('CC-BY-4.0', 'MIT'), ('Apache-2.0', 'CC-BY-4.0'))
    """
    text = expression.strip()
    if canonical(text) in NAMED or not text:
        return ((canonical(text),),)
    either = _split(text, " OR ")
    if len(either) > 1:
        return tuple(dict.fromkeys(one for part in either for one in alternatives(part)))
    both = _split(text, " AND ")
    if len(both) > 1:
        out: list[tuple[str, ...]] = [()]
        for part in both:
            out = [(*held, *one) for held in out for one in alternatives(part)][:64]
        return tuple(dict.fromkeys(tuple(sorted(set(one))) for one in out))
    if text.startswith("(") and _closing(text) == len(text) - 1 and len(text) > 2:
        return alternatives(text[1:-1])
    return ((canonical(text.partition(" WITH ")[0]),),)


def _closing(text: str) -> int:
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return i
    return -1


def _split(text: str, word: str) -> list[str]:
    """Cut at a word outside of parentheses."""
    parts, depth, at = [], 0, 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0 and text.startswith(word, i):
            parts.append(text[at:i])
            at = i + len(word)
    return [*parts, text[at:]]


def strictest(names: Iterable[str]) -> str:
    """The licence of what is made of works under `names`: the strict ones of them, joined by AND; "" as soon as one
    says nothing.

    >>> strictest(["CC0-1.0", "CC-BY-4.0", "CC-BY-NC-4.0"]), strictest(["CC-BY-NC-4.0", "CC-BY-SA-4.0"])
    ('CC-BY-NC-4.0', 'CC-BY-NC-4.0 AND CC-BY-SA-4.0')
    >>> strictest(["CC-BY-4.0", ""])
    ''
    """
    return _strictest(tuple(sorted(set(names))))


@lru_cache(maxsize=4096)
def _strictest(names: tuple[str, ...]) -> str:
    leaves: set[str] = set()
    for name in names:
        leaves.update(_operands(name))
    if not leaves or "" in leaves:
        return ""
    strict = {a: _all(a) for a in leaves}

    def covered(a: str, b: str) -> bool:
        """Whether b asks for all that a does: share-alike asks for its own licence, so no other covers it."""
        same = not strict[a].share_alike or family(a) == family(b)
        return same and strict[b] <= strict[a] and strict[b] != strict[a]

    kept = [a for a in leaves if not any(covered(a, b) for b in leaves)]
    return " AND ".join(sorted(kept))


def _operands(expression: str) -> list[str]:
    """What holds together in an expression; a choice is one thing, in parentheses."""
    text = expression.strip()
    if canonical(text) in NAMED or not text:
        return [canonical(text)]
    if len(_split(text, " OR ")) > 1:
        choices = sorted(alternatives(text))
        return ["(" + " OR ".join(c[0] if len(c) == 1 else f"({' AND '.join(c)})" for c in choices) + ")"]
    both = _split(text, " AND ")
    if len(both) > 1:
        return [leaf for part in both for leaf in _operands(part)]
    if text.startswith("(") and _closing(text) == len(text) - 1 and len(text) > 2:
        return _operands(text[1:-1])
    return list(alternatives(text)[0])


def _all(expression: str) -> Terms:
    """The terms that hold whichever alternative is chosen."""
    found: Terms | None = None
    for one in alternatives(expression):
        for name in one:
            found = terms_of(name) if found is None else found & terms_of(name)
    return found or UNKNOWN
