"""One encoder under a head for each label space: MONAI's 3-D ResNets made to look far, heads that are really apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fabrica.errors import UsageError
from fabrica.models.dense import Condition, Maps, Net

Head = Literal["weak", "strong"]
SHORTCUTS = {"A": "strided identity with zero channels (MedicalNet's 18 and 34)", "B": "1x1 convolution (its others)"}


class SharedEncoder(Net):
    """A ResNet and a head for every entry of `heads` (name -> classes); the sample's domain chooses its head.

    Encoder (Chen, Ma, Zheng, arXiv 1904.00625): conv `first` of stride 2, max-pool where `pool`, four layers; layer 2
    has stride `stride`, layers 3 and 4 have stride 1 and dilation 2 and 4, so that the field of view grows and the grid
    stays (output stride 8 in the paper). `shortcut` "A" or "B": weights of one do not fit the other. Weights of MONAI's
    ResNets fit as they are (names under "encoder."). Head "weak" is one 1x1x1 convolution; "strong" rises by a
    transposed convolution to 32 channels, convolves, and classifies. Logits are interpolated to the image's own grid:
    any sides come back exactly.

    `condition.index` (B,) is the number of each sample's head; without one there must be one head. Logits (B, K, *S)
    have K of the largest head; classes that a head lacks are at the lowest number: no share, no gradient. Heads that no
    sample names are not run and get no gradient.
    """

    kind: ClassVar[str] = "shared_encoder:SharedEncoder"

    def __init__(
        self, heads: Mapping[str, int], channels: int = 1, layers: Sequence[int] = (1, 1, 1, 1),
        widths: Sequence[int] = (64, 128, 256, 512), block: Literal["basic", "bottleneck"] = "basic",
        shortcut: str = "B", head: Head = "weak", first: int = 7, pool: bool = True, stride: int = 2,
        norm: Literal["batch", "group"] = "batch", dims: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        if shortcut not in SHORTCUTS:
            raise UsageError(
                f"shortcut {shortcut!r}; wanted " + " or ".join(f"{k!r}: {v}" for k, v in SHORTCUTS.items())
            )
        if not heads or any("." in n or not n or k < 2 for n, k in heads.items()):
            raise UsageError(f"heads {dict(heads)}; wanted names without dots and two or more classes each")
        if head not in ("weak", "strong") or norm not in ("batch", "group") or dims not in (2, 3):
            raise UsageError(f"head {head!r}, norm {norm!r}, {dims} axes")
        self.channels, self.dims, self.head, self.norm = channels, dims, head, norm
        self._told = {
            "layers": list(layers), "widths": list(widths), "block": block, "shortcut": shortcut, "first": first,
            "pool": pool, "stride": stride,
        }  # fmt: skip
        self.encoder = resnet(self._told, channels, norm, dims)
        self.width = widths[-1] * (4 if block == "bottleneck" else 1)
        self.classes = dict(heads)
        make = _weak if head == "weak" else _strong
        self.heads = nn.ModuleDict({name: make(dims, self.width, k, norm) for name, k in heads.items()})

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """The four layers' maps, finest first."""
        e: Any = self.encoder
        x = e.act(e.bn1(e.conv1(image)))
        if not e.no_max_pool:
            x = e.maxpool(x)
        found = []
        for layer in (e.layer1, e.layer2, e.layer3, e.layer4):
            x = layer(x)
            found.append(x)
        return tuple(found)

    def forward(self, image: Tensor, condition: Condition | None = None) -> Maps:
        """Maps of (B, C, *S), each sample by its own head."""
        index = None if condition is None else condition.index
        if index is None and len(self.heads) > 1:
            raise UsageError(
                f"which of the heads {', '.join(self.heads)}? Condition(index=...) says it for each sample"
            )
        features = self.encode(image)
        names = list(self.heads)
        if index is None:
            index = torch.zeros(len(image), dtype=torch.long, device=image.device)
        if int(index.min()) < 0 or int(index.max()) >= len(names):
            raise UsageError(f"head number {int(index.min())} or {int(index.max())}; there are {len(names)}")
        most = max(self.classes.values())
        lowest = torch.finfo(features[-1].dtype).min / 4
        logits = features[-1].new_full((len(image), most, *image.shape[2:]), lowest)
        for number in sorted(set(index.tolist())):
            at = (index == number).nonzero().squeeze(1)
            said = self.heads[names[number]](features[-1][at])
            said = functional.interpolate(
                said, size=image.shape[2:], mode="bilinear" if self.dims == 2 else "trilinear", align_corners=False
            )
            spread = functional.pad(said, [0, 0] * self.dims + [0, most - said.shape[1]], value=lowest)
            logits = logits.index_copy(0, at, spread.to(logits.dtype))
        return Maps(logits, features=features)

    def number(self, name: str) -> int:
        """The number of a head."""
        from fabrica.errors import unknown

        if name not in self.classes:
            raise unknown("head", name, self.classes)
        return list(self.classes).index(name)

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "heads": self.classes, "channels": self.channels, **self._told, "head": self.head, "norm": self.norm,
            "dims": self.dims,
        }  # fmt: skip


