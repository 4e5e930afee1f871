"""Med-PaLM's claims: votes over chains, deferral by their share, refinement; a soft prompt that changes style alone."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fabrica.proofs import Plan
from fabrica.proofs._choices import Found, Job, asked, benched, difference, gathered, pooled, refill, told
from fabrica.proofs.real import real
from fabrica.proofs.spread import spread
from fabrica.types import Claim, Proof, Record

if TYPE_CHECKING:
    from fabrica.chat.answer import Strategy
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
PLAINLY = "soft prompt without instruction, asked without"
CLINIC = "instruction after a clinic's name"  # what the base can do where a text says who writes: no arm's prompt does
SEEN, HELD = ("drug", "organ"), "test"
STEPS, BATCH = 900, 16
GRID = (1e-3, 3e-3, 1e-2, 3e-2)  # the sheet's three rates and one above, for every arm
# Of GRID, the best rubric on unseen questions of the sets trained on, seeds 100 and 101; ties: facts, then the sheet's.
RATES = {SOFT: 3e-3, BARE: 3e-2, LORA: 3e-3}
REAL = "medqa_suite"
SETS = (("MMLU's medical topics", "mmlu__test"), ("MedMCQA", "medmcqa__test"), ("AfriMedQA", "afrimedqa__train"),
        ("MedExQA", "medexqa__train"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Size:
    """How much: seeds of the scripted worlds and of soft `prompts`; questions of each world; conditions, steps of
    pre-training and tuning of the small model; at most as many real questions of a set."""

    seeds: tuple[int, ...] = (10, 11, 12, 13)
    prompts: tuple[int, ...] = (10, 11, 12, 13)
    questions: int = 400
    conditions: int = 12
    steps: int = STEPS
    tune: int = 200
    real: int = 150


def run(plan: Plan) -> Proof:
    """Accuracy of strategies on scripted chains; share of answers that pass a rubric with and without a soft prompt."""
    size = Size()
    if plan.quick:
        size = Size((10, 11), (10,), 150, 12, STEPS // 2, 120, 0)
    if plan.full:
        size = Size(tuple(range(10, 20)), tuple(range(10, 20)), 1000, 24, 4 * STEPS, 400, 10_000)
    there = size.real > 0 and real(REAL) is not None
    jobs = [Job("prompt", seed, size) for seed in size.prompts]
    jobs += [Job("real", i, size) for i in range(len(SETS))] if there else []
    jobs += [Job("world", seed, size) for seed in size.seeds]
    return _proof(size, jobs, spread(part, jobs, plan))


def part(job: Job, plan: Plan) -> Found:
    """What one part finds; a part "real" is the set of that number."""
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

    found, arms = Found(), strategies()
    many: Strategy = partial(self_consistency, k=MANY)
    for before, one_sided in (("", 0.0), (ONE_SIDED, 1.0)):
        data = Chains(job.size.questions, job.seed, one_sided)
        questions = [of_record(r) for r in data.records()]
        tables = {name: asked(questions, strategy, data.reader()) for name, strategy in arms.items()}
        for name, table in tables.items():
            found.add(before + name, table)
        found.details[before + "per call"] = choices.per_call(tables)
        votes = asked(questions, many, data.reader())
        right = votes["truth"] == votes["answer"]
        found.details[before + "deferral"] = choices.selective(votes["confidence"], right, DEFER).tolist()
        if one_sided:
            found.misled = data.misled.tolist()
            continue
        shuffled = np.random.default_rng(job.seed).permutation(votes["confidence"])
        found.details["deferral, confidence shuffled"] = choices.selective(shuffled, right, DEFER).tolist()
        blind = asked(questions, arms[REFINE], data.reader(recognise=0.0))
        found.right["refinement that recognises nothing"] = (blind["truth"] == blind["answer"]).tolist()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", NotSampling)
            mute = choices.answered(Told(data.reader(samples=False)), questions[:40], arms[VOTED])
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
    base, _, first = built(job, texts)
    with tempfile.TemporaryDirectory() as out:
        fitted(base, first, texts, Path(out) / "base", job, plan)
        weights, before = {n: t.clone() for n, t in base.model.base_state().items()}, base.base_hash
        base.model.prompt = None
        questions = {a: data.questions((a,))[shown // 2 :] for a in SEEN} | {HELD: data.questions((HELD,))}
        _judged(found, HARD, base, data, questions)
        _judged(found, CLINIC, base, data, questions, before="clinic : ")
        for arm, records in examples.items():
            bundle, stage, _ = built(job, texts, arm)
            refill(bundle, weights, base=True)
            fitted(bundle, stage, records, Path(out) / arm.replace(" ", "-"), job, plan)
            found.values[f"{arm}: base as it was"] = float(bundle.base_hash == before)
            found.details[f"{arm}: trained"] = sum(t.numel() for t in bundle.model.adapter_state().values())
            _judged(found, arm, bundle, data, questions)
            if arm == BARE:
                _judged(found, PLAINLY, bundle, data, questions, instruction=False)
    return found


def built(
    job: Job, texts: list[Record], arm: str = SOFT, rates: Mapping[str, float] = RATES
) -> tuple[LanguageBundle, Any, Any]:
    """The system's tiny preset at this size with its two stages; for `arm` LORA, adapters in place of the prompt."""
    import torch

    from fabrica.models.adapt import Lora
    from fabrica.models.language import LanguageModel
    from fabrica.models.language_bundle import LanguageBundle
    from fabrica.systems import load_system

    system = load_system("med_palm")
    settings = replace(
        system.settings["tiny"], prompt_length=26, answer_length=24, lr=rates[arm], lr_base=2e-3, batch=BATCH,
        steps=job.size.tune, seed=job.seed,
    )  # fmt: skip
    torch.manual_seed(job.seed)
    bundle = system.build(settings, texts)
    if arm == LORA:
        bundle = LanguageBundle(LanguageModel(bundle.model.to_json(), lora=Lora(8, 16.0, layers=0)), bundle.collate)
    first, tune = system.stages(settings, bundle)
    return bundle, tune, replace(first, schedule=replace(first.schedule, steps=job.size.steps, warmup=20))


