"""The parts of RULE's proof: certificates many times over, a logistic reader's preferences, real reports."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fabrica.proofs import Plan
from fabrica.proofs.real import real
from fabrica.types import Record

if TYPE_CHECKING:
    from fabrica.curate.language.preference import Kind
    from fabrica.evaluate.rag import Effect
    from fabrica.models import Bundle
    from fabrica.phantom.references import Readings
    from fabrica.retrieve.certify import RiskControlled
    from fabrica.systems.rule import Settings

Floats = NDArray[np.float64]
DELTA, ALPHA, TIGHT, REAL_ALPHA = 0.1, 0.22, 0.19, 0.2
COUNTS, SIZES, TRUST = (200, 500, 1500), tuple(range(17)), 0.6
START, KBPT, LONG, SFT, BOTH, SWAPPED, RANDOM, EVERY = (
    "start", "KBPT", "KBPT, to the end", "chosen answers alone (SFT)", "pairs of both kinds", "pairs swapped",
    "pairs at random", "every training answer (SFT)",
)  # fmt: skip
REAL, SPLITS = "openi_reports", 20


@dataclass(frozen=True, slots=True)
class Size:
    """How much: repeats of each calibration; questions of a reader's parts; the grid (rates x steps) that each of a
    reader's arms takes its best of on validation; the same of a language model."""

    seeds: tuple[int, ...] = (20, 21, 22)
    reader_seeds: tuple[int, ...] = tuple(range(20, 30))
    word_seeds: tuple[int, ...] = (20, 21, 22, 23)
    repeats: int = 400
    train: int = 4000
    validation: int = 2000
    test: int = 4000
    steps: tuple[int, ...] = (5, 10, 20, 40, 80, 160, 320)
    rates: tuple[float, ...] = (0.02, 0.05, 0.1)
    word_train: int = 1200
    word_test: int = 2000
    word_steps: int = 400
    word_rates: tuple[float, ...] = (1e-3, 3e-3)
    word_epochs: tuple[int, ...] = (1, 2, 4)


class Choice(NamedTuple):
    """How long and how fast to train."""

    steps: int
    rate: float


@dataclass(frozen=True, slots=True)
class Job:
    """One part: `what` is "certificate", "reader", "words" or "real"."""

    what: str
    seed: int
    size: Size


@dataclass(slots=True)
class Found:
    """Values by name, and tables for the details."""

    values: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


def part(job: Job, plan: Plan) -> Found:
    """What one part finds."""
    return {"reader": _reader, "certificate": _certificate, "words": _words, "real": _real}[job.what](job, plan)


def _words(job: Job, plan: Plan) -> Found:
    from fabrica.proofs._rule_words import words

    size = job.size
    return Found(
        *words(
            job.seed,
            size.word_train,
            size.word_test,
            size.word_steps,
            [(e, r) for r in size.word_rates for e in size.word_epochs],
            plan.device,
        )
    )


# ---------------------------------------------------------------- the certificate


def _calibrator(alpha: float, sizes: tuple[int, ...]) -> RiskControlled:
    from fabrica.systems import load_system
    from fabrica.systems.rule import calibrator

    settings = load_system("rule").settings["tiny"]
    return calibrator(replace(settings, alpha=alpha, delta=DELTA, candidates=sizes))


def _certificate(job: Job, plan: Plan) -> Found:
    """Calibrations of three sizes, many times over, against the exact risk of each number of contexts."""
    from fabrica.phantom.references import references, risk

    size, found = job.size, Found()
    truth = risk(SIZES, trust=TRUST)
    found.details["risk"] = [round(float(r), 4) for r in truth]
    for count in COUNTS:
        drawn = references(count * size.repeats, 2_000_000 + 1000 * job.seed + count).losses(SIZES, trust=TRUST)
        for alpha in (ALPHA, TIGHT):
            made = [_once(d, alpha, truth) for d in drawn.reshape(size.repeats, count, len(SIZES))]
            named = f"alpha {alpha:g}, {count} cases"
            for i, what in enumerate(("certified violates", "naive violates", "empty", "set size")):
                found.values[f"{what}, {named}"] = float(np.mean([m[i] for m in made]))
    return found


