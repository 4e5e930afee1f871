"""Tables of follow-up with genes and clinical columns (TCGA as MCAT and CMTA pass them on) -> one record a patient.

Columns: `case_id`; `survival_months` or `survival_days`; `censorship` (1 = censored) or `event` (1 = came); `slide_id`.
Numbers in `GENE_rnaseq`, `GENE_cnv` ... go to items `omics/rnaseq`, `omics/cnv`; genes without an ending to
`omics/mutation` where all of them are 0 or 1 in every row, else to `omics/rnaseq`; `age` and `is_female` to
`table/clinical`. `columns["slides"]` names a folder, beside the table, of `SLIDE.npy` features; a slide that is listed
and not there is an absent item with its name. `columns["member"]` is the exact name of the table within a zip whose
member names lead out of it; it is read in memory and never is a path.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fabrica import safe
from fabrica.errors import Refused, UsageError
from fabrica.safe import LIMITS, Limits
from fabrica.sources import DECODER_ERRORS, Quarantined, Ref
from fabrica.sources.attach import inside
from fabrica.sources.rows import BadRow, csv_rows, read_rows
from fabrica.sources.single import hashed
from fabrica.types import Absent, Item, Origin, Record, Rights, record_id

CLINICAL = ("age", "is_female")
NOT_GENES = frozenset({"", "case_id", "slide_id", "site", "oncotree_code", "train", "censorship", "event", *CLINICAL})
DAYS = 365.25 / 12  # a month
_UNREADABLE: tuple[type[Exception], ...] = (Refused, *DECODER_ERRORS)
_TIME = re.compile(r"survival_(months|days)")
_ENDING = re.compile(r".+_([a-z]{3,10})")
_YES_NO = frozenset({"0", "1", "0.0", "1.0", ""})


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record | Quarantined]:
    """One record a patient; label `survival` in months, negative where censored. Rows of one patient (one a slide) must
    agree. Quarantined: `row_shape`, `time_not_positive`, `event_not_0_1`, `rows_disagree`. A table without the columns
    above, or with both units, is a `UsageError`."""
    member = ref.columns.get("member")
    table = csv_rows(safe.read_member(ref.path, member, limits)) if member else read_rows(ref.path, limits)
    header, rows = table
    times = [h for h in header if _TIME.fullmatch(h)]
    events = [h for h in ("censorship", "event") if h in header]
    if "case_id" not in header or len(times) != 1 or len(events) != 1:
        raise UsageError(
            f"{ref.path.name}: wanted case_id, one of survival_months and survival_days, one of censorship and event; "
            f"of those it has {['case_id'] * ('case_id' in header) + times + events}"
        )
    patients: dict[str, list[Mapping[str, str]]] = {}
    digest = safe.sha256(ref.path)
    for n, row in enumerate(rows):
        if isinstance(row, BadRow) or not str(row["case_id"]).strip():
            yield Quarantined(f"{ref.key}#{n}", digest, "row_shape", "the row does not fit its header")
        else:
            patients.setdefault(str(row["case_id"]), []).append(row)
    bare = "mutation" if _yes_no(header, patients) else "rnaseq"
    for n, (case, held) in enumerate(patients.items()):
        try:
            yield _record(ref, digest, case, held, (times[0], events[0], bare), limits)
        except Refused as error:
            yield Quarantined(f"{ref.key}#patient {n}", digest, error.code, str(error).rsplit(" [", 1)[0])


def _record(
    ref: Ref, digest: str, case: str, rows: list[Mapping[str, str]], said: tuple[str, str, str], limits: Limits
) -> Record:
    row = rows[0]
    if any((r[said[0]], r[said[1]]) != (row[said[0]], row[said[1]]) for r in rows):
        raise Refused("rows_disagree", f"{len(rows)} rows of one patient give different follow-ups")
    time, flag = _number(row[said[0]]), _number(row[said[1]])
    if time is None or not time > 0:
        raise Refused("time_not_positive", "the time of follow-up is no number above 0")
    if flag not in (0.0, 1.0):
        raise Refused("event_not_0_1", f"{said[1]} is neither 0 nor 1")
    came = flag == (1.0 if said[1] == "event" else 0.0)
    months = time / DAYS if said[0].endswith("days") else time
    origin = Origin(ref.source, f"{ref.key}#{case}", digest, ref.licence)
    items: dict[str, tuple[Item, ...]] = {}
    for role, found in _cells(row, said[2]).items():
        values = np.array(list(found.values()), np.float32)
        kind = "table" if role.startswith("table") else "omics"
        items[role] = (Item(kind, values, origin, names=tuple(found)),)  # type: ignore[arg-type]
    slides = list(dict.fromkeys(r["slide_id"] for r in rows if r.get("slide_id")))
    if slides:
        items["slide"] = tuple(_slide(ref, digest, name, limits) for name in slides)
    return Record(
        record_id(ref.source, ref.key, case), hashed("subject", ref.source, case),
        {"modality": "pathology", "source": ref.source, "site": row.get("site", "")}, items,
        labels={"survival": months if came else -months}, rights=Rights(licence=ref.licence),
    )  # fmt: skip


def _yes_no(header: Sequence[str], patients: Mapping[str, list[Mapping[str, str]]]) -> bool:
    """Whether the genes without an ending say 0 or 1 throughout."""
    bare = [h for h in header if h not in NOT_GENES and not _TIME.fullmatch(h) and not _ENDING.fullmatch(h)]
    cells = (row.get(name, "") for rows in patients.values() for row in rows for name in bare)
    return bool(bare) and all(cell in _YES_NO for cell in cells)


def _cells(row: Mapping[str, str], bare: str) -> dict[str, dict[str, float]]:
    """Role -> column -> value; what is empty or no number is left out."""
    out: dict[str, dict[str, float]] = {}
    for name, cell in row.items():
        if _TIME.fullmatch(name) or (name in NOT_GENES and name not in CLINICAL):
            continue
        value = _number(cell)
        if value is None:
            continue
        ending = _ENDING.fullmatch(name)
        role = "table/clinical" if name in CLINICAL else f"omics/{ending[1] if ending else bare}"
        out.setdefault(role, {})[name] = value
    return out


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _slide(ref: Ref, digest: str, name: str, limits: Limits) -> Item:
    """A slide's features from `slides/NAME.npy` (patches, features), x and y first if at all; absent if not there."""
    stem = name.removesuffix(".svs")  # the ending, not any of its letters
    origin = Origin(ref.source, f"{ref.key}#{stem}", digest, ref.licence)
    folder = ref.columns.get("slides")
    path = inside(ref.path.parent, f"{folder}/{stem}.npy") if folder else None
    if path is None or not path.is_file():
        return Item("slide", Absent.NOT_LINKED, origin)
    try:
        data = safe.read_bytes(path, limits)
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except _UNREADABLE:
        return Item("slide", Absent.UNREADABLE, origin)
    return Item("slide", values, Origin(ref.source, f"{folder}/{stem}.npy", safe.sha256(data), ref.licence))
