"""FHIR R4: hand-written (invented) resources to records, bundles and bulk exports alike, and JSON that means harm."""

import base64
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import Refused
from fabrica.safe import Limits
from fabrica.sources import Quarantined, Ref, fhir, jsons, read, sniff, walk
from fabrica.sources.fhir_read import attachment, concept, instant, plain_text
from fabrica.sources.single import hashed
from fabrica.types import Record

LOINC = "http://loinc.org"
WHO = {"reference": "Patient/p1"}
PATIENT = {
    "resourceType": "Patient",
    "id": "p1",
    "gender": "female",
    "birthDate": "1960-05-01",
    "name": [{"family": "Invented"}],
}
PULSE = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "subject": WHO,
    "code": {"coding": [{"system": LOINC, "code": "8867-4"}]},
    "effectiveDateTime": "2020-05-01T10:00:00+02:00",
    "valueQuantity": {"value": 61, "unit": "beats/min", "code": "/min"},
}
PRESSURE = {
    "resourceType": "Observation",
    "status": "final",
    "subject": WHO,
    "effectiveDateTime": "2020-05-01T11:30:00Z",
    "code": {"coding": [{"system": LOINC, "code": "85354-9"}]},
    "component": [
        {"code": {"coding": [{"system": LOINC, "code": "8480-6"}]}, "valueQuantity": {"value": 120, "code": "mm[Hg]"}},
        {"code": {"coding": [{"system": LOINC, "code": "8462-4"}]}, "dataAbsentReason": {"text": "no cuff"}},
    ],
}
SUGAR = {
    "resourceType": "Condition",
    "subject": WHO,
    "onsetDateTime": "2020-05",
    "code": {"coding": [{"system": "http://snomed.info/sct", "code": "44054006"}]},
}
REPORT = {
    "resourceType": "DiagnosticReport",
    "status": "final",
    "subject": WHO,
    "effectiveDateTime": "2020-05-02",
    "code": {"text": "Chest X-ray"},
    "conclusion": "No effusion.",
}
NOTE = {
    "resourceType": "DocumentReference",
    "status": "current",
    "subject": WHO,
    "date": "2020-05-03T08:00:00Z",
    "type": {"coding": [{"system": LOINC, "code": "34108-1"}]},
    "content": [{"attachment": {"contentType": "text/plain", "data": base64.b64encode(b"Feels well.").decode()}}],
}
PILL = {
    "resourceType": "MedicationRequest",
    "status": "active",
    "intent": "order",
    "subject": WHO,
    "authoredOn": "2020-05-01T08:00:00Z",
    "medicationReference": {"reference": "Medication/m1"},
}
MEDICATION = {
    "resourceType": "Medication",
    "id": "m1",
    "code": {"coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "860975"}]},
}
ORG = {"resourceType": "Organization", "id": "g", "name": "Invented"}
ALL: list[dict[str, Any]] = [PATIENT, PULSE, PRESSURE, SUGAR, REPORT, NOTE, PILL, MEDICATION, ORG]


def found(path: Path, limits: Limits | None = None) -> tuple[list[Record], dict[str, str]]:
    got = list(read(Ref(path, path.name, "demo", "CC0-1.0"), *([limits] if limits else [])))
    lost = {q.key: q.code for q in got if isinstance(q, Quarantined)}
    return [g for g in got if isinstance(g, Record)], lost


def put(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), "utf-8")
    return path


def bundle(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in resources]}


def test_a_bundle_is_one_record_a_patient(tmp_path: Path) -> None:
    (record,), lost = found(put(tmp_path / "b.json", bundle(*ALL)))
    assert [(i.hours, i.names, i.array().tolist()) for i in record.items["events"]] == [
        (0.0, ("OBSERVATION//LOINC//8867-4///min",), [61.0]),
        (3.5, ("OBSERVATION//LOINC//8480-6//mm[Hg]",), [120.0]),
    ]
    assert [(i.hours, i.value) for i in record.items["codes"]] == [
        (None, "GENDER//female\nCONDITION//SNOMED//44054006"), (0.0, "MEDICATION_ORDER//RxNorm//860975"),
        (16.0, "REPORT//TEXT//Chest X-ray"), (48.0, "DOCUMENT//LOINC//34108-1"),
    ]  # fmt: skip
    assert (record.first("report").text(), record.first("report").hours) == ("No effusion.", 16.0)
    assert (record.first("note").text(), record.first("note").hours) == ("Feels well.", 48.0)
    assert record.first("table").array()[0] == pytest.approx(60.0, abs=0.01)
    assert record.subject == hashed("subject", "demo", "Patient/p1")
    assert not any(word in repr(record) for word in ("Invented", "2020", "1960"))
    assert set(lost.values()) == {"fhir_no_patient"}
    assert set(lost) == {"b.json#Medication:fhir_no_patient", "b.json#Organization:fhir_no_patient"}


