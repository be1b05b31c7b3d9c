"""What is answered of a decision is what is written of it."""

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.answer import Decided
from api.decide import Freshness, Policy
from api.record import answer_of, decode_json, encode_json
from api.rules.feed import Update
from api.rules.manifest import Manifest
from api.rules.rule import EMPTY, Circumstances, RuleSet
from api.rules.told import Telling, results_of
from api.shared import Shared
from api.work import Inbound
from tests.api.test_rule_forms import ROW
from tests.api.test_rule_program import RULE, facts_of, rule_set
from tests.api.world import CATALOGUE, Bench, StepScorer, model, shipped_rules, transaction


def written(bench: Bench, key: str) -> bytes:
    """The record that answers a claim, as it lies in the journal."""
    return bytes(bench.engine.attempts.find([key])[key].payload)


@settings(max_examples=100, deadline=None)
@given(drawn=st.lists(st.lists(RULE, max_size=4), min_size=1, max_size=8), row=ROW, again=st.booleans())
def test_results_are_told_as_they_are(drawn, row, again):
    telling = Telling(limit=2)
    for given_rules in [*drawn, *drawn] if again else drawn:
        # Each set lives for one round only: what is kept by identity must not outlive it unseen.
        rules = rule_set(given_rules)
        results = rules.evaluate(facts_of(row, ordered=False), Circumstances(row["now_ms"]))
        told = telling.of(results)
        parts = decode_json(b"{%b}" % told.members)
        assert parts["rules"] == told.hits == [r.shown for r in results if r.result == "hit"]
        assert parts["no_hit"] == [result.id for result in results if result.result == "no_hit"]
        assert telling.of(results) is told
        # Every rule's result can be told again, from today's record and from one of version 1.
        said = {
            r.id: r.shown if r.result == "hit" else {"id": r.id, "result": r.result}
            | ({"missing": list(r.missing)} if r.missing else {})
            for r in results
        }  # fmt: skip
        assert results_of(parts) == said
        old = [{"mode": r.mode, "action": r.action, **said[r.id]} for r in results]
        assert results_of({"rules": old}) == said


@pytest.mark.parametrize("broken", [False, True], ids=["scored", "not scored"])
def test_the_record_is_written_as_it_is_answered(tmp_path, broken):
    scorer = StepScorer()
    scorer.broken = broken
    bench = Bench(tmp_path, serving=model(scorer=scorer), rules=shipped_rules())
    sent = [
        ("transaction", transaction("a")),
        ("transaction", transaction("b", amount=99_000)),
        ("transaction", transaction("c", card="cd_stolen_example")),
        ("transaction", transaction("d", card="cd_stolen_example", customer="cu_trusted_example")),
        ("label", {"label_id": "l", "transaction_id": "a", "time": bench.now_ms, "fraud": True}),
    ]
    inbound = [Inbound(kind, payload, "kafka") for kind, payload in sent]  # type: ignore[arg-type]
    answers: list[Any] = bench.engine.decide_batch(inbound, now_ms=bench.now_ms)
    for key, answer in zip(["tx:a", "tx:b", "tx:c", "tx:d", "label:l"], answers, strict=True):
        record = decode_json(written(bench, key))
        assert decode_json(encode_json(answer.record)).items() <= record.items()
        if isinstance(answer, Decided):
            assert answer_of(answer.record, replay=False) == answer_of(record, replay=False)
        assert record in bench.journalled()


def test_rules_that_are_adopted_are_given_the_features_that_they_use(tmp_path):
    def hits(text: str) -> list[str]:
        bench.judge.adopt(Update(rule_set([{"text": text, "action": "review"}]), {}))
        (answer,) = bench.decide(transaction())
        assert len(answer.record["features"]) == len(CATALOGUE.names)
        return [rule["id"] for rule in answer.record["rules"]]

    bench = Bench(tmp_path, rules=shipped_rules())
    assert hits("card_count_1h == 1") != []
    assert hits("card_count_1h == 1") == []
    assert hits("merchant_count_1h == 3 and card_count_1h == 3") != []
    assert hits("amount == 45.99 or merchant_count_1h == 9") != []


def test_an_abandoned_attempt_is_written_as_one(tmp_path):
    first = Bench(tmp_path, serving=model(), rules=shipped_rules())
    os.close(first.journal._file)  # the disk is gone
    first.decide(transaction("a"))
    second = Bench(tmp_path, store=first.store, worker="service-1", serving=model(), rules=shipped_rules())
    second.now_ms += 61_000
    assert second.engine.sweep(now_ms=second.now_ms) == 1
    (record,) = second.journalled()
    assert record["type"] == "abandoned"
    assert written(second, "tx:a") == encode_json(record)


def test_what_a_batch_shares_is_made_anew_where_it_changes():
    rules, policy = EMPTY, Policy.of(100, "review")
    shared = Shared({"catalogue": "c", "state": "s", "code": "1"})
    told = []
    for rules_, policy_, freshness in [
        (rules, policy, Freshness("fresh", "g", None)),
        (rules, policy, Freshness("fresh", "g", None)),
        (rules, policy, Freshness("stale", "g", 7)),
        (rules, Policy.of(200, "review"), Freshness("stale", "g", 7)),
        (RuleSet(Manifest("other"), (), (), (), {}, {}), policy, Freshness("stale", "h", 7)),
    ]:
        shared.of(None, rules_, policy_, freshness)
        assert decode_json(shared.versions_raw) == shared.versions
        assert decode_json(shared.freshness_raw) == shared.freshness
        assert shared.versions["rules"] == rules_.version
        assert shared.versions["policy"] == policy_.version
        assert shared.freshness == {
            "flink_lag_ms": freshness.flink_lag_ms,
            "generation": freshness.generation,
            "state": freshness.state,
        }
        told.append((shared.versions, shared.freshness))
    assert told[0][0] is told[1][0]
    assert told[0][1] is told[1][1]
