"""Names of people in clinical text: by title, cue, credential, list, and as capitalised words no clinical text has."""

from __future__ import annotations

import functools
import re

from fabrica.text.identifier_words import ACTS, CAPITALS, CUES, EPONYM_NOUNS, EPONYMS, FAMILY, GIVEN, TITLES, vocabulary

Found = tuple[int, int, str]

_UP = CAPITALS
_WORD = rf"[{_UP}][\w'’‘-]*"
_PARTICLE = r"(?:van|von|vom|zu|zur|de|der|den|del|della|di|da|dos|das|la|le|el|al|bin|ibn|ter|ten|st|y|e)"
_RUN = re.compile(rf"(?<![\w@.^-]){_WORD}\.?(?:[ ]{{1,2}}(?:{_PARTICLE}[ ]){{0,2}}{_WORD}\.?)*(?![\w@^])")
_TOKEN = re.compile(r"[^\s,;]+")
_TITLED = re.compile(
    rf"(?<!\w)(?:{TITLES}|dr|mr|mrs|ms|miss|doctor|prof|professor|nurse)(?:\.|(?=[ ]))"
    rf"(?:[ ]?(?:med|dent|rer|nat|phil|habil|h\.c|Dr|Prof|MD|RN)\.?)*(?:[ ]{{1,2}}|(?<=\.))"
    rf"(?P<n>(?:{_PARTICLE}[ ]){{0,2}}[\w][\w'’.-]*(?:(?:[ ]{{1,2}}|"
    rf",[ ])(?:{_PARTICLE}[ ]){{0,2}}[{_UP}][\w'’.-]*){{0,3}})"
)
_CUE = re.compile(  # ends where the colon stands
    rf"(?<!\w)(?:{CUES}|cc|attn|attention|re|regarding|from|to|name|namens|nachname|vorname|patientin|name des "
    rf"patienten|"
    r"arzt|ärztin|hausarzt|überweiser|zuweiser|untersucher|befunder|facharzt|gezeichnet|gez\.?)[ ]?$",
    re.IGNORECASE,
)
_GREETED = re.compile(
    r"(?<!\w)(?:cc|dear|hello|hi|thanks|thank you|sincerely|regards|respectfully|yours truly|"
    r"mit freundlichen grüßen|gez\.)(?:,\s{1,2}|[ ]{1,2}|\n)(?=(?P<n>[^\n:;=()|\[\]]{2,60}))",
    re.IGNORECASE,
)
_COLON = re.compile(r"[:=]\s{0,2}(?P<n>[^\n:;=()|\[\]]{2,60})")
_ACTED = re.compile(rf"(?<!\w)(?:{ACTS})[:]?[ ]{{1,2}}(?P<n>[^\n:;=()|\[\]]{{2,60}})", re.IGNORECASE)
_CARET = re.compile(
    r"(?<![\w^])(?:(?:van|von|de|der|la|el|al|di)[ ]){0,2}[^\W\d_][\w'’.-]*(?:[ ][^\W\d_][\w'’.-]*)?\^[\w'’.^-]*",
    re.IGNORECASE,
)
_CREDENTIAL = re.compile(
    r"[ ]?,?[ ]?(?:M\.?D\.?|D\.?O\.?|Ph\.?D\.?|R\.?N\.?|PA(?:-C)?|N\.?P\.?|MBBS|MBChB|FRCR|FRCP|FACR|FACS|DDS|"
    r"DMD|DPM|DVM|"
    r"RT(?:\(R\))?|RDMS|CRNA|LCSW|MSW|APRN|ARNP|DNP|PharmD|PsyD|BSN|MSN|LPN|CNM|Jr\.?|Sr\.?|III|II|Esq\.?|"
    r"Facharzt|Chefarzt|Oberarzt|Assistenzarzt)(?![\w])"
)
_LAST_FIRST = re.compile(
    rf"(?<![\w@.-])(?P<n>{_WORD}(?:[ ]{_WORD})?,[ ]?{_WORD}(?:[ ](?:{_WORD}|[{_UP}]\.?))?)(?![\w@])"
)
_COMPANY = re.compile(
    r"[ ](?:Inc|Ltd|LLC|Corp|Corporation|Company|Co|GmbH|AG|Medical|Systems?|Healthcare|Scientific|Technologies|"
    r"Pharma\w*|Biotech|Instruments?|Imaging|Software|AI|Vision)\b"
)
_NOUN = re.compile(rf"(?:'s|’s)?[ -]+(?:[\w-]+[ ]){{0,2}}?(?:{EPONYM_NOUNS})s?\b", re.IGNORECASE)
_PART_OF = re.compile(  # "circle of Willis"
    r"(?<!\w)(?:circle|tetralogy|sphincter|ampulla|foramen|bundle|islets?|loop|ligament|pouch|annulus|organ|tubercle|"
    r"crypts?|glands?|canal|spiral|angle|duct|triangle|space|sinus|nodes?|fissure|aqueduct|cave|cord|bridge|area|zone|"
    r"antrum|fascia|plexus|ganglion|trigone|vein|artery) of $",
    re.IGNORECASE,
)
_OPENING = frozenset(".!?:;\n\r\t•*-–—\"“'‘(|/>#]0123456789")


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STOP = _set(
    """
    unknown none n/a na not no yes see same pending self deceased unremarkable normal negative positive
    unavailable withheld redacted anonymous xxxx xxx name doe's md rn do phd np pa i'm i
    """
)


