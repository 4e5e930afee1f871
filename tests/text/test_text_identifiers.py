"""Free-text identifiers: what is found, what stays, dates moved in their layout, time that grows with length alone."""

import datetime as dt
import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.text.identifier_dates import shift_date
from fabrica.text.identifiers import KINDS, Known, find, scrub


def kinds(text: str) -> list[tuple[str, str]]:
    return [(text[s.start : s.end], s.kind) for s in find(text)]


@pytest.mark.parametrize(
    ("text", "found", "kind"),
    [
        ("Seen by Dr. Okonkwo today.", "Okonkwo", "name"),
        ("Dr. med. Günther Weißbrod berichtet", "Günther Weißbrod", "name"),
        ("signed by: john smith, MD", "john smith", "name"),
        ("DOE^JANE^Q was scanned", "DOE^JANE^Q", "name"),
        ("SMITH, JOHN A was scanned", "SMITH, JOHN A", "name"),
        ("Łukasz Żyrek was discharged", "Łukasz Żyrek", "name"),
        ("her husband Zdravko agrees", "Zdravko", "name"),
        ("Attending: White\nResident: Young", "White", "name"),
        ("Mr. Parkinson feels better", "Parkinson", "name"),
        ("cc: Dr. van der Meulen", "van der Meulen", "name"),
        ("T. Ravensworth, RN, was told", "T. Ravensworth", "name"),
        ("on 03/04/2021 at noon", "03/04/2021", "date"),
        ("am 3.4.2021 aufgenommen", "3.4.2021", "date"),
        ("am 12. März 2020", "12. März 2020", "date"),
        ("on the 2nd of March, 2021", "2nd of March, 2021", "date"),
        ("July thirty first, 2008", "July thirty first, 2008", "date"),
        ("since 2021-03-04T10:11", "2021-03-04", "date"),
        ("admitted 3/14 with pain", "3/14", "date"),
        ("in March 2019 she", "March 2019", "date"),
        ("call (617) 555-0143 x12", "(617) 555-0143 x12", "phone"),
        ("Tel. 030/1234567", "030/1234567", "phone"),
        ("ring +49 171 2345678 now", "+49 171 2345678", "phone"),
        ("mail j.doe+x@clinic.org now", "j.doe+x@clinic.org", "email"),
        ("see https://portal.example/p/12 now", "https://portal.example/p/12", "url"),
        ("from 10.2.33.4 today", "10.2.33.4", "ip"),
        ("MRN: 4471932 seen", "4471932", "id"),
        ("SSN 123-45-6789", "123-45-6789", "id"),
        ("Versichertennummer A123456789", "A123456789", "id"),
        ("pump S/N XK-2231-A checked", "XK-2231-A", "id"),
        ("UID 1.2.840.113619.2.55.3.604688119", "1.2.840.113619.2.55.3.604688119", "uid"),
        ("a 93-year-old man", "93", "age"),
        ("a ninety-two-year-old man", "ninety-two", "age"),
        ("at 12 Oak Street, Apt 4", "12 Oak Street, Apt 4", "address"),
        ("wohnt Hauptstraße 5a", "Hauptstraße 5a", "address"),
        ("lives in Wexborough alone", "Wexborough", "place"),
        ("from St. Brannock's Hospital", "St. Brannock's Hospital", "institution"),
        # one word alone, no title and no cue beside it
        ("The images went to Umpleby for a second look", "Umpleby", "name"),
        ("He told Tagaloa about a Virchow node", "Tagaloa", "name"),
        ("Umpleby declined the second dose.", "Umpleby", "name"),
        ("Ottoline, could you ring the ward?", "Ottoline", "name"),
        ("Umpleby and Hebblethwaite were on call", "Umpleby", "name"),
        ("reviewed with Magnolia Umpleby at noon", "Magnolia Umpleby", "name"),
        ("a scan in Wexborough was normal", "Wexborough", "name"),
        ("transfer from Oak Springs to us", "Oak Springs", "place"),
        ("sent to 44863 by courier", "44863", "address"),
        ("Mailing: Wexborough 56617", "Wexborough 56617", "address"),
    ],
)
def test_it_finds(text: str, found: str, kind: str) -> None:
    assert (found, kind) in kinds(text), kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "Parkinson disease, Crohn's disease, Hodgkin lymphoma and a Baker cyst.",
        "Foley catheter, Swan-Ganz catheter, Jackson-Pratt drain in place. Down syndrome.",
        "GCS 15, BP 120/80, HR 72, 5/5 strength, 4/10 pain, 2/6 systolic murmur, LVEF 55-60%.",
        "Nodule of 3.2 x 4.1 cm at T12-L1, L4-5, C5/6; T2-weighted, b-value 1000, series 3 image 42.",
        "Siemens MAGNETOM Skyra, GE Discovery CT750, Philips Ingenia, Toshiba Aquilion ONE.",
        "WBC 11.2, platelets 250,000, HbA1c 6.8%, creatinine 0.9 mg/dL, lisinopril 20 mg BID.",
        "The patient is a 76-year-old woman. Circle of Willis is normal. Steinmann pin removed.",
        "Gleason 3+4, BI-RADS 4, LI-RADS 5, TNM T2N1M0, Child-Pugh class B, Epstein-Barr virus.",
        "PMID 12345678, ICD-10 C50.911, SNOMED 22298006, in 2014, COVID-19, hepatitis C.",
        "Doctor: Good. Patient: I came in for a refill. Oh, so it hurts. Yes, I'll come on Tuesday.",
        "Herz und Lunge altersentsprechend. Kein Erguss. Befund: unauffällig.",
        "Der Erguss links ist kleiner, Pleura und Zwerchfell frei; kein Pneumothorax nach Drainage.",
        "Platelets 45000, WBC 12000, ferritin was 15000, NT-proBNP of 23456; CPT 71046; 12345 patients; about 12000.",
        "A Lisfranc injury, the Ranke complex, Zyloprimex 40 mg, a Xenovue scanner, Canon Aquilion Prime.",
        "Pseudomonas and Klebsiella grew in a traveller from Norway and North Carolina.",
        "MEDIASTINUM AND HEART ARE NORMAL. NO ACUTE CARDIOPULMONARY PROCESS.",
    ],
)
def test_clinical_language_stays(text: str) -> None:
    assert kinds(text) == []


