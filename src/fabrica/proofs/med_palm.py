"""Med-PaLM's claims: votes over chains, deferral by their share, refinement; a soft prompt that changes style alone."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fabrica.proofs import Plan
from fabrica.proofs.real import absent, real
from fabrica.proofs.spread import spread
from fabrica.types import Claim, Proof, Record

if TYPE_CHECKING:
    from fabrica.chat.answer import Strategy
    from fabrica.evaluate.bootstrap import Interval
    from fabrica.models.language_bundle import LanguageBundle
    from fabrica.phantom.consumer import Consumer, Question

# Bars of sheet S38, fixed before any run of seeds 0..; tuning ran on seeds >= 100.
VOTES, HALF, LEVEL, DEFERRED, REFINED, RUBRIC, SAME, PLAIN = 0.06, 0.75, 0.01, 0.08, 0.03, 0.30, 0.02, 0.05
NOTHING = 0.03  # what deferral by a shuffled confidence may gain at most: the sheet names no bar for this control
K, M, MANY = 11, 33, 41
SINGLE, VOTED, EQUAL, REFINE = "single chain", "self-consistency, 11", "self-consistency, 44", "refinement, 11 + 33"
ONE_SIDED = "one-sided mistakes: "
DEFER = tuple(round(0.05 * i, 2) for i in range(10))  # 0 ... 0.45
HARD, SOFT, BARE, LORA = "instruction alone", "instruction prompt tuning", "soft prompt without instruction", "LoRA"
SEEN, HELD = ("drug", "organ"), "test"
STEPS, RATE, LORA_RATE, BATCH = 1200, 3e-2, 2e-3, 16
REAL, MODEL = "medqa_suite", "smollm2-135m"


@dataclass(frozen=True, slots=True)
class Size:
    """How much: questions of each scripted world; conditions and pre-training steps of the small model; real ones."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    questions: int = 400
    conditions: int = 12
    steps: int = STEPS
    tune: int = 200
    real: int = 40


@dataclass(frozen=True, slots=True)
class Job:
    """One part: `what` is "prompt", "real" or "world"."""

    what: str
    seed: int
    size: Size


@dataclass(slots=True)
class Found:
    """Values by name; of the worlds, rows of right and wrong by arm; tables for the details."""

    values: dict[str, float] = field(default_factory=dict)
    right: dict[str, list[bool]] = field(default_factory=dict)
    misled: list[bool] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def run(plan: Plan) -> Proof:
    """Accuracy of strategies on scripted chains; share of answers that pass a rubric with and without a soft prompt."""
    size = Size()
    if plan.quick:
        size = Size((0, 1), 150, 6, 700, 100, 12)
    if plan.full:
        size = Size(tuple(range(10)), 1000, 24, 3 * STEPS, 400, 400)
    there = size.real > 0 and real(REAL) is not None
    jobs = [Job("prompt", seed, size) for seed in size.seeds]
    jobs += [Job("real", 0, size)] if there else []
    jobs += [Job("world", seed, size) for seed in size.seeds]
    return _proof(size, jobs, spread(part, jobs, plan), there)


def part(job: Job, plan: Plan) -> Found:
    """What one part finds."""
    return {"world": world, "prompt": prompt, "real": really}[job.what](job, plan)


# ---------------------------------------------------------------- strategies


def strategies() -> dict[str, Strategy]:
    """The arms, from the system's settings; refinement stands beside voting at its own number of calls."""
    from fabrica.systems import load_system

    system = load_system("med_palm")
    assert system.answer is not None
    paper = system.settings["paper"]
    made: dict[str, Any] = {SINGLE: {"k": 1}, VOTED: {"k": K}, EQUAL: {"k": K + M}}
    made[REFINE] = {"strategy": "ensemble_refinement", "k": K, "m": M}
    return {name: system.answer(replace(paper, **changes)) for name, changes in made.items()}


