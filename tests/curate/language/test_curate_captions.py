"""Label captions: true to the labels, many, seeded, refused where they could not be read back."""

import random
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.curate.language.captions import LabelCaptions, LabelSchema, TemplateBank, faithful, read_back
from fabrica.curate.language.grammar import DENIALS, FRAMES, IMAGE_NAMES, NORMAL_FRAMES
from fabrica.errors import UsageError
from fabrica.types import Absent, Item, Origin, Record

ORIGIN = Origin("made", "a.png", "ab", "CC0-1.0")
CHEST = LabelSchema(
    modality="xray", organ="chest", normal="normal",
    labels={
        "pneumonia": ("pneumonia", "pulmonary infection", "infective consolidation"),
        "bacterial": ("bacterial pneumonia", "pneumonia of bacterial origin"),
        "effusion": ("pleural effusion", "fluid in the pleural space", "effusion"),
        "mass": ("mass", "mass lesion"),
    },
)  # fmt: skip
FINDINGS = tuple(CHEST.labels)


def record(labels: dict, id_: str = "r1", modality: str = "xray", **items: tuple[Item, ...]) -> Record:
    image = (Item("image", np.zeros((4, 4), np.uint8), ORIGIN),)
    return Record(id_, "p1", {"modality": modality}, {"image": image, **items}, labels=labels)


def run(step: LabelCaptions, *records: Record) -> tuple[list[Record], list[tuple[str, str]]]:
    dropped: list[tuple[str, str]] = []
    return list(step(iter(records), lambda r, reason: dropped.append((r.id, reason)))), dropped


def captions(record: Record) -> list[str]:
    return [i.text() for i in record.items.get("caption", ())]


@given(
    st.lists(st.sampled_from(FINDINGS), unique=True), st.integers(0, 3), st.sampled_from(sorted(IMAGE_NAMES)),
    st.integers(0, 10**6),
)  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_every_caption_reads_back_as_its_labels(present: list[str], denials: int, modality: str, seed: int) -> None:
    """Agreement 100 % (S01), over all frames, synonyms, denials, modalities and numbers of findings."""
    schema = LabelSchema(modality=modality, organ="chest", labels=CHEST.labels, normal="normal")
    absent = [k for k in FINDINGS if k not in present][:denials]
    written = TemplateBank().write(schema, present, absent, 6, random.Random(seed))
    assert len(set(written)) == len(written) > 1
    for caption in written:
        said = read_back(caption, schema)
        assert {k for k, there in said.items() if there} == set(present or ["normal"])
        assert {k for k, there in said.items() if not there} == set(absent)


def test_every_frame_by_itself_reads_back() -> None:
    image = "chest X-ray"
    for frame in FRAMES:
        text = frame.format(image=image, findings="bacterial pneumonia and effusion")
        assert read_back(text, CHEST) == {"bacterial": True, "effusion": True}, frame
    for frame in NORMAL_FRAMES:
        assert read_back(frame.format(image=image), CHEST) == {"normal": True}, frame
    for frame in DENIALS:
        assert read_back(frame.format("mass or pleural effusion"), CHEST) == {"mass": False, "effusion": False}, frame


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("No pleural effusion.", {"effusion": False}),
        ("No mass, effusion or pneumonia is seen.", {"mass": False, "effusion": False, "pneumonia": False}),
        ("There is no effusion but a mass is seen.", {"effusion": False, "mass": True}),
        ("Mass. No mass lesion elsewhere.", {"mass": True}),
        ("Massive heart.", {}),
        ("Abnormal chest X-ray.", {}),
        ("Normal chest X-ray without effusion.", {"normal": True, "effusion": False}),
    ],
)
def test_reading_known_sentences(text: str, said: dict[str, bool]) -> None:
    assert read_back(text, CHEST) == said


