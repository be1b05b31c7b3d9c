"""The ensemble as a value: members as UBJSON bytes, and weights that blend their margins.

    margin = w_1 * margin_1 + ... + w_m * margin_m        (float64, summed in the order of the members)

Every member takes the whole vector; the behaviour member was fitted with the label-derived columns absent,
so no tree of it looks at them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

WEIGHT_PULL: Final = 1e-3
"""Pull towards equal weights: decides where validation hardly distinguishes the members."""

FRAUDS_TO_WEIGH: Final = 10
"""With fewer frauds in the blending slice the members count the same."""


@dataclass(frozen=True, slots=True)
class Member:
    """One fitted booster: `model` is XGBoost's UBJSON, `weight` its share of the margin."""

    name: str
    model: bytes
    weight: float
    uses_labels: bool


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Members over one ordered list of `features`; the weights are >= 0 and sum to 1."""

    features: tuple[str, ...]
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        weights = [m.weight for m in self.members]
        if not weights or min(weights) < 0 or abs(sum(weights) - 1.0) > 1e-9:
            raise ValueError(f"weights must be >= 0 and sum to 1, not {weights}")


def blend(margins: Sequence[NDArray[np.floating]], weights: Sequence[float]) -> NDArray[np.float64]:
    """Weighted sum of the members' outputs, in the members' order, so that it is bit-reproducible."""
    total = margins[0].astype(np.float64) * weights[0]
    for margin, weight in zip(margins[1:], weights[1:], strict=True):
        total += margin.astype(np.float64) * weight
    return total


def fit_weights(margins: Sequence[NDArray[np.floating]], labels: NDArray[np.bool_]) -> tuple[float, ...]:
    """Weights of the members by the log loss of the blended margin (with a free scale and shift).

    `margins`: one vector per member, none of them fitted on these rows. Non-negative, sums to 1.
    Equal weights where there are fewer than `FRAUDS_TO_WEIGH` frauds, or where nothing helps.
    """
    count = len(margins)
    equal = (1.0 / count,) * count
    if int(labels.sum()) < FRAUDS_TO_WEIGH or labels.all():
        return equal
    x = np.column_stack([m.astype(np.float64) for m in margins])
    sign = np.where(labels, 1.0, -1.0)

    def loss(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = (x @ v[:count] + v[count]) * sign
        pull = v[:count] - v[:count].mean()
        value = float(np.logaddexp(0.0, -z).mean() + WEIGHT_PULL * (pull @ pull))
        slope = -sign / (1.0 + np.exp(np.clip(z, -700, 700))) / len(sign)
        return value, np.append(x.T @ slope + 2 * WEIGHT_PULL * pull, slope.sum())

    start = np.append(np.full(count, 1.0 / count), 0.0)
    bounds = [(0.0, None)] * count + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    weights = np.maximum(found.x[:count], 0.0)
    if not np.isfinite(weights).all() or weights.sum() <= 0:
        return equal
    # six decimals: the manifest is readable and the blend does not depend on an optimiser's last bits
    rounded = np.round(weights / weights.sum(), 6)
    rounded[int(np.argmax(rounded))] += 1.0 - rounded.sum()
    return tuple(float(w) for w in np.round(rounded, 6))
