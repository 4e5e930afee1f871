"""Averages of weights: WiSE-FT (Wortsman et al., CVPR 2022), between what a model started from and what it became."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fabrica.errors import UsageError


def wise_ft(start: Mapping[str, Tensor], tuned: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """theta = alpha tuned + (1 - alpha) start of two state dicts with the same names and shapes; counters (integer
    tensors) are the tuned ones. For `model.load_state_dict`.

    >>> import torch
    >>> wise_ft({"w": torch.zeros(2)}, {"w": torch.ones(2)}, 0.25)["w"].tolist()
    [0.25, 0.25]
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha = {alpha}; wanted 0 (the start) to 1 (the tuned weights)")
    if start.keys() != tuned.keys():
        odd = sorted(start.keys() ^ tuned.keys())[:5]
        raise UsageError(f"the two models are not alike: only one has {', '.join(odd)}")
    out = {}
    for name, value in tuned.items():
        if value.shape != start[name].shape:
            raise UsageError(f"{name}: {tuple(start[name].shape)} and {tuple(value.shape)}; the models are not alike")
        out[name] = value * alpha + start[name].to(value) * (1 - alpha) if value.is_floating_point() else value.clone()
    return out
