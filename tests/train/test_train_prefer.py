"""trl's DPO on a tiny causal model: ln 2 at first, answers learned, the base untouched and reachable."""

import math
from pathlib import Path

import pytest
import torch

from fabrica.curate.language.preference import Preference
from fabrica.errors import UsageError
from fabrica.models.language_bundle import LanguageBundle, language
from fabrica.safe import sha256
from fabrica.train.prefer import Preferring, adapted, prefer
from fabrica.types import Item, Origin, Record

PAIRS = [
    Preference(f"q{i}", f"q{i}", f"is there {a} ?", f" no {a} here", f" yes {a}")
    for i, a in enumerate(("effusion", "mass", "fracture", "edema"))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    origin = Origin("made", "a", "", "")
    words = [
        Record(
            p.id + s, p.id,
            items={"prompt": (Item("text", p.prompt, origin),), "answer": (Item("text", a, origin),)},
        )
        for p in PAIRS for s, a in (("c", p.chosen), ("r", p.rejected))
    ]  # fmt: skip
    torch.manual_seed(0)
    model, collate = language("small", words, lengths=(24, 24), vocabulary=80, width=32, depth=1, heads=2)
    return LanguageBundle(model.eval(), collate).merged(tmp_path_factory.mktemp("lm") / "base")


def test_dpo_by_trl(folder: Path, tmp_path: Path) -> None:
    before = sha256(folder / "model.safetensors")
    how = Preferring(lr=1e-2, epochs=6, batch=4, rank=4, alpha=8, length=48)
    made = prefer(folder, PAIRS, tmp_path / "adapter", how)
    assert made.losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert made.losses[-1] < made.losses[0]
    assert sha256(folder / "model.safetensors") == before
    assert not (made.adapter / "run").exists()
    tuned, ids = adapted(folder, made.adapter), torch.tensor([[3, 4, 5]])
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        changed = tuned(ids).logits
        with tuned.disable_adapter():
            off = tuned(ids).logits
        torch.testing.assert_close(off, base(ids).logits)
        assert not torch.allclose(changed, off)


def test_the_chosen_answers_alone_by_the_same_road(folder: Path, tmp_path: Path) -> None:
    """DPO's baseline: its first loss is that of the chosen answer's tokens, not ln 2, and it falls."""
    how = Preferring(loss="sft", lr=1e-2, epochs=6, batch=4, rank=4, alpha=8, length=48)
    made = prefer(folder, PAIRS, tmp_path / "adapter", how)
    assert made.losses[0] > 2
    assert made.losses[-1] < made.losses[0]


def test_errors(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model folder"):
        prefer(tmp_path, PAIRS, tmp_path / "out")
    with pytest.raises(UsageError, match="no preference pairs"):
        prefer(folder, [], tmp_path / "out")
    with pytest.raises(UsageError, match="two prompts"):
        prefer(folder, [Preference("a", "a", "x", "no", "yes", rejected_prompt="y")], tmp_path / "out")
