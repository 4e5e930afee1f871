"""A FHIR resource -> rows of events: its concepts, values, times and texts, read by the rules of its type."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import html
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fabrica.errors import Refused
from fabrica.sources.events import BIRTH, EVENT, KNOWN, SIGNAL, TEXT
from fabrica.sources.fhir_rules import CLINICAL, NOT_DONE, SYSTEMS, Rule
from fabrica.sources.rows import decode

if TYPE_CHECKING:
    import pyarrow as pa

WORD = 40  # characters of a value that is written into a code; longer ones are notes
_DATE = re.compile(r"^\d{4}(-\d\d){0,2}$")
_EPOCH = dt.datetime(1970, 1, 1)
_TAG = re.compile(r"<(/?(?:p|div|br|tr|h[1-6]|li|table|ul|ol)\b)?(/?t[dh]\b)?[^>]*>", re.I)
_SPACE = re.compile(r"[^\S\n]+")


@dataclass(slots=True)
class Rows:
    """Rows of events, as columns. `bad` counts times that are no dates, by type."""

    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {n: [] for n in ("patient", "time", "kind", "code", "value", "text")}
    )
    bad: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.columns["patient"])

    def add(
        self, patient: str, kind: int, time: int | None = None, *, code: str | None = None, value: float | None = None,
        text: str | None = None,
    ) -> None:  # fmt: skip
        """One row; lone surrogates, which no store takes, become question marks."""
        for name, item in (("patient", clean(patient)), ("time", time), ("kind", kind),
                           ("code", None if code is None else clean(code)), ("value", value),
                           ("text", None if text is None else clean(text))):  # fmt: skip
            self.columns[name].append(item)

    def batch(self, schema: pa.Schema) -> pa.RecordBatch:
        """The rows as Arrow."""
        import pyarrow as pa

        arrays = [
            pa.array(self.columns[f.name], f.type) if f.name in self.columns else pa.nulls(len(self), f.type)
            for f in schema
        ]
        return pa.record_batch(arrays, schema=schema)


def clean(text: str) -> str:
    """Text that UTF-8 can hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


# ---------------------------------------------------------------- small readers


def each(value: Any, path: str) -> Iterator[Any]:
    """Every value at a dotted path, through lists.

    >>> list(each({"note": [{"text": "a"}, {"text": "b"}]}, "note.text"))
    ['a', 'b']
    """
    name, _, rest = path.partition(".")
    inner = value.get(name) if isinstance(value, dict) else None
    for one in inner if isinstance(inner, list) else [inner]:
        if one is not None:
            yield from each(one, rest) if rest else (one,)


def instant(text: Any, *, coarse: bool = False) -> int | None:
    """Microseconds since 1970 UTC of a FHIR date or time. A year or a month alone is none, unless `coarse`: then its
    first day. `ValueError` for what is no date or lies outside 1800-2299.

    >>> instant("1970-01-01T01:00:00+01:00"), instant("2012"), instant("1970-02", coarse=True)
    (0, None, 2678400000000)
    """
    if not isinstance(text, str) or not 4 <= len(text) <= 40:
        raise ValueError("no date")
    text = text.strip()
    if _DATE.match(text) and len(text) < 10:
        got = dt.datetime.fromisoformat(f"{text}-01-01"[:10])
        if not 1800 <= got.year < 2300:
            raise ValueError("year")
        return _micros(got) if coarse else None
    got = dt.datetime.fromisoformat(text)
    try:
        got = got.astimezone(dt.UTC).replace(tzinfo=None) if got.tzinfo else got
    except OverflowError as error:
        raise ValueError("year") from error
    if not 1800 <= got.year < 2300:
        raise ValueError("year")
    return _micros(got)


def _micros(at: dt.datetime) -> int:
    return (at - _EPOCH) // dt.timedelta(microseconds=1)


