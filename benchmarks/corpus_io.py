"""Writing a corpus and reading it shuffled, beside WebDataset and Hugging Face `datasets`.

    python benchmarks/corpus_io.py [--json] [--n 5000] [--rounds 3]

Each record is a 224 x 224 uint8 image of noise, a 9 KB text and 14 labels: about 60 KB. Write: from Python objects
to files on disk. Read: every record once, shuffled, in batches of 64, to NumPy arrays (copied once, as collating
does), text and labels, page cache warm. Ours and the peers run alternately; medians. The roof is one copy of the same
bytes: to a new file (write), in memory (read). WebDataset can only shuffle within a buffer (here 1,000 samples); ours
and `datasets` take any order.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.corpus import Corpus, Sampler, stream
from fabrica.types import Item, Origin, Record, Rights

SIDE, LABELS, BATCH = 224, 14, 64
Sample = tuple[str, np.ndarray, str, list[float]]  # id, image (224, 224) uint8, text, labels (14,)


def samples(n: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, SIDE, SIDE), dtype=np.uint8)
    words = np.array(["lung", "heart", "effusion", "clear", "no", "opacity", "left", "right", "base", "apex"])
    texts = [" ".join(words[rng.integers(0, len(words), 1600)].tolist()) for _ in range(n)]
    labels = rng.integers(0, 2, (n, LABELS)).astype(float)
    return [(f"{i:024x}", images[i], texts[i], labels[i].tolist()) for i in range(n)]


_batch = np.empty((SIDE, SIDE), np.uint8)  # where a collate function would put an image


def whole(image: np.ndarray, text: str, labels: Any) -> bool:
    """Use a sample as training does: copy its pixels, look at its text and labels."""
    np.copyto(_batch, image)
    return image.shape == (SIDE, SIDE) and image.dtype == np.uint8 and len(text) > 0 and len(labels) == LABELS


# ---------------------------------------------------------------- ours


def ours_write(data: list[Sample], folder: Path) -> None:
    def records() -> Iterator[Record]:
        for name, image, text, labels in data:
            origin = Origin("bench", name, "", "CC0-1.0", "synthetic")
            items = {"image": (Item("image", image, origin),), "report": (Item("text", text, origin),)}
            named = {f"finding{i}": v for i, v in enumerate(labels)}
            yield Record(name, name, {"modality": "xray"}, items, labels=named, rights=Rights("CC0-1.0"))

    Corpus.create(folder).append(records())


def ours_read(folder: Path) -> int:
    corpus = Corpus.open(folder)
    sampler = Sampler.over(corpus, batch=BATCH, seed=1, drop_last=False)
    seen = 0
    for _, records in stream(corpus, sampler, stop=sampler.steps_per_epoch):
        for record in records:
            image, text = record.items["image"][0], record.items["report"][0]
            seen += whole(image.array(), text.text(), record.labels)
    return seen


# ---------------------------------------------------------------- peers


def wds_write(data: list[Sample], folder: Path) -> None:
    import webdataset

    folder.mkdir()
    for shard in range(0, len(data), 1000):
        with webdataset.TarWriter(str(folder / f"{shard // 1000:06d}.tar")) as tar:
            for name, image, text, labels in data[shard : shard + 1000]:
                tar.write({"__key__": name, "npy": image, "txt": text, "json": labels})


def wds_read(folder: Path) -> int:
    import webdataset

    shards = sorted(map(str, folder.glob("*.tar")))
    data = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=1).shuffle(1000).decode()
    batches = data.to_tuple("npy", "txt", "json").batched(BATCH, collation_fn=None)
    return sum(whole(*sample) for batch in batches for sample in batch)


def hf_write(data: list[Sample], folder: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features(
        {
            "id": datasets.Value("string"), "image": datasets.Array2D((SIDE, SIDE), "uint8"),
            "text": datasets.Value("string"), "labels": datasets.List(datasets.Value("float64")),
        }
    )  # fmt: skip
    columns = dict(zip(features, map(list, zip(*data, strict=True)), strict=True))
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder))


def hf_read(folder: Path) -> int:
    import datasets

    data = datasets.load_from_disk(str(folder)).with_format("numpy", dtype=np.uint8)  # the default is int64
    order = np.random.default_rng(1).permutation(len(data))
    seen = 0
    for start in range(0, len(data), BATCH):
        batch: Any = data[order[start : start + BATCH].tolist()]
        seen += sum(map(whole, batch["image"], batch["text"], batch["labels"]))
    return seen


def hf_bytes_write(data: list[Sample], folder: Path) -> None:
    """Images as raw bytes: the leanest that `datasets` can be asked to hold."""
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features(
        {
            "id": datasets.Value("string"), "image": datasets.Value("binary"),
            "text": datasets.Value("string"), "labels": datasets.List(datasets.Value("float64")),
        }
    )  # fmt: skip
    columns = dict(zip(features, map(list, zip(*data, strict=True)), strict=True))
    columns["image"] = [image.tobytes() for image in columns["image"]]
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder))


def hf_bytes_read(folder: Path) -> int:
    import datasets

    data = datasets.load_from_disk(str(folder))
    order = np.random.default_rng(1).permutation(len(data))
    seen = 0
    for start in range(0, len(data), BATCH):
        batch: Any = data[order[start : start + BATCH].tolist()]
        images = [np.frombuffer(b, np.uint8).reshape(SIDE, SIDE) for b in batch["image"]]
        seen += sum(map(whole, images, batch["text"], batch["labels"]))
    return seen


TOOLS: dict[str, tuple[Callable[[list[Sample], Path], None], Callable[[Path], int]]] = {
    "fabrica": (ours_write, ours_read),
    "webdataset": (wds_write, wds_read),
    "datasets, Array2D": (hf_write, hf_read),
    "datasets, bytes": (hf_bytes_write, hf_bytes_read),
}
JOBS = {"write": "corpus write", "read": "shuffled read, batches of 64"}


# ---------------------------------------------------------------- measuring


def clock(job: Callable[[], object]) -> float:
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def roofs(data: list[Sample], folder: Path) -> dict[str, float]:
    """Seconds to write the same bytes to one new file, and to copy them in memory."""
    text = np.zeros(sum(len(t) for _, _, t, _ in data), np.uint8)
    block = np.concatenate([*(image.reshape(-1) for _, image, _, _ in data), text])
    into, path = np.ones_like(block), folder / "roof"
    found = {"write": clock(lambda: block.tofile(path)), "read": clock(lambda: np.copyto(into, block))}
    path.unlink()
    return found


def one_round(data: list[Sample], folder: Path) -> dict[tuple[str, str], float]:
    """Seconds by (job, tool), the tools in turn; key (job, "roof") for the roofs."""
    taken = {(job, "roof"): seconds for job, seconds in roofs(data, folder).items()}
    for number, (tool, (write, _)) in enumerate(TOOLS.items()):
        place = folder / str(number)
        shutil.rmtree(place, ignore_errors=True)
        taken["write", tool] = clock(lambda write=write, place=place: write(data, place))
    for number, (tool, (_, read)) in enumerate(TOOLS.items()):
        seen: list[int] = []
        taken["read", tool] = clock(lambda read=read, number=number, seen=seen: seen.append(read(folder / str(number))))
        if seen != [len(data)]:
            raise AssertionError(f"{tool}: {seen} of {len(data)} samples came back whole")
    return taken


def run(n: int, rounds: int, folder: Path) -> list[dict[str, Any]]:
    data = samples(n)
    one_round(data, folder)  # warm-up: imports, allocators, page cache
    taken = [one_round(data, folder) for _ in range(rounds)]
    rate = {key: n / statistics.median(t[key] for t in taken) for key in taken[0]}
    return [
        {
            "job": JOBS[job], "ours": round(rate[job, "fabrica"]), "peer": round(rate[job, peer]), "peer_name": peer,
            "unit": "records/s", "ratio": round(rate[job, "fabrica"] / rate[job, peer], 2),
            "roof": round(rate[job, "roof"]), "n": n,
        }
        for job in JOBS for peer in TOOLS if peer != "fabrica"
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--n", type=int, default=5000, help="records")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds after one warm-up")
    parser.add_argument("--folder", type=Path, default=None, help="where to write (default: a temporary folder)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        rows = run(given.n, given.rounds, Path(folder))
    if given.json:
        print(json.dumps({"rows": rows}))
        return
    print(f"{'job':<30}{'ours':>8}{'peer':>8}  {'peer_name':<20}{'ratio':>6}{'roof':>8}  unit")
    for row in rows:
        numbers = f"{row['ours']:>8}{row['peer']:>8}  {row['peer_name']:<20}{row['ratio']:>6}{row['roof']:>8}"
        print(f"{row['job']:<30}{numbers}  {row['unit']}")


if __name__ == "__main__":
    main()
