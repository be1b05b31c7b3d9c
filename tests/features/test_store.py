"""What an online store does, whichever it is: in memory, on one Valkey node (with the module, without), on a
cluster of three."""

import select
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from random import Random
from time import monotonic

import pytest

from cordon.stack.valkey import Valkey
from features.handbook import CATALOGUE
from features.library import Keys, watermark_field, watermark_value
from features.resp import Address, Connection
from features.state import Assertion, State
from features.store import Claim, OnlineStore, Status
from features.tier import DAY, HOUR, MINUTE
from tests.features.stores import (
    NOON,
    TENANT,
    Backend,
    arrive,
    cluster_url,
    memory,
    number,
    pseudonym,
    purchase,
    server,
    slots,
    state,
    wall_ms,
    writer,
)
from tests.parts import RunningCluster

TAKEOVER_MS = 2_000
LAYOUT = CATALOGUE.layouts["customer"]
COUNT = 0
KEYS = Keys(TENANT, CATALOGUE.state_fingerprint)


def backend_of(kind: str, request: pytest.FixtureRequest) -> Backend:
    if kind == "memory":
        return memory()
    if kind in ("unix", "lua"):
        valkey: Valkey = request.getfixturevalue("valkey" if kind == "unix" else "valkey_lua")
        return server(f"unix://{valkey.socket}")
    if kind == "tcp":
        return server(request.getfixturevalue("valkey").url)
    cluster: RunningCluster = request.getfixturevalue("redis_cluster")
    return server(cluster_url([node.port for node in cluster.nodes]))


@pytest.fixture(params=["memory", "unix", "lua", "cluster"])
def backend(request: pytest.FixtureRequest) -> Backend:
    return backend_of(request.param, request)


@pytest.fixture(params=["tcp", "cluster"])
def shared(request: pytest.FixtureRequest) -> Backend:
    """Stores that several processes reach."""
    return backend_of(request.param, request)


@pytest.fixture
def store(backend: Backend):
    opened = backend.open(TAKEOVER_MS)
    yield opened
    opened.close()


@pytest.fixture
def raw(valkey: Valkey):
    connection = Connection(Address.parse(valkey.url))
    yield connection
    connection.close()


def test_a_new_event_is_claimed_and_observed_and_the_state_before_it_comes_back(store: OnlineStore) -> None:
    first = arrive(store, purchase("a"))[0]
    assert (first.status, first.states, first.numbers) == (Status.NEW, (None, None), (1, 1))
    assert first.repeated == (False, False)
    after = store.read("customer", [pseudonym("anna")])
    second = arrive(store, purchase("b"))[0]
    assert second.states[0] == after[0]
    assert second.numbers == (2, 2)
    claim = store.claim("tx:a")
    assert claim is not None
    assert (claim.answer, claim.payload, claim.owner) == (None, b"payload of a", b"first attempt 00")


def test_same_id_and_content_is_answered_with_the_stored_answer(store: OnlineStore) -> None:
    event = purchase("a")
    arrive(store, event)
    assert store.complete([(event.key, event.owner, b"approve")]) == [True]
    again = arrive(store, purchase("a", owner=b"second attempt 0"))[0]
    assert (again.status, again.answer, again.states) == (Status.REPLAY, b"approve", ())
    assert state(store, "customer", "anna").n == 1
    claim = store.claim("tx:a")
    assert claim is not None
    assert (claim.answer, claim.payload) == (b"approve", None)


def test_a_posted_answer_is_there_for_the_next_call_and_its_fate_is_told_once(store: OnlineStore) -> None:
    events = [purchase("a"), purchase("b")]
    arrive(store, *events)
    store.post([(events[0].key, events[0].owner, b"approve"), (events[1].key, b"somebody else 00", b"no")])
    assert arrive(store, events[0])[0].answer == b"approve"
    store.post([(events[1].key, events[1].owner, b"decline")])
    assert store.posted(wait=True) == [True, False, True]
    assert store.posted(wait=True) == []
    found = store.claims([event.key for event in events])
    assert [claim.answer for claim in found if claim] == [b"approve", b"decline"]
    assert store.open_claims(wall_ms() + 1_000, 5) == []


def test_what_was_posted_is_told_only_when_it_is_known_and_nobody_waits(store: OnlineStore) -> None:
    events = [purchase("a"), purchase("b")]
    arrive(store, *events)
    store.post([(events[0].key, events[0].owner, b"approve")])
    told = store.posted()
    # A store that answers at once may know it already; one further call, and every store does.
    assert told in ([], [True])
    assert arrive(store, events[0])[0].answer == b"approve"
    store.post([(events[1].key, events[1].owner, b"approve")])
    assert [*told, *store.posted(wait=True)] == [True, True]


