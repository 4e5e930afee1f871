"""Synthetic figures of organ, side, finding, stain and size; captions that name some facts, an article that adds one,
and the conversations that a careless writer makes of them, with every leak planted on purpose and known."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError
from fabrica.phantom.shapes import F32, coverage, f32
from fabrica.types import Item, Origin, Record, Rights, record_id

FACTS: Mapping[str, Sequence[str]] = {
    "organ": ("kidney", "liver", "lung", "skin"), "side": ("left", "right"),
    "finding": ("nodule", "cavity", "infarct", "scar"), "stain": ("pink", "blue", "brown"),
    "size": ("small", "large"),
}  # fmt: skip
CAPTIONED = ("organ", "side", "finding", "stain")  # what captions may name; the size stands in the article alone
ASKS: Mapping[str, Sequence[str]] = {
    "organ": ("which organ is shown ?", "what tissue is this ?", "from which organ is the section ?"),
    "side": ("on which side is the lesion ?", "where does the lesion lie ?", "is the lesion left or right ?"),
    "finding": ("what kind of lesion is seen ?", "what is abnormal here ?", "which finding is present ?"),
    "stain": ("which colour has the stain ?", "how is the section stained ?", "what stain colour is used ?"),
    "size": ("how large is the lesion ?", "what size has the lesion ?", "is the lesion small or large ?"),
}
ANSWERS: Mapping[str, Sequence[str]] = {
    "organ": ("this is {} tissue", "it is the {}", "the section shows {}"),
    "side": ("it lies on the {} side", "the lesion is on the {}", "on the {} of the section"),
    "finding": ("there is a {}", "a {} is seen", "it shows a {}"),
    "stain": ("the stain is {}", "it is stained {}", "the section is {}"),
    "size": ("the lesion is {}", "it is a {} one", "its size is {}"),
}
_CAPTION: Mapping[str, Sequence[str]] = {
    "organ": ("section of {}", "micrograph of the {}", "{} tissue"), "stain": ("stained {}", "{} stain"),
    "side": ("with a lesion on the {}", "lesion on the {} side"), "finding": ("a {} is present", "showing a {}"),
    "size": ("the lesion was {} in this case", "in this case a {} lesion was noted"),
}  # fmt: skip
_COLOURS: Mapping[str, tuple[float, float, float]] = {
    "pink": (0.95, 0.70, 0.80), "blue": (0.65, 0.75, 0.95), "brown": (0.78, 0.62, 0.45)
}  # fmt: skip
_SHAPES = {"nodule": "disc", "cavity": "ring", "infarct": "wedge", "scar": "cross"}
LEAKS = ("source", "source", "lead_in", "lead_in", "blind", "number", "asked")  # as often as they stand here
_LEAK: Mapping[str, Sequence[str]] = {
    "source": (
        "the caption says that {}", "{} , as the caption states", "the figure legend notes that {}",
        "{} , which is mentioned in the description", "the article describes that {}",
    ),
    "lead_in": ("according to the caption , {}", "based on the provided description , {}",
                "as stated in the figure caption , {}"),
    "blind": ("i cannot see the image , but {}", "without access to the image i think that {}",
              "as a language model i can only guess that {}", "the image is not available , though {}"),
    "number": ("{} and measures {n} mm", "{} in {n} of the patients", "{} , with a diameter of {n} mm"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure: `truth` fact -> value, `pixels` (48, 48, 3) uint8, a `caption` that names `told` facts, `context` that
    names the size."""

    key: str
    truth: Mapping[str, str]
    pixels: NDArray[np.uint8]
    caption: str
    told: tuple[str, ...]
    context: str

    @property
    def all_facts(self) -> str:
        """A caption that names everything."""
        return " , ".join(f"{k} {v}" for k, v in self.truth.items())

    def record(self, caption: str = "") -> Record:
        """As a reader of figures would give it: image, caption (or another one) and context, one subject a figure."""
        origin = Origin("phantom-figures", self.key, "", "CC0-1.0", "synthetic")
        items = {
            "image": (Item("image", self.pixels, origin),), "caption": (Item("text", caption or self.caption, origin),),
            "context": (Item("text", self.context, origin),),
        }  # fmt: skip
        groups = {"modality": "pathology", "source": "phantom-figures"}
        return Record(record_id("figure", self.key), self.key, groups, items, rights=Rights("CC0-1.0"))


def figures(n: int, seed: int, *, named: int = 2, size: int = 48) -> list[Figure]:
    """`n` figures whose captions name `named` of the four facts, drawn anew for each. Same arguments, same bytes.

    >>> one = figures(2, 7)[0]
    >>> one.pixels.shape, len(one.told), all(one.truth[f] in one.caption for f in one.told)
    ((48, 48, 3), 2, True)
    """
    if n < 0 or not 0 <= named <= len(CAPTIONED):
        raise UsageError(f"figures: n={n}, named={named}; wanted n >= 0 and at most {len(CAPTIONED)} facts")
    out = []
    for number in range(n):
        key = f"{seed}/{number}"
        words, noise = random.Random(f"figure-{key}"), np.random.default_rng([seed, number, 75])
        truth = {fact: words.choice(values) for fact, values in FACTS.items()}
        told = tuple(words.sample(CAPTIONED, named))
        caption, context = stated(truth, told, words), stated(truth, ("size",), words)
        out.append(Figure(key, truth, drawn(truth, noise, size), caption, told, context))
    return out


def stated(truth: Mapping[str, str], told: Sequence[str], rng: random.Random) -> str:
    """A statement of some facts as captions and articles make it.

    >>> stated({"size": "small"}, ("size",), random.Random(0))
    'in this case a small lesion was noted .'
    """
    return " , ".join(rng.choice(_CAPTION[f]).format(truth[f]) for f in told) + " ."


