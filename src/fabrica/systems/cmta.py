"""CMTA: slide and genes translate into each other, and the translation is held to the original, for survival."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fabrica.types import Record, Schedule, Stage, System

if TYPE_CHECKING:
    from fabrica.models import Body
    from fabrica.models.fusion_bundle import FusionBundle

READS = {"slide": ("slide",), "genes": ("omics",)}
LABEL = "survival"  # months, negative = followed so long without the event (`objectives.survival.signed`)


@dataclass(frozen=True, slots=True)
class Settings:
    """`fields` names the two sides and their kinds: "bag" (patches) or "groups" (columns by `groups`: field -> group ->
    genes; without an entry, by the letters that columns begin with). `features` of a patch, at most `patches` a visit.
    `translate` False is the baseline: late fusion of the same encoders. `alpha` weighs the alignment. In
    training a share `drop` of the sides is hidden. `bins` of time are cut at the quantiles of the training part's
    events."""

    fields: Mapping[str, Literal["bag", "groups"]] = field(default_factory=lambda: {"slide": "bag", "genes": "groups"})
    groups: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    features: int = 1024
    patches: int = 20_000
    width: int = 256
    heads: int = 8
    hidden: int = 1024
    landmarks: int = 128
    exact: int = 512
    kernel: int = 33
    position: bool = True
    dropout: float = 0.25
    join: Literal["concat", "bilinear"] = "concat"
    translate: bool = True
    alpha: float = 1.0
    drop: float = 0.0
    bins: int = 4
    lr: float = 1e-3
    weight_decay: float = 1e-5
    batch: int = 8
    steps: int = 1500


def build(settings: Settings, records: Iterable[Record]) -> FusionBundle:
    """An encoder a side, a translation each way, hazards of the bins; bins and statistics from the training part."""
    from fabrica.encode.collate import Collate, Use
    from fabrica.models import ProjectionHead, Tower
    from fabrica.models.fusion_bundle import FusionBundle
    from fabrica.models.hazards import Hazards
    from fabrica.models.translate import Translate, start
    from fabrica.objectives.survival import Bins, same_unit, unsigned

    known = list(records)
    labels = [(r, float(r.labels[LABEL])) for r in known if isinstance(r.labels.get(LABEL), (int, float))]
    time, event = unsigned([value for _, value in labels])
    sites: dict[str, list[float]] = {}
    for (record, _), t in zip(labels, time, strict=True):
        sites.setdefault(record.groups.get("source", ""), []).append(float(t))
    same_unit(sites)
    towers, uses = {}, {}
    for name, kind in settings.fields.items():
        roles = READS.get(name, (name,))
        body, encode = _side(settings, name, kind, known, roles)
        head = ProjectionHead((settings.width,), normalise=None)
        towers[name], uses[name] = Tower(body, head, pool="cls"), Use(roles, encode, 8 if kind == "bag" else 1)
    hazards = Hazards(LABEL, settings.width, Bins.fit(time, event, settings.bins))
    model = Translate(
        towers, settings.width, hazards, join=settings.join, translate=settings.translate, dropout=settings.dropout
    )
    start(model)
    return FusionBundle(model, Collate(uses, targets=(LABEL,)), {"system": "cmta", "title": SYSTEM.title})


def _side(
    settings: Settings, name: str, kind: str, known: list[Record], roles: tuple[str, ...]
) -> tuple[Body, Any]:  # fmt: skip
    from fabrica.encode.bags import BagEncode
    from fabrica.encode.groups import GroupEncode, groups_in
    from fabrica.errors import unknown
    from fabrica.models.bags import BagBody, GroupsBody

    if kind == "bag":
        body: Body = BagBody(
            settings.features, settings.width, settings.heads, landmarks=settings.landmarks, exact=settings.exact,
            kernel=settings.kernel, position=settings.position, dropout=settings.dropout,
        )  # fmt: skip
        longest = max((len(i.array()) for r in known for i in r.all(*roles)), default=1)
        return body, BagEncode(settings.features, min(settings.patches, longest), draw=longest > settings.patches)
    if kind != "groups":
        raise unknown("kind of side", kind, ("bag", "groups"))
    encode = GroupEncode.fit(known, roles, settings.groups.get(name) or groups_in(known, roles))
    members = [columns for _, columns in encode.groups]
    body = GroupsBody(
        encode.shape[0], members, settings.width, settings.heads, hidden=settings.hidden, dropout=settings.dropout
    )
    return body, encode


def stages(settings: Settings, bundle: FusionBundle) -> tuple[Stage, ...]:
    """One stage: the discrete likelihood, and alpha times the alignment of translations."""
    from fabrica.objectives.survival import Survival
    from fabrica.train.modality_dropout import ModalityDropout

    alpha = settings.alpha if settings.translate else 0.0
    fused = Survival(LABEL, tuple(settings.fields), bundle.model.heads.bins, alpha)  # type: ignore[arg-type]
    loss = ModalityDropout(fused, settings.drop, tuple(settings.fields)) if settings.drop else fused
    schedule = Schedule(settings.steps, settings.batch, settings.lr, weight_decay=settings.weight_decay)
    return (Stage("train", bundle.collate, {"survival": loss}, schedule),)


SYSTEM = System(
    seed="S87",
    title="CMTA: cross-modal translation and alignment for survival analysis",
    paper="Zhou, Chen, ICCV 2023, arXiv 2309.12855",
    claim="Slide and genes beat either alone, and translation helps where genes tell which patches count.",
    departs="Up to 512 patches are attended to exactly, more by Nystrom's approximation with segment means; the square "
    "of the position grid is filled at that step alone; the decoder of gene groups has no convolution of values. AdamW "
    "on batches with a cosine schedule instead of SGD on single patients. Bins are cut on the training part; neither "
    "epoch nor alpha is chosen on what is reported. A side that is absent is asked for by learned tokens, and its "
    "translation stands in.",
    reads=READS,
    settings={
        "paper": Settings(),
        "tiny": Settings(
            features=16, patches=256, width=16, heads=2, hidden=32, dropout=0.0, lr=5e-3, batch=32, steps=150,
        ),
        "phantom": Settings(
            features=16, patches=256, width=24, heads=2, hidden=48, kernel=0, position=False, dropout=0.1, alpha=1e-4,
            lr=3e-3, weight_decay=1e-3, batch=64, steps=200,
        ),
        "genes": Settings(
            features=16, width=32, heads=2, hidden=64, dropout=0.25, lr=1e-3, weight_decay=1e-2, batch=64, steps=80,
        ),
        "tables": Settings(
            {"genes": "groups", "copies": "groups"}, width=32, heads=2, hidden=64, dropout=0.25, lr=1e-3,
            weight_decay=1e-2, batch=64, steps=100,
        ),
    },
    build=build,
    stages=stages,
    tasks=("survival", "any_subset"),
)  # fmt: skip
