"""`fabrica doctor`: what this machine can run."""

from __future__ import annotations

import os
import platform
import re
import shutil

from fabrica.cli._show import Json, emit, table


def doctor(json: Json = False) -> None:
    """Say which extras are installed and what the machine has.

    Example: fabrica doctor --json
    """
    rows = [(extra, package, _version(package)) for extra, package in _extras()]
    missing = sorted({extra for extra, _, version in rows if version is None})
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    machine = {
        "python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count(),
        "memory_gib": memory and round(memory, 1), "disk_free_gib": round(shutil.disk_usage(".").free / 2**30, 1),
        "gpu": shutil.which("nvidia-smi") is not None, "torchvision_broken": _torchvision_breaks(),
    }  # fmt: skip
    data = {"machine": machine, "packages": {p: v for _, p, v in rows}, "missing_extras": missing}
    text = "\n".join(f"{k:<20}{v}" for k, v in machine.items()) + "\n\n"
    text += table(("extra", "package", "version"), [(e, p, v or "not installed") for e, p, v in rows])
    if missing:
        text += f"\n\nto add what is missing: pip install 'fabrica[{','.join(missing)}]'"
    if machine["torchvision_broken"]:
        text += (
            "\n\ntorchvision is installed beside a CPU torch: transformers' models will not import; pip uninstall it"
        )
    emit(data, as_json=json, text=text)


def _extras() -> list[tuple[str, str]]:
    """(extra, package) of every library that an extra brings, from the installed package's own metadata."""
    import importlib.metadata

    wanted = [re.fullmatch(r"([\w.-]+)[^;]*; extra == '([\w-]+)'", line.replace('"', "'"))
              for line in importlib.metadata.requires("fabrica") or []]  # fmt: skip
    return [(m[2], m[1]) for m in wanted if m and m[2] not in ("all", "dev", "bench")]


def _version(package: str) -> str | None:
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torchvision_breaks() -> bool:
    return _version("torchvision") is not None and (_version("torch") or "").endswith("+cpu")
