"""The contrastive losses at B = 4096, d = 512, forward and backward, against plain ones that hold the matrix.

Run: python benchmarks/contrastive_loss.py [--json] [--batch N] [--dim N] [--runs N] [--threads N]. Ours and plain run
alternately in one process; medians. Peak memory is the growth of the resident high-water mark over one forward and
backward, each in a process of its own. Roofs: the three matrix products that any exact form needs, at the rate that
this machine just showed for one of them; for memory, the two gradients. Ratio: plain / ours, above 1 we win.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fabrica.objectives.contrast import pair_contrast, sigmoid_contrast

JOBS = ("softmax", "softmax, keyed positives", "sigmoid")


def inputs(batch: int, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unit rows as of a half-trained model, the scale, and keys of which a tenth repeat."""
    g = torch.Generator().manual_seed(0)
    a = F.normalize(torch.randn(batch, dim, generator=g), dim=1)
    b = F.normalize(a + 0.1 * torch.randn(batch, dim, generator=g), dim=1)
    keys = torch.randint(0, 10 * batch, (batch,), generator=g)
    return a.requires_grad_(), b.requires_grad_(), torch.tensor(14.3, requires_grad=True), keys


def ours(job: str, a: Tensor, b: Tensor, scale: Tensor, keys: Tensor) -> Tensor:
    if job == "sigmoid":
        return sigmoid_contrast(a, b, scale, -10.0)
    return pair_contrast(a, b, scale, positives=keys if "keyed" in job else None)


def plain(job: str, a: Tensor, b: Tensor, scale: Tensor, keys: Tensor) -> Tensor:
    """As the papers' reference code writes them."""
    logits = scale * a @ b.T
    if job == "sigmoid":
        return -F.logsigmoid((2 * torch.eye(len(a)) - 1) * (logits - 10.0)).sum() / len(a)
    if "keyed" in job:
        share = (keys[:, None] == keys).float()
        share = share / share.sum(1, keepdim=True)
        return 0.5 * (F.cross_entropy(logits, share) + F.cross_entropy(logits.T, share))
    target = torch.arange(len(a))
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


FORMS = {"ours": ours, "plain": plain}


def once(form: str, job: str, batch: int, dim: int) -> tuple[float, float]:
    """Seconds of one forward and backward, and the loss."""
    given = inputs(batch, dim)
    start = time.perf_counter()
    loss = FORMS[form](job, *given)
    loss.backward()
    return time.perf_counter() - start, float(loss.detach())


def growth(form: str, job: str, batch: int, dim: int) -> float:
    """MiB by which the resident high-water mark grows; run in a process of its own."""
    once(form, job, 64, dim)  # libraries and thread pools are loaded
    given = inputs(batch, dim)
    before = high_water(reset=True)
    FORMS[form](job, *given).backward()
    return high_water() - before


def high_water(*, reset: bool = False) -> float:
    """MiB. On Linux the mark can be set back to what is resident now."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if status.exists() and clear.exists():
        if reset:
            clear.write_text("5")
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024)


def roof(batch: int, dim: int, runs: int) -> float:
    """Seconds of three matrix products."""
    a, b, _, _ = (x.detach() for x in inputs(batch, dim))
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        torch.mm(a, b.T)
        took.append(time.perf_counter() - start)
    return 3 * statistics.median(took)


def rows(batch: int, dim: int, runs: int) -> list[dict[str, object]]:
    out: list[dict[str, object]] = []
    best = roof(batch, dim, runs)
    for job in JOBS:
        took: dict[str, list[float]] = {form: [] for form in FORMS}
        for i in range(runs + 1):
            losses = {}
            for form in FORMS:
                seconds, losses[form] = once(form, job, batch, dim)
                if i:  # the first is a warm-up
                    took[form].append(seconds)
            assert abs(losses["ours"] - losses["plain"]) < 1e-4 * max(1.0, losses["plain"]), losses
        mine, theirs = statistics.median(took["ours"]), statistics.median(took["plain"])
        label = f"contrastive loss ({job}), B={batch}, d={dim}"
        out.append(_row(f"{label}: time", mine, theirs, "s", best, runs))
        memory = {form: _elsewhere(form, job, batch, dim) for form in FORMS}
        out.append(
            _row(f"{label}: peak memory", memory["ours"], memory["plain"], "MiB", 2 * batch * dim * 4 / 2**20, 1)
        )
    return out


def _elsewhere(form: str, job: str, batch: int, dim: int) -> float:
    command = [sys.executable, __file__, "--grow", form, job, "--batch", str(batch), "--dim", str(dim)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _row(job: str, mine: float, theirs: float, unit: str, best: float, n: int) -> dict[str, object]:
    return {
        "job": job, "ours": round(mine, 4), "peer": round(theirs, 4), "peer_name": "plain torch", "unit": unit,
        "ratio": round(theirs / mine, 2), "roof": round(best, 4), "n": n,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, help="torch's threads (1: steady on a busy machine)")
    parser.add_argument("--grow", nargs=2, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    if a.grow:
        print(growth(*a.grow, a.batch, a.dim))
        return
    found = rows(a.batch, a.dim, a.runs)
    if a.json:
        print(json.dumps({"rows": found}))
        return
    print(f"{torch.get_num_threads()} threads; ratio above 1: we win")
    for row in found:
        print(
            f"{row['job']:<74} ours {row['ours']:>9} {row['unit']:<4} plain {row['peer']:>9}"
            f"  ratio {row['ratio']:>6}  roof {row['roof']}"
        )


if __name__ == "__main__":
    main()
