"""One behavioural suite for every scorer; a new implementation is one more entry in `SCORERS`."""

import itertools
import math

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.booster import BoosterParameters, fit_booster
from models.ensemble import Ensemble, Member, blend, fit_weights
from models.kernel.errors import KernelError
from models.scorer import CpuScorer, CudaScorer, KernelScorer, ScorerUnavailable, open_cpu, open_scorer
from models.train import fit_members
from tests.models.world import FEATURES, PLAN, history

ENSEMBLE = Ensemble(FEATURES, fit_members(history(), PLAN))
ALONE = [Ensemble(FEATURES, (Member(m.name, m.model, 1.0, m.uses_labels),)) for m in ENSEMBLE.members]

SCORERS = {
    "cpu": CpuScorer(ENSEMBLE),
    # where there is no compiler this one is XGBoost, by the declared fall-back
    "kernel": open_cpu(ENSEMBLE).scorer,
    # where there is no CUDA device these two are the CPU, by the declared fall-back
    "auto": open_scorer(ENSEMBLE, "auto").scorer,
    "cuda": open_scorer(ENSEMBLE, "cuda").scorer,
}
vectors = arrays(
    np.float32,
    st.tuples(st.integers(1, 40), st.just(len(FEATURES))),
    elements=st.one_of(st.just(math.nan), st.floats(-10, 1e6, width=32)),
)


@pytest.fixture(params=sorted(SCORERS))
def scorer(request):
    return SCORERS[request.param]


def test_no_rows_have_no_margins(scorer):
    nothing = np.zeros((0, len(FEATURES)), dtype=np.float32)
    assert scorer.score(nothing).shape == (0,)
    assert scorer.contributions(nothing).shape == (0, len(FEATURES) + 1)


@settings(deadline=None, max_examples=20)
@given(matrix=vectors, cut=st.integers(0, 40))
def test_a_margin_does_not_depend_on_its_batch(matrix, cut):
    for scorer in SCORERS.values():
        whole = scorer.score(matrix)
        parts = np.concatenate([scorer.score(matrix[:cut]), scorer.score(matrix[cut:])])
        single = np.concatenate([scorer.score(matrix[i : i + 1]) for i in range(len(matrix))])
        assert whole.tobytes() == parts.tobytes() == single.tobytes()


