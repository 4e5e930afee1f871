"""Fixtures for every test: real data where it is at hand, and a clear reason where it is not."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED = Path(os.environ.get("FABRICA_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """`shared_data("msd_hippocampus")` -> its folder, unpacked once; skips with the reason where it is missing."""

    def folder(name: str) -> Path:
        unpack = SHARED / "bin" / "unpack-data"
        if not (SHARED / "data" / f"{name}.tar.gz").exists():
            pytest.skip(f"real data set {name!r} is not at hand (set FABRICA_SHARED to the folder that holds it)")
        cache = Path.home() / ".cache" / "fabrica-shared"
        lock = cache.with_suffix(".lock")
        cache.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["flock", str(lock), str(unpack), str(cache), name], check=True, stdout=subprocess.DEVNULL)
        return cache / name

    return folder