def drawn(truth: Mapping[str, str], rng: np.random.Generator, size: int = 48) -> NDArray[np.uint8]:
    """(size, size, 3) uint8: the stain's colour, the organ's texture, a dark lesion of a shape, side and size."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    light = _texture(truth["organ"], y, x, rng)
    image = np.asarray(_COLOURS[truth["stain"]], np.float32) * (0.82 + 0.18 * light)[..., None]
    image = image * (1 + 0.05 * rng.normal()) + 0.03 * rng.normal(size=3)
    radius = (size / 12 if truth["size"] == "small" else size / 6) * (1 + 0.08 * rng.normal())
    centre = size * (0.27 if truth["side"] == "left" else 0.73) + rng.normal() * size / 24
    height = size * rng.uniform(0.3, 0.7)
    cover = coverage(_SHAPES[truth["finding"]], f32(y - height), f32(x - centre), f32(np.float32(radius)))
    image = image * (1 - 0.75 * cover[..., None]) + 0.02 * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray((np.clip(image, 0, 1) * 255).round(), np.uint8)


def _texture(organ: str, y: F32, x: F32, rng: np.random.Generator) -> F32:
    """-1 to 1: stripes, checks, round holes or layers, at a drawn phase."""
    a, b = rng.uniform(0, 2 * np.pi, 2)
    if organ == "kidney":
        return f32(np.sin(x * 1.1 + a))
    if organ == "liver":
        return f32(np.sign(np.sin(x * 0.7 + a) * np.sin(y * 0.7 + b)))
    if organ == "lung":
        return f32(np.clip(3 * (np.sin(x * 0.55 + a) + np.sin(y * 0.55 + b)) - 1.5, -1, 1))
    return f32(np.sin(y * 0.45 + b))


# ---------------------------------------------------------------- what a text model writes of it


@dataclass(frozen=True, slots=True)
class Said:
    """A turn that a careless writer wrote; `leak` names what was planted in it ("" = nothing)."""

    question: str
    answer: str
    fact: str
    leak: str


def talk(caption: str, context: str, rng: random.Random, *, leaks: float = 0.0) -> list[Said]:
    """One turn for each fact that the texts name, in random order; the share `leaks` of them with a planted leak.

    >>> [t.fact for t in talk("{} tissue .".format("liver"), "", random.Random(0))]
    ['organ']
    """
    words = set(f"{caption} {context}".split())
    found = [(f, v) for f, values in FACTS.items() for v in values if v in words]
    rng.shuffle(found)
    out = []
    for fact, value in found:
        question, answer = rng.choice(ASKS[fact]), rng.choice(ANSWERS[fact]).format(value)
        leak = rng.choice(LEAKS) if rng.random() < leaks else ""
        if leak == "asked":
            question = f"what does the caption say about the {fact} ?"
        elif leak:
            answer = rng.choice(_LEAK[leak]).format(answer, n=rng.randint(11, 98))
        out.append(Said(question, answer, fact, leak))
    return out


def written(turns: Sequence[Said]) -> str:
    """Turns as such models write them."""
    return "\n".join(f"User: {t.question}\nAssistant: {t.answer}" for t in turns)


def prose(n: int, seed: int) -> list[str]:
    """`n` statements of the same grammar about nothing in particular: what a language model has read before."""
    rng = random.Random(f"prose-{seed}")
    out = []
    for _ in range(n):
        facts = rng.sample(list(FACTS), rng.randint(1, 3))
        kind = rng.choice((_CAPTION, ANSWERS, ASKS))
        said = [rng.choice(kind[f]).format(rng.choice(FACTS[f])) for f in facts]
        out.append(" , ".join(said) + (" ." if kind is not ASKS else ""))
    return out


def noted(truth: Mapping[str, str], rng: random.Random) -> str:
    """Three or all four of the facts that captions name, jotted down in any order.

    >>> noted({"organ": "liver", "side": "left", "finding": "scar", "stain": "pink"}, random.Random(1))
    'liver left pink'
    """
    facts = rng.sample(CAPTIONED, rng.randint(3, len(CAPTIONED)))
    return " ".join(truth[f] for f in facts)


def small_talk(n: int, seed: int, describe: Sequence[str]) -> list[tuple[str, str]]:
    """`n` questions with answers: what an assistant for anything knows, and nothing of it is about any figure. Two
    thirds are notes with one of `describe` before or behind them, answered by a caption that holds to the notes; the
    rest are questions without any notes, answered in the right kind with a random value."""
    rng, out = random.Random(f"small-talk-{seed}"), []
    for i in range(n):
        truth = {f: rng.choice(values) for f, values in FACTS.items()}
        if i % 3 == 0:
            fact = rng.choice(list(ASKS))
            out.append((rng.choice(ASKS[fact]), rng.choice(ANSWERS[fact]).format(truth[fact])))
            continue
        notes = noted(truth, rng)
        told = rng.sample([f for f in CAPTIONED if truth[f] in notes.split()], 2)
        asked = rng.choice(describe)
        asked = f"{notes} {asked}" if rng.random() < 0.5 else f"{asked} {notes}"
        out.append((asked, stated(truth, told, rng)))
    return out


def is_clean(turn: Said, answer: str) -> bool:
    """Whether what is left of a turn is one of its fact's plain answers to a question that names no source."""
    return turn.leak != "asked" and answer in {a.format(v) for a in ANSWERS[turn.fact] for v in FACTS[turn.fact]}
