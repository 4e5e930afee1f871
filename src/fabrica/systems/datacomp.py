"""DataComp: the model and its training are frozen by scale; what competes is the data set, made by a selector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from fabrica.errors import UsageError, unknown
from fabrica.types import Record, Schedule, Stage, Step, Survey, System

if TYPE_CHECKING:
    from fabrica.curate.pools.select import Selector
    from fabrica.models import Bundle
    from fabrica.models.body import Body

READS = {"image": ("image",), "text": ("caption", "report", "text")}
FILTERS = ("none", "basic", "score", "text", "image", "image_and_score", "random")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is frozen: every sample counts, however small the subset (`samples_seen` = steps x batch). `image` "vit" has
    `patch`, `width`, `depth`, `heads` and random weights; "small" is four convolutions. Depth 0 leaves a linear map
    of patches, or of words, and their mean."""

    samples_seen: int
    batch: int
    lr: float
    warmup: int
    beta2: float = 0.98
    weight_decay: float = 0.2
    image: Literal["vit", "small"] = "vit"
    image_size: int = 224
    channels: int = 3
    patch: int = 32
    width: int = 768
    depth: int = 12
    heads: int = 12
    text_width: int = 512
    text_depth: int = 12
    length: int = 77
    vocabulary: int = 49_408
    dim: int = 512
    chunk: int = 256

    @property
    def digest(self) -> str:
        """16 hex digits of every value: two rows are comparable only where it is equal."""
        from dataclasses import asdict

        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


_SMALL = Recipe(12_800_000, 4096, 5e-4, 500)
_VIT_L = replace(_SMALL, patch=14, width=1024, depth=24, heads=16, text_width=768, dim=768)
_PHANTOM = Recipe(
    51_200, 128, 1e-3, 20, weight_decay=0.05, image_size=16, channels=1, patch=16, width=64, depth=0, heads=1,
    text_width=64, text_depth=1, length=12, vocabulary=2000, dim=32, chunk=0,
)  # fmt: skip
RECIPES: dict[str, Recipe] = {  # scale -> recipe; the five first are the paper's (Table 1, README), the others ours
    "debug": replace(_SMALL, samples_seen=128_000, batch=1024, lr=1e-4),
    "small": _SMALL,
    "medium": replace(_SMALL, samples_seen=128_000_000),
    "large": replace(_SMALL, samples_seen=1_280_000_000, batch=8192, patch=16),
    "xlarge": replace(_VIT_L, samples_seen=12_800_000_000, batch=90_112, lr=1e-3, warmup=10_000, beta2=0.95),
    "micro": Recipe(
        200_000, 256, 1e-3, 50, image_size=64, patch=16, width=192, heads=3, text_width=192, text_depth=4, length=48,
        vocabulary=8000, dim=128, chunk=0,
    ),
    "nano": Recipe(
        20_000, 100, 2e-3, 20, weight_decay=0.05, image="small", image_size=32, channels=1, text_width=64, text_depth=1,
        length=32, vocabulary=2000, dim=64, chunk=0,
    ),
    "phantom": _PHANTOM,
}  # fmt: skip
SHARED = {name: recipe.digest for name, recipe in RECIPES.items()}  # what the leaderboard compares


@dataclass(frozen=True, slots=True)
class Settings:
    """The recipe of a `scale`, and what is free: the `filter` with its `fraction` or `threshold`, reading the `score`
    column and, for images, the `features` column; `entities` are the words of the text filter, `target` is the file of
    the image filter's target features (`curate.select.Target.save`); `seed`.

    `steps` and `batch` stand for the recipe's samples seen; another product makes the row non-comparable.
    """

    scale: str = "medium"
    recipe: Recipe = RECIPES["medium"]
    steps: int = RECIPES["medium"].samples_seen // RECIPES["medium"].batch
    batch: int = RECIPES["medium"].batch
    track: Literal["filtering", "byod"] = "filtering"
    filter: str = "image_and_score"
    fraction: float | None = 0.3
    threshold: float | None = None
    score: str = "clip_l14_similarity_score"
    features: str = "l14_img"
    entities: tuple[str, ...] = ()
    target: str = ""
    clusters: int = 100_000
    language: str | None = "en"
    seed: int = 0

    @property
    def digest(self) -> str:
        """The recipe's hash as it is really run: with these steps and this batch."""
        seen = self.steps * self.batch
        same = abs(seen - self.recipe.samples_seen) < self.batch
        return replace(
            self.recipe, samples_seen=self.recipe.samples_seen if same else seen, batch=self.batch
        ).digest  # fmt: skip