def test_several_captions_in_role_caption_with_their_origin() -> None:
    (out,), dropped = run(LabelCaptions(schemas=[CHEST], per_record=6), record({"effusion": 1.0, "mass": 0.0}))
    assert dropped == []
    assert len(set(captions(out))) == 6
    for item in out.items["caption"]:
        assert item.origin.by == "model"
        assert item.origin.steps == ("label_captions",)
        assert (item.origin.source, item.origin.licence) == ("made", "CC0-1.0")
        assert read_back(item.text(), CHEST) == {"effusion": True}


def test_captions_depend_on_seed_and_record_alone() -> None:
    step, other = LabelCaptions(schemas=[CHEST]), LabelCaptions(schemas=[CHEST], seed=1)
    a, b = record({"mass": 1.0}, "a"), record({"mass": 1.0}, "b")
    (first, second), _ = run(step, a, b)
    (second_again, first_again), _ = run(step, b, a)
    assert captions(first) == captions(first_again)
    assert captions(second) == captions(second_again)
    assert captions(first) != captions(second)
    assert captions(first) != captions(run(other, a)[0][0])


def test_golden_captions() -> None:
    (out,), _ = run(LabelCaptions(schemas=[CHEST], per_record=3), record({"effusion": 1.0, "mass": 1.0}))
    assert captions(out) == [
        "Mass lesion and pleural effusion on radiograph of the chest.",
        "This X-ray of the chest demonstrates fluid in the pleural space and mass lesion.",
        "Evidence of effusion and mass on this chest radiograph.",
    ]


def test_join_names_all_and_sample_names_one() -> None:
    labels = {"effusion": 1.0, "mass": 1.0, "pneumonia": 0.0, "bacterial": 0.0}
    (joined,), _ = run(LabelCaptions(schemas=[CHEST]), record(labels))
    assert all(read_back(c, CHEST) == {"effusion": True, "mass": True} for c in captions(joined))
    (sampled,), _ = run(LabelCaptions(schemas=[CHEST], multi="sample", per_record=12), record(labels))
    assert {tuple(read_back(c, CHEST)) for c in captions(sampled)} == {("effusion",), ("mass",)}


def test_no_finding_has_its_own_bank_and_unknown_says_nothing() -> None:
    step = LabelCaptions(schemas=[CHEST])
    nothing = dict.fromkeys(FINDINGS, 0.0)
    (zeros, said_normal, unknown, half), dropped = run(
        step,
        record(nothing),
        record({"normal": 1.0}),
        record({"mass": 0.0}),
        record({**nothing, "mass": Absent.NOT_DONE}),
    )
    assert dropped == []
    assert all(read_back(c, CHEST) == {"normal": True} for c in captions(zeros) + captions(said_normal))
    assert len(captions(zeros)) == 8
    assert captions(unknown) == captions(half) == []


def test_denials_are_of_known_zeros_only() -> None:
    (out,), _ = run(
        LabelCaptions(schemas=[CHEST], denials=3), record({"mass": 1.0, "effusion": 0.0, "pneumonia": Absent.NOT_DONE})
    )
    assert all(read_back(c, CHEST) == {"mass": True, "effusion": False} for c in captions(out))


def test_normal_and_a_finding_contradict() -> None:
    _, dropped = run(LabelCaptions(schemas=[CHEST]), record({"normal": 1.0, "mass": 1.0}))
    assert dropped == [("r1", "contradictory_labels")]


def test_texts_of_people_are_left_alone_and_other_modalities_pass() -> None:
    report = (Item("text", "A mass.", ORIGIN),)
    with_report, ct = record({"mass": 1.0}, report=report), record({"anything": 1.0}, modality="ct")
    out, dropped = run(LabelCaptions(schemas=[CHEST]), with_report, ct)
    assert [r.items.get("caption") for r in out] == [None, None]
    assert dropped == []
    (both,), _ = run(LabelCaptions(schemas=[CHEST], always=True), with_report)
    assert len(captions(both)) == 8


