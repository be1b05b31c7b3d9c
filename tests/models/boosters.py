"""Small random boosters, rows that sit on their thresholds, and Shapley values by their definition."""

import itertools
import json
import math
from dataclasses import dataclass

import numpy as np
import xgboost as xgb
from hypothesis import strategies as st


@dataclass(frozen=True)
class Recipe:
    """How a booster is fitted, on `rows` random rows of `features` features of which `absent` are NaN."""

    seed: int = 1
    rows: int = 400
    features: int = 5
    absent: float = 0.2
    rounds: int = 12
    max_depth: int = 6
    eta: float = 0.3
    base_score: float = 0.5
    max_bin: int = 256
    subsample: float = 1.0
    min_child_weight: float = 0.1
    objective: str = "binary:logistic"
    grow_policy: str = "depthwise"
    num_parallel_tree: int = 1


recipes = st.builds(
    Recipe,
    seed=st.integers(0, 2**31 - 1),
    rows=st.integers(1, 600),
    features=st.sampled_from([1, 2, 3, 5, 17, 60]),
    absent=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    rounds=st.sampled_from([1, 2, 7, 8, 9, 33]),
    max_depth=st.integers(1, 6),
    eta=st.sampled_from([0.01, 0.3, 1.0]),
    base_score=st.sampled_from([0.5, 0.009, 0.3, 0.87, 0.999]),
    max_bin=st.sampled_from([2, 16, 256, 4096]),
    subsample=st.sampled_from([1.0, 0.5]),
    min_child_weight=st.sampled_from([0.0, 0.1, 5.0, 1e6]),
    objective=st.sampled_from(["binary:logistic", "reg:squarederror"]),
    grow_policy=st.sampled_from(["depthwise", "lossguide"]),
    num_parallel_tree=st.sampled_from([1, 3]),
)


def data(recipe):
    """Training rows: some columns continuous, some of few values (so that rows sit on thresholds)."""
    random = np.random.default_rng(recipe.seed)
    matrix = random.normal(size=(recipe.rows, recipe.features)).astype(np.float32)
    matrix[:, ::2] = np.round(matrix[:, ::2])
    signal = matrix.sum(axis=1) + random.normal(size=recipe.rows)
    matrix[random.random(matrix.shape) < recipe.absent] = np.nan
    return matrix, (signal > 0.5).astype(np.float32)


def fit(recipe):
    """The fitted booster, one thread."""
    matrix, labels = data(recipe)
    parameters = {
        name: getattr(recipe, name)
        for name in (
            "max_depth", "eta", "base_score", "max_bin", "subsample", "min_child_weight", "objective",
            "grow_policy", "num_parallel_tree", "seed",
        )
    }  # fmt: skip
    parameters |= {"nthread": 1, "tree_method": "hist"}
    return xgb.train(parameters, xgb.DMatrix(matrix, labels, nthread=1), recipe.rounds)


def raw(booster, form="ubj"):
    """Its bytes."""
    return bytes(booster.save_raw(form))


def reopened(content):
    """A booster from JSON-like content."""
    booster = xgb.Booster({"nthread": 1})
    booster.load_model(bytearray(json.dumps(content).encode()))
    booster.set_param({"nthread": 1})
    return booster


def trees_of(content):
    """The list of trees in a model's content, to be edited in place."""
    return content["learner"]["gradient_booster"]["model"]["trees"]


def content_of(booster):
    """The model as JSON content."""
    return json.loads(raw(booster, "json"))


def probes(booster, count, seed):
    """float32 [count, f]: thresholds of the booster, values just beside them, absent and extreme ones."""
    random = np.random.default_rng(seed)
    values = [[0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45] for _ in range(booster.num_features())]
    for tree in trees_of(content_of(booster)):
        for child, feature, at in zip(
            tree["left_children"], tree["split_indices"], tree["split_conditions"], strict=True
        ):
            if child != -1:
                at = np.float32(at)
                values[feature] += [
                    at,
                    np.nextafter(at, np.float32(np.inf)),
                    np.nextafter(at, np.float32(-np.inf)),
                ]
    columns = [random.choice(np.array(v, dtype=np.float32), count) for v in values]
    return np.ascontiguousarray(np.stack(columns, axis=1))


def margins(booster, matrix):
    """XGBoost's margins."""
    return booster.inplace_predict(matrix, predict_type="margin", validate_features=False)


def contributions(booster, matrix):
    """XGBoost's exact contributions."""
    return booster.predict(xgb.DMatrix(matrix, nthread=1), pred_contribs=True, validate_features=False)


def shapley(content, row):
    """Contributions and base value (without the base margin) in float64, over all coalitions of features."""
    count = int(content["learner"]["learner_model_param"]["num_feature"])
    worth = {
        known: sum(_worth(tree, 0, known, row) for tree in trees_of(content))
        for size in range(count + 1)
        for known in itertools.combinations(range(count), size)
    }
    weight = [
        math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
        for size in range(count)
    ]
    found = [
        sum(weight[len(s)] * (worth[tuple(sorted((*s, i)))] - worth[s]) for s in worth if i not in s)
        for i in range(count)
    ]
    return np.array([*found, worth[()]])


def _worth(tree, node, known, row):
    left, right = tree["left_children"][node], tree["right_children"][node]
    split = np.float32(tree["split_conditions"][node])
    if left == -1:
        return float(split)
    feature = tree["split_indices"][node]
    if feature in known:
        value = row[feature]
        goes_left = tree["default_left"][node] if np.isnan(value) else value < split
        return _worth(tree, left if goes_left else right, known, row)
    cover = [float(np.float32(tree["sum_hessian"][n])) for n in (left, right)]
    parts = [_worth(tree, n, known, row) for n in (left, right)]
    return (cover[0] * parts[0] + cover[1] * parts[1]) / (cover[0] + cover[1])