def test_lines_a_bulk_export_and_a_bundle_say_the_same(tmp_path: Path) -> None:
    whole = found(put(tmp_path / "b.json", bundle(*ALL)))[0][0]
    (tmp_path / "all.ndjson").write_text("\n".join(map(json.dumps, ALL)))
    export = tmp_path / "export"
    export.mkdir()
    for kind in {r["resourceType"] for r in ALL}:
        lines = [json.dumps(r) for r in ALL if r["resourceType"] == kind]
        if kind == "Observation":
            (export / f"{kind}.001.ndjson.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
        else:
            (export / f"{kind}.ndjson").write_text("\n".join(lines))
    refs = list(walk(export, source="demo"))
    assert [r.key for r in refs] == ["Patient.ndjson"], "the others are its parts"
    assert sniff(export / "Observation.001.ndjson.gz") == "fhir"
    for path in (tmp_path / "all.ndjson", export / "Patient.ndjson"):
        (record,), _ = found(path)
        assert {r: [(i.hours, i.value if r == "codes" else str(i.value)) for i in g] for r, g in record.items.items()
                if r != "codes"} == {r: [(i.hours, str(i.value)) for i in g] for r, g in whole.items.items()
                                     if r != "codes"}  # fmt: skip
        assert [sorted(i.text().split("\n")) for i in record.items["codes"]] == [
            sorted(i.text().split("\n")) for i in whole.items["codes"]
        ]


def test_references_of_every_kind_lead_to_one_patient(tmp_path: Path) -> None:
    def pulse(**who: Any) -> dict[str, Any]:
        return {**PULSE, "subject": who}

    entries = [
        {"fullUrl": "urn:uuid:1", "resource": PATIENT},
        {"resource": pulse(reference="urn:uuid:1")},
        {"resource": pulse(reference="Patient/p1/_history/3")},
        {"resource": pulse(reference="https://here.example/fhir/Patient/p1")},
    ]
    (record,), _ = found(put(tmp_path / "a.json", {"resourceType": "Bundle", "entry": entries}))
    assert len(record.items["events"][0].names) == 3
    inside = {**pulse(reference="#x"), "contained": [{"resourceType": "Patient", "id": "x"}]}
    (record,), _ = found(put(tmp_path / "b.json", inside))
    assert record.subject == hashed("subject", "demo", "Observation/o1#x")
    for who in ({"reference": "Group/1"}, {"display": "somebody"}, {"reference": "#y"}, {}):
        records, lost = found(put(tmp_path / "c.json", pulse(**who)))
        assert (records, lost) == ([], {"c.json": "fhir_no_subject"})


def test_what_is_wrong_or_was_not_done_is_never_a_finding(tmp_path: Path) -> None:
    refuted = {**SUGAR, "verificationStatus": {"coding": [{"code": "refuted"}]}}
    wrong = {**SUGAR, "verificationStatus": {"coding": [{"code": "entered-in-error"}]}}
    shot = {"resourceType": "Immunization", "status": "not-done", "patient": WHO, "vaccineCode": {"text": "flu"}}
    (record,), lost = found(
        put(tmp_path / "a.json", bundle(refuted, wrong, shot, {**PULSE, "status": "entered-in-error"}))
    )
    assert [i.value for i in record.items["codes"]] == [
        "CONDITION//REFUTED//SNOMED//44054006\nIMMUNIZATION//NOT_DONE//TEXT//flu"
    ]
    assert set(lost.values()) == {"fhir_error"}
    assert "events" not in record.items


def test_values_of_every_kind(tmp_path: Path) -> None:
    def seen(**value: Any) -> list[tuple[str, Any]]:
        plain = {k: v for k, v in PULSE.items() if k != "valueQuantity"}
        records, lost = found(put(tmp_path / "v.json", {**plain, **value}))
        if not records:
            return [("lost", next(iter(lost.values())))]
        return [
            (n, v) for i in records[0].items.get("events", ()) for n, v in zip(i.names, i.array().tolist(), strict=True)
        ] + [(c, None) for i in records[0].items.get("codes", ()) for c in i.text().split("\n")]

    code = "OBSERVATION//LOINC//8867-4"
    assert seen(valueInteger=3) == [(code, 3.0)]
    assert seen(valueBoolean=False) == [(f"{code}//false", None)]
    assert seen(valueString="trace") == [(f"{code}//trace", None)]
    assert seen(valueQuantity={"value": 5, "comparator": "<", "unit": "mg"}) == [(f"{code}//mg//<5", None)]
    assert seen(valueCodeableConcept={"coding": [{"system": "http://snomed.info/sct", "code": "10828004"}]}) == [
        (f"{code}//SNOMED//10828004", None)
    ]
    assert seen(valueDateTime="2020-01-01") == [(code, None)], "a date is never stored"
    assert seen(dataAbsentReason={"text": "unknown"}) == [("lost", "fhir_nothing")]
    assert seen(valueQuantity={"value": 10**400}) == [(code, None)]
    assert seen(valueQuantity={"value": True}) == [(code, None)]


def test_sampled_data_is_a_signal(tmp_path: Path) -> None:
    lead = {
        "origin": {"value": 2048, "unit": "uV"},
        "period": 10,
        "factor": 2,
        "dimensions": 1,
        "data": "2050 2047 2048",
    }
    parts = [
        {"code": {"coding": [{"code": n, "display": f"MDC_ECG_ELEC_POTL_{n}"}]}, "valueSampledData": lead}
        for n in ("I", "II")
    ]
    (record,), _ = found(put(tmp_path / "e.json", {**PRESSURE, "component": parts}))
    (ecg,) = record.items["ecg"]
    assert (ecg.rate, ecg.unit, ecg.names) == (100.0, "uV", ("I", "II"))
    np.testing.assert_array_equal(ecg.array(), [[4, -2, 0]] * 2)
    for bad in ({"data": "1 E 2"}, {"period": 0}, {"dimensions": 12}, {"origin": None}):
        parts = [{"code": {"text": "I"}, "valueSampledData": {**lead, **bad}}]
        records, _ = found(put(tmp_path / "e.json", {**PRESSURE, "component": parts}))
        assert all("ecg" not in r.items for r in records)


def test_questionnaires_are_read_at_every_level(tmp_path: Path) -> None:
    inner = {
        "linkId": "2",
        "answer": [{"valueInteger": 3, "item": [{"linkId": "2.1", "answer": [{"valueBoolean": True}]}]}],
    }
    asked = {
        "resourceType": "QuestionnaireResponse",
        "status": "completed",
        "subject": WHO,
        "item": [{"linkId": "1", "item": [inner]}],
    }
    (record,), _ = found(put(tmp_path / "q.json", asked))
    assert record.items["events"][0].names == ("QUESTIONNAIRE//2",)
    assert record.items["codes"][0].value == "QUESTIONNAIRE//2.1//true"


def test_small_readers() -> None:
    assert (
        concept({"coding": [{"code": "x", "system": "http://a.example/own"}, {"code": "y", "system": LOINC}]})
        == "LOINC//y"
    )
    assert concept({"coding": [{"display": "only words"}]}) == "TEXT//only words"
    assert concept({"coding": [5, None], "text": 7}) == ""
    assert plain_text("<div>a<br/>b<td>c</td><td>d</td> &amp; <script>x</script></div>") == "a\nb c d & x"
    assert attachment({"contentType": "text/html", "data": base64.b64encode(b"<p>A</p>").decode()}) == "A"
    assert attachment({"contentType": "application/pdf", "data": "AAAA"}) == ""
    assert attachment({"contentType": "text/plain", "url": "http://elsewhere.example/x"}) == "", "no link is followed"
    assert instant("2020-05-01") == instant("2020-05-01T02:00:00+02:00")
    for bad in (
        "20200501T25",
        "0001-01-01",
        "9999-12-31",
        "2020-02-30",
        "2020-13",
        None,
        5,
        "x" * 99,
        "2020-05-01T24:61:00Z",
    ):
        with pytest.raises(ValueError):
            instant(bad)


# ---------------------------------------------------------------- hostile JSON


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b'{"resourceType": "Patient", "id": "a", "id": "b"}', "json_key_twice"),
        (b'{"resourceType": "Observation", "valueInteger": NaN}', "json_number"),
        (b'{"resourceType": "Observation", "valueInteger": -Infinity}', "json_number"),
        (b'{"resourceType": "Observation", "valueInteger": ' + b"9" * 5000 + b"}", "json_number"),
        (b'{"resourceType": "Patient", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "json_depth"),
        (b'{"resourceType": "Patient", "x": ' + b'{"a":' * 65 + b"1" + b"}" * 66, "json_depth"),
        (b'{"resourceType": "Patient"', "json_bad"),
        (b'{"resourceType": "Patient", "id": "\xff"}', "json_bad"),
        ('{"resourceType": "Patient"}'.encode("utf-16"), "unknown_format"),
        (b'{"resourceType": "Patient", "id": "a\0"}', "not_text"),
        (b'{"resourceType": 5}', "fhir_no_resource"),
        (b'["resourceType": "Patient"]', "json_bad"),
        (b'{"resourceType": "Evil"}', "fhir_unknown"),
        (b'{"resourceType": "Bundle", "entry": [{"resource": null}, 3, {"resource": {"x": []}}]}', "fhir_no_resource"),
    ],
)  # fmt: skip
def test_bad_json_is_named(tmp_path: Path, data: bytes, code: str) -> None:
    (tmp_path / "a.json").write_bytes(data)
    records, lost = found(tmp_path / "a.json")
    assert not records
    assert set(lost.values()) == {code}
    assert "Evil" not in repr(lost)


