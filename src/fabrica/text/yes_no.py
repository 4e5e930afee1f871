"""What a free answer says to a yes/no question, by ordered rules; what says both, or neither, is no answer."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

VERSION = "yes_no-1"  # of the rules: another one re-scores stored answers

_YES, _NO = "yes|yeah|yep", "no|nope"
_WORD = re.compile(rf"(?<![\w'-])({_YES}|{_NO})(?![\w'])(?!-\w)")
_BOTH = re.compile(rf"(?<!\w)(?:{_YES}|{_NO})\s*(?:or|and|/|,|\||\\)\s*(?:{_YES}|{_NO})(?!\w)")
_DECLARED = re.compile(
    rf"(?:(?:answer|label|prediction|verdict|conclusion|decision)\W{{0,3}}\s*(?:is|would be|=|:|→|->)|^a\s*:)\W{{0,4}}"
    rf"({_YES}|{_NO})(?![\w'-])"
)
_FIRST = re.compile(rf"^({_YES}|{_NO})(?![\w'-])")
_LAST = re.compile(rf"(?:\b(?:is|be|say|think|believe|answer|conclude|with|therefore|thus|so)\b[\s,:]*)({_YES}|{_NO})$")
_BARE = re.compile(rf"(?:^|[.!?;\n]\s*)({_YES}|{_NO})(?!\.\s*\d)(?=\s*(?:[.!?;\n]|$))")
_DENIES = re.compile(r"\b(?:no|not|none|never|without|cannot|absent|negative|unlikely|neither|nor)\b|n't\b")
_NOT_A_NO = re.compile(r"^no\s+(?:doubt|idea|change|comment|answer|matter|clue|information|way\s+to|\d)|^no\.\s*\d")
_NOT_A_YES = re.compile(r"^(?:yes|yeah|yep)[\s,-]+(?:and|or)[\s,-]+no\b")
_REFUSED = re.compile(
    r"\b(?:i (?:can ?not|can't|am unable|'m unable|am not able|won't|will not|must decline)|as an ai|unable to|"
    r"not able to|i'm sorry|i am sorry|i apologi[sz]e|cannot (?:determine|assist|provide|answer|diagnose)|"
    r"consult (?:a|your) (?:doctor|physician|radiologist|professional))\b"
)
_TAG = re.compile(r"</?[a-z]+>|[*_`#>\"“”]")


@dataclass(frozen=True, slots=True)
class Said:
    """`value` True for yes, False for no, None for neither; `rule` which decided ("" = none did); `ambiguous`: it says
    both; `refused`: it declines to answer."""

    value: bool | None
    rule: str = ""
    ambiguous: bool = False
    refused: bool = False

    @property
    def status(self) -> str:
        """ "yes", "no", "ambiguous", "refused" or "unread"."""
        if self.value is not None:
            return "yes" if self.value else "no"
        return "ambiguous" if self.ambiguous else "refused" if self.refused else "unread"


def extract(text: str) -> Said:
    """The answer of a text, by the first rule that applies.

    1 "yes or no" and the like: ambiguous. 2 declared ("answer: yes"; two that differ are ambiguous). 3 the first word:
    a yes whose sentence goes on to deny ("Yes, there is no effusion"), and either with the opposite as a sentence of
    its own, are ambiguous; "no doubt", "no idea" are no answer. 4 the last word after "is", "say", "think" ... 5 one
    sentence that is the bare word. Containing a word is never a rule: "not", "none", "normal" say nothing.

    >>> [extract(t).status for t in ("Yes.", "No effusion is seen.", "Yes or No", "Not sure", "Normal", "")]
    ['yes', 'no', 'ambiguous', 'unread', 'unread', 'unread']
    >>> extract("Yes, there is no effusion").ambiguous, extract("The answer is **no**.").rule
    (True, 'declared')
    """
    plain = _TAG.sub("", unicodedata.normalize("NFKC", text).replace("’", "'").lower()).strip(" \t\r\n'([{")
    if _BOTH.search(plain) or _NOT_A_YES.match(plain):
        return Said(None, "both", ambiguous=True)
    declared = {_is_yes(m) for m in _DECLARED.findall(plain)}
    if declared:
        return _only(declared, "declared")
    first = _FIRST.match(plain)
    bare = {_is_yes(m) for m in _BARE.findall(plain)}
    if first and not _NOT_A_NO.match(plain):
        value = _is_yes(first[1])
        sentence = re.split(r"[.!?;\n]", plain[first.end() :], maxsplit=1)[0]
        against = _DENIES.search(sentence) if value else any(_is_yes(w) for w in _WORD.findall(plain))
        if against or len(bare) > 1 or (bare and value not in bare):
            return Said(None, "first word", ambiguous=True)
        return Said(value, "first word")
    last = _LAST.search(plain.rstrip(" .!')]}"))
    if last and len(_WORD.findall(plain)) == 1:
        return Said(_is_yes(last[1]), "last word")
    if bare:
        return _only(bare, "bare sentence")
    return Said(None, refused=_REFUSED.search(plain) is not None)


def _only(values: set[bool], rule: str) -> Said:
    return Said(values.pop(), rule) if len(values) == 1 else Said(None, rule, ambiguous=True)


def _is_yes(word: str) -> bool:
    return word.startswith("y")


def contains(text: str, gold: bool) -> bool:
    """The public ProbMed rule, kept for comparison: gold yes is right where `Yes` occurs or the whole text is yes, gold
    no where `No` occurs or the whole text is no. It counts "Yes or No" right for both, and "Normal" as a no.

    >>> contains("Yes or No", True), contains("Yes or No", False), contains("Normal", False)
    (True, True, True)
    """
    word = "yes" if gold else "no"
    return word.capitalize() in text or text.strip().lower() == word
