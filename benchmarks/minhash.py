"""MinHash signatures of 1,000,000 synthetic reports against datasketch and datatrove: reports a second on one core.

Run: python benchmarks/minhash.py [--json] [--rows N] [--peer-rows N] [--runs 3]. Texts of 60 words, 128 values of
the 5-word shingles, all from the text on: normalising, splitting, hashing. Ours takes every row, in the blocks of 1,024
in which `curate.run` notes them, keys of 16 bands included; the peers' rates are of `--peer-rows` of them, alternately,
medians (their time is linear: no text is compared with another). datatrove as its pipeline calls it, with a word
splitter of one line in place of the tokenizer that it downloads. Agreement: mean error of the similarity that two
signatures estimate, against the true one, on 2,000 edited pairs. Ratio: ours / peer. Roof: daft's compiled kernel: it
hashes otherwise (its values fit no other index) and is given normalised text.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fabrica.curate.duplicates import hashing, near
from scale import texts as made

VALUES, BANDS, UNIT = 128, 16, 1024
Signatures = Callable[[Sequence[str]], Any]


def ours(texts: Sequence[str]) -> np.ndarray:
    """(n, 128) signatures; the keys of their bands are made as well."""
    parts = []
    for lo in range(0, len(texts), UNIT):
        normal = [hashing.normalise_text(text) for text in texts[lo : lo + UNIT]]
        parts.append(hashing.minhash(*hashing.shingles(normal), permutations=VALUES))
        near.band_keys(parts[-1], bands=BANDS)
    return np.concatenate(parts)


def shingled(text: str) -> list[bytes]:
    words = hashing.normalise_text(text).split()
    return [" ".join(words[i : i + 5]).encode() for i in range(max(len(words) - 4, 1))]


def datasketch(texts: Sequence[str]) -> np.ndarray:
    from datasketch import MinHash

    made = MinHash.generator((shingled(text) for text in texts), num_perm=VALUES)
    return np.stack([signature.hashvalues for signature in made])


def datatrove() -> Signatures:
    import xxhash
    from datatrove.pipeline.dedup import minhash as room

    class Words:
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

    room.load_word_tokenizer = lambda language: Words()  # type: ignore[attr-defined]
    config = room.MinhashConfig(n_grams=5, num_buckets=BANDS, hashes_per_bucket=VALUES // BANDS)
    step = room.MinhashDedupSignature("unused", config)
    hashed = xxhash.xxh64_intdigest  # its own call hands over str, which xxhash 4 refuses
    step._hash_func = lambda text: hashed(text.encode())

    def signatures(texts: Sequence[str]) -> np.ndarray:
        return np.stack([np.concatenate(step.get_signature(step.get_shingles(text))) for text in texts])

    return signatures


def error(signatures: Signatures, pairs: Sequence[tuple[str, str]], truth: np.ndarray) -> float:
    """Mean distance between estimated and true similarity."""
    a, b = (signatures([pair[side] for pair in pairs]) for side in (0, 1))
    return float(np.abs((a == b).mean(1) - truth).mean())


def edited(texts: Sequence[str]) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Pairs with 1 to 20 words changed, and their true similarities."""
    rng = np.random.default_rng(0)
    pairs = []
    for i, text in enumerate(texts):
        words = text.split()
        for k in range(1 + i % 20):
            words[int(rng.integers(len(words)))] = f"other{k}"
        pairs.append((text, " ".join(words)))
    sets = [(set(shingled(a)), set(shingled(b))) for a, b in pairs]
    return pairs, np.array([len(a & b) / len(a | b) for a, b in sets])


def timed(signatures: Signatures, texts: Sequence[str]) -> float:
    begun = time.perf_counter()
    signatures(texts)
    return time.perf_counter() - begun


def kernel(texts: Sequence[str]) -> tuple[float, str]:
    """Texts a second of daft's kernel on one thread."""
    try:
        import daft
    except ModuleNotFoundError:
        return 0.0, "daft is not installed"
    daft.set_runner_native(num_threads=1)
    frame = daft.from_pydict({"t": list(texts)}).collect()
    asked = frame.with_column("h", daft.col("t").minhash(num_hashes=VALUES, ngram_size=5)).select("h")
    asked.collect()
    begun = time.perf_counter()
    frame.with_column("h", daft.col("t").minhash(num_hashes=VALUES, ngram_size=5)).select("h").collect()
    return len(texts) / (time.perf_counter() - begun), "daft's compiled minhash of normalised text"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--peer-rows", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    few, peers = made(0, given.peer_rows), {"datasketch": datasketch, "datatrove": datatrove()}
    ours(few[:500])
    rates: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(given.runs):
        for name, peer in peers.items():
            rates[name].append(len(few) / timed(peer, few))
    seconds = sum(timed(ours, made(lo, min(lo + 100_000, given.rows))) for lo in range(0, given.rows, 100_000))
    mine, (roof, roof_name) = given.rows / seconds, kernel([hashing.normalise_text(t) for t in made(0, 50_000)])
    pairs, truth = edited(made(0, 2000))
    wrong = error(ours, pairs, truth)
    rows = []
    for name, peer in peers.items():
        rate, off = statistics.median(rates[name]), error(peer, pairs, truth)
        rows.append(
            {"job": "MinHash of reports, 128 values", "ours": round(mine), "peer": round(rate), "peer_name": name,
             "unit": "reports/s", "ratio": round(mine / rate, 2), "roof": round(roof), "roof_name": roof_name,
             "n": given.rows}
        )  # fmt: skip
        rows.append(
            {"job": "MinHash, mean error of the similarity", "ours": round(wrong, 5), "peer": round(off, 5),
             "peer_name": name, "unit": "similarity", "ratio": round(off / wrong, 3), "roof": 0.0,
             "roof_name": "the true one", "n": len(pairs)}
        )  # fmt: skip
    if given.json:
        print(json.dumps({"rows": rows}))
        return
    for r in rows:
        print(f"{r['job']:<40} ours {r['ours']:>10} {r['peer_name']} {r['peer']:>8} {r['unit']} ratio {r['ratio']} "
              f"roof {r['roof']} n = {r['n']}")  # fmt: skip


if __name__ == "__main__":
    main()
