"""The engine over the memory store and a real journal: outcomes, claims, duplicates, degraded modes."""

import errno
import os
import time
from dataclasses import replace

import pytest

from api.answer import Accepted, Conflicting, Decided, Pending, Refused, Unavailable, Unknown
from api.attempts import BATCHES, Attempts
from api.audit.verify import verify
from api.decide import Policy
from api.engine import Limits
from api.record import answer_of
from api.work import Inbound
from features.store import StoreUnavailable
from tests.api.world import CATALOGUE, NOW_MS, Bench, StepScorer, model, shipped_rules, transaction


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, serving=model(), rules=shipped_rules())


def told(answer):
    """What a caller is told, the same again or not."""
    return answer_of(answer.record, replay=True)


def feature(record, name):
    return record["features"][CATALOGUE.names.index(name)]


def test_a_decision_is_recorded_before_it_is_answered(bench):
    (answer,) = bench.decide(transaction("a"))
    assert isinstance(answer, Decided)
    assert not answer.replay
    assert answer.record["outcome"] == "approve"
    assert answer.record["claim"] == "new"
    assert bench.journalled() == [bench.journalled()[0] | {"id": "a", "type": "decision"}]
    assert bench.engine.store.claim("tx:a").answer is not None
    assert "cd_a" not in str(bench.journalled())


def test_each_transaction_sees_those_before_it_also_in_one_batch(bench):
    answers = bench.decide(*[transaction() for _ in range(3)])
    assert [feature(a.record, "card_count_1h") for a in answers] == [1, 2, 3]
    assert [a.record["order"]["card"][1] for a in answers] == [1, 2, 3]
    (later,) = bench.decide(transaction(card="cd_b"))
    assert feature(later.record, "card_count_1h") == 1
    assert feature(later.record, "merchant_count_1h") == 4


def test_the_bands_of_the_model_and_exact_reasons_of_what_is_not_approved(bench):
    answers = bench.decide(transaction(amount=1_000), transaction(amount=50_000), transaction(amount=99_000))
    assert [a.record["outcome"] for a in answers] == ["approve", "review", "decline"]
    assert answers[0].record["reasons"] == []
    assert answers[2].record["reasons"][0]["code"] == "amount"
    assert answers[2].record["winner"] == {"by": "model", "id": "band", "outcome": "decline"}


def test_a_rule_wins_and_the_answer_says_what_others_would_have_given(bench):
    (answer,) = bench.decide(transaction(card="cd_stolen_example", amount=50_000))
    assert answer.record["outcome"] == "decline"
    assert answer.record["winner"]["id"] == "stolen_card"
    assert {"by": "model", "id": "band", "outcome": "review"} in answer.record["others"]
    assert answer.record["reasons"][0]["code"] == "card_reported_stolen"


def test_an_allow_rule_wins_over_everything_within_its_cap(bench):
    given = {"card": "cd_stolen_example", "customer": "cu_trusted_example"}
    answers = bench.decide(transaction(amount=99_000, **given), transaction(amount=300_000, **given))
    assert answers[0].record["outcome"] == "approve"
    assert answers[0].record["winner"]["id"] == "trusted_customer"
    assert answers[1].record["outcome"] == "decline"


def test_the_same_again_is_a_replay_and_other_content_a_conflict(bench):
    (first,) = bench.decide(transaction("a"))
    (again,) = bench.decide(transaction("a"))
    assert (again.replay, told(again)) == (True, told(first))
    (other,) = bench.decide(transaction("a", amount=1))
    assert isinstance(other, Conflicting)
    assert len(bench.journalled()) == 1
    (next_one,) = bench.decide(transaction())
    assert feature(next_one.record, "card_count_1h") == 2


def test_a_batch_may_begin_while_the_one_before_is_at_the_store(bench):
    engine = bench.engine
    inbound = [Inbound("transaction", transaction(id), "http") for id in ("a", "b", "a")]
    first = engine.begin(inbound[:2], now_ms=bench.now_ms)
    second = engine.begin([inbound[2], Inbound("label", label("l", "a"), "http")], now_ms=bench.now_ms)
    decided = bench.whole(engine.finish(first))
    assert [feature(a.record, "card_count_1h") for a in decided] == [1, 2]
    again, labelled = engine.finish(second)
    assert isinstance(again, Pending)
    assert labelled.record["entities"] == decided[0].record["entities"]
    (replayed,) = engine.decide_batch(inbound[2:], now_ms=bench.now_ms)
    assert (replayed.replay, told(replayed)) == (True, told(decided[0]))
    assert [r["id"] for r in bench.journalled()] == ["a", "b", "l"]


