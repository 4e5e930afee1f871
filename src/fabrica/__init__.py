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
    from fabrica.catalogue import fetch as fetch
    from fabrica.corpus import Corpus as Corpus
    from fabrica.corpus.ingest import ingest as ingest
    from fabrica.models import Bundle as Bundle
    from fabrica.proofs import prove as prove
    from fabrica.systems import load_system as load_system
    from fabrica.types import Absent as Absent
    from fabrica.types import Item as Item
    from fabrica.types import Record as Record


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import fabrica` stays instant (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fabrica' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