def _once(losses: Floats, alpha: float, truth: Floats) -> tuple[float, float, float, float]:
    """Whether the certified set holds a size whose true risk is above alpha, whether the naive one does (observed risk
    at most alpha), whether nothing was certified, how many sizes were."""
    made = _calibrator(alpha, SIZES).fit(losses, _names(len(losses)))
    naive = [t for t, r in zip(truth, made.risks, strict=True) if r <= alpha]
    own = [truth[SIZES.index(k)] for k in made.valid]
    return float(any(t > alpha for t in own)), float(any(t > alpha for t in naive)), float(not own), float(len(own))


def _names(n: int) -> list[str]:
    return [str(i) for i in range(n)]


# ---------------------------------------------------------------- the reader


def _reader(job: Job, plan: Plan) -> Found:
    """A reader that trusts references too much, its mined pairs, and the same training on other pairs."""
    from fabrica.phantom.references import readings

    size, seed, found = job.size, job.seed, Found()
    train, check, test = (
        readings(n, 10 * seed + i) for i, n in enumerate((size.train, size.validation, size.test))
    )  # fmt: skip
    start = _fresh()
    grid = [Choice(n, rate) for rate in size.rates for n in size.steps]

    def best(arm: str, lab: _Lab, chosen: NDArray[np.int64], *, supervised: bool = False) -> Choice:
        """The steps and rate whose reader is right most often on validation; its figures on the test part."""
        runs = {c: lab.trained(chosen, c, supervised=supervised) for c in grid}
        made = max(grid, key=lambda c: _right(runs[c], check.features, check.truth).mean())
        _tell(found, arm, runs[made], start, test)
        found.details.setdefault("choice", {})[arm] = [made.steps, made.rate]
        if arm == KBPT:
            _tell(found, LONG, runs[Choice(size.steps[-1], made.rate)], start, test)
        return made

    _tell(found, START, start, start, test)
    rows, chosen = _mined(start, train, found, "resist")
    lab = _Lab(start, rows, seed, plan)
    kept = best(KBPT, lab, chosen)
    best(SFT, lab, chosen, supervised=True)
    more, wanted = _mined(start, train, found, "resist", "use")
    best(BOTH, _Lab(start, more, seed, plan), wanted)
    _tell(found, SWAPPED, lab.trained(1 - chosen, kept), start, test)
    rng = np.random.default_rng([seed, 7])
    some = rng.permutation(len(train.truth))[: len(rows)]
    other = _Lab(start, train.features[some], seed, plan)
    _tell(found, RANDOM, other.trained(rng.integers(0, 2, len(some)), kept), start, test)
    whole = _Lab(start, train.features, seed, plan)
    _tell(
        found, EVERY, whole.trained(train.truth, Choice(size.steps[-1], max(size.rates)), supervised=True), start, test
    )
    return found


def _settings() -> Settings:
    from fabrica.systems import load_system

    made: Settings = load_system("rule").settings["tiny"]
    return made


def _fresh() -> Bundle:
    from fabrica.systems.rule import reader

    return reader(_settings())


