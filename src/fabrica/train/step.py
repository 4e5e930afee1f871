"""One step's gradients: embed once for all contrastive terms, gather, differentiate; or chunk by chunk, exactly.

Gradient cache (Gao et al. 2021, arXiv 2101.06983): pass 1 embeds chunks without a graph and keeps their random states;
the loss on those embeddings gives dL/dz; pass 2 embeds each chunk again with its state and back-propagates dL/dz. The
gradient is that of the whole batch; gradient accumulation is not, as it keeps the negatives few.

Over processes each term is that of the joint batch: contrastive terms see gathered embeddings, the others count as
means over their rows. `average` then makes parameter gradients equal everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

from fabrica.errors import UsageError
from fabrica.objectives.check import NonFinite
from fabrica.objectives.gather import gather_batch, world
from fabrica.train.memory import pick
from fabrica.types import Batch, Contrastive, Field, Loss, Objective

Autocast = Callable[[], AbstractContextManager[Any]]


@dataclass(slots=True)
class Terms:
    """The objectives of a stage by name, in two kinds, with their coefficients."""

    contrastive: dict[str, Contrastive]
    plain: dict[str, Objective]
    coefficients: Mapping[str, float]
    fields: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.fields = tuple(dict.fromkeys(f for o in self.contrastive.values() for f in o.fields))

    @classmethod
    def of(cls, objectives: Mapping[str, Objective], coefficients: Mapping[str, float]) -> Terms:
        """Sorted by kind; coefficients without an objective are an error."""
        if not objectives:
            raise UsageError("the stage has no objectives")
        extra = set(coefficients) - set(objectives)
        if extra:
            raise UsageError(f"coefficients for {sorted(extra)}, but the objectives are {sorted(objectives)}")
        pair = {n: o for n, o in objectives.items() if isinstance(o, Contrastive)}
        return cls(pair, {n: o for n, o in objectives.items() if n not in pair}, coefficients)

    def weight(self, name: str) -> float:
        """The coefficient of a term, 1 by default."""
        return float(self.coefficients.get(name, 1.0))


@dataclass(slots=True)
class Outcome:
    """What a step found: the joint batch's loss, terms by "objective/term", and the rows that contributed (0: skip)."""

    total: float
    terms: dict[str, float]
    count: int


def gradients(
    model: nn.Module, batch: Batch, terms: Terms, *, seed: int, chunk: int = 0, autocast: Autocast | None = None
) -> Outcome:
    """Add the gradient of the stage's loss on the joint batch to the parameters' `.grad` (before `average`).

    `seed` makes the contrastive terms' generator and is equal on every process. `chunk` > 0 uses the gradient cache.
    Errors: `NonFinite` for a loss or an embedding that is not a number; nothing is then added.
    """
    from contextlib import nullcontext

    cast = autocast or nullcontext
    generator = Generator().manual_seed(seed)
    if chunk and chunk < len(batch):
        return _cached(model, batch, terms, generator, chunk, cast)
    with cast():
        embedded, presence = _embed(model, batch, terms)
        losses = {name: objective(model, batch) for name, objective in terms.plain.items()}
        joint = _contrast(model, terms, embedded, presence, batch.keys, generator)
    shares, outcome = _joint(terms, losses, joint)
    live = [terms.weight(n) * shares[n] * loss.total for n, loss in losses.items() if loss.count]
    live += [terms.weight(n) * loss.total for n, loss in joint.items() if loss.count]
    if live:
        torch.stack([x.reshape(()) for x in live]).sum().backward()  # type: ignore[no-untyped-call]
    return outcome


def _embed(model: nn.Module, batch: Batch, terms: Terms) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    if not terms.fields:
        return {}, {}
    embedded, presence = model.embed({n: batch.fields[n] for n in terms.fields})  # type: ignore[operator]
    return embedded, presence


def _contrast(
    model: nn.Module, terms: Terms, embedded: Mapping[str, Tensor], presence: Mapping[str, Tensor],
    keys: Mapping[str, Tensor], generator: Generator,
) -> dict[str, Loss]:  # fmt: skip
    if not terms.contrastive:
        return {}
    wanted = {k: keys[k] for o in terms.contrastive.values() for k in o.reads if k in keys}
    rows, here, same = gather_batch(embedded, presence, wanted)
    return {name: o.loss(model, rows, here, same, generator) for name, o in sorted(terms.contrastive.items())}


def _joint(terms: Terms, losses: Mapping[str, Loss], joint: Mapping[str, Loss]) -> tuple[dict[str, float], Outcome]:
    """Over all processes: what each local mean is multiplied with, and the step's outcome."""
    names = sorted(losses)
    table = torch.tensor(
        [[losses[n].count, losses[n].count * float(losses[n].total.detach())] for n in names], dtype=torch.float64
    ).reshape(len(names), 2)
    if world() > 1 and names:
        device = losses[names[0]].total.device
        table = table.to(device)
        dist.all_reduce(table)
        table = table.cpu()
    total, count, shares = 0.0, 0, dict.fromkeys(names, 0.0)
    logged: dict[str, float] = {}
    for name, (n, value) in zip(names, table.tolist(), strict=True):
        shares[name] = losses[name].count * world() / n if n else 0.0
        total += terms.weight(name) * value / n if n else 0.0
        count = max(count, int(n))
        logged |= {f"{name}/{k}": v for k, v in losses[name].terms.items()} | ({name: value / n} if n else {})
    for name, loss in joint.items():
        value = float(loss.total.detach())
        total += terms.weight(name) * value if loss.count else 0.0
        count = max(count, loss.count)
        logged |= {f"{name}/{k}": v for k, v in loss.terms.items()} | ({name: value} if loss.count else {})
    if not math.isfinite(total):
        wrong = [n for n in (*names, *joint) if not math.isfinite(logged.get(n, 0.0))]
        raise NonFinite(f"the loss is {total}: objective {', '.join(wrong)}")
    return shares, Outcome(total, logged, count)


