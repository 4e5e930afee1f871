"""One DICOM data set cleaned element by element: the action that the table and the options give, in sequences too."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydicom.errors import BytesLengthException, InvalidDicomError

from fabrica.curate.deid.dicom_table import EDITION, METHODS, Options, content_table, row_of
from fabrica.curate.deid.dicom_words import BINARY, SCHEMES, VERBATIM, protocol_words
from fabrica.curate.deid.key import Key, shifted
from fabrica.curate.deid.pixels import Finding
from fabrica.errors import Refused
from fabrica.safe import LIMITS
from fabrica.text.identifiers import Known, scrub

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

ERRORS = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, OSError, ArithmeticError, RuntimeError,
    NotImplementedError, LookupError, BytesLengthException, InvalidDicomError,
)  # fmt: skip
_TEXT = frozenset(["LO", "SH", "ST", "LT", "UT", "UC"])
_NUMERIC = frozenset(["US", "SS", "UL", "SL", "FL", "FD", "SV", "UV", "AT"])
_DATES = frozenset(("DA", "DT", "TM"))
_DUMMY: Mapping[str, Any] = {
    "DA": "19000101", "DT": "19000101000000", "TM": "000000", "AS": "000Y", "AE": "ANON", "CS": "ANON", "DS": "0",
    "IS": "0", "UR": "urn:anon", "PN": "ANON", "LO": "ANON", "SH": "ANON", "ST": "ANON", "LT": "ANON", "UT": "ANON",
    "UC": "ANON", "OB": b"\0\0", "OW": b"\0\0", "OF": b"\0" * 4, "OD": b"\0" * 8, "OL": b"\0" * 4, "OV": b"\0" * 8,
    "UN": b"", "US": 0, "SS": 0, "UL": 0, "SL": 0, "FL": 0.0, "FD": 0.0, "SV": 0, "UV": 0, "AT": 0,
}  # fmt: skip


class Walk:
    """One file under way."""

    def __init__(self, key: Key, options: Options, days: int, subject: str, known: Known) -> None:
        self.key, self.options, self.days, self.subject, self.known = key, options, days, subject, known
        self.actions: Counter[str] = Counter()

    def dataset(self, dataset: Dataset, depth: int = 0) -> None:
        """Clean every element in place."""
        if depth > LIMITS.depth:
            raise Refused("dicom_depth", f"sequences nest more than {LIMITS.depth} deep")
        for tag in list(dataset.keys()):
            row = row_of(int(tag))
            action = row.action(self.options) if row is not None else "default"
            try:
                changed = self._element(dataset, int(tag), action, depth)
            except ERRORS:  # what cannot be decoded cannot be cleaned
                del dataset[tag]
                changed = "X"
            self.actions[changed] += 1

    def _element(self, dataset: Dataset, tag: int, action: str, depth: int) -> str:
        if tag & 0xFFFF == 0 or tag >> 16 < 4 or (tag >> 16) & 0xFF00 in (0x5000, 0x6000) or (tag >> 16) % 2:
            action = "X"
        if action == "X":
            del dataset[tag]
            return "X"
        element = dataset[tag]
        if element.VR == "SQ":
            return self._sequence(dataset, element, action, depth)
        if action == "default":
            return self._unlisted(dataset, element)
        if action == "Z":
            return self._empty(dataset, element)
        if action == "D":
            return self._dummy(element)
        if action == "U":
            return self._uids(element)
        if action == "C":
            return self._clean(dataset, element)
        return self._keep(dataset, element)

    def _sequence(self, dataset: Dataset, element: DataElement, action: str, depth: int) -> str:
        from pydicom.dataset import Dataset
        from pydicom.sequence import Sequence

        if element.tag == 0x0040A730:
            return self._content(dataset, element, depth)
        if action == "Z":
            element.value = Sequence()
            return "Z"
        if action == "D":
            if not element.keyword.endswith("CodeSequence"):
                del dataset[element.tag]
                return "X"
            code = Dataset()
            code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "ANON", "99FABRICA", "anonymous"
            element.value = Sequence([code])
            return "D"
        for item in element.value:
            self.dataset(item, depth + 1)
        return "C"

    def _content(self, dataset: Dataset, element: DataElement, depth: int) -> str:
        """A report's tree (Table E.3.4-1): items whose concept the table removes go, texts are scrubbed."""
        from pydicom.sequence import Sequence

        if not self.options.structured:
            del dataset[element.tag]
            return "X"
        kept = []
        for item in element.value:
            action = self._concept(item)
            if action == "X" or str(item.get("ValueType", "")) == "PNAME":
                self.actions["X"] += 1
                continue
            self.dataset(item, depth + 1)
            if action == "D":
                self._blank(item)
            kept.append(item)
        element.value = Sequence(kept)
        return "C"

    def _concept(self, item: Dataset) -> str:
        for name in item.get("ConceptNameCodeSequence") or ():
            row = content_table().get((str(name.get("CodingSchemeDesignator", "")), str(name.get("CodeValue", ""))))
            if row is not None:
                return row.action(self.options)
        return ""

    def _blank(self, item: Dataset) -> None:
        for keyword in ("TextValue", "DateTime", "Date", "Time"):
            if keyword in item:
                self._dummy(item[keyword])

    def _empty(self, dataset: Dataset, element: DataElement) -> str:
        if element.tag == 0x00100010 or element.tag == 0x00100020:
            return self._dummy(element)
        element.value = "" if element.VR in _TEXT | _DATES | {"PN", "CS", "AE", "AS", "UI", "UR", "DS", "IS"} else None
        return "Z"

    def _dummy(self, element: DataElement) -> str:
        if element.tag in (0x00100010, 0x00100020):
            element.value = self.key.pseudonym("subject", self.subject)
        elif element.VR == "UI":
            return self._uids(element)
        else:
            element.value = _DUMMY.get(element.VR, "")
        return "D"

    def _uids(self, element: DataElement) -> str:
        if self.options.uids:
            return "K"
        values = _values(element)
        mapped = [self.key.uid(str(v)) if str(v).strip() else "" for v in values]
        element.value = mapped if len(mapped) > 1 else (mapped or [""])[0]
        return "U"

    def _clean(self, dataset: Dataset, element: DataElement) -> str:
        vr = element.VR
        if vr == "UI":
            return self._uids(element)
        if vr in ("DA", "DT"):
            return self._shift(dataset, element)
        if vr == "TM" or (vr == "SH" and element.tag == 0x00080201):
            return self._time(dataset, element)
        if vr in _TEXT:
            values = [protocol_words(str(v)) for v in _values(element)]
            element.value = values if len(values) > 1 else (values or [""])[0]
            if not any(values):
                return self._remove_or_dummy(dataset, element)
            return "C"
        return self._dummy(element)

    def _remove_or_dummy(self, dataset: Dataset, element: DataElement) -> str:
        """Nothing was left: the basic action of the attribute."""
        row = row_of(int(element.tag))
        basic = "X" if row is None else row.basic.rstrip("*").split("/")[-1]
        if basic == "X":
            del dataset[element.tag]
            return "X"
        return self._dummy(element) if basic == "D" else self._empty(dataset, element)

    def _shift(self, dataset: Dataset, element: DataElement) -> str:
        moved = [shift_value(str(v), self.days) for v in _values(element)]
        if not moved or any(m is None for m in moved):
            return self._remove_or_dummy(dataset, element)
        element.value = moved if len(moved) > 1 else moved[0]
        return "C"

    def _time(self, dataset: Dataset, element: DataElement) -> str:
        if all(re.fullmatch(r"[\d.:+-]{0,16}", str(v)) for v in _values(element)):
            return "K"
        return self._remove_or_dummy(dataset, element)

    def _keep(self, dataset: Dataset, element: DataElement) -> str:
        """Keep: values that an option retains, but ages over 89 and whatever is not of its kind."""
        if not _own_vr(element):
            del dataset[element.tag]
            return "X"
        if element.VR == "AS":
            said = str(element.value or "")
            if re.fullmatch(r"\d{3}[DWMY]", said) is None:
                return self._empty(dataset, element)
            if said[3] == "Y" and int(said[:3]) > 89:
                element.value = "090Y"
            return "K"
        if element.VR in ("DS", "IS", "CS") and not _proper(element):
            return self._empty(dataset, element)
        row = row_of(int(element.tag))
        if element.VR in _TEXT and row is not None and not {"device", "institution"} & row.options.keys():
            said = self._scrubbed(str(element.value or ""))  # ethnic group, occupation: words, no numbers
            element.value = "" if re.search(r"\d|\[", said) else said
        return "K"

    def _unlisted(self, dataset: Dataset, element: DataElement) -> str:
        """What the table does not name."""
        vr, keyword = element.VR, element.keyword
        if not keyword:
            del dataset[element.tag]
            return "X"
        if vr == "UI":
            return self._uids(element)
        if vr in ("DA", "DT") and self.options.modified_dates and not self.options.full_dates:
            return self._shift(dataset, element)
        if vr == "TM" and (self.options.modified_dates or self.options.full_dates):
            return self._time(dataset, element)
        if vr in _TEXT:
            return self._unlisted_text(dataset, element)
        if vr in _NUMERIC or keyword in BINARY or (vr in ("DS", "IS", "CS", "AS") and _proper(element)):
            return "K"
        del dataset[element.tag]
        return "X"

    def _unlisted_text(self, dataset: Dataset, element: DataElement) -> str:
        if element.keyword in VERBATIM:
            return "K"
        if element.keyword == "TextValue" and self.options.structured:
            element.value = self._scrubbed(str(element.value or ""))
            return "C"
        if element.keyword == "CodeMeaning" and str(dataset.get("CodingSchemeDesignator", "")) in SCHEMES:
            element.value = self._scrubbed(str(element.value or ""))
            return "C"
        values = [protocol_words(str(v)) for v in _values(element)]
        if not any(values):
            if element.keyword == "CodeMeaning":
                element.value = "unknown"
                return "D"
            del dataset[element.tag]
            return "X"
        element.value = values if len(values) > 1 else values[0]
        return "C"

    def _scrubbed(self, text: str) -> str:
        return scrub(text, days=self.days, uid=self.key.uid, known=self.known).text

    def finish(self, dataset: Dataset, finding: Finding) -> None:
        """State what was done (PS3.15 E.1.1): methods, identity removed, dates modified."""
        from pydicom.dataset import Dataset
        from pydicom.sequence import Sequence

        codes = []
        names = [n for n in ("basic", *self.options.on()) if n != "pixels"]
        if finding.checked and (self.options.pixels or finding.boxes):
            names.append("pixels")
        for name in names:
            code = Dataset()
            code.CodeValue, code.CodeMeaning = METHODS[name]
            code.CodingSchemeDesignator = "DCM"
            codes.append(code)
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = [f"fabrica PS3.15 {EDITION}"]
        dataset.DeidentificationMethodCodeSequence = Sequence(codes)
        kept = "UNMODIFIED" if self.options.full_dates else "MODIFIED" if self.options.modified_dates else "REMOVED"
        dataset.LongitudinalTemporalInformationModified = kept
        if finding.checked:
            dataset.BurnedInAnnotation = "NO"