def concept(value: Any) -> str:
    """A CodeableConcept or Coding as "SYSTEM//code"; its text where it has no code; "" where it has neither.

    Of several codings: the one the user chose, else the first of a system that is known by name, else the first.

    >>> concept({"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}]})
    'LOINC//8867-4'
    """
    if isinstance(value, str):
        return f"TEXT//{value.strip()[:80]}" if value.strip() else ""
    if not isinstance(value, dict):
        return ""
    said = value.get("coding")
    codings = [
        c
        for c in (said if isinstance(said, list) else [value])
        if isinstance(c, dict) and isinstance(c.get("code"), str) and c["code"].strip()
    ]
    chosen = (
        next((c for c in codings if c.get("userSelected") is True), None)
        or next((c for c in codings if str(c.get("system")) in SYSTEMS), None)
        or next(iter(codings), None)
    )
    if chosen is not None:
        system = chosen.get("system")
        name = SYSTEMS.get(system) or re.split(r"[/:]", system)[-1] if isinstance(system, str) and system else "CODE"
        return f"{name or 'CODE'}//{chosen['code'].strip()}"
    text = value.get("text") or next((d for d in each(value, "coding.display") if d), None) or value.get("display")
    return f"TEXT//{text.strip()[:80]}" if isinstance(text, str) and text.strip() else ""


def number(value: Any) -> float | None:
    """A finite float of a JSON number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        got = float(value)
    except OverflowError:
        return None
    return got if math.isfinite(got) else None


def plain_text(xhtml: str) -> str:
    """The words of a narrative.

    >>> plain_text("<div><p>No <b>acute</b> change.</p><p>a &lt; b</p></div>")
    'No acute change.\\na < b'
    """
    text = html.unescape(_TAG.sub(lambda m: "\n" if m[1] else " " if m[2] else "", xhtml))
    return "\n".join(line for line in (_SPACE.sub(" ", part).strip() for part in text.splitlines()) if line)


def attachment(value: Any) -> str:
    """The text that an Attachment holds inside; "" where it is of another kind, or only a link."""
    if not isinstance(value, dict) or not isinstance(value.get("data"), str):
        return ""
    kind = str(value.get("contentType", "")).lower()
    if not kind.startswith("text/"):
        return ""
    try:
        text = decode(base64.b64decode(value["data"], validate=False))
    except (binascii.Error, ValueError, Refused):
        return ""
    return plain_text(text) if "html" in kind else text.strip()


# ---------------------------------------------------------------- resources


def read_patient(value: Mapping[str, Any], rows: Rows) -> str:
    """Birth, death and sex of a Patient."""
    if not isinstance(value.get("id"), str):
        return "fhir_no_subject"
    who = f"Patient/{value['id']}"
    rows.add(who, KNOWN)
    if "birthDate" in value and (born := _time(value["birthDate"], "Patient", rows, coarse=True)) is not None:
        rows.add(who, BIRTH, born)
    if isinstance(gender := value.get("gender"), str):
        rows.add(who, EVENT, code=f"GENDER//{gender[:WORD]}")
    if "deceasedDateTime" in value:
        rows.add(who, EVENT, _time(value["deceasedDateTime"], "Patient", rows), code="MEDS_DEATH")
    elif value.get("deceasedBoolean") is True:
        rows.add(who, EVENT, code="MEDS_DEATH")
    return ""


def _time(value: Any, kind: str, rows: Rows, *, coarse: bool = False) -> int | None:
    try:
        return instant(value, coarse=coarse)
    except ValueError:
        rows.bad[kind] += 1
        return None


def read_resource(value: Mapping[str, Any], kind: str, patient: str, rows: Rows, urls: Mapping[str, str]) -> str:
    """The rows of a clinical resource; "fhir_nothing" where it has none."""
    rule, before = CLINICAL[kind], len(rows)
    time = _first_time(value, rule.time, kind, rows)
    prefix = rule.prefix
    if str(value.get("status")) in NOT_DONE or value.get("notGiven") is True or _refuted(value):
        prefix += "//NOT_DONE" if kind != "Condition" else "//REFUTED"
    if kind == "Observation":
        _observation(value, patient, time, prefix, rows)
    elif kind == "QuestionnaireResponse":
        _answers(value, patient, time, prefix, rows)
    elif kind == "FamilyMemberHistory":
        _family(value, patient, time, prefix, rows)
    else:
        codes = list(_codes(value, rule, urls))
        for code in codes:
            rows.add(patient, EVENT, time, code=f"{prefix}//{code}")
        if end := _first_time(value, rule.end, kind, rows):
            rows.add(patient, EVENT, end, code=f"{prefix}_END" + (f"//{codes[0]}" if codes else ""))
    if kind == "VisionPrescription":
        rows.add(patient, EVENT, time, code=prefix)
    for text in _texts(value, kind, rule, bare=len(rows) == before):
        rows.add(patient, TEXT, time, code=rule.role, text=text)
    return "" if len(rows) > before else "fhir_nothing"


def _refuted(value: Mapping[str, Any]) -> bool:
    return any(str(c) in NOT_DONE for c in each(value, "verificationStatus.coding.code"))


def _first_time(value: Mapping[str, Any], paths: tuple[str, ...], kind: str, rows: Rows) -> int | None:
    for path in paths:
        for text in each(value, path):
            return _time(text, kind, rows)
    return None


def _codes(value: Mapping[str, Any], rule: Rule, urls: Mapping[str, str]) -> Iterator[str]:
    """The concepts of the first path that has any."""
    for path in rule.code:
        found = []
        for one in each(value, path):
            if path == "medicationReference" or (isinstance(one, dict) and "reference" in one):
                found.append(_referred(one, value, urls))
            else:
                found.append(concept(one))
        if kept := [c for c in found if c]:
            yield from dict.fromkeys(kept)
            return


def _referred(reference: Any, value: Mapping[str, Any], urls: Mapping[str, str]) -> str:
    """The code of a Medication: inside the resource, or "@Medication/id", resolved when all is read."""
    said = reference.get("reference") if isinstance(reference, dict) else None
    if not isinstance(said, str):
        return concept(reference)
    for inside in each(value, "contained"):
        if said.startswith("#") and isinstance(inside, dict) and inside.get("id") == said[1:]:
            return medicine(inside) or concept(reference.get("display"))
    found = re.search(r"(?:^|/)(Medication/[A-Za-z0-9.\-]{1,64})", urls.get(said, said))
    return f"@{found[1]}" if found else concept(reference.get("display"))


def medicine(value: Mapping[str, Any]) -> str:
    """The code of a Medication, or its ingredients' ("SNOMED//1+SNOMED//2")."""
    inside = (concept(c) for c in each(value, "ingredient.itemCodeableConcept"))
    return concept(value.get("code")) or "+".join(c for c in inside if c)