def world(job: Job, plan: Plan) -> Found:
    """Every arm where wrong chains scatter, and where they agree on one distractor; deferral; three controls."""
    from fabrica.chat.question import of_record
    from fabrica.chat.scripted import Told
    from fabrica.chat.strategies import NotSampling, self_consistency
    from fabrica.evaluate import choices
    from fabrica.phantom.chains import Chains

    found = Found()
    many: Strategy = partial(self_consistency, k=MANY)
    for before, one_sided in (("", 0.0), (ONE_SIDED, 1.0)):
        data = Chains(job.size.questions, job.seed, one_sided)
        questions = [of_record(r) for r in data.records()]
        tables = {
            name: choices.columns(questions, choices.answered(Told(data.reader()), questions, strategy))
            for name, strategy in strategies().items()
        }
        for name, table in tables.items():
            found.values[before + name] = choices.summary(table).accuracy
            found.right[before + name] = (table["truth"] == table["answer"]).tolist()
        found.details[before + "per call"] = choices.per_call(tables)
        votes = choices.columns(questions, choices.answered(Told(data.reader()), questions, many))
        right = votes["truth"] == votes["answer"]
        found.details[before + "deferral"] = choices.selective(votes["confidence"], right, DEFER).tolist()
        if one_sided:
            found.misled = data.misled.tolist()
            continue
        shuffled = np.random.default_rng(job.seed).permutation(votes["confidence"])
        found.details["deferral, confidence shuffled"] = choices.selective(shuffled, right, DEFER).tolist()
        unable = Told(data.reader(recognise=0.0))
        blind = choices.columns(questions, choices.answered(unable, questions, strategies()[REFINE]))
        found.right["refinement that recognises nothing"] = (blind["truth"] == blind["answer"]).tolist()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", NotSampling)
            mute = choices.answered(Told(data.reader(samples=False)), questions[:40], strategies()[VOTED])
        found.details["a model that does not sample"] = {
            "warned": sum(issubclass(w.category, NotSampling) for w in warned), "questions": 40,
            "duplicates": float(np.mean([a.same for a in mute])),
        }  # fmt: skip
    return found


# ---------------------------------------------------------------- the soft prompt


