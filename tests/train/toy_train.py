"""What the tests of the loop share, also in subprocesses: a tiny two-tower model, records, stages."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fabrica.objectives.pairs import Contrast
from fabrica.objectives.scale import LogitScale
from fabrica.types import Batch, Field, Item, Loss, Origin, Record, Schedule, Stage, record_id


class Toy(nn.Module):
    """Two towers with dropout, a norm and a scale; `embed` as models have it. Counts its calls."""

    def __init__(self, dropout: float = 0.1, norm: type[nn.Module] = nn.LayerNorm, seed: int = 0, **scale) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.image = nn.Sequential(nn.Linear(16, 12), norm(12), nn.GELU(), nn.Dropout(dropout), nn.Linear(12, 8))
        self.text = nn.Sequential(nn.Linear(6, 12), norm(12), nn.GELU(), nn.Dropout(dropout), nn.Linear(12, 8))
        self.unused = nn.Linear(3, 3)
        self.logit_scale = LogitScale(**{"init": 10.0, **scale})
        self.calls = 0

    def embed(self, fields):
        self.calls += 1
        return (
            {n: F.normalize(getattr(self, n)(f.values[:, 0]), dim=1) for n, f in fields.items()},
            {n: f.valid.any(1) for n, f in fields.items()},
        )


@dataclass
class ToyCollate:
    """Image (16,) with noise drawn per (epoch, id), text (6,)."""

    noise: float = 0.1

    def __call__(self, records, epoch):
        images = []
        for r in records:
            rng = np.random.default_rng([epoch, int(r.id, 16) % 2**32])
            images.append(r.first("image").array().ravel() + self.noise * rng.normal(size=16))
        texts = [np.frombuffer(r.first("text").text().encode(), np.uint8) / 64 - 1.5 for r in records]
        ones = torch.ones(len(records), 1, dtype=torch.bool)
        return Batch(
            tuple(r.id for r in records),
            {
                "image": Field(torch.tensor(np.stack(images), dtype=torch.float32)[:, None], ones),
                "text": Field(torch.tensor(np.stack(texts), dtype=torch.float32)[:, None], ones),
            },
            {"sick": torch.tensor([r.labels["sick"] for r in records])},
            {"sick": torch.ones(len(records), dtype=torch.bool)},
            {"subject": torch.tensor([int(r.subject, 16) % 2**31 for r in records])},
        )  # fmt: skip


def records(n: int = 24) -> list[Record]:
    rng = np.random.default_rng(0)
    out = []
    for i in range(n):
        word = "".join(rng.choice(list("abcdefgh"), 6))
        value = np.tile(np.frombuffer(word.encode(), np.uint8)[:4].astype(np.float32) / 10 - 10, 4)
        name = record_id("toy", str(i))
        origin = Origin("toy", str(i), "", "CC0-1.0", by="synthetic")
        out.append(
            Record(
                name,
                record_id("subject", str(i // 2)),
                {"source": "even" if i % 2 == 0 else "odd"},
                {
                    "image": (Item("image", value.reshape(4, 4).ravel()[None], origin),),
                    "text": (Item("text", word, origin),),
                },
                labels={"sick": float(i % 3 == 0)},
                split="train",
            )
        )
    return out


class Sick:
    """A plain objective: logistic regression on the image tower's output, over known rows that satisfy `keep`."""

    reads = ("image", "sick")

    def __init__(self, least: int = 1, value: float = 1.0) -> None:
        self.least, self.value = least, value

    def __call__(self, model, batch):
        z = model.image(batch.fields["image"].values[:, 0])[:, 0]
        known = batch.known["sick"]
        if int(known.sum()) < self.least:
            return Loss(z.new_zeros(()), {}, 0)
        loss = F.binary_cross_entropy_with_logits(z[known], batch.targets["sick"][known]) * self.value
        return Loss(loss, {"bce": float(loss.detach())}, int(known.sum()))


PAIR = Contrast(("image", "text"))


def stage(name="one", objectives=None, collate=None, mix_by=None, coefficients=None, **schedule) -> Stage:
    plan = {"steps": 8, "batch": 6, "lr": 1e-2, "warmup": 2, "weight_decay": 0.1} | schedule
    return Stage(
        name, collate or ToyCollate(), objectives or {"pair": PAIR}, Schedule(**plan), mix_by=mix_by,
        coefficients=coefficients or {},
    )  # fmt: skip


STAGES = (stage("one", {"pair": PAIR, "sick": Sick()}), stage("two", lr_scale={"text": 0.0}, lr=2e-3))


class KillAt:
    """A progress that kills its own process, as hard as can be, once `step` steps are done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, done, total, what):
        if done == self.step:
            os.kill(os.getpid(), signal.SIGKILL)