def test_bad_lines_are_counted_and_the_others_read(tmp_path: Path) -> None:
    lines = [
        json.dumps(PATIENT),
        "{",
        "[" * 99 + "]" * 99,
        '{"a": 1, "a": 2}',
        json.dumps(PULSE),
        '{"x": "' + "y" * (1 << 20) + '"}',
        "",
    ]
    (tmp_path / "a.ndjson").write_text("\n".join(lines))
    (record,), lost = found(tmp_path / "a.ndjson", Limits(array_bytes=4 << 20))
    assert record.items["events"][0].array().tolist() == [61.0]
    assert Counter(lost.values()) == Counter(json_bad=1, json_depth=1, json_key_twice=1, json_too_large=1)


def test_too_large_and_cut(tmp_path: Path) -> None:
    path = put(tmp_path / "a.json", bundle(PATIENT, {**NOTE, "description": "z" * (1 << 20)}))
    assert found(path, Limits(array_bytes=4 << 20)) == ([], {"a.json": "json_too_large"})
    rng = np.random.default_rng(0)
    packed = gzip.compress(
        "\n".join(json.dumps({**PULSE, "id": str(n)}) for n in rng.integers(0, 10**9, 5000)).encode()
    )
    (tmp_path / "b.ndjson.gz").write_bytes(packed[: len(packed) // 2])
    assert found(tmp_path / "b.ndjson.gz") == ([], {"b.ndjson.gz": "deflate"})


def test_resource_type_may_come_late(tmp_path: Path) -> None:
    path = put(tmp_path / "a.json", {"aaa": "z" * 20_000, **PATIENT})
    assert sniff(path) == "fhir"
    assert sniff(put(tmp_path / "package.json", {"name": "x"})) is None


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=6),
        lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3),
        max_leaves=12,
    )
)
def test_depth_is_that_of_the_value(value: Any) -> None:
    def depth(v: Any) -> int:
        inner = v.values() if isinstance(v, dict) else v if isinstance(v, list) else None
        return 0 if inner is None else 1 + max((depth(i) for i in inner), default=0)

    data = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert jsons.depth(data) == depth(value)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JUNK = SCALARS | st.text(max_size=5) | st.sampled_from([[], [{}], {}, [[None]]])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for k, v in inner for p in ((*path, k), *places(v, (*path, k)))]