def _values(element: DataElement) -> list[Any]:
    value = element.value
    if value is None or value == "":
        return []
    return list(value) if type(value).__name__ == "MultiValue" or isinstance(value, (list, tuple)) else [value]


def _own_vr(element: DataElement) -> bool:
    """Whether a value has the representation that the dictionary gives its attribute: a name is no sequence."""
    from pydicom.datadict import dictionary_VR

    try:
        return element.VR in dictionary_VR(element.tag).split(" or ")
    except KeyError:  # newer than the dictionary
        return element.VR in ("DA", "DT", "TM", "UI", "CS", "US", "DS", "IS")


def _proper(element: DataElement) -> bool:
    """Whether a string of a coded or numeric kind is one: no name fits into a number."""
    pattern = {"CS": r"[A-Z0-9_ ]{0,16}", "AS": r"\d{3}[DWMY]"}.get(element.VR, r"[0-9+\-.eE ]{0,16}")
    return all(re.fullmatch(pattern, str(v)) is not None for v in _values(element))


def shift_value(value: str, days: int) -> str | None:
    """A DA or DT value moved by whole days, time and zone as they were; None where it is no date.

    >>> shift_value("20200301", -1), shift_value("2020.03.01", -1), shift_value("20200301101500.25+0100", -1)
    ('20200229', '20200229', '20200229101500.25+0100')
    >>> shift_value("2020", -400), shift_value("DOE", 1)
    ('2019', None)
    """
    m = re.fullmatch(r"(\d{4})(?:[.-]?(\d{2})(?:[.-]?(\d{2})(\d{0,6}(?:\.\d{1,6})?(?:[+-]\d{4})?)?)?)?", value.strip())
    if m is None:
        return None
    try:
        day = dt.date(int(m[1]), int(m[2] or 6), int(m[3] or 15))
    except ValueError:
        return None
    moved = shifted(day, days)
    if moved is None:
        return None
    text = f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"
    return text[: 8 if m[3] else 6 if m[2] else 4] + (m[4] or "")