def test_flushed_answers_reach_another_client_without_a_further_call(shared: Backend) -> None:
    mine, other = shared.open(TAKEOVER_MS), shared.open(TAKEOVER_MS)
    events = [purchase(f"e{i}") for i in range(50)]
    arrive(mine, *events)
    mine.post([(event.key, event.owner, b"x" * 4_000) for event in events])
    mine.flush()
    until_s = monotonic() + 5
    while any(claim is None or claim.answer is None for claim in other.claims([e.key for e in events])):
        assert monotonic() < until_s
    mine.close()
    other.close()


def test_batches_land_in_the_order_of_departure_whatever_is_asked_in_between(store: OnlineStore) -> None:
    now_ms = wall_ms()
    limits = {"now_ms": now_ms, "deadline_ms": now_ms + 5_000}
    first, second = [purchase("a"), purchase("b")], [purchase("a"), purchase("c")]
    store.depart(first, **limits)
    store.depart(second, **limits)
    assert arrive(store, purchase("d"))[0].numbers == (4, 4)
    store.post([(event.key, event.owner, b"approve") for event in first])
    assert store.read("customer", [pseudonym("anna")]) != [None]
    assert [seen.numbers for seen in store.land()] == [(1, 1), (2, 2)]
    assert [(seen.status, seen.numbers) for seen in store.land()] == [
        (Status.PENDING, ()),
        (Status.NEW, (3, 3)),
    ]
    assert store.posted(wait=True) == [True, True]
    assert arrive(store, first[0])[0].answer == b"approve"


def test_who_waits_at_the_descriptor_hears_when_a_batch_has_landed(store: OnlineStore) -> None:
    now_ms = wall_ms()
    events = [purchase(f"e{i}") for i in range(200)]
    until_s = monotonic() + 5
    for batch in (events, events[:1]):
        store.depart(batch, now_ms=now_ms, deadline_ms=now_ms + 5_000)
        while not store.landed():
            assert store.descriptor is not None
            assert select.select([store.descriptor], [], [], until_s - monotonic())[0]
        assert len(store.land()) == len(batch)
    assert store.landed()
    if store.descriptor is not None:
        assert not select.select([store.descriptor], [], [], 0)[0]
        # Somebody else's question takes the replies in: whoever waits at the descriptor hears of it.
        store.depart(events, now_ms=now_ms, deadline_ms=now_ms + 5_000)
        assert store.claim("tx:none") is None
        assert select.select([store.descriptor], [], [], 0)[0]
        assert store.landed()
        assert not select.select([store.descriptor], [], [], 0)[0]
        assert len(store.land()) == len(events)


def test_what_is_inquired_comes_with_the_next_batch_and_once(store: OnlineStore) -> None:
    assert store.inquired() is None
    store.inquire()
    arrive(store, purchase("a"))
    assert store.inquired() == (store.rebuilding(), store.watermark())
    assert store.inquired() is None


def test_an_empty_answer_is_an_answer(store: OnlineStore) -> None:
    event = purchase("a")
    arrive(store, event)
    assert store.complete([(event.key, event.owner, b"")]) == [True]
    assert arrive(store, event)[0].answer == b""


@pytest.mark.parametrize("answered", [True, False])
def test_same_id_with_other_content_is_a_conflict_and_changes_nothing(
    store: OnlineStore, answered: bool
) -> None:
    event = purchase("a")
    arrive(store, event)
    if answered:
        store.complete([(event.key, event.owner, b"approve")])
    held = store.claim("tx:a")
    other = arrive(store, purchase("a", amount=7), now_ms=wall_ms() + 2 * TAKEOVER_MS)[0]
    assert (other.status, other.answer, other.states) == (Status.CONFLICT, None, ())
    assert store.claim("tx:a") == held
    assert state(store, "customer", "anna").n == 1


def test_while_the_first_attempt_decides_the_second_waits(store: OnlineStore) -> None:
    now_ms = wall_ms()
    arrive(store, purchase("a"), now_ms=now_ms)
    second = purchase("a", owner=b"second attempt 0")
    assert arrive(store, second, now_ms=now_ms + TAKEOVER_MS - 1)[0].status is Status.PENDING
    claim = store.claim("tx:a")
    assert claim is not None
    assert claim.owner == b"first attempt 00"


