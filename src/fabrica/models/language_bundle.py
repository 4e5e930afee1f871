"""A language model with its tokenizer and card: prompts and answers in, texts and likelihoods out.

The folder it writes is also one of `transformers`: config.json, model.safetensors (the base), tokenizer.json; an
adapter stands beside it in adapter.safetensors with the base's hash, and `merged` writes one model for any server.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fabrica import safe
from fabrica.encode.collate import Collate, Use
from fabrica.encode.text import TextEncode
from fabrica.encode.vocabulary import load_tokenizer
from fabrica.errors import Refused, UsageError, need, unknown
from fabrica.models.bundle import CARD, COLLATE, Bundle, Progress, Rows, _chunks, _readme, evaluating, to_device
from fabrica.models.cache import FeatureCache, fingerprint
from fabrica.models.language import LanguageModel
from fabrica.models.multi import CONFIG, WEIGHTS
from fabrica.models.weights import fill, metadata, save_weights, state_hash
from fabrica.objectives.language import joined
from fabrica.types import Field, Record

ADAPTER, TOKENIZER = "adapter.safetensors", "tokenizer.json"
PROMPT, ANSWER = "prompt", "answer"
_TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"


class LanguageBundle(Bundle):
    """`model` reads the collate's fields "prompt" and "answer", one after the other; either may be absent."""

    model: LanguageModel  # type: ignore[assignment]

    def __init__(self, model: LanguageModel, collate: Collate, card: Mapping[str, Any] | None = None) -> None:
        self.model, self.collate, self.card = model, collate, dict(card or {})
        for name in (PROMPT, ANSWER):
            if name not in collate.fields:
                raise UsageError(f"a language model reads the fields 'prompt' and 'answer'; there is no {name!r}")
        most, room = sum(self._words(n).length for n in (PROMPT, ANSWER)), model.length
        held = 0 if model.soft is None else model.soft.tokens
        if room is not None and most + held > room:
            raise UsageError(f"prompt and answer may have {most} tokens, a soft prompt {held}; the model reads {room}")
        if (size := self._words(PROMPT).size) > model.settings.vocab_size:
            raise UsageError(f"the tokenizer has {size} tokens, the language model {model.settings.vocab_size}")

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that can be embedded."""
        return (PROMPT, ANSWER)

    @property
    def fingerprint(self) -> str:
        """24 hex digits of architecture and weights."""
        return fingerprint(self.model, self.model.to_json())

    @property
    def base_hash(self) -> str:
        """Hex sha256 of the weights under the adapter: the same before and after an adapter is trained."""
        return state_hash(self.model.base_state())

    def _words(self, name: str) -> TextEncode:
        encode = self.collate.fields[name].encode
        assert isinstance(encode, TextEncode)
        return encode

    # ------------------------------------------------------------ disk

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> Path:
        """The base, tokenizer files, the adapter, collate.json and card.json: whole or not at all."""
        folder = Path(folder)
        with safe.folder_whole(folder, replace=replace) as temp:
            save_weights(self.model.base_state(), temp / WEIGHTS, {})
            if self.model.adapter_names():
                save_weights(self.model.adapter_state(), temp / ADAPTER, {"base": self.base_hash})
            self._write(temp, self.model.to_json())
            (temp / COLLATE).write_text(json.dumps(self.collate.to_json(), indent=1) + "\n", "utf-8")
            (temp / CARD).write_text(json.dumps(self.card, indent=1, sort_keys=True) + "\n", "utf-8")
            (temp / "README.md").write_text(_readme(self.card), "utf-8")
        return folder

    def _write(self, temp: Path, config: Mapping[str, Any]) -> None:
        """What `transformers` reads beside the weights."""
        tf = need("transformers", "train")
        settings = self.model.settings
        words = self._words(PROMPT).tokenizer
        ends = {n: getattr(settings, f"{n}_token_id") for n in ("pad", "bos", "eos")}
        names = {f"{n}_token": words.id_to_token(i) for n, i in ends.items() if isinstance(i, int)}
        tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=words, **names, chat_template=_TEMPLATE)
        tokenizer.save_pretrained(temp)
        (temp / CONFIG).write_text(json.dumps(dict(config), indent=1) + "\n", "utf-8")

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: str = "cpu", allow_network: bool = False) -> LanguageBundle:
        """From a folder that `save_pretrained` wrote. `Refused("base_changed")` where the adapter beside the base was
        trained on another one."""
        folder = Path(source)
        for name in (CONFIG, WEIGHTS, COLLATE):
            if not (folder / name).is_file():
                raise UsageError(f"{str(source)!r} has no {name}; wanted a folder that `save_pretrained` wrote")
        model = LanguageModel.from_json(json.loads(safe.read_bytes(folder / CONFIG)))
        collate = Collate.from_json(json.loads(safe.read_bytes(folder / COLLATE)))
        card = json.loads(safe.read_bytes(folder / CARD)) if (folder / CARD).is_file() else {}
        made = cls(model, collate, card)
        fill(model.base_state(), safe.weights(folder / WEIGHTS), folder / WEIGHTS)
        if model.adapter_names():
            made.load_adapter(folder / ADAPTER)
        model.to(device).eval()
        return made

    def save_adapter(self, file: str | Path) -> Path:
        """The adapter alone (a soft prompt: tokens x width numbers), with the hash of the base it belongs to."""
        if not self.model.adapter_names():
            raise UsageError("this language model has no adapter to save")
        with safe.write_whole(Path(file)) as out:
            from safetensors.torch import save

            plain = {n: t.detach().cpu().contiguous() for n, t in self.model.adapter_state().items()}
            out.write(save(plain, {"base": self.base_hash}))
        return Path(file)

    def load_adapter(self, file: str | Path) -> None:
        """An adapter's weights, in place. `Refused("base_changed")` where it was trained on another base."""
        file = Path(file)
        if not file.is_file():
            raise UsageError(f"there is no adapter {str(file)!r}")
        said, mine = metadata(file).get("base", ""), self.base_hash
        if said != mine:
            raise Refused("base_changed", f"{file.name} was trained on base {said[:12]}; this model's is {mine[:12]}")
        fill(self.model.adapter_state(), safe.weights(file), file)

    def merged(self, folder: str | Path) -> Path:
        """One model without adapter files, for `chat.LocalChat` or any server of `transformers`: low-rank adapters are
        added to the weights. A soft prompt and skills by task cannot be merged: `UsageError`."""
        if self.model.soft is not None or self.model.cpoly is not None:
            raise UsageError("a soft prompt or skills by task cannot be merged into the weights: serve the bundle")
        state = self.model.base_state()
        for name, module in self.model.lm.named_modules():
            if hasattr(module, "get_delta_weight"):
                state[f"{name}.weight"] = state[f"{name}.weight"] + module.get_delta_weight("default")
        config = {k: v for k, v in self.model.to_json().items() if k != "language"}
        with safe.folder_whole(Path(folder)) as temp:
            save_weights(state, temp / WEIGHTS, {})
            self._write(temp, config)
        return Path(folder)

    # ------------------------------------------------------------ use

    def embed(
        self, records: Iterable[Record], field: str, *, batch: int = 64, progress: Progress | None = None,
        what: str = "embedding", unit: bool = True, cache: FeatureCache | None = None, precision: str | None = None,
    ) -> Rows:  # fmt: skip
        """ids [n], rows (n, D), present (n,): the mean of the last layer's states over a field's tokens."""
        if field not in self.fields:
            raise unknown("field", field, self.fields)
        still, ids, parts, here = self.collate.still().only(field), list[str](), [], []
        with evaluating(self.model):
            for chunk in _chunks(records, batch):
                one = to_device(still(chunk, 0).fields[field], self.device)
                mask = one.mask[:, 0]
                states = self.model.hidden(one.values[:, 0], mask) * mask[..., None]
                parts.append((states.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)).float().cpu().numpy())
                here.append(one.valid.any(1).cpu().numpy())
                ids += [r.id for r in chunk]
                if progress is not None:
                    progress(len(ids), None, f"embed {field}")
        rows = np.concatenate(parts) if parts else np.zeros((0, self.model.dim), np.float32)
        if unit:
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return ids, rows.astype(np.float32), np.concatenate(here) if here else np.zeros(0, bool)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def complete(
        self, prompts: Sequence[str], *, most: int = 64, batch: int = 64, task: int | None = None
    ) -> list[str]:
        """The greedy answer to each prompt, up to its end token or `most` tokens. Prompts of one length run together,
        so that no padding changes an answer."""
        words, stop = self._words(PROMPT), self._end
        ids = [words.ids(p) for p in prompts]
        by: dict[int, list[int]] = {}
        for n, row in enumerate(ids):
            by.setdefault(len(row), []).append(n)
        out: dict[int, str] = {}
        with evaluating(self.model):
            for rows in by.values():
                for at in range(0, len(rows), batch):
                    some = rows[at : at + batch]
                    given = torch.from_numpy(np.stack([ids[n] for n in some])).to(self.device)
                    tasks = None if task is None else torch.full((len(some),), task, device=self.device)
                    new = self.model.continued(given, most, stop, tasks).cpu().tolist()
                    for n, row in zip(some, new, strict=True):
                        kept = row[: row.index(stop)] if stop in row else row
                        out[n] = words.tokenizer.decode(kept)
        return [out[n] for n in range(len(prompts))]

    def likelihoods(
        self, prompts: Sequence[str], answers: Sequence[str], *, batch: int = 64, task: int | None = None
    ) -> NDArray[np.float64]:
        """(n, k): log p(answer | prompt) of each of k `answers`, end token counted."""
        ends = [self._words(ANSWER).ids(a) for a in answers]
        starts = [self._words(PROMPT).ids(p) for p in prompts]
        rows = [(s, e) for s in starts for e in ends]
        out: list[float] = []
        with evaluating(self.model):
            for at in range(0, len(rows), batch):
                some = rows[at : at + batch]
                pair = joined(_field([s for s, _ in some]), _field([e for _, e in some]), self._begin)
                ids, mask, learn = (t.to(self.device) for t in pair)
                tasks = None if task is None else torch.full((len(some),), task, device=self.device)
                logs = self.model(ids, mask, tasks)[:, :-1].float().log_softmax(-1)
                said = logs.gather(-1, ids[:, 1:, None])[..., 0] * learn[:, 1:]
                out += said.sum(1).tolist()
        return np.asarray(out).reshape(len(prompts), len(answers))

    def perplexity(self, texts: Sequence[str], *, batch: int = 64, skip: int = 0) -> float:
        """exp of the mean negative log-likelihood a token of texts, the first token of each after a beginning. The
        first `skip` tokens are not counted: they say of which kind a text is, and a mixture changes that."""
        total = count = 0.0
        with evaluating(self.model):
            for at in range(0, len(texts), batch):
                ends = _field([self._words(ANSWER).ids(t) for t in texts[at : at + batch]])
                none = Field(torch.zeros(len(ends.values), 1, 1).long(), torch.zeros(len(ends.values), 1).bool(),
                             mask=torch.zeros(len(ends.values), 1, 1).bool())  # fmt: skip
                ids, mask, learn = (t.to(self.device) for t in joined(none, ends, self._begin))
                task = torch.zeros(len(ids), dtype=torch.long, device=self.device)
                learn[:, : 1 + skip] = False
                logs = self.model(ids, mask, task)[:, :-1].float().log_softmax(-1)
                said = logs.gather(-1, ids[:, 1:, None])[..., 0] * learn[:, 1:]
                total, count = total - float(said.sum()), count + float(learn[:, 1:].sum())
        return float(np.exp(total / count)) if count else float("nan")

    @property
    def _begin(self) -> int:
        return begin_of(self.model.settings)

    @property
    def _end(self) -> int:
        end = self.model.settings.eos_token_id
        return int(end[0] if isinstance(end, (list, tuple)) else end)


