"""Run by torchrun on two processes: gathers and gradients against one process on the joint batch."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Generator
from toy_train import PAIR, Sick, Toy, ToyCollate, records

from fabrica.errors import UsageError
from fabrica.objectives import gather as g
from fabrica.objectives.multilinear import Multilinear
from fabrica.objectives.pairs import Contrast
from fabrica.train.step import Terms, average, gradients, rows
from fabrica.types import Batch, Field


def largest(one, two):
    return max(float((one[n] - two[n]).abs().max()) for n in one | two)


def grads(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


class Alone(Toy):
    """A model that pretends to be the only process: the reference."""


def local(batch, rank):
    at = slice(rank, None, 2)
    return rows(batch, at)


def main():
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    rank, report = dist.get_rank(), {}
    whole = ToyCollate()(records(12), 0)
    whole.known["sick"][:5] = False  # the plain term has other numbers of rows on each process
    mine = local(whole, rank)
    cases = {
        "pair": {"pair": PAIR},
        "keyed": {"pair": Contrast(("image", "text"), exclude_by="subject")},
        "sigmoid": {"pair": Contrast(("image", "text"), form="sigmoid")},
        "symile": {"three": Multilinear(("image", "text"), negatives="n")},
        "all": {"pair": PAIR, "sick": Sick()},
    }
    for name, objectives in cases.items():
        terms = Terms.of(objectives, {})
        for chunk in (0, 2):
            both, one = Toy(dropout=0.0), Toy(dropout=0.0)
            outcome = gradients(both, mine, terms, seed=3, chunk=chunk)
            average(both)
            world = g.world
            alone(True)
            reference = gradients(one, whole, terms, seed=3)
            alone(False)
            assert g.world is world
            report[f"{name}/{chunk}/loss"] = abs(outcome.total - reference.total)
            report[f"{name}/{chunk}/gradient"] = largest(grads(both), grads(one))
            if name == "pair":
                report["unused_has_gradient"] = "unused.weight" in grads(both)
    # order of the joint batch, so that drawn permutations of three modalities agree
    rows_of = {
        m: torch.nn.functional.normalize(torch.randn(8, 5, generator=Generator().manual_seed(i)), dim=1)
        for i, m in enumerate("abc")
    }
    parts = {m: r[rank::2].clone().requires_grad_() for m, r in rows_of.items()}
    joint, here, _ = g.gather_batch(parts, {m: torch.ones(4).bool() for m in "abc"}, {})
    symile = Multilinear(tuple("abc"), scale=5.0)
    loss = symile.loss(Toy(), joint, here, {}, Generator().manual_seed(1)).total
    loss.backward()
    whole_rows = {m: r.clone().requires_grad_() for m, r in rows_of.items()}
    symile.loss(Toy(), whole_rows, {}, {}, Generator().manual_seed(1)).total.backward()
    report["order"] = max(float((joint[m] - rows_of[m]).abs().max()) for m in "abc")
    report["three"] = max(float((parts[m].grad / 2 - whole_rows[m].grad[rank::2]).abs().max()) for m in "abc")
    # a detached gather loses what the other process's rows owe to ours
    detached = {m: r.detach().clone() for m, r in joint.items()}
    leaf = parts["a"].detach().clone().requires_grad_()
    patched = detached["a"].clone()
    patched[rank::2] = leaf
    symile.loss(Toy(), detached | {"a": patched}, {}, {}, Generator().manual_seed(1)).total.backward()
    report["detached_is_wrong"] = float((leaf.grad / 2 - whole_rows["a"].grad[rank::2]).abs().max())
    # a parameter that one process alone used counts as zero on the other, and nobody waits
    model = Toy()
    (model.unused.weight.sum() * (1.0 if rank == 0 else 0.0) if rank == 0 else model.text[0].weight.sum()).backward()
    average(model)
    report["used_by_one_only"] = float(
        (model.unused.weight.grad - 0.5).abs().max() + (model.text[0].weight.grad - 0.5).abs().max()
    )
    try:
        g.gather(torch.zeros(2 + rank, 4))
        report["uneven"] = "taken"
    except UsageError as error:
        report["uneven"] = str(error)
    assert isinstance(whole, Batch)
    assert isinstance(whole.fields["image"], Field)
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(report))
    dist.destroy_process_group()


_KEPT = {}


def alone(on: bool) -> None:
    """Let the step believe that there is one process."""
    import fabrica.train.step as step

    if on:
        _KEPT.update(gather=step.gather_batch, world=step.world)
        step.gather_batch = lambda e, p, k: (dict(e), dict(p), dict(k))
        step.world = lambda: 1
    else:
        step.gather_batch, step.world = _KEPT["gather"], _KEPT["world"]


if __name__ == "__main__":
    main()
