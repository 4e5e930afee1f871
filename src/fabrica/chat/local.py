"""A causal language model of `transformers` on this machine: chat template, log-probabilities, scores of answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fabrica.chat.parts import as_text
from fabrica.chat.request import Asked, Request
from fabrica.errors import Refused, UsageError, need
from fabrica.types import Message, Reply

if TYPE_CHECKING:
    from torch import Tensor


class LocalChat(Asked):
    """A folder that `save_pretrained` wrote, a catalogue name ("smollm2-135m") or a hub id, loaded at the first use.

    Only safetensors are read. A hub id is looked up in the local hub cache; `allow_network` may download it. The
    tokenizer's chat template is used; without one, turns are written as "role: text". Temperature 0 takes the likeliest
    token, above it tokens are drawn with `seed`. A schema is asked for in words: wrap in `Checked` to hold it. Text
    alone. `name` is the source's last part and the hash of its weights. Calls wait for each other.
    """

    def __init__(
        self, source: str | Path = "smollm2-135m", *, device: str = "cpu", batch: int = 8, allow_network: bool = False,
        dtype: Literal["float32", "bfloat16"] = "float32",
    ) -> None:  # fmt: skip
        if batch < 1:
            raise UsageError(f"batch={batch}; wanted at least 1")
        self.source, self.device, self.batch = str(source), device, batch
        self.allow_network, self.dtype = allow_network, dtype
        self._loaded: tuple[Any, Any] | None = None
        self._name = ""
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_loaded", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _loaded=None, _lock=threading.RLock())

    @property
    def name(self) -> str:  # type: ignore[override]
        """Source, hash of the weights (a hub's commit), number format."""
        with self._lock:
            if not self._name:
                self._name = f"{Path(self.source).name}:{self._version()}:{self.dtype}"
            return self._name

    def answer(self, request: Request) -> Reply:
        """One reply."""
        return self.answers([request])[0]

    def answers(self, requests: Sequence[Request]) -> list[Reply]:
        """Replies to many requests, `batch` of the same settings at a time."""
        out: dict[int, Reply] = {}
        kinds: dict[tuple[int, float, int], list[int]] = {}
        for n, r in enumerate(requests):
            kinds.setdefault((r.max_tokens, r.temperature, r.seed), []).append(n)
        with self._lock:
            for (most, temperature, seed), of in kinds.items():
                for rows in _chunks(of, self.batch if temperature == 0 else 1):
                    prompts = [self._prompt(requests[n]) for n in rows]
                    out |= dict(zip(rows, self._generate(prompts, most, temperature, seed), strict=True))
        return [out[n] for n in range(len(requests))]

    def score(self, messages: Sequence[Message], answers: Sequence[str]) -> list[float]:
        """The log-probability of each answer as the next turn: the sum over its tokens, end of turn not counted."""
        torch = need("torch", "train")
        if not answers or not all(answers):
            raise UsageError("no answers to score, or an empty one")
        with self._lock, torch.no_grad():
            model, tokenizer = self._model()
            start = self._ids(tokenizer, self._prompt(Request(tuple(messages))))
            ends = [tokenizer(a, add_special_tokens=False)["input_ids"] for a in answers]
            out: list[float] = []
            for rows in _chunks(range(len(ends)), self.batch):
                out += _sums(model, start, [ends[n] for n in rows], self.device)
        return out

    # ------------------------------------------------------------ inside

    def _where(self) -> Path | str:
        from fabrica.models.transformers_tower import resolve

        return resolve(self.source, allow_network=self.allow_network)

    def _version(self) -> str:
        where = self._where()
        if isinstance(where, str):
            commit = getattr(self._model()[0].config, "_commit_hash", None)
            return str(commit or "unknown")[:12]
        from fabrica.models.embed import folder_mark

        return folder_mark(where)

    def _model(self) -> tuple[Any, Any]:
        if self._loaded is None:
            tf: Any = need("transformers", "train")
            where = self._where()
            if isinstance(where, Path) and not list(where.glob("*.safetensors")):
                raise Refused(
                    "checkpoint_format", f"{self.source!r} holds no .safetensors; pickled weights are not read"
                )
            stay = {"local_files_only": isinstance(where, Path) or not self.allow_network}
            try:
                tokenizer = tf.AutoTokenizer.from_pretrained(where, **stay)
                model = tf.AutoModelForCausalLM.from_pretrained(
                    where, use_safetensors=True, dtype=self.dtype, **stay
                )  # fmt: skip
            except OSError as error:
                raise UsageError(f"cannot load {self.source!r}: {str(error).splitlines()[0]}") from error
            if tokenizer.pad_token_id is None:
                tokenizer.pad_token = tokenizer.eos_token
            self._loaded = (model.eval().to(self.device), tokenizer)
        return self._loaded

    def _prompt(self, request: Request) -> str:
        turns = as_text(request.messages)
        if request.schema is not None:
            turns[-1]["content"] += f"\nAnswer with JSON alone that obeys this schema: {json.dumps(request.schema)}"
        tokenizer = self._model()[1]
        if tokenizer.chat_template:
            return str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        return "\n".join(f"{t['role']}: {t['content']}" for t in turns) + "\nassistant:"

    def _ids(self, tokenizer: Any, prompt: str) -> list[int]:
        return list(tokenizer(prompt, add_special_tokens=not tokenizer.chat_template)["input_ids"])

    def _generate(self, prompts: Sequence[str], most: int, temperature: float, seed: int) -> list[Reply]:
        torch = need("torch", "train")
        model, tokenizer = self._model()
        rows = [self._ids(tokenizer, p) for p in prompts]
        room = getattr(model.config, "max_position_embeddings", None)
        if room is not None and (longest := max(map(len, rows))) + most > room:
            raise UsageError(f"{longest} tokens of messages and {most} of the reply; {self.source} reads {room}")
        longest = max(map(len, rows))
        ids = torch.tensor([[tokenizer.pad_token_id] * (longest - len(r)) + r for r in rows], device=self.device)
        mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows], device=self.device)
        draw = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {
            "do_sample": False, "temperature": None, "top_k": None, "top_p": None}  # fmt: skip
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=most, pad_token_id=tokenizer.pad_token_id,
                return_dict_in_generate=True, output_logits=True, **draw,
            )  # fmt: skip
        new = made.sequences[:, longest:]
        logs = torch.stack(made.logits, 1).float().log_softmax(-1).gather(-1, new[..., None])[..., 0]  # (n, steps)
        return [self._reply(tokenizer, rows[n], new[n].tolist(), logs[n].tolist()) for n in range(len(rows))]

    def _reply(self, tokenizer: Any, prompt: list[int], new: list[int], logs: list[float]) -> Reply:
        stops = self._model()[0].generation_config.eos_token_id
        stops = {tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])}
        end = next((n for n, token in enumerate(new) if token in stops), len(new))
        pairs = tuple((str(tokenizer.decode([t])), float(v)) for t, v in zip(new[:end], logs[:end], strict=True))
        text = str(tokenizer.decode(new[:end], skip_special_tokens=True)).strip()
        return Reply(text, self.name, len(prompt), min(end + 1, len(new)), pairs)


