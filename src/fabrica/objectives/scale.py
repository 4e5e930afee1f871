"""The learned multiplier of scores (inverse temperature), and the bias that the sigmoid form adds."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError


class LogitScale(nn.Module):
    """s = exp(t): what scores are multiplied with before the softmax; 1 / temperature.

    `init` is s itself, not its logarithm (CLIP: 1 / 0.07). `learnable` False freezes it; its key in the state dict
    stays. `max` caps s (CLIP: 100; None = no cap): `clamp_` does so in place, the train loop calls it after each step.
    `bias` is the sigmoid form's additive logit (SigLIP, Zhai et al. 2023: init = 10, bias = -10); None = no bias.

    Source: Radford et al. 2021, section 2.5.

    >>> scale = LogitScale.of_temperature(0.1, learnable=False)
    >>> round(scale().item(), 4), [p.requires_grad for p in scale.parameters()]
    (10.0, [False])
    """

    def __init__(
        self, init: float = 1 / 0.07, learnable: bool = True, max: float | None = 100.0, bias: float | None = None
    ) -> None:
        super().__init__()
        if not (math.isfinite(init) and init > 0):
            raise UsageError(f"logit scale {init!r} (1 / temperature): wanted a number above 0")
        if max is not None and not max >= init:
            raise UsageError(f"logit scale starts at {init!r}, above its cap {max!r}: raise `max` or lower `init`")
        self.init, self.learnable, self.max, self.bias_init = init, learnable, max, bias
        self.log_scale = nn.Parameter(torch.tensor(math.log(init)), requires_grad=learnable)
        self.bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)), requires_grad=learnable)

    @classmethod
    def of_temperature(
        cls, temperature: float, *, learnable: bool = True, max: float | None = 100.0, bias: float | None = None
    ) -> LogitScale:
        """The scale 1 / `temperature`; an error where the temperature is not above 0."""
        if not (math.isfinite(temperature) and temperature > 0):
            raise UsageError(f"temperature {temperature!r}: wanted a number above 0")
        return cls(1 / temperature, learnable, max, bias)

    def forward(self) -> Tensor:
        """s, shape ()."""
        return self.log_scale.exp()

    @torch.no_grad()
    def clamp_(self) -> LogitScale:
        """Bring s down to `max`, in place; the optimiser keeps the parameter."""
        if self.max is not None:
            self.log_scale.clamp_(max=math.log(self.max))
        return self

    def settings(self) -> dict[str, float | bool | None]:
        """The arguments that make this module again (without what was learned): for a model's config file."""
        return {"init": self.init, "learnable": self.learnable, "max": self.max, "bias": self.bias_init}

    def extra_repr(self) -> str:
        """The settings, for printing."""
        return f"init={self.init:.4g}, learnable={self.learnable}, max={self.max}, bias={self.bias_init}"