def prompt(job: Job, plan: Plan) -> Found:
    """A model with the knowledge and the wrong habit: rubric and facts of each arm, on questions that no arm saw."""
    from fabrica.phantom.consumer import Consumer

    data, found = Consumer(job.size.conditions, job.seed), Found()
    shown = min(40, 2 * (6 * job.size.conditions // 2))
    examples = {SOFT: data.examples(shown, SEEN), BARE: data.examples(shown, SEEN, instruction=False)}
    examples[LORA] = examples[SOFT]
    texts = data.pretraining(6000)
    base, stage, first = _built(job, texts)
    with tempfile.TemporaryDirectory() as out:
        _fit(base, first, texts, Path(out) / "base", job, plan)
        weights, before = {n: t.clone() for n, t in base.model.base_state().items()}, base.base_hash
        asked = {a: data.questions((a,))[shown // 2 :] for a in SEEN} | {HELD: data.questions((HELD,))}
        base.model.prompt = None
        _judged(found, HARD, base, data, asked)
        for arm, records in examples.items():
            bundle, stage, _ = _built(job, texts, lora=arm == LORA)
            _fill(bundle, weights)
            _fit(bundle, stage, records, Path(out) / arm.replace(" ", "-"), job, plan)
            found.values[f"{arm}: base as it was"] = float(bundle.base_hash == before)
            found.details[f"{arm}: trained"] = sum(t.numel() for t in bundle.model.adapter_state().values())
            _judged(found, arm, bundle, data, asked)
    return found


def _built(job: Job, texts: list[Record], *, lora: bool = False) -> tuple[LanguageBundle, Any, Any]:
    """The system's tiny preset at this size with its two stages; with `lora`, adapters in place of the prompt."""
    import torch

    from fabrica.models.adapt import Lora
    from fabrica.models.language import LanguageModel
    from fabrica.models.language_bundle import LanguageBundle
    from fabrica.systems import load_system

    system = load_system("med_palm")
    settings = replace(
        system.settings["tiny"], prompt_length=24, answer_length=24, lr=RATE, lr_base=2e-3, batch=BATCH,
        steps=job.size.tune, seed=job.seed,
    )  # fmt: skip
    torch.manual_seed(job.seed)
    bundle = system.build(settings, texts)
    if lora:
        bundle = LanguageBundle(LanguageModel(bundle.model.to_json(), lora=Lora(8, 16.0, layers=0)), bundle.collate)
        settings = replace(settings, lr=LORA_RATE)
    first, tune = system.stages(settings, bundle)
    return bundle, tune, replace(first, schedule=replace(first.schedule, steps=job.size.steps, warmup=20))


def _fit(bundle: LanguageBundle, stage: Any, records: list[Record], out: Path, job: Job, plan: Plan) -> None:
    from fabrica.train import InMemory, fit

    held = InMemory.of(records, bundle.collate)
    fit(bundle, [stage], held, out, seed=job.seed, device=plan.device, save_every=0)
    bundle.model.to("cpu")


def _fill(bundle: LanguageBundle, weights: Mapping[str, Any]) -> None:
    from fabrica.models.weights import fill

    fill(bundle.model.base_state(), weights, Path("base"))


def _judged(
    found: Found, arm: str, bundle: LanguageBundle, data: Consumer, asked: Mapping[str, Sequence[Question]]
) -> None:
    """Shares of answers that pass the rubric, and of those that name the right thing."""
    passed, known = {}, {}
    for name, questions in asked.items():
        said = bundle.complete([data.prompt(q) for q in questions], most=22, batch=128)
        passed[name] = [data.passes(q, s) for q, s in zip(questions, said, strict=True)]
        known[name] = [data.knows(q, s) for q, s in zip(questions, said, strict=True)]
        found.details[f"{arm}: {name}, first answer"] = said[0]
    found.values[f"{arm}: rubric"] = float(np.mean(passed[SEEN[0]] + passed[SEEN[1]]))
    found.values[f"{arm}: rubric, held-out set"] = float(np.mean(passed[HELD]))
    found.values[f"{arm}: facts"] = float(np.mean([x for rows in known.values() for x in rows]))


# ---------------------------------------------------------------- real


def really(job: Job, plan: Plan) -> Found:
    """The likeliest option on the MMLU questions of the lowest ids: by letter, by letter in another order, by words;
    beside the commonest letter of the other questions."""
    from fabrica.chat.local import LocalChat
    from fabrica.chat.question import of_record
    from fabrica.chat.strategies import option_likelihood, permuted
    from fabrica.evaluate import choices
    from fabrica.sources import Ref, read

    folder = real(REAL)
    assert folder is not None
    path = folder / "mmlu__test.jsonl"
    records = [r for r in read(Ref(path, path.name, REAL, "MIT")) if isinstance(r, Record)]
    whole = [of_record(r) for r in sorted(records, key=lambda r: r.id)]
    questions, others = whole[: job.size.real], [q.gold for q in whole[job.size.real :]]
    letter = max(sorted(set(others)), key=others.count)
    model, found = LocalChat(MODEL, device=plan.device), Found()
    arms: dict[str, Strategy] = {
        "real: likeliest letter": option_likelihood,
        "real: likeliest letter, another order": permuted(option_likelihood, 1),
        "real: likeliest words": partial(option_likelihood, by="text"),
    }
    answers = {name: choices.answered(model, questions, strategy) for name, strategy in arms.items()}
    answers[f"real: always {letter}"] = choices.always(questions, letter)
    tables = {name: choices.columns(questions, a) for name, a in answers.items()}
    found.values = {("real: commonest letter" if "always" in n else n): choices.summary(t).accuracy
                    for n, t in tables.items()}  # fmt: skip
    found.details = {name: choices.summary(t).line() for name, t in tables.items()}
    found.details["places chosen, and right"] = {n: choices.positions(questions, a) for n, a in answers.items()}
    a, b = (tables[n]["truth"] == tables[n]["answer"] for n in ("real: likeliest words", f"real: always {letter}"))
    test = choices.mcnemar(a, b)
    found.details["mcnemar, words against the commonest letter"] = [test.only_a, test.only_b, test.p]
    return found


# ---------------------------------------------------------------- the proof


def _proof(size: Size, jobs: Sequence[Job], parts: Sequence[Found], there: bool) -> Proof:
    arms: dict[str, tuple[float, ...]] = {}
    for found in parts:
        for name, value in found.values.items():
            arms[name] = (*arms.get(name, ()), value)
    worlds = [f for job, f in zip(jobs, parts, strict=True) if job.what == "world"]
    details = {f"{job.what} {job.seed}": f.details for job, f in zip(jobs, parts, strict=True)}
    notes = (
        "The scripted worlds assume what a chain gets right (q ~ Beta(2.2, 1.3)) and that a reader of all chains knows "
        "the supported one on 80 % of the questions: they show when voting, deferral and refinement pay. The small "
        "model is a Llama of 4 layers, width 128, pre-trained on questions with answers (nine terse, one structured), "
        "some with their source named; 20 soft tokens, no exemplars at this size. " + _told(arms, there)
    )
    return Proof(
        "med_palm", "Voting beats one chain and tells when to defer; a soft prompt changes how a model answers, not "
        "what it knows.",
        f"phantom: {size.questions} scripted questions in two worlds, {size.conditions} made-up conditions"
        + (f"; real: {size.real} questions of MMLU's medical topics, SmolLM2-135M" if there else ""),
        "accuracy; share of answers that pass a rubric", arms, (*_votes(worlds), *_prompts(arms)),
        _controls(worlds, arms), size.seeds, 0.0, notes, details,
    )  # fmt: skip


def _told(arms: Mapping[str, Sequence[float]], there: bool) -> str:
    if not there:
        return absent(REAL) if real(REAL) is None else "The real arm is left out of the quick run."
    words, trivial = arms["real: likeliest words"][0], arms["real: commonest letter"][0]
    verb = "beats" if words > trivial else "does not beat"
    return (
        f"Real MMLU: SmolLM2-135M's likeliest words have accuracy {words:.3f} and {verb} the commonest letter "
        f"({trivial:.3f}); intervals, McNemar and places in the details."
    )


def _paired(worlds: Sequence[Found], a: str, b: str, *, misled: bool = False) -> Interval:
    """a - b over the questions of all seeds, resampled together; `misled` keeps those with one-sided mistakes."""
    from fabrica.evaluate.bootstrap import paired
    from fabrica.evaluate.metrics import mean

    keep = np.concatenate([np.asarray(f.misled) for f in worlds]) if misled else slice(None)
    one, two = ({"right": np.concatenate([np.asarray(f.right[n], float) for f in worlds])[keep]} for n in (a, b))
    return paired(lambda c, w: mean(c["right"], w), one, two, np.arange(len(one["right"])))


def _votes(worlds: Sequence[Found]) -> tuple[Claim, ...]:
    gain, other = _paired(worlds, VOTED, SINGLE), _paired(worlds, ONE_SIDED + VOTED, ONE_SIDED + SINGLE)
    misled = _paired(worlds, ONE_SIDED + VOTED, ONE_SIDED + SINGLE, misled=True)
    curve = np.mean([f.details["deferral"] for f in worlds], 0)
    deferred = _over(worlds, "deferral")
    ratio = other.value / gain.value if gain.value else float("nan")
    over = {name: _paired(worlds, REFINE, name) for name in (VOTED, EQUAL)}
    return (
        Claim("votes", f"self-consistency - single chain >= {VOTES:.2f}, interval above 0", gain.value,
              (gain.low, gain.high), gain.value >= VOTES and gain.low > 0),
        Claim("systematic mistakes", "where all wrong chains agree, voting is below a single chain", misled.value,
              (misled.low, misled.high), misled.value < 0 and misled.high < 0),
        Claim("gain shrinks", f"with such mistakes voting gains at most {HALF:.2f} of what it gains without", ratio,
              (other.low / gain.value, other.high / gain.value), ratio <= HALF),
        Claim("deferral", f"accuracy at 45 % deferred >= at 0 + {DEFERRED:.2f}; the mean curve never falls by more "
              f"than {LEVEL:.2f}", deferred[0], deferred[1:],
              deferred[0] >= DEFERRED and float(np.diff(curve).min()) >= -LEVEL),
        *(Claim(f"refinement over {name}", f"refinement (44 calls) - {name} >= {REFINED:.2f}, interval above 0",
                i.value, (i.low, i.high), i.value >= REFINED and i.low > 0) for name, i in over.items()),
    )  # fmt: skip


def _over(worlds: Sequence[Found], curve: str) -> tuple[float, float, float]:
    """What deferring 45 % gains, over seeds."""
    return _difference([f.details[curve][-1] for f in worlds], [f.details[curve][0] for f in worlds])


def _prompts(arms: Mapping[str, Sequence[float]]) -> tuple[Claim, ...]:
    rubric = _difference(arms[f"{SOFT}: rubric"], arms[f"{HARD}: rubric"])
    facts = _difference(arms[f"{SOFT}: facts"], arms[f"{HARD}: facts"])
    plain = _difference(arms[f"{SOFT}: rubric, held-out set"], arms[f"{BARE}: rubric, held-out set"])
    return (
        Claim("prompt tuning", f"rubric: {SOFT} - {HARD} >= {RUBRIC:.2f}", rubric[0], rubric[1:], rubric[0] >= RUBRIC),
        Claim("facts stay", f"facts: {SOFT} - {HARD} within {SAME:.2f}", facts[0], facts[1:], abs(facts[0]) <= SAME),
        Claim("instruction in training", f"rubric on a set with another instruction: {SOFT} - {BARE} >= {PLAIN:.2f}",
              plain[0], plain[1:], plain[0] >= PLAIN),
    )  # fmt: skip


def _controls(worlds: Sequence[Found], arms: Mapping[str, Sequence[float]]) -> tuple[Claim, ...]:
    same = [v for name, values in arms.items() if name.endswith(": base as it was") for v in values]
    nothing = _over(worlds, "deferral, confidence shuffled")
    blind = _paired(worlds, "refinement that recognises nothing", VOTED)
    mute = [f.details["a model that does not sample"] for f in worlds]
    warned = [m["warned"] / m["questions"] for m in mute]
    return (
        Claim("the model stays", "hash of the frozen weights unchanged by every adapter, on every seed", min(same),
              (min(same), max(same)), min(same) == 1.0),
        Claim("shuffled confidence", f"deferral by it gains at most {NOTHING:.2f}", nothing[0], nothing[1:],
              nothing[0] <= NOTHING),
        Claim("refinement of no power", "not above self-consistency of the same chains by 0.01", blind.value,
              (blind.low, blind.high), blind.value <= 0.01),
        Claim("no sampling", "a model that ignores temperature and seed is warned of on every question", min(warned),
              (min(warned), max(warned)), min(warned) == 1.0),
    )  # fmt: skip


def _difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Mean of a - b over seeds with its t interval; with one seed the value alone."""
    from fabrica.evaluate.bootstrap import paired_seeds

    if len(a) < 2:
        return a[0] - b[0], a[0] - b[0], a[0] - b[0]
    i = paired_seeds(a, b)
    return i.value, i.low, i.high