def _observation(value: Mapping[str, Any], patient: str, time: int | None, prefix: str, rows: Rows) -> None:
    own = concept(value.get("code"))
    channels = []
    for part in (value, *(c for c in each(value, "component") if isinstance(c, dict))):
        code = concept(part.get("code")) or own
        if channel := _sampled(part):
            channels.append(channel)
        elif code and (part is not value or not value.get("component") or any(k.startswith("value") for k in part)):
            _value(part, f"{prefix}//{code}", patient, time, rows)
    if channels:
        rows.add(patient, SIGNAL, time, code="signal", text=json.dumps(channels))


def _value(part: Mapping[str, Any], code: str, patient: str, time: int | None, rows: Rows) -> None:
    """A value beside its code: a number with its unit in the code, a word in the code, a long text as a note."""
    if "dataAbsentReason" in part and not any(k.startswith("value") for k in part):
        return
    quantity = part.get("valueQuantity")
    if isinstance(quantity, dict):
        unit = quantity.get("code") or quantity.get("unit") or ""
        code += f"//{unit}" if isinstance(unit, str) and unit else ""
        got = number(quantity.get("value"))
        if quantity.get("comparator") and got is not None:
            rows.add(patient, EVENT, time, code=f"{code}//{str(quantity['comparator'])[:2]}{got:g}")
        else:
            rows.add(patient, EVENT, time, code=code, value=got)
        return
    for name in ("valueInteger", "valueDecimal"):
        if (got := number(part.get(name))) is not None:
            rows.add(patient, EVENT, time, code=code, value=got)
            return
    word = concept(part.get("valueCodeableConcept") or part.get("valueCoding"))
    if isinstance(part.get("valueBoolean"), bool):
        word = str(part["valueBoolean"]).lower()
    text = part.get("valueString")
    if isinstance(text, str) and len(text) > WORD:
        rows.add(patient, TEXT, time, code="note", text=text)
    elif isinstance(text, str):
        word = text.strip()
    rows.add(patient, EVENT, time, code=f"{code}//{word}" if word else code)