def _cached(
    model: nn.Module, batch: Batch, terms: Terms, generator: Generator, chunk: int, cast: Autocast
) -> Outcome:  # fmt: skip
    refuse_batch_norm(model)
    pieces = [rows(batch, slice(i, i + chunk)) for i in range(0, len(batch), chunk)]
    states, embedded, presence, plain = [], [], [], []
    with torch.no_grad(), cast():
        for part in pieces:
            states.append(_random_state(batch))
            z, here = _embed(model, part, terms)
            embedded.append(z)
            presence.append(here)
            plain.append({n: o(model, part) for n, o in terms.plain.items()})
    leaves = {n: torch.cat([z[n] for z in embedded]).requires_grad_() for n in terms.fields}
    here = {n: torch.cat([p[n] for p in presence]) for n in presence[0]}
    with cast():
        joint = _contrast(model, terms, leaves, here, batch.keys, generator)
    whole = {n: _merged([p[n] for p in plain]) for n in terms.plain}
    shares, outcome = _joint(terms, whole, joint)
    live = [terms.weight(n) * loss.total for n, loss in joint.items() if loss.count]
    if live:
        torch.stack([x.reshape(()) for x in live]).sum().backward()  # type: ignore[no-untyped-call]
    for i, (part, state) in enumerate(zip(pieces, states, strict=True)):
        _set_random_state(state)
        with cast():
            z, _ = _embed(model, part, terms)
            losses = {n: o(model, part) for n, o in terms.plain.items()}
        at = slice(i * chunk, i * chunk + len(part))
        pull = [(z[n] * g[at]).sum() for n, x in leaves.items() if (g := x.grad) is not None and z[n].requires_grad]
        pull += [
            terms.weight(n) * shares[n] * loss.count / whole[n].count * loss.total
            for n, loss in losses.items() if loss.count
        ]  # fmt: skip
        if pull:
            torch.stack([x.reshape(()).float() for x in pull]).sum().backward()  # type: ignore[no-untyped-call]
    return outcome


def _merged(losses: Sequence[Loss]) -> Loss:
    """Means over chunks as one mean over all rows."""
    count = sum(x.count for x in losses)
    share = [x.count / count if count else 0.0 for x in losses]
    total = torch.stack([x.total * s for x, s in zip(losses, share, strict=True)]).sum()
    names = {k for x in losses for k in x.terms}
    terms = {k: sum(x.terms.get(k, 0.0) * s for x, s in zip(losses, share, strict=True)) for k in sorted(names)}
    return Loss(total, terms, count)


def refuse_batch_norm(model: nn.Module) -> None:
    """Batch statistics of a chunk are not those of the batch, so the cached gradient would be another one."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise UsageError(
                f"gradient cache (chunk > 0) with batch norm {name!r} in training mode: its statistics would be"
                " those of a chunk; use layer norm, freeze it (lr_scale 0), or set chunk = 0"
            )


def rows(batch: Batch, at: slice) -> Batch:
    """Some rows of a batch."""
    return Batch(
        batch.ids[at], {n: pick(f, at) for n, f in batch.fields.items()}, {n: t[at] for n, t in batch.targets.items()},
        {n: t[at] for n, t in batch.known.items()}, {n: t[at] for n, t in batch.keys.items()},
    )  # fmt: skip


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    if device.type == "cpu":
        return batch

    def to(t: Tensor) -> Tensor:
        return t.to(device, non_blocking=True)

    return Batch(
        batch.ids,
        {n: Field(*(None if t is None else to(t) for t in parts(f))) for n, f in batch.fields.items()},  # type: ignore[arg-type]
        *({n: to(t) for n, t in group.items()} for group in (batch.targets, batch.known, batch.keys)),
    )  # fmt: skip


def parts(field: Field) -> tuple[Tensor | None, ...]:
    """The tensors of a field, in the order of its arguments."""
    return field.values, field.valid, field.hours, field.mask


def average(model: nn.Module) -> None:
    """Parameter gradients averaged over processes. A parameter used on some processes only counts as 0 elsewhere; one
    used on none keeps no gradient; every process takes part in the same exchanges, so nothing waits for ever."""
    if world() == 1:
        return
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        return
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=parameters[0].device)
    dist.all_reduce(used, op=dist.ReduceOp.MAX)
    live = [p for p, u in zip(parameters, used.tolist(), strict=True) if u]
    for p in live:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    for kind in sorted({p.dtype for p in live}, key=str):
        grads = [p.grad for p in live if p.dtype == kind and p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in grads])
        dist.all_reduce(flat)
        flat /= world()
        for g, part in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
            g.copy_(part.view_as(g))


def _random_state(batch: Batch) -> tuple[Tensor, tuple[torch.device, Tensor] | None]:
    device = next((f.values.device for f in batch.fields.values()), torch.device("cpu"))
    on_device = (device, torch.cuda.get_rng_state(device)) if device.type == "cuda" else None
    return torch.get_rng_state(), on_device


def _set_random_state(state: tuple[Tensor, tuple[torch.device, Tensor] | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1][1], state[1][0])