_CONTRACTED = re.compile(r"['’](?:s|ve|d|ll|re|m|t)$", re.IGNORECASE)
_TITLE_WORDS = frozenset(t.lower() for t in TITLES.split("|"))


@functools.lru_cache(maxsize=65536)
def _sort(token: str) -> str:
    """G given name, F family name, B a list's name that is also a word, E eponym, I initial, V known word, A short
    acronym, U unknown."""
    bare = _CONTRACTED.sub("", token.strip(".,!?'’‘-*/"))
    low = bare.lower()
    if len(bare) <= 1:
        return "I"
    if not low.strip("x_*"):
        return "V"
    if len(bare) == 2 and low not in FAMILY and low not in GIVEN:
        return "A" if bare.isupper() else "V"
    if low in vocabulary() or low in _STOP:
        return "B" if low in GIVEN or low in FAMILY else "V"
    if low in _TITLE_WORDS:
        return "V"
    if low in GIVEN:
        return "G"
    if low in EPONYMS:
        return "E"
    if low in FAMILY:
        return "F"
    if "-" in low and bare.isupper() and len(bare) <= 9:
        return "A"
    if "-" in low:
        parts = [_sort(p.capitalize()) for p in low.split("-") if p]
        if any(p in "GF" for p in parts) and not any(p in "VA" for p in parts):
            return "F"
        return "U" if parts and all(p in "UEB" for p in parts) and any(p == "U" for p in parts) else "V"
    if low.removesuffix("s") in vocabulary() or low.removesuffix("es") in vocabulary() or _suffix(low):
        return "V"
    if (bare.isupper() and len(bare) <= 4) or any(c.isdigit() for c in bare) or _inner_capital(bare):
        return "A"
    return "U"


_CLINICAL_END = re.compile(
    r".{3,}(?:itis|osis|oses|emia|aemia|ectomy|otomy|ostomy|plasty|scopy|graphy|gram|graphic|pathy|pathic|algia|uria|"
    r"oma|omas|omata|ology|ologic|ological|ologist|trophy|trophic|plegia|paresis|rrhea|rrhage|genic|genous|lytic|"
    r"cillin|mycin|azole|olol|pril|sartan|statin|dipine|mab|nib|caine|pam|zine|idine|tion|tions|sion|ically|ness|"
    r"ment|ments|ities|ible|ular|oidal|ized|ised|less|ungen|keit|heit|ating|ulated|atory|aneous)$"
)


