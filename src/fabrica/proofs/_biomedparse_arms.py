"""The arms of BiomedParse's proof, how they train, and what is measured on their answers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.proofs import Plan
from fabrica.types import Record

if TYPE_CHECKING:
    from fabrica.encode.stretch import StretchEncode
    from fabrica.models.dense_bundle import DenseBundle
    from fabrica.models.prompt_bundle import PromptBundle, Said

TEXT, NETS, BOX, BOUND, NEW = (
    "text prompts, one model",
    "a U-Net for each object",
    "true box, Otsu's threshold",
    "true box, best threshold",
    "unheard synonym",
)
ALPHA = 0.05  # an object with a smaller p-value is said to be absent
# Of 0.001, 0.003, 0.01 on seeds 100 and 101. The text model's is its decoder's; encoder and words have 0.003.
RATE = {TEXT: 1e-3, NETS: 1e-2}
SMALL_BATCH = 4  # of the specialists: as many images as the one model sees of theirs, in more steps

Rows = dict[str, list[Any]]


def ontology() -> Any:
    """The phantom's twelve objects; the unheard synonyms are not in it."""
    from fabrica.curate.ontology import Ontology, Thing
    from fabrica.phantom.objects import named

    return Ontology(tuple(Thing(n.name, ((n.modality, n.anatomy),), n.synonyms) for n in named()))


def fitted(
    train: Sequence[Record], seed: int, plan: Plan, *, mix_by: str | None = None, **changes: Any
) -> PromptBundle:
    """The system's tiny preset with `changes`, trained."""
    import torch

    from fabrica.systems import load_system
    from fabrica.train import fit

    system = load_system("biomedparse")
    settings = replace(system.settings["tiny"], **changes)
    settings = replace(settings, warmup=warm(settings.steps))
    torch.manual_seed(seed)
    bundle: PromptBundle = system.build(settings, train)
    # a sixth less time on a CPU, the same numbers up to rounding
    bundle.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stages = [replace(s, mix_by=mix_by, mix_temperature=1e6) for s in system.stages(settings, bundle)]
    with tempfile.TemporaryDirectory() as out:
        fit(bundle, stages, list(train), out, seed=seed, device=plan.device, save_every=0)
    bundle.model.to("cpu").eval()
    return bundle


