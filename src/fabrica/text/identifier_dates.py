"""Dates in clinical text, English and German, in the layouts people write; each read, moved and written as it stood."""

from __future__ import annotations

import datetime as dt
import re

from fabrica.text.identifier_words import MONTHS

Found = tuple[int, int, str]

_FULL_MONTHS = sorted((m for m in MONTHS), key=len, reverse=True)
_CAPS = "|".join([m.capitalize() for m in _FULL_MONTHS] + [m.upper() for m in _FULL_MONTHS])
_SAFE_SMALL = "|".join(m for m in _FULL_MONTHS if len(m) > 4 and m not in ("march", "maerz", "june"))
_MONTH = rf"(?:{_CAPS}|{_SAFE_SMALL})\b\.?"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_YEAR = r"(?:(?:18|19|20)\d{2})"
_ORDINAL = (
    r"(?:twenty[- ]|thirty[- ])?(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|"
    r"thirteenth|fourteenth|fifteenth|sixteenth|seventeenth|eighteenth|nineteenth|twentieth|thirtieth)"
)
_PATTERNS = (
    # 2021-03-02, 2021/3/2, 2021.03.02, with a time behind
    rf"{_YEAR}(?P<s>[-/.]){_DAY}(?P=s){_DAY}(?!\d)",
    # 03/02/2021, 2.3.2021, 02-03-2021; 3/2/21, 02.03.21, 02-03-21
    rf"{_DAY}(?P<t>[/.-]){_DAY}(?P=t){_YEAR}(?!\d)",
    rf"{_DAY}\.[ ]{_DAY}\.[ ]?{_YEAR}(?!\d)",
    rf"{_DAY}/{_DAY}/\d{{2}}(?![\d/])",
    r"\d{2}(?P<u>[.-])\d{2}(?P=u)\d{2}(?![\d.-])",
    # 2 March 2021, 2. März 2021, 02-Mar-2021, 02MAR2021, 2nd of March, 2021
    rf"{_DAY}(?:st|nd|rd|th|\.)?[ -]?(?:of[ ])?{_MONTH}(?:,?[ -]?(?:{_YEAR}|'?\d{{2}}(?![\d:]))(?!\d))?",
    # March 2, 2021; Mar 2nd; March 2021; Mar '21; March-2021
    rf"{_MONTH}[ ]?(?:{_DAY}(?:st|nd|rd|th)?(?![\d.]\d|[\d/:%])(?:,?[ ]{_YEAR}(?!\d))?|[ ,-]?{_YEAR}(?!\d)|"
    rf"'\d{{2}}(?!\d))",
    rf"{_MONTH}[ -](?:the[ ])?{_DAY}(?:st|nd|rd|th)?-{_YEAR}(?!\d)",
    # 20210302, 20210302101500
    r"(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{6}(?:\.\d{1,6})?)?(?![\d.])",
)
_ANY = re.compile(rf"(?<![\w.,/])(?:{'|'.join(f'(?:{_p})' for _p in _PATTERNS)})(?:(?!\w)|(?=T\d{{2}}:))")
_SPELLED = re.compile(
    rf"(?<!\w)(?:(?:{_CAPS})[ ](?:the[ ])?{_ORDINAL}|{_ORDINAL}[ ]of[ ](?:{_CAPS}))(?:,?[ ]{_YEAR})?(?!\w)"
)
_CUED = re.compile(  # 3/12 or 12.03. where the word before says that it is a date
    r"(?:(?<!\w)(?:on|since|dated?|dob|admitted|discharged|seen|scheduled(?: for)?|until|d/c|vom|am|seit|bis|"
    r"born|geb\.?|"
    r"appointment|follow-?up|visit|expires?|due)[ :]{1,2})"
    rf"(?P<d>{_DAY}/{_DAY}|{_DAY}\.{_DAY}\.(?!\d)|(?:0?[1-9]|1[0-2])/{_YEAR})(?![\d/%]|[ ]?(?:mg|cm|mm|ml|pain|"
    rf"strength|power|motor|systolic|diastolic|murmur|edema|pulses|reflexes|scale))",
    re.IGNORECASE,
)
_MONTH_YEAR = re.compile(rf"(?<![\w./-])(?:0[1-9]|1[0-2])/{_YEAR}(?![\w/])")
_BORN = re.compile(
    rf"(?<!\w)(?:born(?: in)?|dob|d\.o\.b\.|birth ?(?:date|year)|year of birth|geb(?:oren)?\.?|geburtsjahr|jahrgang)"
    rf"[ :]{{1,3}}(?P<d>{_YEAR})(?![\d/-])",
    re.IGNORECASE,
)


def dates(text: str, near: list[tuple[int, int]]) -> list[Found]:
    """(start, end, "date") of every date finer than a year; those with digits are looked for in the parts `near`.

    >>> t = "Seen 2 March 2021 and 2021-03-09, BP 120/80, strength 5/5 in 2020."
    >>> [t[a:b] for a, b, _ in dates(t, [(0, len(t))])]
    ['2 March 2021', '2021-03-09']
    """
    out: list[Found] = []
    for a, b in near:
        out += [(m.start(), m.end(), "date") for m in _ANY.finditer(text, a, b) if _plausible(m[0])]
        for pattern in (_CUED, _BORN):
            out += [(m.start("d"), m.end("d"), "date") for m in pattern.finditer(text, a, b)]
        out += [(m.start(), m.end(), "date") for m in _MONTH_YEAR.finditer(text, a, b)]
    return out + [(m.start(), m.end(), "date") for m in _SPELLED.finditer(text)]


