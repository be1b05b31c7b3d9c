"""Explanations of stored decisions by a real ensemble, and the fallback scorecard."""

import json

import numpy as np
import pytest

from api.explain import NotExplainable, explanation, shares
from api.model import ModelFailed, ModelRefused
from api.record import decode_json, encode_json
from api.serving import open_model
from features import load
from tests.api.artefact import small_artefact
from tests.api.world import CATALOGUE, Bench, shipped_rules, transaction


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return open_model(small_artefact(tmp_path_factory.mktemp("models")), CATALOGUE)


@pytest.fixture
def bench(tmp_path, served):
    return Bench(tmp_path, serving=served, rules=shipped_rules())


def decided(bench, **changes):
    """A record as a reader gets it: through JSON."""
    return decode_json(encode_json(bench.decide(transaction(**changes))[0].record))


def test_contributions_add_up_to_the_stored_margin(bench, served):
    records = [decided(bench, amount=a) for a in (500, 30_000, 60_000, 99_000)]
    assert len({r["outcome"] for r in records}) > 1
    for record in records:
        found = shares(record, served, CATALOGUE)
        assert found.error < 1e-4
        assert found.base + sum(found.values) == pytest.approx(record["margin"], abs=1e-4)


def test_the_three_audiences(bench, served):
    record = decided(bench, amount=99_000)
    assert record["outcome"] != "approve"
    analyst = explanation(record, served, bench.judge.rules, CATALOGUE, "analyst")
    assert len(analyst["model"]["contributions"]) == 12
    rules = {rule["id"]: rule for rule in analyst["rules"]}
    assert rules.keys() == {rule.id for rule in bench.judge.rules.rules if rule.mode != "off"}
    assert rules["stolen_card"] == {
        "id": "stolen_card", "result": "no_hit", "mode": "live", "action": "decline",
        "text": "decline if card in @stolen_cards", "reason": rules["stolen_card"]["reason"],
    }  # fmt: skip
    assert {rule["result"] for rule in analyst["rules"]} == {"hit", "no_hit", "not_evaluated"}
    scientist = explanation(record, served, bench.judge.rules, CATALOGUE, "data_scientist")
    assert len(scientist["model"]["contributions"]) == len(CATALOGUE.names)
    assert scientist["model"]["additivity_error"] < 1e-4
    customer = explanation(record, served, bench.judge.rules, CATALOGUE, "customer")
    assert set(customer) == {
        "transaction_id", "outcome", "summary", "language", "reasons", "counterfactuals",
    }  # fmt: skip
    assert all(set(reason) == {"code", "text"} for reason in customer["reasons"])
    assert not any(character.isdigit() for character in json.dumps([r["text"] for r in customer["reasons"]]))


def test_a_customer_never_reads_which_rule_hit(bench, served):
    record = decided(bench, card="cd_stolen_example")
    customer = explanation(record, served, bench.judge.rules, CATALOGUE, "customer")
    assert "stolen" not in json.dumps([r["text"] for r in customer["reasons"]])


def test_a_decision_without_a_model_is_explained_by_its_rules(tmp_path):
    bench = Bench(tmp_path, rules=shipped_rules())
    record = decided(bench, amount=99_000)
    found = explanation(record, None, bench.judge.rules, CATALOGUE, "analyst")
    assert "model" not in found
    assert [r["code"] for r in found["reasons"]] == ["unseen_amount"]


def test_a_vector_of_another_catalogue_is_not_guessed_at(bench, served):
    record = decided(bench, amount=99_000)
    record["versions"]["catalogue"] = "000000000000"
    with pytest.raises(NotExplainable):
        shares(record, served, CATALOGUE)


def test_the_scorecard_stands_in_when_the_ensemble_fails(tmp_path, served):
    class Broken:
        mode, width = "cpu", served.scorer.width

        def score(self, matrix: np.ndarray) -> np.ndarray:
            raise RuntimeError("gone")

        contributions = score

    from dataclasses import replace

    bench = Bench(tmp_path, serving=replace(served, scorer=Broken()), rules=shipped_rules())
    small, large = decided(bench, amount=500), decided(bench, amount=60_000)
    assert (small["scored_by"], small["degraded"], small["outcome"]) == ("scorecard", ["model"], "approve")
    assert large["outcome"] in ("review", "decline")
    with pytest.raises(ModelFailed):
        replace(served, scorer=Broken()).contributions(np.zeros((1, len(CATALOGUE.names)), np.float32))


def test_a_model_of_another_catalogue_is_refused(tmp_path):
    with pytest.raises(ModelRefused, match="wants features that handbook has not"):
        open_model(small_artefact(tmp_path), load("handbook"))
    with pytest.raises(ModelRefused, match="no model at"):
        open_model(tmp_path / "nothing", CATALOGUE)
