"""A curriculum: stages one after another, each an artefact whose weights the next one really loads.

    out/1-pretrain/  model.safetensors, link.json, train.jsonl, checkpoints/
    out/2-instruct/  ...

A link holds the hash of the weights it began from and of those it left; a stage begins by loading the file of the one
before it and refuses to where the hash differs. A stage that is done is not run again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fabrica import safe
from fabrica.errors import FabricaError, Refused, UsageError
from fabrica.models.weights import fill, save_weights, state_hash
from fabrica.train import optim
from fabrica.train.feed import derive, source
from fabrica.train.loop import Progress, fit
from fabrica.types import Stage

LINK, WEIGHTS = "link.json", "model.safetensors"


class Forgotten(FabricaError):
    """A stage made the model worse at what it must not forget."""

    code = "forgotten"


@dataclass(frozen=True, slots=True)
class Guard:
    """What must not be forgotten: `loss(bundle)` is a number that is lower the better (perplexity of general text),
    which no stage of `stages` ("" = every one) may raise by more than the share `most` of what it was at its beginning.
    `stop` False only records it."""

    loss: Callable[[Any], float]
    most: float = 0.10
    stages: tuple[str, ...] = ()
    stop: bool = True


@dataclass(frozen=True, slots=True)
class Link:
    """What a stage did: hashes of the weights `before` and `after`, the hash of its records, names of what it
    `trained`, steps, the joint loss at its end, and the guard's number before and after (None without a guard)."""

    stage: str
    before: str
    after: str
    data: str
    trained: tuple[str, ...]
    steps: int
    loss: float
    guard: tuple[float, float] | None = None

    @property
    def risen(self) -> float:
        """By which share the guard's number rose; 0 without a guard."""
        return 0.0 if self.guard is None else self.guard[1] / self.guard[0] - 1


def chain(
    bundle: Any, stages: Sequence[Stage], data: Mapping[str, Any] | Any, out: str | Path, *, guard: Guard | None = None,
    each: Callable[[Link], None] | None = None, seed: int = 0, device: str = "cpu", workers: int = 0,
    save_every: int = 0, progress: Progress | None = None,
) -> tuple[Link, ...]:  # fmt: skip
    """Train `bundle` through `stages`, in place. `data` is a corpus for all, or by name of the stage; `each` is called
    after every stage, with the bundle as that stage left it.

    Errors: `Refused("chain_broken")` where a file is not what its link says, or was made from other weights, records or
    schedule; `Forgotten` from the guard, after the stage's artefact is written.
    """
    model = bundle if isinstance(bundle, nn.Module) else bundle.model
    lost = [s.name for s in stages if isinstance(data, Mapping) and s.name not in data]
    if lost or len({s.name for s in stages}) < len(stages):
        raise UsageError(f"stages {[s.name for s in stages]} need different names and data each; no data for {lost}")
    links: list[Link] = []
    for number, stage in enumerate(stages, 1):
        folder = Path(out) / f"{number}-{stage.name}"
        if links:
            _load(model, Path(out) / f"{number - 1}-{links[-1].stage}", links[-1])
        mine = data[stage.name] if isinstance(data, Mapping) else data
        before, about = weights_hash(model), _about(mine, stage)
        link = _done(folder, stage, before, about)
        if link is None:
            at = guard.loss(bundle) if guard is not None else None
            made = fit(
                bundle, [stage], mine, folder, seed=derive(seed, stage.name), device=device, workers=workers,
                save_every=save_every, progress=progress,
            )  # fmt: skip
            model.to("cpu")
            seen = None if guard is None or at is None else (at, guard.loss(bundle))
            link = Link(
                stage.name, before, weights_hash(model), about, tuple(sorted(optim.trained(model, stage.schedule))),
                made.steps, made.losses[-1] if made.losses else float("nan"), seen,
            )  # fmt: skip
            _save(model, folder, link)
        else:
            _load(model, folder, link)
        links.append(link)
        if each is not None:
            each(link)
        _check(guard, link)
    return tuple(links)


def weights_hash(model: nn.Module) -> str:
    """Hex sha256 of all weights by name."""
    return state_hash(model.state_dict())


def _check(guard: Guard | None, link: Link) -> None:
    if guard is None or link.guard is None or (guard.stages and link.stage not in guard.stages):
        return
    if guard.stop and link.risen > guard.most:
        raise Forgotten(
            f"stage {link.stage!r} raised what must not be forgotten from {link.guard[0]:.3g} to {link.guard[1]:.3g} "
            f"({link.risen:+.0%}; at most {guard.most:+.0%}): mix in more of the old data, or lower the rate"
        )


def _about(data: Any, stage: Stage) -> str:
    """A hash of which records a stage reads, and of its schedule."""
    held = source(data)
    ids = held.ids() if not hasattr(held, "scan") else held.ids(stage.where)
    plan = asdict(replace(stage.schedule, lr_scale=dict(stage.schedule.lr_scale)))
    return f"{derive(stage.name, sorted(ids), json.dumps(plan, sort_keys=True, default=str)):016x}"


def _done(folder: Path, stage: Stage, before: str, about: str) -> Link | None:
    """The link of a stage that is done; None where it is not."""
    if not (folder / LINK).is_file():
        return None
    try:
        said = json.loads(safe.read_bytes(folder / LINK))
        guard = said.pop("guard")
        link = Link(**said | {"trained": tuple(said["trained"]), "guard": None if guard is None else tuple(guard)})
    except (ValueError, KeyError, TypeError) as error:
        raise Refused("chain_broken", f"{folder / LINK} is no link of a chain: {error}") from error
    for what, theirs, ours in (("weights", link.before, before), ("records or schedule", link.data, about)):
        if theirs != ours:
            raise Refused(
                "chain_broken",
                f"stage {stage.name!r} in {folder} was made from other {what} ({theirs[:12]}, here {ours[:12]}): "
                "give another folder, or remove it to run the stage again",
            )
    return link


def _load(model: nn.Module, folder: Path, link: Link) -> None:
    fill(model.state_dict(), safe.weights(folder / WEIGHTS), folder / WEIGHTS)
    if (found := weights_hash(model)) != link.after:
        raise Refused("chain_broken", f"{folder / WEIGHTS} holds weights {found[:12]}; its link says {link.after[:12]}")


def _save(model: nn.Module, folder: Path, link: Link) -> None:
    """Weights, then the link: a stage without its link is not done."""
    with torch.no_grad():
        save_weights(model.state_dict(), folder / "partial.safetensors", {})
    (folder / "partial.safetensors").replace(folder / WEIGHTS)
    with safe.write_whole(folder / LINK) as file:
        file.write((json.dumps(asdict(link), indent=1) + "\n").encode())