def _right(policy: Bundle, features: Floats, truth: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) whether the policy answers right."""
    from fabrica.models.policy import logits, readings
    from fabrica.phantom.references import NAMES

    return np.asarray((logits(policy, readings(features, NAMES)) > 0) == (truth > 0))


def _mined(start: Bundle, train: Readings, found: Found, *kinds: Kind) -> tuple[Floats, NDArray[np.int64]]:
    """Features (m, 3) of the questions where contexts undid a right answer ("resist") or a wrong one ("use"), and what
    to prefer, 1 = yes."""
    from fabrica.curate.language.preference import Asked, mine

    alone, shown = (_right(start, f, train.truth) == (train.truth > 0) for f in (train.alone, train.features))
    word = {True: "Yes", False: "No"}
    asked = [
        Asked(str(i), str(i), "", f"question {i}", bool(y), word[bool(a)], word[bool(s)])
        for i, (y, a, s) in enumerate(zip(train.truth, alone, shown, strict=True))
    ]
    dropped = Counter[str]()
    pairs = list(mine(asked, kinds=kinds, dropped=dropped))
    found.values["pairs, " + " and ".join(kinds)] = float(len(pairs))
    at = np.array([int(p.id) for p in pairs])
    return train.features[at], np.array([int(p.chosen == "Yes") for p in pairs])


class _Lab:
    """Pairs with the start policy's logits; every run begins at the start policy."""

    def __init__(self, start: Bundle, rows: Floats, seed: int, plan: Plan) -> None:
        from fabrica.models.policy import logits, readings
        from fabrica.phantom.references import NAMES

        self.rows, self.seed, self.plan = rows, seed, plan
        self.reference = logits(start, readings(rows, NAMES))

    def trained(self, chosen: NDArray[np.int64], how: Choice, *, supervised: bool = False) -> Bundle:
        """KBPT; `supervised` learns the chosen answers alone."""
        from fabrica.models.policy import readings
        from fabrica.objectives.labels import Labels
        from fabrica.phantom.references import NAMES
        from fabrica.systems import load_system
        from fabrica.train import InMemory, fit

        settings = replace(_settings(), prefer_steps=how.steps, prefer_lr=how.rate)
        policy = _fresh()
        labels = {"chosen": chosen, "reference": self.reference}
        held = InMemory.of(readings(self.rows, NAMES, labels=labels), policy.collate)
        stages = load_system("rule").stages(settings, policy)
        if supervised:
            stages = tuple(replace(s, objectives={"labels": Labels(("chosen",), "evidence")}) for s in stages)
        with tempfile.TemporaryDirectory() as out:
            fit(policy, stages, held, out, seed=self.seed, device=self.plan.device, save_every=0)
        policy.model.to("cpu").eval()
        return policy


def _tell(found: Found, arm: str, policy: Bundle, start: Bundle, test: Readings) -> None:
    """Accuracy with contexts, over-reliance and helped; what counts as known is what this reader knows alone."""
    from fabrica.evaluate.rag import effect

    alone = _right(policy, test.alone, test.truth)
    made: Effect = effect(alone, _right(policy, test.features, test.truth), _names(len(alone)), count=2)
    found.values |= {
        f"{arm}: accuracy alone": made.alone.value, f"{arm}: accuracy with contexts": made.shown.value,
        f"{arm}: over-reliance": made.over_reliance.value, f"{arm}: helped": made.helped.value,
    }  # fmt: skip
    weights = policy.model.towers["evidence"].body.layer.weight.detach().numpy().ravel()  # type: ignore[union-attr, operator]
    found.details[f"{arm}: weights"] = [round(float(w), 3) for w in weights]


# ---------------------------------------------------------------- real reports


OWN, BLUR, VOTE = 0.6, 2.0, 0.8  # simulated evidence of the image, blur of its row, weight of a vote
ASKED, CALIBRATION, TEST = 20, 500, 1000


def reports(folder: Path) -> list[Record]:
    """The reports of the set that say something of a finding."""
    from fabrica.sources import Ref
    from fabrica.sources.xml_report import read
    from fabrica.text.assertions import statuses

    file = next(folder.glob("*.tgz"))
    made = [r for r in read(Ref(file, file.name, REAL, "CC-BY-NC-ND-4.0")) if isinstance(r, Record)]
    return [r for r in made if (item := r.first("report")) is not None and statuses(item.text())]


