"""A synthetic textbook of made-up drugs, tasks that ask about it, and abstracts that may or may not say the answer.

Each drug is for one condition, of one class, and helps, does not help, or is doubtful there. The textbook says so of
all drugs; instructions and the target task are trained on two thirds of them, so that what is asked of the rest must
come from the textbook. Target: yes, no or maybe from a two-sentence abstract; in half of the abstracts the second
sentence gives the answer (its own finding, drawn anew), in the others it gives none and the textbook decides.
Articles, which a medical pre-training reads beside books, report such findings of the drugs that are taught, each with
its conclusion; they are drawn apart from what the textbook says of the drug.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from fabrica.types import Item, Origin, Record

VERDICTS = ("yes", "no", "maybe")
CLASSES = ("blocker", "booster", "binder", "sealant")
TASKS = ("dialogue", "question", "reasoning", "choice", "extraction", "summary")
FOUND = {
    "yes": ("symptoms improved clearly", "most patients got better", "the benefit was large"),
    "no": ("symptoms did not change", "no patient got better", "there was no benefit"),
    "maybe": ("results were mixed", "findings were not clear", "the benefit was uncertain"),
}
SILENT = ("follow up took eight weeks", "doses were given at night", "two centres took part")
_SAYS = {
    "yes": ("works", "helps", "is effective"),
    "no": ("fails", "is useless", "is ineffective"),
    "maybe": ("is doubtful", "is unproven", "is debated"),
}
_GENERAL = (
    ("the baker", "a farmer", "my neighbour", "the teacher", "a sailor", "the old painter"),
    ("bought", "sold", "found", "painted", "carried", "lost"),
    ("a red boat", "two loaves", "the garden gate", "a warm coat", "some apples", "an old clock"),
    ("in the morning", "near the river", "after the rain", "at the market", "before winter", "on the hill"),
)


@dataclass(frozen=True, slots=True)
class Drug:
    """One drug and what is known of it."""

    name: str
    condition: str
    kind: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Textbook:
    """`drugs` made-up drugs; the first two thirds are `taught` (asked about in training), the rest `kept`. With
    `shuffled` the book's verdicts say nothing of the drugs' own: the control in which there is nothing to learn.

    >>> book = Textbook(6, seed=0)
    >>> len(book.taught), len(book.kept)
    (4, 2)
    """

    drugs: int
    seed: int
    known: tuple[Drug, ...] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 720])
        names = _words(rng, self.drugs + 8)
        verdicts = rng.permutation(np.resize(VERDICTS, self.drugs))
        known = [
            Drug(n, names[int(rng.integers(8))], str(rng.choice(CLASSES)), str(v))
            for n, v in zip(names[8:], verdicts, strict=True)
        ]
        object.__setattr__(self, "known", tuple(known))

    @property
    def taught(self) -> tuple[Drug, ...]:
        """What instructions and the training part of the target ask about."""
        return self.known[: 2 * self.drugs // 3]

    @property
    def kept(self) -> tuple[Drug, ...]:
        """What only the textbook tells."""
        return self.known[2 * self.drugs // 3 :]

    def book(self, *, shuffled: bool = False) -> list[Record]:
        """The textbook: every fact in several wordings, as plain text."""
        known: Sequence[Drug] = self.known
        if shuffled:
            known = [*self._mixed(self.taught, 0), *self._mixed(self.kept, 1)]
        return [_text(f"book-{i}", "book", said) for i, said in enumerate(s for d in known for s in _chapters(d))]

    def _mixed(self, drugs: Sequence[Drug], part: int) -> list[Drug]:
        """The drugs with verdicts that say nothing of their own: those of one verdict get all three, as evenly as their
        number allows."""
        rng, made = np.random.default_rng([self.seed, 721, part]), dict[str, Drug]()
        left: list[str] = []  # one deck goes on through the classes, so that what is uneven evens out
        for verdict in VERDICTS:
            for d in drugs:
                if d.verdict == verdict:
                    left = left or [str(v) for v in rng.permutation(VERDICTS)]
                    made[d.name] = Drug(d.name, d.condition, d.kind, left.pop())
        return [made[d.name] for d in drugs]

    def articles(self, n: int) -> list[Record]:
        """`n` abstracts of trials of the drugs that are taught as plain text: a finding, drawn anew, and what doctors
        concluded from it. Neither the textbook's verdicts nor the target's questions stand in them."""
        rng = np.random.default_rng([self.seed, 726])
        made = []
        for i in range(n):
            d, verdict = self.taught[int(rng.integers(len(self.taught)))], VERDICTS[i % 3]
            said = f"abstract : patients with {d.condition} took {d.name} . {rng.choice(FOUND[verdict])} . "
            made.append(_text(f"article-{i}", "article", f"{said}they said {verdict} ."))
        return made

    def general(self, n: int, *, part: int = 0) -> list[Record]:
        """`n` sentences on everyday things; another `part` shares no draw."""
        rng = np.random.default_rng([self.seed, 722, part])
        said = (" ".join(str(rng.choice(words)) for words in _GENERAL) + " ." for _ in range(n))
        return [_text(f"general-{part}-{i}", "general", s) for i, s in enumerate(said)]

    def instructions(self, n: int) -> list[Record]:
        """`n` instructions of six kinds about the drugs that are taught, in turn."""
        rng = np.random.default_rng([self.seed, 723])
        made = []
        for i in range(n):
            task = TASKS[i % len(TASKS)]
            drug = self.taught[int(rng.integers(len(self.taught)))]
            prompt, answer = _instruction(task, drug, rng)
            made.append(_asked(f"{task}-{i}", task, prompt, answer))
        return made

    def target(self, n: int, *, kept: bool, part: int = 0) -> list[Record]:
        """`n` abstracts with their question and answer, about the drugs that are `kept` or those that are taught; group
        "told" is "abstract" or "textbook". Verdicts are balanced."""
        rng = np.random.default_rng([self.seed, 724, part, int(kept)])
        drugs = self.kept if kept else self.taught
        by = {v: [d for d in drugs if d.verdict == v] for v in VERDICTS}
        made = []
        for i in range(n):
            told, verdict = i % 2 == 0, VERDICTS[(i // 2) % 3]
            pool = drugs if told else by[verdict]
            drug = pool[int(rng.integers(len(pool)))]
            second = str(rng.choice(FOUND[verdict])) if told else str(rng.choice(SILENT))
            prompt = (
                f"abstract : patients with {drug.condition} took {drug.name} . {second} . "
                f"question : does {drug.name} help in {drug.condition} ? answer :"
            )
            record = _asked(f"target-{int(kept)}-{part}-{i}", "target", prompt, verdict)
            groups = {**record.groups, "told": "abstract" if told else "textbook"}
            made.append(record.updated(groups=groups))
        return made

    def related(self, n: int, task: int, *, kept: bool = False, part: int = 0) -> list[Record]:
        """`n` questions of one of four related tasks (0 to 3), told apart by nothing but the task itself: does it help,
        does it not help, is it settled, what does the book say."""
        rng = np.random.default_rng([self.seed, 725, task, part, int(kept)])
        drugs = self.kept if kept else self.taught
        made = []
        for i in range(n):
            drug = drugs[int(rng.integers(len(drugs)))]
            v = drug.verdict
            turned = {"yes": "no", "no": "yes", "maybe": "maybe"}
            said = {"yes": "helps", "no": "fails", "maybe": "doubtful"}
            answer = (v, turned[v], "no" if v == "maybe" else "yes", said[v])[task]
            prompt = f"about {drug.name} in {drug.condition} : answer :"
            record = _asked(f"related-{task}-{int(kept)}-{part}-{i}", f"related-{task}", prompt, answer)
            made.append(record.updated(labels={"task": float(task)}))
        return made


def _chapters(d: Drug) -> Iterator[str]:
    for says in _SAYS[d.verdict]:
        yield f"{d.name} is a {d.kind} . it {says} in {d.condition} ."
        yield f"{d.name} {says} in {d.condition} ."
        yield f"in {d.condition} the {d.kind} {d.name} {says} ."
        yield f"doctors say that {d.name} {says} in {d.condition} ."
    yield f"asked if {d.name} helps in {d.condition} , doctors said {d.verdict} ."  # questions turned into text
    yield f"does {d.name} help in {d.condition} ? they said {d.verdict} ."


def _instruction(task: str, d: Drug, rng: np.random.Generator) -> tuple[str, str]:
    says = str(rng.choice(_SAYS[d.verdict]))
    if task == "dialogue":
        return f"patient : should i take {d.name} for {d.condition} ? doctor :", f"{d.name} {says} in {d.condition} ."
    if task == "question":
        return f"question : does {d.name} help in {d.condition} ? answer :", d.verdict
    if task == "reasoning":
        return f"explain : does {d.name} help in {d.condition} ? :", f"{d.name} {says} , so {d.verdict} ."
    if task == "choice":
        order = [str(c) for c in rng.permutation(CLASSES)]
        return f"choose : {d.name} is a {' or '.join(order)} ? answer :", d.kind
    if task == "extraction":
        return f"find the drug : {d.name} {says} in {d.condition} . answer :", d.name
    text = f"{d.name} is a {d.kind} . it {says} in {d.condition} ."
    return f"shorten : {text} answer :", f"{d.name} {says} ."


def _text(name: str, task: str, text: str) -> Record:
    origin = Origin("textbook", name, "", "CC0-1.0", "synthetic")
    return Record(name, name, {"modality": "text", "task": task}, {"answer": (Item("text", text, origin),)})


def _asked(name: str, task: str, prompt: str, answer: str) -> Record:
    made = _text(name, task, answer)
    origin = made.items["answer"][0].origin
    return made.updated(items={"prompt": (Item("text", prompt, origin),), **made.items})


def _words(rng: np.random.Generator, n: int) -> list[str]:
    """Made-up words, all different."""
    parts = ("ba", "do", "fi", "gu", "ke", "lo", "mi", "nu", "pe", "ra", "si", "to", "vu", "xe", "za")
    words: dict[str, None] = {}
    while len(words) < n:
        words["".join(str(p) for p in rng.choice(parts, 3)) + str(rng.choice(("x", "n", "l")))] = None
    return list(words)
