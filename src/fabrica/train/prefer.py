"""Preference tuning of a causal language model by trl: DPO under low-rank adapters, the base being the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabrica import safe
from fabrica.errors import UsageError, need

if TYPE_CHECKING:
    from fabrica.curate.language.preference import Preference


@dataclass(frozen=True, slots=True)
class Preferring:
    """How: beta of DPO; LoRA `rank` and `alpha` on all linear layers; the paper's scripts have rank 128, alpha 256,
    rate 1e-7, 3 epochs, batch 1 on 4 GPUs, 1,024 tokens (RULE, arXiv 2407.05131)."""

    beta: float = 0.1
    lr: float = 1e-7
    epochs: float = 3
    batch: int = 1
    rank: int = 128
    alpha: int = 256
    length: int = 1024
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Preferred:
    """`adapter`: the folder of the adapter; `losses` by step, ln 2 before anything has moved."""

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
            str(temp / "run"), beta=how.beta, learning_rate=how.lr, num_train_epochs=how.epochs,
            per_device_train_batch_size=how.batch, max_length=how.length, seed=how.seed, logging_steps=1,
            save_strategy="no", report_to="none", use_cpu=device == "cpu", lr_scheduler_type="cosine",
            warmup_steps=0.03, bf16=False, gradient_checkpointing=False, disable_tqdm=True, dataset_num_proc=None,
        )  # fmt: skip
        lora = peft.LoraConfig(
            r=how.rank, lora_alpha=how.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )  # fmt: skip
        base = tf.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        trainer = trl.DPOTrainer(base, args=config, train_dataset=rows, processing_class=words, peft_config=lora)
        trainer.train()
        losses = tuple(float(line["loss"]) for line in trainer.state.log_history if "loss" in line)
        trainer.model.save_pretrained(temp, safe_serialization=True)
        _remove(temp / "run")
    return Preferred(Path(out), losses)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def adapted(model: str | Path, adapter: str | Path) -> Any:
    """The tuned model: base and adapter, in evaluation mode."""
    tf, peft = need("transformers", "train"), need("peft", "train")
    base = tf.AutoModelForCausalLM.from_pretrained(Path(model), local_files_only=True)
    return peft.PeftModel.from_pretrained(base, Path(adapter), local_files_only=True).eval()