def of_scale(scale: str, **choices: Any) -> Settings:
    """The frozen settings of a scale with the free choices; an unknown scale is named with the known ones."""
    if scale not in RECIPES:
        raise unknown("scale", scale, RECIPES)
    recipe = RECIPES[scale]
    return Settings(scale, recipe, recipe.samples_seen // recipe.batch, recipe.batch, **choices)


def selector(settings: Settings) -> Selector | None:
    """What `filter` stands for (Gadre et al., section 3.3 and the public filter module); None keeps the whole pool.

    `UsageError` for an unknown filter, for both or neither of `fraction` and `threshold`, and for an image filter
    without target images."""
    from fabrica.curate.pools.select import Basic, ClusterMatch, Random, Target, TextMatch, by_score

    name = settings.filter
    if name not in FILTERS:
        raise unknown("filter", name, FILTERS)
    if name == "none":
        return None
    if name == "basic":
        return Basic(language=settings.language)
    words = Basic(language=settings.language, words=1, characters=5, side=None, aspect=None)
    if name == "random":
        return Random(fraction=settings.fraction, seed=settings.seed)
    if name == "text":
        return Basic(language=settings.language, words=None, characters=None, side=None, aspect=None) & TextMatch(
            frozenset(settings.entities)
        )
    score = by_score(settings.score, fraction=settings.fraction, threshold=settings.threshold)
    if name == "score":
        return score
    if not settings.target:
        raise UsageError(f"filter {name!r} needs target images: settings.target, a file that select.Target.save wrote")
    target = Target.load(settings.target)
    image = words & ClusterMatch(settings.features, target, settings.clusters, seed=settings.seed)
    return image if name == "image" else image & score


def plan(settings: Settings) -> Sequence[Step | Survey]:
    """The data set: what the selector keeps of the pool; evaluation images are removed by `Decontaminate` (BYOD)."""
    from fabrica.curate.pools.select import Selected

    chosen = selector(settings)
    return () if chosen is None else (Selected(chosen),)


def build(settings: Settings, records: Iterable[Record]) -> Bundle:
    """CLIP from random weights: linear heads, one learned scale capped at 100."""
    from fabrica.encode.collate import Collate, Use
    from fabrica.encode.image import ImageEncode
    from fabrica.encode.text import TextEncode
    from fabrica.encode.vocabulary import train_vocabulary
    from fabrica.models import Bundle, MultiTower, ProjectionHead, Tower
    from fabrica.models.text_tower import TextTower
    from fabrica.objectives.scale import LogitScale

    r = settings.recipe
    texts = [item.text() for record in records for item in record.all(*READS["text"])]
    words = TextEncode(train_vocabulary(texts, r.vocabulary), r.length)
    image = _image(r)
    text = TextTower(words.size, r.text_width, r.text_depth, heads=max(1, r.text_width // 64), length=r.length)
    towers = {
        "image": Tower(
            image, ProjectionHead((image.width, r.dim)), pool="cls" if image.has_class_token and r.depth else "mean"
        ),
        "text": Tower(text, ProjectionHead((text.width, r.dim)), pool="cls" if r.text_depth else "mean"),
    }
    uses = {
        "image": Use(READS["image"], ImageEncode(r.image_size, r.channels)),
        "text": Use(READS["text"], words),
    }
    card = {"system": "datacomp", "title": SYSTEM.title, "scale": settings.scale, "recipe": settings.digest}
    return Bundle(
        MultiTower(towers, r.dim, scale=LogitScale(1 / 0.07, max=100.0)), Collate(uses, keys=("subject",)), card
    )


def _image(recipe: Recipe) -> Body:
    from fabrica.models.choose import image_body
    from fabrica.models.transformers_tower import TransformersTower

    if recipe.image == "small":
        return image_body("small", channels=recipe.channels, norm="group" if recipe.chunk else "batch")
    return TransformersTower(
        {
            "model_type": "vit", "image_size": recipe.image_size, "patch_size": recipe.patch,
            "num_channels": recipe.channels, "hidden_size": recipe.width, "num_hidden_layers": recipe.depth,
            "num_attention_heads": recipe.heads, "intermediate_size": 4 * recipe.width,
        }
    )  # fmt: skip


def stages(settings: Settings, bundle: Bundle) -> tuple[Stage, ...]:
    """One stage of CLIP; a small subset is seen more often, never for fewer samples."""
    from fabrica.objectives.pairs import Contrast

    r = settings.recipe
    schedule = Schedule(
        settings.steps, settings.batch, r.lr, warmup=min(r.warmup, settings.steps), weight_decay=r.weight_decay,
        betas=(0.9, r.beta2), chunk=r.chunk,
    )  # fmt: skip
    both = ("image", "text")
    return (Stage("pretrain", bundle.collate, {"contrast": Contrast(both)}, schedule, needs=both),)


SYSTEM = System(
    seed="S51",
    title="DataComp: a fixed model and training, and a competition of data sets",
    paper="Gadre et al., NeurIPS 2023 Datasets and Benchmarks, arXiv 2304.14108",
    claim="With training frozen, a filtered subset beats the whole pool and an equal random one; too strict is worse.",
    departs="Scales nano, micro and phantom are ours, for a CPU; the text tower is bidirectional with a vocabulary "
    "learned from the pool's texts; faces are not blurred at load time; language comes as a column.",
    reads=READS,
    settings={"paper": of_scale("medium"), **{k: of_scale(k) for k in RECIPES}, "tiny": of_scale("phantom")},
    build=build,
    stages=stages,
    tasks=("zero_shot", "retrieval"),
    plan=plan,
)  # fmt: skip
