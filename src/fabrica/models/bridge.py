"""Vision -> connector -> language model: `transformers`' own LLaVA, with the one place where images meet tokens."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError, need
from fabrica.models.adapt import Lora, add_lora
from fabrica.models.language import LanguageModel, small_config
from fabrica.models.transformers_tower import TransformersTower, _layer_names, _quiet, plain_config, resolve
from fabrica.models.weights import state_hash
from fabrica.types import Field

if TYPE_CHECKING:
    from fabrica.encode.chat import ChatEncode

PARTS: dict[str, tuple[str, ...]] = {  # part -> prefixes of its parameters
    "vision": ("net.model.vision_tower",),
    "connector": ("net.model.multi_modal_projector",),
    "language": ("net.model.language_model", "net.lm_head"),
}
SMALL = "small"
PLACES = 0.3  # deviation of a small vision tower's position embeddings at the start
Connector = Literal["mlp", "linear", "normed"]
CLIP_NORM = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # mean, std (arXiv 2103.00020)


class Pooled(nn.Module):
    """Means over `side` x `side` patches of a square grid, then the connector: fewer tokens an image."""

    def __init__(self, inner: nn.Module, side: int) -> None:
        super().__init__()
        self.inner, self.side = inner, side

    def forward(self, features: Tensor) -> Tensor:
        """(n, h * h, D) -> (n, (h / side)^2, W)."""
        n, count, width = features.shape
        h = round(count**0.5)
        if h * h != count or h % self.side:
            raise UsageError(f"{count} patches make no square grid that {self.side} x {self.side} divides")
        grid = features.view(n, h // self.side, self.side, h // self.side, self.side, width)
        return self.inner(grid.mean((2, 4)).flatten(1, 2))  # type: ignore[no-any-return]


class Normed(nn.Module):
    """The connector between two norms: features at unit scale, image tokens at the scale of word embeddings, which is
    where a frozen language model expects them."""

    def __init__(self, inner: nn.Module, width: int, words: Tensor) -> None:
        super().__init__()
        self.before, self.inner = nn.LayerNorm(width), inner
        scale = words.detach().float().square().mean().sqrt()
        self.scale = nn.Parameter(torch.ones_like(scale) if scale.is_meta else scale.clone())

    def forward(self, features: Tensor) -> Tensor:
        """(n, T, D) -> (n, T, W), each token of root mean square `scale`."""
        tokens = self.inner(self.before(features)).float()
        made: Tensor = self.scale * tokens * (tokens.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        return made


class Assistant(nn.Module):
    """`LlavaForConditionalGeneration` of a LlavaConfig as plain JSON (random weights), or of `net`.

    Reads fields: "text" ids (B, 1, L) with their mask, in which each image stands as a run of the image token, and
    `picture` (B, N, C, H, W), or (B, N, T, D) features that `see` gave before, so that a frozen vision tower runs once.
    Class token and registers are dropped. `connector` "mlp" is LLaVA 1.5's two layers, "linear" the first version's,
    "normed" those two layers between norms, for features and words of very different scale; `pool` averages patches
    first. `lora` adapts the language model, whose own weights are then frozen.
    """

    def __init__(
        self, config: Mapping[str, Any], *, net: Any = None, connector: Connector = "mlp", pool: int = 1,
        lora: Lora | None = None, picture: str = "image",
    ) -> None:  # fmt: skip
        super().__init__()
        tf = need("transformers", "train")
        if net is None:
            net = tf.LlavaForConditionalGeneration(_llava_config(tf, config))
        if connector not in ("mlp", "linear", "normed"):
            raise UsageError(f"connector {connector!r} is none of mlp, linear, normed")
        inner = net.model
        if connector == "linear":
            widths = net.config.vision_config.hidden_size, net.config.text_config.hidden_size
            inner.multi_modal_projector = nn.Linear(*widths)
        if connector == "normed":
            words = net.get_input_embeddings().weight
            inner.multi_modal_projector = Normed(
                inner.multi_modal_projector, net.config.vision_config.hidden_size, words
            )
        if pool > 1:
            inner.multi_modal_projector = Pooled(inner.multi_modal_projector, pool)
        self.net, self.connector, self.pool, self.lora, self.picture = net, connector, pool, lora, picture
        self.layer = int(net.config.vision_feature_layer)
        self.image_id = int(net.config.image_token_index)
        self.vocabulary = int(net.config.text_config.vocab_size)
        self.dim = int(net.config.text_config.hidden_size)
        net.lm_head.register_forward_pre_hook(_packed)
        if lora is not None:
            layers = _layer_names(inner.language_model)
            add_lora(
                inner.language_model, layers, Lora(lora.rank, lora.alpha, lora.layers or len(layers), lora.dropout)
            )
            net.lm_head.requires_grad_(False)
            for name, parameter in inner.language_model.named_parameters():
                if "lora_" in name:  # a step of an adapter is too small for bfloat16
                    parameter.data = parameter.data.float()

    @classmethod
    def assembled(cls, vision: nn.Module, language: Any, *, image_id: int, layer: int = -2, **rest: Any) -> Assistant:
        """From a vision model and a causal language model of `transformers`, with their weights."""
        tf = need("transformers", "train")
        about = {
            "vision_config": vision.config, "text_config": language.config, "image_token_index": image_id,
            "vision_feature_layer": layer, "tie_word_embeddings": bool(language.config.tie_word_embeddings),
        }  # fmt: skip
        with torch.device("meta"):
            net = tf.LlavaForConditionalGeneration(tf.LlavaConfig(**about))
        projector = tf.models.llava.modeling_llava.LlavaMultiModalProjector(net.config)  # random, as LLaVA begins
        net.model.vision_tower, net.model.language_model = vision, language.get_decoder()
        net.model.multi_modal_projector, net.lm_head = projector, language.get_output_embeddings()
        return cls({}, net=net, **rest)

    # ------------------------------------------------------------ parts

    def prefixes(self, *parts: str) -> tuple[str, ...]:
        """Names under which the parameters of parts stand."""
        names = [n for n, _ in self.named_parameters()]
        wanted = [p for part in parts for p in PARTS[part]]
        return tuple(p for p in wanted if any(n.startswith(p + ".") for n in names))

    def only(self, *parts: str) -> dict[str, float]:
        """`Schedule.lr_scale` of a stage that trains these parts and nothing else ("vision", "connector", "language";
        of a language model with adapters, those)."""
        return {"": 0.0, **dict.fromkeys(self.prefixes(*parts), 1.0)}

    def hashes(self) -> dict[str, str]:
        """Hex sha256 of the weights of each part: what the ledger of a curriculum compares."""
        state = self.state_dict()
        return {
            part: state_hash({n: t for n, t in state.items() if n.startswith(tuple(p + "." for p in places))})
            for part, places in PARTS.items()
        }

    # ------------------------------------------------------------ reading

    def see(self, pixels: Tensor) -> Tensor:
        """(n, C, H, W) -> features of the patches (n, T, D) at the layer that the connector reads."""
        tower: Any = self.net.model.vision_tower
        patch = tower.config.patch_size
        count = (pixels.shape[2] // patch) * (pixels.shape[3] // patch)
        with torch.set_grad_enabled(torch.is_grad_enabled() and any(p.requires_grad for p in tower.parameters())):
            states: Tensor = tower(pixel_values=pixels, output_hidden_states=True).hidden_states[self.layer]
        return states[:, states.shape[1] - count :]

    def image_tokens(self, image: Field) -> Tensor:
        """The connector's tokens of every image that is there, in the order of the batch: (images, T, W)."""
        given = image.values[image.valid]
        features = self.see(given) if given.ndim == 4 else given
        tokens: Tensor = self.net.model.multi_modal_projector(features)
        return tokens

    def splice(self, ids: Tensor, image: Field | None) -> Tensor:
        """Word embeddings of ids (B, L) with image tokens in their places: (B, L, W).

        Errors: `UsageError` for the rows whose places are not as many as their images need.
        """
        words: Tensor = self.net.get_input_embeddings()(ids)
        places = ids == self.image_id
        shown = image.valid.sum(1) if image is not None else torch.zeros(len(ids), dtype=torch.long, device=ids.device)
        if not bool(shown.any()) and not bool(places.any()):
            return words
        tokens = (
            self.image_tokens(image) if image is not None and bool(shown.any()) else words.new_zeros(0, 1, self.dim)
        )
        wrong = (places.sum(1) != shown * tokens.shape[1]).nonzero().flatten().tolist()
        if wrong:
            row = wrong[0]
            raise UsageError(
                f"row {row} has {int(places[row].sum())} places for image tokens and {int(shown[row])} images of "
                f"{tokens.shape[1]} tokens each"
            )
        return words.masked_scatter(places[..., None], tokens.to(words.dtype))

    def hidden(self, fields: Mapping[str, Field]) -> Tensor:
        """The last layer's states (B, L, W) of the batch's conversations."""
        text = fields["text"]
        assert text.mask is not None
        ids, mask = text.values[:, 0], text.mask[:, 0]
        words = self.splice(ids, fields.get(self.picture))
        out: Tensor = self.net.model.language_model(
            inputs_embeds=words, attention_mask=mask.long(), position_ids=positions(mask), use_cache=False
        ).last_hidden_state
        return out

    def forward(self, fields: Mapping[str, Field]) -> Tensor:
        """Logits (B, L, V): at each position of the token that comes next."""
        made: Tensor = self.net.lm_head(self.hidden(fields))
        return made

    def scores(self, fields: Mapping[str, Field], at: Tensor) -> Tensor:
        """Logits (n, V) that predict the tokens at `at` (B, L) bool, whose first column is False; the head runs on
        these alone."""
        states = self.hidden(fields)[:, :-1]
        made: Tensor = self.net.lm_head(states[at[:, 1:]])
        return made

    @torch.no_grad()
    def generate(
        self, fields: Mapping[str, Field], *, most: int, stop: int, temperature: float = 0.0, seed: int = 0,
        cached: bool = True,
    ) -> Tensor:  # fmt: skip
        """The next tokens (B, <= most) of each conversation, `stop` from the end on; greedy at temperature 0."""
        text = fields["text"]
        assert text.mask is not None
        words = self.splice(text.values[:, 0], fields.get(self.picture))
        words, mask = left(words, text.mask[:, 0])
        draw = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {
            "do_sample": False}  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made: Tensor = self.net.generate(
                inputs_embeds=words, attention_mask=mask.long(), max_new_tokens=most, eos_token_id=stop,
                pad_token_id=stop, suppress_tokens=[self.image_id], use_cache=cached, **draw,
            )  # fmt: skip
        return made

    # ------------------------------------------------------------ disk

    def to_json(self) -> dict[str, Any]:
        """The architecture, whole: the LlavaConfig and what is changed of it."""
        return {
            "format": 1, "library": "fabrica", "assistant": plain_config(self.net.config), "connector": self.connector,
            "pool": self.pool, "lora": asdict(self.lora) if self.lora else None, "picture": self.picture,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Assistant:
        """The inverse of `to_json`, with random weights."""
        if data.get("library") != "fabrica" or data.get("format") != 1 or "assistant" not in data:
            raise UsageError("config.json describes no assistant of format 1; wanted what `save_pretrained` wrote")
        lora = Lora(**data["lora"]) if data.get("lora") else None
        rest = {k: data[k] for k in ("connector", "pool", "picture")}
        return cls(data["assistant"], lora=lora, **rest)


def _llava_config(tf: Any, config: Mapping[str, Any]) -> Any:
    return tf.LlavaConfig(**{k: v for k, v in config.items() if k not in ("model_type",)})


def _packed(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
    """The head's input without gaps: of the last state of each row, a CPU in bfloat16 copies the head for every row."""
    return (given[0].contiguous(),)


def positions(mask: Tensor) -> Tensor:
    """(B, L) places of the real tokens from 0, on whichever side the padding stands.

    >>> positions(torch.tensor([[False, True, True], [True, True, False]])).tolist()
    [[0, 0, 1], [0, 1, 1]]
    """
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def left(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (B, L, W) with mask (B, L), real places moved to the right end in their order."""
    order = mask.int().argsort(dim=1, stable=True)
    return values.gather(1, order[..., None].expand_as(values)), mask.gather(1, order)


def merged(model: Assistant) -> Assistant:
    """The same model with its low-rank adapters added to the weights: a copy of plain layers."""
    if model.lora is None:
        raise UsageError("this assistant has no adapters to merge")
    out = copy.deepcopy(model)
    layers = [(n, m) for n, m in out.net.named_modules() if hasattr(m, "get_base_layer") and hasattr(m, "merge")]
    for name, module in layers:
        module.merge()
        out.net.set_submodule(name, module.get_base_layer())
    out.lora = None
    return out


def language_of(model: Assistant) -> Any:
    """The assistant's language model by itself, as `transformers` knows it; the weights are shared, not copied."""
    tf = need("transformers", "train")
    with torch.device("meta"):
        lm = tf.AutoModelForCausalLM.from_config(model.net.config.text_config)
    setattr(lm, lm.base_model_prefix, model.net.model.language_model)
    lm.set_output_embeddings(model.net.lm_head)
    return lm.train(model.training)


def choose_vision(source: str | Path, size: int, patch: int, *, width: int, allow_network: bool = False) -> Any:
    """A vision model with its weights by folder, catalogue name or hub id, or a "small" one of random weights."""
    if source == SMALL:
        return small_vision(size, patch, width)
    return TransformersTower.load(source, allow_network=allow_network).model


def choose_language(
    source: str | Path, words: ChatEncode, small: tuple[int, int], *, allow_network: bool = False,
    dtype: str = "float32",
) -> Any:  # fmt: skip
    """A causal language model by folder, catalogue name or hub id, or a "small" one of width and depth `small`."""
    if source == SMALL:
        return small_language(words, width=small[0], depth=small[1])
    return LanguageModel.load(source, allow_network=allow_network, dtype=dtype).lm


def choose_words(
    source: str | Path, texts: Iterable[str], size: int, *, length: int, allow_network: bool = False, **form: Any
) -> ChatEncode:
    """The tokenizer that comes with a language model, or for a "small" one a vocabulary of at most `size` words of
    `texts`; `form` is template, image token and tokens an image."""
    from fabrica.encode.chat import ChatEncode, chat_vocabulary
    from fabrica.encode.turns import DESCRIBE

    if source == SMALL:
        return ChatEncode(chat_vocabulary([*texts, *DESCRIBE * 2], size, template=form["template"]), length, **form)
    return ChatEncode(str(resolve(source, allow_network=allow_network)), length, **form)


def small_vision(size: int, patch: int, width: int, *, depth: int = 3) -> Any:
    """A CLIP vision transformer of random weights for images of `size` pixels. Places begin as random as patches: with
    CLIP's own 0.02 a short training leaves features that do not tell where they are."""
    tf = need("transformers", "train")
    config = tf.CLIPVisionConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=depth, num_attention_heads=4, image_size=size,
        patch_size=patch,
    )  # fmt: skip
    made = tf.CLIPVisionModel(config)
    nn.init.normal_(made.get_parameter("embeddings.position_embedding.weight"), std=PLACES)
    return made


def small_language(words: ChatEncode, *, width: int, depth: int) -> Any:
    """A Llama of random weights for a vocabulary."""
    tf = need("transformers", "train")
    special = (words.pad, words.stop, words.stop)
    config = small_config(words.size, width=width, depth=depth, heads=4, length=words.length, special=special)
    given = {k: v for k, v in config.items() if k != "model_type"} | {"initializer_range": width**-0.5}
    return tf.LlamaForCausalLM(tf.LlamaConfig(**given))


def save_plain(net: Any, folder: str | Path) -> None:
    """A model of `transformers` to a folder that `load_vision` and `load_language` read, without a progress bar."""
    tf = need("transformers", "train")
    with _quiet(tf):
        net.save_pretrained(folder)
