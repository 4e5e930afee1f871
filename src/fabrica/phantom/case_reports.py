"""Synthetic case reports as JATS articles: the truth of every patient, and citations that prefer a disease.

Five layouts ("sections", "nested", "labels", "triggers", "single") and articles without a patient, whose sections look
like cases and are none. All patients, journals and identifiers are invented.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fabrica.phantom.case_texts import VARIANTS, Disease, diseases, narrative
from fabrica.phantom.jats import Paper, PaperReference, PaperSection

LAYOUTS = ("sections", "nested", "labels", "triggers", "single")
LICENCES = {  # SPDX ("other": no licence named, "": nothing said) -> share of the articles
    "CC-BY-4.0": 0.55, "CC-BY-NC-4.0": 0.2, "CC0-1.0": 0.08, "CC-BY-NC-SA-4.0": 0.07, "other": 0.04, "": 0.03,
    "CC-BY-NC-ND-4.0": 0.03,
}  # fmt: skip
OPEN = ("CC-BY-4.0", "CC-BY-NC-4.0", "CC0-1.0", "CC-BY-NC-SA-4.0")  # licences under which a note may be cut out
Age = tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True)
class CasePatient:
    """One described patient. `wanted`: a person whose age and gender are told, so that a note should be made of
    it; `why` says what is special ("animal", "transgender", "no_age": not wanted; "age_in_title", "copy",
    "near_copy": wanted)."""

    text: str
    age: Age
    gender: str
    disease: int
    wanted: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class CaseReport:
    """An article with its patients in order, how it is laid out, and what it is about."""

    paper: Paper
    patients: tuple[CasePatient, ...]
    layout: str  # one of `LAYOUTS`, or "none"
    disease: int
    variant: int


@dataclass(frozen=True, slots=True)
class CaseLibrary:
    """`reports`; citations (citing, cited) by PMID: those in the articles' own references (`in_text`), those of a
    separate list (`listed`); some stand in both."""

    reports: tuple[CaseReport, ...]
    in_text: tuple[tuple[str, str], ...]
    listed: tuple[tuple[str, str], ...]


def case_reports(count: int, seed: int, *, kinds: int = 150, same_disease: float = 0.97, cites: int = 3) -> CaseLibrary:
    """`count` articles on `kinds` diseases; each cites about `cites` earlier ones, of its own disease with probability
    `same_disease`, most of these of its own variant of it. Equal arguments give equal bytes.

    >>> library = case_reports(40, 0, kinds=5)
    >>> len(library.reports), len({r.layout for r in library.reports}) >= 4
    (40, True)
    """
    rng = random.Random(f"case reports {seed}")
    known = diseases(kinds, rng)
    made = [_report(i, seed, known, rng.randrange(kinds)) for i in range(count)]
    made = _copies(made, rng)
    edges = _edges(made, rng, same_disease, cites)
    both = [(edge, rng.random()) for edge in edges]
    in_text = tuple(edge for edge, draw in both if draw < 0.7)
    listed = tuple(edge for edge, draw in both if draw > 0.3)
    return CaseLibrary(tuple(_referring(made, in_text)), in_text, listed)


def _pmid(i: int) -> str:
    return str(90_000_001 + i)


def _edges(reports: Sequence[CaseReport], rng: random.Random, same: float, cites: int) -> list[tuple[str, str]]:
    """Each article cites earlier ones; now and then itself, as real reference lists do."""
    earlier: dict[tuple[int, int | None], list[int]] = {}
    edges: dict[tuple[str, str], None] = {}
    for i, report in enumerate(reports):
        kin = earlier.setdefault((report.disease, None), [])
        close = earlier.setdefault((report.disease, report.variant), [])
        for _ in range(rng.randint(1, 2 * cites - 1)):
            near = close if close and rng.random() < 0.7 else kin
            pool = near if rng.random() < same else range(i)
            if pool:
                edges[_pmid(i), _pmid(rng.choice(pool))] = None
        if rng.random() < 0.01:
            edges[_pmid(i), _pmid(i)] = None
        kin.append(i)
        close.append(i)
    return list(edges)


def _referring(reports: Sequence[CaseReport], edges: Sequence[tuple[str, str]]) -> list[CaseReport]:
    cited: dict[str, list[str]] = {}
    for a, b in edges:
        cited.setdefault(a, []).append(b)
    title = {r.paper.pmid: r.paper.title for r in reports}
    return [
        replace(r, paper=replace(r.paper, references=tuple(
            PaperReference(f"R{n}", title[b], pmid=b) for n, b in enumerate(cited.get(r.paper.pmid, ()), 1)
        )))
        for r in reports
    ]  # fmt: skip


# ---------------------------------------------------------------- one article


def _report(i: int, seed: int, known: Sequence[Disease], kind: int) -> CaseReport:
    rng = random.Random(f"case report {seed} {i}")
    number = rng.choices(range(5), (12, 48, 22, 12, 6))[0]
    layout = "none" if not number else "single" if number == 1 and rng.random() < 0.85 else rng.choice(LAYOUTS[:4])
    if number == 1 and layout in ("labels", "triggers"):
        layout = "single"  # one label alone marks nothing
    disease, variant = known[kind], rng.randrange(VARIANTS)
    bodies = [_patient(disease, kind, variant, rng) for _ in range(number)]
    if layout == "single" and rng.random() < 0.04:  # the title alone tells the age
        bodies = [_in_title(disease, kind, variant, rng)]
    patients = tuple(p for p, _ in bodies)
    sections, patients = _laid_out(layout, patients, [b for _, b in bodies], rng)
    title = _title(disease, patients, rng)
    sections = (_opening(disease, rng), *sections, *_distractors(layout, disease, rng), _closing(disease, rng))
    paper = Paper(
        f"PMC{9_000_001 + i}", _pmid(i), "", title, (_abstract(disease, number, rng),) if rng.random() < 0.93 else (),
        licence=rng.choices(list(LICENCES), list(LICENCES.values()))[0], article_type="case-report", sections=sections,
        categories=("Case Report",), traps=frozenset(["spaces"] if rng.random() < 0.1 else []),
    )  # fmt: skip
    return CaseReport(paper, patients, layout, kind, variant)


def _laid_out(
    layout: str, patients: tuple[CasePatient, ...], bodies: Sequence[Sequence[str]], rng: random.Random
) -> tuple[tuple[PaperSection, ...], tuple[CasePatient, ...]]:
    """The sections that hold the patients; and the patients, with the words that a layout adds to their texts."""
    table = (("Laboratory values of the 63-year-old man.", (("day", "value"), ("1", "12"))),)
    name = rng.choice(("Case {}", "Patient {}", "Case report ({})", "CASE {}", "Case no. {}"))
    count: Sequence[str] = rng.choice((("1", "2", "3", "4"), ("A", "B", "C", "D"), ("i", "ii", "iii", "iv")))
    labels = [name.format(c) for c in count]
    if layout in ("sections", "nested"):
        made = tuple(
            PaperSection(label, tuple(b), tables=table if rng.random() < 0.1 else ())
            for label, b in zip(labels, bodies, strict=False)
        )
        return (
            made if layout == "sections" else (PaperSection(rng.choice(("Case series", "Reports")), (), made),)
        ), patients
    if layout == "labels":
        lines = [line for label, b in zip(labels, bodies, strict=False) for line in (label, *b)]
        return (
            PaperSection(rng.choice(("Case presentation", "Clinical findings", "Case reports")), tuple(lines)),
        ), patients
    if layout == "triggers":
        ordinal = ("first", "second", "third", "fourth")
        starts = [
            f"The {o} patient. " if name.startswith("P") else f"Case {c}: " for o, c in zip(ordinal, count, strict=True)
        ]
        told = [[s + b[0], *b[1:]] for s, b in zip(starts, bodies, strict=False)]
        patients = tuple(replace(p, text="\n".join(b)) for p, b in zip(patients, told, strict=True))
        lines = ["We describe all patients in detail.", *(line for b in told for line in b)]
        return (PaperSection(rng.choice(("Case reports", "Clinical presentation")), tuple(lines)),), patients
    if layout == "single":
        usual = ("Case report", "Case presentation", "Clinical case", "2. Case Report", "Case description", "Case")
        title = rng.choice(usual) if rng.random() < 0.96 else rng.choice(("Observation", "Our experience"))
        return (PaperSection(title, tuple(bodies[0]), tables=table if rng.random() < 0.1 else ()),), patients
    return (), patients


def _opening(disease: Disease, rng: random.Random) -> PaperSection:
    return PaperSection(
        rng.choice(("Introduction", "Background")),
        (f"{disease.names[0].capitalize()} is rare. It was first described in a 50-year-old man in 1950.",),
    )


def _closing(disease: Disease, rng: random.Random) -> PaperSection:
    said = (
        f"Patients with {rng.choice(disease.names)} are seldom seen; the 60-year-old woman of Doe et al. was similar."
    )
    return PaperSection("Discussion", (said, "More cases are needed.", "Case 1 and case 2 of the literature differ."))


def _distractors(layout: str, disease: Disease, rng: random.Random) -> list[PaperSection]:
    """Sections that look like cases and are none; those that would come before the passes' own are rare."""
    out = []
    if rng.random() < 0.5:
        out.append(PaperSection(
            rng.choice(("Patient consent", "Consent", "Ethics approval and patient consent")),
            ("Written consent for this case was obtained from the 45-year-old woman who is described above.",),
        ))  # fmt: skip
    if layout == "none" or rng.random() < 0.05:
        n, m, mean, name = rng.randint(5, 30), rng.randint(5, 30), rng.randint(30, 60), disease.names[0]
        out.append(PaperSection(
            rng.choice(("Patients and methods", "Clinical data", "Patients", "Case-control study", "Case series")),
            (f"There were {n} males and {m} females aged 18 to 65 years with {name} in these {n + m} cases.",
             f"The mean age of all patients was {mean} years, and the median follow-up lasted 12 months."),
        ))  # fmt: skip
    if layout in ("none", "single") and rng.random() < 0.04:
        out.append(PaperSection("Previously reported cases", tuple(_reviewed(disease, k, rng) for k in (1, 2))))
    return out