def test_a_schema_may_be_for_one_source() -> None:
    theirs = LabelSchema(modality="xray", labels={"mass": ("their word",)}, source="elsewhere")
    (by_origin, by_group), _ = run(
        LabelCaptions(schemas=[theirs, LabelSchema(modality="xray", labels={"mass": ("our word",)}, source="made")]),
        record({"mass": 1.0}),
        Record("r2", "p", {"modality": "xray", "source": "elsewhere"}, labels={"mass": 1.0}),
    )
    assert all("our word" in c.lower() for c in captions(by_origin))
    assert all("their word" in c.lower() for c in captions(by_group))


def test_a_label_that_the_schema_does_not_know_is_an_error() -> None:
    with pytest.raises(UsageError, match="'cardiomegaly'"):
        run(LabelCaptions(schemas=[CHEST]), record({"cardiomegaly": 1.0}))
    lenient = LabelSchema(modality="xray", labels=CHEST.labels, ignore=("cardiomegaly",))
    (out,), _ = run(LabelCaptions(schemas=[lenient]), record({"cardiomegaly": 1.0, "mass": 1.0}))
    assert len(captions(out)) == 8


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"a": ("mass",), "b": ("Mass",)}, "names both"),
        ({"a": ("no mass",)}, "negation"),
        ({"a": ("mass but small",)}, "negation"),
        ({"a": ("X-ray",)}, "own name"),
        ({"a": "mass"}, "list of phrases"),
        ({"a": ()}, "list of phrases"),
        ({"a": ("unremarkable lung",)}, "negation"),
    ],
)
def test_schemas_that_could_not_be_read_back_are_refused(labels: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        LabelSchema(modality="xray", organ="chest", labels=labels)


def test_an_unknown_modality_offers_the_near_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'xray'"):
        LabelSchema(modality="x-ray", labels={"a": ("mass",)})
    LabelSchema(modality="retro", labels={"a": ("mass",)}, image_names=("retro picture",))


def test_a_bank_of_one_warns() -> None:
    fixed = TemplateBank(frames=("a photo of {findings}",))
    schema = LabelSchema(modality="xray", labels={"mass": ("mass",)}, image_names=("picture",))
    with pytest.warns(UserWarning, match="has 1 caption"):
        LabelCaptions(schemas=[schema], bank=fixed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LabelCaptions(schemas=[CHEST])


def test_bank_size_is_the_number_of_distinct_captions() -> None:
    bank = TemplateBank()
    every = bank.write(CHEST, ["effusion"], [], 10**4, random.Random(0))
    assert len(every) == bank.size(CHEST, ["effusion"]) == 3 * 12 * 6


class Careless:
    """A bank as a language model may be: one caption true, one flipped, one that invents."""

    name, version = "careless", "1"

    def size(self, schema: LabelSchema, present: Sequence[str]) -> int:
        return 3

    def write(
        self, schema: LabelSchema, present: Sequence[str], absent: Sequence[str], count: int, rng: random.Random
    ) -> list[str]:
        return ["Film with a mass.", "No mass is seen.", "A mass and an effusion."]


def test_untrue_captions_of_other_banks_are_thrown_away() -> None:
    step = LabelCaptions(schemas=[CHEST], bank=Careless())
    (out,), _ = run(step, record({"mass": 1.0}))
    assert captions(out) == ["Film with a mass."]
    _, dropped = run(step, record({"effusion": 1.0}))
    assert dropped == [("r1", "unfaithful_captions")]


def test_faithful_is_exact() -> None:
    assert faithful("X-ray with mass.", CHEST, ["mass"], [])
    assert not faithful("X-ray with mass.", CHEST, ["mass"], ["effusion"])
    assert not faithful("X-ray with mass and effusion.", CHEST, ["mass"], [])


def test_without_a_normal_label_zeros_deny_and_never_call_normal() -> None:
    schema = LabelSchema(modality="xray", organ="chest", labels={"mass": ("mass",), "effusion": ("effusion", "fluid")})
    (made,), dropped = run(LabelCaptions(schemas=[schema]), record({"mass": 0.0, "effusion": 0.0}))
    assert not dropped
    assert len(captions(made)) == 8
    for caption in captions(made):
        assert read_back(caption, schema) == {"mass": False, "effusion": False}
        assert "normal" not in caption.lower()
