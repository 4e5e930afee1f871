"""The words that the lexical indexes read: lower case, without endings of plural, without stop words."""

from __future__ import annotations

import re

STOP = frozenset(
    (
        "a", "an", "and", "are", "as", "at", "be", "been", "but", "by", "for", "from", "had", "has", "have", "he",
        "her", "his", "in", "into", "is", "it", "its", "not", "of", "on", "or", "our", "she", "that", "the", "their",
        "them", "then", "there", "these", "they", "this", "to", "was", "we", "were", "which", "who", "will", "with",
    )
)  # fmt: skip
_WORD = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")


def words(text: str) -> list[str]:
    """The words of a text in order.

    >>> words("The T-cell lymphomas were 2.5 cm large.")
    ['t-cell', 'lymphoma', '2.5', 'cm', 'large']
    """
    return [_plain(w) for w in _WORD.findall(text.lower()) if w not in STOP]


def _plain(word: str) -> str:
    """Harman's (1991) S stemmer: plural endings alone; and "masses" as "mass"."""
    if len(word) > 4 and word.endswith("sses"):
        return word[:-2]
    if len(word) > 4 and word.endswith("ies") and word[-4] not in "ae":
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("es") and word[-3] not in "aeo":
        return word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "us" else word
