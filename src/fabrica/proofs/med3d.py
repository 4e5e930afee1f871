"""Med3D: an encoder co-trained on eight sets against scratch on a new organ in a new contrast; how fast, how high."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fabrica.proofs import Plan
from fabrica.proofs._med3d import ARMS, EIGHT, MERGED, ONE, PARTS, REAL, SCRATCH, SHUFFLED, Job, Size, part
from fabrica.proofs.real import absent, real
from fabrica.proofs.spread import spread
from fabrica.types import Claim, Proof

# Bars of sheet S81, fixed before any run of the reported seeds.
FASTER, NOT_BELOW, NEAR = 0.5, -0.02, 0.95
RATES = (5e-3, 1e-2, 2e-2)  # each arm's own choice on the tuning seeds, in the run itself
UNTUNED = 1e-2
MAIN = (SCRATCH, EIGHT, SHUFFLED)


def run(plan: Plan) -> Proof:
    """Dice on test volumes along fine-tuning, for every arm and seed."""
    size = Size()
    if plan.quick:
        size = Size(seeds=(10, 11), few=(), tuning=(), real_seeds=())
    if plan.full:
        size = Size(seeds=tuple(range(10, 20)), few=tuple(range(10, 20)), tuning=(100, 101, 102), cases=60,
                    cotrain=4000, steps=2000, look=50, real_steps=4000, real_test=60)  # fmt: skip
    folder = real(REAL) if size.real_seeds else None
    with tempfile.TemporaryDirectory() as place:
        encoded = _encoded(size, place, plan)
        rates, tried = tuned(size, place, plan)
        jobs = [
            Job("real", arm, s, size, place, (rates[arm],), str(folder))
            for s in size.real_seeds if folder is not None for arm in (SCRATCH, EIGHT)
        ]  # fmt: skip
        jobs += [Job("adapt", arm, s, size, place, (rates[arm],)) for s in size.seeds for arm in _arms(s, size)]
        found = spread(part, jobs, plan)
    seeds = [_of_seed(s, encoded[s], jobs, found) for s in size.seeds]
    return _proof(size, seeds, tried, rates, has_real=real(REAL) is not None)


def _arms(seed: int, size: Size) -> tuple[str, ...]:
    return ARMS if seed in size.few else MAIN


def _encoded(size: Size, place: str, plan: Plan) -> dict[int, dict[str, Any]]:
    """Co-train every encoder of every seed into `place`; by seed what that of eight sets learned."""
    jobs = [Job("encode", EIGHT, s, size, place) for s in (*size.tuning, *size.seeds)]
    jobs += [Job("encode", arm, s, size, place) for arm in (ONE, MERGED) for s in size.few]
    found = spread(part, jobs, plan, "encoders")
    return {j.seed: f for j, f in zip(jobs, found, strict=True) if j.arm == EIGHT}


def _of_seed(seed: int, encoded: Mapping[str, Any], jobs: Sequence[Job], found: Sequence[Any]) -> dict[str, Any]:
    """What the parts of a seed found: "routing", "co-training", "curves" by arm, and "real" by arm where it is."""
    mine = [(j, f) for j, f in zip(jobs, found, strict=True) if j.seed == seed]
    curves = {j.arm: next(iter(f["curves"].values())) for j, f in mine if j.what == "adapt"}
    volumes = {name: v for j, f in mine if j.what == "real" for name, v in f.items()}
    return {**encoded, "curves": curves} | ({"real": volumes} if volumes else {})


def tuned(size: Size, place: str, plan: Plan) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The rate at which each arm is soonest, on the tuning seeds, at 95 % of where its best rate ends; of every rate
    these steps and the final Dice. One set and merged labels take the rate of eight sets."""
    jobs = [Job("adapt", arm, s, size, place, (rate,)) for arm in MAIN for s in size.tuning for rate in RATES]
    found = spread(part, jobs, plan, "tuning")
    best, tried = dict.fromkeys(ARMS if size.few else MAIN, UNTUNED), dict[str, list[float]]()
    for arm in MAIN if found else ():
        tries = [
            {k: v for j, f in zip(jobs, found, strict=True) if (j.arm, j.seed) == (arm, s)
             for k, v in f["curves"].items()}
            for s in size.tuning
        ]  # fmt: skip
        goals = [NEAR * max(final(c) for c in t.values()) for t in tries]
        for rate in RATES:
            curves = [t[f"{rate:g}"] for t in tries]
            steps = [reached(c, goal, size) for c, goal in zip(curves, goals, strict=True)]
            tried[f"{arm}, rate {rate:g}"] = [float(np.mean(steps)), float(np.mean([final(c) for c in curves]))]
        best[arm] = min(RATES, key=lambda r: (tried[f"{arm}, rate {r:g}"][0], -tried[f"{arm}, rate {r:g}"][1]))
    return best | {arm: best[EIGHT] for arm in (ONE, MERGED) if arm in best}, tried


def final(curve: Sequence[float]) -> float:
    """Where a curve ends: the mean of its last three looks."""
    return float(np.mean(curve[-3:]))


def reached(curve: Sequence[float], goal: float, size: Size) -> float:
    """Steps until a curve stays at the goal; one look more than there were where it never does."""
    from fabrica.evaluate.segment import steps_to

    looks = [size.look * (i + 1) for i in range(len(curve))]
    return min(steps_to(looks, curve, goal), looks[-1] + size.look)


