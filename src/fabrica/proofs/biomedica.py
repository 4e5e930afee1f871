"""BIOMEDICA's claims: articles read without loss, cluster labels against a probe, a filtered stream for CLIP."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.proofs import Plan
from fabrica.proofs.spread import spread
from fabrica.types import Claim, Item, Origin, Proof, Record

FILTERED, PLAIN, RANDOM = "concept-filtered stream", "unfiltered stream", "random subset of the filtered size"
CLUSTERS, PROBE = "cluster labels propagated", "probe on as many labelled images"
ERROR = 0.03  # of an annotator, whether he looks at one image or at a sheet of 30
SHOW = 30
REGULARISE = (1.0, 10.0, 100.0, 1000.0)  # the probe's grid; its best on the test images counts


@dataclass(frozen=True, slots=True)
class Size:
    """How much. `dims` of the PCA, `k` and `digits_k` are fixed on seeds from 100 on."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    articles: int = 300
    images: int = 6_000
    k: int = 120
    digits_k: int = 42
    dims: int = 60
    train: int = 2_000
    test: int = 480
    steps: int = 300
    stream_k: int = 60
    settings: dict[str, Any] = field(default_factory=dict)


def run(plan: Plan) -> Proof:
    """All three parts for every seed."""
    size = Size()
    if plan.quick:
        size = Size(seeds=(0, 1), articles=100, images=2_400, k=48, train=800, test=240, steps=120, stream_k=40)
    if plan.full:
        size = Size(articles=3_000, images=24_000, k=480, train=40_000, test=2_400, steps=5_000, stream_k=240)
    return prove(size, plan)


@dataclass(frozen=True, slots=True)
class Part:
    """One part on one seed: "stream" (with its arm), "concepts", "digits", "articles" or "twice"."""

    what: str
    size: Size
    seed: int
    arm: str = ""


def prove(size: Size, plan: Plan) -> Proof:
    """The experiment at any size."""
    jobs = [Part("stream", size, seed, arm) for seed in size.seeds for arm in (FILTERED, PLAIN, RANDOM)]
    jobs += [Part(what, size, seed) for what in ("concepts", "digits", "articles") for seed in size.seeds]
    jobs.append(Part("twice", size, size.seeds[0]))
    found: dict[str, list[dict[str, float]]] = {}
    for job, scores in zip(jobs, spread(part, jobs, plan, "parts"), strict=True):
        found.setdefault(f"{job.what}{job.arm}", []).append(scores)
    return _proof(size, found)


def part(job: Part, plan: Plan) -> dict[str, float]:
    """Named numbers of one part."""
    if job.what == "stream":
        return streamed(job, plan)
    does = {"concepts": concepts, "digits": digits, "articles": read_articles, "twice": built_twice}
    return does[job.what](job)


# ---------------------------------------------------------------- 1: articles


def read_articles(job: Part) -> dict[str, float]:
    """Captions, contexts, malformed files, sub-captions and panels of synthetic articles, against their truth."""
    from fabrica.phantom.articles import articles, write_folder
    from fabrica.sources import Quarantined, read, walk

    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temp:
        made = {a.paper.pmcid: a for a in write_folder(articles(job.size.articles, job.seed), Path(temp) / "pmc")}
        for ref in walk(Path(temp) / "pmc", source="pmc", licence=""):
            truth = made[ref.path.parent.name]
            found = list(read(ref))
            records = [r for r in found if isinstance(r, Record)]
            if truth.broken:
                counts["broken"] += 1
                counts["logged"] += not records and all(isinstance(f, Quarantined) for f in found)
                continue
            _compare(truth, records, counts)
    return {
        "caption": counts["caption"] / counts["figures"], "context": counts["recalled"] / counts["mentions"],
        "logged": counts["logged"] / max(counts["broken"], 1), "broken": float(counts["broken"]),
        "figures": float(counts["figures"]), "parts": counts["parts"] / counts["compound"],
        "panels": counts["panels"] / counts["compound"], "licence": counts["licence"] / counts["figures"],
    }  # fmt: skip


