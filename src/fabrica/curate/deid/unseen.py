"""Notes in other words, with other names, than those the free-text rules were made with: a held-out test. Invented.

The templates are letters, messages, forms and telephone notes, mostly without a clinical cue beside a name, a town or a
ZIP code. They were written before the rules were last changed, and nothing was tuned on them; `plants` and its notes
are what rules may be developed with (seeds from 100).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from fabrica.curate.deid.plants import CLINICAL, Plant, Planter

_GIVEN = (
    "Tyrone Marisol Dashiell Keiko Bronwyn Ezekiel Priyanka Tomislav Aoife Nadezhda Giancarlo Wilhelmina Jamal "
    "Rosalind Mehmet Svea Cornelius Ximenes Delphine Oksana Rashid Philippa Leif Magnolia Ignacio Hedwig Tariq "
    "Clementine Boris Anneke Desmond Fatou Lorenzo Bettina Amadou Cordelia Hiromi Benedikt Shanice Vikram Odette "
    "Casimir Yasmin Alistair Gretchen Emeka Liesbeth Octavio Mireille Darnell Saskia Rupert Zuleika Hamish "
    "Ottilie Demetrius Ilaria Kofi Roswitha"
)
GIVEN = tuple(_GIVEN.split())
_FAMILY = (
    "Abernathy Lindqvist Castellanos Petrakis Nakagawa Okonkwo Haverford Szymborska Moreau Villanueva Drummond "
    "Achterberg Kowalczyk Tanaka Fitzwilliam Ramaswamy Esposito Brandvold Gallagher Oyelaran Steinbrenner "
    "Delgado Whitcombe Yilmaz Papadakis Reinholt Sorensen Tremblay Vaughan Mbeki Hargreaves Ivanovic Castonguay "
    "Lockhart Zielinski Hofstadter Nguyen-Tran Bellweather Adeyemi Kirchhoff Pemberton Salazar Ostrowski "
    "Trevelyan Balogun Weatherby Fukuda Montague Rosenqvist Gutierrez Dunleavy Hashemi Larkspur Merriweather "
    "Czerny Blackthorn Osei Vandermeer Quisenberry Thackeray"
)
FAMILY = tuple(_FAMILY.split())
_TOWNS = (
    "Cedarville;Toledo;Montpelier;Ravenna;Tuscaloosa;Bismarck;Gelsenkirchen;Passau;Wolverhampton;Leominster;"
    "Ithaca;Fresno;Chattanooga;Spokane;Kaiserslautern;Inverness;Yonkers;Duluth;Savannah;Eugene;Regensburg;"
    "Shrewsbury;Poughkeepsie;Albuquerque;Kenosha;Bamberg;Aberystwyth;Tallahassee;Winnipeg;Galway;Rochester;"
    "Baton Rouge;Santa Rosa;Grand Forks;New Braunfels;Bad Kissingen;Fort Collins;Saint Cloud;Milton Keynes;"
    "Sioux Falls;Oberkirchen;Millbrook;Harrowgate Falls;Ashwick;Dunmore Heath;Pinecrest;Kaltenborn;Westerveld;"
    "Lower Tarrow;Stonebridge"
)
TOWNS = tuple(_TOWNS.split(";"))

# Slots: {N} full name, {F} family name alone, {V} given name alone, {W} "Family, Given", {J} initial and family, {O}
# town, {Z} ZIP code, {S} address, {D} date, {T} telephone, {I} number, {E} e-mail, {C} clinical term that must stay.
LETTERS = (
    "Hi {V}, this is a reminder that your scan in {O} has been moved to {D}.",
    "{F} asked us to forward the images; they concern {C}.",
    "Our driver will collect the sample from {O} on {D}, zip {Z}.",
    "Voicemail from {V}: wants to know whether {C} explains the tiredness. Ring {T}.",
    "Sent to {E} and copied to {F} on {D}.",
    "Ship the loop recorder to {S}.",
    "Her brother {V} drove up from {O} last night.",
    "{N} moved away from {O}, so the follow-up of {C} is with a colleague there.",
    "Card holder: {N}, billing ZIP {Z}.",
    "Please post the disc to {N}, {O} {Z}.",
    "Case conference: {F}, {F} and {F} agreed that {C} is unlikely.",
    "The pharmacy in {O} has no stock; {F} will ring back at {T}.",
    "I have known {V} since the first visit for {C}, and {V} remains cheerful.",
    "Seen together with {F}, who favours {C}.",
    "Form 12 | {W} | {D} | {I} | {Z}",
    "Next of kin {N} ({T}), neighbour {V}.",
    "Grew up near {O}, later worked in {O} as a welder; no exposure, {C} excluded.",
    "Taxi voucher {I} for {V} {F}, pick-up at {S}.",
    "According to {F} the drain was changed on {D} because of {C}.",
    "School nurse in {O} reports that {V} fainted twice; {C} considered.",
    "{J} reviewed the trace and saw nothing but {C}.",
    "Interpreter booked for {N}; waiting room B, code {I}.",
    "Flew back from {O} three days before the rash; {C} was discussed.",
    "Insurance wants the report of {D}; fax it to {T}, attention {F}.",
    "Referred by a practice in {O}. Thank you, {N}",
    "Message for {F}: {C} confirmed, no action.",
    "Home is {O} ({Z}), two hours away by train.",
    "Twin sister {V} had {C} as well.",
    "We could not reach {F} under {T}; letter goes to {S}.",
    "Night shift: {V} slept well, {C} unchanged, {F} informed.",
    "On behalf of {F} I confirm the appointment of {D}.",
    "Requested by {J}, read by {J}, {D}.",
    "Delivery area {Z} is served on Tuesdays only.",
    "Chaplain {F} sat with {V} until the family from {O} arrived.",
    "{C} and {C} were explained to {V}, who signed.",
    "Blood drawn by {V}, labelled {I}, sent to the laboratory in {O}.",
    "The claim of {N} was rejected: postal code {Z} does not match.",
    "Podiatry in {O} asks for the plain films; {C} is known.",
    "Did {F} get the second dose? {V} thinks so.",
    "Best wishes to you and {V}, yours, {N}",
)


class Stranger(Planter):
    """Draws identifiers of this file's names; numbers and dates as `Planter` does, from another stream.

    >>> Stranger(0).letters(2) == Stranger(0).letters(2)
    True
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.rng = random.Random(f"deid-unseen-{seed}")

    def letters(self, sentences: int) -> tuple[str, list[Plant], list[str]]:
        """One text of so many sentences: it, what was planted, and the clinical terms that must stay."""
        return filled(self.rng, self.rng.sample(LETTERS, sentences), self._draw)

    def _draw(self, slot: str) -> Plant:
        given, family, town = self.rng.choice(GIVEN), self.rng.choice(FAMILY), self.rng.choice(TOWNS)
        zip_code = self.digits(5)
        way = self.rng.choice(("Street", "Way", "Drive", "Court"))
        street = f"{self.rng.randint(3, 990)} {self.rng.choice(FAMILY)} {way}"
        said: dict[str, Callable[[], Plant]] = {
            "N": lambda: Plant("full name", f"{given} {family}", (given, family)),
            "F": lambda: Plant("family name alone", family, (family,)),
            "V": lambda: Plant("given name alone", given, (given,)),
            "W": lambda: Plant("full name", f"{family}, {given}", (given, family)),
            "J": lambda: Plant("initial and name", f"{given[0]}. {family}", (family,)),
            "O": lambda: Plant("town", town, (town,)),
            "Z": lambda: Plant("ZIP code", zip_code, (zip_code,)),
            "S": lambda: Plant("address", f"{street}, {town}", (street, town)),
            "D": self.date, "T": self.phone, "I": self.number, "E": self.email,
        }  # fmt: skip
        return said[slot]()


def filled(
    rng: random.Random, templates: Iterable[str], draw: Callable[[str], Plant]
) -> tuple[str, list[Plant], list[str]]:
    """Templates with their slots filled: the text, the plants, the clinical terms."""
    plants: list[Plant] = []
    terms: list[str] = []
    parts = []
    for template in templates:
        out, rest = "", template
        while rest:
            before, brace, rest = rest.partition("{")
            out += before
            if brace:
                if rest[0] == "C":
                    terms.append(rng.choice(CLINICAL))
                    out += terms[-1]
                else:
                    plants.append(draw(rest[0]))
                    out += plants[-1].text
                rest = rest[2:]
        parts.append(out)
    return rng.choice((" ", "\n")).join(parts), plants, terms
