"""What the kernel reads, and what it leaves to XGBoost."""

import contextlib
import json

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from models.kernel.errors import KernelError, NotSupported
from models.kernel.forest import Forest
from models.kernel.trees import read_trees
from models.kernel.ubjson import InvalidUbjson, parse
from tests.models.boosters import Recipe, content_of, data, fit, raw, trees_of

BOOSTER = fit(Recipe(rounds=3, max_depth=3))


def refused(content, because):
    with pytest.raises(NotSupported, match=because):
        read_trees(json.dumps(content).encode())


def edited(edit):
    content = content_of(BOOSTER)
    edit(content["learner"])
    return content


def test_ubjson_is_read_as_json_with_exact_floats():
    content, expected = parse(raw(BOOSTER)), content_of(BOOSTER)
    assert content["learner"]["learner_model_param"] == expected["learner"]["learner_model_param"]
    for tree, other in zip(trees_of(content), trees_of(expected), strict=True):
        assert tree["left_children"].tolist() == other["left_children"]
        assert tree["split_conditions"].tolist() == np.float32(other["split_conditions"]).tolist()


def test_a_shallow_tree_is_padded_and_its_leaves_are_real_once():
    trees = read_trees(raw(BOOSTER))
    assert trees.leaf.shape == (3, 8)
    for number, tree in enumerate(trees_of(content_of(BOOSTER))):
        leaves = sum(child == -1 for child in tree["left_children"])
        assert trees.real[number, 8:].sum() == leaves
        assert trees.real[number, :8].sum() == len(tree["left_children"]) - leaves


@pytest.mark.parametrize(
    ("edit", "because"),
    [
        (lambda m: m["gradient_booster"].update(name="dart"), "the booster is dart"),
        (lambda m: m["objective"].update(name="survival:cox"), "the objective is survival:cox"),
        (lambda m: m["learner_model_param"].update(num_class="3"), "several classes"),
        (lambda m: m["learner_model_param"].update(num_target="2"), "several outputs"),
        (lambda m: m["learner_model_param"].update(base_score="[1E-1,2E-1]"), "not a model"),
        (lambda m: m["learner_model_param"].update(num_feature="100000"), "at most 512"),
        (lambda m: m["gradient_booster"]["model"].update(trees=[]), "no trees"),
        (lambda m: m.pop("objective"), "not a model"),
    ],
)
def test_other_models_are_refused(edit, because):
    refused(edited(edit), because)


@pytest.mark.parametrize(
    ("column", "node", "value", "because"),
    [
        ("left_children", 0, 99, "not in its tree"),
        ("right_children", 0, 0, "not in its tree"),
        ("left_children", 0, -1, "one child"),
        ("split_indices", 0, 5, "unknown feature"),
        ("split_indices", 0, -1, "unknown feature"),
        ("sum_hessian", 0, 0.0, "without cover"),
        ("categories_nodes", None, [0], "categorical"),
        ("default_left", None, [1], "differ in length"),
    ],
)
def test_damaged_trees_are_refused(column, node, value, because):
    content = content_of(BOOSTER)
    tree = trees_of(content)[1]
    if node is None:
        tree[column] = value
    else:
        tree[column][node] = value
    refused(content, because)


def test_a_circle_of_nodes_ends_as_too_deep():
    content = content_of(BOOSTER)
    tree = trees_of(content)[0]
    inner = [n for n, child in enumerate(tree["left_children"]) if child != -1 and n]
    tree["left_children"][inner[0]] = inner[0]
    refused(content, "deeper than 6")


def test_deeper_trees_and_categories_are_left_to_xgboost():
    deep = fit(Recipe(max_depth=9, rows=4000, rounds=2))
    with pytest.raises(KernelError, match="deeper than 6"):
        Forest([raw(deep)], [1.0])
    random = np.random.default_rng(1)
    codes = random.integers(0, 9, size=(300, 2)).astype(np.float32)
    rows = xgb.DMatrix(codes, codes[:, 0] % 2, feature_types=["c", "q"], enable_categorical=True)
    with pytest.raises(KernelError, match="categorical"):
        Forest([raw(xgb.train({"max_depth": 3, "max_cat_to_onehot": 1}, rows, 2))], [1.0])
    matrix, _ = data(Recipe())
    two = xgb.train(
        {"max_depth": 2, "multi_strategy": "multi_output_tree", "tree_method": "hist"},
        xgb.DMatrix(matrix, random.normal(size=(len(matrix), 2))),
        2,
    )
    with pytest.raises(KernelError):
        Forest([raw(two)], [1.0])


@settings(deadline=None, max_examples=200)
@given(cut=st.integers(0, 10_000), junk=st.binary(max_size=3))
def test_truncated_and_damaged_bytes_are_refused(cut, junk):
    whole = raw(BOOSTER)
    at = cut % len(whole)
    with pytest.raises(NotSupported):
        read_trees(whole[:at])
    damaged = whole[:at] + junk + whole[at + len(junk) :]
    with contextlib.suppress(KernelError):  # the damage may be in what prediction does not read
        Forest([damaged], [1.0])


@pytest.mark.parametrize("content", [b"", b"{", b"[$d", b"[$d]", b"[$S#i\x01", b"q", b"[" * 99, b"Si\xff"])
def test_what_is_not_ubjson(content):
    with pytest.raises(InvalidUbjson):
        parse(content)
