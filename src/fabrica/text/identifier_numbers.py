"""Numbers and addresses that identify: telephones, records, networks, UIDs, ages over 89, places, institutions."""

from __future__ import annotations

import re

from fabrica.text.identifier_words import (
    CAPITALS,
    EPONYMS,
    PLACES,
    STATE_NAMES,
    STATES,
    STREETS,
    STREETS_DE,
    vocabulary,
)

Found = tuple[int, int, str]

_UNIT = r"(?!\w*[ ]?(?:mg|mcg|µg|g|kg|ml|mL|cc|mm|cm|m|Hz|units?|IU|mmHg|bpm|cells|x10|%|/[µu]?[LlHh]|per)(?!\w))"
_UP = f"[{CAPITALS}]"
_CAP = rf"{_UP}[\w'’.-]*"
_AT: tuple[tuple[str, re.Pattern[str]], ...] = (  # all that hold an @, a :// or www.
    ("email", re.compile(r"(?<![\w.+-])[\w.+-]+[ ]?(?:@|\(at\)|\[at\])[ ]?[\w-]+(?:\.[\w-]+)+")),
    ("url", re.compile(r"(?<!\w)(?:https?://|ftp://|www\.)[^\s<>\"')\]]*[^\s<>\"')\].,;:]")),
)
_NET: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("uid", re.compile(r"(?<![\d.])[0-2](?:\.(?:0|[1-9]\d*)){5,}(?![\d.]*\d)")),
    ("ip", re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|"
        r"[1-9]?\d)(?![\d.]*\d)")),
    ("ip", re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){4,7}[0-9A-Fa-f]{1,4}(?![\w:])|"
        r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){2,6}:[0-9A-Fa-f]{1,4}(?![\w:])")),
    ("ip", re.compile(r"(?<![\w:-])(?:[0-9A-Fa-f]{2}([:-]))(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:-])")),
    ("id", re.compile(r"(?<![\w-])[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}(?![\w-])")),
)  # fmt: skip
_PHONE = re.compile(
    r"(?<![\w./+-])(?<!\d,)(?:"
    r"(?:\+|00)\d{1,3}[ ./-]?(?:\(0?\)[ ]?)?(?:\(?\d{1,5}\)?[ ./-]?)(?:\d{2,8}[ ./-]?){1,4}\d"  # +49 30 1234567
    r"|(?:1[ .-])?\(\d{3}\)[ .-]?\d{3}[ .-]?\d{4}"  # (617) 555-0143
    r"|(?:1[ .-])?\d{3}[-.]\d{3}[-.]\d{4}|\d{3}[ ]\d{3}[ -]\d{4}"  # 617-555-0143
    r"|\(0\d{1,4}\)[ ]?\d[\d /-]{4,11}\d"  # (030) 123456
    r"|0\d{1,4}[ ]?[/-][ ]?\d(?:[ -]?\d){4,9}"  # 030/1234567, 0171-1234567
    r"|0\d{2,4}(?:[ ]\d{2,4}){2,4}"  # 0171 123 45 67
    r"|[2-9]\d{2}-\d{4}"  # 555-0143
    rf")(?![\d-]){_UNIT}(?:[ ]?(?:x|ext\.?|extension|Durchwahl|-)[ .:]*\d{{1,6}})?"
)
_CALL = re.compile(
    r"(?<!\w)(?:tel(?:efon|ephone)?|phone|ph|fax|mobile|mobil|cell|pager|beeper|ext(?:ension)?|handy|fon|"
    r"call(?:ed| back)?|"
    r"voicemail|telefax|callback|contact|hotline|rückruf|durchwahl)\.?(?:[ ](?:number|no\.?|nr\.?|#|at|is|us at|"
    r"unter))?"
    r"[ \t:.#]{1,4}(?P<v>[+(]?\d[\d ()./-]{2,18}\d)(?![\d%])" + _UNIT,
    re.IGNORECASE,
)
_LABEL = (
    r"mrn?|med(?:ical)?\.?[ ]?rec(?:ord)?s?|patient(?:en)?|pat|pt|hospital|chart|record|account|acct|accession|acc|"
    r"encounter|visit|csn|fin|order|specimen|requisition|case|fall|policy|member(?:ship)?|subscriber|insurance|insured|"
    r"group|beneficiary|medicare|medicaid|hicn?|mbi|claim|authorization|license|licence|certificate|cert|npi|dea|upin|"
    r"serial|ser|s/n|sn|device|unit|asset|pump|implant|lot|udi|ssn|social[ ]security|passport|driver'?s?[ ]licen[cs]e|"
    r"dl|plate|license[ ]plate|vin|vehicle|employee|badge|student|room[ ]key|user|login|username|"
    r"exam(?:ination)?|study|"
    r"report|job|dictation|document|doc|confirmation|invoice|bill|reference|ref|tracking|trial|subject|participant|"
    r"screening|randomi[sz]ation|bank|iban|card|versicherten|versicherungs|kranken(?:kassen)?|aufnahme|auftrags|befund|"
    r"geräte|serien|konto|personal|ausweis|kennzeichen|steuer|kvnr|station|identifier|identification|fellow|tax"
)
_CUED = re.compile(
    rf"(?<!\w)(?:(?:{_LABEL})(?:[ ](?:record|security|policy|plan|member|account|serial|control|reference))?"
    r"(?:[ -]?(?:numbers?|no\.?|nr\.?|num\.?|nummer|id(?:entifier)?|code|key|#))?[ ]?|id[ ]?|i\.d\.[ ]?|#)"
    r"(?:[:#=.]|is|was|\(|[ ])[ ]{0,2}#?(?P<v>(?=[\w/.-]*\d)[A-Za-z0-9](?:[\w/.-]*\w)?(?:[ ]\d{2,}(?![\w.,]|"
    r"[ ]?[a-z])){0,5})",
    re.IGNORECASE,
)
_BARE: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("id", re.compile(r"(?<![\w.-])\d{3}-\d{2}-\d{4}(?![\w-])")),  # SSN
    ("id", re.compile(r"(?<![\w.,])\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}(?![\w-])")),  # cards
    ("id", re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){3,7}(?:[ ]?[A-Z0-9]{1,3})?(?!\w)")),  # IBAN
    ("id", re.compile(rf"(?<![\w.,/$€+-])\d{{6,}}(?![\w]|[.,]\d|-\d){_UNIT}")),
    ("id", re.compile(r"(?<![\w.,])\d{2,4}-\d{2,6}-\d{2,6}(?:-\d+)?(?![\w-])")),
    ("id", re.compile(r"(?<![\w.-])[A-Z]{1,5}[-/]?\d{5,}(?:[-/.]?[A-Z0-9]+)*(?!\w)")),
    ("id", re.compile(r"(?<![\w.-])[A-Z]{1,4}\d{0,2}[-/]\d{2,4}[-/]\d{2,}(?!\w)|"
        r"(?<![\w.-])[A-Z]{1,3}\d{2}-\d{3,}(?!\w)")),
    ("id", re.compile(r"(?<![\w-])(?=[A-Z0-9]*[A-Z])(?=(?:[A-Z0-9]*\d){5})[A-Z0-9]{8,24}(?![\w-])")),
    ("id", re.compile(r"(?<![\w-])(?!\d{4}-\d\d-\d\dT)[A-Z0-9]{2,6}-[A-Z0-9]*\d"
                      r"[A-Z0-9]*-[A-Z0-9]{3,}(?:-[A-Z0-9]+)*(?![\w-])")),
)  # fmt: skip
_CODES = re.compile(  # numbers of public code systems and literature
    r"(?:snomed|icd|cpt|loinc|ndc|rxnorm|rxcui|pmid|pmc|doi|nct|mesh|umls|cui|fma|atc|hcpcs|drg|isbn|issn|hgvs|omim)["
    r" \w()-]{0,12}[:#]?[ ]?$",
    re.IGNORECASE,
)
_NOT_ID = re.compile(  # what stands behind a label and is none: "case 3", "order 2 units", "exam 02/03", "T2-weighted"
    r"^(?:\d{1,3}(?:st|nd|rd|th)?|\d+(?:\.\d+)?(?:mm|cm|mg|ml|kg|cc|yo|year|years|day|days|week|weeks|month|"
    r"months|fr|h|x)\w*|"
    r"(?:19|20)\d{2}|\d{1,3}[/-]\d{1,3}|\d+\.\d+|[TLCS]\d{1,2}(?:[-/][TLCS]?\d{1,2})?|[IVX]+|[A-Za-z]\d{1,2}|"
    r"v\.?\d[\d.]*|\d{1,3}-[a-z]+(?:-[a-z]+)*|[a-z]+-?\d{1,2}|covid-\d+|t[12]-\w+|\d{1,2}:\d{2}(?:am|pm)?)$",
    re.IGNORECASE,
)
_STRONG = re.compile(r"#|no\b|nr\b|num|id\b|mrn|s/n|sn\b|acc|serial|npi|dea|ssn|[:=]|number|code", re.IGNORECASE)
_AGE = re.compile(
    r"(?<![\w./-])(?P<v>(?:9\d|1[0-2]\d))(?=[ -]?(?:years?|yrs?|y/?\.?o\.?|y\.o|-?jähr|Jahren?[ ]alt|J\.|"
    r"y[ ](?:m|f)|[MF]\b))"
    r"|(?<!\w)(?:age|aged|alter|AGE)[ :]{1,3}(?:of[ ])?(?P<w>9\d|1[0-2]\d)(?![\d%./])"
    r"|turned[ ](?P<y>9\d)(?!\d)",
    re.IGNORECASE,
)
_OLD = re.compile(
    r"(?<!\w)(?:[Nn]inety(?:[ -](?:one|two|three|four|five|six|seven|eight|nine))?|[Oo]ne hundred(?: and)?(?: \w+)?)"
    r"(?=[- ]years?[- ](?:old|of))"
)
_NEAR = re.compile(r"\d+(?:[^\d]{1,100}\d+)*")


