"""The fact guard against planted errors of each kind, and against clean phantom texts."""

import random
import re

import pytest

from fabrica.curate.language.grammar import LabelSchema
from fabrica.curate.language.guard import REASONS, Fact, FactGuard, contradictions, facts_of, leaks, merged
from fabrica.phantom import hospital, p1
from fabrica.phantom.captions import P1
from fabrica.phantom.findings import FINDINGS as PHANTOM
from fabrica.types import Absent, Item, Origin, Record, Region

MODALITIES = ("xray", "ct", "mr", "ultrasound", "pathology", "fundus")
MADE = Origin("demo", "k", "", "", "model")


def sets():
    """(names, records) of the phantom: P1 and six modalities of the hospital, with regions that say their place."""
    yield P1, list(p1(300, 1).records(regions=True))
    for modality in MODALITIES:
        names = {k: v.names for k, v in PHANTOM[modality].items()}
        yield names, [r for r in hospital.records(100, modality, 1, size=32) if r.first("report") is not None]


@pytest.fixture(scope="module")
def cases():
    """(names, facts, sentences) of every phantom record."""
    out = []
    for names, records in sets():
        for r in records:
            text = r.first("report").text()
            out.append((names, facts_of(r, names), re.split(r"(?<=[.]) | \. ", text)))
    return out


def joined(sentences):
    return " ".join(s if s.endswith(".") else s + "." for s in sentences if s)


def said(sentence, names):
    return next((k for k, of in names.items() if any(n.lower() in sentence.lower() for n in of)), None)


def plant(kind, names, facts, sentences, rng):
    """The text with one error of a kind; None where it cannot be planted. Wordings differ from case to case."""
    there = [k for k, f in facts.items() if f.there]
    absent = [k for k, f in facts.items() if not f.there]
    at = {k: [i for i, s in enumerate(sentences) if said(s, names) == k] for k in facts}
    if kind == "missing_finding":
        label = rng.choice(there) if there else None
        return label and joined(s for i, s in enumerate(sentences) if i not in at[label])
    if kind == "unlisted_finding":
        extra = rng.choice(["scoliosis", "a hiatal hernia", "pulmonary embolism", "appendicitis", "a fracture",
                            "splenomegaly", "possible tuberculosis", "hydronephrosis", "cholelithiasis"])  # fmt: skip
        frame = rng.choice(["There is {}.", "{} is seen.", "Also note {}.", "Findings include {}."])
        return joined([*sentences, frame.format(extra)])
    if kind == "flipped_negation":
        label = rng.choice(there + absent)
        name = rng.choice(names[label])
        if label in there:
            frame = rng.choice(["No {}.", "There is no evidence of {}.", "Without {}.", "{} is not seen.",
                                "{} is absent.", "Negative for {}."])  # fmt: skip
        else:
            frame = rng.choice(["There is {}.", "{} is present.", "Moderate {}.", "Probable {}.", "Evidence of {}."])
        return joined([*(s for i, s in enumerate(sentences) if i not in at[label]), frame.format(name)])
    sided = [k for k in there if facts[k].sides in ({"left"}, {"right"}) and at[k]]
    if not sided:
        return None
    label = rng.choice(sided)
    swap = {"left": "right", "right": "left"}
    flipped = [re.sub(r"\b(left|right)\b", lambda m: swap[m[1]], s) if i in at[label] else s
               for i, s in enumerate(sentences)]  # fmt: skip
    return joined(flipped) if flipped != sentences else None


@pytest.mark.parametrize("kind", ["missing_finding", "unlisted_finding", "flipped_negation", "flipped_side"])
def test_planted_errors_are_found(cases, kind, capsys):
    rng = random.Random(kind)
    hit = total = 0
    for names, facts, sentences in cases:
        text = plant(kind, names, facts, sentences, rng)
        if text is None:
            continue
        total += 1
        hit += kind in contradictions(text, facts, merged(names))
    with capsys.disabled():
        print(f"\n{kind}: {hit} of {total} planted errors found")
    assert total >= 300
    assert hit >= 0.99 * total


def test_clean_texts_pass(cases, capsys):
    alarms = [s for names, facts, s in cases if contradictions(joined(s), facts, merged(names))]
    with capsys.disabled():
        print(f"\n{len(alarms)} false alarms on {len(cases)} clean texts")
    assert len(cases) >= 800
    assert len(alarms) <= 0.01 * len(cases), alarms[:3]


def test_planted_leaks_are_found_and_honest_questions_pass(cases):
    rng = random.Random(0)
    asked = caught = alarms = 0
    for names, facts, _ in cases:
        for label in (k for k, f in facts.items() if f.there):
            name, other = rng.choice(names[label]), rng.choice(names[label])
            sides = sorted(facts[label].sides)
            bad = [(f"Which finding explains the {name}?", f"a {other}")]
            good = [("Which finding is seen?", f"a {other}"), (f"Is there a {name}?", "yes")]
            if sides:
                bad.append((f"Where is the {name} of the {sides[0]} side?", sides[0]))
                good += [(f"Where is the {name}?", sides[0]), (f"Is the {name} on the left or on the right?", sides[0])]
            asked += len(bad)
            caught += sum(leaks(q, a, names) for q, a in bad)
            alarms += sum(leaks(q, a, names) for q, a in good)
    assert asked >= 500
    assert caught >= 0.99 * asked
    assert alarms == 0