def _real(job: Job, plan: Plan) -> Found:
    """Questions from what reports assert; other patients' reports found by a blurred finding vector and by words."""
    found = Found()
    folder = real(REAL)
    if folder is None:
        return found
    losses, subjects = real_losses(reports(folder), job.seed)
    sizes = _calibrator(REAL_ALPHA, tuple(range(11))).candidates
    found.details["real risk"] = [round(float(r), 3) for r in losses.mean(0)]
    broken = naive = empty = 0
    for split in range(SPLITS):
        order = np.random.default_rng([job.seed, split, 9]).permutation(len(losses))
        fitted, judged = order[:CALIBRATION], order[CALIBRATION:]
        made = _calibrator(REAL_ALPHA, sizes).fit(losses[fitted], [subjects[i] for i in fitted])
        risk = losses[judged].mean(0)
        broken += any(risk[sizes.index(k)] > REAL_ALPHA for k in made.valid)
        naive += any(t > REAL_ALPHA for t, r in zip(risk, made.risks, strict=True) if r <= REAL_ALPHA)
        empty += not made.valid
        found.details.setdefault("real certified", []).append(list(made.valid))
    found.values = {"real broken": float(broken), "real naive": float(naive), "real empty": float(empty)}
    return found


def real_losses(records: Sequence[Record], seed: int) -> tuple[Floats, list[str]]:
    """(n, 11) losses at 0 to 10 reports of up to 1,500 questions, one a patient, and the patients; the store holds
    the reports of all others."""
    from fabrica.retrieve.certify import apart
    from fabrica.retrieve.choose import FixedK, hits
    from fabrica.retrieve.reports import Query, ReportStore
    from fabrica.text.assertions import statuses

    rng = np.random.default_rng([seed, 8])
    said = {r.id: statuses(r.first("report").text()) for r in records}  # type: ignore[union-attr]
    common = [
        f for f, _ in Counter(k for s in said.values() for k, v in s.items() if v == "present").most_common(ASKED)
    ]
    one = list({r.subject: r for r in records}.values())
    mixed = [one[i] for i in rng.permutation(len(one))]
    asking = [(r, *_question(said[r.id], common, rng)) for r in mixed if _question(said[r.id], common, rng)[0]]
    asking = asking[: CALIBRATION + TEST]
    used = {r.subject for r, *_ in asking}
    rest = [r for r in records if r.subject not in used]
    apart(store=[r.subject for r in rest], asked=[r.subject for r, *_ in asking])
    store = ReportStore.of_records(rest, {r.id: _row(said[r.id], common) for r in rest})
    queries = [
        Query(r.id, r.subject, _blurred(_row(said[r.id], common), rng), f"{finding} {_indication(r)}")
        for r, finding, _ in asking
    ]  # fmt: skip
    run = store.search(queries, 10)
    votes = np.zeros((len(asking), 10))
    weight = {"present": 1.0, "absent": -1.0, "uncertain": 0.0}
    for i, (q, (_, finding, _gold)) in enumerate(zip(queries, asking, strict=True)):
        for j, hit in enumerate(FixedK(10)(hits(run, q.id))):
            votes[i, j] = weight.get(said[hit.id].get(finding, ""), 0.0)
    sign = np.array([1.0 if gold else -1.0 for *_, gold in asking])
    own = OWN * sign + rng.standard_normal(len(sign))
    total = np.concatenate([np.zeros((len(own), 1)), np.cumsum(votes, 1)], 1)
    return np.asarray((own[:, None] + VOTE * total) * sign[:, None] <= 0, np.float64), [r.subject for r, *_ in asking]


def _question(said: Mapping[str, str], common: Sequence[str], rng: np.random.Generator) -> tuple[str, bool]:
    """A finding that a report affirms or denies, one or the other by the toss of a coin where it has both."""
    yes, no = ([f for f in common if said.get(f) == s] for s in ("present", "absent"))
    if not yes and not no:
        return "", False
    pick = yes if yes and (not no or rng.random() < 0.5) else no
    return pick[int(rng.integers(len(pick)))], pick is yes


def _row(said: Mapping[str, str], common: Sequence[str]) -> NDArray[np.float32]:
    there = [float(said.get(f) == "present") for f in common]
    return np.array([*there, float(not any(there))], np.float32)


def _blurred(row: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    return np.asarray(row + BLUR * rng.standard_normal(len(row)), np.float32)


def _indication(record: Record) -> str:
    item = record.first("indication")
    return "" if item is None else item.text()