def test_a_batch_is_judged_while_the_disk_is_at_the_one_before(bench):
    engine = bench.engine
    first, second, third = (
        engine.begin([Inbound("transaction", transaction(id), "http")], now_ms=bench.now_ms) for id in "abc"
    )
    engine.record(first)
    engine.record(second)
    assert (engine.is_durable(first), [r["id"] for r in bench.journalled()]) == (True, ["a"])
    (one,) = bench.whole(engine.answer(first))
    engine.record(third)
    two, three = bench.whole([*engine.answer(second), *engine.answer(third)])
    assert [a.record["id"] for a in (one, two, three)] == ["a", "b", "c"]
    assert [feature(a.record, "card_count_1h") for a in (one, two, three)] == [1, 2, 3]
    assert [r["id"] for r in bench.journalled()] == ["a", "b", "c"]


def test_what_the_disk_stood_still_for_is_given_up_before_others_may_take_it_over(bench, monkeypatch):
    engine, syncing = bench.engine, bench.journal.syncing
    engine.limits = replace(engine.limits, record_within_ms=200)
    flights = [
        engine.begin([Inbound("transaction", transaction(id), "http")], now_ms=bench.now_ms) for id in "ab"
    ]
    with monkeypatch.context() as standing:
        standing.setattr(syncing, "done", lambda: False)
        for flight in flights:
            engine.record(flight)
        assert not any(engine.is_durable(flight) for flight in flights)
        time.sleep(0.3)
    answers = [engine.answer(flight)[0] for flight in flights]
    assert isinstance(answers[0], Decided)
    assert answers[1] == Unavailable("time")
    assert [r["id"] for r in bench.journalled()] == ["a"]
    bench.now_ms += 10_000
    (again,) = bench.decide(transaction("b"))
    assert (again.record["id"], again.replay) == ("b", False)
    assert [r["id"] for r in bench.journalled()] == ["a", "b"]


def test_what_the_disk_did_not_take_was_not_decided_and_is_found_by_whoever_asks_again(bench, monkeypatch):
    engine, syncing = bench.engine, bench.journal.syncing
    flights = [
        engine.begin([Inbound("transaction", transaction(id), "http")], now_ms=bench.now_ms) for id in "ab"
    ]
    engine.record(flights[0])
    with monkeypatch.context() as broken:

        def wait():
            raise OSError(errno.EIO, "broken")

        broken.setattr(syncing, "wait", wait)
        engine.record(flights[1])
    answers = [engine.answer(flight)[0] for flight in flights]
    assert answers == [Unavailable("journal"), Unavailable("journal")]
    bench.now_ms += 10_000
    again = bench.decide(transaction("a"), transaction("b"))
    assert [(a.record["id"], a.replay) for a in again] == [("a", True), ("b", False)]
    assert [r["id"] for r in bench.journalled()] == ["a", "b"]


def test_a_store_that_is_lost_while_a_batch_is_under_way_costs_it_the_history(tmp_path):
    bench = flaky(tmp_path)
    flight = bench.engine.begin([Inbound("transaction", transaction("a"), "http")], now_ms=bench.now_ms)
    bench.store.down = True
    (answer,) = bench.whole(bench.engine.finish(flight))
    assert (answer.record["claim"], answer.record["degraded"]) == ("unclaimed", ["features"])
    bench.store.down = False
    bench.store.inner.land()
    bench.now_ms += 10_000
    (again,) = bench.decide(transaction("a"))
    assert (again.replay, told(again)) == (True, told(answer))


def test_twins_in_one_batch(bench):
    answers = bench.decide(transaction("a"), transaction("a"), transaction("a", amount=1), transaction("b"))
    assert [type(a) for a in answers] == [Decided, Decided, Conflicting, Decided]
    assert [answers[0].replay, answers[1].replay] == [False, True]
    assert feature(answers[3].record, "card_count_1h") == 2
    assert len(bench.journalled()) == 2


