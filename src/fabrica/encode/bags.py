"""Bags of patch features (a slide as N vectors) to arrays of one size; a column says which patches there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.encode import Plain
from fabrica.errors import Refused, UsageError
from fabrica.types import Item


@dataclass(frozen=True, slots=True)
class BagEncode(Plain):
    """(patches, features), or (patches, 2 + features) with x and y of the patch first, -> (most, features + 1) float32:
    patches in raster order (rows from the top where there are coordinates), then zeros; the last column is 1
    for a patch.

    Of more than `most` patches some are taken: drawn anew at each visit where `draw`, else evenly spaced.

    >>> from fabrica.types import Origin
    >>> bag = Item("slide", np.array([[5.0, 1.0, 0.7], [2.0, 0.0, 0.3]]), Origin("demo", "a", "", ""))
    >>> BagEncode(1, 3)(bag, np.random.default_rng(0)).round(1).tolist()
    [[0.30000001192092896, 1.0], [0.699999988079071, 1.0], [0.0, 0.0]]
    """

    features: int
    most: int = 4096
    draw: bool = False

    def __post_init__(self) -> None:
        if self.features < 1 or self.most < 1:
            raise UsageError(f"bags of {self.most} patches of {self.features} features; wanted 1 or more of both")

    @property
    def shape(self) -> tuple[int, ...]:
        """(most, features + 1)."""
        return (self.most, self.features + 1)

    def __call__(self, item: Item, rng: np.random.Generator, /) -> NDArray[np.float32]:
        bag = np.asarray(item.array(), np.float32)
        if bag.ndim != 2 or bag.shape[1] not in (self.features, self.features + 2):
            raise Refused(
                "bag_shape",
                f"bag {item.origin.key!r} has shape {bag.shape}; wanted (patches, {self.features}), or 2 more columns "
                "for x and y",
            )
        if not len(bag):
            raise Refused("bag_empty", f"bag {item.origin.key!r} has no patch; a slide without any is Absent")
        if not np.isfinite(bag).all():
            raise Refused("bag_not_finite", f"bag {item.origin.key!r} holds NaN or infinity")
        if bag.shape[1] > self.features:
            bag = bag[np.lexsort((bag[:, 0], bag[:, 1])), 2:]
        if len(bag) > self.most:
            bag = bag[self._some(len(bag), rng)]
        out = np.zeros(self.shape, np.float32)
        out[: len(bag), :-1], out[: len(bag), -1] = bag, 1.0
        return out

    def _some(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        if self.draw:
            return np.sort(rng.choice(n, self.most, replace=False))
        return np.arange(self.most) * n // self.most

    def still(self) -> BagEncode:
        """The same with evenly spaced patches."""
        return replace(self, draw=False)

    def to_json(self) -> dict[str, Any]:
        """All settings as plain JSON."""
        return {"type": "bag", **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BagEncode:
        """The inverse of `to_json`."""
        return cls(**{k: v for k, v in data.items() if k != "type"})
