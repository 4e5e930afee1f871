"""Proofs: each paper's headline claim as an experiment; one file a system with `run(plan) -> Proof`."""

from __future__ import annotations

import importlib
import json
import os
import platform
import resource
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fabrica.errors import unknown
from fabrica.types import Proof

_SRC = Path(__file__).resolve().parents[1]
_SHARED = ("__init__", "depends", "real", "spread", "table")  # modules here that are no proof


@dataclass(frozen=True, slots=True)
class Plan:
    """How large to run: `quick` uses fewer seeds and smaller arms (60 s), `full` the larger one meant for a GPU.
    `workers` processes run a proof's parts side by side (0 = one a core that this process may use; on a GPU, one)."""

    quick: bool = False
    full: bool = False
    device: str = "cpu"
    workers: int = 0
    progress: Callable[[int, int | None, str], None] | None = None


def names() -> list[str]:
    """The systems that have a proof."""
    return sorted(
        p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in _SHARED and not p.stem.startswith("_")
    )


def prove(name: str, plan: Plan = Plan()) -> Proof:
    """Run the proof of one system; the verdict is `shown` only if every bar, fixed before the run, is met."""
    if name not in names():
        raise unknown("proof", name, names())
    module = importlib.import_module(f"fabrica.proofs.{name}")
    start, used = time.perf_counter(), _cpu()
    proof = module.run(plan)
    assert isinstance(proof, Proof)
    details = {**proof.details, "cpu_seconds": round(_cpu() - used, 1)}
    return replace(proof, seconds=round(time.perf_counter() - start, 1), details=details)


def _cpu() -> float:
    """CPU seconds of this process and of those it has waited for."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def to_json(proof: Proof, plan: Plan) -> dict[str, Any]:
    """The proof as one documented object: DESIGN's fields, every claim under `claims`, what it ran on."""
    first = proof.claims[0]
    return {
        "name": proof.name,
        "claim": proof.claim,
        "data": proof.data,
        "metric": proof.metric,
        "arms": {k: list(v) for k, v in proof.arms.items()},
        "effect": first.effect,
        "interval": list(first.interval),
        "bar": first.bar,
        "claims": [asdict(c) for c in proof.claims],
        "control": [asdict(c) for c in proof.controls],
        "verdict": proof.verdict,
        "seeds": list(proof.seeds),
        "seconds": proof.seconds,
        "size": "full" if plan.full else "quick" if plan.quick else "standard",
        "device": plan.device,
        "notes": proof.notes,
        "details": dict(proof.details),
        "commit": _commit(),
        "code": fingerprint(proof.name),
        "versions": {p: version(p) for p in ("fabrica", "torch", "numpy", "transformers")},
        "machine": f"{platform.machine()}, {cores()} cores, Python {platform.python_version()}{_gpu(plan)}",
    }


def store(proof: Proof, plan: Plan, folder: Path) -> Path:
    """Write `folder/NAME.json`, whole or not at all."""
    from fabrica.safe import write_whole

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{proof.name}.json"
    with write_whole(path) as file:
        file.write((json.dumps(to_json(proof, plan), indent=1, ensure_ascii=False) + "\n").encode())
    return path


def fingerprint(name: str) -> str:
    """Hash of the code that a proof's numbers depend on; a stored result with another hash is stale."""
    from fabrica.proofs.depends import modules

    digest = sha256()
    for file in modules(name):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def cores() -> int:
    """How many cores this process may use: less than the machine's where it is pinned (taskset, a container)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpu(plan: Plan) -> str:
    """The name of the GPU that a plan ran on, "" on a CPU."""
    if plan.device == "cpu":
        return ""
    import torch

    return f", {torch.cuda.get_device_name(plan.device)}"


def _commit() -> str:
    """The commit of the source tree, "" where it is not one."""
    command = ["git", "-C", str(_SRC), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
