"""A folder of small real files (PNG, text, CSV), some of them broken, and what is in a corpus, to compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from corpus_cases import plain

from fabrica.corpus import Corpus


def folder(at: Path, *, pictures: int = 12, rows: int = 7, broken: int = 3) -> Path:
    """Made-up files: `pictures` PNGs, as many reports, a table of `rows` rows, `broken` PNGs."""
    from PIL import Image

    rng = np.random.default_rng(7)
    (at / "png").mkdir(parents=True)
    for i in range(pictures):
        Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(at / "png" / f"{i:03d}.png")
        (at / f"{i:03d}.txt").write_text(f"Report {i}: no effusion.")
    lines = "".join(f"q{i},{i}.5,finding {i}\n" for i in range(rows))
    (at / "table.csv").write_text("subject,label:crp,report\n" + lines)
    for i in range(broken):
        (at / "png" / f"bad{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes([i]) * 40)
    return at


def contents(path: Path) -> tuple[list[object], list[object], list[object]]:
    """Records bit for bit sorted by id, the quarantine, and the files that were read whole."""
    corpus = Corpus.open(path)
    records = sorted((plain(r) for r in corpus.scan()), key=str)
    return records, corpus.quarantined().to_pylist(), sorted(corpus.files_done().items())
