"""A curriculum with a freeze ledger: each stage with its own data, and the hashes of every part before and after it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from fabrica.errors import FabricaError, Refused, UsageError
from fabrica.safe import read_bytes, write_whole
from fabrica.train import optim
from fabrica.train.loop import Progress, fit
from fabrica.types import Stage

LEDGER = "ledger.json"


class Parted(Protocol):
    """A model that names its parts: part -> hash of its weights."""

    def hashes(self) -> dict[str, str]: ...


class Moved(FabricaError):
    """A part that a stage froze has other weights after it."""

    code = "frozen_moved"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a stage did: hashes of the parts `before` and `after`, the parts that `moved`, names and number of the
    parameters it trained, its steps, its first and last loss."""

    stage: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    trained: tuple[str, ...]
    numbers: int
    steps: int
    losses: tuple[float, float]

    @property
    def moved(self) -> tuple[str, ...]:
        """Parts whose weights changed."""
        return tuple(p for p in self.before if self.before[p] != self.after[p])


def curriculum(
    bundle: Any, stages: Sequence[Stage], data: Mapping[str, Any], out: str | Path, *,
    parts: Mapping[str, Sequence[str]], seed: int = 0, device: str = "cpu", progress: Progress | None = None,
    save_every: int = 0,
) -> tuple[Entry, ...]:  # fmt: skip
    """`fit` stage by stage, `data` by the stage's name, in place; `out/ledger.json` says what moved.

    `parts` maps a part to the prefixes of its parameters. Errors: `Moved` where a part without a trained parameter
    changed; `Refused("ledger_broken")` where the folder's ledger ends with other weights than the model begins with.
    """
    model, folder = bundle.model, Path(out)
    lost = [s.name for s in stages if s.name not in data]
    if lost:
        raise UsageError(f"no data for the stages {', '.join(lost)}; there is data for {', '.join(data)}")
    entries = read(folder)
    if entries and dict(entries[-1].after) != model.hashes():
        raise Refused(
            "ledger_broken", f"{folder} holds a curriculum that ended with other weights than this model has: load "
            "those, or give another folder",
        )  # fmt: skip
    for stage in stages:
        before = model.hashes()
        names = tuple(sorted(optim.trained(model, stage.schedule)))
        held = dict(model.named_parameters())
        made = fit(
            bundle, [stage], data[stage.name], folder / f"{len(entries) + 1}-{stage.name}", seed=seed, device=device,
            save_every=save_every, progress=progress,
        )  # fmt: skip
        model.to("cpu")
        ends = (made.losses[0], made.losses[-1]) if made.losses else (float("nan"), float("nan"))
        count = sum(held[n].numel() for n in names)
        entry = Entry(stage.name, before, model.hashes(), names, count, made.steps, ends)
        frozen = [p for p, places in parts.items() if not any(n.startswith(tuple(places)) for n in names)]
        if wrong := [p for p in frozen if p in entry.moved]:
            raise Moved(f"stage {stage.name!r} changed {', '.join(wrong)}, which it does not train")
        entries.append(entry)
        with write_whole(folder / LEDGER) as file:
            file.write((json.dumps([asdict(e) for e in entries], indent=1) + "\n").encode())
    return tuple(entries)


def read(folder: str | Path) -> list[Entry]:
    """The entries of a folder's ledger; none where there is no ledger."""
    path = Path(folder) / LEDGER
    if not path.is_file():
        return []
    try:
        rows = json.loads(read_bytes(path))
        return [Entry(**r | {"trained": tuple(r["trained"]), "losses": tuple(r["losses"])}) for r in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused("ledger_broken", f"{path} is no ledger of a curriculum") from error