@settings(deadline=None, max_examples=20)
@given(matrix=vectors)
def test_margins_are_the_weighted_margins_of_the_members(matrix):
    for scorer in SCORERS.values():
        expected = sum(
            m.weight
            * xgb.Booster(model_file=bytearray(m.model)).predict(xgb.DMatrix(matrix), output_margin=True)
            for m in ENSEMBLE.members
        )
        assert np.allclose(scorer.score(matrix), expected, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(matrix=vectors)
def test_contributions_add_up_to_the_margin(matrix):
    for scorer in SCORERS.values():
        contributions = scorer.contributions(matrix)
        assert contributions.shape == (len(matrix), len(FEATURES) + 1)
        assert np.abs(contributions.sum(axis=1) - scorer.score(matrix)).max() < 1e-4


def test_other_shapes_and_types_are_refused(scorer):
    with pytest.raises(ValueError, match="expected float32"):
        scorer.score(np.zeros((2, len(FEATURES) - 1), dtype=np.float32))
    with pytest.raises(ValueError, match="float64"):
        scorer.contributions(np.zeros((2, len(FEATURES))))


def test_the_mode_is_declared(scorer):
    assert scorer.mode in ("cpu", "cuda")
    assert scorer.width == len(FEATURES)


def test_asking_for_a_device_that_is_not_there_says_why():
    opened = open_scorer(ENSEMBLE, "cuda")
    if opened.scorer.mode == "cpu":
        assert opened.fallback
        with pytest.raises(ScorerUnavailable):
            CudaScorer(ENSEMBLE)
    else:
        assert opened.fallback is None


def test_the_cpu_scorer_is_the_compiled_kernel_or_says_why_not():
    opened = open_scorer(ENSEMBLE, "cpu")
    assert isinstance(opened.scorer, KernelScorer) == (opened.fallback is None)
    assert isinstance(opened.scorer, KernelScorer | CpuScorer)


def test_deeper_trees_are_scored_by_xgboost():
    deep = BoosterParameters(rounds=3, max_depth=8, min_child_weight=0.1, subsample=1.0, colsample_bytree=1.0)
    world = history(rows=4000)
    ensemble = Ensemble(
        FEATURES, (Member("deep", fit_booster(world.matrix, world.fraud, deep, seed=1), 1.0, True),)
    )
    with pytest.raises(KernelError):
        KernelScorer(ensemble)
    opened = open_cpu(ensemble)
    assert isinstance(opened.scorer, CpuScorer)
    assert "compiled kernel" in str(opened.fallback)


@settings(deadline=None, max_examples=20)
@given(matrix=vectors)
def test_both_scorers_of_the_cpu_give_the_same_bits(matrix):
    cpu, kernel = SCORERS["cpu"], SCORERS["kernel"]
    assert kernel.score(matrix).tobytes() == cpu.score(matrix).tobytes()
    assert np.abs(kernel.contributions(matrix) - cpu.contributions(matrix)).max() <= 1e-5


def cover(node, features_known, row):
    """Expected value of a tree below `node` when only `features_known` of `row` are known (by cover)."""
    if "leaf" in node:
        return node["leaf"]
    children = {c["nodeid"]: c for c in node["children"]}
    if node["split"] in features_known:
        value = row[int(node["split"][1:])]
        chosen = (
            node["missing"] if math.isnan(value) else node["yes" if value < node["split_condition"] else "no"]
        )
        return cover(children[chosen], features_known, row)
    total = sum(c["cover"] for c in node["children"])
    return sum(c["cover"] / total * cover(c, features_known, row) for c in node["children"])


def test_contributions_are_exact_shapley_values():
    """Against the definition: all 2^5 coalitions, each tree averaged by cover where a feature is unknown."""
    import json

    small = BoosterParameters(rounds=5, eta=0.5, max_depth=3, subsample=1.0, colsample_bytree=1.0)
    world = history(rows=800)
    model = fit_booster(world.matrix, world.fraud, small, seed=1)
    trees = [
        json.loads(t)
        for t in xgb.Booster(model_file=bytearray(model)).get_dump(dump_format="json", with_stats=True)
    ]
    scorer = CpuScorer(Ensemble(FEATURES, (Member("only", model, 1.0, True),)))
    count = len(FEATURES)
    for row in world.matrix[:10]:
        worth = {
            known: sum(cover(t, {f"f{i}" for i in known}, [float(v) for v in row]) for t in trees)
            for size in range(count + 1)
            for known in itertools.combinations(range(count), size)
        }
        expected = [
            sum(
                math.factorial(len(s))
                * math.factorial(count - len(s) - 1)
                / math.factorial(count)
                * (worth[tuple(sorted((*s, i)))] - worth[s])
                for s in worth
                if i not in s
            )
            for i in range(count)
        ]
        found = scorer.contributions(row[None])[0]
        assert np.allclose(found[:-1], expected, atol=1e-5)
        assert found[-1] == pytest.approx(worth[()], abs=1e-5)


def test_the_blend_is_summed_in_the_members_order():
    parts = [
        np.array([0.1], dtype=np.float32),
        np.array([1e8], dtype=np.float32),
        np.array([-1e8], dtype=np.float32),
    ]
    assert blend(parts, (1.0, 1.0, 1.0))[0] == (float(np.float32(0.1)) + 1e8) - 1e8


def test_weights_prefer_the_member_that_knows():
    random = np.random.default_rng(2)
    labels = random.random(2000) < 0.1
    knows, guesses = labels * 4.0 - 3 + random.normal(size=2000), random.normal(size=2000)
    good, bad = fit_weights([knows, guesses], labels)
    assert good > 0.9
    assert good + bad == pytest.approx(1.0)
    assert fit_weights([knows, guesses], np.zeros(2000, dtype=bool)) == (0.5, 0.5)


def test_weights_that_do_not_sum_to_one_are_refused():
    member = ENSEMBLE.members[0]
    with pytest.raises(ValueError, match="sum to 1"):
        Ensemble(FEATURES, (Member("a", member.model, 0.7, True),))
    assert ALONE[0].members[0].weight == 1.0