def windows(text: str) -> list[tuple[int, int]]:
    """Parts of the text that lie near digits, cut at white space: what patterns with digits need to look at.

    >>> windows("no digit " * 20), windows("MRN 12")
    ([], [(0, 6)])
    """
    out: list[tuple[int, int]] = []
    for m in _NEAR.finditer(text):
        start, end = max(0, m.start() - 72), min(len(text), m.end() + 72)
        while end < len(text) and not text[end].isspace():
            end += 1
        if out and start <= out[-1][1]:
            start = out.pop()[0]
        out.append((start, end))
    return out


def numbers(text: str, near: list[tuple[int, int]]) -> list[Found]:
    """(start, end, kind) of what is written in digits (looked for in `near`, see `windows`) or as a net address."""
    out: list[Found] = []
    if "@" in text or "://" in text or "www." in text or "(at)" in text or "[at]" in text:
        for kind, pattern in _AT:
            out += [(m.start(), m.end(), kind) for m in pattern.finditer(text)]
    for a, b in near:
        for kind, pattern in _NET:
            out += [(m.start(), m.end(), kind) for m in pattern.finditer(text, a, b)]
        out += [(m.start(), m.end(), "phone") for m in _PHONE.finditer(text, a, b)]
        out += [(m.start("v"), m.end("v"), "phone") for m in _CALL.finditer(text, a, b) if _digits(m["v"]) >= 4]
        out += [(m.start("v"), m.end("v"), "id") for m in _CUED.finditer(text, a, b) if _is_id(m)]
        for kind, pattern in _BARE:
            out += [(m.start(), m.end(), kind) for m in pattern.finditer(text, a, b) if not _coded(text, m.start())]
        out += [(m.start(g), m.end(g), "age") for m in _AGE.finditer(text, a, b) for g in ("v", "w", "y") if m[g]]
    return out + [(m.start(), m.end(), "age") for m in _OLD.finditer(text)]