def _reviewed(disease: Disease, k: int, rng: random.Random) -> str:
    who, old = rng.choice(("man", "woman")), rng.randint(20, 79)
    treated = f"with {rng.choice(disease.names)}, and was treated with {rng.choice(disease.drugs)}"
    return f"Case {k} was a {old}-year-old {who} reported by Doe et al. in 1990 {treated}."


def _abstract(disease: Disease, number: int, rng: random.Random) -> str:
    what = f"We report {number or 'a review of'} patients with {rng.choice(disease.names)}."
    return f"{what} {rng.choice(disease.drugs)} helps."


def _title(disease: Disease, patients: Sequence[CasePatient], rng: random.Random) -> str:
    name = rng.choice(disease.names).capitalize()
    if patients and patients[0].why == "age_in_title":
        (value, unit), person = patients[0].age[0], "boy" if patients[0].gender == "M" else "girl"
        return f"{name} in a {value:g}-{unit}-old {person}"
    return rng.choice((f"{name}: a case report", f"{name} revisited", f"A rare presentation of {name.lower()}"))


# ---------------------------------------------------------------- one patient

_HYPHENS = ("-", "-", "-", "-", "-", "-", "\u2010", "\u2011", "\u2013")
_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def _patient(disease: Disease, kind: int, variant: int, rng: random.Random) -> tuple[CasePatient, list[str]]:
    gender = rng.choice("FM")
    odd = rng.random()
    if odd < 0.01:
        age, opening, why = _animal(gender, rng)
    elif odd < 0.02:
        age = ((float(rng.randint(18, 70)), "year"),)
        opening, why = f"A {age[0][0]:g}-year-old transgender {'woman' if gender == 'F' else 'man'}", "transgender"
    elif odd < 0.04:
        age, opening, why = (), f"A middle-aged {'woman' if gender == 'F' else 'man'}", "no_age"
    else:
        age, opening = _aged(gender, rng)
        why = ""
    if not why and rng.random() < 0.05:
        opening = f"{rng.choice(('We saw the following patient.', 'This is the story.'))} {opening}"
    body = narrative(disease, variant, opening, "She" if gender == "F" else "He", rng)
    return CasePatient("\n".join(body), age, gender, kind, not why, why), body


