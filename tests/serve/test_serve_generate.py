"""Synthetic images on request: every one says so, in its record and in its file."""

import numpy as np
import pytest
import torch

from fabrica.errors import Refused, UsageError
from fabrica.evaluate.generation import Memory
from fabrica.phantom.radiographs import records
from fabrica.serve.generate import MARK, generate, marks
from fabrica.sources.image import decode
from fabrica.systems import load_system


@pytest.fixture(scope="module")
def bundle():
    from dataclasses import replace

    system = load_system("roentgen")
    torch.manual_seed(0)
    made = system.build(replace(system.settings["tiny"], length=24, widths=(8, 8)), records(60, 100))
    made.model.eval()
    return made


def test_record_and_file_say_synthetic_prompt_seed_and_weights(bundle, tmp_path):
    made = generate(bundle, "small left nodule", 2, seed=7, guidance=2.0, steps=2, out=tmp_path)
    assert [r.groups["seed"] for r in made] == ["7", "8"]
    for record in made:
        image, caption = record.items["image"][0], record.items["caption"][0]
        assert image.origin.by == caption.origin.by == "synthetic"
        assert caption.text() == "small left nodule"
        assert image.origin.key == f"{bundle.fingerprint}/{record.groups['seed']}"
        assert image.origin.steps == ("generate:guidance=2,steps=2,sampler=ddim",)
        assert (record.groups["data"], record.rights.licence) == ("synthetic", "CC0-1.0")
        told = marks(tmp_path / f"{record.id}.png")
        assert told["Comment"] == MARK
        assert (told["Synthetic"], told["Prompt"], told["Seed"]) == ("true", "small left nodule", record.groups["seed"])
        assert told["Weights"] == bundle.fingerprint
        np.testing.assert_array_equal(decode((tmp_path / f"{record.id}.png").read_bytes())[0], image.array())


def test_the_same_seed_gives_the_same_image_and_id(bundle):
    one, two = (generate(bundle, "no finding", 1, seed=3, steps=2)[0] for _ in range(2))
    assert one.id == two.id
    np.testing.assert_array_equal(one.items["image"][0].array(), two.items["image"][0].array())
    assert generate(bundle, "no finding", 1, seed=4, steps=2)[0].id != one.id


def test_a_prompt_with_letters_of_any_script_stands_in_the_file(bundle, tmp_path):
    made = generate(bundle, "épanchement 胸水", 1, steps=1, out=tmp_path)
    assert marks(tmp_path / f"{made[0].id}.png")["Prompt"] == "épanchement 胸水"


def test_what_cannot_be_answered_is_refused(bundle):
    with pytest.raises(UsageError, match="3 images and 2 seeds"):
        generate(bundle, "no finding", 3, seeds=[0, 1], steps=1)
    with pytest.raises(UsageError, match="is empty"):
        generate(bundle, "", 1, steps=1)
    with pytest.raises(UsageError, match="wanted 1 or more"):
        generate(bundle, "no finding", 0)


def test_near_copies_of_training_images_block_it(bundle):
    copies = Memory(0.4, 0.3, 0.5, 3, 0.1, 100, 100)
    with pytest.raises(Refused, match="memorised"):
        generate(bundle, "no finding", 1, steps=1, memory=copies)
    assert generate(bundle, "no finding", 1, steps=1, memory=Memory(1.0, 0.9, 1.1, 0, 0.1, 100, 100))
