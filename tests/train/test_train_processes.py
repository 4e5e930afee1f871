"""Two gloo processes under torchrun equal one process on the joint batch: losses, gradients, weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_train import STAGES, Toy, records

from fabrica.train import fit

HERE = Path(__file__).parent


def torchrun(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(HERE / script)]
    return subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=120)


def test_gather_and_steps_equal_one_process(tmp_path):
    """See `two_processes.py`: it computes both sides and writes the largest differences."""
    done = torchrun("two_processes.py", str(tmp_path / "report.json"))
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report.pop("uneven") == (
        "processes hold 2 rows of 4, 3 rows of 4: every process must hold as many; make the batch size a multiple of"
        " the number of processes"
    )
    assert report.pop("detached_is_wrong") > 1e-2
    assert report.pop("unused_has_gradient") is False
    assert report.pop("used_by_one_only") < 1e-5
    assert len(report) >= 10
    for name, difference in report.items():
        assert difference < 1e-5, name


def test_fit_under_torchrun_equals_one_process(tmp_path):
    done = torchrun("fit_toy.py", str(tmp_path / "two"), "--dropout", "0", "--chunk", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads((tmp_path / "two" / "result.json").read_text())
    model = Toy(dropout=0.0)
    torch.set_num_threads(1)
    one = fit(model, STAGES, records(), tmp_path / "one", save_every=3)
    assert two["losses"] == pytest.approx(list(one.losses), abs=1e-5)
    for name, values in two["state"].items():
        assert values == pytest.approx(model.state_dict()[name].flatten().tolist(), abs=2e-4), name
    assert len((tmp_path / "two" / "train.jsonl").read_text().splitlines()) == 16  # one writer
