"""Words that carry no finding: method boilerplate for captions, and plain English for a generic vocabulary."""

from __future__ import annotations

import random

BOILERPLATE = (
    "Images were acquired with the patient in the upright position.",
    "The examination followed the protocol of the participating centre.",
    "Scale bar and window settings are given in the methods.",
    "Written informed consent was obtained before the study began.",
    "All measurements were repeated twice by two independent readers.",
    "Data were processed with the standard reconstruction software.",
    "The panel is representative of the whole series of cases.",
    "Exposure time was chosen by automatic control of the device.",
    "Statistical analysis used a two sided test at five percent.",
    "Follow up was performed after a median of twelve months.",
    "The acquisition matrix and field of view were kept constant.",
    "Quality control was done weekly with a calibrated test object.",
    "Reading was blinded to the clinical course and the outcome.",
    "Images are displayed according to the usual orientation convention.",
    "The local ethics committee approved the design of this study.",
    "Samples were stored and handled as described in the supplement.",
    "Contrast was adjusted for display only and applied uniformly.",
    "Patients were enrolled consecutively over a period of two years.",
    "Technical details are summarised in the table of parameters.",
    "Each session lasted about twenty minutes including preparation time.",
)


def _list(text: str, *, sep: str | None = None) -> list[str]:
    return text.split(sep)


_NOUNS = _list(
    "river garden teacher window market bridge captain letter kitchen village forest station farmer engine island "
    "painter winter summer morning evening concert library harbour blanket journey mountain valley orchard bakery "
    "neighbour festival carriage merchant soldier lantern meadow chimney basket bicycle theatre museum builder "
    "fisherman traveller daughter cousin uncle grandmother student lawyer judge musician writer newspaper promise "
    "question answer secret machine railway airport weather thunder sunshine shadow mirror table chair carpet pillow "
    "candle hammer ladder bucket saddle pencil notebook picture story chapter sentence language country capital "
    "government election minister budget company factory worker harvest potato apple butter cheese coffee sugar salt"
)
_VERBS = _list(
    "carried watched painted followed remembered opened repaired visited forgot discovered borrowed crossed measured "
    "described admired avoided questioned answered promised delivered collected planted gathered washed cleaned sold "
    "bought found lost reached entered climbed noticed welcomed invited finished started studied copied counted"
)
_ADJECTIVES = _list(
    "old young quiet heavy golden narrow distant famous gentle broken wooden bright clever hungry silent early late "
    "green yellow ordinary curious careful cheerful expensive modern ancient northern southern empty crowded simple"
)
_PLACES = _list(
    "near the harbour;behind the old church;before the long winter;after the great storm;during the festival;"
    "without a word;on the way home;at the end of the street;under the stone bridge;in the middle of the night;"
    "for the first time in years;across the frozen lake;beside the railway;with remarkable patience",
    sep=";",
)


def english(n: int, seed: int) -> list[str]:
    """`n` plain English sentences on nothing medical: what a generic vocabulary is trained on.

    >>> english(1, 0)[0].endswith(".")
    True
    """
    rng = random.Random(f"english-{seed}")

    def thing() -> str:
        return f"the {rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}"

    return [f"{thing()} {rng.choice(_VERBS)} {thing()} {rng.choice(_PLACES)}.".capitalize() for _ in range(n)]