def fitted(bundle: LanguageBundle, stage: Any, records: list[Record], out: Path, job: Job, plan: Plan) -> None:
    """Train `bundle` through one stage, in place."""
    from fabrica.train import InMemory, fit

    held = InMemory.of(records, bundle.collate)
    fit(bundle, [stage], held, out, seed=job.seed, device=plan.device, save_every=0)
    bundle.model.to("cpu")


def _judged(
    found: Found, arm: str, bundle: LanguageBundle, data: Consumer, asked: Mapping[str, Sequence[Question]], *,
    before: str = "", instruction: bool = True,
) -> None:  # fmt: skip
    """Shares of answers that pass the rubric, and of those that name the right thing."""
    passed, known = {}, {}
    for name, questions in asked.items():
        prompts = [before + data.prompt(q, instruction=instruction) for q in questions]
        said = bundle.complete(prompts, most=22, batch=128)
        passed[name] = [data.passes(q, s) for q, s in zip(questions, said, strict=True)]
        known[name] = [data.knows(q, s) for q, s in zip(questions, said, strict=True)]
        found.details[f"{arm}: {name}, first answer"] = said[0]
    found.values[f"{arm}: rubric"] = float(np.mean(passed[SEEN[0]] + passed[SEEN[1]]))
    found.values[f"{arm}: rubric, held-out set"] = float(np.mean(passed[HELD]))
    found.values[f"{arm}: facts"] = float(np.mean([x for rows in known.values() for x in rows]))


# ---------------------------------------------------------------- real


def really(job: Job, plan: Plan) -> Found:
    """One set of real questions ranked by a small model: by letter, and by the options' words."""
    folder, (title, name) = real(REAL), SETS[job.seed]
    assert folder is not None
    return benched(folder / f"{name}.jsonl", title, job.size.real, turned=job.size.real > 1000, device=plan.device)


