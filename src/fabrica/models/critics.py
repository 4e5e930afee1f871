"""Critics of masks: is this a plausible segmentation, seen at several resolutions?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from fabrica.errors import UsageError
from fabrica.models.dense import Part


class MaskPyramidCritic(Part):
    """Masks without background at full, 1/2, 1/4, ... size -> one score a sample (Valvano et al., arXiv 2007.01152).

    Level 0: conv4 of stride 2 and leaky ReLU. Each further level squeezes what came before to `squeeze` channels (1x1,
    sigmoid), puts that level's masks beside it, and goes on by a spectrally normalised conv4 and tanh. The last layer
    sees the whole grid, so the critic is for masks of one `size`. In training N(0, `noise`^2) is added to level 0, and
    with chance `flip` a call the scores change sign (the gradient does not). `shown` < `levels` shows the finest
    levels alone (1 = a critic of one scale). No background: (B, `classes` - 1, *size / 2^d).
    """

    kind: ClassVar[str] = "critics:MaskPyramidCritic"

    def __init__(
        self, classes: int, size: Sequence[int], widths: Sequence[int] = (32, 128, 256, 512), squeeze: int = 12,
        noise: float = 0.2, flip: float = 0.1, shown: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.classes, self.size, self.widths = classes, tuple(size), tuple(widths)
        self.squeeze, self.noise, self.flip = squeeze, noise, flip
        self.shown = shown or len(self.widths)
        if classes < 2 or len(self.size) not in (2, 3) or len(self.widths) < 2:
            raise UsageError(f"a critic of {classes} classes on {self.size} with widths {self.widths}; wanted classes "
                             ">= 2, two or three sides and at least two levels")  # fmt: skip
        if not 1 <= self.shown <= len(self.widths) or any(n % 2 ** (len(self.widths) - 1) for n in self.size):
            raise UsageError(f"sides {self.size} need {len(self.widths) - 1} halvings, levels shown {self.shown}")
        conv = nn.Conv2d if len(self.size) == 2 else nn.Conv3d
        masks = classes - 1
        self.first = conv(masks, self.widths[0], 4, stride=2, padding=1)
        self.squeezes, self.convs = nn.ModuleList(), nn.ModuleList()
        for i, (a, b) in enumerate(zip(self.widths, self.widths[1:], strict=False), 1):
            beside = masks if i < self.shown else 0
            stride = 2 if i < len(self.widths) - 1 else 1
            self.squeezes.append(conv(a, squeeze, 1))
            self.convs.append(spectral_norm(conv(squeeze + beside, b, 4, stride=stride, padding=1)))
        sides = [n // 2 ** (len(self.widths) - 1) - 1 for n in self.size]  # conv4 of stride 1 takes one off
        self.score = nn.Linear(self.widths[-1] * math.prod(sides), 1)

    @property
    def levels(self) -> int:
        """How many levels of the pyramid it looks at."""
        return self.shown

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """(B,) scores of masks (B, classes - 1, *size / 2^d), finest first; levels beyond `shown` are not looked at."""
        self._check(pyramid)
        x = pyramid[0]
        if self.training and self.noise:
            x = x + self.noise * torch.randn_like(x)
        x = nn.functional.leaky_relu(self.first(x), 0.2)
        for i, (squeeze, conv) in enumerate(zip(self.squeezes, self.convs, strict=True), 1):
            x = torch.sigmoid(squeeze(x))
            if i < self.shown:
                x = torch.cat([x, pyramid[i]], 1)
            x = torch.tanh(conv(x))
        score: Tensor = self.score(x.flatten(1)).squeeze(1)
        if self.training and self.flip and float(torch.rand(())) < self.flip:
            score = score - 2 * score.detach()  # the sign flips, the gradient does not
        return score

    def _check(self, pyramid: Sequence[Tensor]) -> None:
        if len(pyramid) < self.shown:
            raise UsageError(f"the critic looks at {self.shown} levels, the net gives {len(pyramid)}: a net without "
                             "gates has one (shown=1)")  # fmt: skip
        for d, masks in enumerate(pyramid[: self.shown]):
            wanted = (self.classes - 1, *(n // 2**d for n in self.size))
            if tuple(masks.shape[1:]) != wanted:
                raise UsageError(f"level {d} of the pyramid is {tuple(masks.shape[1:])}, wanted {wanted}: masks "
                                 "without background, of the critic's own size")  # fmt: skip

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "classes": self.classes, "size": list(self.size), "widths": list(self.widths), "squeeze": self.squeeze,
            "noise": self.noise, "flip": self.flip, "shown": self.shown,
        }  # fmt: skip
