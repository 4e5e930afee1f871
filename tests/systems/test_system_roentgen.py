"""RoentGen's arms (S26): what is frozen is hashed, what is trained moves, texts that do not fit are counted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fabrica.errors import Refused, UsageError
from fabrica.phantom.radiographs import records
from fabrica.systems import load_system
from fabrica.train import InMemory
from fabrica.train.ledger import Moved, curriculum
from fabrica.types import Rights

SYSTEM = load_system("roentgen")
PARTS = {"vae": ("vae.",), "denoiser": ("denoiser.",), "text": ("text.",)}
SMALL = {"length": 12, "widths": (8, 8), "width": 16, "depth": 1, "batch": 8, "steps": 3, "warmup": 0}


@pytest.fixture(scope="module")
def rows():
    return records(40, 100)


def built(rows, **changes):
    settings = replace(SYSTEM.settings["tiny"], **{**SMALL, **changes})
    torch.manual_seed(0)
    bundle = SYSTEM.build(settings, rows)
    return bundle, SYSTEM.stages(settings, bundle)


@pytest.mark.parametrize(
    ("train", "moved"), [(("denoiser",), {"denoiser"}), (("denoiser", "text"), {"denoiser", "text"})]
)
def test_an_arm_moves_its_parts_and_leaves_the_bytes_of_all_others(rows, tmp_path, train, moved):
    bundle, stages = built(rows, train=train)
    before = bundle.model.hashes()
    data = {"adapt": InMemory.of(rows, bundle.collate)}
    entry = curriculum(bundle, stages, data, tmp_path, parts=PARTS)[0]
    after = bundle.model.hashes()
    assert set(entry.moved) == moved == {p for p in before if before[p] != after[p]}
    assert before["vae"] == after["vae"]
    assert {n.split(".")[0] for n in entry.trained} == moved


def test_a_frozen_part_that_moves_stops_the_run(rows, tmp_path):
    """The same stage, declared to train the denoiser alone: the ledger sees that the text part moved."""
    bundle, stages = built(rows, train=("denoiser",))
    loss = stages[0].objectives["noise"]

    class Careless:
        reads = loss.reads

        def __call__(self, model, batch):
            with torch.no_grad():
                model.text.words.weight.add_(1.0)
            return loss(model, batch)

    bad = replace(stages[0], objectives={"noise": Careless()})
    with pytest.raises(Moved, match="changed text"):
        curriculum(bundle, (bad,), {"adapt": InMemory.of(rows, bundle.collate)}, tmp_path, parts=PARTS)


def test_the_untouched_arm_has_no_stage_and_the_encoder_of_images_is_no_arm(rows):
    assert built(rows, train=())[1] == ()
    with pytest.raises(UsageError, match="always frozen"):
        built(rows, train=("vae",))


def test_an_arm_goes_on_from_the_base_it_is_given(rows, tmp_path):
    base = built(rows)[0]
    folder = base.save_pretrained(tmp_path / "base")
    again, _ = built(rows[:20], base=str(folder))
    assert again.model.hashes() == base.model.hashes()
    dark = [r.updated(items={**r.items, "image": (replace(r.items["image"][0], value=_flat(r)),)}) for r in rows]
    with pytest.raises(UsageError, match="standard deviation"):
        built(dark, base=str(folder))


def _flat(record):
    """Pictures without any contrast: their latents are far from unit variance."""
    return np.full_like(record.items["image"][0].array(), 150)


def test_texts_that_do_not_fit_are_counted_on_the_card_and_not_learned(rows):
    bundle, _ = built(rows, length=5)
    told = bundle.card["text"]
    assert told["policy"] == "drop"
    assert 0 < told["too_long"] < told["texts"] == 40
    batch = bundle.collate(rows, 0)
    assert int((~batch.fields["text"].valid).sum()) == told["too_long"]
    cut, _ = built(rows, length=5, overflow="truncate")
    assert cut.collate(rows, 0).fields["text"].valid.all()
    assert cut.card["text"]["policy"] == "truncate"


def test_the_section_that_is_asked_for_is_read_first(rows):
    both = [r.updated(items={**r.items, "findings": r.items["impression"]}) for r in rows]
    assert built(both)[0].collate.fields["text"].roles[0] == "impression"
    assert built(both, section="findings")[0].collate.fields["text"].roles[0] == "findings"


def test_rights_are_asked_and_the_strictest_go_on_the_card(rows):
    closed = [rows[0].updated(rights=Rights("CC0-1.0", "credentialed", "none")), *rows[1:]]
    with pytest.raises(Refused, match="access"):
        built(closed)
    card = built(closed, access=("open", "credentialed"))[0].card
    assert (card["rights"]["access"], card["rights"]["share"]) == ("credentialed", "none")
    assert card["latent_std"] == pytest.approx(1.0, abs=0.1)
