"""Preference tuning of a causal language model by trl: DPO under low-rank adapters, the base being the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fabrica import safe
from fabrica.errors import UsageError, need

if TYPE_CHECKING:
    from fabrica.curate.language.preference import Preference


@dataclass(frozen=True, slots=True)
class Preferring:
    """How: `loss` "dpo", or "sft" (the chosen answers alone: DPO's baseline, all else being equal); beta of DPO; LoRA
    `rank` and `alpha` on all linear layers; the paper's scripts have rank 128, alpha 256, rate 1e-7, 3 epochs, batch 1
    on 4 GPUs, 1,024 tokens (RULE, arXiv 2407.05131)."""

    beta: float = 0.1
    loss: Literal["dpo", "sft"] = "dpo"
    lr: float = 1e-7
    epochs: float = 3
    batch: int = 1
    rank: int = 128
    alpha: int = 256
    length: int = 1024
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Preferred:
    """`adapter`: the folder of the adapter; `losses` by step, DPO's ln 2 before anything has moved."""

    adapter: Path
    losses: tuple[float, ...]


def prefer(
    model: str | Path, pairs: Sequence[Preference], out: str | Path, how: Preferring = Preferring(), *,
    device: str = "cpu",
) -> Preferred:  # fmt: skip
    """Tune the model of a local folder on `pairs` of text and write the adapter to `out`, whole.

    The reference is the same model with its adapters switched off: nothing of it changes, and it costs no second copy.
    Only tokens of the answers are counted. Needs `trl` and `fabrica[train]`.
    """
    folder = Path(model)
    if not (folder / "config.json").is_file():
        raise UsageError(f"{str(model)!r} is no model folder (no config.json); give one of `transformers`")
    if not pairs:
        raise UsageError("no preference pairs to learn from")
    if other := next((p for p in pairs if p.rejected_prompt), None):
        raise UsageError(f"pair {other.id!r} has two prompts; trl's DPO wants one")
    trl, peft, datasets = need("trl", "train"), need("peft", "train"), need("datasets", "views")
    tf = need("transformers", "train")
    words = tf.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if words.pad_token is None:
        words.pad_token = words.eos_token
    rows = datasets.Dataset.from_list([{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in pairs])
    with safe.folder_whole(Path(out)) as temp:
        config = trl.DPOConfig(
            str(temp / "run"), beta=how.beta, loss_type=["sigmoid" if how.loss == "dpo" else "sft"],
            learning_rate=how.lr, num_train_epochs=how.epochs, per_device_train_batch_size=how.batch,
            max_length=how.length, seed=how.seed, logging_steps=1,
            save_strategy="no", report_to="none", use_cpu=device == "cpu", lr_scheduler_type="cosine",
            warmup_steps=0.03, bf16=False, gradient_checkpointing=False, disable_tqdm=True, dataset_num_proc=None,
        )  # fmt: skip
        lora = peft.LoraConfig(
            r=how.rank, lora_alpha=how.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )  # fmt: skip
        base = _loaded(folder)
        with _no_bars(datasets):
            trainer = trl.DPOTrainer(base, args=config, train_dataset=rows, processing_class=words, peft_config=lora)
        trainer.remove_callback(tf.PrinterCallback)
        trainer.train()
        losses = tuple(float(line["loss"]) for line in trainer.state.log_history if "loss" in line)
        trainer.model.save_pretrained(temp, safe_serialization=True)
        _remove(temp / "run")
    return Preferred(Path(out), losses)


@contextmanager
def _no_bars(datasets: Any) -> Iterator[None]:
    """Without the bars of `datasets`."""
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def adapted(model: str | Path, adapter: str | Path) -> Any:
    """The tuned model: base and adapter, in evaluation mode."""
    peft = need("peft", "train")
    return peft.PeftModel.from_pretrained(_loaded(Path(model)), Path(adapter), local_files_only=True).eval()


def untuned(model: str | Path) -> Any:
    """The model of a folder as it was before, in evaluation mode."""
    return _loaded(Path(model)).eval()


def _loaded(folder: Path) -> Any:
    from fabrica.models.transformers_tower import _quiet

    tf = need("transformers", "train")
    with _quiet(tf):
        return tf.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
