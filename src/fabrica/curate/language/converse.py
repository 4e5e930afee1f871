"""Captions to conversations (LLaVA-Med): a text model that never sees the image writes what could be said of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fabrica.curate.language.write import Asking, Write, _origin
from fabrica.errors import Refused, UsageError
from fabrica.text.turns import REASONS, Turn, clean, read_turns, turns_json
from fabrica.types import ChatModel, Item, Record

_LEDGER = "turns:"


class Converse(Write):
    """Gives each record with a caption a "conversation" item: JSON turns of questions and answers about its image.

    `model` is asked with `prompt`'s fields `caption` and `context`: texts alone, never pixels. `context` roles are the
    article's sentences on the figure (() = captions only). Of the reply, turns that betray their source go and lead-ins
    are cut (`text.turns.clean`; `filtered` False keeps all, for comparison). With fewer than `least` turns left it is
    asked again with another seed, `passes` times in all. Records without a caption pass unchanged.

    The item is `Origin.by = "model"`; its steps name the prompt's mark, the model, and how many turns were kept, edited
    and dropped for which reason (`turn_ledger` reads them back). Drops: as `Write`, with converse_CODE, and
    converse_few where too few turns were left at the last pass.
    """

    name = "converse"
    version = "1"

    def __init__(
        self, model: ChatModel, prompt: Asking, *, caption: Sequence[str] = ("caption",),
        context: Sequence[str] = ("context",), role: str = "conversation", filtered: bool = True, least: int = 1,
        passes: int = 3, max_tokens: int = 512, temperature: float = 0.0, seed: int = 0, workers: int = 1,
        give_up: int = 20,
    ) -> None:  # fmt: skip
        super().__init__(
            model, prompt, role=role, max_tokens=max_tokens, temperature=temperature, seed=seed, workers=workers,
            give_up=give_up,
        )  # fmt: skip
        if least < 1 or passes < 1:
            raise UsageError(f"least={least}, passes={passes}; wanted at least 1")
        self.caption, self.context, self.filtered = tuple(caption), tuple(context), filtered
        self.least, self.passes = least, passes

    def params(self) -> dict[str, Any]:
        """What changes the conversations."""
        return {
            "model": self.model.name, "prompt": self.prompt.mark, "caption": self.caption, "context": self.context,
            "role": self.role, "filtered": self.filtered, "least": self.least, "passes": self.passes,
            "max_tokens": self.max_tokens, "temperature": self.temperature, "seed": self.seed,
        }  # fmt: skip

    def _one(self, record: Record) -> tuple[Record, str]:
        caption = next((i.text() for i in record.all(*self.caption) if i.kind == "text"), None)
        if caption is None:
            return record, ""
        context = " ".join(i.text() for i in record.all(*self.context) if i.kind == "text") if self.context else ""
        for number in range(self.passes):
            said = f"{self.seed}\x1f{record.id}\x1f{number}"
            seed = int.from_bytes(hashlib.sha256(said.encode()).digest()[:4], "big") >> 1
            try:
                reply = self.model(
                    self.prompt.messages(caption=caption, context=context or "none"), max_tokens=self.max_tokens,
                    temperature=self.temperature, seed=seed,
                )  # fmt: skip
            except Refused as error:
                return record, f"{self.name}_{error.code}"
            turns, told = kept_turns(read_turns(reply.text), f"{caption}\n{context}", filtered=self.filtered)
            if len(turns) >= self.least:
                return self._with(record, turns, told, reply.model), ""
        return record, f"{self.name}_few"

    def _with(self, record: Record, turns: Sequence[Turn], told: Counter[str], model: str) -> Record:
        origin = _origin(record)
        counts = ",".join(f"{k}={v}" for k, v in sorted(told.items()))
        steps = (*origin.steps, self.name, f"prompt:{self.prompt.mark}", f"model:{model}", _LEDGER + counts)
        item = Item("text", turns_json(turns), replace(origin, by="model", steps=steps))
        return replace(record, items={**record.items, self.role: (item,)})


def kept_turns(turns: Sequence[Turn], source: str, *, filtered: bool = True) -> tuple[list[Turn], Counter[str]]:
    """The turns that may stay, and how many were kept, edited (a lead-in cut) and dropped by reason.

    >>> kept_turns([("Which organ?", "I cannot see the image."), ("Side?", "The left.")], "Left lung.")
    ([('Side?', 'The left.')], Counter({'blind': 1, 'kept': 1}))
    """
    out: list[Turn] = []
    told: Counter[str] = Counter()
    for turn in turns:
        made, why = clean(turn, source) if filtered else (turn, "")
        if why:
            told[why] += 1
            continue
        told["kept"] += 1
        told["edited"] += made != (turn[0].strip(), turn[1].strip())
        out.append(made)
    return out, +told


def turn_ledger(item: Item) -> dict[str, int]:
    """How many turns of a conversation were kept, edited and dropped by reason; {} where `Converse` did not make it."""
    told = next((s for s in reversed(item.origin.steps) if s.startswith(_LEDGER)), _LEDGER)[len(_LEDGER) :]
    found = dict(pair.split("=") for pair in told.split(",") if pair)
    return {k: int(v) for k, v in found.items() if k in (*REASONS, "kept", "edited")}
