"""Evidence: what a model can do, with intervals, from rows on disk; a leak gate before any score; one HTML report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fabrica.evaluate.engine import run
    from fabrica.evaluate.tasks import KNN, LinearProbe, Retrieval, ZeroShot
    from fabrica.evaluate.zero_shot import Prompts

__all__ = ["KNN", "LinearProbe", "Prompts", "Retrieval", "ZeroShot", "run"]

_WHERE = {
    "KNN": "tasks", "LinearProbe": "tasks", "Prompts": "zero_shot", "Retrieval": "tasks", "ZeroShot": "tasks",
    "run": "engine",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
