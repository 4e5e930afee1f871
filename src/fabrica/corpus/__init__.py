"""The store: records in Lance with versions, SQL filters, random access, sampling, erasure; views for other tools.

>>> import tempfile
>>> from fabrica.corpus import Corpus
>>> from fabrica.types import Item, Origin, Record
>>> corpus = Corpus.at(tempfile.mkdtemp())
>>> note = Item("text", "No effusion.", Origin("demo", "a.txt", "", "CC0-1.0"))
>>> corpus.append([Record("r1", "p1", groups={"modality": "xray"}, items={"report": (note,)})])
1
>>> [r.first("report").text() for r in corpus.scan("modality = 'xray'")]
['No effusion.']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Corpus": "fabrica.corpus.store",
    "Version": "fabrica.corpus.store",
    "Stats": "fabrica.corpus.stats",
    "Sampler": "fabrica.corpus.sample",
    "stream": "fabrica.corpus.sample",
    "IngestReport": "fabrica.corpus.ingest",
}
__all__ = ["Corpus", "IngestReport", "Sampler", "Stats", "Version", "stream"]

if TYPE_CHECKING:
    from fabrica.corpus.ingest import IngestReport
    from fabrica.corpus.sample import Sampler, stream
    from fabrica.corpus.stats import Stats
    from fabrica.corpus.store import Corpus, Version


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fabrica.corpus' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
