"""The compiled kernel against XGBoost: margins bit for bit, contributions within 1e-5, on both its paths."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ensemble import blend
from models.kernel.errors import NotSupported
from models.kernel.forest import Forest
from tests.models.boosters import (
    Recipe,
    content_of,
    contributions,
    data,
    fit,
    margins,
    probes,
    raw,
    recipes,
    reopened,
    shapley,
    trees_of,
)


def forests(models, weights):
    """One forest for each path that this processor has."""
    best = Forest(models, weights)
    return [best] if best.path == "portable" else [best, Forest(models, weights, path="portable")]


def assert_equal_margins(booster, matrix):
    expected = margins(booster, matrix)
    for forest in forests([raw(booster)], [1.0]):
        assert forest.margins(matrix)[:, 0].tobytes() == expected.tobytes()
        singles = [forest.margins(matrix[i : i + 1])[0, 0] for i in range(len(matrix))]
        assert np.array(singles, dtype=np.float32).tobytes() == expected.tobytes()
        assert forest.score(matrix).tobytes() == expected.astype(np.float64).tobytes()


def assert_close_contributions(booster, matrix):
    finite = np.where(np.isinf(matrix), np.nan, matrix)  # a DMatrix refuses infinities
    expected = contributions(booster, finite)
    scale = max(1.0, float(np.abs(expected).max()))
    found = [forest.contributions(finite) for forest in forests([raw(booster)], [1.0])]
    assert np.abs(found[0] - expected).max() <= 1e-5 * scale
    assert found[0].tobytes() == found[-1].tobytes()  # both paths sum in the same order
    margin = margins(booster, finite).astype(np.float64)
    assert np.abs(found[0].sum(axis=1) - margin).max() <= 1e-5 * scale


@settings(deadline=None, max_examples=60)
@given(recipe=recipes, rows=st.integers(1, 40), seed=st.integers(0, 1000))
def test_any_small_booster_is_answered_as_by_xgboost(recipe, rows, seed):
    booster = fit(recipe)
    matrix = np.concatenate([probes(booster, rows, seed), data(recipe)[0][:20]])
    assert_equal_margins(booster, matrix)
    assert_close_contributions(booster, matrix)


@pytest.mark.parametrize("max_depth", range(1, 7))
def test_every_depth(max_depth):
    booster = fit(Recipe(max_depth=max_depth, rows=3000, features=8, rounds=40))
    matrix = probes(booster, 300, seed=max_depth)
    assert_equal_margins(booster, matrix)
    assert_close_contributions(booster, matrix)


@pytest.mark.parametrize("base_score", [1e-6, 0.001, 0.009, 0.1, 0.25, 0.3, 0.49, 0.7, 0.99, 0.9999])
def test_every_base_score_starts_the_sum_with_the_same_bits(base_score):
    booster = fit(Recipe(base_score=base_score, rounds=3, max_depth=2))
    assert_equal_margins(booster, probes(booster, 20, seed=1))


@settings(deadline=None, max_examples=30)
@given(
    thresholds=st.lists(
        st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 1.0, 1.0000001, -1.0]),
        min_size=1,
        max_size=9,
    ),
    defaults=st.lists(st.integers(0, 1), min_size=1, max_size=9),
)
def test_edges_of_the_floats_as_thresholds(thresholds, defaults):
    content = content_of(fit(Recipe(rounds=9, features=3, max_depth=4)))
    number = 0
    for tree in trees_of(content):
        for node, child in enumerate(tree["left_children"]):
            if child != -1:
                number += 1
                tree["split_conditions"][node] = thresholds[number % len(thresholds)]
                tree["default_left"][node] = defaults[number % len(defaults)]
    booster = reopened(content)
    assert_equal_margins(booster, probes(booster, 200, seed=number))


def test_contributions_are_shapley_values_where_paths_meet_a_feature_again():
    """Four features in trees of depth 6: every long path has duplicates. All coalitions, in float64."""
    booster = fit(Recipe(features=4, rows=2000, rounds=3, max_bin=64, min_child_weight=0.5))
    content = content_of(booster)
    deepest = [t for t in trees_of(content) if len(t["left_children"]) > 60]
    assert deepest, "the recipe no longer makes deep trees"
    matrix = np.nan_to_num(probes(booster, 12, seed=5), nan=np.nan, posinf=9, neginf=-9)
    for forest in forests([raw(booster)], [1.0]):
        found = forest.contributions(matrix)
        expected = np.array([shapley(content, row) for row in matrix])  # the base margin is 0
        assert np.abs(found - expected).max() <= 1e-6


def test_a_tree_that_is_one_leaf_moves_the_base_value_only():
    booster = fit(Recipe(min_child_weight=1e6, rounds=5, base_score=0.3))
    assert all(len(t["left_children"]) == 1 for t in trees_of(content_of(booster)))
    matrix = probes(booster, 30, seed=1)
    assert_equal_margins(booster, matrix)
    assert_close_contributions(booster, matrix)
    (forest, *_) = forests([raw(booster)], [1.0])
    found = forest.contributions(matrix)
    assert not found[:, :-1].any()
    assert np.allclose(found[:, -1], forest.score(matrix), atol=1e-6)


def test_members_are_blended_in_their_order():
    recipe = Recipe(features=6)
    members = [
        fit(Recipe(seed=s, features=6, max_depth=d, rounds=r))
        for s, d, r in ((1, 6, 9), (2, 3, 30), (3, 1, 8))
    ]
    weights = (0.123456, 0.5, 0.376544)
    matrix = probes(members[0], 77, seed=3)
    parts = [margins(b, matrix) for b in members]
    finite = np.where(np.isinf(matrix), np.nan, matrix)
    explained = blend([contributions(b, finite) for b in members], weights)
    for forest in forests([raw(b) for b in members], weights):
        assert forest.width == recipe.features
        assert forest.margins(matrix).tobytes() == np.stack(parts, axis=1).tobytes()
        assert forest.score(matrix).tobytes() == blend(parts, weights).tobytes()
        assert np.abs(forest.contributions(finite) - explained).max() <= 1e-5


def test_rows_do_not_depend_on_their_batch():
    booster = fit(Recipe(features=9, rounds=50))
    matrix = probes(booster, 300, seed=9)
    for forest in forests([raw(booster)], [1.0]):
        whole, explained = forest.score(matrix), forest.contributions(matrix)
        for size in (1, 2, 6, 7, 8, 9, 15, 16, 17, 31, 64, 65, 299):
            assert forest.score(matrix[:size]).tobytes() == whole[:size].tobytes()
            assert forest.contributions(matrix[:size]).tobytes() == explained[:size].tobytes()


def test_json_and_ubjson_give_the_same_forest():
    booster = fit(Recipe())
    matrix = probes(booster, 50, seed=2)
    first, second = (Forest([raw(booster, form)], [1.0]) for form in ("ubj", "json"))
    assert first.contributions(matrix).tobytes() == second.contributions(matrix).tobytes()
    assert first.score(matrix).tobytes() == second.score(matrix).tobytes()


def test_threads_share_a_forest():
    booster = fit(Recipe(features=12, rounds=60, rows=1500))
    matrix = probes(booster, 500, seed=4)
    forest = Forest([raw(booster)], [1.0])
    score, explained = forest.score(matrix), forest.contributions(matrix)

    def work(number):
        rows = slice(number, number + 1 + 37 * (number % 5))
        assert forest.score(matrix[rows]).tobytes() == score[rows].tobytes()
        assert forest.contributions(matrix[rows]).tobytes() == explained[rows].tobytes()
        return forest.score(matrix).tobytes() == score.tobytes()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((2, 4), dtype=np.float32),
        np.zeros((2, 5)),
        np.zeros(5, dtype=np.float32),
        np.zeros((2, 5), dtype=np.int32),
    ],
)
def test_other_matrices_are_refused(matrix):
    forest = Forest([raw(fit(Recipe()))], [1.0])
    for call in (forest.score, forest.margins, forest.contributions):
        with pytest.raises(ValueError, match="expected float32"):
            call(matrix)


def test_scattered_memory_is_refused():
    forest = Forest([raw(fit(Recipe()))], [1.0])
    with pytest.raises(ValueError, match="not C-contiguous"):
        forest.score(np.zeros((2, 10), dtype=np.float32)[:, ::2])


def test_no_rows_are_no_answers():
    forest = Forest([raw(fit(Recipe()))], [1.0])
    nothing = np.zeros((0, 5), dtype=np.float32)
    assert forest.score(nothing).shape == (0,)
    assert forest.contributions(nothing).shape == (0, 6)


def test_members_over_different_features_are_refused():
    models = [raw(fit(Recipe(features=f))) for f in (3, 5)]
    with pytest.raises(NotSupported, match="features"):
        Forest(models, [0.5, 0.5])


def test_tables_stay_small():
    """300 trees of depth 6 in at most 20 MB."""
    booster = fit(Recipe(rows=20_000, features=60, rounds=300, eta=0.1, absent=0.1))
    assert Forest([raw(booster)], [1.0]).table_bytes <= 20_000_000