def _digits(text: str) -> int:
    return sum(c.isdigit() for c in text)


def _is_id(m: re.Match[str]) -> bool:
    said = m["v"]
    if _NOT_ID.match(said):
        return False
    label = m[0][: m.start("v") - m.start()]
    enough = 3 if _STRONG.search(label) else 5
    return _digits(said) >= 2 and len(said) >= enough and not _coded(m.string, m.start("v"))


def _coded(text: str, at: int) -> bool:
    return _CODES.search(text, max(0, at - 28), at) is not None


# ---------------------------------------------------------------- places

_ADDRESS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "address",  # whatever the street is called, where a city, a state and a ZIP code follow
        re.compile(
            rf"(?<![\w./])\d{{1,6}}[ ](?:{_CAP}[ ]?){{1,4}}(?:(?:Apt|Suite|Ste|Unit)\.?[ ]?#?\w+)?,?[ ]"
            rf"(?:{_CAP}[ ]?){{1,3}},[ ](?:{STATES}|{STATE_NAMES})[ ]+\d{{5}}(?:-\d{{4}})?"
        ),
    ),
    ("address", re.compile(r"(?<!\w)(?:PSC|CMR|Unit|USN[SV]|USS)[ ][\w ]{1,20},?[ ](?:Box[ ]\d+,?[ ])?(?:APO|"
        r"FPO|DPO)[ ]A[EPA][ ]\d{5}")),
    (
        "address",
        re.compile(
            rf"(?<![\w./])\d{{1,6}}[A-Za-z]?(?:-\d+)?[ ](?:[NSEW][EW]?\.?[ ]|(?:North|South|East|West)[ ])?"
            rf"(?:(?:{_CAP}|\d{{1,3}}(?:st|nd|rd|th))[ ]){{1,3}}(?:{STREETS}|{STREETS.upper()})\b\.?"
            r"(?:,?[ ](?:Apt|Apartment|Suite|Ste|Unit|Floor|Fl|#)\.?[ ]?#?[\w-]+)?"
        ),
    ),
    ("address", re.compile(r"(?<!\w)(?:P\.?[ ]?O\.?[ ]Box|Postfach|Postbox)[ ]#?\d[\d ]*", re.IGNORECASE)),
    ("address", re.compile(r"(?<!\w)(?:Apt|Apartment|Suite|Ste)\.?[ ]#?\d+[A-Za-z]?(?!\w)")),
    (
        "address",
        re.compile(
            rf"(?<!\w){_UP}[\w.-]*(?:[ -]{_UP}[\w.-]*){{0,3}}?[ -]?(?:{STREETS_DE}|"
                rf"(?:{STREETS_DE.title()}))[ ]\d{{1,4}}[ ]?[a-z]?(?!\w)"
        ),
    ),
    ("address", re.compile(rf"(?<!\w)(?:Am|An der|An den|Im|In der|Unter den|Auf der|Auf dem|Zum|"
        rf"Zur)[ ]{_CAP}[ ]\d{{1,4}}[a-z]?(?![\w.,]|[ ]?(?:mm|cm))")),
    ("address", re.compile(rf"(?<!\w)(?:{STATES}|{STATE_NAMES})[ ]+\d{{5}}(?:-\d{{4}})?(?![\w.])")),
    ("address", re.compile(r"(?<!\w)(?:zip|zip code|postal code|postcode|plz|postleitzahl)(?:[ :]{1,3}|"
        r"[ ]is[ ])[A-Z]?\d[\w-]*(?:[ ]\d[A-Z]{2})?", re.IGNORECASE)),
    ("address", re.compile(r"(?<![\w.])[A-Z]{1,2}\d[A-Z\d]?[ ]\d[A-Z]{2}(?!\w)")),  # UK
)  # fmt: skip
_ZIP = re.compile(r"(?<![\w.,/$€+<>=≤≥~#:-])(?<![<>=≤≥~][ ])\d{5}(?:-\d{4})?(?![\w%]|[.,/]\d|-\d|[ ]?[<>=x×])" + _UNIT)
_BEFORE = re.compile(rf"(?:{_CAP}[ ]){{1,3}}$")
_MEASURED = re.compile(  # before five digits: a count, a level, a dose
    r"(?:wbc|rbc|white (?:blood )?(?:cells?|count)|platelets?|plts?|thrombocytes|leu[ck]ocytes|leukozyten|neutrophils|"
    r"thrombozyten|count|cells|ferritin|bnp|pro-?bnp|ck|cpk|ast|alt|ldh|lipase|amylase|triglycerides|d-?dimer|cea|psa|"
    r"ca ?\d*|afp|b?hcg|troponin|myoglobin|load|copies|titers?|cfu|colon(?:y|ies)|units?|heparin|dose|iu|steps|volume|"
    r"index|level|peak|total|score|participants|patients|persons|people|subjects|records|images|cases|between|range|"
    r"about|approximately|roughly|nearly|almost|over|under|than|least)\b[^.;\n]{0,24}$",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    r"[ ](?:patients|persons|people|subjects|records|images|cases|cells|copies|participants|steps|times|to|bis|-)\b",
    re.IGNORECASE,
)
_TOWN = re.compile(  # of two words, by the first or the last
    rf"(?<!\w)(?:[Ii]n|from|to|near|of|at|via|around|outside|aus|nach|bei)[ ](?P<w>"
    rf"(?:Fort|Saint|San|Santa|Santo|Los|Las|El|Bad|Mount|Port|Cape|Des|Puerto|Palm|Villa|Sankt)[ ]{_CAP}"
    rf"|{_CAP}[ ](?:Falls|Springs|City|Beach|Heights|Valley|Rapids|Grove|Creek|Hills?|Park|Bay|Island|Lakes?|Ridge|"
    rf"Rock|Point|Haven|Village|Bluffs?|Junction|Harbou?r|Mills|Landing|Heath|Wells|Green|Cross))(?!\w)"
)
_CITY = re.compile(
    rf"(?<!\w)(?:{_CAP}[ ]){{0,2}}{_CAP},[ ](?:(?:{STATES})[ ]+\d{{5}}(?:-\d{{4}})?"
    rf"|(?!MD|PA)(?:{STATES})(?![\w/.-])|(?:{STATE_NAMES})(?!\w)(?:[ ]+\d{{5}}(?:-\d{{4}})?)?)"
)
_PLZ = re.compile(rf"(?<![\w.,/-])(?:D-)?\d{{5}}[ ](?P<w>{_UP}[\w-]+(?:[ ](?:am|an der|im|bei)[ ]{_UP}\w+)?)")
_LIVES = re.compile(
    r"(?<!\w)(?i:lives? in|living in|resides? (?:in|at)|resident of|residing in|moved (?:here )?(?:to|from)|"
    r"born in|raised in|"
    r"native of|travell?ed (?:to|from)|relocated (?:to|from)|originally from|hometown of|wohnhaft in|wohnt in|aus|"
    rf"city of|town of|village of|county of|visiting from|transferred from|comes "
    rf"from)[ ](?P<w>{_CAP}(?:[ ]{_CAP}){{0,2}})"
)
_COUNTY = re.compile(rf"(?<!\w)(?P<w>(?:{_CAP}[ ]){{1,2}})(?:County|Township|Borough|Parish)(?!\w)")
_HOUSE = re.compile(rf"{PLACES}|Universit|Klinik|Spital|Praxis|praxis|Charit")
_INSTITUTION = re.compile(
    rf"(?<!\w)(?P<w>(?:(?:{_CAP}|of|and|the|&|de)[ ]){{0,5}}{_CAP}[ ])(?:{PLACES})(?!\w)(?:[ ](?:of|"
    rf"at)[ ]{_CAP}(?:[ ]{_CAP})?)?"
    rf"|(?<!\w)(?:University|Universität|Klinikum|Universitätsklinikum|Krankenhaus|Klinik|Spital|Hospital|College|"
    rf"Praxis|Charité|Gemeinschaftspraxis)[ ](?:of[ ]|at[ ]|St\.[ ]|Dr\.[ ]|am[ ]|im[ ]|"
    rf"der[ ])?(?P<u>{_CAP}(?:[ -]{_CAP}){{0,2}})"
    rf"|(?<!\w)(?:St\.?|Saint|Mt\.?|Mount|Sankt)[ ](?P<x>{_CAP}(?:'s)?)(?:[ ](?:{PLACES}))"
)