SEVERAL = bundle(
    *ALL, {**REPORT, "component": [], "contained": [{"id": "x"}], "note": [{"text": "t"}], "text": {"div": "d"}}
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(places(SEVERAL)), JUNK)
def test_any_place_may_hold_junk(tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], junk: Any) -> None:
    value = json.loads(json.dumps(SEVERAL))
    at = value
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = junk
    records, lost = found(put(tmp_path_factory.getbasetemp() / "junk.json", value))
    assert records or lost
    assert not set(lost.values()) & {"undecodable", "file"}, lost


def test_every_type_is_in_one_table() -> None:
    from fabrica.sources.fhir_rules import ADMINISTRATIVE, CLINICAL, OTHER

    assert len(CLINICAL) + len(ADMINISTRATIVE) + len(OTHER) + 2 == len(fhir.TYPES), "no type stands in two tables"
    assert len(fhir.TYPES) == 146, "the resources that the StructureDefinitions of R4 define"


def test_the_hand_written_resources_are_fhir() -> None:
    pytest.importorskip("fhir.resources")
    import importlib

    for resource in ALL:
        module = importlib.import_module(f"fhir.resources.R4B.{resource['resourceType'].lower()}")
        getattr(module, resource["resourceType"]).model_validate(resource)


def test_read_all_refuses_what_is_refused_alone(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    put(tmp_path / "good.json", PATIENT)
    refs = [Ref(tmp_path / n, n, "demo") for n in ("bad.json", "good.json")]
    with pytest.raises(Refused, match="json_bad"):
        list(fhir.read(refs[0]))
    got = list(fhir.read_all(refs[::-1]))
    assert [g.code for g in got if isinstance(g, Quarantined)] == ["json_bad"]
    assert sum(isinstance(g, Record) for g in got) == 1
