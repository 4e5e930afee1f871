"""Word overlap of two texts: ROUGE-L, the score that fact scores are held against."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"[a-z0-9]+")


def tokens(text: str) -> list[str]:
    """Runs of letters a-z and digits, in lower case (as `rouge_score` cuts without stemming)."""
    return _WORD.findall(text.lower())


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence (bit-parallel: Hyyrö 2004).

    >>> longest_common("no effusion in the left lung".split(), "effusion in the right lung".split())
    4
    """
    at: dict[str, int] = {}
    for i, word in enumerate(a):
        at[word] = at.get(word, 0) | 1 << i
    row, full = (1 << len(a)) - 1, (1 << len(a)) - 1
    for word in b:
        hit = row & at.get(word, 0)
        row = ((row + hit) | (row - hit)) & full
    return len(a) - row.bit_count()


def rouge_l(hypothesis: str, reference: str) -> float:
    """ROUGE-L F1 of two texts as one sentence each (Lin 2004), 0 where nothing is common.

    >>> round(rouge_l("No effusion.", "No pleural effusion."), 3)
    0.8
    """
    a, b = tokens(hypothesis), tokens(reference)
    common = longest_common(a, b)
    return 2 * common / (len(a) + len(b)) if common else 0.0
