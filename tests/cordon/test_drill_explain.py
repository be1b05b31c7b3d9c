"""The other side of `cordon drill explain`: Shapley values that owe nothing to ours."""

import numpy as np
import pytest

from cordon.drill.explained import independent
from models.ensemble import Ensemble, Member
from models.scorer import CpuScorer, KernelScorer
from tests.models.boosters import Recipe, fit, probes, raw


@pytest.mark.parametrize("scorer", [CpuScorer, KernelScorer])
def test_shap_agrees_on_its_own_path(scorer: type):
    """Values on the thresholds and absent ones included; two members of different weight."""
    boosters = [fit(Recipe(max_depth=depth, rows=2_000, features=6, rounds=30)) for depth in (3, 6)]
    members = [
        Member(f"m{i}", raw(b), w, True) for i, (b, w) in enumerate(zip(boosters, (0.3, 0.7), strict=True))
    ]
    ensemble = Ensemble(tuple(f"f{i}" for i in range(6)), tuple(members))
    matrix = np.concatenate([probes(booster, 150, seed=3) for booster in boosters])
    matrix = np.where(np.isinf(matrix), np.nan, matrix).astype(np.float32)
    assert np.isnan(matrix).any()
    theirs = independent(ensemble, matrix)
    assert np.abs(scorer(ensemble).contributions(matrix) - theirs).max() < 1e-5
    assert np.abs(theirs[:, :-1]).max() > 0.1