@pytest.mark.parametrize(("change", "field", "code"), [
    ({"amount": -1}, "amount", "range"),
    ({"amount": 1.5}, "amount", "type"),
    ({"amount": None}, "amount", "missing"),
    ({"currency": "XXX"}, "currency", "currency"),
    ({"card": "4111111111111111"}, "card", "card_number"),
    ({"card": ""}, "card", "missing"),
    ({"time": NOW_MS + 3_600_000}, "time", "future"),
    ({"colour": "red"}, "colour", "unknown_field"),
    ({"channel": "fax"}, "channel", "unknown_value"),
])  # fmt: skip
def test_what_is_refused_leaves_no_trace(bench, change, field, code):
    refused, accepted = bench.decide(transaction("a", **change), transaction("b"))
    assert isinstance(refused, Refused)
    assert (refused.error.field, refused.error.code) == (field, code)
    assert isinstance(accepted, Decided)
    assert feature(accepted.record, "card_count_1h") == 1
    assert len(bench.journalled()) == 1


def test_an_absent_entity_gives_absent_features_never_zeros(bench):
    (answer,) = bench.decide(transaction(card=None, device=None))
    assert feature(answer.record, "card_count_1h") is None
    assert feature(answer.record, "merchant_count_1h") == 1
    assert "card" not in answer.record["entities"]


def test_late_events_are_refused_unless_they_repeat(bench):
    bench.decide(transaction("old", time=NOW_MS - 10 * 86_400_000), transaction("new"))
    (repeated,) = bench.decide(transaction("old", time=NOW_MS - 10 * 86_400_000))
    assert repeated.replay
    (late,) = bench.decide(transaction("late", time=NOW_MS - 10 * 86_400_000))
    assert late.error.code == "late"


def label(id, of, fraud=True, **changes):
    return {"label_id": id, "transaction_id": of, "time": NOW_MS, "fraud": fraud} | changes


def lifecycle(id, of, kind, **changes):
    return {"event_id": id, "transaction_id": of, "time": NOW_MS, "kind": kind} | changes


def test_labels_and_lifecycle_events_count_once_for_the_entities_of_the_decision(bench):
    bench.decide(transaction("a"))
    answers = bench.decide(label("l1", "a"), label("l1", "a"), label("l1", "a", fraud=False), kind="label")
    assert [type(a) for a in answers] == [Accepted, Accepted, Conflicting]
    (declined,) = bench.decide(lifecycle("e1", "a", "issuer_declined"), kind="event")
    assert declined.record["kind"] == "issuer_declined"
    (refund,) = bench.decide(lifecycle("e2", "a", "refunded", amount=700), kind="event")
    assert refund.record["transaction"]["amount"] == 700
    (unknown,) = bench.decide(label("l2", "nobody"), kind="label")
    assert unknown == Unknown("nobody")
    (after,) = bench.decide(transaction("b"))
    assert feature(after.record, "customer_fraud_count_30d") == 1
    assert feature(after.record, "card_issuer_declined_count_1h") == 1
    assert feature(after.record, "card_refunded_amount_sum_30d") == 700
    assert [r["type"] for r in bench.journalled()] == ["decision", "label", "event", "event", "decision"]


def test_an_event_may_follow_its_transaction_in_the_same_batch(bench):
    answers = bench.batch(
        ("transaction", transaction("a")), ("event", lifecycle("e1", "a", "issuer_declined")),
        ("transaction", transaction("b")), ("label", label("l1", "b")), ("transaction", transaction("c")),
    )  # fmt: skip
    assert all(isinstance(a, Decided | Accepted) for a in answers)
    assert feature(answers[2].record, "card_issuer_declined_count_1h") == 1
    assert feature(answers[4].record, "customer_fraud_count_30d") == 1


def test_a_label_finds_an_old_decision_in_the_query_store(bench):
    (answer,) = bench.decide(transaction("a"))
    bench.store._claims.clear()
    bench.past.down = True
    assert bench.decide(label("l1", "a"), kind="label") == [Unavailable("query_store")]
    bench.past.down = False
    bench.past.records["a"] = answer.record
    (found,) = bench.decide(label("l1", "a"), kind="label")
    assert isinstance(found, Accepted)
    assert found.record["entities"] == answer.record["entities"]


