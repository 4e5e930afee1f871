"""Short answers made comparable: normal form, token F1, yes or no, letters of a choice, numbers with units."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_ARTICLES = re.compile(r"(?<![\w/-])(?:a|an|the)(?![\w/-])")
_OTHER = re.compile(r"[^\w\s.%+/-]|(?<!\d)\.|\.(?!\d)|(?<!\w)/|(?<!\w)-(?!\d)|[/-](?!\w)")
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?(?![\d])", re.IGNORECASE)
_CHOICE = re.compile(
    r"^\s*(?:(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)\s*(?:is)?\s*:?\s*)?\(?([A-Ha-h])\)?(?:[.):,]\s*|\s*$)",
    re.IGNORECASE,
)
_YES = re.compile(r"^(?:yes|yeah|true|present|positive)\b", re.IGNORECASE)
_NO = re.compile(r"^(?:no|none|false|absent|negative)\b", re.IGNORECASE)


def normal(text: str) -> str:
    """Lower case, compatibility form, no articles, no punctuation but in numbers and words, single spaces.

    As Rajpurkar et al. 2016 (SQuAD), and decimal points, signs and units are kept.

    >>> normal("The  left-sided Effusion, 3.5 cm.")
    'left-sided effusion 3.5 cm'
    """
    text = unicodedata.normalize("NFKC", text).lower()
    return " ".join(_ARTICLES.sub(" ", _OTHER.sub(" ", text)).split())


def token_f1(answer: str, reference: str) -> float:
    """F1 of the bags of normalised words; 1 where both are empty.

    >>> round(token_f1("small left effusion", "left pleural effusion"), 3)
    0.667
    """
    said, wanted = normal(answer).split(), normal(reference).split()
    if not said or not wanted:
        return float(said == wanted)
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 2 * shared / (len(said) + len(wanted))


def yes_no(text: str) -> bool | None:
    """True for yes, False for no, None for anything else, by the first word.

    >>> yes_no("Yes, on the left."), yes_no("No."), yes_no("Nodule"), yes_no("absent")
    (True, False, None, False)
    """
    text = text.strip().lstrip("\"'*([ ")
    return True if _YES.match(text) else False if _NO.match(text) else None


def choice(text: str) -> str | None:
    """The letter of a multiple choice, upper case, where the text begins with one.

    >>> choice("(b) pneumonia"), choice("The answer is C."), choice("a mass"), choice("D")
    ('B', 'C', None, 'D')
    """
    found = _CHOICE.match(text)
    return found[1].upper() if found else None


def numbers(text: str) -> tuple[float, ...]:
    """The numbers of a text, thousands separated or not.

    >>> numbers("from 1,200 to 3.5e2 mL, -4")
    (1200.0, 350.0, -4.0)
    """
    return tuple(float(n.replace(",", "")) for n in _NUMBER.findall(text))
