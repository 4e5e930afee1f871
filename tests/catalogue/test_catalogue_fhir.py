"""The FHIR R4 examples: each of the 5,307 files read or named; numbers and dates as fhir.resources has them."""

import datetime as dt
import importlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fabrica import catalogue, sources
from fabrica.sources import Quarantined, fhir
from fabrica.sources.events import EVENT
from fabrica.sources.fhir_read import Rows, instant, read_resource
from fabrica.sources.fhir_rules import ADMINISTRATIVE
from fabrica.types import Record

pytestmark = pytest.mark.real_data
Fetched = Callable[[str], Path]


def test_fhir_examples(fetched: Fetched) -> None:
    """Every one of the 5,307 files is part of a record or named with its reason."""
    folder = fetched("fhir-examples") / "package"
    found = list(catalogue.read("fhir-examples"))
    records, lost = [r for r in found if isinstance(r, Record)], [q for q in found if isinstance(q, Quarantined)]
    assert len({r.subject for r in records}) == len(records) > 50
    (ecg,) = (r.first("ecg") for r in records if r.first("ecg"))
    assert (ecg.array().shape[0], ecg.rate, ecg.names) == (3, 100.0, ("I", "II", "III"))
    assert ecg.array()[0, 0] == pytest.approx((2041 - 2048) * 1.612)
    assert {i.text() for r in records for i in r.all("report")} >= {"Unremarkable study"}
    assert {i.origin.by for r in records for g in r.items.values() for i in g} == {"synthetic"}
    files = sorted(folder.glob("*.json"))
    assert len(files) == 5307
    assert {q.code for q in lost} <= {*fhir.WHY, "no_events", "time_bad"}
    kind = {p: p.name.partition("-")[0] for p in files}
    kind[folder / "ig-r4.json"] = "ImplementationGuide"
    assert set(kind.values()) - fhir.TYPES == {"package.json"}
    named = {q.key: q.code for q in lost}
    alone = [p for p in files if kind[p] in fhir.CLINICAL or kind[p] in ("Patient", "Bundle")]
    for path in set(files) - set(alone):
        want = "fhir_administrative" if kind[path] in ADMINISTRATIVE else "fhir_no_patient"
        assert named[path.name] == ("fhir_no_resource" if path.name == "package.json" else want)
    outcome: Counter[str] = Counter()
    for path in alone:
        one = list(sources.read(sources.Ref(path, path.name, "fhir", "CC0-1.0")))
        codes = {f.code for f in one if isinstance(f, Quarantined)}
        assert one, path.name
        assert codes <= {*fhir.WHY, "no_events", "time_bad"}, (path.name, codes)
        outcome["record" if any(isinstance(f, Record) for f in one) else min(codes)] += 1
    assert outcome == {"record": 343, "fhir_no_subject": 30, "fhir_nothing": 6, "fhir_error": 5, "no_events": 1,
                       "fhir_no_patient": 20}  # fmt: skip


def test_the_types_are_those_that_r4_defines(fetched: Fetched) -> None:
    paths = (fetched("fhir-examples") / "package").glob("StructureDefinition-*.json")
    defined = [d for p in paths if (d := json.loads(p.read_bytes()))["kind"] == "resource" and not d["abstract"]]
    assert {d["type"] for d in defined if d.get("derivation") == "specialization"} == fhir.TYPES


def peer(kind: str, data: bytes) -> Any:
    """The resource as fhir.resources (R4B) has it; None where it refuses an example of 4.0.1."""
    pydantic = pytest.importorskip("pydantic")
    module = importlib.import_module(f"fhir.resources.R4B.{kind.lower()}")
    try:
        return getattr(module, kind).model_validate_json(data)
    except pydantic.ValidationError:
        return None


def micros(at: dt.date | dt.datetime) -> int:
    """What the peer's date is in microseconds since 1970 UTC."""
    if not isinstance(at, dt.datetime):
        at = dt.datetime(at.year, at.month, at.day)
    at = at.replace(tzinfo=dt.UTC) if at.tzinfo is None else at
    return (at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def test_observations_are_as_fhir_resources_reads_them(fetched: Fetched) -> None:
    pytest.importorskip("fhir.resources")
    compared = 0
    for path in sorted((fetched("fhir-examples") / "package").glob("Observation-*.json")):
        theirs = peer("Observation", path.read_bytes())
        if theirs is None:
            continue
        rows = Rows()
        read_resource(json.loads(path.read_bytes()), "Observation", "Patient/x", rows, {})
        numbers = [
            v for v, k in zip(rows.columns["value"], rows.columns["kind"], strict=True) if k == EVENT and v is not None
        ]
        parts = [theirs, *(theirs.component or [])]
        want = [
            float(p.valueQuantity.value) if p.valueQuantity else float(p.valueInteger)
            for p in parts
            if (p.valueQuantity and p.valueQuantity.value is not None and not p.valueQuantity.comparator)
            or p.valueInteger is not None
        ]
        assert numbers == want, path.name
        codes = " ".join(c for c in rows.columns["code"] if c)
        for part in parts:
            if part.valueQuantity is not None and part.valueQuantity.value is not None:
                assert any(c.code in codes for c in (part.code.coding or [])) or "TEXT//" in codes, path.name
        if isinstance(theirs.effectiveDateTime, dt.datetime | dt.date):
            raw = json.loads(path.read_bytes())["effectiveDateTime"]
            if len(raw) >= 10:
                assert set(rows.columns["time"]) <= {micros(theirs.effectiveDateTime)}, path.name
        compared += 1
    assert compared > 50


def test_births_are_as_fhir_resources_reads_them(fetched: Fetched) -> None:
    pytest.importorskip("fhir.resources")
    compared = 0
    for path in sorted((fetched("fhir-examples") / "package").glob("Patient-*.json")):
        theirs, ours = peer("Patient", path.read_bytes()), json.loads(path.read_bytes())
        if theirs is not None and isinstance(theirs.birthDate, dt.date):
            assert instant(ours["birthDate"], coarse=True) == micros(theirs.birthDate)
            compared += 1
    assert compared > 8
