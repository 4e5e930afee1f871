"""What a clinical text says of its findings: there, denied or uncertain; on which side; now or earlier; of whom.

Rules in the manner of NegEx (Chapman et al. 2001) and ConText (Harkema et al. 2009) with a word list of our own: a
trigger before a mention reaches to the end of its clause, one after it reaches back over the mentions that stand
together, a pseudo-trigger ("no change in") reaches nothing, and words such as "but" end a clause.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from fabrica.text.lexicon import FINDINGS, Names, found

Status = Literal["present", "absent", "uncertain"]
Side = Literal["left", "right", "both", ""]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Mention:
    """One mention: characters `start` to `end` of the text; `side` "" = none said; `historical`: said of an earlier
    time; `other`: said of somebody else (family)."""

    label: str
    start: int
    end: int
    status: Status
    side: Side = ""
    historical: bool = False
    other: bool = False


def mentions(text: str, names: Names = FINDINGS) -> tuple[Mention, ...]:
    """Every finding that `names` knows, in order, with what is said of it.

    >>> [(m.label, m.status, m.side) for m in mentions("No effusion on the left. Possible right pneumonia.")]
    [('effusion', 'absent', 'left'), ('pneumonia', 'uncertain', 'right')]
    """
    spans = list(found(text, names))
    said = judged(text, [(a, b) for _, a, b in spans])
    return tuple(Mention(label, a, b, *what) for (label, a, b), what in zip(spans, said, strict=True))


def statuses(text: str, names: Names = FINDINGS) -> dict[str, Status]:
    """Label -> what the whole text says of it: present where any mention is, else uncertain, else absent. A label that
    is not mentioned is not in it; nor is one that is said of others or of an earlier time alone.

    >>> statuses("No cavity. Cannot exclude effusion; there is a small mass.")
    {'cavity': 'absent', 'effusion': 'uncertain', 'mass': 'present'}
    """
    rank = {"absent": 0, "uncertain": 1, "present": 2}
    out: dict[str, Status] = {}
    for m in mentions(text, names):
        if not (m.historical or m.other) and rank[m.status] >= rank[out.get(m.label, "absent")]:
            out[m.label] = m.status
    return out


def judged(text: str, spans: Sequence[Span]) -> list[tuple[Status, Side, bool, bool]]:
    """(status, side, historical, other) of given spans, which may be any phrases; spans in order of start."""
    low = text.lower()
    masked = list(low)
    for a, b in spans:  # words inside a mention are no triggers
        masked[a:b] = "#" * (b - a)
    plain = "".join(masked)
    out: dict[int, tuple[Status, Side, bool, bool]] = {}
    for a, b in sentences(plain):
        here = [i for i, (s, _) in enumerate(spans) if a <= s < b]
        if here:
            _sentence(plain, (a, b), here, spans, out)
    return [out[i] for i in range(len(spans))]


def sentences(text: str) -> Iterator[Span]:
    """(start, end) of sentences: at . ! ? before a blank, at empty lines, and before list marks and "HEADING:".

    >>> [("No mass. 1.5 cm cyst."[a:b]) for a, b in sentences("No mass. 1.5 cm cyst.")]
    ['No mass.', ' 1.5 cm cyst.']
    """
    start = 0
    for cut in _BREAK.finditer(text):
        if cut.end() > start:
            yield start, cut.end()
            start = cut.end()
    if start < len(text):
        yield start, len(text)


_BREAK = re.compile(
    r"(?<!\bdr)(?<!\bmr)(?<!\bmrs)(?<!\bvs)(?<!\be\.g)(?<!\bi\.e)(?<!\bp\.o)(?<!\b[a-z]\.[a-z])[.!?](?=\s|$)"
    r"|\n\s*\n|\n(?=\s*(?:[-*•]|\d+[.)])\s)|\n(?=[a-z ]{2,30}:)|\n\s*$"
)


def _words(text: str) -> str:
    """Alternatives separated by ";", a blank being any run of blanks; longest first."""
    parts = [" ".join(p.split()) for p in text.split(";") if p.strip()]
    return "|".join(p.replace(" ", r"\s+") for p in sorted(parts, key=len, reverse=True))


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{_words(text)})(?![\w-])")


_PSEUDO = _pattern(
    r"no (?:\w+ ){0,2}(?:change|increase|decrease|improvement|worsening|progression|difference)s?(?: (?:in|of|from))?;"
    r"not only; not necessarily; not (?:certain|clear|sure) (?:if|whether); without (?:difficulty|incident|assistance);"
    r"without (?:any )?(?:further )?complications?; gram[ -]negative; not (?:cause|drain|extend|tolerate); no doubt;"
    r"(?:not|without) (?:significantly )?(?:change|changed); without contrast; if not; not (?:been )?known until"
)
_PERHAPS = _pattern(  # uncertain, before; those that hold a word of denial stand here first
    r"(?:cannot|can not|could not|can ?'?t|unable to|difficult to|does not|do not|did not) (?:be )?"
    r"(?:completely |entirely |definitely )?(?:exclude|excluded|rule out|ruled out|rule out for);"
    r"not (?:been )?(?:excluded|ruled out); without excluding; possible; possibly; possibility of; probable; probably;"
    r"likely; likelihood of; maybe; perhaps; suspected; suspicious for; suspicion (?:of|for); suspect; suspects;"
    r"concern for; concerning for; concern of; worrisome for; questionable; question of; query; equivocal for;"
    r"may (?:be|represent|reflect|indicate|have); might (?:be|represent|reflect|indicate|have);"
    r"could (?:be|represent|reflect|indicate|have); suggests?; suggesting; suggestive of; indeterminate for;"
    r"consider; (?:to )?(?:rule|r/o) out; r/o; to exclude; evaluate for; evaluation for; evaluation of; assess for;"
    r"differential (?:diagnosis )?(?:includes|of); versus; vs; should be ruled out for; be ruled out for; if there is;"
    r"whether; presumed; presumptive; appears? to (?:be|represent)"
)
_PERHAPS_AFTER = _pattern(
    r"(?:cannot|can not|could not|can ?'?t) be (?:\w+ )?(?:excluded|ruled out); (?:is|are|was|were|remains?) "
    r"(?:possible|probable|suspected|likely|questionable|uncertain|equivocal|indeterminate|in question|a concern);"
    r"not (?:been |be )?(?:\w+ )?(?:excluded|ruled out); to be (?:excluded|ruled out);"
    r"(?:should|must|may|might|could|ought to) be (?:excluded|ruled out); being ruled out; did not rule out;"
    r"not be (?:excluded|ruled out); suspected; questionable; (?:may|might|could) be (?:present|seen)"
)
_DENIED = _pattern(
    r"no; not; non; denies; denied; deny; denying; declines; declined; without; w/o; absent; absence of; lack of;"
    r"lacks; lacking; negative for; neg for; free of; clear of; free from; never; neither; nor; cannot; can not; can't;"
    r"isn't; aren't; wasn't; doesn't; didn't; don't; hasn't; unremarkable for; fails? to (?:reveal|show|demonstrate);"
    r"failed to (?:reveal|show|demonstrate); rules? (?:him |her |the patient )?out(?: for| against)?;"
    r"ruled (?:him |her |the patient )?out(?: for| against)?; exclud(?:es|ed|ing); rather than; resolved;"
    r"resolution of; unlikely; unlikely to (?:be|represent|have); no longer; instead of; none of; none; zero; -ve for;"
    r"test(?:ed)? (?:was )?negative for; not (?:\w+ )?(?:consistent|compatible) with;"
    r"inconsistent with; argues? against"
)
_DENIED_AFTER = _pattern(
    r"(?:(?:is|are|was|were|has|have|had|be|been|being) )*(?:not|never|no longer) (?:been |be )?(?:\w+ )?"
    r"(?:seen|present|visible|visuali[sz]ed|identified|found|detected|shown|demonstrated|evident|apparent|noted|"
    r"observed|appreciated|there|reported|documented|definitely seen|confirmed);"
    r"(?:(?:is|are|was|were|has|have|had|be|been) )+(?:\w+ )?(?:absent|negative|excluded|ruled out|resolved|denied|"
    r"unlikely|gone);(?:has |have |had )?(?:completely |now |since )?resolved; subsided; unlikely; free; absent;"
    r"ruled out; (?:isn't|aren't|wasn't) (?:seen|present|visible|identified);"
    r"none; nil; negative"
)
_STOP = _pattern(
    r"but; however; nevertheless; although; though; yet; except(?: for)?; apart from; aside from; other than; whereas;"
    r"while; still; which; who; secondary to; because of; due to; as (?:the|a|an) (?:\w+ )?(?:cause|source|reason|"
    r"etiology|origin) (?:of|for); (?:causes?|source|reason|etiology|origin|trigger event)s? (?:of|for); and (?:is|was|"
    r"has|had|have|are|were|now|there|positive|presents?|presented|shows?|he|she|they|the patient|it|also|then);"
    r"there (?:is|are|was|were); (?:he|she|it) (?:is|was|has|had|does|did|reports?|denies|denied);"
    r"positive for; consistent with; status post; s/p; revealed; reveals; shows; showed; demonstrates; demonstrated;"
    r"so; for which; until; therefore; since; started on; instead"
)
_STOP_MARK = re.compile(r";|:(?=\s)(?!\s+(?:none|nil|negative|absent|no)\b\s*[.;,]?)|\n\s*\n|\s-\s")
_EARLIER = _pattern(
    r"(?:past |prior |previous |remote )?(?:medical |surgical )?history of; h/o; hx of; (?:past|prior|previous)"
    r"(?: \w+)?; previously; known; (?:years?|months?|weeks?) ago; remote; formerly; in (?:19|20)\d\d;"
    r"in the past; past medical history(?: significant| notable)?(?: for)?; as a child; status post; s/p"
)
_FAMILY = _pattern(
    r"(?:his |her |the )?(?:mother|father|sister|brother|aunt|uncle|grandmother|grandfather|son|daughter|cousin|wife|"
    r"husband|sibling|parent)s?(?:'s)?; family history(?: of)?; familial; maternal; paternal"
)
_AGO = re.compile(r"[\s,]*(?:\w+\s+){0,4}(?:ago|in the past|in (?:19|20)\d\d)\b")
_SIDE = re.compile(r"(?<![\w-])(left|right|bilaterally|bilateral|both|l|r)(?:-sided)?(?![\w-])")
_SIDES: dict[str, Side] = {"left": "left", "right": "right", "l": "left", "r": "right"}
_TOGETHER = re.compile(
    r"[\s,]*(?:(?:and|or|nor|and/or)(?=[\s#])|/|(?:as well as))?\s*(?:(?:an?|the|any|other)\s+)?(?:[\w-]+\s+){0,2}"
)
_LINK = re.compile(r"[,/]|\b(?:and|or|nor)\b")
_NEAR = re.compile(r"[\s,:]*(?:[\w-]+[\s,]+){0,6}")
_CLOSE = re.compile(r"\s*(?:[\w-]+\s+){0,4}")
_NO_MODIFIER = re.compile(
    r"\b(?:and|or|with|without|in|on|of|at|is|are|was|were|there|has|no|not|to|from|lung|side|hemithorax|zone)\b"
)


def _sentence(
    text: str, where: Span, here: Sequence[int], spans: Sequence[Span],
    out: dict[int, tuple[Status, Side, bool, bool]],
) -> None:  # fmt: skip
    """Judge the spans `here` of one sentence."""
    start, end = where
    line = text[start:end]
    for pseudo in _PSEUDO.finditer(line):
        line = line[: pseudo.start()] + "~" * len(pseudo.group()) + line[pseudo.end() :]
    at = {i: (spans[i][0] - start, min(spans[i][1], end) - start) for i in here}
    stops = sorted({m.start() for p in (_STOP, _STOP_MARK) for m in p.finditer(line)})
    perhaps, line = _cut(_PERHAPS, _PERHAPS_AFTER, line, at, stops)
    denied, _ = _cut(_DENIED, _DENIED_AFTER, line, at, stops)
    sides = _sides(line, at, stops)
    family = min((m.start() for m in _FAMILY.finditer(line)), default=end)
    earlier = [m.end() for m in _EARLIER.finditer(line)]
    for i in here:
        status: Status = "absent" if i in denied else "uncertain" if i in perhaps else "present"
        past = any(_reaches(e, at[i][0], stops) for e in earlier) or _AGO.match(line, at[i][1]) is not None
        out[i] = status, sides.get(i, ""), past, family < at[i][0]


def _reaches(trigger: int, mention: int, stops: Sequence[int]) -> bool:
    """Whether the end of a trigger stands before a mention with no stop between; `stops` sorted."""
    return trigger <= mention and bisect_left(stops, trigger) == bisect_left(stops, mention)


def _cut(
    before: re.Pattern[str], after: re.Pattern[str], line: str, at: dict[int, Span], stops: Sequence[int]
) -> tuple[set[int], str]:
    """Mentions that a trigger reaches, and the line without those triggers."""
    hit: set[int] = set()
    order = sorted(at, key=lambda i: at[i])
    for trigger in after.finditer(line):
        near = [i for i in order if at[i][1] <= trigger.start()]
        if not near or not _reaches(at[near[-1]][1], trigger.start(), stops):
            continue
        if _NEAR.fullmatch(line[at[near[-1]][1] : trigger.start()]) is None:
            continue
        hit.add(near[-1])
        for left, right in zip(near[-2::-1], near[:0:-1], strict=False):
            gap = line[at[left][1] : at[right][0]]
            if _TOGETHER.fullmatch(gap) is None or _LINK.search(gap) is None:
                break
            hit.add(left)
        line = line[: trigger.start()] + "~" * len(trigger.group()) + line[trigger.end() :]
    for trigger in before.finditer(line):
        hit |= {i for i in at if _reaches(trigger.end(), at[i][0], stops)}
    return hit, before.sub(lambda m: "~" * len(m.group()), line) if before is _PERHAPS else line


def _sides(line: str, at: dict[int, Span], stops: Sequence[int]) -> dict[int, Side]:
    """The side of each mention: of a word that stands before it as its modifier ("left basal effusion"), else of one
    that follows it ("effusion on the left"), else of one that opens the clause ("in the left lung there is a mass")."""
    order = sorted(at, key=lambda i: at[i])
    found_: dict[int, set[str]] = {}
    late: list[tuple[int, str]] = []
    for word in _SIDE.finditer(line):
        side: str = _SIDES.get(word[1], "both")
        after = next((i for i in order if at[i][0] >= word.end()), None)
        gap = line[word.end() : at[after][0]] if after is not None else "."
        if after is not None and _CLOSE.fullmatch(gap) and _NO_MODIFIER.search(gap) is None:
            found_.setdefault(after, set()).add(side)
            continue
        late.append((word.start(), side))
    own = set(found_)
    for place, side in late:
        left = [i for i in order if at[i][1] <= place and _reaches(at[i][1], place, stops)]
        if left and left[-1] not in own:
            for i in _chained(line, left, at):
                if i not in own:
                    found_.setdefault(i, set()).add(side)
        elif not left:
            right = next((i for i in order if at[i][0] > place), None)
            if right is not None and right not in own:
                found_.setdefault(right, set()).add(side)
    return {i: "both" if len(s) > 1 else _one(s) for i, s in found_.items()}


def _one(sides: set[str]) -> Side:
    side = next(iter(sides))
    return "left" if side == "left" else "right" if side == "right" else "both"


def _chained(line: str, left: Sequence[int], at: dict[int, Span]) -> list[int]:
    """The last of `left` and those before it that stand together with it ("a mass and an effusion on the left")."""
    out = [left[-1]]
    for i, j in zip(left[-2::-1], left[:0:-1], strict=False):
        if re.fullmatch(r"[\s,]*(?:and|or|,)?\s*(?:an?|the)?\s*", line[at[i][1] : at[j][0]]) is None:
            break
        out.append(i)
    return out


def side_of(text: str) -> Side:
    """The side that a phrase names, "both" for two, "" for none.

    >>> side_of("in the left upper zone"), side_of("both bases"), side_of("apex")
    ('left', 'both', '')
    """
    sides = {_SIDES.get(m[1], "both") for m in _SIDE.finditer(text.lower())}
    return "" if not sides else "both" if len(sides) > 1 else _one({str(s) for s in sides})