class FlakyStore:
    """A store that can be down: everything else is the memory store's."""

    def __init__(self, inner, *, loses_replies=False):
        self.inner = inner
        self.down = False
        self.loses_replies = loses_replies
        self.fails_to_complete = False

    def __getattr__(self, name):
        def call(*args, **kwargs):
            if name == "post" and self.fails_to_complete:
                raise StoreUnavailable("gone")
            if self.down and self.loses_replies and name == "depart":
                self.inner.arrive(*args, **kwargs)
            if self.down and (name in ("depart", "post") or not self.loses_replies):
                raise StoreUnavailable("down")
            return getattr(self.inner, name)(*args, **kwargs)

        return call


def flaky(tmp_path, **changes):
    bench = Bench(tmp_path, serving=model(), rules=shipped_rules())
    store = FlakyStore(bench.store, **changes)
    bench.store = bench.engine.store = bench.gauge.store = store
    return bench


def test_without_the_store_decisions_go_on_degraded_and_come_back(tmp_path):
    bench = flaky(tmp_path)
    bench.decide(transaction())
    bench.store.down = True
    small, large = bench.decide(transaction("x", amount=1_000), transaction("y", amount=20_000))
    assert small.record["degraded"] == ["features"]
    assert (small.record["claim"], small.record["score"]) == ("unclaimed", None)
    assert (small.record["outcome"], large.record["outcome"]) == ("approve", "review")
    assert large.record["winner"]["id"] == "unseen_amount"
    assert feature(small.record, "card_count_1h") is None
    assert feature(small.record, "amount") == 1_000
    stolen = bench.decide(transaction(card="cd_stolen_example"))[0]
    assert stolen.record["outcome"] == "decline"
    assert bench.decide(label("l", "x"), kind="label") == [Unavailable("store")]
    bench.store.down = False
    bench.now_ms += 10_000
    (back,) = bench.decide(transaction())
    assert back.record["degraded"] == []
    assert feature(back.record, "card_count_1h") == 2
    # What was decided without the store can be followed before the query store has it.
    (followed,) = bench.decide(label("l", "x"), kind="label")
    assert followed.record["transaction_id"] == "x"


def test_the_breaker_spares_a_store_that_is_down(tmp_path):
    bench = flaky(tmp_path)
    bench.store.down = True
    bench.decide(transaction())
    bench.store.down = False
    assert bench.decide(transaction())[0].record["degraded"] == ["features"]
    bench.now_ms += 300
    assert bench.decide(transaction())[0].record["degraded"] == []


def test_a_claim_whose_reply_was_lost_is_answered_later_and_not_decided_twice(tmp_path):
    bench = flaky(tmp_path, loses_replies=True)
    bench.store.down = True
    (first,) = bench.decide(transaction("a"))
    bench.store.down = False
    bench.now_ms += 5_000
    bench.decide(transaction("b"))
    (again,) = bench.decide(transaction("a"))
    assert (again.replay, again.record["id"]) == (True, "a")
    assert first.record["claim"] == "unclaimed"
    assert [r["id"] for r in bench.journalled()] == ["a", "b"]


def test_a_process_that_stood_still_before_it_asked_asks_once_more(tmp_path):
    """The store may not do what comes after its deadline; that it came so late was not the store's doing."""
    bench = Bench(tmp_path, serving=model(), rules=shipped_rules())

    class Slow(FlakyStore):
        stands_ms = 0

        def depart(self, arrivals, **until):
            bench.now_ms += self.stands_ms
            bench.timer_ns += self.stands_ms * 1_000_000
            self.inner.depart(arrivals, **until)

    bench.store = bench.engine.store = Slow(bench.store)
    bench.store.stands_ms = 1_000
    a, b = bench.decide(transaction("a"), transaction("b"))
    bench.store.stands_ms = 0
    (again, c) = bench.decide(transaction("a"), transaction("c"))
    assert [answer.record["degraded"] for answer in (a, b, c)] == [[], [], []]
    assert [feature(answer.record, "card_count_1h") for answer in (a, b, c)] == [1, 2, 3]
    assert (again.replay, told(again)) == (True, told(a))


def test_a_store_that_takes_longer_than_the_deadline_is_not_asked_again(tmp_path):
    bench = Bench(tmp_path, serving=model(), rules=shipped_rules())

    class Late(FlakyStore):
        def depart(self, arrivals, **until):
            bench.now_ms += 1_000
            self.inner.depart(arrivals, **until)

    bench.engine.store = Late(bench.store)
    (answer,) = bench.decide(transaction("a"))
    assert answer.record["degraded"] == ["features"]