def _suffix(low: str) -> bool:
    return len(low) > 6 and _CLINICAL_END.match(low) is not None


def _inner_capital(bare: str) -> bool:
    return bool(re.search(r"[a-z][A-Z]", bare)) and not re.match(r"(?:Mc|Mac|De|Le|La|Van|Di|Fitz|O['’])", bare)


def names(text: str) -> list[Found]:
    """(start, end, "name") of people's names; spans may overlap.

    >>> t = "Dr. Anna Muster saw John Brown for Crohn disease; Foley catheter, Siemens Skyra."
    >>> sorted({t[a:b] for a, b, _ in names(t)})
    ['Anna Muster', 'John Brown']
    """
    out: list[Found] = []
    for m in _TITLED.finditer(text):
        out += _take(text, m.start("n"), m.end("n"), first=True)
    for m in _COLON.finditer(text):
        if cue := _CUE.search(text, max(0, m.start() - 48), m.start()):
            strong = "name" in cue[0].lower()
            out += _take(text, m.start("n"), m.end("n"), first=strong, small=strong)
    for m in _GREETED.finditer(text):
        out += _take(text, m.start("n"), m.end("n"))
    for m in _ACTED.finditer(text):
        out += _take(text, m.start("n"), m.end("n"), small=True)
    if "^" in text:
        out += [(m.start(), m.end(), "name") for m in _CARET.finditer(text)]
    if "," in text:
        out += [(m.start("n"), m.end("n"), "name") for m in _LAST_FIRST.finditer(text) if _reversed(m["n"])]
    for m in _RUN.finditer(text):
        out += _from_run(text, m.start(), m.end())
    return out


def _take(text: str, start: int, end: int, *, first: bool = False, small: bool = False) -> list[Found]:
    """The name that stands at `start`: tokens up to the first known word. `first`: the first token counts whatever it
    is; `small`: words may be written small."""
    taken: list[tuple[int, int]] = []
    sure = first
    for m in _TOKEN.finditer(text, start, end):
        token = m[0].rstrip(".") if len(m[0]) > 2 else m[0]
        if not token or any(c.isdigit() for c in token) or len(taken) >= 5:
            break
        sort, low = _sort(token), token.lower().strip(".,")
        if re.fullmatch(rf"{TITLES}|{TITLES.lower()}", token.strip(".")) and not taken:
            sure = True
            continue
        if low in _STOP or re.fullmatch(_CREDENTIAL.pattern.lstrip("[ ]?,"), token):
            break
        capital = token[0].isupper()
        if re.fullmatch(_PARTICLE, low) and not capital and m.end() < end:
            taken.append((m.start(), m.end()))
            continue
        named = (
            sort in "GFU"
            or (sort == "I" and capital)
            or (sort in "BE" and (capital or (small and bool(taken))))
            or (sort == "A" and capital and first and not taken)
        )
        if taken and not _only_particles(text, taken):
            ok = named and (capital or small)
        else:
            ok = (named and (capital or small or first)) or (
                sure and (capital or sort in "GFU") and low not in _STOP and not (sort == "V" and not capital)
            )
            if ok and sort == "V" and not first:
                ok = False
        if not ok:
            break
        taken.append((m.start(), m.start() + len(token.rstrip(","))))
        following = text[m.end() : m.end() + 1]
        if following == "," and len(taken) > 1 and sort != "I" and not first and not small:
            break
    while taken and re.fullmatch(_PARTICLE, text[taken[-1][0] : taken[-1][1]].lower()):
        taken.pop()
    if not taken:
        return []
    sorts = {_sort(text[a:b]) for a, b in taken}
    if sorts <= {"I", "A"} and not first:
        return []
    if sorts <= {"B", "E"} and not first and re.match(r"[ ]?[.!?]|[ ][a-z]", text[taken[-1][1] : taken[-1][1] + 2]):
        return []  # "Doctor: Good." and "Attending: White" differ in what follows
    a, b = taken[0][0], taken[-1][1]
    if text[a:b].endswith(("'s", "’s")):
        b -= 2
    return [(a, b, "name")]


