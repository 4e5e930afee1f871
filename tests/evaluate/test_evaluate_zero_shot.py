"""Prompt ensembles: normalised mean, versions that see every character, faults by name."""

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.evaluate.zero_shot import Prompts, class_probabilities, class_weights, label_probabilities, softmax

WORDS = {"heart": 0, "lung": 1, "bone": 2, "no": 3, "photo": 4}


def embed(texts, scale=1.0):
    """Bags of known words, one axis a word; the length of a raw row is arbitrary."""
    rows = np.array([[t.lower().split().count(w) + 0.01 for w in WORDS] for t in texts], dtype=np.float32)
    return rows * scale


PROMPTS = Prompts("1", {"heart": ("heart",), "lung": ("lung", "lung tissue")}, ("photo of {}", "{}"))


def test_scaling_one_templates_raw_embedding_does_not_move_the_class_weight():
    sets = [["photo of heart", "heart"], ["lung"]]
    plain = class_weights(embed, sets)

    def louder(texts):
        rows = embed(texts)
        rows[0] *= 10
        return rows

    assert np.allclose(class_weights(louder, sets), plain, atol=1e-6)
    assert np.allclose(np.linalg.norm(plain, axis=1), 1, atol=1e-6)


def test_the_weight_is_the_unit_mean_of_unit_rows():
    rows = embed(["photo of heart", "heart"])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    want = rows.mean(0) / np.linalg.norm(rows.mean(0))
    assert np.allclose(class_weights(embed, [["photo of heart", "heart"]])[0], want, atol=1e-6)


def test_classes_and_labels():
    images = np.eye(5, dtype=np.float32)[[0, 1]]
    chances = class_probabilities(images, embed, PROMPTS, ["heart", "lung"], scale=10)
    assert chances.argmax(1).tolist() == [0, 1]
    assert np.allclose(chances.sum(1), 1)
    found = label_probabilities(images, embed, PROMPTS, ["heart", "lung"], scale=10)
    assert found[0, 0] > 0.5 > found[0, 1] or found[0, 0] > found[0, 1]
    assert found.shape == (2, 2)


def test_frames_of_a_modality_and_whole_sentences():
    p = Prompts(
        "2", {"effusion": ("effusion",), "normal": ()}, ("a picture of {}",), {"xray": ("chest X-ray with {}",)},
        full={"normal": ("clear lungs",)},
    )  # fmt: skip
    assert p.texts("effusion", "xray") == ("chest X-ray with effusion",)
    assert p.texts("effusion", "ct") == ("a picture of effusion",)
    assert p.texts("normal", "xray") == ("clear lungs",)
    assert p.texts("effusion", deny=True) == ("no effusion", "no evidence of effusion")


def test_a_character_changes_the_version():
    other = Prompts("1", {"heart": ("heart",), "lung": ("lung", "lung tissue")}, ("photo of {}", "{}."))
    assert other.tag != PROMPTS.tag
    assert PROMPTS.tag == Prompts("1", dict(PROMPTS.classes), PROMPTS.frames).tag


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Prompts("1", {}), "no class"),
        (lambda: Prompts("1", {"a": ()}), "at least one synonym"),
        (lambda: Prompts("1", {"a": "word"}), "at least one synonym"),
        (lambda: Prompts("1", {"a": ("x",)}, ()), "no frame"),
        (lambda: Prompts("1", {"a": ("x",)}, ("no place",)), "exactly one"),
        (lambda: Prompts("1", {"a": ("x",), "b": ("X",)}), "names both"),
        (lambda: PROMPTS.texts("bone"), "no class 'bone'"),
        (lambda: class_weights(embed, [["a"], []]), "without prompts"),
    ],
)
def test_faults_are_named(make, match):
    with pytest.raises(UsageError, match=match):
        make()


def test_softmax_does_not_overflow():
    assert softmax(np.array([1e4, 0.0])).tolist() == [1, 0]
