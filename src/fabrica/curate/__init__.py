"""Record -> Record: steps and surveys that caption, stack, filter, de-duplicate, split; the engine that runs them."""

from __future__ import annotations

from fabrica.curate.engine.run import CurateReport, run

__all__ = ["CurateReport", "run"]
