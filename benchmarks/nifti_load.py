"""Loading .nii.gz volumes to arrays with their affine, beside nibabel and MONAI.

    python benchmarks/nifti_load.py [--json] [--repeat 7] [--folder FOLDER]

Volumes: a synthetic head MR (192 x 192 x 160 int16, noise over smooth shapes), a CT (256 x 256 x 96 int16, rescaled),
a label map (192 x 192 x 160 uint8), and 40 small ones (35 x 51 x 35 float32); with --folder the first 40 .nii.gz files
there instead of the small ones. gzip level 6, page cache warm, one thread. Ours and the peer alternately
in one process; medians of whole passes. nibabel: `np.asarray(load(path).dataobj)` and `.affine`; MONAI: `LoadImage`
with its nibabel reader, without its conversion to another type where it allows. Every array is compared once. The roof
is inflating the same bytes, already read, into a new buffer. Ratio: peer / ours, above 1 we win.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from fabrica.sources import nifti

Load = Callable[[Path], tuple[np.ndarray, np.ndarray]]


def write(path: Path, values: np.ndarray, *, slope: float = 1.0, inter: float = 0.0) -> Path:
    image = nibabel.Nifti1Image(
        values, np.array([[-0.9, 0, 0, 80], [0, 0.9, 0, -90], [0, 0, 1.2, -70], [0, 0, 0, 1.0]])
    )
    image.set_data_dtype(values.dtype)
    if slope != 1 or inter:
        image.header.set_slope_inter(slope, inter)
    image.to_filename(path)
    return path


def volumes(folder: Path, real: Path | None) -> dict[str, list[Path]]:
    rng = np.random.default_rng(0)

    def smooth(shape: Sequence[int]) -> np.ndarray:
        axes = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
        return np.exp(-3 * sum(a**2 for a in axes))

    head = (smooth((192, 192, 160)) * 900 + rng.normal(0, 12, (192, 192, 160))).clip(0).astype(np.int16)
    chest = (smooth((256, 256, 96)) * 1200 + rng.normal(0, 15, (256, 256, 96))).astype(np.int16)
    label = (smooth((192, 192, 160)) * 4).astype(np.uint8)
    jobs = {
        "head MR int16": [write(folder / "mr.nii.gz", head)],
        "chest CT int16, rescaled": [write(folder / "ct.nii.gz", chest, slope=1.0, inter=-1024.0)],
        "label map uint8": [write(folder / "label.nii.gz", label)],
    }
    if real is not None:
        jobs["small, real"] = sorted(real.rglob("*.nii.gz"))[:40]
    else:
        small = [(smooth((35, 51, 35)) * 200 + rng.normal(0, 9, (35, 51, 35))).astype(np.float32) for _ in range(40)]
        jobs["40 small float32"] = [write(folder / f"small{n}.nii.gz", v) for n, v in enumerate(small)]
    return jobs


def ours(path: Path) -> tuple[np.ndarray, np.ndarray]:
    loaded = nifti.load(path)
    return loaded.array, loaded.affine


def by_nibabel(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image: Any = nibabel.load(path)
    return np.asarray(image.dataobj), image.affine


def by_monai() -> Load:
    from monai.transforms import LoadImage

    loader = LoadImage(image_only=True, reader="NibabelReader", dtype=None)

    def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
        image = loader(path)
        return image.array, image.affine

    return load


def roof(paths: list[Path]) -> Callable[[], None]:
    packed = [p.read_bytes() for p in paths]

    def inflate(data: bytes) -> None:
        size = int.from_bytes(data[-4:], "little")
        try:
            from imagecodecs import gzip_decode

            gzip_decode(data, out=size)
        except ImportError:
            zlib.decompress(data, 31, size)

    return lambda: [inflate(data) for data in packed] and None


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compare(job: str, paths: list[Path], name: str, peer: Load, repeat: int) -> dict[str, Any]:
    for path in paths:
        (a, affine), (b, other) = ours(path), peer(path)
        np.testing.assert_allclose(a, b, rtol=1e-5)
        np.testing.assert_allclose(affine, np.asarray(other), atol=1e-4)
    bare = roof(paths)
    rows: dict[str, list[float]] = {"ours": [], "peer": [], "roof": []}
    for _ in range(repeat):
        rows["ours"].append(timed(lambda: [ours(p) for p in paths]))
        rows["peer"].append(timed(lambda: [peer(p) for p in paths]))
        rows["roof"].append(timed(bare))
    ms = {k: 1000 * statistics.median(v) / len(paths) for k, v in rows.items()}
    return {
        "job": f"load .nii.gz: {job}", "ours": round(ms["ours"], 3), "peer": round(ms["peer"], 3), "peer_name": name,
        "unit": "ms a volume", "ratio": round(ms["peer"] / ms["ours"], 2), "roof": round(ms["roof"], 3),
        "n": len(paths),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeat", type=int, default=7, help="passes; the median is reported")
    parser.add_argument("--folder", type=Path, help="a folder of real .nii.gz files")
    options = parser.parse_args()
    peers: dict[str, Load] = {"nibabel": by_nibabel}
    try:
        peers["MONAI"] = by_monai()
    except ImportError:
        print("MONAI is not installed: pip install 'fabrica[bench]'")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for job, paths in volumes(Path(folder), options.folder).items():
            rows += [compare(job, paths, name, peer, options.repeat) for name, peer in peers.items()]
    if options.json:
        print(json.dumps({"rows": rows}))
        return
    for row in rows:
        print("{job:42} ours {ours:8.3f}  {peer_name:8} {peer:8.3f} {unit}  x{ratio:<6} roof {roof:.3f}".format(**row))


if __name__ == "__main__":
    main()
