"""Several towers into one shared space, any subset of their inputs present."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from fabrica.errors import Refused, UsageError, unknown
from fabrica.models.towers import Tower
from fabrica.objectives.scale import LogitScale
from fabrica.types import Features, Field

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_FORMAT = 1


class MultiTower(
    nn.Module, PyTorchModelHubMixin, library_name="fabrica", repo_url="", docs_url="", tags=["medical", "multimodal"]
):
    """Towers by field name, each with a head to `dim`, and one logit scale.

    `embed(fields)` reads any subset of the towers' fields. A record without a field has presence False there; its row
    is zero under `absent` "exclude", and a learned vector of that field (finished as the head does) under "token"
    (Symile's missing modality, arXiv 2411.01053). Presence tells the truth under both: objectives decide.

    >>> from fabrica.models.small import LinearTower
    >>> model = MultiTower({n: Tower(LinearTower(5, 16)) for n in "ab"}, 16)
    >>> field = Field(torch.ones(3, 1, 5), torch.tensor([[True], [True], [False]]))
    >>> z, here = model.embed({"a": field})
    >>> z["a"].shape, here["a"].tolist(), z["a"][2].norm().item()
    (torch.Size([3, 16]), [True, True, False], 0.0)
    """

    def __init__(
        self, towers: Mapping[str, Tower], dim: int, *, scale: LogitScale | None = None,
        absent: Literal["exclude", "token"] = "exclude",
    ) -> None:  # fmt: skip
        super().__init__()
        if not towers or any("." in n or not n for n in towers):
            raise UsageError(f"towers need names without dots; got {list(towers)}")
        if absent not in ("exclude", "token"):
            raise UsageError(f"absent {absent!r} is none of exclude, token")
        for name, tower in towers.items():
            if tower.width != dim:
                raise UsageError(f"tower {name!r} gives {tower.width} values, the shared space has {dim}")
        self.dim, self.absent = dim, absent
        self.towers = nn.ModuleDict(towers)
        self.logit_scale = LogitScale() if scale is None else scale
        self.missing = nn.ParameterDict()
        if absent == "token":
            self.missing.update({n: nn.Parameter(torch.randn(dim) * dim**-0.5) for n in towers})

    def tower(self, name: str) -> Tower:
        """The tower of a field; an error with the near name where there is none."""
        if name not in self.towers:
            raise unknown("tower", name, self.towers)
        found = self.towers[name]
        assert isinstance(found, Tower)
        return found

    def encode(self, name: str, field: Field) -> Features:
        """What the encoder gives before the head, with tokens."""
        made: Features = self.tower(name)(field)
        return made

    def project(self, name: str, pooled: Tensor, present: Tensor) -> Tensor:
        """(B, D) through the head -> (B, dim); rows that are not `present` (B,) follow `absent`."""
        head = self.tower(name).head
        where = present.nonzero().squeeze(1)
        if len(where) == len(present):
            made: Tensor = head(pooled)
            return made
        rows = pooled.new_zeros((len(present), self.dim), dtype=torch.float32)
        if self.absent == "token":
            rows = rows + head.finish(self.missing[name])
        return rows.index_copy(0, where, head(pooled[where])) if len(where) else rows

    def embed(self, fields: Mapping[str, Field]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Embeddings (B, dim) float32 and presence (B,) bool by field name."""
        embeddings, presence = {}, {}
        for name, field in fields.items():
            pooled = self.tower(name)(field, tokens=False).pooled
            presence[name] = field.valid.any(1)
            embeddings[name] = self.project(name, pooled, presence[name])
        return embeddings, presence

    def forward(self, fields: Mapping[str, Field]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The same as `embed`, for wrappers that call the module."""
        return self.embed(fields)

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain JSON: what config.json holds."""
        towers = {n: self.tower(n).to_json() for n in self.towers}
        return {
            "format": _FORMAT, "library": "fabrica", "dim": self.dim, "absent": self.absent, "towers": towers,
            "scale": self.logit_scale.settings(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MultiTower:
        """The inverse of `to_json`, with random weights."""
        if data.get("library") != "fabrica" or data.get("format") != _FORMAT:
            raise UsageError(
                f"{CONFIG} is of library {data.get('library')!r}, format {data.get('format')!r}; "
                f"wanted 'fabrica', {_FORMAT}"
            )
        towers = {n: Tower.from_json(t) for n, t in data["towers"].items()}
        return cls(towers, data["dim"], scale=LogitScale(**data["scale"]), absent=data["absent"])

    def _save_pretrained(self, save_directory: Path) -> None:
        """config.json and model.safetensors."""
        from safetensors.torch import save_model

        save_model(self, str(save_directory / WEIGHTS))
        (save_directory / CONFIG).write_text(json.dumps(self.to_json(), indent=1) + "\n", "utf-8")

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, allow_network: bool = False, **options: Any
    ) -> MultiTower:
        """From a folder, or a hub id: looked up in the local hub cache unless `allow_network`."""
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        options.setdefault("local_files_only", not allow_network)
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **options)
        except (HFValidationError, LocalEntryNotFoundError) as error:
            name = str(pretrained_model_name_or_path)
            raise UsageError(
                f"no folder {name!r}, and no such model in the hub cache; allow_network=True may fetch it"
            ) from error

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None, cache_dir: str | Path | None, force_download: bool,
        local_files_only: bool, token: str | bool | None, map_location: str = "cpu", **kwargs: Any,
    ) -> MultiTower:  # fmt: skip
        """From a folder, or from a hub id through the hub's own client. Only safetensors are read."""
        from huggingface_hub import hf_hub_download

        folder = Path(model_id)
        if folder.is_dir():
            config, weights = folder / CONFIG, folder / WEIGHTS
        else:
            got = (
                hf_hub_download(
                    model_id, name, revision=revision, cache_dir=cache_dir, force_download=force_download,
                    local_files_only=local_files_only, token=token,
                )
                for name in (CONFIG, WEIGHTS)
            )  # fmt: skip
            config, weights = Path(next(got)), Path(next(got))
        return cls.of_files(config, weights, map_location)

    @classmethod
    def of_files(cls, config: Path, weights: Path, device: str = "cpu") -> MultiTower:
        """The model of a config.json and a model.safetensors, in evaluation mode."""
        from fabrica import safe

        for path in (config, weights):
            if not path.is_file():
                raise UsageError(
                    f"{str(path.parent)!r} has no {path.name}; wanted a folder that `save_pretrained` wrote"
                )
        with weights.open("rb") as handle:
            if handle.read(9)[8:] != b"{":
                raise Refused("checkpoint_format", f"{weights.name} is not in the safetensors format")
        model = cls.from_json(json.loads(safe.read_bytes(config)))
        missing, extra = _load(model, safe.weights(weights))
        if missing or extra:
            raise UsageError(
                f"{weights.name} does not fit {config.name}: {len(missing)} missing ({', '.join(missing[:2])}), "
                f"{len(extra)} left over ({', '.join(extra[:2])})"
            )
        return model.to(device).eval()


def _load(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Weights into the model; names that are missing (tied ones aside) and names left over."""
    shapes = {n: t.shape for n, t in model.state_dict().items()}
    wrong = [n for n, t in state.items() if n in shapes and shapes[n] != t.shape]
    if wrong:
        raise UsageError(
            f"weight {wrong[0]!r} has shape {tuple(state[wrong[0]].shape)}, wanted {tuple(shapes[wrong[0]])}"
        )
    missing, extra = model.load_state_dict(dict(state), strict=False)
    held = {t.data_ptr() for n, t in model.state_dict().items() if n not in missing}
    return [n for n in missing if model.state_dict()[n].data_ptr() not in held], list(extra)