def _only_particles(text: str, taken: list[tuple[int, int]]) -> bool:
    return all(re.fullmatch(_PARTICLE, text[a:b].lower()) for a, b in taken)


def _reversed(said: str) -> bool:
    """Whether "Last, First" is a person: one of a list and no known word beside it, or both unknown with an initial."""
    left, _, right = said.partition(",")
    sorts = [_sort(t) for t in (*left.split(), *right.split())]
    if any(s in "VA" for s in sorts):
        return False
    return (
        ("G" in sorts and any(s in "FUEB" for s in sorts))
        or ("F" in sorts and "U" in sorts)
        or (sorts.count("U") == 2 and "I" in sorts)
    )


def _from_run(text: str, start: int, end: int) -> list[Found]:
    tokens = [(m.start(), m.end(), _sort(m[0])) for m in _TOKEN.finditer(text, start, end)]
    if len(tokens) == 1 and tokens[0][2] in "VABI":
        return []
    out: list[Found] = []
    segment: list[tuple[int, int, str]] = []
    for n, token in enumerate([*tokens, (end, end, "V")]):
        word = text[token[0] : token[1]]
        if token[2] == "V" and not segment and [t[2] for t in tokens[n + 1 : n + 3]] in (["I", "U"], ["I", "F"]):
            segment.append((token[0], token[1], "B"))  # "Halo C. Wenhuskezu": a word that is a given name
            continue
        if token[2] in "VA" and not (segment and re.fullmatch(_PARTICLE, word)):
            if segment:
                out += _segment(text, segment)
            segment = []
        else:
            segment.append((token[0], token[1], "P" if re.fullmatch(_PARTICLE, word) else token[2]))
            if word.endswith(".") and len(word) > 3:  # a sentence ends here
                out += _segment(text, segment)
                segment = []
    return out


def _segment(text: str, segment: list[tuple[int, int, str]]) -> list[Found]:
    """A name, if these capitalised words between known ones are one."""
    while segment and segment[-1][2] in "P":
        segment = segment[:-1]
    while segment and segment[0][2] == "P":
        segment = segment[1:]
    if not segment:
        return []
    a, b = segment[0][0], segment[-1][1]
    sorts = "".join(s for _, _, s in segment)
    core = sorts.replace("I", "").replace("P", "")
    after = text[b : b + 40]
    if (
        core
        and set(core) <= {"E", "B"}
        and not ("I" in sorts and _CREDENTIAL.match(after))
        and not _common(text, segment)
    ):
        return []  # "Swan Ganz", "Baker": an eponym or a word, no given name beside it
    if _COMPANY.match(after) and not _CREDENTIAL.match(after):
        return []
    if core and core[-1] == "E" and "G" not in core and _NOUN.match(after):
        return []
    credential = _CREDENTIAL.match(after) is not None and core
    if not (credential or _is_name(text, segment, core, sorts)):
        return []
    if core in ("U", "F") and (given := _GIVEN_WORD.search(text, max(0, a - 24), a)) and given[1].lower() not in _ROLES:
        a = given.start(1)  # "by Magnolia Kowalczyk": a flower, were it not for what follows
    if core == "U" and (family := _FAMILY_WORD.match(text, b)) and family[1].lower() not in _ROLES:
        b = family.end(1)
    b = a + len(text[a:b].rstrip(".")) if len(core) and segment[-1][2] != "I" else b
    if text[a:b].endswith(("'s", "’s")):
        b -= 2
    return [(a, b, "name")]


