"""What RoentGen's proof asks: its bars, its sizes, and the verdict over what the parts found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fabrica.proofs.real import absent
from fabrica.types import Claim, Proof

# Bars of sheet S26, fixed before any run of seeds 0...; one setting for all arms, chosen on seeds 100 to 102.
DROP, TRUE, SIDE, SAME, USE, KNOW = 0.6, 0.85, 0.85, 0.9, 0.03, 0.05
CHANCE = 0.1  # most that the AUROC of the shuffled arm may lie from 0.5: three standard errors of 400 images
BASE_RATE, RATE, GAMMA = 2e-3, 4e-3, 5.0  # of the base, of every arm, of both
TEXT_RATE = 0.25  # of RATE, where an arm trains its text: at 1 a seed of three did not learn to follow it
REAL = "pneumoniamnist"
SAID = ("no pneumonia", "pneumonia")
UNTOUCHED, UNET, BOTH, SHUFFLED = "untouched", "denoiser", "denoiser and text", "shuffled sentences"
TRAINS: Mapping[str, tuple[str, ...]] = {
    UNTOUCHED: (), UNET: ("denoiser",), BOTH: ("denoiser", "text"), SHUFFLED: ("denoiser", "text"),
}  # fmt: skip
PARTS = {"vae": ("vae.",), "denoiser": ("denoiser.",), "text": ("text.",)}
PROBED = "pneumothorax"  # the finding of the paper's probe; no word of it is in the first domain
WORLD, EXTRACTOR, JUDGE = 7_000, 8_000, 9_000  # seeds of patients that no arm learns from or is tested on


@dataclass(frozen=True, slots=True)
class Size:
    """How much, the same for every arm: patients to learn from and to test, images generated (as many as tested), real
    images of the classifier, steps; `tools` patients teach each reader. `variety` prompts, each so many times. The arm
    without a bar (denoiser alone) runs on the first `unbarred` seeds."""

    seeds: tuple[int, ...] = (20, 21, 22)  # 0 to 2 and 10 to 12 were seen with other sizes
    unbarred: int = 1
    train: int = 1200
    test: int = 250
    tools: int = 2000
    few: int = 40
    base_steps: int = 400
    steps: int = 600
    batch: int = 32
    tool_steps: int = 500
    use_steps: int = 150
    variety: tuple[int, int] = (6, 6)
    sampling: int = 20
    guidance: float = 3.0
    real_seeds: tuple[int, ...] = (20,)
    real_steps: int = 400
    real_train: int = 1500
    real_few: int = 100
    net: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """One part: `what` is "base", a reader's name, an arm, "real readers" or "real"; `tools` = (extractor, judge)."""

    what: str
    seed: int
    size: Size
    folder: str = ""
    tools: tuple[Any, ...] = ()
    data: str = ""


def verdict(size: Size, jobs: Sequence[Job], found: Sequence[Mapping[str, Any]], has_real: bool) -> Proof:
    """Claims, controls and everything that is reported."""
    by = {arm: [f for j, f in zip(jobs, found, strict=True) if j.what == arm] for arm in TRAINS}
    rest = [f for j, f in zip(jobs, found, strict=True) if j.what == "real"]
    arms: dict[str, tuple[float, ...]] = {}
    for arm, parts in by.items():
        for name, pick in (("FID", "fid"), ("KID", "kid"), ("side accuracy", "side")):
            arms[f"{arm}: {name}"] = tuple(f[pick] for f in parts)
        arms[f"{arm}: prompt AUROC"] = tuple(f["auroc"][0] for f in parts)
        arms[f"{arm}: probe of {PROBED}, unheard name"] = tuple(f["probe"][PROBED] for f in parts)
    for name in by[BOTH][0]["use"]:
        arms[f"classifier of {name}"] = tuple(f["use"][name] for f in by[BOTH])
    arms["real images: FID of new patients"] = tuple(f["floor"] for f in by[BOTH])
    arms["real images: judge's AUROC"] = tuple(f["ceiling"] for f in by[BOTH])
    for arm in (UNTOUCHED, BOTH):
        arms[f"{arm}: MS-SSIM within a prompt"] = tuple(f["ms_ssim"] for f in by[arm])
        if rest:
            arms[f"real, {arm}: FID"] = tuple(f[arm]["fid"] for f in rest)
            arms[f"real, {arm}: prompt AUROC"] = tuple(f[arm]["auroc"][0] for f in rest)
    for name in rest[0]["use"] if rest else ():
        arms[f"real, classifier of {name}"] = tuple(f["use"][name] for f in rest)
    details = {
        "by finding": {arm: [f["by finding"] for f in parts] for arm, parts in by.items()},
        "probes": {arm: [f["probe"] for f in parts] for arm, parts in by.items()},
        "distance": {arm: [f["distance"] for f in parts] for arm, parts in by.items()},
        "memorisation": [f["memory"] for f in by[BOTH]], "real": list(rest),
    }  # fmt: skip
    claims, controls = _claims(by)
    return Proof(
        "roentgen", "Fine-tuning brings a general text-to-image model to chest X-rays that follow the text, help a "
        "classifier and teach the text encoder.",
        f"phantom: synthetic 32x32 chests with a finding, a side and a sentence ({size.train} to learn from, "
        f"{size.test} tested), after a first domain of captioned shapes" + "; real: PneumoniaMNIST" * bool(rest),
        "FID in a small classifier's features; AUROC and side accuracy of another one on generated images",
        arms, claims, controls, size.seeds, 0.0, _notes(size, has_real, rest), details,
    )  # fmt: skip