def test_an_open_claim_is_taken_over_and_the_event_not_counted_again(store: OnlineStore) -> None:
    now_ms = wall_ms()
    first = purchase("a")
    arrive(store, first, now_ms=now_ms)
    arrive(store, purchase("b"), now_ms=now_ms)
    second = purchase("a", owner=b"second attempt 0")
    taken = arrive(store, second, now_ms=now_ms + TAKEOVER_MS)[0]
    assert taken.status is Status.RECOVERED
    assert taken.repeated == (True, True)
    assert taken.numbers == (2, 2)
    assert taken.states[0] == store.read("customer", [pseudonym("anna")])[0]
    assert state(store, "customer", "anna").n == 2
    assert store.complete([(first.key, first.owner, b"late"), (second.key, second.owner, b"mine")]) == [
        False,
        True,
    ]
    claim = store.claim("tx:a")
    assert claim is not None
    assert (claim.answer, claim.claimed_ms) == (b"mine", now_ms + TAKEOVER_MS)


def test_an_answer_from_a_client_that_did_not_claim_keeps_content_and_time(backend: Backend) -> None:
    now_ms = wall_ms()
    claiming, answering = backend.open(TAKEOVER_MS), backend.open(TAKEOVER_MS)
    event = purchase("a")
    arrive(claiming, event, now_ms=now_ms)
    assert answering.complete([(event.key, b"nobody's owner 0", b"forged")]) == [False]
    assert answering.complete([(event.key, event.owner, b"done")]) == [True]
    claim = claiming.claim(event.key)
    assert claim == Claim(event.content, event.owner, now_ms, b"done", None)
    assert answering.complete([("tx:nobody", event.owner, b"done")]) == [False]
    assert claiming.claim("tx:nobody") is None
    claiming.close()
    answering.close()


def test_an_answer_keeps_the_time_of_the_claim_that_is_held(backend: Backend) -> None:
    """The client's own last claim was refused, or taken over by the same owner elsewhere."""
    now_ms = wall_ms()
    one, other = backend.open(TAKEOVER_MS), backend.open(TAKEOVER_MS)
    event = purchase("a")
    assert arrive(one, event, now_ms=now_ms)[0].status is Status.NEW
    assert arrive(one, event, now_ms=now_ms + 1)[0].status is Status.PENDING
    assert arrive(other, event, now_ms=now_ms + TAKEOVER_MS)[0].status is Status.RECOVERED
    assert one.complete([(event.key, event.owner, b"done")]) == [True]
    assert one.claim(event.key) == Claim(event.content, event.owner, now_ms + TAKEOVER_MS, b"done", None)
    # Another owner's claim for the same content, and this client still asked last.
    second = purchase("b")
    arrive(one, second, now_ms=now_ms)
    taken = purchase("b", owner=b"second attempt 0")
    arrive(other, taken, now_ms=now_ms + TAKEOVER_MS)
    assert one.complete([(second.key, second.owner, b"late")]) == [False]
    assert other.complete([(taken.key, taken.owner, b"done")]) == [True]
    assert one.claim(second.key) == Claim(taken.content, taken.owner, now_ms + TAKEOVER_MS, b"done", None)
    one.close()
    other.close()


def test_an_attempt_that_had_not_observed_is_observed_by_the_one_that_takes_over(store: OnlineStore) -> None:
    now_ms = wall_ms()
    arrive(store, purchase("a", observe=False), now_ms=now_ms)
    taken = arrive(store, purchase("a", owner=b"second attempt 0"), now_ms=now_ms + TAKEOVER_MS)[0]
    assert (taken.status, taken.repeated, taken.numbers) == (Status.RECOVERED, (False, False), (1, 1))


def test_after_its_deadline_an_arrival_changes_nothing(store: OnlineStore) -> None:
    arrive(store, purchase("warm up", customer="bob"))
    now_ms = wall_ms()
    late = store.arrive([purchase("a")], now_ms=now_ms, deadline_ms=now_ms - 1)[0]
    assert (late.status, late.states) == (Status.EXPIRED, ())
    assert store.claim("tx:a") is None
    assert store.read("customer", [pseudonym("anna")]) == [None]


