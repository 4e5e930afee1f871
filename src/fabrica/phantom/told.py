"""Synthetic yes/no questions in words: what a picture shows, what reports say, how far to trust either."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fabrica.errors import UsageError

FINDINGS = ("effusion", "mass", "fracture", "edema", "nodule", "pneumothorax")
REPORTS = 3  # a question
CLEAR, SURE, UNSURE = 0.6, 0.95, 0.65  # share of clear pictures; how often a clear and a faint one are right
ALIKE, GOOD, POOR = 0.45, 0.85, 0.45  # share of reports of like patients; how often those and the others are right


@dataclass(frozen=True, slots=True)
class Told:
    """One question: `truth` True = yes; its prompt `alone` (the picture) and with reports `shown`."""

    id: str
    truth: bool
    alone: str
    shown: str

    @property
    def answer(self) -> str:
        """The right word."""
        return "yes" if self.truth else "no"


def told(n: int, seed: int, *, right: float | None = None) -> list[Told]:
    """`n` questions. A picture is clear or faint and speaks for or against the finding; each of three reports, of a
    like patient ("alike") or not ("other"), says that it is there or not. `right` is how often a report is right,
    whoever it is of: a reader that learned where that was 0.97 trusts reports too much where it is not.

    >>> told(1, 0)[0].alone
    'picture faint for fracture . question fracture ?'
    """
    if n < 1 or (right is not None and not 0 <= right <= 1):
        raise UsageError(f"told: n={n}, right={right}; wanted n >= 1 and a share")
    rng = np.random.default_rng([seed, 79])
    made = []
    for i in range(n):
        truth, finding = bool(rng.random() < 0.5), str(rng.choice(FINDINGS))
        clear = rng.random() < CLEAR
        says = truth == (rng.random() < (SURE if clear else UNSURE))
        picture = f"picture {'clear' if clear else 'faint'} {'for' if says else 'against'} {finding} ."
        said = []
        for _ in range(REPORTS):
            alike = rng.random() < ALIKE
            good = rng.random() < ((GOOD if alike else POOR) if right is None else right)
            said.append(f"{'alike' if alike else 'other'} : {finding if truth == good else f'no {finding}'} .")
        ask = f"question {finding} ?"
        made.append(Told(f"{seed}/{i}", truth, f"{picture} {ask}", f"{picture} reports {' '.join(said)} {ask}"))
    return made
