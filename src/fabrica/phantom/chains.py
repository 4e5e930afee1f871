"""Synthetic questions that a sampled chain of thought answers right with a known probability, drawn for each question.

q ~ Beta(2.2, 1.3). The wrong mass is spread over the distractors; on a share `one_sided` of the questions with q < 0.5
it all lies on one of them: a systematic mistake, which voting makes worse. A right chain quotes a finding that the
question states, a wrong one a finding that it does not: what a reader of all chains can recognise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fabrica.types import Item, Origin, Record

SHAPE = (2.2, 1.3)  # of the Beta distribution of q
OPTIONS = 4
_ITEM = re.compile(r"Item (\d+)\. Finding F(\d+) is present")
_OPTION = re.compile(r"^\(([A-Z])\) treatment T(\d+)$", re.MULTILINE)
_CHAIN = re.compile(r"because of finding F(\d+)\. Answer: \(([A-Z])\)")


@dataclass(frozen=True, slots=True)
class Chains:
    """`n` questions of four options; `q` (n,) the chance of a right chain, `p` (n, 4) of each option, the right first.

    >>> world = Chains(400, seed=0)
    >>> bool(abs(world.q.mean() - 2.2 / 3.5) < 0.05)
    True
    """

    n: int
    seed: int
    one_sided: float = 0.0  # share of the questions with q < 0.5 whose wrong mass lies on one distractor
    q: NDArray[np.float64] = field(init=False)
    p: NDArray[np.float64] = field(init=False)
    place: NDArray[np.int64] = field(init=False)  # where the right option stands

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 38])
        q = rng.beta(*SHAPE, self.n)
        wrong = rng.dirichlet(np.full(OPTIONS - 1, 4.0), self.n)
        one = (rng.random(self.n) < self.one_sided) & (q < 0.5)
        wrong[one] = np.eye(OPTIONS - 1)[0]
        values = {
            "q": q,
            "p": np.column_stack([q, (1 - q)[:, None] * wrong]),
            "place": rng.integers(0, OPTIONS, self.n),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def misled(self) -> NDArray[np.bool_]:
        """(n,): whose wrong mass lies on one distractor."""
        return np.asarray((self.p[:, 1:] == 0).sum(1) == OPTIONS - 2)

    def order(self, i: int) -> list[int]:
        """Which option (0 = right) stands at each place."""
        rest = [o for o in range(OPTIONS) if o]
        return [*rest[: self.place[i]], 0, *rest[self.place[i] :]]

    def records(self) -> list[Record]:
        """Items "question", "option"; label "answer" the place of the right one."""
        made = []
        for i in range(self.n):
            origin = Origin("chains", f"item {i}", "", "CC0-1.0", "synthetic")
            text = f"Item {i}. Finding F{i} is present. Which treatment is best?"
            options = tuple(Item("text", f"treatment T{o}", origin) for o in self.order(i))
            name = f"chain-{self.seed}-{i}"
            items = {"question": (Item("text", text, origin),), "option": options}
            made.append(Record(name, name, {"modality": "question"}, items, labels={"answer": float(self.place[i])}))
        return made

    def reader(self, *, recognise: float = 0.8, samples: bool = True) -> Solver:
        """Who answers. Shown many chains, it knows the supported one on a share `recognise` of the questions, and
        follows the plurality on the others. `samples` False: it ignores temperature and seed."""
        return Solver(self, recognise, samples)


@dataclass(frozen=True, slots=True)
class Solver:
    """`solver(text, temperature, seed) -> reply`; it reads nothing but the text."""

    world: Chains
    recognise: float
    samples: bool

    def __call__(self, text: str, temperature: float, seed: int) -> str:
        """The reply to one prompt."""
        found = _ITEM.search(text)
        if found is None:
            return "There is no item here."
        i, letters = int(found[1]), {int(o): a for a, o in _OPTION.findall(text)}
        rng = np.random.default_rng([self.world.seed, i, seed if self.samples and temperature > 0 else 0, 1])
        if "explanations that were given before" in text:
            return self._refined(i, found[2], text, rng)
        option = int(rng.choice(OPTIONS, p=self.world.p[i]))  # at temperature 0 always the same path
        finding = i if option == 0 else i + 1000 * option
        mark = int(rng.integers(1 << 30))
        return f"Thought {mark}: I would say T{option} because of finding F{finding}. Answer: ({letters[option]})"

    def _refined(self, i: int, stated: str, text: str, rng: np.random.Generator) -> str:
        chains = _CHAIN.findall(text)
        said = [letter for _, letter in chains]
        supported = [letter for finding, letter in chains if finding == stated]
        able = np.random.default_rng([self.world.seed, i, 2]).random() < self.recognise
        chosen = supported[0] if able and supported else max(said, key=said.count)
        return f"Weighed {int(rng.integers(1 << 30))}. Answer: ({chosen})"
