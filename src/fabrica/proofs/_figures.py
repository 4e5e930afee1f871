"""The world of LLaVA-Med's proof: a vision tower and a language model to begin with, a careless writer, its filters."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fabrica.proofs import Plan
from fabrica.types import Item, Origin, Record

if TYPE_CHECKING:
    from fabrica.chat import Request
    from fabrica.phantom.figure_talk import Figure

LEAKS = 0.4  # of the writer's turns


@dataclass(frozen=True, slots=True)
class Size:
    """How much: pairs for the connector, conversations, test figures (five questions each), steps of the two stages
    (one-stage arms take the sum), the batch; what the vision tower and the language model learned before."""

    seeds: tuple[int, ...] = (10, 11, 12, 13, 14)
    pairs: int = 3000
    talks: int = 300
    test: int = 120
    align: int = 600
    instruct: int = 200
    batch: int = 16
    align_lr: float = 1e-2
    lr: float = 3e-3
    eye_figures: int = 3000
    eye_steps: int = 350
    read_steps: int = 60
    chat_steps: int = 400
    chat_lr: float = 5e-3
    width: int = 64
    depth: int = 2


# ---------------------------------------------------------------- what is there before: an eye and a reader


def taught(job: tuple[str, Size, str], plan: Plan) -> str:
    """The folder of a vision tower (contrast of figures with full captions, as CLIP's) or of a language model
    (statements of the grammar, captions of notes, questions; none about any figure)."""
    name, size, folder = job
    out = Path(folder) / name
    (_eye if name == "eye" else _reader)(size, out, plan)
    return str(out)


def _eye(size: Size, out: Path, plan: Plan) -> None:
    import torch

    from fabrica.encode.collate import Collate, Use
    from fabrica.encode.image import ImageEncode
    from fabrica.models import Bundle, MultiTower, ProjectionHead, Tower, TransformersTower
    from fabrica.models.bridge import CLIP_NORM, save_plain, small_vision
    from fabrica.models.choose import text_body
    from fabrica.objectives.pairs import Contrast
    from fabrica.phantom.figure_talk import figures
    from fabrica.train import InMemory, fit
    from fabrica.types import Schedule, Stage

    torch.manual_seed(7)
    records = [f.record(f.all_facts) for f in figures(size.eye_figures, 7_000)]
    eye = TransformersTower({}, model=small_vision(48, 8, 64))
    text, words = text_body("small", records, ("caption",), length=32, vocabulary=200, width=64)
    towers = {"image": Tower(eye, ProjectionHead((64, 64)), pool="mean"), "text": Tower(text, ProjectionHead((64, 64)))}
    uses = {"image": Use(("image",), ImageEncode(48, 3, *CLIP_NORM)), "text": Use(("caption",), words)}
    bundle = Bundle(MultiTower(towers, 64), Collate(uses))
    schedule = Schedule(size.eye_steps, 64, 2e-3, 20)
    stage = Stage("contrast", bundle.collate, {"clip": Contrast(("image", "text"))}, schedule)
    with tempfile.TemporaryDirectory() as log:
        fit(bundle, [stage], InMemory.of(records, bundle.collate), log, seed=7, device=plan.device, save_every=0)
    save_plain(eye.model.to("cpu"), out)


def _reader(size: Size, out: Path, plan: Plan) -> None:
    import torch

    from fabrica.encode.turns import DESCRIBE
    from fabrica.models.bridge import language_of, save_plain
    from fabrica.phantom.figure_talk import prose, small_talk, talk
    from fabrica.systems import load_system
    from fabrica.train import InMemory, fit

    torch.manual_seed(7)
    system = load_system("llava_med")
    rng = random.Random(7)
    wild = [t.answer for _ in range(400) for t in talk("kidney left nodule pink", "small", rng, leaks=1.0)]
    texts = [_told(f"p{i}", caption=t) for i, t in enumerate(prose(4000, 7))]
    known = [*texts, *(_told(f"w{i}", caption=t) for i, t in enumerate(wild))]  # the vocabulary has every word
    rows = small_talk(32 * size.chat_steps, 75, DESCRIBE)  # each is met once
    chats = [_told(f"t{i}", question=q, answer=a) for i, (q, a) in enumerate(rows)]
    settings = replace(
        system.settings["tiny"], vocabulary=400, width=size.width, depth=size.depth, length=160, batch=32,
        read_steps=size.read_steps, align_steps=0, steps=size.chat_steps, lr=size.chat_lr,
    )  # fmt: skip
    bundle = system.build(settings, known)
    read, chat = system.stages(settings, bundle)
    still = replace(chat.schedule, lr_scale=read.schedule.lr_scale)
    chat = replace(chat, collate=bundle.collate.blind(), schedule=still)
    with tempfile.TemporaryDirectory() as log:
        for stage, data in ((read, texts), (chat, chats)):
            held = InMemory(stage.collate(data, 0))
            fit(bundle, [stage], held, Path(log) / stage.name, seed=7, device=plan.device, save_every=0)
    bundle.model.to("cpu")
    save_plain(language_of(bundle.model), out)
    bundle.collate.words.tokenizer.save(str(out / "tokenizer.json"))


def _told(name: str, **texts: str) -> Record:
    origin = Origin("phantom-figures", name, "", "CC0-1.0", "synthetic")
    return Record(name, name, items={role: (Item("text", text, origin),) for role, text in texts.items()})


# ---------------------------------------------------------------- the writer of conversations


def write(request: Request) -> str:
    """A text model that reads caption and context of the last message and plants leaks in its turns."""
    from fabrica.chat.dialogue import given
    from fabrica.phantom.figure_talk import talk, written

    told = given(request.messages[-1].text)
    context = told.get("context", "")
    return written(talk(told["caption"], context, random.Random(request.seed), leaks=LEAKS))


def conversations(
    figures: Sequence[Figure], seed: int, *, mentions: bool = True, filtered: bool = True
) -> list[Record]:
    """Records with the conversations that the step makes of them; those of which too little is left are gone."""
    from fabrica.chat import Scripted, prompt
    from fabrica.curate.language.converse import Converse

    step = Converse(
        Scripted(write, name="careless-writer"), prompt("converse"), context=("context",) if mentions else (),
        filtered=filtered, seed=seed,
    )  # fmt: skip
    return list(step((f.record() for f in figures), lambda record, reason: None))


def filters(figures: Sequence[Figure], seed: int) -> dict[str, float]:
    """Of turns with a planted leak the share that is dropped or cut clean; of the others the share that is dropped or
    changed."""
    from fabrica.curate.language.converse import kept_turns
    from fabrica.phantom.figure_talk import is_clean, talk

    rng = random.Random(f"filters-{seed}")
    caught, hurt, counts = 0, 0, [0, 0]
    for f in figures:
        for turn in talk(f.caption, f.context, rng, leaks=LEAKS):
            kept, _ = kept_turns([(turn.question, turn.answer)], f"{f.caption}\n{f.context}")
            same = kept == [(turn.question, turn.answer)]
            counts[bool(turn.leak)] += 1
            caught += bool(turn.leak) and not (kept and not is_clean(turn, kept[0][1]))
            hurt += not turn.leak and not same
    return {"caught": caught / counts[1], "false": hurt / counts[0], "turns": float(sum(counts))}
