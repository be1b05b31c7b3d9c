"""The fallback: a logistic scorecard on a few binned features, for when the ensemble is missing.

Each feature is cut at quantiles; every bin, and "absent", has a weight of evidence (smoothed log odds of
fraud against the average). A logistic regression weighs the features. Absent features count as their own
bin, or as nothing at all where training never saw them absent; so it scores a vector of nothing as average.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.metrics import roc_auc

FEATURES_MAX: Final = 8
BINS: Final = 8
SMOOTHING: Final = 20.0
"""Average transactions added to every bin: a bin with few frauds says little."""


@dataclass(frozen=True, slots=True)
class ScorecardFeature:
    """Bin `i` holds values in [edges[i-1], edges[i]); `points` has len(edges) + 1 entries (log odds)."""

    name: str
    edges: tuple[float, ...]
    points: tuple[float, ...]
    absent_points: float


@dataclass(frozen=True, slots=True)
class Scorecard:
    """margin = base + sum of points. Its margins are log-odds: `probability` is their logistic."""

    base: float
    features: tuple[ScorecardFeature, ...]

    def score(self, columns: dict[str, NDArray[np.float32]], rows: int) -> NDArray[np.float64]:
        """Margins, float64 [rows]; a feature that is not in `columns` counts as absent."""
        total = np.full(rows, self.base)
        for feature in self.features:
            column = columns.get(feature.name)
            if column is None:
                total += feature.absent_points
                continue
            points = np.array(feature.points)[np.searchsorted(feature.edges, column, side="right")]
            total += np.where(np.isnan(column), feature.absent_points, points)
        return total

    def probability(self, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of fraud, float64."""
        return 1.0 / (1.0 + np.exp(-margins))

    def to_json(self) -> dict[str, Any]:
        return {
            "base": self.base,
            "features": [
                {
                    "name": f.name,
                    "edges": list(f.edges),
                    "points": list(f.points),
                    "absent_points": f.absent_points,
                }
                for f in self.features
            ],
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Scorecard":
        return Scorecard(
            value["base"],
            tuple(
                ScorecardFeature(f["name"], tuple(f["edges"]), tuple(f["points"]), f["absent_points"])
                for f in value["features"]
            ),
        )


def fit_scorecard(
    matrix: NDArray[np.float32], names: tuple[str, ...], labels: NDArray[np.bool_]
) -> Scorecard:
    """Fit on the features that rank best by themselves; both kinds of labels must be there."""
    binned = [_evidence(matrix[:, i], name, labels) for i, name in enumerate(names)]
    strength = [abs(roc_auc(labels, points) - 0.5) for _, points in binned]
    chosen = sorted(np.argsort(-np.array(strength), kind="stable")[:FEATURES_MAX].tolist())
    nothing = np.zeros((len(labels), 0))
    while True:
        weights, base = _logistic(np.column_stack([nothing, *(binned[i][1] for i in chosen)]), labels)
        if (weights >= 0).all():
            break
        # evidence has one direction: leave out what would turn it round and weigh the rest again
        chosen = [i for i, w in zip(chosen, weights, strict=True) if w >= 0]
    features = tuple(
        ScorecardFeature(
            feature.name,
            feature.edges,
            tuple(float(p * w) for p in feature.points),
            float(feature.absent_points * w),
        )
        for feature, w in zip([binned[i][0] for i in chosen], weights, strict=True)
    )
    return Scorecard(base, features)


def _evidence(
    column: NDArray[np.float32], name: str, labels: NDArray[np.bool_]
) -> tuple[ScorecardFeature, NDArray[np.float64]]:
    """The feature's bins with their weights of evidence, and the evidence of each row."""
    absent = np.isnan(column)
    rate = float(labels.mean())
    present = column[~absent].astype(np.float64)
    cuts = np.quantile(present, np.linspace(0, 1, BINS + 1)[1:-1]) if len(present) else np.zeros(0)
    edges = np.unique(cuts)
    place = np.searchsorted(edges, column, side="right")

    def points(inside: NDArray[np.bool_]) -> float:
        size, frauds = int(inside.sum()), int(labels[inside].sum())
        smoothed = (frauds + SMOOTHING * rate) / (size + SMOOTHING)
        return float(np.log(smoothed / (1 - smoothed)) - np.log(rate / (1 - rate)))

    values = [points(~absent & (place == i)) for i in range(len(edges) + 1)]
    missing = points(absent) if absent.any() else 0.0
    evidence = np.where(absent, missing, np.array(values)[np.minimum(place, len(edges))])
    return ScorecardFeature(name, tuple(edges.tolist()), tuple(values), missing), evidence


def _logistic(x: NDArray[np.float64], labels: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """Ridge logistic regression by Newton's method: weights and intercept."""
    y = labels.astype(np.float64)
    design = np.column_stack([x, np.ones(len(y))])
    rate = y.mean()
    v = np.append(np.full(x.shape[1], 1.0 / max(1, x.shape[1])), np.log(rate / (1 - rate)))
    ridge = np.append(np.full(x.shape[1], 1.0), 0.0)
    for _ in range(25):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ v, -35, 35)))
        slope = design.T @ (p - y) + ridge * v
        curve = (design * (p * (1 - p))[:, None]).T @ design + np.diag(ridge + 1e-9)
        step = np.linalg.solve(curve, slope)
        v = v - step
        if float(np.abs(step).max()) < 1e-9:
            break
    return np.round(v[:-1], 9), round(float(v[-1]), 9)
