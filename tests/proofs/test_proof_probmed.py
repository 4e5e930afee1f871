"""ProbMed's proof at a tiny size, and what its real arm reads."""

import pytest

from fabrica.phantom.facts import facts, pictures
from fabrica.proofs import Plan, probmed
from fabrica.proofs._probmed import COIN, HEDGE, KEPT, POOLED, YES, Job, Size, modality_of, part
from fabrica.proofs.probmed import prove

TINY = Size(seeds=(100, 101), images=120, train=64, test=24, steps=3, resamples=60)


@pytest.fixture(scope="module")
def proof():
    return prove(TINY, Plan(workers=1))


def test_every_bar_of_the_sheet_is_there(proof) -> None:
    assert [c.name for c in proof.claims] == [
        "coin meets its chance", "yes-sayer", "coarse skill", "another ranking", "net sees conditions",
        "net knows no places",
    ]  # fmt: skip
    names = [c.name for c in proof.controls]
    assert names[:5] == [
        "ranked as planted", "places can be learnt", "order of the answers", "both words", "unlisted findings"
    ]  # fmt: skip
    assert (probmed.NEAR, probmed.FIRST, probmed.ALL, probmed.SEES) == (0.03, 0.90, 0.10, 0.90)


def test_scripted_answerers_do_as_planted_even_at_this_size(proof) -> None:
    shown = {c.name: c.shown for c in (*proof.claims, *proof.controls)}
    assert all(shown[n] for n in ("yes-sayer", "ranked as planted", "order of the answers", "both words"))
    assert shown["unlisted findings"]
    assert max(proof.arms[f"{HEDGE}, modality"]) == 0
    assert max(proof.arms[f"{YES}, modality"]) < 0.3
    assert not shown["net sees conditions"]  # three steps teach nothing: the bar can fail


def test_chance_is_that_of_the_questions_scored(proof) -> None:
    chance = proof.details["chance"]
    assert chance[COIN]["modality"] == chance[COIN]["organ"] == 0.25
    assert chance[COIN]["abnormality"] == 0.5
    assert chance[POOLED]["position"] == chance[KEPT]["position"] != chance[COIN]["position"]


def test_the_same_part_gives_the_same_units() -> None:
    job = Job("scripted", 100, TINY)
    assert part(job, Plan()).units == part(job, Plan()).units


def test_facts_and_pictures_are_seeded_and_true() -> None:
    assert facts(20, 5) == facts(20, 5)
    assert facts(20, 5).records != facts(20, 6).records
    some = facts(400, 1, unlisted=0.5)
    for record in some.records:
        listed = {k for k, v in record.labels.items() if v == 1.0}
        assert listed <= some.truth[record.id]
        assert {r.label for r in record.regions} == listed
    hidden = sum(len(t) for t in some.truth.values()) - sum(len(r.regions) for r in some.records)
    assert hidden / sum(len(t) for t in some.truth.values()) == pytest.approx(0.5, abs=0.08)
    for record in pictures(30, 2):
        image = record.first("image").array()
        for region in record.regions:
            x, y = region.data.round().astype(int)
            assert image[y - 4 : y + 5, x - 4 : x + 5].max() > 0.7
        border = probmed_margin(image)
        assert abs(border).max() < 0.6


def probmed_margin(image):
    """The frame that no shape reaches."""
    from fabrica.phantom.facts import MARGIN

    inner = image.copy()
    inner[MARGIN:-MARGIN, MARGIN:-MARGIN] = 0
    return inner


def test_modalities_are_read_from_open_answers() -> None:
    rows = [
        {"image": "a", "question": "what imaging modality was used?", "answer": "MRI-FLAIR"},
        {"image": "b", "question": "how was this image taken?", "answer": "plain film x-ray"},
        {"image": "c", "question": "what kind of scan is this?", "answer": "ct with contrast"},
        {"image": "d", "question": "how was this image taken?", "answer": "with contrast"},
        {"image": "e", "question": "what modality is this?", "answer": "ct"},
        {"image": "e", "question": "what type of image is this?", "answer": "mri"},
        {"image": "f", "question": "where is the mass?", "answer": "ct"},
    ]
    assert modality_of(rows) == {"a": "MRI", "b": "X-ray", "c": "CT"}


@pytest.mark.real_data
def test_real_sets(shared_data) -> None:
    """VQA-RAD: always-yes is right for half of its yes/no questions."""
    shared_data("vqa_rad")
    shared_data("mediconfusion")
    found = part(Job("real", 0, TINY), Plan())
    assert found.values["per question, real closed: yes always"] == pytest.approx(0.505, abs=0.005)
    assert found.values["pairs right, A always"] == 0
    assert found.values["pairs right, coin"] == pytest.approx(0.25, abs=0.08)
    assert sum(found.details["real modality"].values()) == 39
