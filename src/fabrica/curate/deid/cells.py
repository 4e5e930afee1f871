"""Tables, JSON, XML and rows: each cell by what its column's name says and what it holds; unknown ones are scrubbed."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fabrica.curate.deid.dicom_walk import shift_value
from fabrica.curate.deid.key import Key, shifted
from fabrica.text.identifier_dates import shift_date
from fabrica.text.identifiers import Known, scrub

_SUBJECT = re.compile(
    r"^(?:(?:patient|subject|person|pat|participant|case)[_ -]?(?:id|identifier|no|nr|num|number|nummer|key|"
    r"guid)|patientid|"
    r"subjectid|personid|mrn|medical[_ -]?record[_ -]?(?:number|no)|hadm[_ -]?subject|patient|subject|empi|pid|"
    r"pat[_ -]?id)$",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"(?:^|_| )(?:(?:first|last|given|family|middle|maiden|full|sur|nick|patient|pat|doctor|dr|physician|provider|"
    r"attending|referring|operator|nurse|radiologist|author|contact|mother|father|spouse|guardian|kin|staff|reader|"
    r"performing|requesting|insured|vor|nach|familien|arzt|technologist|surgeon|institution|hospital|facility|site|"
    r"station|employer|clinic|clinician|user)s?[_ -]?(?:name|s[_ -]?name|names)|name|surname|vorname|nachname|initials|"
    r"physician|doctor|provider|attending|radiologist|operator|author|arzt|signed[_ -]?by|dictated[_ -]?by|"
    r"technologist|"
    r"surgeon|nurse|clinician|employer|institution|hospital|facility|username|login|guarantor)$",
    re.IGNORECASE,
)
_ID = re.compile(
    r"(?:^|_| |-)(?:id|ids|guid|uuid|ssn|sin|mrn|npi|account|acct|accession|visit|encounter|csn|fin|policy|"
    r"member|insurance|"
    r"license|licence|serial|vin|plate|passport|barcode|badge|nummer|nr|versichertennummer|kvnr|fallnummer|ssn4|"
    r"iban|token|"
    r"accession[_ -]?(?:number|no|nr)|(?:account|policy|serial|order|case|visit|insurance|group|member|phone|"
    r"license|record|"
    r"device|specimen|study|exam|social[_ -]?security)[_ -]?(?:number|no|nr|num))$|id$(?<=[a-z]Id)|ID$",
)
_CONTACT = re.compile(
    r"(?:^|_| |-)(?:phone|telephone|tel|telefon|fax|mobile|cell|pager|email|e-mail|mail|url|website|ip|"
    r"ip[_ -]?address|mac|"
    r"address|addr|address[_ -]?\d|street|strasse|straße|city|town|ort|wohnort|zip|zipcode|zip[_ -]?code|plz|postal|"
    r"postal[_ -]?code|postcode|county|birth[_ -]?place|place[_ -]?of[_ -]?birth|latitude|longitude|lat|lon|geo|"
    r"adresse|"
    r"home[_ -]?phone|work[_ -]?phone|phone[_ -]?\d|file[_ -]?name|filename|path|file|dicom[_ -]?path)$",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"(?:^|_| |-)(?:date|datetime|time|timestamp|day|dob|dod|doa|datum|geburtsdatum|admittime|dischtime|"
    r"deathtime|charttime|"
    r"storetime|starttime|endtime|birthdate|deathdate|createdat|updatedat|created[_ -]?at|updated[_ -]?at|at|on|since|"
    r"studydate|seriesdate|acquisitiondate|contentdate|birth|admission|discharge|death|\w*date|\w*datetime|\w*time)$",
    re.IGNORECASE,
)
_BIRTH = re.compile(
    r"(?:^|_| )(?:dob|birth|birth[_ -]?date|birthdate|date[_ -]?of[_ -]?birth|geburtsdatum|geb)$", re.IGNORECASE
)
_AGE = re.compile(
    r"(?:^|_| |-)(?:age|alter|age[_ -]?(?:years|at[_ -]?\w+)|anchor_age|patient[_ -]?age)$", re.IGNORECASE
)
_UID = re.compile(r"UID$|(?:^|_)uid$", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:\d{1,5}(?:\.\d+)?|\.\d+|\d+\.\d+)(?:[eE][+-]?\d+)?")
_EPOCH = dt.date(1970, 1, 1)


def kind_of(column: str) -> str:
    """What a column's name says of its cells: subject, name, id, uid, contact, birth, date, age, or "" (nothing).

    >>> [kind_of(c) for c in ("PatientID", "referring_physician", "accession_number", "dob", "age", "findings")]
    ['subject', 'name', 'id', 'birth', 'age', '']
    """
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column.strip())
    flat = column.strip()
    if _SUBJECT.match(flat) or _SUBJECT.match(name):
        return "subject"
    for kind, pattern in (("uid", _UID), ("birth", _BIRTH), ("age", _AGE), ("contact", _CONTACT), ("name", _NAME),
                          ("id", _ID), ("date", _DATE)):  # fmt: skip
        if pattern.search(flat) or pattern.search(name):
            return kind
    return ""


@dataclass(frozen=True, slots=True)
class Cells:
    """One subject's cells. `days` moves its dates; `subject` is the pseudonym that takes its identifier's place."""

    key: Key
    days: int
    subject: str
    known: Known | None = None

    def cell(self, column: str, value: Any) -> Any:
        """The cell without identifiers, of the same type where its type can say it; None (missing) stays."""
        if value is None or value == "" or isinstance(value, bool):
            return value
        kind = kind_of(column)
        if kind == "subject":
            return self.subject
        if kind in ("name", "contact"):
            return None if not isinstance(value, str) else f"[{kind.upper()}]" if value.strip() else value
        if kind == "uid":
            return self.key.uid(str(value))
        if kind == "id":
            return self.key.pseudonym(column.lower(), str(value))
        if kind == "birth":
            return self._birth(value)
        if kind == "age":
            return self._age(value)
        if isinstance(value, (dt.date, dt.datetime)):
            return self._day(value)
        if kind == "date" and isinstance(value, (str, int)):
            return self._date(value)
        return self._plain(value)

    def text(self, text: str) -> str:
        """Free text."""
        return scrub(text, days=self.days, uid=self.key.uid, known=self.known).text

    def _plain(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(self.text(str(k))): self.cell(str(k), v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._plain(v) for v in value]
        if isinstance(value, int) and abs(value) >= 10**6:
            return self._plain(str(value))
        if not isinstance(value, str):
            return value
        return value if _NUMBER.fullmatch(value.strip()) else self.text(value)

    def _birth(self, value: Any) -> Any:
        """Birth dates keep no day: nothing, as DICOM does."""
        return "" if isinstance(value, str) else None

    def _age(self, value: Any) -> Any:
        m = re.match(r"\s*(\d+(?:\.\d+)?)", str(value))
        if m is None:
            return self._plain(value)
        if float(m[1]) <= 89:
            return value if not isinstance(value, str) or re.fullmatch(r"\s*[\d.]+\s*[A-Za-z]{0,6}\s*", value) else m[1]
        return "90+" if isinstance(value, str) else type(value)(90)

    def _day(self, value: dt.date) -> dt.date | None:
        try:
            return value + dt.timedelta(days=self.days)
        except OverflowError:
            return None

    def _date(self, value: str | int) -> Any:
        """A date written by a machine: ISO, DICOM, slashes, with or without a time; a year alone; else scrubbed."""
        text = str(value).strip()
        if re.fullmatch(r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?", text) or re.fullmatch(r"(?:19|20)\d{2}", text):
            return value
        if isinstance(value, int):
            if 10**8 <= value < 10**11:  # seconds since 1970
                return value + self.days * 86400
            if 10**11 <= value < 10**14:
                return value + self.days * 86400_000
            moved = shift_value(text, self.days) if len(text) == 8 else None
            return int(moved) if moved is not None else self._plain(value)
        m = re.match(r"([\d./-]{6,10})(?:([T ])(\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?))?$", text)
        if m is not None:
            moved = shift_date(m[1], self.days)
            if moved is not None:
                return moved + (f"{m[2]}{m[3]}" if m[3] else "")
        if re.fullmatch(r"\d{8}(?:\d{6}(?:\.\d+)?)?", text):
            return shift_value(text, self.days) or "[DATE]"
        if re.fullmatch(r"\d{5,}", text):
            return "[DATE]"
        return value if _NUMBER.fullmatch(text) else self.text(text)


def json_value(cells: Cells, value: Any, column: str = "") -> Any:
    """A JSON document, cell by cell: keys are column names (DICOM keywords in BIDS sidecars, FHIR elements)."""
    if isinstance(value, dict):
        return {cells.text(k): json_value(cells, v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [json_value(cells, v, column) for v in value]
    return cells.cell(column, value) if value is not None else None


Choose = Callable[[Mapping[str, Any]], Cells]


def clean_row(row: Mapping[str, Any], choose: Choose) -> dict[str, Any]:
    """A row of a table: `choose` says whose it is."""
    cells = choose(row)
    return {column: cells.cell(column, value) for column, value in row.items()}


def subject_column(columns: list[str]) -> str | None:
    """The column that says whose row it is, None where there is none."""
    return next((c for c in columns if kind_of(c) == "subject"), None)


__all__ = ["Cells", "Choose", "clean_row", "json_value", "kind_of", "shifted", "subject_column"]