_GIVEN_WORD = re.compile(r"(?<=[a-z,:][ ])([A-Z][a-z]{2,14})[ ]$")
_FAMILY_WORD = re.compile(r"[ ]([A-Z][a-z]{3,14})(?=[.,;)\n]|[ ][a-z]|$)")
_ROLES = _set(
    """
    patient resident attending radiologist physician provider doctor nurse surgeon consultant registrar therapist
    technologist technician sonographer pathologist cardiologist fellow intern student professor colleague mother father
    brother sister wife husband son daughter aunt uncle mister madam the and with from left right finding impression
    comparison history chest lung study date name clinic hospital street road city town
    """
)


def _common(text: str, segment: list[tuple[int, int, str]]) -> bool:
    """Whether words of prose are a given and a family name in this order ("Frank Brown")."""
    words = [text[a:b].strip(".,").lower() for a, b, s in segment if s not in "IP"]
    return len(words) == 2 and words[0] in GIVEN and words[1] in FAMILY


def _is_name(text: str, segment: list[tuple[int, int, str]], core: str, sorts: str) -> bool:
    words = [text[x:y].strip(".") for x, y, s in segment if s not in "IP"]
    if len(core) >= 2:
        if "G" in core:
            return True
        if "F" in core:
            return True
        return all(len(w) >= 3 for w in words) and (
            not all(w.isupper() for w in words) or all(len(w) > 4 for w in words)
        )
    if not core:
        return False
    if core in "GF":
        after = text[segment[-1][1] : segment[-1][1] + 40]
        start = segment[0][0]
        eponym = core == "F" or words[0].lower().removesuffix("'s") in EPONYMS
        return not (eponym and (_NOUN.match(after) or _PART_OF.search(text, max(0, start - 24), start)))
    if "I" in sorts and core == "U":
        return any(text[x:y].endswith(".") for x, y, s in segment if s == "I")
    if "I" in sorts and core in "BE":
        return sorts[0] == "I" and text[segment[0][0] : segment[0][1]].endswith(".")
    return core == "U" and _alone(text, segment)


def _alone(text: str, segment: list[tuple[int, int, str]]) -> bool:
    """Whether one unknown capitalised word is taken for a name: inside a sentence if nothing says that it is a thing,
    where a sentence begins if what follows says that it is a person."""
    start, end = segment[0][0], segment[-1][1]
    word = text[start:end].strip(".'’")
    if word.isupper() or len(word) < 3 or not word[1:].replace("'", "").replace("’", "").replace("-", "").islower():
        return False
    before = text[max(0, start - 24) : start].rstrip(" ")
    if len(word) > 3 and (_DOES.match(text, end) or _OF_PLACE.match(text, end)):
        return True
    if _GERMAN.search(text, max(0, start - 80), end + 80):  # every noun is written with a capital
        return len(word) > 3 and bool(before) and before[-1] not in _OPENING and (
            _PERSONAL.search(before) is not None or _VERB.match(text, end) is not None
        )  # fmt: skip
    if _EPONYM.match(text[end : end + 40]) or _THING.match(text, end):
        return False
    if not before or before[-1] in _OPENING:
        other = _WITH.match(text, end)
        return before.endswith("name?") or (other is not None and _sort(other[1]) in "UFG")
    return _ARTICLE.search(before) is None and _MAKER.search(before) is None


