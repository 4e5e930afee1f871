"""fabrica: multimodal medical AI, from raw files to aligned data, trained models and evidence, on premises.

>>> import fabrica
>>> fabrica.Record.__name__
'Record'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Corpus": "fabrica.corpus",
    "ingest": "fabrica.corpus.ingest",
    "Bundle": "fabrica.models",
    "Record": "fabrica.types",
    "Item": "fabrica.types",
    "Absent": "fabrica.types",
    "prove": "fabrica.proofs",
    "fetch": "fabrica.catalogue",
    "load_system": "fabrica.systems",
}
__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from fabrica.catalogue import fetch
    from fabrica.corpus import Corpus
    from fabrica.corpus.ingest import ingest
    from fabrica.models import Bundle
    from fabrica.proofs import prove
    from fabrica.systems import load_system
    from fabrica.types import Absent, Item, Record


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import fabrica` stays instant (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fabrica' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
