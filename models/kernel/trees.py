"""A booster's trees as complete trees in heap order, all of the same depth.

    model's tree            padded to depth 2 (heap numbers)

        a                         1: a
       / \\                      /       \\
      b   7.0                 2: b      3: -      "-" is padding: both ways end alike
     / \\                     /   \\      /   \\
    1.0 2.0                 1.0  2.0  7.0  7.0    only the leftmost copy of a leaf is `real`
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.kernel.errors import NotSupported
from models.kernel.ubjson import InvalidUbjson, parse

DEPTH_MAX: Final = 6
FEATURES_MAX: Final = 512
LOGISTIC: Final = frozenset({"binary:logistic", "reg:logistic"})
IDENTITY: Final = frozenset({"reg:squarederror"})

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Trees:
    """`t` trees of depth `d`, over `features` features. Column 0 of what is in heap order is unused.

    `feature`: int32 [t, 2^d], `threshold`: float32 [t, 2^d] (left if smaller), `absent_left`: bool [t, 2^d]
    of the inner nodes; which way padding goes does not matter. `leaf`: float32 [t, 2^d].
    `real`: bool [t, 2^(d+1)]; `cover`: float64 [t, 2^(d+1)], sums of the hessians.
    `base_score` is what the model states: a probability where `logistic`.
    """

    features: int
    depth: int
    feature: Ints
    threshold: NDArray[np.float32]
    absent_left: NDArray[np.bool_]
    leaf: NDArray[np.float32]
    real: NDArray[np.bool_]
    cover: NDArray[np.float64]
    base_score: float
    logistic: bool

    def __len__(self) -> int:
        return len(self.leaf)


@dataclass(frozen=True, slots=True)
class _Nodes:
    """All nodes of all trees one after the other; children are numbers in this list, -1 at a leaf."""

    roots: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: Ints
    value: NDArray[np.float32]
    absent_left: NDArray[np.bool_]
    cover: NDArray[np.float64]


def read_trees(model: bytes) -> Trees:
    """The trees of a booster's UBJSON (or JSON) bytes. Raises `NotSupported`."""
    try:
        content = json.loads(model) if model[:2] == b'{"' else parse(model)
        learner = content["learner"]
        parameters = learner["learner_model_param"]
        booster = learner["gradient_booster"]
        objective = learner["objective"]["name"]
        features = int(parameters["num_feature"])
        _check(booster["name"] == "gbtree", f"the booster is {booster['name']}, not gbtree")
        _check(objective in LOGISTIC | IDENTITY, f"the objective is {objective}")
        _check(int(parameters["num_class"]) <= 1, "it has several classes")
        _check(int(parameters.get("num_target", 1)) == 1, "it has several outputs")
        _check(1 <= features <= FEATURES_MAX, f"it has {features} features; at most {FEATURES_MAX}")
        nodes = _nodes(booster["model"]["trees"], features)
        base_score = float(np.float32(str(parameters["base_score"]).strip("[]")))
    except (InvalidUbjson, KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotSupported(f"not a model as XGBoost 3 writes it: {error!r}") from error
    return _pad(nodes, features, base_score, logistic=objective in LOGISTIC)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotSupported(otherwise)


def _nodes(trees: list[Mapping[str, Any]], features: int) -> _Nodes:
    _check(len(trees) > 0, "it has no trees")
    _check(not any(len(tree["categories_nodes"]) for tree in trees), "it has categorical splits")
    sizes = [len(tree["left_children"]) for tree in trees]
    columns = ("right_children", "split_indices", "split_conditions", "default_left", "sum_hessian")
    _check(
        min(sizes) > 0 and all(len(t[c]) == n for t, n in zip(trees, sizes, strict=True) for c in columns),
        "its nodes have several outputs, or their lists differ in length",
    )

    def column(name: str, kind: type) -> NDArray[Any]:
        return np.concatenate([np.asarray(tree[name], dtype=kind) for tree in trees])

    roots = np.cumsum([0, *sizes[:-1]])
    offset, size = np.repeat(roots, sizes), np.repeat(sizes, sizes)
    left, right = column("left_children", np.int64), column("right_children", np.int64)
    inner = left != -1
    _check(bool((inner == (right != -1)).all()), "a node has one child only")
    for child in (left, right):
        _check(bool(((child[inner] > 0) & (child[inner] < size[inner])).all()), "a child is not in its tree")
    feature, value = column("split_indices", np.int32), column("split_conditions", np.float32)
    cover = column("sum_hessian", np.float32).astype(np.float64)
    _check(bool(((feature[inner] >= 0) & (feature[inner] < features)).all()), "a split on an unknown feature")
    _check(not bool(np.isnan(value).any()), "a threshold or a leaf is not a number")
    _check(bool((cover[inner] > 0).all() and (cover >= 0).all()), "a split without cover")
    return _Nodes(
        roots,
        np.where(inner, left + offset, -1),
        np.where(inner, right + offset, -1),
        feature,
        value,
        column("default_left", np.bool_),
        cover,
    )


def _pad(nodes: _Nodes, features: int, base_score: float, *, logistic: bool) -> Trees:
    # one list of nodes per level, all trees at once; a leaf stands for both of its own children
    level, real = nodes.roots[:, None], np.ones((len(nodes.roots), 1), dtype=bool)
    levels, reals = [level], [real]
    while len(levels) <= 2 or (nodes.left[level] != -1).any():
        _check(len(levels) <= DEPTH_MAX, f"a tree is deeper than {DEPTH_MAX}")
        inner = nodes.left[level] != -1
        # both children of a node are real; of a leaf's copies the left one is
        below = np.stack(
            [np.where(inner, nodes.left[level], level), np.where(inner, nodes.right[level], level)], 2
        )
        below_real = np.stack([real, real & inner], 2)
        level, real = below.reshape(len(level), -1), below_real.reshape(len(level), -1)
        levels.append(level)
        reals.append(real)
    depth = len(levels) - 1
    unused = np.zeros((len(level), 1), dtype=np.int64)
    above = np.concatenate([unused, *levels[:-1]], axis=1)
    splits = nodes.left[above] != -1
    splits[:, 0] = False
    # an inner place that holds a copy of a leaf is padding, real or not
    real_split = np.concatenate([unused != 0, *reals[:-1]], axis=1) & splits
    places = np.concatenate([above, level], axis=1)
    all_real = np.concatenate([real_split, real], axis=1)
    return Trees(
        features,
        depth,
        np.where(splits, nodes.feature[above], 0).astype(np.int32),
        np.ascontiguousarray(nodes.value[above]),
        nodes.absent_left[above],
        np.ascontiguousarray(nodes.value[level]),
        all_real,
        np.ascontiguousarray(nodes.cover[places]),
        base_score,
        logistic,
    )