def test_one_batch_may_hold_an_entity_twice(store: OnlineStore) -> None:
    results = arrive(store, purchase("a"), purchase("b", customer="bob"), purchase("c", amount=500))
    assert [r.numbers for r in results] == [(1, 1), (1, 2), (2, 3)]
    assert results[2].states[0] is not None
    assert State.decode(LAYOUT, results[2].states[0]).n == 1
    tile = slots(store, "customer", "anna", 0)[NOON // MINUTE]
    assert tile[LAYOUT.tiers[0].index(COUNT)] == 2


def test_one_batch_may_hold_an_event_twice(store: OnlineStore) -> None:
    results = arrive(store, purchase("a"), purchase("a", owner=b"second attempt 0"), purchase("a", amount=3))
    assert [r.status for r in results] == [Status.NEW, Status.PENDING, Status.CONFLICT]
    assert state(store, "customer", "anna").n == 1


def test_an_empty_batch_is_nothing(store: OnlineStore) -> None:
    assert arrive(store) == []
    assert store.complete([]) == []
    assert store.read("customer", []) == []


def test_with_the_fast_lane_off_events_are_claimed_and_states_read_only(store: OnlineStore) -> None:
    store.merge("customer", [(pseudonym("anna"), Assertion(heads=(NOON,)))])
    seen = arrive(store, purchase("a", observe=False))[0]
    assert (seen.status, seen.numbers, seen.repeated) == (Status.NEW, (0, 0), (False, False))
    assert seen.states == (store.read("customer", [pseudonym("anna")])[0], None)
    assert state(store, "customer", "anna").n == 0


def test_an_event_without_entities_is_claimed(store: OnlineStore) -> None:
    event = purchase("a")
    bare = type(event)(event.key, event.content, event.owner, event.payload, ())
    assert arrive(store, bare)[0].status is Status.NEW
    assert arrive(store, bare)[0].status is Status.PENDING


def test_absent_is_none(store: OnlineStore) -> None:
    arrive(store, purchase("a"))
    assert store.claim("tx:nobody") is None
    known, unknown = store.read("customer", [pseudonym("anna"), pseudonym("nobody")])
    assert known is not None
    assert unknown is None


def test_ids_may_hold_any_text(store: OnlineStore) -> None:
    for name in ("a b", "a}{b", "ü\r\nGET x", "", "tx:tx:"):
        event = purchase(name)
        assert arrive(store, event)[0].status is Status.NEW
        assert store.complete([(event.key, event.owner, name.encode())]) == [True]
        assert arrive(store, event)[0].answer == name.encode()


def asserted(rng: Random) -> Assertion:
    tiles = [
        (tier, NOON // length + rng.randrange(-2, 3), tuple(rng.randrange(2**63) for _ in LAYOUT.tiers[tier]))
        for tier, length in enumerate((MINUTE, HOUR, DAY))
        for _ in range(rng.randrange(3))
    ]
    seen = [(0, rng.randrange(1, 9), NOON - rng.randrange(DAY)) for _ in range(rng.randrange(4))]
    return Assertion((NOON - rng.randrange(DAY),), tuple(tiles), tuple(seen))


@pytest.mark.parametrize("seed", range(5))
def test_merging_is_idempotent_commutative_and_associative(store: OnlineStore, seed: int) -> None:
    rng = Random(seed)
    parts = [asserted(rng) for _ in range(6)]
    who = [pseudonym(f"{seed} {i}") for i in range(4)]
    whole = Assertion(
        (max(p.heads[0] for p in parts),),
        tuple(t for p in parts for t in p.tiles),
        tuple(s for p in parts for s in p.seen),
    )
    store.merge("customer", [(who[0], p) for p in parts])
    store.merge("customer", [(who[1], p) for p in reversed(parts)])
    store.merge("customer", [(who[2], p) for p in [*parts, *parts[::2], *parts]])
    store.merge("customer", [(who[3], whole)])
    states = store.read("customer", who)
    assert states[0] is not None
    assert states == [states[0]] * 4


def test_a_value_never_goes_backwards(store: OnlineStore) -> None:
    for i in range(3):
        arrive(store, purchase(f"p{i}", time_ms=NOON + i, amount=100))
    before = store.read("customer", [pseudonym("anna")])[0]
    tile = NOON // MINUTE
    fewer = tuple(int(i == LAYOUT.tiers[0].index(COUNT)) for i in range(len(LAYOUT.tiers[0])))
    lower = Assertion((NOON,), ((0, tile, fewer),), ((0, number("till"), NOON),))
    store.merge("customer", [(pseudonym("anna"), lower)])
    assert store.read("customer", [pseudonym("anna")])[0] == before
    higher = Assertion((), ((0, tile, (9,) * len(LAYOUT.tiers[0])),))
    store.merge("customer", [(pseudonym("anna"), higher)])
    assert slots(store, "customer", "anna", 0)[tile][LAYOUT.tiers[0].index(COUNT)] == 9
    assert state(store, "customer", "anna").n == 3


@pytest.mark.parametrize("held", [2**53 - 1, 2**53, 2**53 + 1, 2**62 + 12_345, 2**32 - 1, 2**63 - 2**33 - 1])
def test_slots_are_exact_beyond_doubles(store: OnlineStore, held: int) -> None:
    tile, amount = NOON // MINUTE, 2**27 + 3
    measures = [LAYOUT.measures[m] for m in LAYOUT.tiers[0]]
    holding = Assertion((), ((0, tile, (held,) * len(measures)),))
    store.merge("customer", [(pseudonym("anna"), holding)])
    arrive(store, purchase("a", amount=amount), purchase("fresh", amount=amount, customer="bob"))
    deltas = [m.delta("transaction", {"amount": amount}) for m in measures]
    grown = [held + d if m.grows_by == "add" else max(held, d) for m, d in zip(measures, deltas, strict=True)]
    assert slots(store, "customer", "anna", 0)[tile] == grown
    assert slots(store, "customer", "bob", 0)[tile] == deltas
    store.merge("customer", [(pseudonym("bob"), holding)])
    assert slots(store, "customer", "bob", 0)[tile] == [max(held, d) for d in deltas]


def test_a_map_keeps_its_most_recent_values_only(store: OnlineStore) -> None:
    bound = LAYOUT.maps[0].bound
    events = [purchase(f"p{i}", time_ms=NOON + i, terminal=f"t{i}") for i in range(bound + 5)]
    arrive(store, *events)
    arrive(store, purchase("again", time_ms=NOON + 999, terminal="t5"))
    kept = state(store, "customer", "anna").maps[0]
    assert len(kept) == bound
    assert number("t4") not in kept
    assert kept[number("t5")] == NOON + 999
    beyond_ms = NOON + 999 + LAYOUT.maps[0].horizon_ms + 1
    arrive(store, purchase("later", time_ms=beyond_ms, terminal="new"))
    assert state(store, "customer", "anna").maps[0] == {number("new"): beyond_ms}


def test_a_late_event_does_not_make_a_value_look_older(store: OnlineStore) -> None:
    arrive(store, purchase("a"), purchase("b", time_ms=NOON - HOUR))
    kept = state(store, "customer", "anna")
    assert kept.maps[0] == {number("till"): NOON}
    assert kept.heads == [NOON]
    assert kept.newest_ms == NOON
    assert sorted(kept.tiers[0]) == [(NOON - HOUR) // MINUTE, NOON // MINUTE]


def test_tiles_are_dropped_once_no_window_reaches_them(store: OnlineStore) -> None:
    arrive(store, *[purchase(f"p{i}", time_ms=NOON + i * MINUTE) for i in range(5)])
    later_ms = NOON + LAYOUT.keep_ms[0] + 2 * MINUTE
    arrive(store, purchase("later", time_ms=later_ms))
    kept = state(store, "customer", "anna")
    oldest = LAYOUT.oldest(0, later_ms)
    assert oldest == NOON // MINUTE + 2
    assert sorted(kept.tiers[0]) == [oldest, oldest + 1, oldest + 2, later_ms // MINUTE]
    assert kept.tiers[2][NOON // DAY][LAYOUT.tiers[2].index(COUNT)] == 6
    # An event before that leaves its number, no tile.
    arrive(store, purchase("lost", time_ms=NOON))
    assert NOON // MINUTE not in slots(store, "customer", "anna", 0)
    assert state(store, "customer", "anna").n == 7


def test_open_claims_are_found_oldest_first(store: OnlineStore) -> None:
    now_ms = wall_ms()
    for i in range(4):
        arrive(store, purchase(f"p{i}"), now_ms=now_ms + i)
    store.complete([("tx:p1", b"first attempt 00", b"done")])
    arrive(store, purchase("p1"), now_ms=now_ms + 2)
    found = store.open_claims(now_ms + 3, 10)
    assert [key for key, _ in found] == ["tx:p0", "tx:p2"]
    assert found[0][1].payload == b"payload of p0"
    assert [key for key, _ in store.open_claims(now_ms + 3, 1)] == ["tx:p0"]
    assert store.open_claims(now_ms, 10) == []
    store.complete([(key, claim.owner, b"abandoned") for key, claim in found])
    assert [key for key, _ in store.open_claims(now_ms + 10, 10)] == ["tx:p3"]


def test_many_answered_claims_do_not_hide_an_open_one(store: OnlineStore) -> None:
    now_ms = wall_ms()
    events = [purchase(f"p{i}") for i in range(600)]
    arrive(store, *events, now_ms=now_ms - 5)
    arrive(store, purchase("open"), now_ms=now_ms - 1)
    store.complete([(e.key, e.owner, b"done") for e in events])
    # Replays note the claims once more; nobody strikes them off.
    arrive(store, *events, now_ms=now_ms - 4)
    assert [key for key, _ in store.open_claims(now_ms, 10)] == ["tx:open"]


def test_deleted_states_are_gone(store: OnlineStore) -> None:
    arrive(store, purchase("a"), purchase("b", customer="bob"))
    assert store.delete("customer", [pseudonym(n) for n in ("anna", "nobody")]) == 1
    assert store.read("customer", [pseudonym("anna")]) == [None]
    assert state(store, "customer", "bob").n == 1
    assert arrive(store, purchase("c"))[0].numbers == (1, 3)


def test_generation_is_one_for_all_clients_as_long_as_the_store_lives(backend: Backend) -> None:
    first, second = backend.open(TAKEOVER_MS), backend.open(TAKEOVER_MS)
    arrive(first, purchase("a"))
    named = first.generation()
    assert named
    assert " " not in named
    assert second.generation() == named
    arrive(second, purchase("b"))
    assert first.generation() == second.generation() == named
    first.close()
    second.close()


def test_nobody_has_asserted_anything_yet(store: OnlineStore) -> None:
    assert store.watermark() == {}


def test_watermarks_are_read_by_topic_and_partition(valkey: Valkey, raw: Connection) -> None:
    store = server(valkey.url).open(TAKEOVER_MS)
    raw.call("HSET", KEYS.watermark, watermark_field("a:b", 3), watermark_value("life", 12, NOON, 99))
    assert store.watermark() == {("a:b", 3): ("life", 12, NOON, 99)}
    store.close()


def test_claims_expire_after_a_day_and_states_do_not(valkey: Valkey, raw: Connection) -> None:
    store = server(valkey.url).open(TAKEOVER_MS)
    event = purchase("a")
    arrive(store, event)
    lifetimes = [raw.call("TTL", KEYS.claim("tx:a"))]
    store.complete([(event.key, event.owner, b"done")])
    lifetimes.append(raw.call("TTL", KEYS.claim("tx:a")))
    assert all(isinstance(t, int) and 86_390 <= t <= 86_400 for t in lifetimes)
    assert raw.call("TTL", KEYS.state("customer", pseudonym("anna"))) == -1
    store.close()


def check_shared(store: OnlineStore, count: int, finals: list[str]) -> None:
    statuses = Counter(finals)
    assert statuses == {"new": count, "replay": len(finals) - count}
    for i in range(3):
        mine = [n + 1 for n in range(count) if n % 3 == i]
        held = state(store, "customer", f"c{i}")
        assert held.n == len(mine)
        day = held.tiers[2][NOON // DAY]
        assert day[LAYOUT.tiers[2].index(COUNT)] == len(mine)
        for place, measure in enumerate(LAYOUT.tiers[2]):
            spec = LAYOUT.measures[measure]
            if spec.source == "transaction" and spec.aggregate in ("sum", "sumsq"):
                power = 1 if spec.aggregate == "sum" else 2
                assert day[place] == sum(n**power for n in mine)


@pytest.mark.parametrize("make", [
    lambda: ThreadPoolExecutor(4),
    lambda: ProcessPoolExecutor(3, mp_context=get_context("spawn")),
], ids=["threads", "processes"])  # fmt: skip
def test_several_writers_count_each_event_once(
    shared: Backend, make: Callable[[], ThreadPoolExecutor]
) -> None:
    count = 240
    with make() as pool:
        jobs = [
            pool.submit(writer, shared.url, 0, count, 7 + i, f"writer {i}".ljust(16).encode())
            for i in range(3)
        ]
        finals = [status for job in jobs for status in job.result(60)[0]]
    store = shared.open(TAKEOVER_MS)
    assert len(finals) == 3 * count
    check_shared(store, count, finals)
    assert store.open_claims(wall_ms() + 1_000, 10) == []
    store.close()