def _sampled(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """A channel of sampled data in physical units; None where there is none that can be read."""
    data = part.get("valueSampledData")
    if not isinstance(data, dict) or not isinstance(data.get("data"), str):
        return None
    origin = next((o for o in each(data, "origin") if isinstance(o, dict)), {})
    period, factor, zero = number(data.get("period")), number(data.get("factor", 1)), number(origin.get("value"))
    if not period or period < 0 or factor is None or zero is None or number(data.get("dimensions", 1)) != 1:
        return None
    try:
        values = [(float(v) - zero) * factor for v in data["data"].split()]
    except ValueError:  # "E", "L", "U": an error, below or above what the device takes
        return None
    if not values or not all(map(math.isfinite, values)):
        return None
    display = next((d for d in each(part, "code.coding.display") if isinstance(d, str)), "")
    unit = origin.get("unit") or origin.get("code") or ""
    name = display.removeprefix("MDC_ECG_ELEC_POTL_")
    return {"name": name, "unit": str(unit), "rate": 1000 / period, "values": values}


def _answers(value: Mapping[str, Any], patient: str, time: int | None, prefix: str, rows: Rows) -> None:
    """The answers of a questionnaire by their link ids, however deep they stand."""
    waiting = list(each(value, "item"))
    while waiting:
        item = waiting.pop(0)
        if not isinstance(item, dict):
            continue
        link = str(item.get("linkId", ""))[:80]
        for answer in each(item, "answer"):
            if isinstance(answer, dict):
                if any(k.startswith("value") for k in answer):
                    _value(answer, f"{prefix}//{link}", patient, time, rows)
                waiting.extend(each(answer, "item"))
        waiting.extend(each(item, "item"))


def _family(value: Mapping[str, Any], patient: str, time: int | None, prefix: str, rows: Rows) -> None:
    who = concept(value.get("relationship")).rpartition("//")[2] or "relative"
    for code in each(value, "condition.code"):
        if found := concept(code):
            rows.add(patient, EVENT, time, code=f"{prefix}//{who}//{found}")


def _texts(value: Mapping[str, Any], kind: str, rule: Rule, *, bare: bool) -> Iterator[str]:
    """Free texts; a narrative that is not made from the data, where there is nothing else (`bare`) or of a report."""
    found = [t.strip() for path in rule.text for t in each(value, path) if isinstance(t, str)]
    for path in ("presentedForm", "content.attachment"):
        found += [attachment(a) for a in each(value, path)]
    if kind == "Composition":
        sections = [s for s in _sections(value) if s]
        found.append("\n\n".join(sections))
    if not any(found) and (kind == "DiagnosticReport" or bare):
        narrative = [n for n in each(value, "text") if isinstance(n, dict) and n.get("status") != "generated"]
        found += [plain_text(n["div"]) for n in narrative if isinstance(n.get("div"), str)]
    yield from (t for t in dict.fromkeys(found) if t)


def _sections(value: Mapping[str, Any]) -> Iterator[str]:
    for section in each(value, "section"):
        if isinstance(section, dict):
            title = section.get("title")
            body = next((plain_text(d) for d in each(section, "text.div") if isinstance(d, str)), "")
            yield "\n".join(t for t in (title, body) if isinstance(t, str) and t)
            yield from _sections(section)