# ---------------------------------------------------------------- the proof


def _proof(size: Size, jobs: Sequence[Job], parts: Sequence[Found]) -> Proof:
    arms = gathered(parts)
    worlds, reals = ([f for job, f in zip(jobs, parts, strict=True) if job.what == w] for w in ("world", "real"))
    details = {f"{job.what} {SETS[job.seed][0] if job.what == 'real' else job.seed}": f.details
               for job, f in zip(jobs, parts, strict=True)}  # fmt: skip
    notes = (
        "The scripted worlds assume what a chain gets right (q ~ Beta(2.2, 1.3)) and that a reader of all chains knows "
        "the supported one on 80 % of the questions: they show when voting, deferral and refinement pay. The small "
        "model is a Llama of 4 layers, width 128, pre-trained on questions with answers (nine terse, one structured), "
        "some with their source named; 20 soft tokens, no exemplars at this size. " + told(reals, REAL)
    )
    return Proof(
        "med_palm", "Voting beats one chain and tells when to defer; a soft prompt changes how a model answers, not "
        "what it knows.",
        f"phantom: {size.questions} scripted questions in two worlds, {size.conditions} made-up conditions"
        + (f"; real: up to {size.real} questions each of MMLU's medical topics, MedMCQA, AfriMedQA, MedExQA, "
           "SmolLM2-135M" if reals else ""),
        "accuracy; share of answers that pass a rubric", arms, (*_votes(worlds), *_prompts(arms)),
        _controls(worlds, arms), size.seeds, 0.0, notes, details,
    )  # fmt: skip


def _votes(worlds: Sequence[Found]) -> tuple[Claim, ...]:
    gain, other = pooled(worlds, VOTED, SINGLE), pooled(worlds, ONE_SIDED + VOTED, ONE_SIDED + SINGLE)
    misled = pooled(worlds, ONE_SIDED + VOTED, ONE_SIDED + SINGLE, misled=True)
    curve = np.mean([f.details["deferral"] for f in worlds], 0)
    deferred = _over(worlds, "deferral")
    ratio = other.value / gain.value if gain.value else float("nan")
    over = {name: pooled(worlds, REFINE, name) for name in (VOTED, EQUAL)}
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
    return difference([f.details[curve][-1] for f in worlds], [f.details[curve][0] for f in worlds])


def _prompts(arms: Mapping[str, Sequence[float]]) -> tuple[Claim, ...]:
    rubric = difference(arms[f"{SOFT}: rubric"], arms[f"{HARD}: rubric"])
    facts = difference(arms[f"{SOFT}: facts"], arms[f"{HARD}: facts"])
    over = {a: difference(arms[f"{SOFT}: rubric, held-out set"], arms[f"{a}: rubric, held-out set"])
            for a in (PLAINLY, BARE)}  # fmt: skip
    return (
        Claim("prompt tuning", f"rubric: {SOFT} - {HARD} >= {RUBRIC:.2f}", rubric[0], rubric[1:], rubric[0] >= RUBRIC),
        Claim("facts stay", f"facts: {SOFT} - {HARD} within {SAME:.2f}", facts[0], facts[1:], abs(facts[0]) <= SAME),
        *(Claim(name, f"rubric on a set with another instruction: {SOFT} - {a} >= {PLAIN:.2f}", over[a][0], over[a][1:],
                over[a][0] >= PLAIN)
          for name, a in (("instruction", PLAINLY), ("instruction in training alone", BARE))),
    )  # fmt: skip


def _controls(worlds: Sequence[Found], arms: Mapping[str, Sequence[float]]) -> tuple[Claim, ...]:
    same = [v for name, values in arms.items() if name.endswith(": base as it was") for v in values]
    nothing = _over(worlds, "deferral, confidence shuffled")
    blind = pooled(worlds, "refinement that recognises nothing", VOTED)
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