def places(text: str, near: list[tuple[int, int]]) -> list[Found]:
    """(start, end, kind) of addresses, places and institutions."""
    out: list[Found] = []
    for a, b in near:
        for kind, pattern in _ADDRESS:
            out += [(m.start(), m.end(), kind) for m in pattern.finditer(text, a, b)]
        out += [
            (m.start(), m.end(), "address") for m in _PLZ.finditer(text, a, b) if m["w"].lower() not in vocabulary()
        ]
        for m in _ZIP.finditer(text, a, b):
            if _is_zip(text, m):
                before = _BEFORE.search(text, a, m.start())
                said = None if before is None else _unknown(before[0])
                out.append(
                    (m.start() if said is None or before is None else before.start() + said[0], m.end(), "address")
                )
    out += [(m.start("w"), m.start("w") + len(m["w"].rstrip(".,")), "place") for m in _TOWN.finditer(text)]
    if "," in text:
        out += [(m.start(), m.end(), "place") for m in _CITY.finditer(text)]
    for pattern in (_LIVES, _COUNTY):
        for m in pattern.finditer(text):
            said = _unknown(m["w"])
            if said:
                out.append((m.start("w") + said[0], m.start("w") + said[1], "place"))
    for m in _INSTITUTION.finditer(text) if _HOUSE.search(text) else ():
        group = next(g for g in ("w", "u", "x") if m[g] is not None)
        said = _unknown(m[group])
        if said:
            end = m.end() if group != "u" else m.start("u") + said[1]
            out.append((m.start(group) + said[0] if group != "x" else m.start(), end, "institution"))
    return out


def _town_before(text: str, low: int, at: int) -> int:
    """Where the capitalised words before a ZIP code begin, from the first that no clinical text writes small."""
    before = _BEFORE.search(text, low, at)
    said = None if before is None else _unknown(before[0])
    return at if said is None or before is None else before.start() + said[0]


def _is_zip(text: str, m: re.Match[str]) -> bool:
    """Whether five digits alone are a ZIP code: no code of a public system, no count and no laboratory value."""
    return not (
        _coded(text, m.start())
        or _MEASURED.search(text, max(0, m.start() - 48), m.start())
        or _COUNTED.match(text, m.end())
    )


def _unknown(words: str) -> tuple[int, int] | None:
    """The part of capitalised words from the first to the last that no clinical text writes small; None of none."""
    found = [
        (m.start(), m.end())
        for m in re.finditer(r"[^\s]+", words)
        if m[0][0].isupper() and m[0].strip(".,'").removesuffix("'s").lower() not in vocabulary() | EPONYMS
        and not (m[0].isupper() and len(m[0]) < 5)
    ]  # fmt: skip
    return (found[0][0], found[-1][1]) if found else None