def test_every_tag_is_of_a_known_kind_and_dates_move_together() -> None:
    text = "Mr. Jan Kowalski, MRN 4471932, seen 03/02/2021 and 2 March 2021, 93 years old."
    out = scrub(text, days=-31)
    assert out.text == "Mr. [NAME], MRN [ID], seen 01/30/2021 and 30 January 2021, 90+ years old."
    assert set(out.counts) <= set(KINDS)
    assert out.counts == {"name": 1, "id": 1, "date": 2, "age": 1}
    assert scrub("seen 03/02/2021").text == "seen [DATE]"


LAYOUTS = ("%Y-%m-%d", "%m/%d/%Y", "%d %B %Y", "%B %d, %Y", "%d-%b-%Y", "%Y%m%d", "%Y/%m/%d", "%d.%m.%Y")


@given(
    st.dates(dt.date(1950, 1, 1), dt.date(2080, 1, 1)), st.integers(-4000, 4000), st.sampled_from(LAYOUTS)
)  # fmt: skip
def test_a_moved_date_is_the_date_moved(day: dt.date, days: int, layout: str) -> None:
    assert shift_date(day.strftime(layout), days) == (day + dt.timedelta(days=days)).strftime(layout)


@given(st.dates(dt.date(2000, 1, 1), dt.date(2030, 1, 1)), st.integers(0, 900), st.integers(-4000, -365))
def test_intervals_between_dates_stay(day: dt.date, gap: int, days: int) -> None:
    later = day + dt.timedelta(days=gap)
    out = scrub(f"admitted {day.isoformat()}, discharged {later.isoformat()}.", days=days).text
    first, second = (dt.date.fromisoformat(w.strip(",.")) for w in out.split() if w[0].isdigit())
    assert (second - first).days == gap
    assert first != day


@given(st.text(max_size=300), st.integers(-4000, -1))
@settings(max_examples=200)
def test_any_text_is_scrubbed_and_its_spans_are_in_order(text: str, days: int) -> None:
    spans = find(text)
    assert all(0 <= s.start < s.end <= len(text) for s in spans)
    assert all(a.end <= b.start for a, b in itertools.pairwise(spans))
    out = scrub(text, days=days)
    rebuilt, at = "", 0
    for start, end, new in out.edits:
        rebuilt += text[at:start] + new
        at = end
    assert out.text == rebuilt + text[at:]


@given(st.lists(st.sampled_from(["clear lungs", "Dr. Okonkwo", "MRN 4471932", "02.03.2021"]), max_size=8))
def test_offsets_follow_the_words_that_stay(parts: list[str]) -> None:
    text = "; ".join([*parts, "effusion"])
    out = scrub(text, days=-40)
    at = out.moved(text.index("effusion"))
    assert out.text[at:] == "effusion"


def test_known_names_go_in_any_case_and_order_and_words_of_prose_stay() -> None:
    known = Known(["Nowicka^Zofia", "Long^June", "A-77231"])
    text = "nowicka came; ZOFIA agreed; June Long (A-77231) in June, as long as needed."
    assert scrub(text, known=known).text == "[NAME] came; [NAME] agreed; [NAME] ([ID]) in June, as long as needed."


@pytest.mark.parametrize(
    "unit", ["1 ", "1-", "1.", "A", "Ab ", "Ab. ", "a@", "name: ", "ab:", " ", "+49 1 ", "A^", "Ab, ", "_"]
)
def test_time_grows_with_length_alone(unit: str) -> None:
    """No pattern backtracks: 50,000 characters of the worst kind take well under the seconds that a square would."""
    begun = time.process_time()
    find(unit * (50_000 // len(unit)))
    assert time.process_time() - begun < 5.0
