"""Any vision or text architecture of `transformers` as a body: by local folder, catalogue name or hub id."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from fabrica.errors import Refused, UsageError, need
from fabrica.models.adapt import Lora, add_lora
from fabrica.models.body import Body, Tokens

_LOCAL_KEYS = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")
_UNUSED = ("mask_token", "position_ids", "pooler.dense.weight", "pooler.dense.bias")  # never read here
_SHORT = 256  # tokens


class TransformersTower(Body):
    """The base model (no task head) of a `transformers` config, random weights; `load` brings trained ones.

    Vision models read (n, C, H, W) and give a grid of tokens after their prefix (class token, registers); sizes other
    than the trained one interpolate the position embedding. Text models read ids (n, L) with their mask. `config` holds
    "model_type" and that type's settings, as config.json does. `lora` adds adapters to the last layers and freezes all
    else in the body.
    """

    kind: ClassVar[str] = "transformers"

    def __init__(self, config: Mapping[str, Any], *, lora: Lora | None = None, model: nn.Module | None = None) -> None:
        super().__init__()
        tf = need("transformers", "train")
        if model is None:
            rest = {k: v for k, v in config.items() if k != "model_type"}
            if "model_type" not in config:
                raise UsageError("a transformers config needs its 'model_type' ('bert', 'vit', 'resnet' ...)")
            made = tf.AutoConfig.for_model(config["model_type"], **rest)
            model = tf.AutoModel.from_config(made, **_no_pooler(tf, made))
        self.model, self.lora = model, lora
        settings: Any = model.config
        self.settings = settings
        self.config = plain_config(settings)
        takes = inspect.signature(model.forward).parameters
        self.reads = "tokens" if hasattr(settings, "vocab_size") and "input_ids" in takes else "image"
        hidden = getattr(settings, "hidden_sizes", None)
        self.width = int(hidden[-1]) if hidden else int(settings.hidden_size)
        self.has_class_token = hidden is None
        self._interpolates = "interpolate_pos_encoding" in takes
        self._attention = self._own = str(getattr(settings, "_attn_implementation", None) or "eager")
        self._layers = _layer_names(model)
        if lora is not None:
            add_lora(model, self._layers, lora)

    @classmethod
    def load(cls, source: str | Path, *, lora: Lora | None = None, allow_network: bool = False) -> TransformersTower:
        """With trained weights: a folder (config.json, model.safetensors), a catalogue name, or a hub id.

        A hub id is looked up in the local hub cache; `allow_network` may download it. Only safetensors are read.
        """
        tf = need("transformers", "train")
        folder = resolve(source, allow_network=allow_network)
        local = isinstance(folder, Path)
        if local and not list(folder.glob("*.safetensors")):  # type: ignore[union-attr]
            raise Refused("checkpoint_format", f"{str(source)!r} holds no .safetensors; pickled weights are not read")
        stay: dict[str, Any] = {"local_files_only": local or not allow_network}
        try:
            config = tf.AutoConfig.from_pretrained(folder, **stay)
            with _quiet(tf):
                model, info = tf.AutoModel.from_pretrained(
                    folder, config=config, use_safetensors=True, dtype="float32", output_loading_info=True,
                    **_no_pooler(tf, config), **stay,
                )  # fmt: skip
        except OSError as error:
            where = (
                "the folder" if local else "the hub" if allow_network else "the local hub cache (network not allowed)"
            )
            raise UsageError(f"cannot load {str(source)!r} from {where}: {str(error).splitlines()[0]}") from error
        missing = sorted(n for n in info["missing_keys"] if not n.endswith(_UNUSED))
        if missing:
            raise Refused(
                "checkpoint_incomplete",
                f"{str(source)!r} lacks {len(missing)} weights of a {config.model_type!r} ({', '.join(missing[:3])})",
            )
        return cls({}, lora=lora, model=model)

    @property
    def layers(self) -> tuple[str, ...]:
        """The transformer layers or convolution stages."""
        return tuple(f"model.{name}" for name in self._layers)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tokens:
        """Tokens of the last layer: (n, L, D), or (n, prefix + h * w, D)."""
        self._attend(values)
        if self.reads == "tokens":
            extra = {"use_cache": False} if hasattr(self.settings, "use_cache") else {}
            asked = None if mask is None else mask.long()
            return Tokens(self.model(input_ids=values, attention_mask=asked, **extra).last_hidden_state, mask)
        extra = {"interpolate_pos_encoding": True} if self._interpolates and not self._fits(values) else {}
        out = self.model(pixel_values=values, **extra).last_hidden_state
        if out.ndim == 4:  # a convolutional net: (n, D, h, w)
            return Tokens(out.flatten(2).transpose(1, 2), grid=(out.shape[2], out.shape[3]))
        patch = getattr(self.settings, "patch_size", None)
        if patch is None:
            return Tokens(out)
        ph, pw = (patch, patch) if isinstance(patch, int) else patch
        grid = (values.shape[2] // ph, values.shape[3] // pw)
        prefix = out.shape[1] - grid[0] * grid[1]
        return Tokens(out, grid=grid, prefix=prefix) if prefix >= 0 else Tokens(out)

    def _attend(self, values: Tensor) -> None:
        """On a CPU, short sequences attend by plain products: the fused kernel's bf16 backward costs a third of the
        whole step there (DINOv2 ViT-S at 112 pixels: 46 against 59 images a CPU second)."""
        patch = getattr(self.settings, "patch_size", None)
        if self.reads == "tokens":
            length = values.shape[1]
        elif isinstance(patch, int) and self.has_class_token:
            length = (values.shape[2] // patch) * (values.shape[3] // patch)
        else:
            return
        wanted = "eager" if values.device.type == "cpu" and length <= _SHORT else self._own
        if wanted != self._attention:
            model: Any = self.model
            model.set_attn_implementation(wanted)
            self._attention = wanted

    def _fits(self, values: Tensor) -> bool:
        size = getattr(self.settings, "image_size", None)
        return tuple(values.shape[2:]) == ((size, size) if isinstance(size, int) else tuple(size or ()))

    def check(self, shape: tuple[int, ...] | None, size: int | None) -> None:
        config = self.settings
        if self.reads == "tokens":
            if shape is not None:
                raise UsageError(f"a {config.model_type!r} tower reads token ids; the field gives arrays {shape}")
            if size is not None and size > config.vocab_size:
                raise UsageError(
                    f"the tokenizer has {size} tokens, the {config.model_type!r} tower {config.vocab_size}"
                )
            return
        channels = getattr(config, "num_channels", 3)
        if shape is None or len(shape) != 3 or shape[0] != channels:
            raise UsageError(f"a {config.model_type!r} tower reads ({channels}, H, W); the field gives {shape}")

    @property
    def length(self) -> int | None:
        """The most tokens a text may have; None = no limit known."""
        most = getattr(self.settings, "max_position_embeddings", None)
        if most is None or self.reads != "tokens":
            return None
        padding = getattr(self.settings, "pad_token_id", None)
        offset = padding + 1 if self.config["model_type"] in ("roberta", "xlm-roberta", "camembert") and padding else 0
        return int(most) - offset

    def to_json(self) -> dict[str, Any]:
        """The architecture, whole, and the adapters: no folder is needed to build it again."""
        return {"kind": self.kind, "config": self.config, "lora": asdict(self.lora) if self.lora else None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TransformersTower:
        """The inverse of `to_json`, with random weights."""
        return cls(data["config"], lora=Lora(**data["lora"]) if data.get("lora") else None)


def resolve(source: str | Path, *, allow_network: bool = False) -> Path | str:
    """A local folder, fetched if it is a catalogue name, or a hub id as it came."""
    path = Path(source)
    if (path / "config.json").is_file():
        return path
    if path.exists():
        raise UsageError(f"{str(source)!r} has no config.json; wanted a folder that `save_pretrained` wrote")
    from fabrica import catalogue

    name = str(source)
    if name in catalogue.names():
        return Path(catalogue.weights(name))
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    known = [n for n in catalogue.names() if catalogue.get(n).kind == "weights"]
    raise UsageError(f"no model {name!r}: no such folder, not in the catalogue ({', '.join(known)}), not a hub id")


def plain_config(config: Any) -> dict[str, Any]:
    """A config as plain JSON, without what belongs to a machine or a version."""
    full: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {k: v for k, v in full.items() if k not in _LOCAL_KEYS} | {"model_type": config.model_type}


def _no_pooler(tf: Any, config: Any) -> dict[str, bool]:
    """Leave out the pooler, whose weights would never be used, where the class lets one."""
    cls = tf.AutoModel._model_mapping.get(type(config), None)
    cls = cls[0] if isinstance(cls, (tuple, list)) else cls
    takes = cls is not None and "add_pooling_layer" in inspect.signature(cls.__init__).parameters
    return {"add_pooling_layer": False} if takes else {}


@contextlib.contextmanager
def _quiet(tf: Any) -> Iterator[None]:
    """No bars and no table of unused weights while loading; what is missing is an error instead."""
    log = tf.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _layer_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the longest list of equal modules, outermost first: a transformer's layers, a convnet's stages."""
    lists = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) > 0]
    if not lists:
        return ()
    depth = min(n.count(".") for n, _ in lists)
    name, found = max(((n, m) for n, m in lists if n.count(".") == depth), key=lambda nm: len(nm[1]))
    return tuple(f"{name}.{i}" for i in range(len(found)))
