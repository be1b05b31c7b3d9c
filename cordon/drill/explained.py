"""Explanations of past decisions, asked of the service, against Shapley values that are not our own.

    world --> service --> decisions;   GET .../explanation   <-- compared -->   shap over the members' trees

`shap` reads the trees as plain arrays and walks them in its own compiled code: neither XGBoost's
`pred_contribs` nor the kernel of `models` has a part in it. Covers are the trees' own (path dependent), as in
TreeSHAP (Lundberg et al., Nature Machine Intelligence 2, 2020).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import shap
import xgboost as xgb
from numpy.typing import NDArray

from client import ModelExplanation
from cordon.drill.replayed import THREADS, NothingDecided, client_of, recorded, replay, service, train
from cordon.stack.local import Local
from models.artefact import load as load_model
from models.ensemble import Ensemble

ADDITIVITY_MAX: Final = 1e-4
SHAP_MAX: Final = 1e-5
SPARE: Final = 1.2
"""What is sent for each decision that is wanted: a service that starts turns some away."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Explained:
    """What the drill found. `additivity`: greatest |base + contributions - margin as decided|.
    `shap`: greatest difference of any feature's contribution, base value included."""

    explained: int
    additivity: float
    shap: float
    outcomes: dict[str, int]

    @property
    def holds(self) -> bool:
        """Whether both stay below their limits."""
        return self.explained > 0 and self.additivity < ADDITIVITY_MAX and self.shap < SHAP_MAX

    def as_json(self) -> dict[str, Any]:
        """The last line of the drill."""
        return {
            "explained": self.explained,
            "max_additivity_error": self.additivity,
            "max_abs_diff_shap": self.shap,
            "outcomes": self.outcomes,
        }


def drill(directory: Path, decisions: int, say: Callable[[str], None]) -> Explained:
    """Run it below `directory`. Raises `NothingDecided`, and what training and the stack raise."""
    history, models = train(directory, say)
    with service(directory, models[0], say) as running:
        replay(history, running, round(decisions * SPARE))
        found = recorded(directory / "stack" / "journal" / "service-0")
        records = [record for record in found if record["scored_by"] == "model"][-decisions:]
        if len(records) < decisions:
            raise NothingDecided(f"the model decided {len(records)} of {decisions} transactions")
        answers = explanations(running, [record["id"] for record in records])
    say(f"{len(answers):,} explanations; recomputing them with shap {shap.__version__}")
    ensemble = load_model(models[0], device="cpu").ensemble
    told = [_told(answer, ensemble.features) for answer in answers]
    ours = np.array([contributions for _, contributions in told])
    theirs = independent(ensemble, np.array([values for values, _ in told], np.float32))
    margins = np.array([record["margin"] for record in records])
    outcomes = {
        o: sum(r["outcome"] == o for r in records) for o in ("approve", "challenge", "review", "decline")
    }
    return Explained(
        len(answers),
        float(np.abs(ours.sum(axis=1) - margins).max()),
        float(np.abs(ours - theirs).max()),
        outcomes,
    )


def explanations(running: Local, ids: Sequence[str]) -> list[ModelExplanation]:
    """The model's part of what the service explains to a data scientist. Raises `CordonError`."""

    def ask(some: Sequence[str]) -> list[ModelExplanation]:
        with client_of(running) as client:
            found = [client.explanation(id_, audience="data_scientist").model for id_ in some]
            return [model for model in found if model is not None]

    size = math.ceil(len(ids) / THREADS)
    parts = [ids[at : at + size] for at in range(0, len(ids), size)]
    with ThreadPoolExecutor(THREADS) as pool:
        return [answer for answers in pool.map(ask, parts) for answer in answers]


def _told(model: ModelExplanation, features: Sequence[str]) -> tuple[list[float], list[float]]:
    """Values and contributions of an explanation in the model's order, the base value last of these."""
    found = {item.feature: item for item in model.contributions}
    values = [found[name].value for name in features]
    shares = [found[name].contribution for name in features]
    return [math.nan if value is None else value for value in values], [*shares, model.base_value]


def independent(ensemble: Ensemble, matrix: NDArray[np.float32]) -> Floats:
    """SHAP values of the blended margin by `shap`, float64 [n, features + 1]; the base value comes last."""
    total = np.zeros((len(matrix), matrix.shape[1] + 1))
    for member in ensemble.members:
        booster = xgb.Booster()
        booster.load_model(bytearray(member.model))
        explainer = shap.TreeExplainer(plain(json.loads(booster.save_raw("json"))["learner"]))
        total[:, :-1] += member.weight * explainer.shap_values(matrix.astype(np.float64))
        total[:, -1] += member.weight * float(np.ravel(explainer.expected_value)[0])
    return total


def plain(learner: dict[str, Any]) -> dict[str, Any]:
    """XGBoost's trees as the arrays that `shap` takes from any model.

    XGBoost goes left below a threshold, `shap` up to it: each threshold moves down by one float32.
    """
    probability = float(learner["learner_model_param"]["base_score"].strip("[]"))
    return {
        "trees": [_tree(tree) for tree in learner["gradient_booster"]["model"]["trees"]],
        "base_offset": math.log(probability / (1.0 - probability)),
        "tree_output": "raw_value",
        "objective": "binary_crossentropy",
        "input_dtype": np.float64,
        "internal_dtype": np.float64,
    }


def _tree(tree: dict[str, Any]) -> dict[str, Any]:
    left = np.array(tree["left_children"], np.int32)
    right = np.array(tree["right_children"], np.int32)
    conditions = np.array(tree["split_conditions"], np.float32)
    leaf = left < 0
    below = np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64)
    return {
        "children_left": left,
        "children_right": right,
        "children_default": np.where(np.array(tree["default_left"], bool), left, right).astype(np.int32),
        "features": np.where(leaf, -1, np.array(tree["split_indices"], np.int32)).astype(np.int32),
        "thresholds": np.where(leaf, 0.0, below),
        "values": np.where(leaf, conditions, 0.0).astype(np.float64).reshape(-1, 1),
        "node_sample_weight": np.array(tree["sum_hessian"], np.float64),
    }