def begin_of(settings: Any) -> int:
    """The id that stands before a text without a prompt: the config's beginning, else its end token."""
    found = settings.bos_token_id if settings.bos_token_id is not None else settings.eos_token_id
    return int(found[0] if isinstance(found, (list, tuple)) else found)


def language(
    source: str, records: Iterable[Record], *, lengths: tuple[int, int], vocabulary: int = 2000, width: int = 128,
    depth: int = 4, heads: int = 4, allow_network: bool = False, targets: tuple[str, ...] = (), **adapter: Any,
) -> tuple[LanguageModel, Collate]:  # fmt: skip
    """The model and the collate that feeds it; `lengths` are the most tokens of a prompt and of an answer.

    `source` "small" learns a vocabulary of whole words from prompts and answers of `records` under `depth` layers of
    `width` from random weights; else both come from a folder, catalogue name or hub id.
    """
    from fabrica.encode.vocabulary import train_vocabulary
    from fabrica.models.language import small_config
    from fabrica.models.transformers_tower import resolve

    if source == "small":
        texts = [item.text() for record in records for item in record.all(PROMPT, ANSWER)]
        words = train_vocabulary(texts, vocabulary)
        special = [int(words.token_to_id(t) or 0) for t in ("[PAD]", "[CLS]", "[SEP]")]
        soft = adapter.get("prompt")
        room = sum(lengths) + (0 if soft is None else soft.tokens)
        config = small_config(
            words.get_vocab_size(), width=width, depth=depth, heads=heads, length=room, special=special
        )
        model = LanguageModel(config, **adapter)
    else:
        model = LanguageModel.load(source, allow_network=allow_network, **adapter)
        words = load_tokenizer(str(resolve(source, allow_network=allow_network)))
    begin, end = model.settings.bos_token_id, model.settings.eos_token_id
    sides = {PROMPT: _sided(words, begin, None), ANSWER: _sided(words, None, end)}
    uses = {
        name: Use((name,), TextEncode(sides[name], length, truncation="head+tail"))
        for name, length in zip((PROMPT, ANSWER), lengths, strict=True)
    }
    return model, Collate(uses, targets=targets)


def _sided(tokenizer: Any, begin: int | None, end: int | None) -> Any:
    """A copy that puts `begin` before a text, or `end` after it, and no other special token."""
    tk = need("tokenizers", "train")
    copy = load_tokenizer(tokenizer)
    ids = [i for i in (begin, end) if isinstance(i, int)]
    names = [str(copy.id_to_token(i)) for i in ids]
    pattern = " ".join([*(names if begin is not None else []), "$A", *(names if end is not None else [])])
    copy.post_processor = tk.processors.TemplateProcessing(
        single=pattern, special_tokens=list(zip(names, ids, strict=True))
    )
    return copy


def _field(rows: Sequence[NDArray[np.int64]]) -> Field:
    """Token rows -> a field (n, 1, L)."""
    longest = max(1, *(len(r) for r in rows))
    values, mask = np.zeros((len(rows), 1, longest), np.int64), np.zeros((len(rows), 1, longest), bool)
    for n, row in enumerate(rows):
        values[n, 0, : len(row)], mask[n, 0, : len(row)] = row, True
    return Field(torch.from_numpy(values), torch.ones(len(rows), 1).bool(), mask=torch.from_numpy(mask))
