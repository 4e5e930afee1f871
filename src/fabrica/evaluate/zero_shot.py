"""Zero-shot classes from words: prompt ensembles, and the probabilities of classes and of single findings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError
from fabrica.evaluate.features import Vectors, unit

Embed = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True, slots=True)
class Prompts:
    """The words of a zero-shot task: every synonym of a class in every frame.

    `classes` label -> synonyms; `frames` hold one "{}" each; `by_group` gives frames of their own to a modality;
    `negative` are the frames that deny a finding (multi-label tasks); `full` (label -> whole sentences) replaces frames
    for a class that no frame fits, for instance "normal".

    >>> p = Prompts("1", {"effusion": ("pleural effusion",)}, ("chest X-ray showing {}",))
    >>> p.texts("effusion"), p.tag[:2]
    (('chest X-ray showing pleural effusion',), '1+')
    """

    version: str
    classes: Mapping[str, Sequence[str]]
    frames: Sequence[str] = ("an image showing {}",)
    by_group: Mapping[str, Sequence[str]] = field(default_factory=dict)
    negative: Sequence[str] = ("no {}", "no evidence of {}")
    full: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.classes:
            raise UsageError("prompts: no class given; wanted label -> synonyms")
        for label, synonyms in self.classes.items():
            if isinstance(synonyms, str) or (not synonyms and not self.full.get(label)):
                raise UsageError(f"prompts: class {label!r} has {synonyms!r}; wanted a list of at least one synonym")
        for name, frames in {"frames": self.frames, "negative": self.negative, **self.by_group}.items():
            if isinstance(frames, str) or not frames:
                raise UsageError(f"prompts: {name!r} has no frame; wanted at least one with '{{}}'")
            wrong = [f for f in frames if f.count("{}") != 1]
            if wrong:
                raise UsageError(f"prompts: frames of {name!r} without exactly one '{{}}': {wrong}")
        seen: dict[str, str] = {}
        for label, synonyms in self.classes.items():
            for word in synonyms:
                if seen.setdefault(word.lower(), label) != label:
                    raise UsageError(f"prompts: {word!r} names both {seen[word.lower()]!r} and {label!r}")

    @property
    def tag(self) -> str:
        """Version and a hash of every character: two cards with one tag asked the same words."""
        body = [
            {k: list(v) for k, v in m.items()} for m in (self.classes, self.by_group, self.full)
        ] + [list(self.frames), list(self.negative)]  # fmt: skip
        digest = hashlib.sha256(json.dumps(body, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
        return f"{self.version}+{digest[:8]}"

    def texts(self, label: str, group: str = "", *, deny: bool = False) -> tuple[str, ...]:
        """All prompts of a class for a modality; `deny` gives those that say it is absent."""
        if label not in self.classes:
            raise UsageError(f"prompts {self.version!r} have no class {label!r}; they have {', '.join(self.classes)}")
        if self.full.get(label) and not deny:
            return tuple(self.full[label])
        frames = self.negative if deny else self.by_group.get(group, self.frames)
        return tuple(frame.replace("{}", word) for frame in frames for word in self.classes[label])


def class_weights(embed: Embed, sets: Sequence[Sequence[str]]) -> Vectors:
    """(classes, d): w_c = unit(mean_j unit(text(p_j(c)))), the prompt ensemble of Radford et al. 2021, 3.1.4."""
    if not sets or any(not s for s in sets):
        raise UsageError("zero-shot: a class without prompts; wanted at least one text for each class")
    flat = [text for texts in sets for text in texts]
    rows = unit(embed(flat))
    starts = np.cumsum([0, *(len(s) for s in sets)])
    return unit(np.stack([rows[a:b].mean(0) for a, b in pairwise(starts)]))


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Over the last axis, stable.

    >>> softmax(np.array([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    shifted = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


def class_probabilities(
    vectors: Vectors, embed: Embed, prompts: Prompts, labels: Sequence[str], *, group: str = "", scale: float = 100.0
) -> NDArray[np.float64]:
    """(n, classes) of unit image vectors (n, d): softmax over classes of scale x cosine."""
    weights = class_weights(embed, [prompts.texts(label, group) for label in labels])
    return softmax(scale * (vectors @ weights.T).astype(np.float64))


def label_probabilities(
    vectors: Vectors, embed: Embed, prompts: Prompts, labels: Sequence[str], *, group: str = "", scale: float = 100.0
) -> NDArray[np.float64]:
    """(n, labels): for each label the softmax of its positive against its negative prompt ensemble."""
    yes = class_weights(embed, [prompts.texts(label, group) for label in labels])
    no = class_weights(embed, [prompts.texts(label, group, deny=True) for label in labels])
    return softmax(scale * np.stack([vectors @ no.T, vectors @ yes.T], -1).astype(np.float64))[..., 1]