def _sums(model: Any, start: list[int], ends: Sequence[list[int]], device: str) -> list[float]:
    """log p(end | start) of each end: the start is read once, the ends go on from its cache, padded on the right."""
    torch = need("torch", "train")
    from fabrica.models.language import cache_for

    longest = max(map(len, ends))
    name, cache = cache_for(model)
    held = {name: cache}
    first = model(input_ids=torch.tensor([start], device=device), use_cache=True, **held)
    ids = torch.tensor([e + [0] * (longest - len(e)) for e in ends], device=device)  # (n, L)
    mask = torch.tensor([[1] * len(e) + [0] * (longest - len(e)) for e in ends], device=device)
    logits: Tensor = first.logits[:, -1:].expand(len(ends), -1, -1)
    if longest > 1:
        cache.batch_repeat_interleave(len(ends))
        whole = torch.cat([torch.ones(len(ends), len(start), dtype=mask.dtype, device=device), mask], 1)[:, :-1]
        rest = model(input_ids=ids[:, :-1], attention_mask=whole, **held)
        logits = torch.cat([logits, rest.logits], 1)
    found = logits.float().log_softmax(-1).gather(-1, ids[..., None])[..., 0]  # (n, L)
    return [float(v) for v in (found * mask).sum(1)]


def _chunks(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for n in range(0, len(rows), size):
        yield rows[n : n + size]
