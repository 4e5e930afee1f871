"""A causal language model of `transformers` with what adapts it: low-rank adapters, skills by task, a soft prompt."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fabrica.errors import Refused, UsageError, need
from fabrica.models.adapt import Lora, add_lora
from fabrica.models.cpoly import CPoly, Tasks, add_cpoly
from fabrica.models.transformers_tower import _layer_names, _quiet, plain_config, resolve


@dataclass(frozen=True, slots=True)
class SoftPrompt:
    """`tokens` learned vectors before everything the model reads, drawn from U(-`spread`, `spread`) (Med-PaLM: 100 and
    0.5; prompt tuning of Lester et al. 2021, arXiv 2104.08691)."""

    tokens: int = 100
    spread: float = 0.5


class LanguageModel(nn.Module):
    """Token ids -> logits. `config` is a `transformers` config with its "model_type", for random weights; `model` a
    loaded one. At most one of `lora`, `cpoly`, `prompt` adapts it; parameters of an adapter change nothing before their
    first step, but for a soft prompt.

    Nothing is frozen here: a stage says what it trains by `Schedule.lr_scale`, see `base_only` and `adapter_only`.
    """

    def __init__(
        self, config: Mapping[str, Any], *, model: nn.Module | None = None, lora: Lora | None = None,
        cpoly: CPoly | None = None, prompt: SoftPrompt | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        tf = need("transformers", "train")
        if sum(a is not None for a in (lora, cpoly, prompt)) > 1:
            raise UsageError("one adapter at a time: lora, cpoly or prompt")
        if model is None:
            if "model_type" not in config:
                raise UsageError("a transformers config needs its 'model_type' ('llama', 'gpt2' ...)")
            rest = {k: v for k, v in config.items() if k not in ("model_type", "language")}
            model = tf.AutoModelForCausalLM.from_config(tf.AutoConfig.for_model(config["model_type"], **rest))
        self.lm, self.lora, self.cpoly, self.soft = model, lora, cpoly, prompt
        settings: Any = model.config
        self.settings, self.dim = settings, int(settings.hidden_size)
        self.length: int | None = getattr(self.settings, "max_position_embeddings", None)
        self.tasks = Tasks()
        base = list(model.parameters())
        layers = tuple(_layer_names(model))
        if lora is not None:
            add_lora(model, layers, Lora(lora.rank, lora.alpha, lora.layers or len(layers), lora.dropout))
        if cpoly is not None:
            add_cpoly(model, layers, cpoly, self.tasks)
        for p in base:
            p.requires_grad_(True)
        self.prompt: Any = None
        if prompt is not None:
            self.prompt = self._prompt(prompt, base[0].device)

    def _prompt(self, soft: SoftPrompt, device: torch.device) -> nn.Module:
        peft = need("peft", "train")
        config = peft.PromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=soft.tokens, token_dim=self.dim, num_transformer_submodules=1,
            prompt_tuning_init="RANDOM",
        )  # fmt: skip
        module: nn.Module = peft.PromptEmbedding(config, self.lm.get_input_embeddings())  # type: ignore[operator]
        with torch.no_grad():
            module.embedding.weight.uniform_(-soft.spread, soft.spread)  # type: ignore[union-attr, operator]
        return module.to(device)

    @classmethod
    def load(
        cls, source: str | Path, *, allow_network: bool = False, dtype: str = "float32", **adapter: Any
    ) -> LanguageModel:
        """With trained weights: a folder (config.json, safetensors), a catalogue name ("smollm2-135m"), or a hub id."""
        tf = need("transformers", "train")
        where = resolve(source, allow_network=allow_network)
        local = isinstance(where, Path)
        if local and not list(where.glob("*.safetensors")):  # type: ignore[union-attr]
            raise Refused("checkpoint_format", f"{str(source)!r} holds no .safetensors; pickled weights are not read")
        try:
            with _quiet(tf):
                model = tf.AutoModelForCausalLM.from_pretrained(
                    where, use_safetensors=True, dtype=dtype, local_files_only=local or not allow_network
                )
        except OSError as error:
            raise UsageError(f"cannot load {str(source)!r}: {str(error).splitlines()[0]}") from error
        return cls({}, model=model, **adapter)

    # ------------------------------------------------------------ reading

    def _run(self, ids: Tensor, mask: Tensor, task: Tensor | None, soft: bool = True, **more: Any) -> Any:
        """The model on ids (n, L) with mask (n, L) bool, the soft prompt before them."""
        if self.prompt is None or not soft:
            with self.tasks.of(task):
                return self.lm(input_ids=ids, attention_mask=mask.long(), **more)
        first = self.prompt(torch.arange(self.soft.tokens, device=ids.device))  # type: ignore[union-attr]
        words = self.lm.get_input_embeddings()(ids)  # type: ignore[operator]
        joined = torch.cat([first.to(words.dtype).expand(len(ids), -1, -1), words], 1)
        seen = torch.cat([mask.new_ones(len(ids), len(first)), mask], 1)
        return self.lm(inputs_embeds=joined, attention_mask=seen.long(), **more)

    def forward(self, ids: Tensor, mask: Tensor, task: Tensor | None = None, *, soft: bool = True) -> Tensor:
        """ids (n, L), mask (n, L) bool (padded on the right), task (n,) for C-Poly -> logits (n, L, vocabulary): at
        each position of the token that comes next. `soft` False leaves the soft prompt away."""
        logits: Tensor = self._run(ids, mask, task, soft, use_cache=False).logits
        return logits[:, logits.shape[1] - ids.shape[1] :]

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The last layer's states (n, L, D)."""
        task = torch.zeros(len(ids), dtype=torch.long, device=ids.device) if self.cpoly is not None else None
        states: Tensor = self._run(ids, mask, task, use_cache=False, output_hidden_states=True).hidden_states[-1]
        return states[:, states.shape[1] - ids.shape[1] :]

    @torch.no_grad()
    def continued(self, ids: Tensor, most: int, stop: int, task: Tensor | None = None) -> Tensor:
        """Greedy: ids (n, L) of one length, unpadded -> the next tokens (n, <= most), `stop` from the end on."""
        name, cache = cache_for(self.lm)
        done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        out: list[Tensor] = []
        logits = self._run(ids, torch.ones_like(ids).bool(), task, use_cache=True, **{name: cache}).logits[:, -1]
        while True:
            new = logits.argmax(-1).masked_fill(done, stop)
            out.append(new)
            done = done | (new == stop)
            if len(out) == most or bool(done.all()):
                return torch.stack(out, 1)
            with self.tasks.of(task):
                logits = self.lm(input_ids=new[:, None], use_cache=True, **{name: cache}).logits[:, -1]

    # ------------------------------------------------------------ adapters

    def adapter_names(self) -> list[str]:
        """Parameters that an adapter brought."""
        marks = ("lora_", "cpoly_")
        return [n for n, _ in self.named_parameters() if n.startswith("prompt.") or any(m in n for m in marks)]

    def base_only(self) -> dict[str, float]:
        """`Schedule.lr_scale` of a stage that trains the model itself: the adapter stands still."""
        return dict.fromkeys(self.adapter_names(), 0.0)

    def adapter_only(self) -> dict[str, float]:
        """`Schedule.lr_scale` of a stage that trains the adapter alone."""
        names = self.adapter_names()
        if not names:
            raise UsageError("this language model has no adapter to train: build it with lora, cpoly or prompt")
        return {"lm": 0.0, **dict.fromkeys(names, 1.0)}

    def base_state(self) -> dict[str, Tensor]:
        """The weights under the adapter, by the names that `transformers` gives them."""
        mine = {n.removeprefix("lm.") for n in self.adapter_names()}
        state = self.lm.state_dict()
        return {n.replace(".base_layer.", "."): t for n, t in state.items() if n not in mine}

    def adapter_state(self) -> dict[str, Tensor]:
        """The adapter's weights."""
        state = self.state_dict()
        return {n: state[n] for n in self.adapter_names()}

    def to_json(self) -> dict[str, Any]:
        """The architecture: the config of `transformers`, and under "language" the adapter."""
        parts = {"lora": self.lora, "cpoly": self.cpoly, "prompt": self.soft}
        return plain_config(self.settings) | {
            "language": {"format": 1, **{k: None if v is None else asdict(v) for k, v in parts.items()}}
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LanguageModel:
        """The inverse of `to_json`, with random weights."""
        about = data.get("language")
        if not isinstance(about, Mapping) or about.get("format") != 1:
            raise UsageError("config.json has no 'language' of format 1; wanted a folder that `save_pretrained` wrote")
        kinds: dict[str, Any] = {"lora": Lora, "cpoly": CPoly, "prompt": SoftPrompt}
        made = {k: kind(**_tuples(about[k])) for k, kind in kinds.items() if about.get(k) is not None}
        return cls(data, **made)


def cache_for(lm: Any) -> tuple[str, Any]:
    """The name under which this model takes a cache ("cache", before transformers 5.24 "past_key_values"), and one."""
    cache = need("transformers", "train").DynamicCache(config=lm.config)
    return "cache" if "cache" in inspect.signature(lm.forward).parameters else "past_key_values", cache


def small_config(vocabulary: int, *, width: int, depth: int, heads: int, length: int, special: Sequence[int]) -> Any:
    """A Llama of `depth` layers with tied embeddings; `special` are the ids of padding, beginning and end."""
    pad, begin, end = special
    return {
        "model_type": "llama", "vocab_size": vocabulary, "hidden_size": width, "intermediate_size": 2 * width,
        "num_hidden_layers": depth, "num_attention_heads": heads, "num_key_value_heads": heads,
        "max_position_embeddings": length, "tie_word_embeddings": True, "pad_token_id": pad, "bos_token_id": begin,
        "eos_token_id": end,
    }  # fmt: skip


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
