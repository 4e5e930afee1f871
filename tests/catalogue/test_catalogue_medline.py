"""The MEDLINE articles of the catalogue: every article a record or named, as counted when the package was opened."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from fabrica import catalogue
from fabrica.sources import Quarantined

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


def test_medline_articles(fetched: Callable[[str], Path]) -> None:
    fetched("medline-articles")
    ids: set[str] = set()
    counts: Counter[str] = Counter()
    for found in catalogue.read("medline-articles"):
        if isinstance(found, Quarantined):
            counts[found.code] += 1
            continue
        ids.add(found.id)
        counts["records"] += 1
        counts["with abstract"] += found.first("abstract") is not None
        counts["mesh"] += sum(name.startswith("mesh/") for name in found.labels)
        counts["links"] += len(found.links)
        assert found.rights == catalogue.get("medline-articles").rights
        assert found.subject == f"pmid:{found.groups['pmid']}"
    assert counts["records"] + counts["no_text"] == 20_788 + 30_000
    assert len(ids) == counts["records"]
    assert counts == {
        "records": 50_734, "no_text": 54, "with abstract": 33_277, "mesh": 292_002, "links": 168_444,
    }  # fmt: skip
