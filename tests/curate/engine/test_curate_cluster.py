"""The same plan on Daft's engine and on Ray: the same ids, bytes and ledger; killed, any runner goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cluster_steps import plan

from fabrica import curate
from fabrica.corpus import Corpus
from fabrica.types import Item, Origin, Record, record_id

pytest.importorskip("daft", reason="daft is not installed: pip install 'fabrica[scale]'")
ROWS = 5000  # GROUP-2, section 10
HERE = Path(__file__).parent
ORIGIN = Origin("made", "x", "", "CC0-1.0")


def records(n: int) -> list[Record]:
    """Every 5th without text, every 7th too small, each 11th a copy of the one before; two series of slices."""
    out = []
    for i in range(n):
        rng = np.random.default_rng(i - (i % 11 == 10))
        side = 8 if i % 7 == 6 else 32
        items = {"image": (Item("image", rng.integers(0, 255, (side, side), np.uint8), ORIGIN),)}
        if i % 5 != 4:
            words = " ".join(f"w{n}" for n in rng.integers(0, 500, 12))
            items["report"] = (Item("text", words, ORIGIN),)
        groups = {"modality": "xray"}
        if i % 100 < 2:
            groups = {"modality": "ct", "series": f"s{i % 100}", "slice_mm": str(i)}
            image = items["image"][0].array()
            items["image"] = (Item("image", image, ORIGIN, affine=np.eye(4)),)
        out.append(Record(record_id("r", str(i)), f"p{i // 3}", groups, items))
    return out


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    corpus = Corpus.at(tmp_path_factory.mktemp("cluster") / "source")
    corpus.append(records(ROWS))
    return corpus


@pytest.fixture(scope="module")
def wanted(source: Corpus) -> Path:
    """What one process makes of it."""
    into = source.path.parent / "local"
    (source.path.parent / "said").mkdir()
    report = curate.run(plan(str(source.path.parent / "said")), source, into, max_memory=48 << 20)
    assert report.failed == 1
    assert report.dropped["holds_model"] == {"raised_ValueError": 1}
    assert report.dropped["stack_series"] == {}, "slices of different sizes are not stacked, and stay"
    return into


def command(source: Corpus, into: Path, runner: str, said: Path, *, pause: float = 0, what: str = "") -> dict:
    said.mkdir(exist_ok=True)
    args = [sys.executable, str(HERE / "cluster_steps.py"), str(source.path), str(into), runner, str(said)]
    env = os.environ | {"PYTHONPATH": str(HERE), "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    return {"args": [*args, str(pause), what], "env": env, "cwd": into.parent}


def content(into: Path) -> tuple:
    """All that a corpus holds, as bytes and rows."""
    corpus = Corpus.open(into)
    payload = [file.read_bytes() for file in sorted((into / "payload").glob("*.bin"))]
    rows = corpus.layout(["subject", "split", "modality", "source", "licence", "roles", "kinds", "tags", "texts"])
    return payload, rows.to_pylist(), (into / "ledger.parquet").read_bytes()


def loads(said: Path) -> tuple[int, int]:
    names = [path.name for path in said.iterdir()]
    return len({n.split("-")[1] for n in names if n.startswith("load")}), sum(n.startswith("load") for n in names)


@pytest.mark.parametrize("runner", ["daft", pytest.param("ray", marks=pytest.mark.slow)])
def test_the_same_ids_bytes_and_ledger(source: Corpus, wanted: Path, tmp_path: Path, runner: str) -> None:
    if runner == "ray":
        pytest.importorskip("ray", reason="ray is not installed: pip install 'fabrica[scale]'")
    done = subprocess.run(
        **command(source, tmp_path / "out", runner, tmp_path / "said"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.strip().splitlines()[-1])
    assert (report["read"], report["failed"], report["resumed"]) == (ROWS, 1, False)
    assert content(tmp_path / "out") == content(wanted)
    workers, times = loads(tmp_path / "said")
    assert 1 <= workers <= 2, "two workers"
    assert times == workers, "a step that holds a model loads it once in each worker"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".out.curate") and p.is_dir()]


def test_killed_on_daft_another_runner_goes_on(source: Corpus, wanted: Path, tmp_path: Path) -> None:
    into, said = tmp_path / "out", tmp_path / "said"
    child = subprocess.Popen(
        **command(source, into, "daft", said, pause=0.4), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    while child.poll() is None and len([p for p in said.iterdir() if p.name.startswith("unit")]) < 3:
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)  # the driver and its workers
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert not into.exists()
    first = sum(p.name.startswith("unit") for p in said.iterdir())
    report = curate.run(plan(str(said)), source, into, max_memory=48 << 20)
    assert report.resumed
    assert content(into) == content(wanted)
    units = sum(p.name.startswith("unit") for p in said.iterdir())
    again = sum(p.name.startswith("unit") for p in (source.path.parent / "said").iterdir())
    assert units - first < again, "what was done is not done again"


@pytest.mark.parametrize(
    ("what", "said"),
    [("no such label", "UsageError: no such label"), ("breaks", "StepFailed: step 'breaks' raised_Key")],
)
def test_errors_of_workers_keep_their_kind(source: Corpus, tmp_path: Path, what: str, said: str) -> None:
    done = subprocess.run(
        **command(source, tmp_path / "out", "daft", tmp_path / "said", what=what), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr[-3000:]
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_options_that_make_no_sense_are_refused(source: Corpus, tmp_path: Path) -> None:
    from fabrica.curate.quality import MissingText
    from fabrica.errors import UsageError

    with pytest.raises(UsageError, match=r"no runner 'spark'.*daft, local, ray"):
        curate.run([MissingText()], source, tmp_path / "out", runner="spark")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="workers=0"):
        curate.run([MissingText()], source, tmp_path / "out", workers=0)