def _plausible(said: str) -> bool:
    """Whether numbers of a numeric date can be a day and a month; dates with a month's name are."""
    parts = re.findall(r"\d+", said)
    if len(parts) != 3 or re.search(r"[^\W\d_]", said):
        return True
    if len(parts[0]) == 4:
        return _pair(int(parts[1]), int(parts[2]))
    return _pair(int(parts[0]), int(parts[1]))


def _pair(a: int, b: int) -> bool:
    return 1 <= min(a, b) <= 12 and 1 <= max(a, b) <= 31


# ---------------------------------------------------------------- moving

_NUMERIC = re.compile(r"^(\d{1,4})([-/.] ?)(\d{1,2})([-/.] ?)(\d{2}|\d{4})$")
_COMPACT = re.compile(r"^(\d{4})(\d{2})(\d{2})(.*)$")
_WORDY = re.compile(
    r"^(?P<before>\d{1,2})?(?P<ord>st|nd|rd|th|\.)?(?P<g1>[ -]?(?:of )?)(?P<month>[^\W\d_]+)(?P<dot>\.?)"
    r"(?:(?P<g2>[ -]?)(?P<after>\d{1,2})(?P<ord2>st|nd|rd|th)?(?!\d))?(?P<g3>,?[ -]?)(?P<year>\d{4})$"
)


def shift_date(said: str, days: int) -> str | None:
    """The date moved by whole days and written in its own layout; None where it has no year or cannot be read.

    Where 03/04/2021 can be both, slashes put the month first and dots the day. A month with its year is read as its
    15th.

    >>> shift_date("02.03.2021", -2), shift_date("March 1st, 2020", -1), shift_date("20200301", -1)
    ('28.02.2021', 'February 29th, 2020', '20200229')
    """
    if m := _NUMERIC.match(said):
        return _numeric(m, days)
    if m := _COMPACT.match(said):
        moved = _move(int(m[1]), int(m[2]), int(m[3]), days)
        return None if moved is None else f"{moved:%Y%m%d}{m[4]}".rjust(8, "0")
    if m := _WORDY.match(said):
        return _wordy(m, days)
    if m := re.match(r"^(\d{2})/(\d{4})$", said):
        moved = _move(int(m[2]), int(m[1]), 15, days)
        return None if moved is None else f"{moved.month:02d}/{moved.year}"
    return None


def _move(year: int, month: int, day: int, days: int) -> dt.date | None:
    try:
        return dt.date(year, month, day) + dt.timedelta(days=days)
    except (ValueError, OverflowError):
        return None


def _numeric(m: re.Match[str], days: int) -> str | None:
    a, b, c = m[1], m[3], m[5]
    if len(a) == 4:
        moved = _move(int(a), int(b), int(c), days)
        return None if moved is None else m[2].join((str(moved.year), _like(moved.month, b), _like(moved.day, c)))
    if len(a) == 3:
        return None
    year = int(c) if len(c) == 4 else 2000 + int(c) if int(c) <= 40 else 1900 + int(c)
    day_first = int(a) > 12 or (int(b) <= 12 and m[2].startswith("."))
    day, month = (a, b) if day_first else (b, a)
    moved = _move(year, int(month), int(day), days)
    if moved is None:
        return None
    new = (_like(moved.day, day), _like(moved.month, month))
    first, second = new if day_first else new[::-1]
    return f"{first}{m[2]}{second}{m[4]}{str(moved.year)[-len(c) :]}"


def _like(value: int, old: str) -> str:
    return f"{value:02d}" if len(old) == 2 else str(value)


_EN = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
       "December")  # fmt: skip
_DE = ("Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November",
       "Dezember")  # fmt: skip


def _wordy(m: re.Match[str], days: int) -> str | None:
    word = m["month"]
    month = MONTHS.get(word.lower())
    if month is None or (m["before"] and m["after"]):
        return None
    day = m["before"] or m["after"]
    moved = _move(int(m["year"]), month, int(day) if day else 15, days)
    if moved is None:
        return None
    german = word.lower() in {n.lower() for n in _DE} - {n.lower() for n in _EN} or word.lower() in (
        "mrz",
        "okt",
        "dez",
    )
    name = (_DE if german else _EN)[moved.month - 1]
    dashed = "-" in (m["g1"] or "") + (m["g2"] or "") + m["g3"]
    whole = len(word) > 4 or (word.capitalize() in (*_EN, *_DE) and not (len(word) == 3 and dashed))  # "May" is both
    name = name if whole else name[:3]
    name = name.upper() if word.isupper() else name.lower() if word.islower() else name
    text = f"{name}{m['dot']}"
    if m["before"]:
        text = f"{_like(moved.day, m['before'])}{_ordinal(moved.day, m['ord'])}{m['g1']}{text}"
    elif day:
        text = f"{text}{m['g2']}{_like(moved.day, day)}{_ordinal(moved.day, m['ord2'])}"
    return f"{text}{m['g3']}{moved.year}"


def _ordinal(day: int, old: str | None) -> str:
    if old in (None, "."):
        return old or ""
    return "th" if 10 < day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