def _compare(truth: Any, records: Sequence[Record], counts: Counter[str]) -> None:
    """Add one sound article's figures to the counts."""
    from fabrica.curate.articles.figures import PanelSplit, SubCaptions
    from fabrica.curate.articles.panels import iou

    def keep(record: Record, reason: str) -> None:
        raise AssertionError(f"{record.id} was dropped: {reason}")

    shown = [r for r in records if r.groups["modality"] == "figure"]
    by = {r.groups["figure"]: r for r in PanelSplit()(SubCaptions()(shown, keep), keep)}
    for figure, what in zip((f for f in truth.paper.figures if f.kind == "fig"), truth.truth, strict=True):
        record = by.get(figure.label)
        counts["figures"] += 1
        counts["mentions"] += len(truth.paper.context(figure.id))
        if record is None:
            continue
        caption = record.first("caption")
        counts["caption"] += caption is not None and caption.text() == figure.text
        counts["licence"] += record.rights.licence == (truth.paper.licence or "other")
        context = {i.text() for i in record.all("context")}
        counts["recalled"] += sum(text in context for text in truth.paper.context(figure.id))
        if what.style:
            counts["compound"] += 1
            words = {r.label: r.text for r in record.regions if r.role == "caption"}
            counts["parts"] += words == _said(what)
            boxes = {r.label: tuple(int(v) for v in r.data) for r in record.regions if r.role == "image"}
            counts["panels"] += all(
                p.letter in boxes and iou(boxes[p.letter], p.box) > 0.5  # type: ignore[arg-type]
                for p in what.panels
            )


def _said(what: Any) -> dict[str, str]:
    """Letter -> words; in the style "groups" the first two panels share the first's."""
    words = {p.letter: p.caption for p in what.panels}
    if what.style == "groups" and len(what.panels) > 2:
        words[what.panels[1].letter] = what.panels[0].caption
    return words


