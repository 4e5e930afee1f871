"""The real part of CMTA's proof: TCGA tables without slides, nested five folds by patient, beside Cox and age."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.proofs import Plan
from fabrica.types import Item, Origin, Record

if TYPE_CHECKING:
    from fabrica.models.fusion_bundle import FusionBundle

REAL = "mcat_tcga_survival"
COHORTS = {  # cohort -> its archive, and the name of its member where that leads out of the archive
    "UCEC": ("dataset_csv/tcga_ucec_all_clean.csv.zip", ""),
    "BLCA": ("datasets_csv_sig/tcga_blca_all_clean.csv.zip", "../dataset_csv/tcga_blca_all_clean.csv.zip"),
}
# Four settings for each net and four for Cox, chosen in each fold on its training patients alone
PENALTIES = (0.1, 0.3, 1.0, 3.0)
ALONE: tuple[Mapping[str, Any], ...] = tuple({"steps": s} for s in (10, 20, 40, 80))
TWO: tuple[Mapping[str, Any], ...] = tuple({"steps": s, "alpha": a} for s in (20, 80) for a in (0.0, 1.0))
GENES, SIDES = "CMTA, genes, no slide", "CMTA, profile against copies and clinical"
COX_GENES, COX_ALL = "penalised Cox, genes", "penalised Cox, genes and clinical"
COX_CLINICAL, AGE, CHANCE = "Cox, age and sex", "age alone", "random"
NETS = {GENES: ALONE, SIDES: TWO}
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(slots=True)
class Cohort:
    """A cohort's patients. Items: `profile` (mutations or RNA, whichever there is) and copy numbers of the genes in the
    six groups, together `omics`; `copies` (copy numbers beside age and sex), `clinical`; `groups` by field."""

    name: str
    rows: list[Record]
    groups: dict[str, dict[str, tuple[str, ...]]]

    @property
    def labels(self) -> Floats:
        """(n,) months, negative = censored."""
        return np.array([r.labels["survival"] for r in self.rows], np.float64)


@dataclass(slots=True)
class Told:
    """Of a cohort: each patient's fold and, by arm, risk from the models that did not see that patient's fold; what was
    chosen in each fold."""

    fold: Ints
    risks: dict[str, Floats] = field(default_factory=dict)
    chosen: dict[str, list[Any]] = field(default_factory=dict)


def cohort(folder: Path, name: str) -> Cohort:
    """One record a patient, however many slides the table lists; one without genes or copy numbers is left out."""
    from fabrica.safe import Limits
    from fabrica.sources import Ref
    from fabrica.sources.rows import read_rows
    from fabrica.sources.survival_table import read

    _, lines = read_rows(folder / "dataset_csv" / "signatures.csv")
    found: dict[str, list[str]] = {}
    for line in lines:
        for group, gene in line.items():
            if gene:
                found.setdefault(group, []).append(gene)
    signatures = {group: tuple(members) for group, members in found.items()}
    listed = {gene for members in signatures.values() for gene in members}
    place, member = COHORTS[name]
    ref = Ref(folder / place, Path(place).name, f"TCGA-{name}", columns={"member": member} if member else {})
    rows = []
    for record in read(ref, Limits()):
        if not isinstance(record, Record) or "omics/cnv" not in record.items:
            continue
        first = "omics/rnaseq" if "omics/rnaseq" in record.items else "omics/mutation"
        profile, cnv = (_only(record.items[k][0], listed) for k in (first, "omics/cnv"))
        clinical = record.items["table/clinical"][0] if "table/clinical" in record.items else _nothing()
        items = {"omics": (_joined(profile, cnv),), "profile": (profile,), "copies": (_joined(cnv, clinical),)}
        rows.append(record.updated(items={**items, "clinical": (clinical,)}))
    held = {n.rpartition("_")[0] for r in rows for n in r.items["copies"][0].names if n.endswith("_cnv")}
    copies = {g: m for g, m in signatures.items() if held & set(m)}
    return Cohort(
        name, rows, {"genes": signatures, "profile": signatures, "copies": {**copies, "clinical": ("age", "is_female")}}
    )


def _only(item: Item, listed: set[str]) -> Item:
    keep = [i for i, n in enumerate(item.names) if (n.rpartition("_")[0] or n) in listed or n in listed]
    return replace(item, value=item.array()[keep], names=tuple(item.names[i] for i in keep))


def _joined(a: Item, b: Item) -> Item:
    return replace(a, kind="omics", value=np.concatenate([a.array(), b.array()]), names=a.names + b.names)


def _nothing() -> Item:
    return Item("table", np.zeros(0, np.float32), Origin("", "", "", ""))


# ---------------------------------------------------------------- nested folds


def told(data: Cohort, seed: int, plan: Plan, nets: Sequence[str] = (GENES,)) -> Told:
    """Five folds by patient, the same for every arm; each setting is chosen on training patients of its fold. `nets`
    are the arms of `NETS` to run."""
    from fabrica.evaluate.survival import nested

    y, subjects = data.labels, [r.subject for r in data.rows]
    columns = {
        COX_GENES: matrix(data.rows, ("omics",)),
        COX_ALL: matrix(data.rows, ("omics", "clinical")),
        COX_CLINICAL: matrix(data.rows, ("clinical",)),
    }
    made = Told(np.zeros(len(y), np.int64))
    age = matrix(data.rows, ("clinical",), only="age")[:, 0]
    made.risks[AGE] = age
    made.risks[CHANCE] = np.random.default_rng([seed, 3]).random(len(y))
    for arm, x in columns.items():
        for fold in nested(subjects, PENALTIES, _cox_score(x, y), seed=seed):
            _keep(made, arm, fold.test, _cox(x, y, fold.train, fold.test, fold.chosen), fold.chosen)
    for arm in nets:
        made_by = Nets(data, arm, seed, plan)
        for number, fold in enumerate(nested(subjects, NETS[arm], made_by.score, seed=seed)):
            made.fold[fold.test] = number
            bundle = made_by.fit(fold.train, fold.chosen)
            _keep(made, arm, fold.test, made_by.risks(bundle, fold.test), dict(fold.chosen))
            for side in bundle.fields if arm == SIDES else ():
                _keep(made, f"{arm}, without {side}", fold.test, made_by.risks(bundle, fold.test, (side,)), None)
    return made


def _keep(made: Told, arm: str, rows: Ints, risks: Floats, chosen: Any) -> None:
    made.risks.setdefault(arm, np.full(len(made.fold), np.nan))[rows] = risks
    if chosen is not None:
        made.chosen.setdefault(arm, []).append(chosen)


def _cox_score(x: Floats, y: Floats) -> Callable[[Ints, Ints, float], float]:
    from fabrica.evaluate.survival import c_index

    return lambda train, test, penalty: float(c_index(y[test], _cox(x, y, train, test, penalty)))


def _cox(x: Floats, y: Floats, train: Ints, test: Ints, penalty: float) -> Floats:
    """Risks of the test rows; columns are filled and standardised by the training rows."""
    from fabrica.evaluate.survival import ridge_cox

    known = np.isfinite(x[train])
    middle = np.where(known, x[train], 0.0).sum(0) / np.maximum(known.sum(0), 1)
    filled = np.where(np.isfinite(x), x, middle)
    z = np.clip((filled - middle) / np.maximum(filled[train].std(0), 1e-9), -5, 5)
    risks: Floats = z[test] @ ridge_cox(z[train], y[train], penalty)
    return risks


def matrix(rows: Sequence[Record], roles: Sequence[str], *, only: str = "") -> Floats:
    """(n, columns) of tables, by name; NaN = missing."""
    names = sorted({n for r in rows for i in r.all(*roles) for n in i.names if not only or n == only})
    at = {n: j for j, n in enumerate(names)}
    out = np.full((len(rows), len(names)), np.nan)
    for i, record in enumerate(rows):
        for item in record.all(*roles):
            held = [(at[n], v) for n, v in zip(item.names, item.array(), strict=True) if n in at]
            out[i, [j for j, _ in held]] = [v for _, v in held]
    return out


class Nets:
    """The nets of one arm: built and encoded once for a set of training rows, then trained with each setting."""

    def __init__(self, data: Cohort, arm: str, seed: int, plan: Plan) -> None:
        self.data, self.arm, self.seed, self.plan = data, arm, seed, plan
        self._of: tuple[bytes, Any] = (b"", None)

    def score(self, train: Ints, test: Ints, setting: Mapping[str, Any]) -> float:
        """C of the rows `test`."""
        from fabrica.evaluate.survival import c_index

        return float(c_index(self.data.labels[test], self.risks(self.fit(train, setting), test)))

    def fit(self, train: Ints, setting: Mapping[str, Any]) -> FusionBundle:
        """A net of these rows."""
        import torch

        from fabrica.models.fusion_bundle import FusionBundle
        from fabrica.systems import load_system
        from fabrica.train import InMemory, fit

        system = load_system("cmta")
        # no slide anywhere: the system's own two sides, one of them absent in every record
        sides: dict[str, Any] = {"fields": {"profile": "groups", "copies": "groups"}} if self.arm == SIDES else {}
        preset = system.settings["tables" if sides else "genes"]
        settings = replace(preset, groups=self.data.groups, **sides, **setting)
        if self._of[0] != train.tobytes():
            rows = [self.data.rows[i] for i in train]
            torch.manual_seed(self.seed)
            built = system.build(settings, rows)
            self._of = (train.tobytes(), (built, InMemory.of(rows, built.collate)))
        fresh, held = self._of[1]
        bundle = FusionBundle(copy.deepcopy(fresh.model), fresh.collate)
        with tempfile.TemporaryDirectory() as out:
            fit(
                bundle, system.stages(settings, bundle), held, out, seed=self.seed, device=self.plan.device,
                save_every=0,
            )  # fmt: skip
        bundle.model.to("cpu").eval()
        return bundle

    def risks(self, bundle: FusionBundle, rows: Ints, left: Sequence[str] = ()) -> Floats:
        """(n,) risks, without the fields in `left`."""
        from fabrica.objectives.survival import risk

        return risk(bundle.answer([self.data.rows[i] for i in rows], without=left).tasks["survival"])


# ---------------------------------------------------------------- what is reported


def summary(data: Cohort, made: Told, count: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """(C by fold of each arm, tables): C within folds with its interval by patient, the nets against each other arm."""
    from fabrica.evaluate.bootstrap import interval, paired
    from fabrica.evaluate.survival import c_index, c_index_within

    y, subjects = data.labels, np.array([r.subject for r in data.rows])
    columns = {arm: {"truth": y, "score": risks, "fold": made.fold} for arm, risks in made.risks.items()}
    arms = {
        f"TCGA-{data.name}: {arm}, by fold": [
            float(c_index(y[made.fold == f], risks[made.fold == f])) for f in np.unique(made.fold)
        ]
        for arm, risks in made.risks.items()
    }
    each = {arm: interval(c_index_within, c, subjects, count=count) for arm, c in columns.items()}
    gaps = {
        f"{net} - {base}": paired(c_index_within, columns[net], columns[base], subjects, count=count)
        for net in NETS if net in columns for base in (COX_GENES, COX_ALL, COX_CLINICAL)
    }  # fmt: skip
    tables = {
        "patients": len(y), "deaths": int((y > 0).sum()),
        "C within folds": {k: [round(v, 4) for v in (i.value, i.low, i.high)] for k, i in each.items()},
        "differences": {k: [round(v, 4) for v in (i.value, i.low, i.high)] for k, i in gaps.items()},
        "chosen in each fold": made.chosen,
    }  # fmt: skip
    return arms, tables


def said(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """A line a cohort for the proof's notes."""
    made = []
    for name, table in tables.items():
        net, age = (table["C within folds"][arm] for arm in (GENES, AGE))
        gap = table["differences"][f"{GENES} - {COX_GENES}"]
        made.append(
            f"TCGA-{name} ({table['patients']} patients, {table['deaths']} deaths): genes without slides "
            f"{net[0]:.3f} [{net[1]:.3f}, {net[2]:.3f}], minus penalised Cox of the same genes {gap[0]:+.3f} "
            f"[{gap[1]:+.3f}, {gap[2]:+.3f}]; age alone {age[0]:.3f}."
        )
    return " ".join(made)
