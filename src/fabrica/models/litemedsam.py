"""LiteMedSAM: a mask for a box on any medical image.

Ma et al. 2024, "Segment anything in medical images"; TinyViT: Wu et al. 2022; SAM: Kirillov et al. 2023.

The image encoder stands here; the prompt encoder and mask decoder are those of `transformers`. Module names follow the
published checkpoint, so that `catalogue.weights("litemedsam")` loads key by key.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fabrica import safe
from fabrica.errors import Refused, UsageError, need

SIDE, GRID = 256, 64  # pixels of the input, tokens of its encoding
WIDTHS, DEPTHS, HEADS, WINDOWS = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7)


class ConvNorm(nn.Sequential):
    """Convolution without bias, then batch norm; names `c` and `bn` as in the checkpoint."""

    def __init__(self, inside: int, out: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.add_module("c", nn.Conv2d(inside, out, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(out))


class Stem(nn.Module):
    """(B, 3, 256, 256) -> (B, 64, 256, 256), pixel by pixel: this variant starts at full resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, width // 2), nn.GELU(), ConvNorm(width // 2, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.seq(x)
        return out


class MBConv(nn.Module):
    """Inverted bottleneck, 4 times as wide inside, with a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width, 4 * width)
        self.conv2 = ConvNorm(4 * width, 4 * width, 3, groups=4 * width)
        self.conv3 = ConvNorm(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class Merge(nn.Module):
    """To the next stage's width, at half the resolution unless `stride` is 1."""

    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inside, out)
        self.conv2 = ConvNorm(out, out, 3, stride=stride, groups=out)
        self.conv3 = ConvNorm(out, out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return out


class WindowAttention(nn.Module):
    """Self-attention in a window, with a learned bias for each distance (rows apart, columns apart)."""

    index: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        at = torch.arange(window)
        far = (at[:, None] - at[None, :]).abs()  # (w, w)
        index = far[:, None, :, None] * window + far[None, :, None, :]  # (row, column, row', column')
        self.register_buffer("index", index.reshape(window**2, window**2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        qkv = self.qkv(self.norm(x)).view(n, length, self.heads, -1).transpose(1, 2)
        q, k, v = qkv.chunk(3, dim=-1)  # (n, heads, L, width / heads)
        bias = self.attention_biases[:, self.index][None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(n, -1, -1, -1))
        out: Tensor = self.proj(y.transpose(1, 2).reshape(n, length, width))
        return out


class Mlp(nn.Module):
    """Norm, then two layers with GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out


class Block(nn.Module):
    """Window attention, a depthwise convolution, and a feed-forward layer, on (B, C, H, W)."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = ConvNorm(width, width, 3, groups=width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.local_conv(x + self._attend(x))
        tokens = x.flatten(2).transpose(1, 2)
        out: Tensor = x + self.mlp(tokens).transpose(1, 2).reshape(x.shape)
        return out

    def _attend(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        s = self.window
        padded = F.pad(x, (0, -w % s, 0, -h % s))
        rows, columns = padded.shape[2] // s, padded.shape[3] // s
        windows = padded.view(b, c, rows, s, columns, s).permute(0, 2, 4, 3, 5, 1).reshape(-1, s * s, c)
        y = self.attn(windows).view(b, rows, columns, s, s, c).permute(0, 5, 1, 3, 2, 4)
        out: Tensor = y.reshape(padded.shape)[:, :, :h, :w]
        return out


class Layer(nn.Module):
    """One stage: its blocks, and the way to the next stage."""

    def __init__(self, n: int) -> None:
        super().__init__()
        width = WIDTHS[n]
        make = (lambda: MBConv(width)) if n == 0 else (lambda: Block(width, HEADS[n], WINDOWS[n]))
        self.blocks = nn.ModuleList(make() for _ in range(DEPTHS[n]))
        self.downsample = Merge(width, WIDTHS[n + 1], 1 if n == 2 else 2) if n < 3 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.downsample(x)
        return out


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ImageEncoder(nn.Module):
    """TinyViT: (B, 3, 256, 256) in 0..1 -> (B, 256, 64, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = Stem(WIDTHS[0])
        self.layers = nn.ModuleList(Layer(n) for n in range(4))
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], 256, 1, bias=False), ChannelNorm(256, eps=1e-6),
            nn.Conv2d(256, 256, 3, padding=1, bias=False), ChannelNorm(256, eps=1e-6),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.neck(x)
        return out


class LiteMedSAM(nn.Module):
    """Images and boxes -> mask logits.

    model = LiteMedSAM.from_pretrained(catalogue.weights("litemedsam"))
    mask = model.segment(image, (30, 40, 120, 200))      # (H, W) bool
    """

    def __init__(self) -> None:
        super().__init__()
        sam: Any = need("transformers.models.sam.modeling_sam", "train")
        transformers = need("transformers", "train")
        self.image_encoder = ImageEncoder()
        config = transformers.SamConfig(
            vision_config=transformers.SamVisionConfig(image_size=SIDE, patch_size=SIDE // GRID, num_pos_feats=128),
            prompt_encoder_config=transformers.SamPromptEncoderConfig(image_size=SIDE, patch_size=SIDE // GRID),
            mask_decoder_config=transformers.SamMaskDecoderConfig(layer_norm_eps=1e-5),
            attn_implementation="sdpa",
        )
        config.mask_decoder_config._attn_implementation = "sdpa"
        self.prompt_encoder = sam.SamPromptEncoder(config)
        self.mask_decoder = sam.SamMaskDecoder(config.mask_decoder_config)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The model of a folder with model.safetensors (`catalogue.weights("litemedsam")`), in eval mode."""
        path = Path(folder) / "model.safetensors"
        if not path.is_file():
            raise UsageError(f"no model.safetensors in {folder}; give the folder of catalogue.weights('litemedsam')")
        model = cls()
        missing, extra = model.load_state_dict({rename(k): v for k, v in safe.weights(path).items()}, strict=False)
        if missing or extra:
            raise Refused("checkpoint_keys", f"{path} does not fit: missing {missing[:3]}, left over {extra[:3]}")
        return model.eval()

    def forward(self, images: Tensor, boxes: Tensor) -> Tensor:
        """images (B, 3, 256, 256) in 0..1, boxes (B, N, 4) as x0, y0, x1, y1 pixels -> logits (B, N, 256, 256)."""
        tokens = self.image_encoder(images)  # (B, 256, 64, 64)
        sparse, dense = self.prompt_encoder(None, None, boxes, None)
        place = self._places(tokens).expand(len(images), -1, -1, -1)
        masks, _ = self.mask_decoder(tokens, place, sparse, dense, multimask_output=False)
        out: Tensor = masks[:, :, 0]
        return out

    def _places(self, like: Tensor) -> Tensor:
        at = (torch.arange(GRID, device=like.device, dtype=like.dtype) + 0.5) / GRID
        grid = torch.stack([at.expand(GRID, GRID), at[:, None].expand(GRID, GRID)], dim=-1)  # (y, x, [x, y])
        out: Tensor = self.prompt_encoder.shared_embedding(grid[None]).permute(0, 3, 1, 2)  # (1, 256, 64, 64)
        return out

    @torch.no_grad()
    def segment(self, image: NDArray[Any], box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
        """The mask (H, W) of what is in a box (x0, y0, x1, y1 pixels) of an image (H, W) or (H, W, 3), any number type.

        As published: longest side to 256, values to 0..1 by minimum and maximum, zeros below and to the right.
        """
        pixels, scale, (h, w) = prepare(image)
        logits = self(pixels, torch.tensor(box, dtype=torch.float32)[None, None] * scale)
        logits = F.interpolate(logits[:, :, :h, :w], image.shape[:2], mode="bilinear", align_corners=False)
        found: NDArray[np.bool_] = (logits[0, 0] > 0).numpy()
        return found


def prepare(image: NDArray[Any]) -> tuple[Tensor, float, tuple[int, int]]:
    """(1, 3, 256, 256) in 0..1, the scale, and the height and width that are real."""
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise UsageError(f"an image of shape {image.shape}; wanted (H, W) or (H, W, 3)")
    x = torch.from_numpy(np.ascontiguousarray(image, np.float32))
    x = x[..., None] if x.ndim == 2 else x
    x = x.permute(2, 0, 1)[None].expand(1, 3, -1, -1)
    scale = SIDE / max(x.shape[2:])
    h, w = (max(1, round(n * scale)) for n in x.shape[2:])
    x = F.interpolate(x, (h, w), mode="bilinear", align_corners=False, antialias=True)
    low, high = x.amin(), x.amax()
    x = (x - low) / (high - low).clamp(min=1e-8)
    return F.pad(x, (0, SIDE - w, 0, SIDE - h)), scale, (h, w)


_RENAMES = (
    (r"pe_layer\.positional_encoding_gaussian_matrix$", "shared_embedding.positional_embedding"),
    (r"^prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"^(mask_decoder\.transformer\..*)norm(\d)\.", r"\1layer_norm\2."),
    (r"norm_final_attn\.", "layer_norm_final_attn."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d|iou_prediction_head))\.layers\.0\.", r"\1.proj_in."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d|iou_prediction_head))\.layers\.1\.", r"\1.layers.0."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d|iou_prediction_head))\.layers\.2\.", r"\1.proj_out."),
)  # fmt: skip


def rename(key: str) -> str:
    """A name of the published checkpoint -> the name here (SAM's parts have the names of transformers).

    >>> rename("mask_decoder.iou_prediction_head.layers.2.bias")
    'mask_decoder.iou_prediction_head.proj_out.bias'
    """
    for pattern, new in _RENAMES:
        key, hit = re.subn(pattern, new, key)
        if hit:
            return key
    return key
