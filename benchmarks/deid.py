"""Free-text identifiers: found and removed, beside Presidio's analyzer, on the same planted notes: MB/s and recall.

Run: python benchmarks/deid.py [--json] [--notes 300] [--runs 3]. One core; ours and the peer alternately in one
process; medians. Notes are synthetic (`curate.deid.plants`): invented names, dates, numbers and addresses in English
and German sentences with clinical terms between them; the peer gets the same texts. Recall: share of planted
identifiers of which no word is left. Clinical terms changed: share of the planted terms. Second text: real prose of
chest radiographs, where at hand, else the same notes without identifiers (speed alone). The peer runs as it can
without a download: a blank spaCy pipeline, so that its pattern recognisers work and its named entities (people,
places) do not; its recall on names is therefore low by the setting, and the row of kinds that patterns can find is
the fair one. "Letters in other words" (`curate.deid.unseen`) are what our rules were not made with. Ratio: ours /
peer: above 1 we win. Roof: one pass of a regular expression over every character (\\S+).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fabrica.curate.deid.plants import Plant, Planter, note
from fabrica.curate.deid.unseen import Stranger
from fabrica.text.identifiers import scrub

PATTERNED = ("phone", "email", "url", "date", "id")
Scrub = Callable[[str], str]


def notes(n: int) -> tuple[list[str], list[list[Plant]], list[list[str]]]:
    """Synthetic notes, what was planted in each, and its clinical terms. Seeds below 100: none was tuned on them."""
    planter = Planter(0)
    made = [note(planter, planter.person(), 8) for _ in range(n)]
    return [m[0] for m in made], [m[1] for m in made], [m[2] for m in made]


def letters(n: int) -> tuple[list[str], list[list[Plant]], list[list[str]]]:
    """The same in words and with names that the rules were not made with."""
    stranger = Stranger(0)
    made = [stranger.letters(5) for _ in range(n)]
    return [m[0] for m in made], [m[1] for m in made], [m[2] for m in made]


def presidio() -> Scrub:
    os.environ.setdefault("TLDEXTRACT_CACHE", "")
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    for name in ("presidio-analyzer", "tldextract", "filelock"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "blank"}])
    engine.nlp = {"en": spacy.blank("en")}
    analyzer = AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])

    def run(text: str) -> str:
        found = sorted(analyzer.analyze(text=text, language="en"), key=lambda r: (r.start, -r.end))
        parts, at = [], 0
        for span in found:
            if span.end > at:
                parts += [text[at : max(at, span.start)], f"[{span.entity_type}]"]
                at = span.end
        return "".join([*parts, text[at:]])

    return run


def ours(text: str) -> str:
    return scrub(text).text


def quality(outs: list[str], plants: list[list[Plant]], terms: list[list[str]]) -> dict[str, float]:
    """Recall over all plants and over those that patterns can find; share of clinical terms changed."""
    hits: dict[bool, list[int]] = {True: [], False: []}
    changed = total = 0
    for out, planted, words in zip(outs, plants, terms, strict=True):
        for plant in planted:
            left = any(re.search(rf"(?<!\w){re.escape(w)}(?!\w)", out) for w in plant.words)
            hits[plant.kind in PATTERNED].append(not left)
        total += len(words)
        changed += sum(max(0, words.count(w) - out.count(w)) for w in set(words))
    everything = hits[True] + hits[False]
    return {
        "recall, all kinds": sum(everything) / len(everything),
        "recall, kinds that patterns can find": sum(hits[True]) / len(hits[True]),
        "clinical terms kept": 1 - changed / max(total, 1),
    }


def prose(texts: list[str]) -> tuple[list[str], str]:
    """Real radiograph reports if the catalogue's package was fetched, else the notes' clinical sentences."""
    folder = Path.home() / ".cache" / "fabrica-shared" / "openi_reports"
    archive = next(iter(folder.glob("*.tgz")), None) if folder.is_dir() else None
    if archive is not None:
        import tarfile

        with tarfile.open(archive) as members:
            found = []
            for member in members:
                handle = members.extractfile(member) if member.name.endswith(".xml") else None
                if handle is not None:
                    found.append("\n".join(re.findall(r"<AbstractText[^>]*>([^<]*)<", handle.read().decode())))
        return found[1::4], "reports of chest radiographs (real)"
    return [" ".join(re.findall(r"[^.]*unchanged[^.]*\.", t)) or "No effusion." for t in texts], "clinical sentences"


def timed(function: Scrub, texts: list[str]) -> tuple[float, list[str]]:
    begun = time.perf_counter()
    outs = [function(t) for t in texts]
    return time.perf_counter() - begun, outs


def measure(texts: list[str], peer: Scrub, runs: int) -> tuple[dict[str, float], dict[str, list[str]]]:
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    outs: dict[str, list[str]] = {}
    for _ in range(runs):
        for name, function in (("ours", ours), ("peer", peer)):
            seconds, outs[name] = timed(function, texts)
            times[name].append(seconds)
    return {name: statistics.median(t) for name, t in times.items()}, outs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--notes", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    texts, plants, terms = notes(given.notes)
    peer = presidio()
    timed(ours, texts[:20]), timed(peer, texts[:20])
    rows: list[dict[str, Any]] = []
    real, what_real = prose(texts)
    scores: dict[str, dict[str, float]] = {}
    for what, part in (("notes full of identifiers (synthetic)", texts), (what_real, real)):
        size = sum(len(t.encode()) for t in part) / 1e6
        seconds, outs = measure(part, peer, given.runs)
        begun = time.perf_counter()
        sum(len(re.findall(r"\S+", t)) for t in part)
        roof = size / (time.perf_counter() - begun)
        mine, theirs = size / seconds["ours"], size / seconds["peer"]
        rows.append(row(f"de-identify {what}", mine, theirs, "MB/s", roof, r"one pass of \S+ over the text", len(part)))
        if part is texts:
            scores = {name: quality(out, plants, terms) for name, out in outs.items()}
    for what in scores["ours"]:
        mine, theirs = scores["ours"][what], scores["peer"][what]
        rows.append(row(f"planted notes: {what}", mine, theirs, "share", 1.0, "all of them", len(texts)))
    others, planted, kept = letters(given.notes)
    mine, theirs = (quality([f(t) for t in others], planted, kept)["recall, all kinds"] for f in (ours, peer))
    rows.append(row("letters in other words: recall, all kinds", mine, theirs, "share", 1.0, "all", len(others)))
    if given.json:
        print(json.dumps({"rows": rows}))
        return
    for r in rows:
        print(f"{r['job']:<62} ours {r['ours']:>7.3f} {r['unit']:<6} {r['peer_name']} {r['peer']:>7.3f}  "
              f"ratio {r['ratio']:>6.2f}  roof {r['roof']} ({r['roof_name']}), n = {r['n']}")  # fmt: skip


def row(job: str, mine: float, theirs: float, unit: str, roof: float, roof_name: str, n: int) -> dict[str, Any]:
    return {
        "job": job, "ours": round(mine, 4), "peer": round(theirs, 4), "peer_name": "Presidio, "
            "blank spaCy", "unit": unit,
        "ratio": round(mine / max(theirs, 1e-9), 3), "roof": round(roof, 3), "roof_name": roof_name, "n": n,
    }  # fmt: skip


if __name__ == "__main__":
    main()
