"""Identifiers to plant and notes to plant them in, all invented: what the residual audit looks for afterwards.

Nothing here is shared with the detector: names are rare ones or made of syllables (a test holds that none is in its
lists), the notes' wording is of its own, numbers and dates come in layouts drawn at random.
"""

from __future__ import annotations

import datetime as dt
import random
import string
from dataclasses import dataclass, field

_GIVEN_RARE = (
    "Ottoline Thaddeus Zenobia Cosima Leopoldine Alasdair Fionnuala Saoirse Caoimhe Eluned Rhydian Gethin "
    "Ysolde Percival "
    "Ignatius Balthasar Melchior Walburga Kunigunde Sieglinde Ottmar Eckhart Volkhard Volkmar Traudel Anselm Ruprecht "
    "Ludmila Bohumil Vlasta Zdenek Miloslav Dobromir Yevgenia Anatoly Zinaida Gulnara Timur Aigerim Nurlan Tamerlan "
    "Parvati Chandrika Yashodhara Balakrishnan Venkatesh Subramanian Anbarasan Thenmozhi Lakshitha Dinusha Tharindu "
    "Nomvula Sibusiso Thandeka Lwazi Zanele Adaeze Obinna Chukwuemeka Folasade Temitope Yetunde Abioye Wanjiru "
    "Kipchoge "
    "Xiomara Itzel Cuauhtemoc Ximena Tonatiuh Yaretzi Eulalia Primitivo Heliodoro Consuelo Leocadia Aurelio Evaristo "
    "Eystein Gunnhild Ragnhild Torbjorg Aslaug Hallvard Solveig Ingrida Vytautas Jurgita Mindaugas Eglantine "
    "Aurele Perrine "
    "Thibault Maelys Corentin Enzo Loredana Ermenegildo Fiorenza Ginevra Calogero Hideyoshi Chiyoko Masaharu Shigeru "
    "Hyunwoo Eunbyul Dongmin Thuyvi Quynhanh Bao-Linh Siriporn Wichai Putri Bambang Makoa Leilani Tavita Sefina"
)
_FAMILY_RARE = (
    "Featherstonehaugh Cholmondeley Ravensworth Thistlewood Quartermaine Umpleby Windebank Ollerenshaw Hebblethwaite "
    "Micklethwait Postlethwaite Ravenscroft Entwistle Oglethorpe Killingbeck Yelverton Papworth Birtwhistle Dunstable "
    "Hinrichsmeyer Kleinschmitt Oberdieck Wiesengrund Dahlmeier Steinhauser Rumpelsberger Zschocke Hundertmark "
    "Lautenschlager "
    "Przybylowski Wojciechowska Krzyzanowski Dobrzycka Szczepanik Brzezinska Vysotskaya Zhuravlev Kuznetsova Rostropov "
    "Tchaikin Bogdanovich Radosavljevic Mihajlovski Hadzibegic Papadimitropoulos Karathanasis Stavrakakis "
    "Theodoropoulou "
    "Bhattacharjee Chattopadhyay Venkataraman Krishnamoorthy Ranganathan Wickramasinghe Jayawardena Gunasekara "
    "Oluwafemi Nwachukwu Onyekachi Ogunbanjo Abubakar-Sule Mthembu Nkosazana Dlamini Mokoena Kariuki Wambugu Otieno "
    "Etcheverry Goikoetxea Zubizarreta Echeverria Villalobos-Quint Ayuntamiento Quetzalcoatl Huitzil Tlapanco "
    "Xicotencatl "
    "Vandenbroucke Verstraeten Hoogendoorn Oosterhuis Kuipersma Dijkgraaf Zuidervaart Bruheim Skjelbred Thorvaldsen "
    "Gudmundsson Arnarsdottir Jokinen Hamalainen Vainikainen Laukkanen Tamburello Sgarbozza Mastroianni Quattrocchi "
    "Fabbricatore Castellanza Delacroix-Mabou Desrosiers Beauchemin Guilbeault Thibodeaux Arseneaux Ishigurota "
    "Yamaguchida "
    "Kurosawamoto Matsudairo Hasegawari Bangchanyok Phongsavanh Nanthavong Siddharthan Tagaloa Kealohapau Nakamatsuo"
)
GIVEN_RARE = tuple(_GIVEN_RARE.split())
FAMILY_RARE = tuple(_FAMILY_RARE.split())
_SYLLABLES = (
    "bra", "ke", "lo", "vin", "dar", "mo", "ste", "qui", "tal", "ro", "bek", "zu", "ran", "del", "fi", "gor", "ha",
    "jel", "kru", "lim", "nor", "pel", "sar", "tov", "ul", "vas", "wen", "yor", "zin", "dro", "mar", "ket", "lan",
    "fel", "hus", "bor", "nik", "rud", "sel",
)  # fmt: skip
_CITIES = (
    "Wexborough Tannersfield Oldenkirch Brackwater Liskeath Norrington Penhallow Drumcastle Vellmar Hohenstetten "
    "Kaltbrunnau Sandhaven Mirefield Eastwickham Thornaby-Vale Quillsby"
)
CITIES = tuple(_CITIES.split())
CLINICAL = tuple(
    """
    Parkinson disease;Crohn's disease;Hodgkin lymphoma;Foley catheter;Swan-Ganz catheter;Down syndrome;Baker cyst;
    Bell's palsy;Graves disease;Addison disease;Babinski sign;Murphy sign;Glasgow coma scale 15;GCS 14;APGAR 8/9;
    Wilms tumor;Ewing sarcoma;Kaposi sarcoma;Paget disease;Raynaud phenomenon;Sjogren syndrome;Kawasaki disease;
    Schatzki ring;Barrett esophagus;Whipple procedure;Nissen fundoplication;Hartmann procedure;Pfannenstiel incision;
    Penrose drain;Jackson-Pratt drain;Hickman catheter;Colles fracture;Smith fracture;Monteggia fracture;
    Salter-Harris type II fracture;Osgood-Schlatter disease;Bosniak II cyst;Gleason 3+4;Lachman test;McMurray test;
    Trendelenburg position;Coombs test;Gram stain;Doppler ultrasound;Hounsfield units;Virchow node;Horner syndrome;
    Guillain-Barre syndrome;Lewy body dementia;Epstein-Barr virus;Lyme disease;Klebsiella pneumoniae;
    Peutz-Jeghers syndrome;Zollinger-Ellison syndrome;Osler nodes;Child-Pugh class B;Valsalva maneuver;
    Siemens MAGNETOM Skyra;GE Discovery CT750;Philips Ingenia 3.0T;Toshiba Aquilion ONE;Canon Aquilion Prime;
    BP 120/80;HR 72 bpm;SpO2 98%;BMI 27.4;5/5 strength;4/10 pain;2/6 systolic murmur;LVEF 55-60%;3.2 x 4.1 cm;
    T12-L1 disc;L4-5;C5/6 foraminal stenosis;T2-weighted;b-value 1000;pH 7.35;WBC 11.2;platelets 250,000;INR 1.1;
    creatinine 0.9 mg/dL;HbA1c 6.8%;SUVmax 4.2;BI-RADS 4;LI-RADS 5;PI-RADS 3;TNM T2N1M0;ASA III;NYHA II;FEV1/FVC 0.68;
    lisinopril 20 mg;metoprolol 25 mg BID;Lovenox 40 mg;Tylenol 500 mg;Lipitor;Plavix;warfarin 5 mg;vancomycin 1 g IV;
    Seldinger technique;Kerley B lines;Hampton hump;Westermark sign;Chiari malformation;Dandy-Walker malformation;
    Hashimoto thyroiditis;Cushing syndrome;Marfan syndrome;Ehlers-Danlos syndrome;Wegener granulomatosis;
    Kussmaul breathing;Cheyne-Stokes respiration;Wolff-Parkinson-White;tetralogy of Fallot;Ebstein anomaly;
    Morgagni hernia;Meckel diverticulum;Zenker diverticulum;Mallory-Weiss tear;Hirschsprung disease;Fallopian tube;
    Eustachian tube;Circle of Willis;Bartholin gland;Ringer lactate;Kirschner wire;Steinmann pin;Kocher incision;
    McBurney point;Rovsing sign;Homans sign;Tinel sign;Phalen test;Romberg test;Weber test;Snellen 20/40;
    grade 2 spondylolisthesis;stage IIIA;type 2 diabetes;vitamin D;hepatitis C;COVID-19;series 3 image 42
    """.replace("\n", "").split(";")
)  # fmt: skip
CLINICAL = tuple(t.strip() for t in CLINICAL if t.strip())


