"""What an artefact says about itself: lineage, settings, metrics with intervals, golden rows.

Metrics are measured on the last out-of-fold slice: no member saw it, and nothing but the thresholds was
chosen on it. There is no wall clock in it, so the same training gives the same version.
"""

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from models.artefact import golden_rows, publish
from models.metrics import (
    MetricUndefined,
    average_precision,
    bootstrap_interval,
    lift,
    recall_at_fpr,
    roc_auc,
)
from models.policy import OUTCOMES, bands, cost_minor
from models.scorer import CpuScorer
from models.train import OutOfFold, Trained, TrainingPlan

GOLDEN_ROWS: Final = 16
MISSING_KEEPS: Final = 0.5
"""A group may be missing if the average precision without it keeps at least this share."""

METRICS: Final[Mapping[str, Callable[..., float]]] = {
    "auc": roc_auc,
    "ap": average_precision,
    "recall_at_1pct_fpr": recall_at_fpr,
    "lift_at_20pct": lift,
}


def publish_trained(
    root: Path,
    trained: Trained,
    plan: TrainingPlan,
    *,
    catalogue: str,
    vector_fingerprint: str,
    state_fingerprint: str,
    groups: Mapping[str, tuple[str, ...]],
) -> Path:
    """Write the artefact of `trained` under `root`; returns its directory.

    `groups`: features that can go missing together, by name (`label`, or an entity); those without which
    the model still ranks are listed as allowed to be missing.
    """
    manifest = {
        "catalogue": catalogue,
        "vector_fingerprint": vector_fingerprint,
        "state_fingerprint": state_fingerprint,
        "training": {
            "window_ms": list(trained.window_ms),
            "transactions": len(trained.window),
            "frauds": int(trained.window.fraud.sum()),
            "data_sha256": trained.window.data_hash,
            "label_delay_ms": plan.maturity_ms,
            "seed": plan.seed,
            "members": [asdict(m) for m in plan.members],
            "costs": asdict(plan.costs),
            "notes": list(trained.notes),
        },
        "libraries": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "xgboost": xgb.__version__,
        },
        "metrics": measure(trained, seed=plan.seed),
        "missing_allowed": {name: list(f) for name, f in _missing_allowed(trained.measured, groups).items()},
        "golden": golden_rows(
            trained.ensemble, CpuScorer(trained.ensemble), _golden_sample(trained, plan.seed)
        ),
    }
    parts = {
        "calibrator": trained.calibrator.to_json(),
        "policy": trained.policy.to_json(),
        "scorecard": trained.scorecard.to_json(),
    }
    return publish(root, trained.ensemble, parts, manifest)


def measure(trained: Trained, *, seed: int) -> dict[str, Any]:
    """Metrics on the last slice, each with its 95 % bootstrap interval; null where undefined."""
    examples, margins = trained.measured.examples, trained.measured.margins
    report: dict[str, Any] = {
        "transactions": len(examples),
        "frauds": int(examples.fraud.sum()),
        "from_ms": int(examples.time_ms[0]),
        "to_ms": int(examples.time_ms[-1]),
    }
    for name, metric in METRICS.items():
        try:
            interval = bootstrap_interval(metric, examples.fraud, margins, seed=seed)
            report[name] = {"value": metric(examples.fraud, margins), "interval": list(interval)}
        except MetricUndefined:
            report[name] = None
    probability = trained.calibrator.probability(margins)
    outcomes = bands(probability, examples.amount_minor, trained.policy)
    nothing = np.zeros(len(outcomes), dtype=np.int8)
    costs = trained.policy.costs
    report["outcomes"] = {name: int((outcomes == i).sum()) for i, name in enumerate(OUTCOMES)}
    report["cost_minor"] = round(cost_minor(outcomes, examples.fraud, examples.amount_minor, costs))
    report["cost_approving_all_minor"] = round(
        cost_minor(nothing, examples.fraud, examples.amount_minor, costs)
    )
    report["mean_probability"] = float(probability.mean())
    return report


def _missing_allowed(
    measured: OutOfFold, groups: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    examples = measured.examples
    scorer = CpuScorer(measured.ensemble)
    try:
        full = average_precision(examples.fraud, measured.margins)
    except MetricUndefined:
        return {}
    allowed = {}
    for name, features in groups.items():
        columns = [i for i, feature in enumerate(examples.features) if feature in features]
        if not columns or len(columns) == len(examples.features):
            continue
        without = examples.matrix.copy()
        without[:, columns] = np.nan
        if average_precision(examples.fraud, scorer.score(without)) >= MISSING_KEEPS * full:
            allowed[name] = tuple(examples.features[i] for i in columns)
    return allowed


def _golden_sample(trained: Trained, seed: int) -> NDArray[np.float32]:
    """Rows of the training window: frauds and genuine ones, seeded."""
    random, fraud = np.random.default_rng(seed), trained.window.fraud
    picked = [
        random.choice(rows, min(len(rows), GOLDEN_ROWS // 2), replace=False)
        for rows in (np.flatnonzero(fraud), np.flatnonzero(~fraud))
    ]
    return trained.window.matrix[np.sort(np.concatenate(picked))]