def test_what_a_dead_process_left_open_is_answered_by_its_next_life(tmp_path):
    """It died between journal and claims; more batches follow than a taker-over looks at."""

    class Mute(FlakyStore):
        def post(self, answers):
            assert answers

    bench = flaky(tmp_path)
    bench.engine.store = Mute(bench.store)
    (first,) = bench.decide(transaction("a"))
    bench.journal.close()
    again = Bench(tmp_path, store=bench.store.inner, serving=model(), rules=shipped_rules())
    again.engine.inherit(Attempts(tmp_path).inherited("service-0"))
    again.now_ms = bench.now_ms
    for number in range(BATCHES + 1):
        again.decide(transaction(f"b{number}"))
    again.now_ms += 6_000
    bench.now_ms = again.now_ms
    (answer,) = again.decide(transaction("a"))
    assert (answer.replay, told(answer)) == (True, told(first))
    assert [r["id"] for r in again.journalled()].count("a") == 1


def test_a_broken_model_leaves_rules_and_a_limit(tmp_path):
    scorer = StepScorer()
    bench = Bench(tmp_path, serving=model(scorer), rules=shipped_rules())
    scorer.broken = True
    small, large = bench.decide(transaction(amount=1_000), transaction(amount=20_000))
    assert small.record["degraded"] == ["model"]
    assert (small.record["outcome"], large.record["outcome"]) == ("approve", "review")
    assert feature(small.record, "card_count_1h") == 1
    scorer.broken = False
    bench.now_ms += 60_000
    assert bench.decide(transaction())[0].record["degraded"] == []


def test_without_any_model(tmp_path):
    bench = Bench(tmp_path, rules=shipped_rules())
    assert bench.decide(transaction())[0].record["degraded"] == ["model"]


def test_damaged_state_costs_only_its_own_transaction_the_history(bench):
    (first,) = bench.decide(transaction("a"))
    damaged = first.record["entities"]["card"]

    class Damaging(FlakyStore):
        def depart(self, arrivals, **limits):
            self.arrivals = arrivals
            self.inner.depart(arrivals, **limits)

        def land(self):
            seen = self.inner.land()
            return [
                s._replace(states=tuple(b"rubbish" for _ in s.states))
                if any(t.pseudonym == damaged for t in a.targets) else s
                for a, s in zip(self.arrivals, seen, strict=True)
            ]  # fmt: skip

    bench.engine.store = Damaging(bench.store)
    hurt, whole = bench.decide(transaction("b"), transaction("c", card="cd_z"))
    assert (hurt.record["degraded"], whole.record["degraded"]) == (["features"], [])
    assert feature(hurt.record, "card_count_1h") is None


def test_when_the_journal_fails_nothing_is_decided_and_a_retry_recovers(tmp_path):
    bench = Bench(tmp_path, serving=model())
    os.close(bench.journal._file)  # the disk is gone
    assert bench.decide(transaction("a")) == [Unavailable("journal")]
    assert isinstance(bench.decide(transaction("a"))[0], Pending)
    bench.now_ms += 5_500
    (recovered,) = bench.decide(transaction("a"))
    assert recovered.record["claim"] == "recovered"
    assert feature(recovered.record, "card_count_1h") == 1
    assert len(bench.journalled()) == 1


def test_the_backlog_is_bounded(tmp_path):
    bench = Bench(tmp_path, serving=model(), limits=Limits(backlog_max=1))
    bench.decide(transaction())
    assert bench.decide(transaction()) == [Unavailable("backlog")]
    bench.journal.mark.shipped = 1
    assert isinstance(bench.decide(transaction())[0], Decided)


def test_a_crash_between_journal_and_claim_is_not_decided_twice(tmp_path):
    #  worker 0:  claim -> observe -> journal -> X        (the claim stays open)
    #  worker 1:                            retry: finds the record in the journal beside its own
    first = Bench(tmp_path, serving=model())
    dying = FlakyStore(first.store)
    first.engine.store = dying
    dying.fails_to_complete = True  # the process died here
    first.decide(transaction("a"))
    first.journal.close()
    second = Bench(tmp_path, serving=model(), store=first.store, worker="service-1")
    first.now_ms = second.now_ms = NOW_MS + 6_000
    (answer,) = second.decide(transaction("a"))
    assert (answer.replay, answer.record["claim"]) == (True, "new")
    assert second.journalled() == []
    second.decide(transaction("b"))
    assert second.decide(transaction("a"))[0].replay


