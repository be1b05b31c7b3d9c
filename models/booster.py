"""Fitting one booster, reproducibly: the same rows, parameters and seed give the same bytes."""

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

THREADS: Final = 1
"""Per booster: one order of summation, whatever the machine."""


@dataclass(frozen=True, slots=True)
class BoosterParameters:
    """XGBoost `hist` on log loss.

    `base_score` is 0.5 and `max_bin` large on purpose: with the automatic base score of rare fraud (a
    margin near -5) the hessian of every row is tiny and small leaves are blocked; 256 bins cannot separate
    the top of the amounts.
    """

    rounds: int = 200
    eta: float = 0.05
    max_depth: int = 5
    max_bin: int = 1024
    min_child_weight: float = 5.0
    subsample: float = 0.7
    colsample_bytree: float = 0.4
    reg_lambda: float = 1.0

    def __post_init__(self) -> None:
        if not (self.rounds >= 1 and 1 <= self.max_depth <= 8 and 2 <= self.max_bin <= 65535):
            raise ValueError("rounds >= 1, max_depth 1 to 8, max_bin 2 to 65535")

    def xgboost(self, seed: int) -> dict[str, Any]:
        """XGBoost's own parameter names."""
        chosen = asdict(self)
        del chosen["rounds"]
        return chosen | {
            "objective": "binary:logistic",
            "tree_method": "hist",
            "base_score": 0.5,
            "seed": seed,
            "nthread": THREADS,
        }


def fit_booster(
    matrix: NDArray[np.float32],
    labels: NDArray[np.bool_],
    parameters: BoosterParameters,
    *,
    seed: int,
    absent_columns: NDArray[np.int64] | None = None,
    genuine_max: int | None = None,
) -> bytes:
    """Fit on float32 [n, f] and return the booster as UBJSON.

    `absent_columns` are hidden from it. With more than `genuine_max` genuine rows, a seeded sample of them
    stands for all, by weight; frauds are never sampled.
    """
    rows, weight = _sample(labels, genuine_max, seed)
    seen = np.array(matrix[rows], dtype=np.float32, order="C")
    hidden = np.zeros(0, dtype=np.int64) if absent_columns is None else absent_columns
    seen[:, hidden] = np.nan
    chosen = np.ones(matrix.shape[1], dtype=np.float32)
    chosen[hidden] = 0.0  # a tree's sample of columns is drawn from those that it may use
    data = xgb.QuantileDMatrix(
        seen,
        labels[rows].astype(np.float32),
        weight=weight,
        feature_weights=chosen,
        max_bin=parameters.max_bin,
        nthread=THREADS,
    )
    booster = xgb.train(parameters.xgboost(seed), data, num_boost_round=parameters.rounds)
    booster.set_param({"nthread": 1})
    return bytes(booster.save_raw("ubj"))


def _sample(
    labels: NDArray[np.bool_], genuine_max: int | None, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
    genuine = np.flatnonzero(~labels)
    if genuine_max is None or len(genuine) <= genuine_max:
        return np.arange(len(labels)), None
    kept = np.random.default_rng(seed).choice(genuine, genuine_max, replace=False)
    rows = np.sort(np.concatenate([np.flatnonzero(labels), kept]))
    weight = np.where(labels[rows], 1.0, len(genuine) / genuine_max).astype(np.float32)
    return rows, weight
