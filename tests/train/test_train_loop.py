"""The loop: it learns, says what it did, stops with a clear word, and repeats itself exactly after any kill."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_train import PAIR, STAGES, Sick, Toy, ToyCollate, records, stage

from fabrica.errors import FabricaError, UsageError
from fabrica.objectives.check import NonFinite
from fabrica.objectives.multilinear import Multilinear
from fabrica.objectives.pairs import Contrast
from fabrica.train import checkpoint, estimate, fit
from fabrica.train.log import read as read_log
from fabrica.types import Batch, Loss

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(out: Path, *options: str, ok: bool = True) -> dict:
    """Fit in a process of its own; the result, or {} where it was killed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        [sys.executable, str(HERE / "fit_toy.py"), str(out), *options], env=environment, capture_output=True, text=True
    )
    if not ok:
        assert done.returncode == -signal.SIGKILL, done.stderr
        return {}
    assert done.returncode == 0, done.stderr
    return json.loads((out / "result.json").read_text())


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The run that was never killed: losses and final weights."""
    torch.set_num_threads(1)
    out, model = tmp_path_factory.mktemp("unbroken"), Toy()
    got = fit(model, STAGES, records(), out, save_every=3)
    return got.losses, {n: t.clone() for n, t in model.state_dict().items()}, out


def same(result: dict, unbroken) -> None:
    losses, state, _ = unbroken
    assert result["losses"] == pytest.approx(list(losses), abs=1e-6)
    for name, values in result["state"].items():
        assert values == pytest.approx(state[name].flatten().tolist(), abs=1e-6), name


def test_it_learns_and_logs_every_term(tmp_path):
    model = Toy(dropout=0.0)
    long = stage(objectives={"pair": PAIR, "sick": Sick()}, steps=80, batch=12, coefficients={"sick": 0.5})
    got = fit(model, [long], records(), tmp_path)
    assert got.steps == 80
    assert got.skipped == got.resumed_from == 0
    assert sum(got.losses[-5:]) < 0.6 * sum(got.losses[:5])
    lines = read_log(tmp_path / "train.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 81))
    for line in lines:
        assert line["loss"] == pytest.approx(line["pair"] + 0.5 * line["sick"], rel=1e-6)
        assert {"pair/loss", "pair/scale", "sick/bce", "logit_scale", "lr", "grad_norm", "stage"} <= set(line)
        assert line["count"] == 12
    assert lines[0]["lr"] == pytest.approx(0.005)


def test_a_finished_run_is_read_back_and_does_nothing(unbroken):
    losses, state, out = unbroken
    model = Toy(seed=5)
    model.unused.load_state_dict({n[7:]: t for n, t in state.items() if n.startswith("unused.")})
    got = fit(model, STAGES, records(), out, save_every=3)
    assert got.losses == losses
    assert got.resumed_from == got.steps == 16
    torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)


def test_the_last_two_checkpoints_are_kept_and_nothing_else(unbroken):
    _, _, out = unbroken
    names = sorted(p.name for p in (out / "checkpoints").iterdir())
    assert names == ["step-00000014", "step-00000016"]
    assert {p.name for p in (out / "checkpoints" / names[0]).iterdir()} == {
        "model.safetensors", "optimizer.safetensors", "state.json",
    }  # fmt: skip


def test_kill_9_again_and_again_then_resume_gives_the_same(tmp_path, unbroken):
    """Before any checkpoint, within one, at the end of a stage before it is saved, within the second stage; and with a
    torn last line in the log."""

    def killed(*how: str, lines: int) -> None:
        run(tmp_path, *how, ok=False)
        assert len(read_log(tmp_path / "train.jsonl")) == lines

    killed("--kill-at", "2", lines=2)
    killed("--kill-in-save", "3", lines=6)  # weights of the second checkpoint are written, its state is not
    assert [p.name for p in checkpoint.found(tmp_path / "checkpoints")] == ["step-00000003"]
    killed("--kill-at", "8", lines=8)
    killed("--kill-at", "13", lines=13)
    assert [p.name for p in checkpoint.found(tmp_path / "checkpoints")] == ["step-00000008", "step-00000011"]
    with (tmp_path / "train.jsonl").open("a") as log:
        log.write('{"step": 14, "sta')
    result = run(tmp_path)
    assert result["resumed_from"] == 11
    same(result, unbroken)
    assert [line["step"] for line in read_log(tmp_path / "train.jsonl")] == list(range(1, 17))


@pytest.mark.slow
def test_kill_9_with_one_worker_and_resume_with_two_from_a_corpus(tmp_path):
    from fabrica.corpus import Corpus

    Corpus.at(tmp_path / "corpus").append(records())
    options = ("--corpus", str(tmp_path / "corpus"))
    out = tmp_path / "out"
    run(out, *options, "--workers", "1", "--kill-at", "5", ok=False)
    result = run(out, *options, "--workers", "2")
    assert result["resumed_from"] == 3
    model = Toy()
    here = fit(model, STAGES, Corpus.open(tmp_path / "corpus"), tmp_path / "here", save_every=3)  # no workers, no kill
    same(result, (here.losses, model.state_dict(), None))


def test_other_settings_than_the_checkpoints_are_refused_by_name(tmp_path):
    fit(Toy(), [stage()], records(), tmp_path)
    with pytest.raises(UsageError, match=r"stages\[0\].schedule.lr: 0.01 there, 0.02 here.*resume=False"):
        fit(Toy(), [stage(lr=0.02)], records(), tmp_path)
    with pytest.raises(UsageError, match="records"):
        fit(Toy(), [stage()], records()[:-1], tmp_path)
    other = Toy(seed=1)
    with pytest.raises(UsageError, match="frozen"):
        fit(other, [stage(lr_scale={"text": 0.0})], records(), tmp_path)
    got = fit(Toy(), [stage(lr=0.02)], records(), tmp_path, resume=False)
    assert got.resumed_from == 0
    assert len(read_log(tmp_path / "train.jsonl")) == 8


def test_frozen_parts_do_not_move_have_no_gradient_and_are_not_saved(tmp_path):
    model = Toy(norm=nn.BatchNorm1d)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    fit(model, [stage(lr_scale={"text": 0.0, "image.0": 0.1})], records(), tmp_path)
    after = model.state_dict()
    for name, tensor in before.items():
        still = name.startswith(("text.", "unused."))
        assert torch.equal(after[name], tensor) == still, name
    assert all(p.grad is None for p in model.text.parameters())
    saved = checkpoint.safe.weights(checkpoint.found(tmp_path / "checkpoints")[-1] / "model.safetensors")
    assert not any(n == "text.0.weight" for n in saved)
    assert all(p.requires_grad for p in model.parameters())  # flags come back


def test_the_scale_is_clamped_after_each_step_and_logged(tmp_path):
    class Push:
        reads = ("image",)

        def __call__(self, model, batch):
            return Loss(-model.logit_scale(), {}, len(batch))

    fit(Toy(init=4.0, max=5.0), [stage(objectives={"up": Push()}, lr=0.1, warmup=0, steps=6)], records(), tmp_path)
    seen = [line["logit_scale"] for line in read_log(tmp_path / "train.jsonl")]
    assert seen[0] == pytest.approx(4 * math.exp(0.1), rel=1e-3)
    assert seen[-1] == max(seen) == pytest.approx(5.0, abs=1e-5)


def test_a_frozen_scale_stays(tmp_path):
    model = Toy(learnable=False)
    fit(model, [stage()], records(), tmp_path)
    assert model.logit_scale().item() == pytest.approx(10.0)


class Empty:
    """An objective that finds nothing in odd-numbered calls."""

    reads = ("image",)

    def __init__(self):
        self.calls = 0

    def __call__(self, model, batch):
        self.calls += 1
        z = model.image(batch.fields["image"].values[:, 0]).square().mean()
        return Loss(z, {}, len(batch)) if self.calls % 2 else Loss(z * math.nan, {"nothing": math.nan}, 0)


def test_a_step_to_which_nothing_contributes_is_skipped_and_counted(tmp_path):
    got = fit(Toy(), [stage(objectives={"e": Empty()}, steps=6)], records(), tmp_path)
    assert (got.steps, got.skipped, len(got.losses)) == (6, 3, 3)
    assert sum(line.get("skipped", False) for line in read_log(tmp_path / "train.jsonl")) == 3


class Broken(ToyCollate):
    """NaN in the image of one record."""

    def __call__(self, records, epoch):
        batch = super().__call__(records, epoch)
        for i, r in enumerate(records):
            if r.id == Broken.bad:
                batch.fields["image"].values[i] = math.nan
        return batch


def test_a_loss_that_is_no_number_names_step_stage_and_records(tmp_path):
    Broken.bad = records()[5].id
    message = rf"step \d+ \(stage 'one', its step \d+\): .*'image' hold NaN.*records {Broken.bad}$"
    with pytest.raises(NonFinite, match=message):
        fit(Toy(dropout=0.0), [stage(collate=Broken())], records(), tmp_path / "a")
    with pytest.raises(
        NonFinite, match=r"step 1 \(stage 'one', its step 1\): the loss is inf: objective sick; records"
    ):
        fit(Toy(), [stage(objectives={"sick": Sick(value=math.inf)})], records(), tmp_path / "b")
    assert read_log(tmp_path / "b" / "train.jsonl") == []


def test_what_an_objective_reads_is_checked_before_step_0(tmp_path):
    with pytest.raises(UsageError, match=r"stage 'two', objective 'pair'\) 'imag'; did you mean 'image'"):
        fit(Toy(), [stage(), stage("two", {"pair": Contrast(("imag", "text"))})], records(), tmp_path)
    with pytest.raises(UsageError, match="'study'"):
        fit(Toy(), [stage(objectives={"pair": Contrast(("image", "text"), exclude_by="study")})], records(), tmp_path)
    assert not (tmp_path / "train.jsonl").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ([stage(lr=0.0)], records()), "lr = 0.0"),
        (lambda: ([stage(lr_scale={"imag": 0.0})], records()), "no parameter prefix 'imag'; did you mean 'image'"),
        (lambda: ([stage(lr_scale={"": 0.0})], records()), "every parameter is frozen"),
        (lambda: ([stage(coefficients={"piar": 1.0})], records()), "coefficients for"),
        (lambda: ([replace(stage(), objectives={})], records()), "no objectives"),
        (lambda: ([replace(stage(), where="modality = 'ct'")], records()), "filter them first"),
        (lambda: ([stage()], [r.updated(split="test") for r in records()]), "none of 24 records"),
        (lambda: ([], records()), "no stages"),
        (lambda: ([stage()], 7), "cannot train on int"),
        (lambda: ([stage(batch=1)], records()), "contrastive loss needs at least 2 pairs"),
        (lambda: ([stage(objectives={"m": Multilinear(("image", "text", "ecg"))})], records()), "'ecg'"),
    ],
)
def test_wrong_plans_say_what_is_wrong(tmp_path, make, message):
    stages, data = make()
    with pytest.raises(FabricaError, match=message):
        fit(Toy(), stages, data, tmp_path)


def test_no_gpu_says_so(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(UsageError, match="torch sees no GPU"):
        fit(Toy(), [stage()], records(), tmp_path, device="cuda")


def test_the_callers_generator_and_modes_are_left_alone(tmp_path):
    model = Toy().eval()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    fit(model, [stage(steps=2)], records(), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(m.training for m in model.modules())


def test_same_seed_same_bytes_other_seed_other_losses(tmp_path):
    one, two, three = (
        fit(Toy(), [stage()], records(), tmp_path / str(i), seed=s).losses for i, s in enumerate((0, 0, 1))
    )
    assert one == two != three
    bytes_of = [(tmp_path / d / "checkpoints/step-00000008/model.safetensors").read_bytes() for d in "01"]
    assert bytes_of[0] == bytes_of[1]


def test_mixing_by_a_group(tmp_path):
    seen: list[str] = []

    class Watch(ToyCollate):
        def __call__(self, records, epoch):
            seen.extend(r.groups["source"] for r in records)
            return super().__call__(records, epoch)

    some = [r for r in records() if r.groups["source"] == "even" or r.id < "8"]
    fit(Toy(), [stage(collate=Watch(), mix_by="source", batch=4)], some, tmp_path)
    assert set(seen) == {"even", "odd"}


def test_bfloat16_autocast_trains(tmp_path):
    got = fit(Toy(), [stage(precision="bf16", steps=30)], records(), tmp_path)
    assert all(map(math.isfinite, got.losses))
    assert sum(got.losses[-5:]) < sum(got.losses[:5])
    plain = fit(Toy(), [stage(steps=30)], records(), tmp_path / "plain")
    assert got.losses[0] == pytest.approx(plain.losses[0], abs=0.1)
    assert got.losses != plain.losses


def test_estimate_times_each_stage_and_moves_nothing():
    model = Toy(norm=nn.BatchNorm1d)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    cost = estimate(model, STAGES, records())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert set(cost.seconds_per_step) == {"one", "two"}
    assert cost.minutes == pytest.approx(sum(8 * s for s in cost.seconds_per_step.values()) / 60)
    assert cost.memory_bytes > 50 << 20
    trained = sum(p.numel() * 4 for p in model.parameters())
    assert cost.disk_bytes == pytest.approx(6 * trained, rel=0.2)


def test_a_bundle_is_trained_through_its_model(tmp_path):
    class Bundle:
        model = Toy()

    fit(Bundle(), [stage(steps=1)], records(), tmp_path)
    assert isinstance(STAGES[0].collate(records()[:2], 0), Batch)