@pytest.mark.parametrize("id", ["plain", 'quo"ted', "back\\slash", "ümläut", "id with spaces"])
def test_attempts_are_found_by_any_id(tmp_path, id):
    bench = Bench(tmp_path, serving=model())
    bench.decide(transaction("before"), transaction(id), transaction("after"))
    bench.decide(label("l1", id), kind="label")
    found = bench.engine.attempts.find([f"tx:{id}", "label:l1", "tx:none", "label:before"])
    assert set(found) == {f"tx:{id}", "label:l1"}
    assert found[f"tx:{id}"].record["id"] == id
    assert found["label:l1"].record["transaction_id"] == id


def test_a_batch_that_was_written_but_not_called_durable_is_found(tmp_path):
    bench = Bench(tmp_path, serving=model())
    bench.decide(transaction("a"))
    segment, durable = bench.journal.mark.durable
    bench.decide(transaction("b"))
    bench.journal.mark.advance(segment, durable, 1)  # the process died between the two
    assert set(bench.engine.attempts.find(["tx:a", "tx:b"])) == {"tx:a", "tx:b"}


def test_what_nobody_finished_is_recorded_as_abandoned_and_answers_a_late_retry(tmp_path):
    first = Bench(tmp_path, serving=model())
    os.close(first.journal._file)  # the disk is gone
    first.decide(transaction("a"))
    second = Bench(tmp_path, serving=model(), store=first.store, worker="service-1")
    second.now_ms = NOW_MS + 30_000
    assert second.engine.sweep(now_ms=second.now_ms) == 0
    second.now_ms = NOW_MS + 61_000
    assert second.engine.sweep(now_ms=second.now_ms) == 1
    assert second.engine.sweep(now_ms=second.now_ms) == 0
    (record,) = second.journalled()
    assert (record["type"], record["claim"], record["outcome"]) == ("abandoned", "recovered", "approve")
    (late,) = second.decide(transaction("a"))
    assert (late.replay, late.record["type"]) == (True, "abandoned")


def test_an_abandoned_label_is_recorded_as_the_label_it_is(tmp_path):
    first = Bench(tmp_path, serving=model())
    first.decide(transaction("a"))
    os.close(first.journal._file)  # the disk is gone
    first.decide(label("l1", "a"), kind="label")
    second = Bench(tmp_path, serving=model(), store=first.store, worker="service-1")
    second.now_ms = NOW_MS + 61_000
    assert second.engine.sweep(now_ms=second.now_ms) == 1
    assert [r["type"] for r in second.journalled()] == ["label"]


def test_the_fast_lane_can_be_off(tmp_path):
    bench = Bench(tmp_path, serving=model(), observe=False)
    answers = bench.decide(transaction(), transaction())
    assert [feature(a.record, "card_count_1h") for a in answers] == [1, 1]
    assert answers[0].record["order"] == {}
    assert bench.decide(transaction("x"))[0].record["claim"] == "new"


def test_a_store_that_lost_its_state_is_declared(tmp_path):
    bench = Bench(tmp_path, serving=model())
    bench.decide(transaction())

    class Restarted(FlakyStore):
        def generation(self):
            return "another"

    bench.gauge.store = Restarted(bench.store)
    assert bench.decide(transaction())[0].record["degraded"] == ["rebuilding"]
    bench.judge.policy = replace(bench.judge.policy, stale="review")
    record = bench.decide(transaction())[0].record
    assert (record["outcome"], record["winner"]["id"]) == ("review", "state_rebuilding")
    bench.judge.policy = Policy("p", 10_000, "rules_only")
    assert bench.decide(transaction())[0].record["score"] is None


def test_the_journal_of_a_busy_engine_verifies(tmp_path):
    bench = Bench(tmp_path, serving=model(), rules=shipped_rules())
    for _ in range(20):
        bench.decide(*[transaction() for _ in range(7)])
    assert verify(bench.journal.directory).records == 140