def built_twice(job: Part) -> dict[str, float]:
    """Articles -> corpus -> plan -> archive, two times from nothing: the same bytes; the commercial stream audited."""
    from fabrica.corpus import Corpus
    from fabrica.corpus.ingest import ingest
    from fabrica.corpus.views import archive, stream
    from fabrica.curate.engine.run import run as curate
    from fabrica.phantom.articles import articles, write_folder
    from fabrica.systems.biomedica import Settings
    from fabrica.systems.biomedica import plan as steps

    with tempfile.TemporaryDirectory() as temp:
        where = Path(temp)
        write_folder(articles(job.size.articles // 3, job.seed), where / "pmc")
        for n in ("a", "b"):
            ingest(where / "pmc", Corpus.at(where / f"in-{n}"), source="pmc")
            curate(steps(Settings()), Corpus.open(where / f"in-{n}"), where / f"out-{n}")
            archive.write(Corpus.open(where / f"out-{n}"), where / f"archive-{n}", shard_records=100)
        a, b = ([(s.name, s.sha256, s.parquet_sha256) for s in archive.shards(where / f"archive-{n}")] for n in "ab")
        rows = [s.fields for s in stream.open_stream(where / "archive-a", groups=("commercial",))]
        wrong = sum(not f["licence"].startswith(("CC0", "CC-BY-4", "CC-BY-SA")) for f in rows)
    return {"same": float(a == b and len(a) > 0), "commercial": float(len(rows)), "wrong": float(wrong)}


# ---------------------------------------------------------------- 2: cluster labels


def concepts(job: Part) -> dict[str, float]:
    """Cluster labels on the twelve phantom concepts, the same number of each."""
    from fabrica.curate.pools.colour_texture import ColourTexture
    from fabrica.phantom.concepts import CONCEPTS, draw

    rng = np.random.default_rng([job.seed, 7])
    truth = [CONCEPTS[i % len(CONCEPTS)] for i in range(job.size.images)]
    rows = ColourTexture()([_item(draw(c, rng)) for c in truth])
    return labelled(rows, truth, job.size.k, job.size.dims, job.seed)


def digits(job: Part) -> dict[str, float]:
    """The same on scikit-learn's 1,797 real handwritten digits."""
    from sklearn.datasets import load_digits

    from fabrica.curate.pools.colour_texture import ColourTexture

    data = load_digits()
    rows = ColourTexture()([_item((x * 15).astype(np.uint8)) for x in data.images])
    return labelled(rows, [str(t) for t in data.target], job.size.digits_k, job.size.dims, job.seed)


def _item(pixels: NDArray[np.uint8]) -> Item:
    return Item("image", pixels, Origin("proof", "", "", ""))


@dataclass
class Simulated:
    """An annotator who errs with `ERROR`, on one image as on a sheet; on a sheet he names what most members are and
    counts those that fit what he said."""

    name: str
    truth: dict[str, str]
    rng: np.random.Generator

    def one(self, right: str) -> str:
        """His word on something that is `right`."""
        names = sorted(set(self.truth.values()))
        return right if self.rng.random() >= ERROR else names[self.rng.integers(len(names))]

    def __call__(self, number: int, members: Sequence[str], /) -> Any:
        """His vote on a cluster."""
        from fabrica.curate.articles.concepts import Vote

        seen = Counter(self.truth[m] for m in members)
        said = self.one(min(seen, key=lambda c: (-seen[c], c)))
        return Vote(number, self.name, said, len(members), seen[said])


def labelled(rows: NDArray[np.float32], truth: Sequence[str], k: int, dims: int, seed: int) -> dict[str, float]:
    """Accuracy of propagated labels ("mixed" is wrong), and of a probe on as many single labels on random images."""
    from fabrica.curate.articles.concepts import MIXED, ask, cluster, tally

    ids = [f"{i:06d}" for i in range(len(truth))]
    known = dict(zip(ids, truth, strict=True))
    clusters = cluster(ids, rows, k=k, dims=dims, seed=seed, embedder="colour-texture-1")
    people = [Simulated(str(n), known, np.random.default_rng([seed, n, 3])) for n in range(3)]
    votes = ask(clusters, people, show=SHOW, seed=seed)
    labels = tally(votes)
    said = [labels[int(c)].concept for c in clusters.cluster]
    pick = np.random.default_rng([seed, 9]).choice(len(truth), len(votes), replace=False)
    words = np.array([people[0].one(truth[i]) for i in pick])
    return {
        "clusters": float(np.mean([a == b for a, b in zip(said, truth, strict=True)])),
        "mixed": float(np.mean([s == MIXED for s in said])),
        "probe": _probe(rows, pick, words, np.array(truth)), "share": len(votes) / len(truth),
    }  # fmt: skip


def _probe(
    rows: NDArray[np.float32], pick: NDArray[np.int64], words: NDArray[np.str_], truth: NDArray[np.str_]
) -> float:
    """The best of the grid's logistic probes, judged on all images: tuning that favours the baseline."""
    from sklearn.linear_model import LogisticRegression

    fits = (LogisticRegression(C=c, max_iter=300).fit(rows[pick], words) for c in REGULARISE)
    return max(float(np.mean(fit.predict(rows) == truth)) for fit in fits)


# ---------------------------------------------------------------- 3: the stream


def streamed(job: Part, plan: Plan) -> dict[str, float]:
    """Zero-shot accuracy over 24 sights of a small CLIP after `steps` batches of one arm's stream."""
    import torch

    from fabrica.evaluate.zero_shot import class_weights
    from fabrica.phantom.figure_stream import figures, sights
    from fabrica.systems import load_system
    from fabrica.train import InMemory, fit

    size, seed = job.size, job.seed
    seen = arm_of(list(figures(size.train, seed)), job.arm, size, seed)
    test = list(figures(size.test, seed + 1_000_000, plots=0.0))
    system = load_system("biomedica")
    settings = replace(system.settings["tiny"], **{"steps": size.steps, **size.settings})
    torch.manual_seed(seed)
    bundle = system.build(settings, seen)
    with tempfile.TemporaryDirectory() as out:
        held = InMemory.of(seen, bundle.collate)
        fit(bundle, system.stages(settings, bundle), held, out, seed=seed, device=plan.device, save_every=0)
    classes = sights()
    images = bundle.embed(test, "image", batch=120)[1]
    words = class_weights(bundle.embed_texts, [classes[c] for c in classes])
    said = (images @ words.T).argmax(1)
    right = [list(classes)[i] == r.groups["sight"] for i, r in zip(said, test, strict=True)]
    return {"accuracy": float(np.mean(right)), "records": float(len(seen))}


def arm_of(records: list[Record], arm: str, size: Size, seed: int) -> list[Record]:
    """What an arm streams: all, those whose propagated concept is kept, or as many drawn at random."""
    if arm == PLAIN:
        return records
    kept = filtered(records, size, seed)
    if arm == FILTERED:
        return kept
    draw = np.random.default_rng([seed, 11]).permutation(len(records))[: len(kept)]
    return [records[i] for i in sorted(draw)]


def filtered(records: list[Record], size: Size, seed: int) -> list[Record]:
    """The system's steps: clusters labelled by annotators, propagated, clinical and microscopy concepts kept."""
    from fabrica.curate.articles.archive import KeepConcepts
    from fabrica.curate.articles.concepts import Propagate, ask, cluster, embedded, tally
    from fabrica.curate.pools.colour_texture import ColourTexture
    from fabrica.phantom.concepts import PICTURED

    embed = ColourTexture()
    ids, rows = embedded(records, embed)
    clusters = cluster(ids, rows, k=size.stream_k, dims=size.dims, seed=seed, embedder=embed.name)
    truth = {r.id: r.groups["truth"] for r in records}
    people = [Simulated(str(n), truth, np.random.default_rng([seed, n, 5])) for n in range(3)]
    labels = tally(ask(clusters, people, show=SHOW, seed=seed))
    out: Iterable[Record] = Propagate(model=clusters.model, labels=labels, embed=embed)(records, _ignore)
    return list(KeepConcepts(keep=PICTURED)(out, _ignore))


def _ignore(record: Record, reason: str) -> None:
    """What is dropped is meant to be."""


# ---------------------------------------------------------------- the verdict


def _proof(size: Size, found: dict[str, list[dict[str, float]]]) -> Proof:
    from fabrica.evaluate.bootstrap import paired_seeds

    def column(part: str, name: str) -> tuple[float, ...]:
        return tuple(row[name] for row in found[part])

    def least(name: str, bar: str, values: tuple[float, ...], at: float) -> Claim:
        return Claim(name, bar, float(np.mean(values)), (min(values), max(values)), min(values) >= at)

    arms = {a: column(f"stream{a}", "accuracy") for a in (FILTERED, PLAIN, RANDOM)}
    stream, chance = paired_seeds(arms[FILTERED], arms[PLAIN]), paired_seeds(arms[RANDOM], arms[PLAIN])
    twice = found["twice"][0]
    claims = [
        Claim("filtered streaming", "filtered - unfiltered >= 0.05, interval above 0", stream.value,
              (stream.low, stream.high), stream.value >= 0.05 and stream.low > 0),
        least("captions", "every caption of a sound article is right, every seed", column("articles", "caption"), 1.0),
        least("contexts", "recall >= 0.99, every seed", column("articles", "context"), 0.99),
        least("malformed", "every malformed article is logged, every seed", column("articles", "logged"), 1.0),
        Claim("two builds", "byte-identical archives, no other row in the commercial stream", twice["same"],
              (twice["same"], twice["same"]), twice["same"] == 1 and twice["wrong"] == 0 and twice["commercial"] > 0),
    ]  # fmt: skip
    for part, data in (("concepts", "phantom"), ("digits", "real digits")):
        accuracy, probe, share = (column(part, name) for name in ("clusters", "probe", "share"))
        gain, average = paired_seeds(accuracy, probe), float(np.mean(accuracy))
        arms |= {f"{CLUSTERS}, {data}": accuracy, f"{PROBE}, {data}": probe}
        claims += [
            Claim(f"cluster labels, {data}", "mean accuracy >= 0.90 with <= 5 % of the labels", average,
                  (min(accuracy), max(accuracy)), average >= 0.90 and max(share) <= 0.05,
                  f"labels: {max(share):.1%}"),
            Claim(f"over a probe, {data}", "clusters - probe >= 0.05, interval above 0", gain.value,
                  (gain.low, gain.high), gain.value >= 0.05 and gain.low > 0),
        ]  # fmt: skip
    control = Claim("random subset", "as many random figures: within 0.03 of the unfiltered stream", chance.value,
                    (chance.low, chance.high), abs(chance.value) <= 0.03)  # fmt: skip
    mean = {name: float(np.mean(column("articles", name))) for name in ("parts", "panels", "licence", "figures")}
    return Proof(
        "biomedica", "Expert labels of clusters reach every figure at a few percent of the labels; a concept-filtered "
        "stream trains a better CLIP at equal samples seen.",
        f"phantom: {size.articles} articles, {size.images:,} figures of 12 concepts, streams of {size.train:,} with "
        "60 % plots and tables; real: 1,797 handwritten digits (scikit-learn)",
        f"zero-shot accuracy over 24 sights ({size.test} figures, chance {1 / 24:.3f}); label accuracy, mixed = wrong",
        arms, tuple(claims), (control,), size.seeds, 0.0,
        f"Sub-captions of compound figures right {mean['parts']:.3f}, panels found and lettered {mean['panels']:.3f}, "
        f"licences {mean['licence']:.3f} ({mean['figures']:.0f} figures a seed). Annotators err in {ERROR:.0%}; two "
        "label each cluster, a third where they differ. The probe's regularisation is chosen on the test images. "
        "Intervals of shares are ranges over seeds.",
        {"parts": found},
    )  # fmt: skip