# ---------------------------------------------------------------- the rules, one by one

NAMES = {"effusion": ("pleural effusion", "effusion"), "mass": ("mass",), "cyst": ("cyst",)}
LEFT = frozenset({"left"})


@pytest.mark.parametrize(
    ("text", "facts", "want"),
    [
        ("Left effusion.", {"effusion": Fact(True, LEFT)}, ()),
        ("Effusion.", {"effusion": Fact(True, LEFT)}, ()),
        ("No effusion on the right. Left effusion.", {"effusion": Fact(True, LEFT)}, ()),
        ("No effusion on the right.", {"effusion": Fact(True, LEFT)}, ("missing_finding",)),
        ("Bilateral effusion.", {"effusion": Fact(True, LEFT)}, ("flipped_side",)),
        ("Bilateral effusion.", {"effusion": Fact(True, frozenset({"left", "right"}))}, ()),
        ("Possible effusion.", {"effusion": Fact(True)}, ("missing_finding",)),
        ("Possible effusion.", {"effusion": Fact(False)}, ("flipped_negation",)),
        ("No mass.", {"effusion": Fact(False)}, ()),
        ("A mass. History of cyst.", {"mass": Fact(True)}, ()),
        ("A mass and a cyst.", {"mass": Fact(True)}, ("unlisted_finding",)),
        ("Effusion is not seen. Cyst on the left.", {"effusion": Fact(True), "cyst": Fact(True, frozenset({"right"}))},
         ("flipped_negation", "flipped_side")),
        ("", {"mass": Fact(True)}, ("missing_finding",)),
        ("", {}, ()),
    ],
)  # fmt: skip
def test_each_rule(text, facts, want):
    assert contradictions(text, facts, NAMES) == want


def record(text="", *, by="model", labels=None, regions=(), **more):
    from dataclasses import replace

    items = {"caption": (Item("text", text, replace(MADE, by=by)),)} if text else {}
    items |= {k: (Item("text", v, replace(MADE, by=by)),) for k, v in more.items()}
    return Record("r", "s", items=items, labels=labels or {}, regions=regions)


def test_the_step_drops_with_the_first_reason_and_leaves_human_texts_alone():
    guard = FactGuard(names=NAMES)
    bad = record("A mass.", labels={"mass": 0.0, "effusion": 1.0})
    drops = []
    kept = list(
        guard([bad, record("A mass.", by="human", labels={"mass": 0.0}), record()], lambda r, why: drops.append(why))
    )
    assert drops == ["missing_finding"]
    assert len(kept) == 2
    assert guard.judge(bad) == ("missing_finding", "flipped_negation")
    assert set(guard.judge(bad)) <= set(REASONS)
    assert FactGuard(names=NAMES, every=True).judge(record("A mass.", by="human", labels={"mass": 0.0}))


def test_regions_are_facts_and_unknown_labels_are_none():
    box = Region("image", "box", __import__("numpy").zeros(4), "mass", MADE, text="upper left")
    r = record("Right mass.", labels={"effusion": Absent.NOT_DONE, "cyst": 0.0}, regions=(box,))
    assert facts_of(r, NAMES) == {"cyst": Fact(False), "mass": Fact(True, LEFT)}
    assert FactGuard(names=NAMES).judge(r) == ("flipped_side",)


def test_questions_and_answers():
    guard = FactGuard(names=NAMES)
    labels = {"mass": 1.0, "effusion": 0.0}
    assert guard.judge(record(question="What is seen?", answer="a mass", labels=labels)) == ()
    assert guard.judge(record(question="What is the mass?", answer="a mass", labels=labels)) == ("answer_leak",)
    assert guard.judge(record(question="What is seen?", answer="an effusion", labels=labels)) == ("flipped_negation",)


def test_required_limits_what_must_be_said():
    labels = {"mass": 1.0, "effusion": 1.0}
    assert FactGuard(names=NAMES, required=("mass",)).judge(record("A mass.", labels=labels)) == ()
    assert FactGuard(names=NAMES, required=("effusion",)).judge(record("A mass.", labels=labels)) == (
        "missing_finding",
    )


def test_captions_of_a_schema_pass_their_own_guard():
    import random as r

    from fabrica.curate.language.grammar import TemplateBank

    schema = LabelSchema(modality="xray", organ="chest", labels={"a": ("mass", "lump"), "b": ("effusion",)})
    guard = FactGuard.of_schema(schema)
    for present, absent in ((["a"], ["b"]), (["a", "b"], []), (["b"], [])):
        labels = {**dict.fromkeys(present, 1.0), **dict.fromkeys(absent, 0.0)}
        for caption in TemplateBank().write(schema, present, absent, 40, r.Random(0)):
            assert guard.judge(record(caption, labels=labels)) == (), caption


def test_own_names_win_over_the_general_lexicon():
    both = merged({"ring": ("cavity",)})
    assert both["ring"] == ("cavity",)
    assert "cavity" not in [n for k, of in both.items() for n in of if k != "ring"]