def _claims(by: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[tuple[Claim, ...], tuple[Claim, ...]]:
    both, plain = by[BOTH], by[UNTOUCHED]
    drop = [1 - a["fid"] / b["fid"] for a, b in zip(both, plain, strict=True)]
    learned = [a["probe"][PROBED] - b["probe"][PROBED] for a, b in zip(both, plain, strict=True)]
    used = [f["use"]["real + synthetic"] - f["use"]["real"] for f in both]
    asked: list[tuple[str, str, list[float], Any]] = [
        ("domain", f"FID falls by {DROP:.0%} or more against the untouched base", drop, lambda v: v >= DROP),
        ("text", f"prompt AUROC >= {TRUE}", [f["auroc"][0] for f in both], lambda v: v >= TRUE),
        ("side", f"side accuracy >= {SIDE}", [f["side"] for f in both], lambda v: v >= SIDE),
        ("variety", f"MS-SSIM within a prompt < {SAME}", [f["ms_ssim"] for f in both], lambda v: v < SAME),
        ("use", f"AUROC of a classifier of few real and the synthetic images - of the real ones >= {USE}", used,
         lambda v: v >= USE),
        ("knowledge", f"probe of {PROBED} on a name it has not seen, after - before >= {KNOW}", learned,
         lambda v: v >= KNOW),
    ]  # fmt: skip
    control = [abs(f["auroc"][0] - 0.5) for f in by[SHUFFLED]]
    far = _claim("shuffled sentences", f"trained on sentences of other patients, prompt AUROC within {CHANCE} of 0.5",
                 control, lambda v: v <= CHANCE)  # fmt: skip
    return tuple(_claim(*one) for one in asked), (far,)


def _claim(name: str, bar: str, values: Sequence[float], holds: Any) -> Claim:
    """The mean over seeds against its bar, with Student's interval (of one seed: the value itself)."""
    from fabrica.evaluate.bootstrap import paired_seeds

    if len(values) < 2:
        return Claim(name, bar, values[0], (values[0], values[0]), bool(holds(values[0])))
    over = paired_seeds(values, [0.0] * len(values))
    return Claim(name, bar, over.value, (over.low, over.high), bool(holds(over.value)))


def _notes(size: Size, has_real: bool, rest: Sequence[Mapping[str, Any]]) -> str:
    text = (
        f"All trained arms: the same base, {size.steps} steps of {size.batch}, one rate, guidance {size.guidance:g}; "
        "chosen on seeds 100 to 102 with the full arm in view, none tuned for another arm. "
        f"n = {size.test} a side: FID is 'low n', KID stands beside. "
        f"Extractor and judge are two readers, each of {size.tools} patients of its own. The generator has seen "
        f"{size.train} patients, the classifier of 'real' {size.few} of them. "
    )
    if not rest:
        return text + ("The quick size leaves the real arm out." if not size.real_seeds else absent(REAL))
    used = ", ".join(f"{k} {np.mean([f['use'][k] for f in rest]):.2f}" for k in rest[0]["use"])
    judge = np.mean([f["judge on real"] for f in rest])
    return text + f"Real: judge's AUROC on real images {judge:.2f}; classifier of {size.real_few} real images: {used}."