@dataclass(frozen=True, slots=True)
class Plant:
    """One planted identifier: its kind, how it stands in the source, and the words none of which may be left."""

    kind: str
    text: str
    words: tuple[str, ...]


@dataclass(slots=True)
class Person:
    """An invented patient. `shown` is how each identifier was written where."""

    given: str
    family: str
    mrn: str
    birth: dt.date
    plants: list[Plant] = field(default_factory=list)


class Planter:
    """Draws identifiers with one seeded generator.

    >>> Planter(0).person().family == Planter(0).person().family
    True
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"deid-plants-{seed}")

    def syllables(self, low: int = 2, high: int = 3) -> str:
        """A made name."""
        return "".join(self.rng.choice(_SYLLABLES) for _ in range(self.rng.randint(low, high))).capitalize()

    def given(self) -> str:
        """A given name, rare or made."""
        return self.rng.choice(GIVEN_RARE) if self.rng.random() < 0.7 else self.syllables(2, 2)

    def family(self) -> str:
        """A family name, rare or made."""
        return self.rng.choice(FAMILY_RARE) if self.rng.random() < 0.6 else self.syllables(2, 4)

    def digits(self, n: int) -> str:
        """A number of n digits that does not begin with 0."""
        return str(self.rng.randint(1, 9)) + "".join(self.rng.choice(string.digits) for _ in range(n - 1))

    def person(self) -> Person:
        """A patient."""
        birth = dt.date(1930, 1, 1) + dt.timedelta(days=self.rng.randrange(28000))
        return Person(self.given(), self.family(), self.digits(self.rng.randint(7, 9)), birth)

    def name(self, person: Person | None = None) -> Plant:
        """A name in one of several layouts."""
        given = person.given if person else self.given()
        family = person.family if person else self.family()
        text = self.rng.choice(
            (f"{given} {family}", f"{given} {self.rng.choice('ABCDEFGHJKLM')}. {family}", f"{given} {family}")
        )
        return Plant("name", text, (given, family))

    def day(self) -> dt.date:
        """A day of this century."""
        return dt.date(2001, 1, 1) + dt.timedelta(days=self.rng.randrange(8500))

    def date(self, day: dt.date | None = None) -> Plant:
        """A date in one of twelve layouts, English or German."""
        d = day or self.day()
        en = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
              "November", "December")[d.month - 1]  # fmt: skip
        de = ("Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November",
              "Dezember")[d.month - 1]  # fmt: skip
        text = self.rng.choice((
            f"{d:%m/%d/%Y}", f"{d.month}/{d.day}/{d.year}", f"{d:%m/%d/%y}", d.isoformat(), f"{d:%d.%m.%Y}",
            f"{d.day}.{d.month}.{d.year}", f"{en} {d.day}, {d.year}", f"{en[:3]} {d.day}, {d.year}",
            f"{d.day} {en} {d.year}", f"{d.day}. {de} {d.year}", f"{d:%d}-{en[:3]}-{d.year}", f"{d:%Y/%m/%d}",
        ))  # fmt: skip
        return Plant("date", text, (text,))

    def phone(self) -> Plant:
        """A telephone number."""
        a, b, c = self.digits(3), self.digits(3), self.digits(4)
        text = self.rng.choice((
            f"({a}) {b}-{c}", f"{a}-{b}-{c}", f"{a}.{b}.{c}", f"+1 {a} {b} {c}", f"+49 {a} {self.digits(7)}",
            f"0{self.digits(3)}/{self.digits(6)}", f"0{self.digits(3)} {self.digits(7)}", f"{a} {b} {c}",
        ))  # fmt: skip
        return Plant("phone", text, (text,))

    def number(self) -> Plant:
        """A record, account or serial number."""
        text = self.rng.choice((
            self.digits(7), self.digits(8), self.digits(10), f"{self.rng.choice('ABKRXZ')}{self.digits(7)}",
            f"{self.digits(3)}-{self.digits(2)}-{self.digits(4)}",
            f"{self.rng.choice('ACX')}{self.rng.choice('TRM')}-{self.digits(6)}",
        ))  # fmt: skip
        return Plant("id", text, (text,))

    def email(self) -> Plant:
        """An e-mail address."""
        user = f"{self.syllables().lower()}{self.rng.choice(('.', '_', ''))}{self.syllables().lower()}"
        text = f"{user}@{self.syllables().lower()}.{self.rng.choice(('org', 'com', 'de', 'health'))}"
        return Plant("email", text, (user,))

    def url(self) -> Plant:
        """A web or network address."""
        host = self.syllables().lower()
        text = self.rng.choice((
            f"https://portal.{host}.example/p/{self.digits(6)}", f"www.{host}-med.example",
            ".".join(str(self.rng.randint(10, 250)) for _ in range(4)),
        ))  # fmt: skip
        return Plant("url", text, (text,))

    def address(self) -> Plant:
        """A street address."""
        word, city = self.syllables(), self.rng.choice(CITIES)
        number = str(self.rng.randint(2, 9800))
        text = self.rng.choice((
            f"{number} {word} {self.rng.choice(('Street', 'Ave', 'Road', 'Lane', 'Blvd'))}, {city}, "
                f"{self.rng.choice(('OH', 'MA', 'TX', 'IL'))} {self.digits(5)}",
            f"{word}{self.rng.choice(('straße', 'weg', 'allee', 'gasse'))} {self.rng.randint(1, 199)}, "
                f"{self.digits(5)} {city}",
        ))  # fmt: skip
        return Plant("address", text, (word, city) if word in text.split() else (city,))

    def age(self) -> Plant:
        """An age over 89."""
        text = str(self.rng.randint(91, 104))
        return Plant("age", text, (f"{text}-year",))  # the number alone may stand for something else

    def uid(self) -> Plant:
        """A DICOM UID of a private root."""
        root = self.rng.choice(("1.2.826.0.1.3680043", "1.2.840.113619.2", "1.3.12.2.1107.5"))
        text = f"{root}.{self.digits(6)}.{self.digits(9)}.{self.digits(3)}"
        return Plant("uid", text, (text,))

    def clinical(self) -> str:
        """A clinical term that must stay."""
        return self.rng.choice(CLINICAL)


# Slots: {N} name, {P} the patient, {D} date, {T} telephone, {I} number, {E} e-mail, {U} URL, {A} address, {G} age over
# 89, {C} clinical term, {X} UID, {O} city.
SENTENCES = (
    "{P} is a patient known to our service "
        "with {C}.", "Patient: {P}   DOB: {D}   MRN: {I}", "NAME: {P}\nDATE OF EXAM: {D}",
    "Seen in follow-up with Dr. {N} on {D} for {C}.", "I spoke with {N} by phone at {T} about the result.",
    "Dictated by {N}, MD on {D}.", "Electronically signed by: {N} {D} 14:32", "cc: Dr. {N}, fax {T}",
    "Results were called to {N}, RN at 10:15.", "Referring physician: {N}", "Account number {I}, accession {I}.",
    "The patient lives at {A} with family.", "Please email {E} or see {U} for details.", "Home phone {T}, cell {T}.",
    "A {G}-year-old with {C} and {C}.", "Comparison: study of {D}. "
        "Finding: {C}.", "Mrs. {N} denies chest pain; {C} stable.",
    "Since {D} there has been {C}.", "Herr {N}, geb. {D}, wurde am {D} "
        "untersucht.", "Frau {N} stellte sich am {D} vor; {C}.",
    "Überweiser: Dr. {N}, Tel. {T}", "Befund vom {D}: {C}, sonst unauffällig.", "Insurance policy no. {I}; SSN {I}.",
    "Study UID {X} was reviewed.", "Daughter {N} can be reached at {T}.", "Device serial number {I}, {C} noted.",
    "{C} is unchanged. {C} is again seen.", "No evidence of {C} or {C}.", "Attending: {N}. Resident: {N}.",
    "Thank you for referring {P} to us, who "
        "has {C}.", "Transcribed by {N} on {D}, job {I}.", "{P} was admitted on {D} after {C}.",
    "The wife, {N}, reports {C} at home.", "Impression for {P}: {C}; "
        "recommend {C}.", "Patient ID {I} ({P}), room visit {D}.",
    "Comes from {O} for a second opinion on {C}.", "Discussed with {N} and {N} at the conference.",
)  # fmt: skip


def note(planter: Planter, person: Person, sentences: int = 6) -> tuple[str, list[Plant], list[str]]:
    """A free-text note of this patient: the text, what was planted, and the clinical terms that must stay."""
    plants: list[Plant] = []
    terms: list[str] = []
    parts = []
    for template in planter.rng.sample(SENTENCES, sentences):
        out, rest = "", template
        while rest:
            before, brace, after = rest.partition("{")
            out += before
            if not brace:
                break
            if after[0] == "C":
                term = planter.clinical()
                terms.append(term)
                out += term
            else:
                plant = _draw(planter, after[0], person)
                plants.append(plant)
                out += plant.text
            rest = after[2:]
        parts.append(out)
    return planter.rng.choice((" ", "\n")).join(parts), plants, terms


def _draw(planter: Planter, slot: str, person: Person) -> Plant:
    if slot == "P":
        return planter.name(person)
    if slot == "O":
        city = planter.rng.choice(CITIES)
        return Plant("place", city, (city,))
    draw = {
        "N": planter.name, "D": planter.date, "T": planter.phone, "I": planter.number, "E": planter.email,
        "U": planter.url, "A": planter.address, "G": planter.age, "X": planter.uid,
    }  # fmt: skip
    return draw[slot]()  # type: ignore[operator,no-any-return]