# ---------------------------------------------------------------- the verdict


def _proof(
    size: Size, found: Sequence[Mapping[str, Any]], tried: Mapping[str, list[float]], rates: Mapping[str, float], *,
    has_real: bool,
) -> Proof:  # fmt: skip
    curves = [f["curves"] for f in found]
    goals = [NEAR * final(c[SCRATCH]) for c in curves]
    ends = {arm: [final(c[arm]) for c in curves if arm in c] for arm in rates}
    steps = {arm: [reached(c[arm], g, size) for c, g in zip(curves, goals, strict=True) if arm in c] for arm in rates}
    arms = {f"{arm}, final Dice": tuple(v) for arm, v in ends.items()}
    arms |= {f"{arm}, steps to {NEAR:.0%} of scratch's end": tuple(v) for arm, v in steps.items()}
    volumes = [f["real"] for f in found if "real" in f]
    for name in volumes[0] if volumes else ():
        for structure in PARTS.values():
            arms[f"real: {name}, Dice {structure}"] = tuple(v[name][structure]["dice"] for v in volumes)
    details = {
        "curves": curves, "routing": [f["routing"] for f in found], "tuning": dict(tried), "rates": dict(rates),
        "co-training, Dice of each set": [f["co-training"] for f in found], "separate decoders less": _less(ends),
        "real": volumes,
    }  # fmt: skip
    return Proof(
        "med3d", "Co-training on sets with different organs gives an encoder that converges faster and ends no lower.",
        f"phantom: synthetic bodies of 24^3, eight contrasts with one organ labelled each ({size.cases} cases a set); "
        f"target: a ninth contrast, a new organ, {size.target} cases" + (f"; real: MSD hippocampus, {size.target} cases"
        f" to learn from, {size.real_test} to test" if volumes else ""),
        "Dice of the new organ on test volumes; steps to 95 % of where scratch ends", arms,
        _claims(ends, steps, found), _controls(steps), size.seeds, 0.0, _notes(arms, has_real, size), details,
    )  # fmt: skip


def _claims(
    ends: Mapping[str, Sequence[float]], steps: Mapping[str, Sequence[float]], found: Sequence[Mapping[str, Any]]
) -> tuple[Claim, ...]:
    from fabrica.evaluate.bootstrap import paired_seeds

    ratio = _ratio(steps, EIGHT)
    above = paired_seeds(ends[EIGHT], ends[SCRATCH])
    foreign = max(f["routing"]["foreign decoder"] for f in found)
    encoder = min(f["routing"]["encoder"] for f in found)
    return (
        Claim("faster", f"steps to {NEAR:.0%} of scratch's final Dice, eight sets / scratch <= {FASTER} (mean)",
              ratio.value, (ratio.low, ratio.high), ratio.value <= FASTER),
        Claim("as high", f"final Dice, eight sets - scratch >= {NOT_BELOW} (mean)", above.value,
              (above.low, above.high), above.value >= NOT_BELOW),
        Claim("routing", "a set alone moves the encoder and no foreign decoder, all eight sets, every seed (effect: "
              "smallest encoder gradient)", encoder, (encoder, encoder), encoder > 0 and foreign == 0.0),
    )  # fmt: skip


def _controls(steps: Mapping[str, Sequence[float]]) -> tuple[Claim, ...]:
    ratio = _ratio(steps, SHUFFLED)
    return (
        Claim("shuffled weights", f"the same numbers in a random order do not halve the steps: ratio > {FASTER}",
              ratio.value, (ratio.low, ratio.high), ratio.value > FASTER),
    )  # fmt: skip


def _ratio(steps: Mapping[str, Sequence[float]], arm: str) -> Any:
    """Mean over seeds of an arm's steps over those of scratch, with its interval."""
    from fabrica.evaluate.bootstrap import paired_seeds

    ratios = [a / b for a, b in zip(steps[arm], steps[SCRATCH], strict=True)]
    return paired_seeds(ratios, [0.0] * len(ratios))


def _less(ends: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Final Dice of a decoder for each set less that of merged labels and of one set, with intervals: reported only."""
    from fabrica.evaluate.bootstrap import paired_seeds

    made = {}
    for other in (MERGED, ONE):
        if other in ends:
            gap = paired_seeds(ends[EIGHT][: len(ends[other])], ends[other])
            made[other] = [gap.value, gap.low, gap.high]
    return made


def _notes(arms: Mapping[str, Sequence[float]], has_real: bool, size: Size) -> str:
    text = "Every arm: the same target cases, steps, head and looks. " + (
        f"Scratch, eight sets and shuffled weights each have the best of {len(RATES)} rates (soonest at {NEAR:.0%} of "
        f"where the arm's best rate ends) on seeds {', '.join(map(str, size.tuning))} within the run, the other arms "
        "that of eight sets. "
        if size.tuning
        else f"This size chooses no rates: all arms learn at {UNTUNED:g}. "
    )
    text += "An arm that never stays at the goal counts one look more than there were. "
    if not has_real:
        return text + absent(REAL)
    if not size.real_seeds:
        return text + "The quick size leaves the real arm out."
    said = [f"{a.removeprefix('real: ')} {np.mean(v):.2f}" for a, v in arms.items() if a.startswith("real: ")]
    return text + (
        f"Real, {size.target} volumes to learn from, {size.real_test} tested, split by subject, the phantom's rates: "
        + ", ".join(said) + "."
    )  # fmt: skip