def _in_title(disease: Disease, kind: int, variant: int, rng: random.Random) -> tuple[CasePatient, list[str]]:
    gender, age = rng.choice("FM"), ((float(rng.randint(2, 15)), "year"),)
    body = narrative(disease, variant, "The patient", "The child", rng)
    return CasePatient("\n".join(body), age, gender, kind, True, "age_in_title"), body


def _animal(gender: str, rng: random.Random) -> tuple[Age, str, str]:
    age = ((float(rng.randint(2, 12)), "year"),)
    sex = rng.choice(("spayed female", "female")) if gender == "F" else rng.choice(("neutered male", "male"))
    return (
        age,
        f"A {age[0][0]:g}-year-old {sex} {rng.choice(('Labrador retriever', 'domestic shorthair cat'))}",
        "animal",
    )


def _aged(gender: str, rng: random.Random) -> tuple[Age, str]:
    """An age and the words that tell it with the gender, in one of the ways that writers have."""
    young, adult = ("girl", "woman") if gender == "F" else ("boy", "man")
    dash, way = rng.choice(_HYPHENS), rng.random()
    if way < 0.08:
        unit, most = rng.choice((("month", 23), ("week", 11), ("day", 27), ("hour", 48)))
        n = rng.randint(2, most)
        return ((float(n), unit),), f"A {n}{dash}{unit}{dash}old {young}"
    if way < 0.12:
        y, m = rng.randint(1, 6), rng.randint(1, 11)
        return ((float(y), "year"), (float(m), "month")), rng.choice(
            (f"A {y}-year-and-{m}-month-old {young}", f"A {young} aged {y} years and {m} months")
        )
    if way < 0.2:
        n = rng.randint(2, 12)
        word = _WORDS[n - 1]
        half = rng.random() < 0.2
        said = f"A {young} of two and a half years of age" if half else f"A {young} aged {word}"
        return ((2.5 if half else float(n), "year"),), said
    n = rng.randint(18, 92)
    if way < 0.26:
        part, add = rng.choice((("early ", 2.5), ("late ", 7.5), ("", 5.0)))
        return (
            (n // 10 * 10 + add, "year"),
        ), f"A {adult} in {'her' if gender == 'F' else 'his'} {part}{n // 10 * 10}s"
    age: Age = ((float(n), "year"),)
    if way < 0.28:
        return age, f"A {adult} of {n}"  # a way that no pattern knows
    if way < 0.3 and gender == "F" and n < 45:
        return age, f"A {n}-year-old G3P2 at 30 weeks"
    if way < 0.31:
        return age, f"A {n}-year-old {adult}, {'male' if gender == 'F' else 'female'} partner present,"
    if way < 0.4:
        return age, rng.choice((f"A {adult} aged {n} years", f"A {adult}, {n} years of age,", f"A {n} y/o {adult}"))
    noun = rng.choice((adult, adult, "female" if gender == "F" else "male"))
    return age, f"{'An' if str(n)[0] == '8' or n == 18 else 'A'} {n}{dash}year{dash}old {noun}"


def _copies(reports: list[CaseReport], rng: random.Random) -> list[CaseReport]:
    """One in a hundred single cases is published again, word for word or with a new ending, in another article."""
    singles = [
        i for i, r in enumerate(reports) if r.layout == "single" and r.patients[0].wanted and not r.patients[0].why
    ]
    out = list(reports)
    for i in singles:
        if rng.random() >= 0.01:
            continue
        j = rng.choice(singles)
        source, target = reports[j], reports[i]
        if i == j or out[i] is not target or out[j] is not source:
            continue
        body = source.patients[0].text.split("\n")
        exact = rng.random() < 0.3
        if not exact:
            body[-1] += " This case was followed further."
        patient = replace(source.patients[0], text="\n".join(body), why="copy" if exact else "near_copy")
        sections = tuple(
            replace(s, paragraphs=tuple(body)) if s.paragraphs == tuple(target.patients[0].text.split("\n")) else s
            for s in target.paper.sections
        )
        out[i] = replace(
            target,
            patients=(patient,),
            disease=source.disease,
            variant=source.variant,
            paper=replace(target.paper, sections=sections),
        )
    return out
