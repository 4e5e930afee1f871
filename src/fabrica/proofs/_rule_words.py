"""RULE's second claim on a causal language model: over-reliance learned from words, undone by trl's DPO."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.types import Item, Origin, Record

if TYPE_CHECKING:
    from fabrica.curate.language.preference import Preference
    from fabrica.phantom.told import Told

Rights = NDArray[np.bool_]
TRUSTED = 0.97  # how often reports were right where the start model learned to read
BATCH, RANK, BETA = 32, 8, 0.1
START, DPO, SFT = "words, start", "words, KBPT by trl", "words, chosen answers alone (SFT) by trl"


def words(
    seed: int, train: int, test: int, steps: int, grid: Sequence[tuple[int, float]], device: str
) -> tuple[dict[str, float], dict[str, Any]]:
    """Values by name and details: a small model that read where reports were right is asked where they often are not;
    DPO and SFT on the same mined pairs, each with its best (epochs, rate) of `grid` on validation."""
    from fabrica.phantom.told import told

    parts = [told(n, 10 * seed + i) for i, n in enumerate((train, test // 2, test))]
    values: dict[str, float] = {}
    details: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = _reads(told(2 * train, 10 * seed + 5, right=TRUSTED), steps, seed, device, Path(folder))
        reader = _Reader(base)
        pairs = _mined(reader, parts[0])
        values["words, pairs"] = float(len(pairs))
        _tell(values, START, reader, parts[2])
        for arm, loss in ((DPO, "dpo"), (SFT, "sft")):
            if not pairs:  # it never went wrong: nothing to learn from
                _tell(values, arm, reader, parts[2])
                continue
            runs = {c: _tuned(base, pairs, c, loss, seed, device) for c in grid}
            best = max(grid, key=lambda c: runs[c][0].right(parts[1], shown=True).mean())
            _tell(values, arm, runs[best][0], parts[2])
            details[arm] = list(best)
            if loss == "dpo":
                values["words, first loss"] = runs[best][1]
    return values, details


def _reads(some: Sequence[Told], steps: int, seed: int, device: str, folder: Path) -> Path:
    """A small language model that learned to answer, with reports and without; its folder."""
    import torch

    from fabrica.models.language_bundle import LanguageBundle, language
    from fabrica.objectives.language import NextToken
    from fabrica.train import InMemory, fit
    from fabrica.types import Schedule, Stage

    origin = Origin("phantom-told", "", "", "CC0-1.0", "synthetic")
    records = [
        Record(
            f"{t.id}/{way}", t.id,
            items={"prompt": (Item("text", asked, origin),), "answer": (Item("text", t.answer, origin),)},
        )
        for t in some for way, asked in (("alone", t.alone), ("shown", t.shown))
    ]  # fmt: skip
    torch.manual_seed(seed)
    model, collate = language("small", records, lengths=(40, 4), vocabulary=300, width=64, depth=2, heads=4)
    bundle = LanguageBundle(model, collate)
    begin = int(model.settings.bos_token_id)
    stage = Stage("read", collate, {"next": NextToken(begin)}, Schedule(steps, 64, 3e-3, warmup=20))
    fit(bundle, (stage,), InMemory.of(records, collate), folder / "fit", seed=seed, device=device, save_every=0)
    model.to("cpu").eval()
    return bundle.merged(folder / "base")


class _Reader:
    """A model of a folder with an adapter or none, that says yes or no."""

    def __init__(self, folder: Path, adapter: Path | None = None) -> None:
        import transformers

        from fabrica.train.prefer import adapted, untuned

        tf: Any = transformers
        self.words = tf.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = untuned(folder) if adapter is None else adapted(folder, adapter)
        self.yes, self.no = (int(self.words.convert_tokens_to_ids(w)) for w in ("yes", "no"))

    def says(self, prompts: Sequence[str]) -> Rights:
        """(n,) whether "yes" is likelier than "no" after each prompt."""
        import torch

        out = np.zeros(len(prompts), bool)
        ids = [self.words(p)["input_ids"] for p in prompts]
        by: dict[int, list[int]] = {}
        for n, row in enumerate(ids):
            by.setdefault(len(row), []).append(n)
        with torch.no_grad():
            for rows in by.values():  # of one length together: nothing is padded
                for at in range(0, len(rows), 256):
                    some = rows[at : at + 256]
                    last = self.model(torch.tensor([ids[n] for n in some])).logits[:, -1]
                    out[some] = (last[:, self.yes] > last[:, self.no]).numpy()
        return out

    def right(self, some: Sequence[Told], *, shown: bool) -> Rights:
        """(n,) whether it answers right, with reports or without."""
        return np.asarray(self.says([t.shown if shown else t.alone for t in some]) == [t.truth for t in some])


def _mined(reader: _Reader, some: Sequence[Told]) -> list[Preference]:
    """The pairs of questions where reports undid a right answer."""
    from fabrica.curate.language.preference import Asked, mine

    word = {True: "yes", False: "no"}
    alone, shown = (reader.says([getattr(t, way) for t in some]).tolist() for way in ("alone", "shown"))
    asked = [
        Asked(t.id, t.id, t.alone.rpartition("question ")[2], t.shown, t.truth, word[a], word[s])
        for t, a, s in zip(some, alone, shown, strict=True)
    ]
    return list(mine(asked))


def _tuned(
    base: Path, pairs: Sequence[Preference], how: tuple[int, float], loss: Any, seed: int, device: str
) -> tuple[_Reader, float]:
    """The reader after (epochs, rate) on the pairs, and its first loss; the adapter is not kept."""
    from fabrica.train.prefer import Preferring, prefer

    epochs, rate = how
    with tempfile.TemporaryDirectory() as out:
        made = prefer(
            base, pairs, Path(out) / "adapter",
            Preferring(BETA, loss, rate, epochs, BATCH, RANK, 2 * RANK, 64, seed), device=device,
        )  # fmt: skip
        return _Reader(base, made.adapter), made.losses[0]


def _tell(values: dict[str, float], arm: str, reader: _Reader, test: Sequence[Told]) -> None:
    from fabrica.evaluate.rag import effect

    alone, shown = reader.right(test, shown=False), reader.right(test, shown=True)
    made = effect(alone, shown, [t.id for t in test], count=2)
    values |= {
        f"{arm}: accuracy alone": made.alone.value, f"{arm}: accuracy with contexts": made.shown.value,
        f"{arm}: over-reliance": made.over_reliance.value, f"{arm}: helped": made.helped.value,
    }  # fmt: skip
