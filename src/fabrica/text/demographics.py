"""Age and gender of the one patient that a text speaks of, by rules (PMC-Patients, Zhao et al. 2023, "Methods")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Unit = Literal["year", "month", "week", "day", "hour"]
Age = tuple[tuple[float, Unit], ...]  # a compound age has several parts: 2 years and 3 months
Gender = Literal["F", "M"]
Span = tuple[int, int]  # start, end in characters

MOST_YEARS = 120.0
_PER_YEAR: dict[Unit, float] = {"year": 1.0, "month": 12.0, "week": 52.1775, "day": 365.2425, "hour": 8765.82}


@dataclass(frozen=True, slots=True)
class Found:
    """What a text says: `age` and where, `gender` and where; `conflict`: words of both genders stand close together, or
    the wording is of a transgender person, so that no gender is given; `animal`: the patient is no person."""

    age: Age | None = None
    age_span: Span | None = None
    gender: Gender | None = None
    gender_span: Span | None = None
    conflict: bool = False
    animal: bool = False


def demographics(text: str, *, sentence_words: int = 10, conflict_chars: int = 20) -> Found:
    """Age, gender and what forbids to say them, from the first sentences of a note (`window`).

    >>> f = demographics("A 45‐year‐old man presented to our clinic with a cough of three weeks.")
    >>> f.age, f.gender
    (((45.0, 'year'),), 'M')
    """
    part = text[: window(text, sentence_words=sentence_words)]
    aged, said = find_age(part), find_gender(part, conflict_chars=conflict_chars)
    return Found(
        aged and aged[0], aged and aged[1], None if said is None or said[0] is None else said[0],
        said and said[1], said is not None and said[0] is None, is_animal(part),
    )  # fmt: skip


def window(text: str, *, sentence_words: int = 10) -> int:
    """Where the search ends: the first sentence, and one more for as long as the last has fewer than `sentence_words`.

    >>> text = "Case of Dr. Lee. A boy. He was eight years old and came with his mother to the ward. Later he left."
    >>> text[: window(text)]
    'Case of Dr. Lee. A boy. He was eight years old and came with his mother to the ward.'
    """
    start = 0
    for match in _END.finditer(text):
        if _SHORT.search(text, start, match.start() + 1):
            continue
        if len(text[start : match.end()].split()) >= sentence_words:
            return match.start() + 1
        start = match.end()
    return len(text)


_END = re.compile(r"[.!?](?=\s+[^a-z\s]|\s*$)|\n+")
_SHORT = re.compile(r"(?:\b(?:dr|mr|mrs|ms|st|vs|no|fig|approx|e\.g|i\.e|y\.o|b\.w)|\b[A-Z])\.$", re.IGNORECASE)

# ---------------------------------------------------------------- age

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_WORDS: dict[str, float] = {w: float(i) for i, w in enumerate(_ONES)} | {w: float(v) for w, v in _TENS.items()}
_HALVES = {"½": 0.5, "¼": 0.25, "¾": 0.75}
_HYPHENS = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"), "-")
_SPACES = dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u3000"), " ")
_PLAIN = str.maketrans(_HYPHENS | _SPACES | {ord("\u2019"): "'"})  # one character for one: places stay

_WORD = rf"(?:{'|'.join(sorted(_WORDS, key=len, reverse=True))})"
_NUMBER = (
    r"(?:\d{1,3}\s?[½¼¾]|\d{1,3}[ -]1/2|\d{1,3}\.\d{1,2}|\d{1,3}(?:[ -]and[ -]a[ -]half)?"
    rf"|{_WORD}(?:[ -]{_WORD})?(?:[ -]and[ -]a[ -]half)?)"
)
_UNIT = r"(?:years?|yrs?|yr\.|months?|mos?|weeks?|wks?|days?|hours?|hrs?)"
_PART = rf"{_NUMBER}[ -]*{_UNIT}"
_LIST = rf"{_PART}(?:[ -]*(?:,|and|,\s*and|&|-)?[ -]*(?:old[ -]and[ -])?{_PART}){{0,3}}"
_NOT_SPAN = (  # "18 to 65 years old", "under 1 year of age" are nobody's age
    r"(?<![\w.,/+-])(?<!\bto )(?<!\band )(?<!\bor )(?<!\bunder )(?<!\bbelow )(?<!\bover )(?<!\babove )(?<!\bthan )"
)
_WHO = r"(?:man|woman|boy|girl|patient|male|female|gentleman|lady|child|infant|neonate|newborn|adult|person)"
_AGES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_NOT_SPAN}(?P<age>{_LIST})[ -]*(?:old|of[ -]age)\b",
        rf"{_NOT_SPAN}(?P<age>{_NUMBER})[ -]*(?P<year>y\.?[ /]?o\b\.?|y/o\b|yo\b)",
        rf"\b{_WHO},?[ ](?:of[ ]|\()(?P<age>{_LIST})(?!\w|[ -]*(?:to|and|or|-)[ -]*\d)"
        r"(?![ ](?:of[ ])?(?:duration|history|standing|gestation|pregnan))",
        rf"\b(?:aged?|aging|at the age of|age of|ages?:)[ -]+(?P<age>{_LIST})(?!\w|[ -]*(?:to|and|or|-)[ -]*\d)",
        rf"\b(?:aged|age|at the age of|age of|age:)[ -]+(?P<age>(?P<bare>{_NUMBER}))"
        rf"(?!\w|\.\d|/\d|%|[ -]*(?:to|and|or|-)[ -]*{_NUMBER})",
        r"(?<![\w.-])(?P<age>(?P<bare>\d{1,3}))[/-]?(?-i:[MF])\b(?![-\w]| cath| sheath)",
        r"\bin[ ](?:his|her|their|the)[ ](?:(?P<part>early|mid|middle|late)(?:[ -]to[ -](?:mid|late))?[ -]*)?"
        rf"(?P<age>(?P<decade>[1-9]0['’]?s\b|(?:teens|{'|'.join(w[:-1] + 'ies' for w in _TENS)})\b))",
    )
)
_MEAN = re.compile(r"\b(?:mean|median|average|ages?\s+rang\w+|gestational|bone|mental|legal|voting)\W+(?:\w+\W+){0,2}$",
                   re.IGNORECASE)  # fmt: skip
_ONE = re.compile(rf"(?P<n>{_NUMBER})[ -]*(?P<u>{_UNIT})", re.IGNORECASE)


def find_age(text: str) -> tuple[Age, Span] | None:
    """The first age of a person in `text` and where it stands; None where there is none.

    Decades count as their middle: early + 2.5, late + 7.5, else + 5 (as the PMC-Patients extractor does). Ranges
    ("18 to 65 years old"), means and gestational ages are nobody's age, nor are durations ("a 3-day history").

    >>> find_age("This 2-year-and-3-month-old girl")[0]
    ((2.0, 'year'), (3.0, 'month'))
    >>> find_age("a man in his early 70s")[0], find_age("a boy aged eight")[0], find_age("G3P2 at 30 weeks")
    (((72.5, 'year'),), ((8.0, 'year'),), None)
    """
    plain = text.translate(_PLAIN)
    best: tuple[Age, Span] | None = None
    for pattern in _AGES:
        for match in pattern.finditer(plain):
            if best is not None and match.start("age") >= best[1][0]:
                break
            age = None if _MEAN.search(plain[: match.start()]) else _age(match)
            if age is not None and 0 <= years(age) <= MOST_YEARS:
                best = age, match.span("age")
                break
    return best


def _age(match: re.Match[str]) -> Age | None:
    said = match.groupdict()
    if decade := said.get("decade"):
        return ((_decade(decade.lower()) + _within(said["part"]), "year"),)
    if said.get("bare") or said.get("year"):
        value = number(said["age"])
        return None if value is None else ((value, "year"),)
    parts = [(number(m["n"]), _unit(m["u"])) for m in _ONE.finditer(said["age"])]
    units = [unit for _, unit in parts]
    if any(value is None for value, _ in parts) or len(set(units)) < len(units):
        return None
    return tuple((value, unit) for value, unit in parts if value is not None)


def _unit(word: str) -> Unit:
    units: dict[str, Unit] = {"y": "year", "m": "month", "w": "week", "d": "day", "h": "hour"}
    return units[word[0].lower()]


def _decade(said: str) -> float:
    if said == "teens":
        return 10.0
    return float(said[:2]) if said[0].isdigit() else float(_TENS[said[:-3] + "y"])


def _within(part: str | None) -> float:
    return {"early": 2.5, "late": 7.5}.get((part or "").lower(), 5.0)


def number(text: str) -> float | None:
    """The value of a number in digits or words; None where the words make no number.

    >>> number("two and a half"), number("forty-five"), number("1½"), number("five six")
    (2.5, 45.0, 1.5, None)
    """
    said = text.translate(_PLAIN).lower().strip()
    half = 0.0
    if cut := re.search(r"[ -]and[ -]a[ -]half$|[ -]1/2$", said):
        said, half = said[: cut.start()], 0.5
    if said and said[-1] in _HALVES:
        said, half = said[:-1].strip(), _HALVES[said[-1]]
    if re.fullmatch(r"\d+(?:\.\d+)?", said):
        return float(said) + half
    words = re.split(r"[ -]+", said)
    if not all(word in _WORDS for word in words):
        return None
    if len(words) == 2 and not (words[0] in _TENS and 1 <= _WORDS[words[1]] <= 9):
        return None
    return sum(_WORDS[word] for word in words) + half


def years(age: Age) -> float:
    """An age in years.

    >>> years(((2.0, "year"), (6.0, "month")))
    2.5
    """
    return sum(value / _PER_YEAR[unit] for value, unit in age)


def to_text(age: Age) -> str:
    """As text that `from_text` reads back.

    >>> to_text(((2.0, "year"), (3.0, "month")))
    '2 year 3 month'
    """
    return " ".join(f"{value:g} {unit}" for value, unit in age)


def from_text(text: str) -> Age:
    """The inverse of `to_text`.

    >>> from_text("2 year 3 month")
    ((2.0, 'year'), (3.0, 'month'))
    """
    words = text.split()
    return tuple((float(value), _unit(unit)) for value, unit in zip(words[::2], words[1::2], strict=True))


# ---------------------------------------------------------------- gender

_NOUNS: dict[Gender, re.Pattern[str]] = {
    "F": re.compile(
        r"\b(?:wom[ae]n|females?|girls?|lady|ladies|housewife|primigravida|multigravida|primipara|multipara|gravida"
        r"|postmenopausal|schoolgirl|(?-i:Mrs|Ms|Miss)|G\d+\s?P\d+\w*)\b"
        r"|(?<=\d)(?:[/-]?|[ -]?y/?o[ ])(?-i:F)\b(?![-\w]| cath| sheath)",
        re.IGNORECASE,
    ),
    "M": re.compile(
        r"\b(?:m[ae]n|males?|boys?|gentlem[ae]n|schoolboy|(?-i:Mr))\b|(?<=\d)(?:[/-]?|[ -]?y/?o[ ])(?-i:M)\b(?![-\w])",
        re.IGNORECASE,
    ),
}
_PRONOUNS: dict[Gender, re.Pattern[str]] = {
    "F": re.compile(r"\b(?:she|her|hers|herself)\b", re.IGNORECASE),
    "M": re.compile(r"\b(?:he|his|him|himself)\b", re.IGNORECASE),
}
_TRANS = re.compile(
    r"\btrans(?:gender|sexual)|\btrans[ -](?:wom[ae]n|m[ae]n|girl|boy|female|male)\b|\bnon-?binary\b"
    r"|\bassigned[ -](?:fe)?male[ -]at[ -]birth\b|\b(?:fe)?male[ -]to[ -](?:fe)?male\b|\bgender[ -](?:dysphoria|"
    r"reassign\w*|affirm\w*)|\bintersex\b",
    re.IGNORECASE,
)


def find_gender(text: str, *, conflict_chars: int = 20) -> tuple[Gender | None, Span] | None:
    """The gender of the first person word and where it stands; (None, where) for a conflict; None where no word tells.

    Nouns (woman, boy, G3P2) decide before pronouns; among the words that decide, both genders within
    `conflict_chars` characters of each other are a conflict ("12 males and 9 females"), as is the wording of a
    transgender person, about whom no list of words should guess.

    >>> find_gender("A woman came with her son; he was well.")[0]
    'F'
    >>> find_gender("There were 12 males and 9 females."), find_gender("The patient improved.")
    ((None, (14, 33)), None)
    """
    plain = text.translate(_PLAIN)
    if trans := _TRANS.search(plain):
        return None, trans.span()
    for words in (_NOUNS, _PRONOUNS):
        said = sorted((m.span(), gender) for gender, pattern in words.items() for m in pattern.finditer(plain))
        for (a, one), (b, other) in pairwise(said):
            if one != other and b[0] - a[1] <= conflict_chars:
                return None, (a[0], b[1])
        if said:
            return said[0][1], said[0][0]
    return None


# ---------------------------------------------------------------- animals

_BEASTS = (
    r"dogs?|cats?|horses?|mares?|stallions?|geldings?|foals?|cows?|heifers?|bulls?|calf|calves|sheep|ewes?|goats?|pigs?"
    r"|piglets?|rabbits?|ferrets?|parrots?|macaws?|puppy|puppies|kittens?|canines?|felines?|equines?|bovines?|rats?|mice"
    r"|mouse|macaques?|monkeys?|llamas?|alpacas?|retrievers?|labradors?|shepherds?|terriers?|poodles?|bulldogs?|spaniels?"
    r"|beagles?|dachshunds?|collies?|rottweilers?|boxers?|shorthairs?|longhairs?|thoroughbreds?|warmbloods?|hounds?"
    r"|chihuahuas?|mongrels?|mixed[ -]breed"
)
_STOPS = (  # between an age and a species they say that somebody else has been named
    r"with|who|whose|was|were|is|had|has|by|from|after|in|on|at|to|presented|complained|admitted|man|woman|boy|girl"
    r"|farmer|patient|gentleman|lady|bitten|scratched"
)
_OWNERS = r"(?![ -](?:owner|breeder|keeper|handler|trainer|farmer|bite|scratch|lover))"
_ANIMAL = re.compile(
    r"\b(?:neutered|spayed|castrated|intact)[ -](?:fe)?male\b|\b(?:fe)?male[ -](?:neutered|spayed|castrated|intact)\b"
    rf"|\b(?:old|aged)\b(?:(?!\b(?:{_STOPS})\b)[^.;]){{0,60}}?\b(?:{_BEASTS})\b{_OWNERS}",
    re.IGNORECASE,
)


def is_animal(text: str) -> bool:
    """Whether the patient is an animal: a spayed or castrated one, or an age followed by a species or breed.

    >>> is_animal("An 8-year-old male Labrador retriever was presented"), is_animal("A 40-year-old man bitten by a dog")
    (True, False)
    """
    return _ANIMAL.search(text.translate(_PLAIN)) is not None
