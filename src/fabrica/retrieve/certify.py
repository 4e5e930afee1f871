"""How many contexts may be shown at a stated risk: p-values of the calibration risk, and sets of sizes that pass.

For a size k with loss in [0, 1] a case, the null says that the true risk is above alpha. What is rejected with a
family-wise error of at most delta holds: P(the risk of every k in the set <= alpha) >= 1 - delta, for cases drawn
independently from the distribution that is met later (Learn then Test: Angelopoulos et al. 2021, arXiv 2110.01052;
the p-value after Bates et al. 2021, arXiv 2101.02703). A shift of that distribution is not covered.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fabrica import safe
from fabrica.errors import Refused, UsageError, unknown

Test = Literal["hoeffding_bentkus", "hoeffding", "bentkus"]
Fwer = Literal["bonferroni", "holm", "fixed_sequence"]
_TESTS, _FWER = ("hoeffding_bentkus", "hoeffding", "bentkus"), ("bonferroni", "holm", "fixed_sequence")


def p_value(risk: ArrayLike, n: int, alpha: float, *, test: Test = "hoeffding_bentkus") -> NDArray[np.float64]:
    """P-values of "the true risk is above alpha" from the mean loss `risk` (J,) of n independent cases.

    Hoeffding: exp(-n h(min(r, alpha), alpha)), h(a, b) = a ln(a / b) + (1 - a) ln((1 - a) / (1 - b)). Bentkus:
    e P(Bin(n, alpha) <= ceil(n r)). The smaller of both is valid as well; never above 1.

    >>> [round(float(p_value(0.15, 500, 0.2, test=t)), 5) for t in ("hoeffding", "bentkus", "hoeffding_bentkus")]
    [0.01516, 0.00648, 0.00648]
    """
    from scipy.stats import binom

    r = np.asarray(risk, np.float64)
    if n < 1 or not 0 < alpha < 1:
        raise UsageError(f"p_value with n={n}, alpha={alpha}: wanted n >= 1 and 0 < alpha < 1")
    if test not in _TESTS:
        raise unknown("test", test, _TESTS)
    if not (np.isfinite(r).all() and (r >= 0).all() and (r <= 1).all()):
        raise UsageError("p_value: a risk is not within 0 and 1")
    a = np.minimum(r, alpha)
    with np.errstate(divide="ignore", invalid="ignore"):
        low = np.where(a > 0, a * np.log(a / alpha), 0.0)
    hoeffding = np.exp(-n * (low + (1 - a) * np.log((1 - a) / (1 - alpha))))
    bentkus = math.e * binom.cdf(np.ceil(np.round(n * r, 9)), n, alpha)
    made = {"hoeffding": hoeffding, "bentkus": bentkus, "hoeffding_bentkus": np.minimum(hoeffding, bentkus)}[test]
    return np.asarray(np.minimum(made, 1.0))


def rejected(
    p: ArrayLike, delta: float, *, fwer: Fwer = "bonferroni", order: Sequence[int] | None = None
) -> NDArray[np.bool_]:
    """Which of J nulls are rejected with a family-wise error of at most delta.

    "bonferroni": p <= delta / J; "holm": step down, never fewer; "fixed_sequence": in `order` at delta each, up to the
    first that is not (the order must come from other data than the p-values).

    >>> rejected([0.02, 0.04, 0.2], 0.1).tolist(), rejected([0.02, 0.04, 0.2], 0.1, fwer="holm").tolist()
    ([True, False, False], [True, True, False])
    """
    values = np.asarray(p, np.float64)
    if not 0 < delta < 1:
        raise UsageError(f"delta={delta}: wanted a number between 0 and 1")
    if fwer == "bonferroni":
        return np.asarray(values <= delta / len(values))
    out = np.zeros(len(values), bool)
    if fwer == "holm":
        for rank, i in enumerate(np.argsort(values, kind="stable")):
            if values[i] > delta / (len(values) - rank):
                break
            out[i] = True
        return out
    if fwer != "fixed_sequence":
        raise unknown("control of the family-wise error", fwer, _FWER)
    if order is None or sorted(order) != list(range(len(values))):
        raise UsageError(
            f"fixed_sequence wants an order of the {len(values)} candidates, from other data than these; got {order}"
        )
    for i in order:
        if values[i] > delta:
            break
        out[i] = True
    return out


def needed(risk: float, alpha: float, delta: float, candidates: int, *, test: Test = "hoeffding_bentkus") -> int | None:
    """The least number of cases at which a size with this observed risk would pass Bonferroni; None if no number does
    (the risk is not below alpha).

    >>> needed(0.15, 0.2, 0.1, 11), needed(0.25, 0.2, 0.1, 11)
    (472, None)
    """
    if risk >= alpha:
        return None
    low, high = 0, 1
    while p_value(risk, high, alpha, test=test) > delta / candidates:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if p_value(risk, middle, alpha, test=test) > delta / candidates:
            low = middle
        else:
            high = middle
    return high


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a calibration found. `candidates` sizes, `risks` and `p_values` beside them; `valid` those certified (()
    = none: show no contexts, or abstain); `bound` the hashes (model, prompt, store ...) that it holds for."""

    candidates: tuple[int, ...]
    risks: tuple[float, ...]
    p_values: tuple[float, ...]
    valid: tuple[int, ...]
    n: int
    alpha: float
    delta: float
    test: str
    fwer: str
    bound: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What it says, and what it does not."""
        sizes = ", ".join(map(str, self.valid)) or "none"
        said = (
            f"Sizes certified: {sizes}. With probability {1 - self.delta:g} over the draw of the {self.n} calibration "
            f"cases, the error rate of each is at most {self.alpha:g}, for cases that are i.i.d. with those. A change "
            "of the patients, the questions or the site is not covered."
        )
        return said if self.valid else f"{said} {self.why}"

    @property
    def why(self) -> str:
        """Why nothing was certified and what would help; "" where something was."""
        if self.valid:
            return ""
        risk = min(self.risks)
        more = needed(risk, self.alpha, self.delta, len(self.candidates))
        if more is None:
            return f"The least observed risk is {risk:.3f}, not below alpha: no number of cases would do."
        return f"At the least observed risk, {risk:.3f}, about {more} cases would do."

    def risk(self, k: int) -> float:
        """The observed risk of a size."""
        return self.risks[self.candidates.index(k)]

    def pick(self, by: Literal["risk", "cost"] = "risk") -> int | None:
        """The certified size of the least observed risk, or the smallest; None where there is none."""
        if by not in ("risk", "cost"):
            raise unknown("way to pick", by, ("risk", "cost"))
        if not self.valid:
            return None
        return min(self.valid, key=lambda k: (self.risk(k), k)) if by == "risk" else min(self.valid)

    def check(self, bound: Mapping[str, str]) -> None:
        """`Refused("certificate_void")` where model, prompt, store or another part is not the calibrated one."""
        other = sorted(k for k in {*self.bound, *bound} if self.bound.get(k) != bound.get(k))
        if other:
            raise Refused(
                "certificate_void", f"the certificate is of another {', '.join(other)}; calibrate again with this one"
            )

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, whole."""
        with safe.write_whole(Path(path)) as out:
            out.write(json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Certificate:
        """The inverse of `save`; `Refused("certificate_bad")`."""
        try:
            data: dict[str, Any] = json.loads(safe.read_bytes(Path(path)))
            given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
            return cls(**given)
        except (ValueError, TypeError, AttributeError) as error:
            raise Refused("certificate_bad", f"{Path(path).name!r} is no certificate: {error}") from error


@dataclass(frozen=True, slots=True)
class RiskControlled:
    """Calibrates the number of contexts (RULE, arXiv 2407.05131, section 3.2; Learn then Test).

    `alpha` the risk not to exceed, `delta` the chance that the certificate is wrong; `candidates` sizes (0 = no
    contexts); `order` places of candidates for "fixed_sequence", from other data.
    """

    alpha: float = 0.2
    delta: float = 0.1
    candidates: tuple[int, ...] = tuple(range(11))
    test: Test = "hoeffding_bentkus"
    fwer: Fwer = "bonferroni"
    order: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and 0 < self.delta < 1):
            raise UsageError(f"alpha={self.alpha}, delta={self.delta}: wanted both between 0 and 1")
        sizes = tuple(self.candidates)
        if not sizes or len(set(sizes)) < len(sizes) or min(sizes) < 0:
            raise UsageError(f"candidate sizes {sizes}: wanted at least one, none twice, none below 0")

    def fit(self, losses: ArrayLike, subjects: Sequence[str], *, bound: Mapping[str, str] | None = None) -> Certificate:
        """The certificate of `losses` (n, J) in [0, 1], one row a case and one column a candidate.

        `subjects` (n,) says whose case a row is: rows of one patient are averaged, since only patients are drawn
        independently. `bound` are hashes of what produced the losses. The rows must be of patients that neither the
        store, nor training, nor the test holds (`apart`).
        """
        table = np.asarray(losses, np.float64)
        if table.ndim != 2 or table.shape != (len(subjects), len(self.candidates)) or not len(table):
            raise UsageError(
                f"losses of shape {table.shape}; wanted {len(subjects)} cases x {len(self.candidates)} candidates"
            )
        if not (np.isfinite(table).all() and (table >= 0).all() and (table <= 1).all()):
            raise UsageError("a loss is not a number within 0 and 1: an answer that cannot be read is a loss of 1")
        names, row = np.unique(np.asarray(subjects), return_inverse=True)
        if len(names) < len(table):
            table = np.stack([table[row == i].mean(0) for i in range(len(names))])
        risks = table.mean(0)
        p = p_value(risks, len(table), self.alpha, test=self.test)
        passed = rejected(p, self.delta, fwer=self.fwer, order=self.order)
        return Certificate(
            tuple(self.candidates), tuple(risks.tolist()), tuple(p.tolist()),
            tuple(k for k, good in zip(self.candidates, passed, strict=True) if good), len(table), self.alpha,
            self.delta, self.test, self.fwer, dict(bound or {}),
        )  # fmt: skip


def apart(**parts: Sequence[str]) -> None:
    """`errors.Leak` where two of the named parts (store, calibration, test ...) share a subject.

    >>> apart(store=["a"], test=["b"])
    """
    from fabrica.errors import Leak

    names = list(parts)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            if both := sorted(set(parts[one]) & set(parts[other])):
                raise Leak(f"{one} and {other} share {len(both)} subjects ({both[0]} ...); split by patient")
