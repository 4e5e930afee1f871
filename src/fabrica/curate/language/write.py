"""Lets a chat model write a text for each record from its facts, with prompt, model and facts in the text's origin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from fabrica.curate.engine.ordered import in_order
from fabrica.errors import FabricaError, Refused, UsageError
from fabrica.types import Absent, ChatModel, Drop, Item, Message, Origin, Record

Facts = Mapping[str, Any]
STEP = "write"  # in `Origin.steps` of every text made here
_MARK = "facts:"


class Asking(Protocol):
    """A versioned prompt (`chat.prompt`): its mark, and its messages with the facts filled in and items attached."""

    @property
    def mark(self) -> str: ...

    def messages(self, *items: Any, **fields: str) -> tuple[Message, ...]: ...


class Write:
    """Gives each record a text in `role`, written by `model` from `facts(record)`. Without facts it passes unchanged.

    The facts go into the prompt's field `facts` as JSON; the items of `images` roles are attached. With `schema` the
    reply is JSON and its member `pick` is the text (wrap the model in `chat.Checked`). `workers` records are asked for
    at a time; order is kept. The seed is made from `seed` and the record's id, so that a run again writes the same.

    The text is `Origin.by = "model"`, and its steps name this step, the prompt's mark, the model and the facts
    (`written_facts` reads them back).
    Drops: write_CODE where the model's reply could not be had or used (write_reply_schema ...), write_empty. `give_up`
    of them in a row stop the run, which goes on from there when run again. A spent budget stops it at once.
    """

    name = STEP
    version = "1"

    def __init__(
        self, model: ChatModel, prompt: Asking, *, facts: Callable[[Record], Facts | None] | None = None,
        role: str = "caption", images: Sequence[str] = (), schema: Mapping[str, Any] | None = None, pick: str = "text",
        max_tokens: int = 256, temperature: float = 0.0, seed: int = 0, workers: int = 1, give_up: int = 20,
    ) -> None:  # fmt: skip
        if give_up < 1 or max_tokens < 1:
            raise UsageError(f"give_up={give_up}, max_tokens={max_tokens}; wanted at least 1")
        self.model, self.prompt, self.facts, self.role = model, prompt, facts or label_facts, role
        self.images, self.schema, self.pick = tuple(images), schema, pick
        self.max_tokens, self.temperature, self.seed = max_tokens, temperature, seed
        self.workers, self.give_up = workers, give_up

    def params(self) -> dict[str, Any]:
        """What changes the texts; how many are asked for at a time does not."""
        return {
            "model": self.model.name, "prompt": self.prompt.mark, "facts": self.facts, "role": self.role,
            "images": self.images, "schema": self.schema, "pick": self.pick, "max_tokens": self.max_tokens,
            "temperature": self.temperature, "seed": self.seed,
        }  # fmt: skip

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records with one more text."""
        in_a_row = 0
        for record, why in in_order(self._one, records, self.workers):
            if not why:
                in_a_row = 0
                yield record
                continue
            in_a_row += 1
            if in_a_row >= self.give_up:
                raise WriteStopped(
                    f"{self.model.name} failed for {in_a_row} records in a row, last with {why!r}; see that it answers "
                    "and run again: what is written stays"
                )
            drop(record, why)

    def _one(self, record: Record) -> tuple[Record, str]:
        facts = self.facts(record)
        if facts is None:
            return record, ""
        told = json.dumps(facts, sort_keys=True, ensure_ascii=False)
        items = [item for role in self.images for item in record.all(role)]
        seed = int.from_bytes(hashlib.sha256(f"{self.seed}\x1f{record.id}".encode()).digest()[:4], "big") >> 1
        try:
            reply = self.model(
                self.prompt.messages(*items, facts=told), schema=self.schema, max_tokens=self.max_tokens,
                temperature=self.temperature, seed=seed,
            )  # fmt: skip
            text = self._text(reply.text)
        except Refused as error:
            return record, f"{STEP}_{error.code}"
        if not text:
            return record, f"{STEP}_empty"
        origin = _origin(record)
        steps = (*origin.steps, STEP, f"prompt:{self.prompt.mark}", f"model:{reply.model}", _MARK + told)
        item = Item("text", text, replace(origin, by="model", steps=steps))
        return replace(record, items={**record.items, self.role: (*record.items.get(self.role, ()), item)}), ""

    def _text(self, said: str) -> str:
        if self.schema is None:
            return said.strip()
        try:
            value = json.loads(said)[self.pick]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Refused("reply_schema", f"the reply is no JSON with a member {self.pick!r}") from error
        return str(value).strip()


class WriteStopped(FabricaError):
    """The model failed too often in a row."""

    code = "write_stopped"


def label_facts(record: Record) -> Facts | None:
    """Labels of 0.5 and more as "findings", known lower ones as "absent", with the modality; None without any label.

    Names with a colon ("score:sharpness") are no findings.

    >>> label_facts(Record("r", "p", {"modality": "xray"}, labels={"mass": 1.0, "effusion": 0.0}))
    {'modality': 'xray', 'findings': ['mass'], 'absent': ['effusion']}
    """
    known = {k: v for k, v in record.labels.items() if ":" not in k and not isinstance(v, Absent)}
    if not known:
        return None
    facts: dict[str, Any] = {"modality": record.groups["modality"]} if record.groups.get("modality") else {}
    facts["findings"] = sorted(k for k, v in known.items() if v >= 0.5)
    facts["absent"] = sorted(k for k, v in known.items() if v < 0.5)
    return facts


def written_facts(item: Item) -> dict[str, Any] | None:
    """The facts that a text was written from, or None where `Write` did not write it."""
    told = next((s for s in reversed(item.origin.steps) if s.startswith(_MARK)), None)
    return None if told is None else dict(json.loads(told[len(_MARK) :]))


def _origin(record: Record) -> Origin:
    made_of = next((i.origin for items in record.items.values() for i in items if i.present), None)
    return made_of or Origin(record.groups.get("source", ""), record.id, "", record.rights.licence)
