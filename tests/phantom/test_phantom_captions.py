"""Reports, captions and the grammar that reads them back."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.phantom import p1
from fabrica.phantom.captions import COMPOUNDS, P1, absences, article, labels_of, report
from fabrica.phantom.findings import MODALITIES, names
from fabrica.phantom.p1 import LABELS, P1Finding
from fabrica.phantom.words import BOILERPLATE, english


def said(text, names=P1):
    got = labels_of(text, names)
    return {k for k, v in got.items() if v}, {k for k, v in got.items() if not v}


@pytest.mark.parametrize(("text", "vocabulary"), [("report", P1), ("article", COMPOUNDS)])
def test_texts_read_back_to_the_truth_without_exception(text, vocabulary):
    batch = p1(2000, 11, text=text)
    for row, words in zip(batch.labels, batch.reports, strict=True):
        there, denied = said(words, vocabulary)
        assert there == {k for k, v in zip(LABELS, row, strict=True) if v}
        assert len(denied) == 2
        assert not denied & there


def test_a_report_is_as_the_sheet_says():
    sentences = [s for r in p1(500, 2).reports for s in r.split(" . ")]
    places = {f"in the {side} {zone} zone" for side in ("left", "right") for zone in ("upper", "middle", "lower")}
    positive = [s for s in sentences if " in the " in s]
    assert {s[s.index("in the") :] for s in positive} == places
    assert {s[: s.index(" in the")] for s in positive} == {n for v in P1.values() for n in v}
    assert all(len(v) == 3 for v in P1.values())
    first = [r.split(" . ")[0] for r in p1(500, 2).reports]
    assert 0.3 < np.mean([" in the " in s for s in first]) < 0.7  # shuffled: either kind may come first


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Cavity in the left upper zone.", {"ring": True}),
        ("No cavity.", {"ring": False}),
        ("No cavity or coin lesion", {"ring": False, "disc": False}),
        ("No cavity, coin lesion, or wedge infarct.", {"ring": False, "disc": False, "wedge": False}),
        ("No cavity but a coin lesion.", {"ring": False, "disc": True}),
        ("Coin lesion without cavity", {"disc": True, "ring": False}),
        ("A cavity is not seen.", {"ring": False}),
        ("Cavity and coin lesion are not seen", {"ring": False, "disc": False}),
        ("Cavity in the left zone, coin lesion is absent", {"ring": True, "disc": False}),
        ("There is a linear streak; the cavity has resolved.", {"bar": True, "ring": False}),
        ("Negative for wedge infarct", {"wedge": False}),
        ("No cavity. Cavity in the right lower zone.", {"ring": True}),
        ("Two coin lesions and no cavities", {"disc": True, "ring": False}),
        ("Nothing of note.", {}),
        ("", {}),
        ("ANNULAR LESION seen", {"ring": True}),
        ("noncavity", {}),  # inside another word
        ("The lungs are not clear: cavity in the left upper zone", {"ring": True}),
    ],
)
def test_negation(text, want):
    assert labels_of(text) == want


def test_a_cue_inside_a_name_is_no_cue():
    assert labels_of("absent pulse in the left foot", {"ischaemia": ("absent pulse",)}) == {"ischaemia": True}
    assert labels_of("no absent pulse", {"ischaemia": ("absent pulse",)}) == {"ischaemia": False}


def test_the_longest_name_wins():
    vocabulary = {"mass": ("mass",), "fatty": ("fat mass",)}
    assert labels_of("a fat mass", vocabulary) == {"fatty": True}


def test_a_name_of_two_labels_is_an_error():
    with pytest.raises(ValueError, match="names both"):
        labels_of("spot", {"a": ("spot",), "b": ("spot",)})


@pytest.mark.parametrize("modality", MODALITIES)
def test_no_name_of_a_modality_reads_as_another_label(modality):
    vocabulary = names(modality)
    for label, synonyms in vocabulary.items():
        for name in synonyms:
            assert labels_of(f"There is {name} here.", vocabulary) == {label: True}
            assert labels_of(f"No {name}.", vocabulary) == {label: False}


subsets = st.lists(st.sampled_from(LABELS), unique=True, max_size=4)


@given(subsets, st.integers(0, 2**32), st.integers(0, 6))
@settings(max_examples=150, deadline=None)
def test_any_truth_survives_the_round_trip(found, seed, absent):
    rng = random.Random(seed)
    truth = [P1Finding(k, "left", "upper", 19, 14, 5, 0.7) for k in found]
    for vocabulary, write in ((P1, report), (COMPOUNDS, article)):
        there, denied = said(write(truth, vocabulary, rng, absent=min(absent, 2)), vocabulary)
        assert there == set(found)
        assert len(denied) == min(absent, 2, 6 - len(found))


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_text_is_read(text):
    assert set(labels_of(text)) <= set(LABELS)


def test_a_hostile_text_takes_no_time():
    import time

    start = time.process_time()
    labels_of("no " * 50_000 + "cavity " * 5_000 + "is " * 50_000)
    labels_of("cavity " + "and " * 100_000)
    assert time.process_time() - start < 5


def test_articles_are_60_to_120_words_with_the_finding_anywhere():
    captions = p1(1500, 4, text="article").reports
    lengths = np.array([len(c.split()) for c in captions])
    assert lengths.min() >= 60
    assert lengths.max() <= 120
    assert lengths.std() > 10
    starts = []
    for caption in captions:
        assert caption[0] == "("
        assert caption[2:4] == ") "
        rest = caption[4:]
        filler = [(rest.index(s), s) for s in BOILERPLATE if s in rest]
        before = rest[: min(i for i, w in _words(rest) if _compound(w))]
        done = sum(len(s.split()) for i, s in filler if i < len(before))
        starts.append(done / sum(len(s.split()) for _, s in filler))
    hist = np.histogram(starts, 4, (0, 1.0001))[0] / len(starts)
    assert np.abs(hist - 0.25).max() < 0.06  # uniform, up to the grain of a sentence


def _words(text):
    at = 0
    for word in text.split():
        at = text.index(word, at)
        yield at, word.strip(".;,").lower()


def _compound(word):
    return any(word in v for v in COMPOUNDS.values())


def test_compounds_are_rare_words():
    common = set(" ".join([*english(2000, 0), *BOILERPLATE]).lower().split())
    words = [w for v in COMPOUNDS.values() for w in v]
    assert len(set(words)) == 18
    assert not set(words) & common
    assert min(map(len, words)) >= 14


def test_english_is_seeded_and_says_nothing_medical():
    assert english(50, 1) == english(50, 1) != english(50, 2)
    assert not any(labels_of(s) for s in english(500, 0))
    assert len({w for s in english(3000, 0) for w in s.lower().split()}) > 180


def test_absences_are_absent():
    found = [P1Finding(k, "left", "upper", 19, 14, 5, 0.7) for k in LABELS[:5]]
    assert absences(found, P1, random.Random(0), 2) == ["wedge"]