def warm(steps: int) -> int:
    """Steps of rising rate, every learned arm."""
    return min(100, steps // 4)


@dataclass(frozen=True, slots=True)
class Training:
    """How a specialist trains: `images` in all on a `grid`, and the `net`'s widths."""

    seed: int
    images: int
    grid: StretchEncode
    net: Mapping[str, Any]
    device: str = "cpu"


def specialist(train: Sequence[Record], names: Sequence[str], how: Training) -> DenseBundle:
    """A U-Net that knows the objects `names`: the prompted model's loss of a mask, but over all pixels, which suits it
    better than uncertain points (all modalities of seeds 101 and 103)."""
    import torch

    from fabrica.encode.collate import Use
    from fabrica.encode.masks import MaskCollate, MaskTarget
    from fabrica.models.dense import DenseModel
    from fabrica.models.dense_bundle import DenseBundle
    from fabrica.models.gated_unet import GatedUNet
    from fabrica.objectives.present import Present
    from fabrica.train import InMemory, fit
    from fabrica.types import Schedule, Stage

    torch.manual_seed(how.seed)
    collate = MaskCollate(
        {"image": Use(("image",), how.grid)}, masks={"mask": MaskTarget(("background", *names))}
    )  # fmt: skip
    net = GatedUNet(3, 1 + len(names), **how.net, gates="none", norm="batch")
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    bundle = DenseBundle(DenseModel({"net": net}), collate)
    steps = max(1, how.images // SMALL_BATCH)
    plan = Schedule(steps, SMALL_BATCH, RATE[NETS], warmup=warm(steps), weight_decay=0.05, clip=1.0)
    stage = Stage("mask", collate, {"net": Present("mask")}, plan)
    with tempfile.TemporaryDirectory() as out:
        fit(bundle, [stage], InMemory.of(list(train), collate), out, seed=how.seed, device=how.device, save_every=0)
    bundle.model.to("cpu").eval()
    return bundle


def asked(bundle: PromptBundle, record: Record, names: Sequence[str]) -> Said:
    """The answer to an image's own objects by their names, in the words of its own modality."""
    from fabrica.curate.ontology import place

    item = record.first("image")
    assert item is not None
    return bundle.ask(item, [bundle.collate.ontology.prompts(n, *place(record))[0] for n in names])


def calibrated(bundle: PromptBundle, train: Sequence[Record], held: Sequence[Record]) -> Any:
    """What objects look like by the answers on training images, and the p-values of held-out ones."""
    from fabrica.evaluate.absence import Absence, BetaCheck, statistics

    def rows(records: Sequence[Record]) -> list[tuple[tuple[str, str], NDArray[np.float64]]]:
        made = []
        for record in records:
            there = [n for n, mask in bundle.collate.labelled(record).items() if mask.any()]
            said = asked(bundle, record, there)
            made += [
                ((record.groups["modality"], n), statistics(s, said.image))
                for n, s in zip(there, said.shares, strict=True)
            ]
        return made

    table: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for pair, values in rows(train):
        table.setdefault(pair, []).append(values)
    return Absence.calibrate(BetaCheck.fit({k: np.stack(v) for k, v in table.items()}), rows(held))


def present(bundle: PromptBundle, test: Sequence[Record], seed: int, light: Mapping[str, bool]) -> Rows:
    """A row for each object that is there: Dice by name, by the unheard synonym, by its true box; mask / box area; of
    an answer that marks all that is there whatever is asked for ("blind"); and where another object is there too, of
    what asking for that one gave ("wrong"). `light` is `lighter` of the training images."""
    from fabrica.curate.ontology import phrase, place
    from fabrica.evaluate.metrics import dice
    from fabrica.phantom.objects import named

    unheard = {n.name: n.unheard for n in named()}
    rows: Rows = {k: [] for k in ("subject", "object", TEXT, NEW, BOX, BOUND, "ratio", "blind", "wrong")}
    for record in test:
        truth = {n: m for n, m in bundle.collate.labelled(record).items() if m.any()}
        if not truth:
            continue
        item, names, everything = record.first("image"), list(truth), np.any(list(truth.values()), axis=0)
        assert item is not None
        mine = bundle.masks(asked(bundle, record, names), item)
        other = bundle.masks(bundle.ask(item, [phrase(unheard[n], *place(record)) for n in names]), item)
        for i, (name, mask) in enumerate(truth.items()):
            rows["subject"].append(f"{seed}/{record.subject}")
            rows["object"].append(name)
            rows[TEXT].append(dice(mine[i], mask))
            rows[NEW].append(dice(other[i], mask))
            rows[BOX].append(boxed(item.array(), mask, light[record.groups["modality"]]))
            rows[BOUND].append(bound(item.array(), mask))
            rows["ratio"].append(ratio(mask))
            rows["blind"].append(dice(everything, mask))
            rows["wrong"].append(dice(mine[i - 1], mask) if len(names) > 1 else float("nan"))
    return rows


def lighter(train: Sequence[Record]) -> dict[str, bool]:
    """Modality -> whether its objects are lighter than the rest of their boxes in most training images."""
    votes: dict[str, list[bool]] = {}
    for record in train:
        item = record.first("image")
        assert item is not None
        for mask in (np.asarray(r.data, bool) for r in record.regions if r.data.any()):
            grey, inside = _within(item.array(), mask)
            if not inside.all():
                more = bool(grey[inside].mean() > grey[~inside].mean())
                votes.setdefault(record.groups["modality"], []).append(more)
    return {k: float(np.mean(v)) > 0.5 for k, v in votes.items()}


def boxed(image: NDArray[Any], mask: NDArray[np.bool_], light: bool) -> float:
    """Dice of filling the true box by grey value: beyond Otsu's threshold of what is in it, on the `light` side."""
    from fabrica.evaluate.metrics import dice

    grey, inside = _within(image, mask)
    cut = otsu(grey)
    return dice(grey > cut if light else grey <= cut, inside)


def otsu(values: NDArray[Any]) -> float:
    """The cut that leaves least variance on its two sides (Otsu 1979): the highest value of the lower side.

    >>> otsu(np.array([0.1, 0.2, 0.8, 0.9]))
    0.2
    """
    x = np.sort(values, axis=None).astype(np.float64)
    n = np.arange(1, len(x))
    low = np.cumsum(x)[:-1]
    gap = low / n - (x.sum() - low) / (len(x) - n)
    between = np.where(x[1:] > x[:-1], n * (len(x) - n) * gap**2, -1.0)
    return float(x[int(between.argmax())]) if len(n) else float(x[0])


def bound(image: NDArray[Any], mask: NDArray[np.bool_]) -> float:
    """Dice of the threshold and side that the truth itself chose: more than filling a box can do."""
    from fabrica.evaluate.metrics import dice

    grey, inside = _within(image, mask)
    cuts = np.quantile(grey, np.linspace(0.02, 0.98, 33))
    return max(dice(side, inside) for c in cuts for side in (grey >= c, grey <= c))


def _within(image: NDArray[Any], mask: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Grey values and mask of an object's true box."""
    rows, columns = (np.flatnonzero(mask.any(a)) for a in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return (image if image.ndim == 2 else image.mean(2))[box], mask[box]


def ratio(mask: NDArray[np.bool_]) -> float:
    rows, columns = (np.flatnonzero(mask.any(a)) for a in (1, 0))
    return float(mask.sum() / ((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)))


def prompts(bundle: PromptBundle, check: Any, test: Sequence[Record], seed: int) -> Rows:
    """A row a prompt: `kind` "there", "not there" (of this modality), "invalid" (an object of another, asked for in its
    own words); the raw and calibrated p and the mean probability alone."""
    from fabrica.evaluate.absence import statistics

    rows: Rows = {k: [] for k in ("subject", "kind", "raw", "p", "probability")}
    things = bundle.collate.ontology.things
    for record in test:
        item, truth = record.first("image"), bundle.collate.labelled(record)
        assert item is not None
        said = bundle.ask(item, [bundle.collate.ontology.prompts(t.name, *t.places[0])[0] for t in things])
        for thing, share in zip(things, said.shares, strict=True):
            values = statistics(share, said.image)
            raw = check.check.p((thing.places[0][0], thing.name), values)
            mask = truth.get(thing.name)
            rows["subject"].append(f"{seed}/{record.subject}")
            rows["kind"].append("invalid" if mask is None else "there" if mask.any() else "not there")
            rows["raw"].append(raw)
            rows["p"].append(float(check.of_raw(raw)))
            rows["probability"].append(float(values[0]))
    return rows


def recognised(bundle: PromptBundle, check: Any, test: Sequence[Record]) -> dict[str, int]:
    """Named with a mask of Dice 0.5 or better (hits), named but not so (false), there and not named (missed)."""
    from fabrica.evaluate.metrics import dice

    hits = false = missed = 0
    for record in test:
        truth = {n: m for n, m in bundle.collate.labelled(record).items() if m.any()}
        parts = bundle.parse(record, check, alpha=ALPHA)
        good = sum(n in truth and dice(f.mask, truth[n]) >= 0.5 for n, f in parts.items())
        hits, false, missed = hits + good, false + len(parts) - good, missed + len(truth) - good
    return {"hits": hits, "false": false, "missed": missed}


def mean_of(columns: Mapping[str, NDArray[Any]], weights: Any) -> Any:
    """The mean of "x", as the bootstrap asks for it."""
    x = columns["x"]
    return float(x.mean()) if weights is None else weights @ x / weights.sum(1)