def resnet(told: Mapping[str, Any], channels: int, norm: str, dims: int) -> nn.Module:
    """MONAI's ResNet without its classifier, its last two layers dilated instead of strided."""
    from monai.networks.nets.resnet import ResNet

    net = ResNet(
        told["block"], list(told["layers"]), list(told["widths"]), spatial_dims=dims, n_input_channels=channels,
        conv1_t_size=told["first"], conv1_t_stride=2, no_max_pool=not told["pool"], shortcut_type=told["shortcut"],
        feed_forward=False, bias_downsample=False,
    )  # fmt: skip
    _stride(net.layer2, told["stride"], 1, dims)
    _stride(net.layer3, 1, 2, dims)
    _stride(net.layer4, 1, 4, dims)
    _shortcuts(net)
    if norm == "group":
        _grouped(net)
    return net


def _stride(layer: nn.Module, stride: int, dilation: int, dims: int) -> None:
    """Strided convolutions get `stride`, 3x3x3 ones `dilation`; shapes of weights stay."""
    for module in layer.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            if module.stride[0] > 1:
                module.stride = (stride,) * dims
            if module.kernel_size[0] == 3:
                module.dilation = module.padding = (dilation,) * dims
    first: Any = next(iter(layer.children()))
    if callable(first.downsample) and not isinstance(first.downsample, nn.Module):
        keywords = first.downsample.keywords
        first.downsample = _Identity(keywords["planes"], stride)


class _Identity(nn.Module):
    """Shortcut type A: every `stride`-th voxel, zeros for the channels that are more. Gradient flows through it."""

    def __init__(self, planes: int, stride: int) -> None:
        super().__init__()
        self.planes, self.stride = planes, stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[(slice(None), slice(None), *(slice(None, None, self.stride),) * (x.ndim - 2))]
        return functional.pad(x, [0, 0] * (x.ndim - 2) + [0, self.planes - x.shape[1]])


def _shortcuts(net: nn.Module) -> None:
    """Layer 1's shortcut of type A, too, as a module."""
    layer: Any = net.get_submodule("layer1")
    first = next(iter(layer.children()))
    if callable(first.downsample) and not isinstance(first.downsample, nn.Module):
        first.downsample = _Identity(first.downsample.keywords["planes"], 1)


def _grouped(module: nn.Module) -> None:
    """Group norm in place of batch norm everywhere."""
    for name, child in module.named_children():
        if isinstance(child, (nn.BatchNorm2d, nn.BatchNorm3d)):
            setattr(module, name, _norm("group", child.num_features, 3))
        else:
            _grouped(child)


def _norm(norm: str, width: int, dims: int) -> nn.Module:
    if norm == "group":
        return nn.GroupNorm(4 if width % 4 == 0 else 1, width)
    return nn.BatchNorm2d(width) if dims == 2 else nn.BatchNorm3d(width)


def _weak(dims: int, width: int, classes: int, norm: str) -> nn.Module:
    return (nn.Conv2d if dims == 2 else nn.Conv3d)(width, classes, 1)


def _strong(dims: int, width: int, classes: int, norm: str) -> nn.Module:
    conv, rise = (nn.Conv2d, nn.ConvTranspose2d) if dims == 2 else (nn.Conv3d, nn.ConvTranspose3d)
    return nn.Sequential(
        rise(width, 32, 2, stride=2), _norm(norm, 32, dims), nn.ReLU(), conv(32, 32, 3, padding=1, bias=False),
        _norm(norm, 32, dims), nn.ReLU(), conv(32, classes, 1),
    )  # fmt: skip