_GERMAN = re.compile(
    r"(?<!\w)(?:und|oder|der|das|des|dem|den|kein|keine[nr]?|mit|ohne|nicht|ist|sind|wurden?|bei|beidseits|links|"
    r"rechts|sonst|im|zum|zur|vom|von|nach|eine?[rnms]?|auf|aus|als|auch|Herr|Frau|Befund|geb\.)(?!\w)"
)
_PERSONAL = re.compile(
    r"(?<!\w)(?:mit|von|an|dass|heißt|namens|sohn|tochter|ehefrau|ehemann|mutter|vater|bruder|schwester|patientin)$",
    re.IGNORECASE,
)
_VERB = re.compile(r"[ ](?:berichtet|klagt|wurde|ist|hat|gibt|kam|lebt|möchte)\b")
_EPONYM = re.compile(  # `_NOUN`, without words between that begin another phrase
    rf"(?:'s|’s)?[ -]+(?:(?!(?:about|and|or|is|was|has|had|for|with|without|in|on|of|to|by|from|that|because|whether|"
    rf"if|after|before|regarding|called|says?|said|thinks?|noted|reports?|who)\b)[\w-]+[ ]){{0,2}}?"
    rf"(?:{EPONYM_NOUNS})s?\b",
    re.IGNORECASE,
)
_WITH = re.compile(rf"(?:,| and| und| &)[ ]({_WORD})")
_THING = re.compile(  # a drug, a device, a product
    r"[ ]?(?:\d|®|™|[-/]\d)|[ ](?:tablets?|capsules?|creams?|ointment|gel|drops|inhaler|patch(?:es)?|spray|lotion|pen|"
    r"injections?|infusions?|therapy|treatment|dose|doses|software|scanner|machine|brand|film|powder|solution)\b"
)
_MAKER = re.compile(
    r"(?<!\w)(?:Siemens|Philips|GE|Toshiba|Canon|Hitachi|Samsung|Fujifilm|Fuji|Carestream|Agfa|Hologic|Varian|Elekta|"
    r"Medtronic|Stryker|Abbott|Olympus|Pentax|Mindray|Esaote|Zeiss|Zimmer|Synthes|Ethicon|Bayer|Bracco|Guerbet)"
    r"(?:[ ][\w.-]+){0,2}$"
)
_OF_PLACE = re.compile(r"[ ](?:area|office|region|branch|campus|site|clinic|practice|hospital|facility|airport)\b")
_ARTICLE = re.compile(
    r"(?<!\w)(?:an?|the|on|taking|takes?|took|using|uses?|used|given|received|receives?|started|stopped|prescribed|"
    r"administered|allergic to|allergy to|positive for|negative for|grew|species|eine?[rmns]?|der|die|das)$",
    re.IGNORECASE,
)
_DOES = re.compile(  # what persons do, and diseases, drugs and devices do not; called by name: "Anna, could you"
    r"[ ](?:(?:also|then|later|now|just|already|never|always|kindly|who)[ ])?(?:states?|stated|reports|reported|says|"
    r"said|denies|denied|lives|lived|works|worked|agreed|agrees|feels|felt|complains|wants?|wanted|told|tells|asked|"
    r"asks|understands|verbalized|walked|went|called|calls|came|comes|drinks|smokes|quit|lost his|lost her|thinks?|"
    r"thought|believes|suggests|suggested|recommends|recommended|declined|declines|refused|refuses|prefers|hopes|knows|"
    r"likes|loves|spoke|speaks|wrote|writes|began writing|arrived|met|visited|visits|drove|drives|slept|ate|cried|"
    r"smiled|is (?:an?|the|very|his|her|my|our|so|from|able|aware|happy|anxious|worried|upset|concerned|in)|"
    r"was (?:an?|very|his|her|my|our|upset|anxious|born|told|informed|seen|called)|has been told|(?:will|would|did|"
    r"does|could|should) \w+|gave|gives|sent|sends|brought|brings|took|made|saw|sees|sought|heard|hears|requested|"
    r"requests|ordered|orders|booked|explained|explains|remembers|remembered|helped|helps|tried|tries|stayed|stays|"
    r"moved|retired|returned|can (?:not|call)|and his|and her|spent|berichtet|klagt|wohnt|arbeitet|gibt an)\b"
    r"|, (?:can|could|would|will|please|do|did|are|is|have|my|your|you|we|I|thank|RN|MD)\b|'s (?:wife|husband|son|"
    r"daughter|mother|father|brother|sister|family|partner|name|room|chart)\b"
)
