"""A full disk: one typed error, and what was there before is there after, whole."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabrica.corpus import Corpus
from fabrica.types import Item, Origin, Record

Run = Callable[[str], dict[str, Any]]

WORKER = """
import json, sys
from pathlib import Path
import numpy as np
from fabrica.corpus import Corpus
from fabrica.corpus.ingest import ingest
from fabrica.errors import Full, FabricaError
from fabrica.types import Item, Origin, Record

place, job = sys.argv[1:]
def image(i, side):
    pixels = np.random.default_rng(i).integers(0, 255, (side, side), dtype=np.uint8)
    return Record(f"{i:04d}", f"p{i}", items={"image": (Item("image", pixels, Origin("s", str(i), "", "")),)})
def text(i):
    return Record(f"{i:04d}", f"p{i}", items={"t": (Item("text", f"{i} " * 40000, Origin("s", str(i), "", "")),)})
def used(folder):
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")

corpus = Corpus.at(place + "/c")
corpus.append([image(i, 64) for i in range(10)])
before, size = corpus.version, used(corpus.path)
try:
    if job == "arrays":
        corpus.append(image(i, 1024) for i in range(100, 140))
    elif job == "texts":
        corpus.append(text(i) for i in range(100, 300))
    elif job == "small":
        for k in range(100, 100000):
            before, size = corpus.version, used(corpus.path)
            corpus.append([image(k, 200)])
    elif job == "ingest":
        ingest(str(Path(place).parent / "files"), corpus)
    elif job == "view":
        from fabrica.corpus.views import webdataset
        corpus2 = Corpus.at(str(Path(place).parent / "other"))
        webdataset.write(corpus2, place + "/view")
    error = None
except FabricaError as e:
    error = [type(e).__name__, str(e)]
again = Corpus.open(place + "/c")
pixels = [int(r.items["image"][0].array().sum()) for r in again.take(again.ids()[:10])]
wanted = [int(image(i, 64).items["image"][0].array().sum()) for i in range(10)]
print(json.dumps({
    "error": error, "same_version": again.version == before, "grew": used(corpus.path) - size, "n": len(again),
    "whole": pixels == wanted and sum(1 for _ in again.scan()) == len(again),
    "left": [p.name for p in corpus.path.parent.iterdir()],
}))
"""


LIMIT = """import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (6 << 20, 6 << 20))
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs the worker on a disk of 8 MiB: a tmpfs where one may be mounted, else with files of at most 6 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    mounted = shutil.which("mount") is not None and False

    def go(job: str) -> dict[str, Any]:
        command = [sys.executable, "-c", WORKER if mounted else LIMIT + WORKER, str(disk), job]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    yield go
    if mounted:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("job", ["arrays", "texts", "small"])
def test_append_on_a_full_disk(run: Run, job: str) -> None:
    found = run(job)
    assert found["error"][0] == "Full", found
    assert "no space left" in found["error"][1]
    assert found["whole"], "what was there before reads back bit for bit"
    assert found["same_version"], "nothing partial is visible"
    assert found["grew"] == 0, "and nothing partial is kept"


def test_ingest_on_a_full_disk(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "files").mkdir()
    for i in range(6):
        Image.new("L", (2000, 1500), i).save(tmp_path / "files" / f"{i}.png")
    found = run("ingest")
    assert found["error"][0] == "Full", found
    assert found["whole"]


def test_view_on_a_full_disk(run: Run, tmp_path: Path) -> None:
    big = Item("image", np.zeros((4000, 4000), np.uint8), Origin("s", "k", "", ""))
    Corpus.at(tmp_path / "other").append([Record("a", "p", items={"image": (big,)})])
    found = run("view")
    assert found["error"][0] == "Full", found
    assert found["left"] == ["c"], "no folder, whole or partial, under any name"
