"""A small real model of the payments catalogue, published as an artefact."""

from pathlib import Path

import numpy as np
import xgboost as xgb

from features import load
from models.artefact import golden_rows, publish
from models.calibration import Calibrator
from models.ensemble import Ensemble, Member
from models.policy import Costs, Policy
from models.scorecard import Scorecard, ScorecardFeature
from models.scorer import CpuScorer

CATALOGUE = load("payments")


def small_artefact(root: Path, *, seed: int = 1) -> Path:
    """Two members over all features; larger amounts and busier cards are riskier. Its directory."""
    names = CATALOGUE.names
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(600, len(names))).astype(np.float32)
    amount, count = names.index("amount"), names.index("card_count_1h")
    matrix[:, amount] = random.integers(100, 100_000, 600)
    matrix[:, count] = random.integers(1, 12, 600)
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    risk = np.nan_to_num(matrix[:, amount]) / 50_000 + np.nan_to_num(matrix[:, count]) / 6
    fraud = (risk + random.normal(size=600) * 0.3 > 2).astype(np.float32)
    members = []
    for number in range(2):
        settings = {"objective": "binary:logistic", "max_depth": 4, "base_score": 0.5, "seed": seed + number}
        booster = xgb.train(settings | {"subsample": 0.8}, xgb.DMatrix(matrix, fraud), num_boost_round=12)
        members.append(Member(f"m{number}", bytes(booster.save_raw("ubj")), 0.5, False))
    ensemble = Ensemble(names, tuple(members))
    card = Scorecard(-4.0, (ScorecardFeature("amount", (50_000.0,), (0.0, 2.0), 0.0),))
    policy = Policy(2_000.0, 20_000.0, 0.9, 0, Costs())
    return publish(
        root,
        ensemble,
        {
            "calibrator": Calibrator((-4.0, 4.0), (0.01, 0.99)).to_json(),
            "policy": policy.to_json(),
            "scorecard": card.to_json(),
        },
        {
            "catalogue": "payments",
            "vector_fingerprint": CATALOGUE.vector_fingerprint,
            "state_fingerprint": CATALOGUE.state_fingerprint,
            "missing_allowed": {},
            "golden": golden_rows(ensemble, CpuScorer(ensemble), matrix[:4]),
        },
    )
