"""From margins to probabilities: isotonic regression, smoothed, as knots for linear interpolation.

Pool-adjacent-violators (Ayer et al. 1955) on (margin, label); each pooled block becomes one knot at its
mean margin. A block of `n` rows with `k` frauds gets (k + prior * strength) / (n + strength): no probability
is exactly 0 or 1, and a block of three rows does not claim certainty. Between knots the map is linear and
strictly rising, so that it keeps the order of the margins inside the calibrated range.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from math import floor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

PRIOR_STRENGTH = 2.0


class CalibratorInvalid(ValueError):
    """The stored calibrator is not a rising function into (0, 1): train again, do not load it."""


@dataclass(frozen=True, slots=True)
class Calibrator:
    """Piecewise linear: `margins` strictly rising, `probabilities` rising, both of one length >= 1."""

    margins: tuple[float, ...]
    probabilities: tuple[float, ...]
    _knots: tuple[NDArray[np.float64], NDArray[np.float64]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        x, p = np.asarray(self.margins, np.float64), np.asarray(self.probabilities, np.float64)
        if len(x) != len(p) or not len(x) or (np.diff(x) <= 0).any() or (np.diff(p) < 0).any():
            raise CalibratorInvalid("knots must rise")
        if not (np.isfinite(x).all() and (p > 0).all() and (p < 1).all()):
            raise CalibratorInvalid("margins must be finite and probabilities inside (0, 1)")
        object.__setattr__(self, "_knots", (x, p))

    def probability(self, margins: ArrayLike) -> NDArray[np.float64]:
        """Probability of fraud, float64, of each margin; constant beyond the outermost knots."""
        return np.interp(np.asarray(margins, dtype=np.float64), *self._knots)

    def probability_of(self, margin: float) -> float:
        """`probability` of one margin, bit for bit: NumPy's interpolation without its cost per call."""
        x, p = self.margins, self.probabilities
        above = bisect_right(x, margin)
        if above == 0:
            return p[0]
        if above == len(x):
            return p[-1]
        left = above - 1
        slope = (p[above] - p[left]) / (x[above] - x[left])
        return slope * (margin - x[left]) + p[left]

    def to_json(self) -> dict[str, Any]:
        return {"margins": list(self.margins), "probabilities": list(self.probabilities)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Calibrator":
        return Calibrator(tuple(value["margins"]), tuple(value["probabilities"]))


def fit_calibrator(margins: ArrayLike, labels: ArrayLike) -> Calibrator:
    """Isotonic calibration of `margins` (finite) on `labels`; one constant knot if all are of one kind."""
    m, y = np.asarray(margins, dtype=np.float64), np.asarray(labels).astype(np.float64)
    if not len(m):
        raise ValueError("calibration needs at least one transaction")
    prior = (y.sum() + 0.5) / (len(y) + 1.0)
    x, group = np.unique(m, return_inverse=True)
    size = np.bincount(group).astype(np.float64)
    pooled = _pool(x * size, np.bincount(group, weights=y), size)
    smoothed = (pooled[:, 1] + prior * PRIOR_STRENGTH) / (pooled[:, 2] + PRIOR_STRENGTH)
    # smoothing pulls small blocks more than large ones and may undo the order: pool once more
    final = _pool(pooled[:, 0], smoothed * pooled[:, 2], pooled[:, 2])
    knots, values = final[:, 0] / final[:, 2], final[:, 1] / final[:, 2]
    distinct = np.append(True, np.diff(knots) > 0)
    return Calibrator(tuple(knots[distinct].tolist()), tuple(values[distinct].tolist()))


def _pool(
    total: NDArray[np.float64], frauds: NDArray[np.float64], size: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Blocks [sum of margins, frauds, size], merged until their fraud rates rise strictly."""
    blocks: list[tuple[float, float, float]] = []
    for block in zip(total.tolist(), frauds.tolist(), size.tolist(), strict=True):
        merged = block
        while blocks and blocks[-1][1] * merged[2] >= merged[1] * blocks[-1][2]:
            last = blocks.pop()
            merged = (last[0] + merged[0], last[1] + merged[1], last[2] + merged[2])
        blocks.append(merged)
    return np.array(blocks)


def score_1000(probability: float) -> int:
    """The 0-1000 score: the probability in thousandths, rounded half up (900 means 90 %)."""
    return floor(probability * 1000.0 + 0.5)
