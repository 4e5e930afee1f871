"""The table of PS3.15 Annex E against the standard's counts and rows, and what is not in it."""

from collections import Counter

import pytest
from pydicom._dicom_dict import DicomDictionary

from fabrica.curate.deid.dicom_table import ACTIONS, METHODS, Options, content_table, row_of, rows, table
from fabrica.curate.deid.dicom_words import VERBATIM, protocol_words, words


def test_the_table_has_the_rows_of_its_edition() -> None:
    """Counts of Table E.1-1 and E.3.4-1, edition 2026d."""
    assert len(rows()) == 657
    assert len(table()) == 653  # without private attributes, curves, overlay data and comments
    assert Counter(r.basic for r in rows()) == {
        "X": 417, "D": 93, "U": 55, "Z": 42, "X/D": 23, "X/Z": 11, "X/Z/D": 8, "Z/D": 6, "X/Z/U*": 2,
    }  # fmt: skip
    assert len(content_table()) == 205  # of 214 rows: nine concepts stand twice, for two value types
    assert {a for r in rows() for a in r.options.values()} <= set(ACTIONS)
    assert {o for r in rows() for o in r.options} <= {*METHODS, "graphics", "safe_private"}


BASIC = Options(modified_dates=False, descriptors=False, structured=False, patient=False)
GOLDEN = [  # tag, name, basic, action of the basic profile, option, action with it
    (0x00100010, "Patient's Name", "Z", "Z", "", ""),
    (0x00100020, "Patient ID", "Z/D", "D", "", ""),
    (0x00100030, "Patient's Birth Date", "Z", "Z", "modified_dates", "Z"),
    (0x00100040, "Patient's Sex", "Z", "Z", "patient", "K"),
    (0x00101010, "Patient's Age", "X", "X", "patient", "K"),
    (0x00080020, "Study Date", "Z", "Z", "modified_dates", "C"),
    (0x00080022, "Acquisition Date", "X/Z", "Z", "full_dates", "K"),
    (0x00080050, "Accession Number", "Z", "Z", "", ""),
    (0x00080080, "Institution Name", "X/Z/D", "D", "institution", "K"),
    (0x00080090, "Referring Physician's Name", "Z", "Z", "", ""),
    (0x0008103E, "Series Description", "X", "X", "descriptors", "C"),
    (0x00181000, "Device Serial Number", "X/Z/D", "D", "device", "K"),
    (0x0020000D, "Study Instance UID", "U", "U", "uids", "K"),
    (0x00081140, "Referenced Image Sequence", "X/Z/U*", "U", "uids", "K"),
    (0x0040A730, "Content Sequence", "D", "D", "structured", "C"),
    (0x00420011, "Encapsulated Document", "D", "D", "", ""),
    (0xFFFAFFFA, "Digital Signatures Sequence", "X", "X", "", ""),
]


@pytest.mark.parametrize(("tag", "name", "basic", "action", "option", "changed"), GOLDEN, ids=lambda v: str(v))
def test_golden_rows(tag: int, name: str, basic: str, action: str, option: str, changed: str) -> None:
    row = table()[tag]
    assert (row.name, row.basic) == (name, basic)
    assert row.action(BASIC) == action
    if option:
        on = {**dict.fromkeys(("modified_dates", "descriptors", "structured", "patient"), False), option: True}
        assert row.action(Options(**on)) == changed


def test_private_curve_and_overlay_groups_are_governed() -> None:
    assert row_of(0x00091001).tag == row_of(0x7FE11010).tag == "PRIVATE"
    assert row_of(0x50020010).tag == "50XXXXXX"
    assert row_of(0x60163000).tag == "60XX3000"
    assert row_of(0x60020010) is None  # its walk removes the whole group


def test_names_dates_and_uids_outside_the_table_are_few_and_known() -> None:
    """What the standard leaves out of the table and `dicom_walk` treats as if it stood there."""
    outside: dict[str, set[str]] = {}
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if vr in ("PN", "DA", "DT", "TM") and row_of(tag) is None:
            outside.setdefault(vr, set()).add(keyword)
    assert outside["PN"] == {"SecondaryReviewerName", "EvaluatorName", "DocumentAuthorTrial"}
    assert len(outside["DA"]) < 10
    assert not any(keyword in VERBATIM for found in outside.values() for keyword in found)


def test_descriptions_keep_words_of_the_closed_list_alone() -> None:
    assert protocol_words("CT CHEST W/O CONTRAST^DOE JANE 5mm 12.03.1941 MRN 4471932 (555) 123-4567") == (
        "CT CHEST W/O CONTRAST 5mm"
    )
    assert protocol_words("t2_tse_sag 3.0 s320") == "t2 tse sag 3.0"
    assert not {"smith", "john", "maria", "frank", "müller"} & words()
