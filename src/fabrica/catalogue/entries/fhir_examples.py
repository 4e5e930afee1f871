"""The FHIR R4 specification's own example patients (invented): an ECG, laboratory values, report conclusions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fabrica import safe
from fabrica.catalogue.entry import Entry
from fabrica.sources.leads import Channel, items
from fabrica.sources.single import hashed
from fabrica.types import Item, Origin, Record, record_id

ENTRY = Entry(
    name="fhir-examples",
    title="Example observations and reports of the FHIR R4 specification (invented patients)",
    kind="data",
    package="hl7.fhir.r4.examples",
    version="4.0.1",
    url_kind="npm",
    file="hl7.fhir.r4.examples-4.0.1.tgz",
    sha256="dce87f1b5b9341867033f7d1f544fa1b5232503f6d62813887ac6b8a8b6cb682",
    bytes=18_849_311,
    licence="CC0-1.0",
    members=("package/Observation-*.json", "package/DiagnosticReport-*.json"),
    reader="fabrica.catalogue.entries.fhir_examples:records",
    attribution="HL7 International",
    note="Written by hand for the specification: nothing is learnt from them, they exercise a reader.",
)


def records(folder: Path) -> Iterator[Record]:
    """One record a resource that has something to read: `ecg` (sampled data), `table` (a quantity), `report`."""
    for path in sorted((folder / "package").glob("*.json")):
        data = safe.read_bytes(path)
        resource = json.loads(data)
        sha256 = safe.sha256(data)
        origin = Origin(ENTRY.name, path.name, sha256, ENTRY.licence, by="synthetic")
        found = _ecg(resource, origin) | _quantity(resource, origin) | _report(resource, origin)
        if not found:
            continue
        who = (resource.get("subject") or {}).get("reference") or f"file:{path.name}"
        yield Record(
            record_id(ENTRY.name, path.name, sha256), hashed("subject", ENTRY.name, who),
            groups={"modality": "ecg" if "ecg" in found else "ehr"}, items=found, rights=ENTRY.rights,
        )  # fmt: skip


def _ecg(resource: dict[str, Any], origin: Origin) -> dict[str, tuple[Item, ...]]:
    channels = []
    for part in resource.get("component", []):
        sampled = part.get("valueSampledData")
        if sampled is not None:
            raw = np.array(sampled["data"].split(), np.float64)
            values = (raw - sampled["origin"]["value"]) * sampled.get("factor", 1)
            name = part["code"]["coding"][0].get("display", "").removeprefix("MDC_ECG_ELEC_POTL_")
            channels.append(Channel(name, sampled["origin"].get("unit", ""), 1000 / sampled["period"], values))
    return items(channels, origin)


def _quantity(resource: dict[str, Any], origin: Origin) -> dict[str, tuple[Item, ...]]:
    got = resource.get("valueQuantity") or {}
    coding = (resource.get("code", {}).get("coding") or [{}])[0]
    if "value" not in got or "display" not in coding:
        return {}
    value = np.array([got["value"]], np.float32)
    return {"table": (Item("table", value, origin, unit=got.get("unit"), names=(coding["display"],)),)}


def _report(resource: dict[str, Any], origin: Origin) -> dict[str, tuple[Item, ...]]:
    text = resource.get("conclusion")
    return {"report": (Item("text", text, origin),)} if text else {}
