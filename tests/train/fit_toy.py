"""Run by the tests in a process of its own: fit the toy model, be killed where told, write what came out."""

import argparse
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import torch
from toy_train import STAGES, KillAt, Toy, records

from fabrica.train import checkpoint, fit


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--kill-at", type=int, default=-1)
    parser.add_argument("--kill-in-save", type=int, default=-1)
    parser.add_argument("--save-every", type=int, default=3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--chunk", type=int, default=0)
    a = parser.parse_args()
    torch.set_num_threads(1)
    if a.kill_in_save >= 0:  # half a checkpoint: weights written, state not
        import safetensors.torch as st

        plain, left = st.save_file, [a.kill_in_save]

        def save_file(tensors, path, *rest):
            plain(tensors, path, *rest)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        st.save_file = save_file
    data = records()
    if a.corpus:
        from fabrica.corpus import Corpus

        data = Corpus.open(a.corpus)
    stages = [replace(s, schedule=replace(s.schedule, chunk=a.chunk)) for s in STAGES]
    model = Toy(dropout=a.dropout)
    progress = KillAt(a.kill_at) if a.kill_at >= 0 else None
    got = fit(model, stages, data, a.out, workers=a.workers, save_every=a.save_every, progress=progress)
    assert checkpoint.KEPT == 2
    if int(os.environ.get("RANK", "0")) == 0:
        state = {n: t.flatten().tolist() for n, t in model.state_dict().items()}
        result = {"losses": got.losses, "steps": got.steps, "resumed_from": got.resumed_from, "state": state}
        (a.out / "result.json").write_text(json.dumps(result))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
